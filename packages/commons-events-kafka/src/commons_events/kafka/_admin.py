"""`KafkaAdmin`: topics, partitions, configurations and the positions of groups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its names are public, and not exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from commons_events.errors import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    UnknownTopicError,
)
from commons_events.kafka._brokers import ask_about_topics
from commons_events.kafka._errors import kafka_error, transport_error
from commons_events.kafka._keywords import address
from commons_events.kafka._settings import LOGGER, KafkaSettings
from commons_events.kafka._topics import check_topic
from commons_events.message import is_text
from commons_events.runtime import current_runtime
from commons_events.transport import TopicInfo, TransportSettings
from commons_events.transport import TopicPartition as PartitionId

__all__ = ["KafkaAdmin", "PartitionDescription", "TopicDescription"]

_TIMEOUT = 30.0
_COORDINATOR_MOVES = frozenset(
    {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PartitionDescription:
    """Where one partition lies: broker ids."""

    partition: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic and its partitions."""

    topic: str
    partitions: tuple[PartitionDescription, ...]


class KafkaAdmin:
    """Administers a Kafka cluster. Connects on first use; used in one event loop, from ``async with`` or closed.

    Args:
        bootstrap_servers: ``"host:9092,other:9092"``, or a list of such, or a ``kafka://`` URL.
        options: settings in librdkafka's words (``security.protocol``, ``sasl.*`` …).

    Raises:
        ConfigurationError: a setting is unknown or wrong.
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str] = "localhost:9092",
        *,
        options: Mapping[str, object] | None = None,
    ) -> None:
        url = address("KafkaAdmin", bootstrap_servers)
        if not url.startswith("kafka://"):
            raise ConfigurationError("KafkaAdmin: bootstrap_servers is 'host:9092,other:9092', or a kafka:// URL.")
        self._settings = KafkaSettings.of(TransportSettings(url=url, options=options or {}))
        self._client: AdminClient | None = None
        self._closed = self._answered = False
        self._refusal: AuthenticationError | None = None

    @classmethod
    def from_settings(cls, settings: KafkaSettings) -> Self:
        """An administrator with a transport's settings."""
        made = cls.__new__(cls)
        made._settings = settings
        made._client = None
        made._closed = made._answered = False
        made._refusal = None
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def create_topic(
        self,
        topic: str,
        *,
        partitions: int | None = None,
        replication_factor: int | None = None,
        config: Mapping[str, str] | None = None,
    ) -> TopicInfo:
        """Make a topic, or find it as it was asked for, and return once it can be used.

        Args:
            topic: its name.
            partitions: how many; None for the broker's ``num.partitions``.
            replication_factor: how many replicas; None for the broker's default.
            config: the topic's own settings, such as ``{"cleanup.policy": "compact"}``.

        Raises:
            ConfigurationError: it exists with another number of partitions, or a setting is wrong.
            InvalidTopicError: Kafka takes no such name.
        """
        check_topic(topic)
        _check_count("create_topic: partitions", partitions)
        _check_count("create_topic: replication_factor", replication_factor, 10_000)
        _check_config(config or {})
        new = NewTopic(topic, partitions or -1, replication_factor or -1, config=dict(config or {}))
        admin = await self._connected()
        try:
            await asyncio.wrap_future(admin.create_topics([new])[topic])
        except KafkaException as error:
            if kafka_error(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise transport_error(error, f"Creating topic {topic!r}") from error
        deadline = current_runtime().monotonic() + _TIMEOUT
        while True:
            try:
                found = await self.topic(topic)
                break
            except UnknownTopicError:  # it has not reached the broker that was asked
                if current_runtime().monotonic() > deadline:
                    raise
                await current_runtime().sleep(0.05)
        if partitions is not None and found.partitions != partitions:
            raise ConfigurationError(
                f"Topic {topic!r} has {found.partitions} partitions, and was asked for with {partitions}. "
                "Use create_partitions to add some."
            )
        return found

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic with its messages and the groups' positions in it; it is not listed any more afterwards.

        Raises:
            UnknownTopicError: there is none of this name.
        """
        check_topic(topic)
        admin = await self._connected()
        await self._ask(admin.delete_topics([topic])[topic], f"Deleting topic {topic!r}")
        # The controller has deleted it; the broker that is asked may hear of that a little later.
        deadline = current_runtime().monotonic() + _TIMEOUT
        while any(found.topic == topic for found in await self.topics()) and current_runtime().monotonic() < deadline:
            await current_runtime().sleep(0.05)

    async def topics(self) -> list[TopicInfo]:
        """All topics but Kafka's own, by name."""
        found = await self._metadata(None)
        return sorted(
            TopicInfo(name, len(topic.partitions)) for name, topic in found.topics.items() if not name.startswith("__")
        )

    async def topic(self, topic: str) -> TopicInfo:
        """One topic.

        Raises:
            UnknownTopicError: there is none of this name.
        """
        return TopicInfo(topic, len((await self.describe_topic(topic)).partitions))

    async def describe_topic(self, topic: str) -> TopicDescription:
        """A topic's partitions, and where they lie.

        Raises:
            UnknownTopicError: there is none of this name.
        """
        check_topic(topic)
        found = (await self._metadata(topic)).topics[topic]
        if found.error is not None:
            raise transport_error(found.error, f"Topic {topic!r}")
        return TopicDescription(
            topic,
            tuple(
                PartitionDescription(number, p.leader, tuple(p.replicas), tuple(p.isrs))
                for number, p in sorted(found.partitions.items())
            ),
        )

    async def create_partitions(self, topic: str, count: int) -> None:
        """Let a topic have ``count`` partitions, which is more than it has, and return once they can be used.

        Keys then land elsewhere.

        Raises:
            ConfigurationError: it has as many already, or ``count`` is no number of partitions.
            UnknownTopicError: there is none of this name.
        """
        check_topic(topic)
        _check_count("create_partitions: count", count)
        admin = await self._connected()
        asked = admin.create_partitions([NewPartitions(topic, count)])
        await self._ask(asked[topic], f"Adding partitions to topic {topic!r}")
        # As after `delete_topic`.
        deadline = current_runtime().monotonic() + _TIMEOUT
        while (await self.topic(topic)).partitions < count and current_runtime().monotonic() < deadline:
            await current_runtime().sleep(0.05)

    async def topic_config(self, topic: str) -> dict[str, str | None]:
        """A topic's settings, those that it has from the broker included.

        Raises:
            UnknownTopicError: there is none of this name.
        """
        check_topic(topic)
        admin = await self._connected()
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = await self._ask(admin.describe_configs([resource])[resource], f"Topic {topic!r}")
        return {name: entry.value for name, entry in sorted(entries.items())}

    async def set_topic_config(self, topic: str, config: Mapping[str, str | None]) -> None:
        """Set some of a topic's settings; None takes one back to the broker's default.

        Raises:
            ConfigurationError: the broker knows no such setting, or not this value.
            UnknownTopicError: there is none of this name.
        """
        check_topic(topic)
        _check_config(config)
        if not config:
            return
        entries = [
            ConfigEntry(
                name,
                value or "",
                source=ConfigSource.DYNAMIC_TOPIC_CONFIG,
                incremental_operation=AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET,
            )
            for name, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        admin = await self._connected()
        await self._ask(admin.incremental_alter_configs([resource])[resource], f"Topic {topic!r}")

    async def group_offsets(self, group_id: str) -> dict[PartitionId, int]:
        """The positions that a group has committed; none where nobody has heard of it."""
        _check_group(group_id)
        topics = (await self._metadata(None)).topics
        places = [TopicPartition(name, partition) for name, topic in topics.items() for partition in topic.partitions]
        if not places:
            return {}

        async def ask(_: AdminClient) -> list[TopicPartition]:
            return await asyncio.to_thread(self._committed, group_id, places)

        found = await self._of_group(ask, f"Group {group_id!r}")
        return {PartitionId(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    def _committed(self, group_id: str, places: list[TopicPartition]) -> list[TopicPartition]:
        """What a group has committed of these, asked as a consumer that does not join.

        librdkafka's own request for it ends the process where the group's coordinator has just moved: that looks for
        the group of its client, and an admin client has none.
        """
        config = self._settings.consumer(group_id) | {"isolation.level": "read_uncommitted"}
        config.pop("group.protocol", None)
        consumer = Consumer(config)
        try:
            found = consumer.committed(places, timeout=_TIMEOUT)
        finally:
            consumer.close()
        for place in found:
            if place.error is not None:
                raise KafkaException(place.error)
        return found

    async def set_group_offsets(self, group_id: str, offsets: Mapping[PartitionId, int]) -> None:
        """Let a group that has no members go on elsewhere.

        Args:
            group_id: the group; one that is not there is made.
            offsets: where it is to go on in these partitions; it keeps its positions in the others.

        Raises:
            TransportError: the group has members.
            UnknownTopicError: a topic, or a partition of it, is not there; the message says which.
            ConfigurationError: an offset is below 0.
        """
        _check_group(group_id)
        for id, offset in offsets.items():
            check_topic(id.topic)
            if id.partition < 0 or offset < 0:
                raise ConfigurationError(
                    f"set_group_offsets: {id} and offset {offset}; partitions and offsets are counted from 0."
                )
        if not offsets:
            return
        positions = [TopicPartition(id.topic, id.partition, offset) for id, offset in offsets.items()]
        asked = ConsumerGroupTopicPartitions(group_id, positions)

        async def alter(admin: AdminClient) -> list[TopicPartition]:
            found = await asyncio.wrap_future(admin.alter_consumer_group_offsets([asked])[group_id])
            places: list[TopicPartition] = found.topic_partitions
            for place in places:
                if place.error is not None and place.error.code() in _COORDINATOR_MOVES:
                    raise KafkaException(place.error)
            return places

        for place in await self._of_group(alter, f"Group {group_id!r}"):
            if place.error is not None:
                raise transport_error(
                    place.error, f"Group {group_id!r}, partition {place.partition} of topic {place.topic!r}"
                )

    async def delete_group(self, group_id: str) -> None:
        """Forget a group that has no members.

        Raises:
            TransportError: it has members, or nobody has heard of it.
        """
        _check_group(group_id)

        async def delete(admin: AdminClient) -> None:
            await asyncio.wrap_future(admin.delete_consumer_groups([group_id])[group_id])

        await self._of_group(delete, f"Deleting group {group_id!r}")

    async def close(self) -> None:
        """Disconnect; harmless twice."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            clients = [client]
            del client
            await asyncio.to_thread(clients.clear)  # destroying it joins its threads

    # --- how ---------------------------------------------------------------------------------------------------------

    def _admin(self) -> AdminClient:
        if self._closed:
            raise ClosedError("This KafkaAdmin is closed; make a new one.")
        if self._client is None:
            config: dict[str, Any] = {**self._settings.admin(), "error_cb": self._on_error}
            try:
                self._client = AdminClient(config)
            except KafkaException as error:
                raise transport_error(error, "Making a Kafka admin client") from error
        return self._client

    def _on_error(self, error: KafkaError) -> None:
        mapped = transport_error(error, f"Kafka at {self._settings.bootstrap_servers}")
        if isinstance(mapped, AuthenticationError):
            self._refusal = mapped
        LOGGER.debug("%s", error)

    async def _connected(self) -> AdminClient:
        """The client, once it has a broker: its calls look for one much longer than ``connect.timeout.ms``."""
        admin = self._admin()
        if not self._answered:
            await self._metadata(None)
        return admin

    async def _metadata(self, topic: str | None) -> Any:
        admin = self._admin()
        seconds = self._settings.own["connect.timeout.ms"]
        try:
            found = await asyncio.to_thread(ask_about_topics, admin, topic, seconds, lambda: self._refusal)
        except KafkaException as error:
            raise ConnectionLostError(
                f"No Kafka broker answered at {self._settings.bootstrap_servers} within {seconds:g} s "
                "(connect.timeout.ms). Check the address, and that the broker runs."
            ) from error
        self._answered = True
        return found

    async def _of_group(self, ask: Callable[[AdminClient], Awaitable[T]], doing: str) -> T:
        """Ask a group's coordinator, and again where that is about to be found."""
        admin = await self._connected()
        deadline = current_runtime().monotonic() + _TIMEOUT
        while True:
            try:
                return await ask(admin)
            except KafkaException as error:
                if kafka_error(error).code() not in _COORDINATOR_MOVES or current_runtime().monotonic() > deadline:
                    raise transport_error(error, doing) from error
            await current_runtime().sleep(0.1)

    async def _ask(self, future: Future[Any], doing: str) -> Any:
        try:
            return await asyncio.wrap_future(future)
        except KafkaException as error:
            raise transport_error(error, doing) from error


def _check_count(what: str, count: int | None, most: int = 100_000) -> None:
    if count is not None and type(count) is not int:
        raise TypeError(f"{what} is an int, not {count!r}.")
    if count is not None and not 1 <= count <= most:
        raise ConfigurationError(f"{what}={count} has to be from 1 to {most:,}.")


def _check_group(group_id: str) -> None:
    if not isinstance(group_id, str):
        raise TypeError(f"A group's name is a str, not {group_id!r}.")
    if not group_id:
        raise ConfigurationError("The group's name is empty.")
    if not is_text(group_id):
        raise ConfigurationError(f"{group_id!r} is no name of a group: it holds a zero byte, or half of a surrogate.")


def _check_config(config: Mapping[str, str | None]) -> None:
    given: Mapping[Any, Any] = config
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str | None):
            raise TypeError(f"A topic's settings are str, not {name!r}: {value!r}.")
        if not is_text(name) or not is_text(value or ""):
            raise ConfigurationError(
                f"The topic's setting {name!r} is no text: it holds a zero byte, or half of a surrogate pair."
            )
