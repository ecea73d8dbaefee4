"""`KafkaTransport`: the contract's words for Apache Kafka."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

from commons_events.errors import (
    ConfigurationError,
    InvalidTopicError,
    UnknownPartitionError,
)
from commons_events.kafka._admin import KafkaAdmin
from commons_events.kafka._browser import Browser
from commons_events.kafka._publisher import Publisher
from commons_events.kafka._settings import KafkaSettings
from commons_events.kafka._subscription import KafkaSubscription
from commons_events.kafka._topics import check_topic
from commons_events.kafka._transactions import KafkaTransaction, Transactions
from commons_events.message import Headers, Message, PublishResult
from commons_events.transport import (
    CONTRACT_VERSION,
    Capabilities,
    ConnectedTransport,
    StoredMessage,
    SubscribeRequest,
    TopicInfo,
    TransportSettings,
    check_topic_name,
)

__all__ = ["KafkaTransport"]


class KafkaTransport(ConnectedTransport):
    """A connection to a Kafka cluster: ``kafka://host:9092,other:9092?option=value``.

    Options are librdkafka's settings, in the URL's query or in ``options``; `OWN` lists ours. Belongs to the event loop
    of its first use. A topic that starts with ``^`` is, for subscribing, a regular expression.

    Args:
        url: the address.
        options: settings in librdkafka's words.

    Raises:
        ConfigurationError: a setting is unknown or wrong; the message names the nearest right one.
    """

    name: ClassVar[str] = "kafka"
    header_prefix: ClassVar[str] = "ce_"

    def __init__(self, url: str = "kafka://localhost:9092", **options: object) -> None:
        self._open(TransportSettings(url=url, options=options))

    def _open(self, settings: TransportSettings) -> None:
        super()._open(settings)
        self._settings = KafkaSettings.of(settings)
        self.admin = KafkaAdmin.from_settings(self._settings)
        """Topics, configurations and groups of the same cluster."""
        self._browser = Browser(self._settings)
        self.publisher: Publisher | None = None
        """What `publish` hands messages to, once there was one."""
        self._transactions: Transactions | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What holds on Kafka with these settings."""
        options = self._settings.options
        safe = str(options.get("acks", "all")).lower() in ("all", "-1")
        return Capabilities(
            contract=CONTRACT_VERSION,
            ordering="key",
            durability="broker" if safe else "process",
            consumer_groups=True,
            new_group_start="earliest",
            redelivery=True,
            redelivery_delay=True,
            # Counted by who has the partition: Kafka keeps no count that another member could go on with.
            attempts="member",
            # A log has one position a group and partition: what was finished behind it comes again with the rest.
            settles_each=False,
            publish_delay=False,
            pause=True,
            seek=True,
            browse=True,
            declare=True,
            transactions=True,
            binary_headers=True,
            repeated_headers=True,
            binary_keys=True,
            tombstones=True,
            # Messages leave a topic by retention, whether anybody read them or not: it is never full.
            back_pressure=False,
            max_message_bytes=self._settings.max_message_bytes,
        )

    def check_topic(self, topic: str) -> None:
        """Kafka's rule: 1 to 249 of ``A-Z a-z 0-9 . _ -``; or ``^`` and a regular expression, for subscribing."""
        check_topic_name(topic)
        if not topic.startswith("^"):
            check_topic(topic)
            return
        try:
            re.compile(topic)
        except re.error as error:
            raise InvalidTopicError(f"The topic pattern {topic!r} is no regular expression: {error}.") from error

    def check_target(self, topic: str) -> None:
        """See `Transport.check_target`: as `check_topic`, without the patterns."""
        check_topic(topic)

    def receives(self, subscribed: str, topic: str) -> bool:
        """See `Transport.receives`: a pattern matches as it is read here; the broker's may differ in what is rare."""
        if not subscribed.startswith("^"):
            return subscribed == topic
        match = re.fullmatch if self._settings.options.get("group.protocol") == "consumer" else re.match
        return match(subscribed, topic) is not None

    # --- publishing ------------------------------------------------------------------------------------------------

    def room(self) -> Awaitable[object] | None:
        """See `Transport.room`: the last of the messages that wait for room in librdkafka's queue."""
        return None if self.publisher is None else self.publisher.room()

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        """See `Transport.publish`. Where librdkafka's queue is full messages wait, as many again as it holds."""
        return self.publishing().publish(messages, self.check_topic)

    def publish_values(
        self, topic: str, values: Sequence[bytes], key: bytes | None, headers: Headers
    ) -> asyncio.Future[Sequence[PublishResult]]:
        """As `publish`, for messages that differ in their values alone; all of them have to be within the limit."""
        return self.publishing().publish_values(topic, values, key, headers, self.check_topic)

    def publishing(self, loop: asyncio.AbstractEventLoop | None = None) -> Publisher:
        """What messages are handed to.

        Args:
            loop: the running one, where it is known already; to ask for it takes a system call.
        """
        publisher = self.publisher
        if publisher is None or not publisher.takes or (loop or asyncio.get_running_loop()) is not self._loop:
            self._check_usable()
            publisher = self.publisher = publisher or Publisher(self._settings)
        return publisher

    async def give_up(self, seconds: float | None) -> int:
        """Wait for the messages of `Publisher.send_one`; returns how many were not confirmed within ``seconds``."""
        return 0 if self.publisher is None else await self.publisher.give_up(seconds)

    def transaction(self) -> AbstractAsyncContextManager[KafkaTransaction]:
        """See `Transactional`. One at a time: others wait for the end of the one that is open.

        The ``transactional.id`` is the option of that name, else one that is made up: give one that stays the same over
        restarts, so that a transaction which a dead process left open is aborted at once.
        """
        return self._transactional().begin()

    async def open_transactions(self) -> None:
        """End what a predecessor of the same ``transactional.id`` has left open, where one is given.

        Raises:
            TransactionError: that failed; TransactionAbortedError where no broker answered.
            AuthenticationError: the brokers refused the sign-in.
        """
        if "transactional.id" in self._settings.options:
            await self._transactional().open()

    def _transactional(self) -> Transactions:
        self._check_usable()
        if self._transactions is None:
            self._transactions = Transactions(self._settings, self.check_topic)
        return self._transactions

    # --- receiving -------------------------------------------------------------------------------------------------

    async def subscribe(self, request: SubscribeRequest) -> KafkaSubscription:
        """See `Transport.subscribe`.

        Raises:
            UnknownTopicError: a topic is not there, and is not to be made (``allow.auto.create.topics``).
            ConnectionLostError: no broker answered within ``connect.timeout.ms``.
            AuthorizationError: the group or a topic is not allowed.
        """
        self._check_usable()
        if not request.topics:
            raise ConfigurationError("A subscription needs at least one topic.")
        for topic in request.topics:
            self.check_topic(topic)
            if request.group_id is None and topic.startswith("^"):
                raise ConfigurationError(f"The topic pattern {topic!r} needs a group_id; without one, name the topics.")
        return await self._begin(KafkaSubscription(self, self._settings, request))

    # --- what only some brokers can ----------------------------------------------------------------------------------

    async def browse(self, topic: str, *, partition: int, offset: int = 0, limit: int = 100) -> Sequence[StoredMessage]:
        """See `Browsable`."""
        self._check_usable()
        self.check_topic(topic)
        found = await self.admin.topic(topic)
        if not 0 <= partition < found.partitions:
            raise UnknownPartitionError(f"Topic {topic!r} has partitions 0 to {found.partitions - 1}, not {partition}.")
        return await self._browser.read(topic, partition, offset, limit)

    async def declare(self, topic: str, *, partitions: int | None = None) -> TopicInfo:
        """See `Declaring`; `admin` can also set replicas and the topic's configuration."""
        self._check_usable()
        self.check_topic(topic)
        return await self.admin.create_topic(topic, partitions=partitions)

    async def topics(self) -> Sequence[TopicInfo]:
        """See `Declaring`."""
        self._check_usable()
        return await self.admin.topics()

    async def delete(self, topic: str) -> None:
        """See `Declaring`."""
        self._check_usable()
        await self.admin.delete_topic(topic)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """See `Transport.flush`."""
        if self.publisher is not None:
            await self.publisher.flush()

    async def close(self) -> None:
        """See `Transport.close`."""
        if self.publisher is not None:
            self.publisher.takes = False
        await super().close()

    async def _disconnect(self) -> None:
        if self._transactions is not None:
            await self._transactions.close()
        if self.publisher is not None:
            await self.publisher.close()
        await self._browser.close()
        await self.admin.close()
