"""`KafkaTransport`: the contract's words for Apache Kafka."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Self, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from commons_events.errors import (
    ClosedError,
    ConfigurationError,
    InvalidTopicError,
    UnknownPartitionError,
    WrongEventLoopError,
)
from commons_events.kafka._admin import KafkaAdmin
from commons_events.kafka._errors import transport_error
from commons_events.kafka._partition import to_message
from commons_events.kafka._publisher import Publisher
from commons_events.kafka._raw import RawMessage
from commons_events.kafka._settings import KafkaSettings
from commons_events.kafka._subscription import KafkaSubscription
from commons_events.kafka._transactions import KafkaTransaction, Transactions
from commons_events.message import Headers, Message, PublishResult
from commons_events.runtime import current_runtime
from commons_events.transport import (
    CONTRACT_VERSION,
    Capabilities,
    StoredMessage,
    SubscribeRequest,
    TopicInfo,
    Transport,
    TransportSettings,
    check_topic_name,
)

__all__ = ["KafkaTransport"]

_LEGAL = re.compile(r"[A-Za-z0-9._-]+")


class KafkaTransport(Transport):
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

    @classmethod
    def from_settings(cls, settings: TransportSettings) -> Self:
        """See `Transport.from_settings`."""
        made = cls.__new__(cls)
        made._open(settings)
        return made

    def _open(self, settings: TransportSettings) -> None:
        self._settings = KafkaSettings.of(settings)
        self.admin = KafkaAdmin.from_settings(self._settings)
        """Topics, configurations and groups of the same cluster."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.publisher: Publisher | None = None
        """What `publish` hands messages to, once there was one."""
        self._transactions: Transactions | None = None
        self._subscriptions: set[KafkaSubscription] = set()
        self._closing: asyncio.Future[None] | None = None

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
        if topic.startswith("^"):
            try:
                re.compile(topic)
            except re.error as error:
                raise InvalidTopicError(f"The topic pattern {topic!r} is no regular expression: {error}.") from error
        elif topic in (".", "..") or not _LEGAL.fullmatch(topic):
            raise InvalidTopicError(
                f"Kafka takes no topic {topic!r}: a name has 1 to 249 of the characters A-Z a-z 0-9 . _ - and is not "
                "'.' or '..'."
            )

    # --- publishing ------------------------------------------------------------------------------------------------

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
        self._check_usable()
        if self._transactions is None:
            self._transactions = Transactions(self._settings, self.check_topic)
        return self._transactions.begin()

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
        subscription = KafkaSubscription(self, self._settings, request)
        self._subscriptions.add(subscription)
        try:
            await subscription.start()
        except BaseException:
            self._subscriptions.discard(subscription)
            raise
        return subscription

    def forget(self, subscription: KafkaSubscription) -> None:
        """A subscription has ended."""
        self._subscriptions.discard(subscription)

    # --- what only some brokers can ----------------------------------------------------------------------------------

    async def browse(self, topic: str, *, partition: int, offset: int = 0, limit: int = 100) -> Sequence[StoredMessage]:
        """See `Browsable`."""
        self._check_usable()
        self.check_topic(topic)
        found = await self.admin.topic(topic)
        if not 0 <= partition < found.partitions:
            raise UnknownPartitionError(f"Topic {topic!r} has partitions 0 to {found.partitions - 1}, not {partition}.")
        return await asyncio.to_thread(self._browse, topic, partition, offset, limit)

    def _browse(self, topic: str, partition: int, offset: int, limit: int) -> list[StoredMessage]:
        consumer = Consumer(self._settings.consumer("commons-events-browsing"))
        stored: list[StoredMessage] = []
        deadline = current_runtime().monotonic() + 30.0
        try:
            # A broker that has nothing more says so only after a while, so it is asked where the end is.
            place = TopicPartition(topic, partition, offset or OFFSET_BEGINNING)
            first, end = consumer.get_watermark_offsets(place, timeout=30)
            following = max(first, offset)
            if following < end:
                consumer.assign([place])
            while len(stored) < limit and following < end and current_runtime().monotonic() < deadline:
                raw = consumer.poll(0.1)
                if raw is None:
                    continue
                error = raw.error()
                if error is None:
                    message = cast("RawMessage", raw)
                    stored.append(StoredMessage(to_message(message), partition, message.offset()))
                    following = message.offset() + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    break
                elif not error.retriable():
                    raise transport_error(error, f"Browsing topic {topic!r}")
        except KafkaException as error:
            raise transport_error(error, f"Browsing topic {topic!r}") from error
        finally:
            consumer.close()
        return stored

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
        if self._closing is None:
            if self.publisher is not None:
                self.publisher.takes = False
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        if self._transactions is not None:
            await self._transactions.close()
        if self.publisher is not None:
            await self.publisher.close()
        await self.admin.close()

    def _check_usable(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongEventLoopError("This KafkaTransport belongs to another event loop, that of its first use.")
        if self._closing is not None:
            raise ClosedError("This Kafka transport is closed; make a new one.")
