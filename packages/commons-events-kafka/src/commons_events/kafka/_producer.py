"""`KafkaProducer`: an `EventProducer` that speaks Kafka's words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime
from itertools import repeat
from types import NoneType
from typing import Any, Self

from commons_events.errors import ConfigurationError, MessageTooLargeError, SerializationError, UnknownPartitionError
from commons_events.event import Event
from commons_events.kafka._batches import milliseconds
from commons_events.kafka._keywords import check_config, kafka_config
from commons_events.kafka._transactions import KafkaTransaction
from commons_events.kafka._transport import KafkaTransport
from commons_events.message import Headers, Message, Messages, PublishResult, Receipt
from commons_events.producers import EventProducer, ProducerConfig
from commons_events.producers._producer import BatchHeaders, GivenHeaders, _Chunk, _headers, _in_turn, _key_bytes
from commons_events.runtime import Runtime
from commons_events.transport import Delivery, Outcome, Settlement, Transport

__all__ = ["KafkaProducer", "ProducerTransaction"]

Key = str | bytes | None

_LAST_PARTITION = (1 << 31) - 1
_LONGEST = (1 << 31) - 1
"""Milliseconds that librdkafka can wait: as good as endless."""
_LARGE = 2
"""Parts of a batch from which on its messages do not wait for others (`linger.ms`)."""

_NO_KEY = "send: a tombstone (event=None) needs the key whose value is gone."

_running_loop = asyncio._get_running_loop  # as `get_running_loop`, without an exception where there is none


class ProducerTransaction:
    """What `KafkaProducer.transaction` yields."""

    def __init__(self, transaction: KafkaTransaction) -> None:
        self._transaction = transaction

    def send_offsets(self, messages: Delivery | Iterable[Delivery]) -> None:
        """Finish received messages with this transaction: they count as handled exactly if it commits.

        Args:
            messages: one or several, of any consumers of the same cluster; with them every earlier one of their
                partitions has to be finished by the end of the transaction.
        """
        deliveries = [messages] if isinstance(messages, Delivery) else list(messages)
        self._transaction.settle([Settlement(delivery, Outcome.ACK) for delivery in deliveries])


class KafkaProducer(EventProducer):
    """Sends events to Kafka: idempotent, confirmed by all in-sync replicas, with Java's partitioner.

    Args:
        bootstrap_servers: ``"host:9092,other:9092"``, or a list of such.
        config: a `ProducerConfig`, in place of everything else.
        transport: use this one, which stays its maker's to close.
        settings: those of `ProducerConfig`, and librdkafka's with underscores for dots: ``linger_ms=5``,
            ``compression_type="zstd"``, ``security_protocol="SASL_SSL"``, ``transactional_id="billing-1"``.

    Raises:
        ConfigurationError: a setting is unknown, with the nearest right one, or wrong.
    """

    _raw = frozenset({bytes, NoneType})

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str] | None = None,
        *,
        config: ProducerConfig | None = None,
        transport: Transport | None = None,
        **settings: Any,
    ) -> None:
        if config is None:
            if bootstrap_servers is None and transport is None and not settings.keys() & {"url", "broker"}:
                settings["broker"] = "kafka"
            config = kafka_config(ProducerConfig, "KafkaProducer", bootstrap_servers, settings)
        elif bootstrap_servers is not None or settings:
            raise ConfigurationError("KafkaProducer: give a config or settings, not both.")
        check_config(ProducerConfig, "KafkaProducer", config)
        # Wherever it was said: as an argument, in the environment, or in a config; but in librdkafka's own words first.
        is_timed = "delivery_timeout" in config.model_fields_set
        in_address = "delivery.timeout.ms" in config.address and "delivery_timeout" not in settings
        if is_timed and transport is None and config.broker == "kafka" and not in_address:
            timeout = {"delivery.timeout.ms": max(1, round(min(config.delivery_timeout * 1000, _LONGEST)))}
            config = config.model_copy(update={"options": timeout | config.options})
        super().__init__(config, transport=transport)
        if not isinstance(self._transport, KafkaTransport):
            raise ConfigurationError(f"KafkaProducer needs Kafka, and the broker is {self._transport.name!r}.")
        self._kafka: KafkaTransport = self._transport
        self._watches_each = is_timed and transport is not None
        """Whether the time that a message may take is not the client's."""
        # Bytes that nobody has to measure or stamp here.
        self._sends_as_it_is = self.config.max_message_bytes is None and type(self._runtime) is Runtime
        self._open_transaction: ContextVar[KafkaTransaction | None] = ContextVar("transaction", default=None)

    async def __aenter__(self) -> Self:
        """With a ``transactional_id``, first end what a predecessor left open: its group stands still until then.

        Raises:
            TransactionError: that failed; TransactionAbortedError where no broker answered.
            AuthenticationError: the brokers refused the sign-in.
        """
        await super().__aenter__()
        try:
            await self._kafka.open_transactions()
        except BaseException:
            await self.close()
            raise
        return self

    def send(
        self,
        topic: str,
        event: Event | bytes | None,
        key: Key = None,
        partition: int | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        timestamp: datetime | None = None,
    ) -> asyncio.Future[Receipt]:
        """Hand an event over, now; the future returns once the broker has confirmed it.

        Args:
            topic: where to.
            event: what happened; None, with a key, for a tombstone, which says that the key has no value any more; or
                bytes, which are sent as they are, without any headers of ours.
            key: decides the partition and with it the order, as in the Java client; a str stands for its UTF-8 bytes.
            partition: asks for one partition; None lets the key decide.
            headers: more headers.
            timestamp: aware; by default now.

        Raises:
            UnknownPartitionError: no topic can have this ``partition``; from the future where the topic has fewer.
            ValueError: the timestamp is naive, or not after the beginning of 1970.
            TypeError: the key is neither str nor bytes, or a tombstone has none; the partition is no int, or the
                timestamp no datetime.
            CommonsEventsError: as in `EventProducer.send`.
        """
        if partition is not None and (type(partition) is not int or not 0 <= partition <= _LAST_PARTITION):
            raise _no_partition(topic, partition)
        telemetry = self._telemetry
        if not telemetry.tracing and not self._watches_each and self._open_transaction.get() is None:
            loop = _running_loop()
            if loop is None or loop is not self._loop or self._closed:
                loop = self._check_usable()
            given = _headers(headers) if headers else ()
            if type(event) is bytes and timestamp is None and self._sends_as_it_is and topic in self._checked_topics:
                value: bytes | None = event
                key = key.encode() if type(key) is str else key
                if key is not None and type(key) is not bytes:
                    key = _key_bytes(key)
            else:
                _, value, key, given, timestamp, _ = self._message(topic, event, key, partition, given, timestamp)
            telemetry.sent(topic)
            kafka = self._kafka
            publisher = kafka.publisher
            if publisher is None or not publisher.takes or publisher.loop is not loop:
                publisher = kafka.publishing(loop)
            return publisher.send_one(topic, value, key, given, timestamp, partition, kafka.check_topic)
        return super().send(
            topic,
            event,  # type: ignore[arg-type]  # _message looks after it
            key=key,
            partition=partition,
            headers=headers,
            timestamp=timestamp,
        )

    async def send_batch(
        self,
        topic: str,
        events: Iterable[Event | bytes | None],
        key: Key | Callable[[Any], Key] = None,
        headers: GivenHeaders | Callable[[Any], GivenHeaders | None] | None = None,
    ) -> Sequence[Receipt]:
        """See `EventProducer.send_batch`; bytes and tombstones as in `send`."""
        return await super().send_batch(topic, events, key=key, headers=headers)  # type: ignore[arg-type]

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[ProducerTransaction]:
        """A block whose sends are seen together when it ends, and never if it raises or is cancelled.

        What is sent inside it, by its task and by tasks that start in it, belongs to it; awaiting such a send waits for
        the broker to have it, while nobody sees it yet. Who is cancelled once it commits waits for its end, and what
        was committed counts. Consume, transform, produce exactly once::

            async with producer.transaction() as transaction:
                await producer.send("invoices", invoice)
                transaction.send_offsets(message)

        Raises:
            TransactionAbortedError: brokers were out of reach, or partitions left their consumer, and nothing of it is
                visible; it may be done again.
            TransactionError: the commit failed, and nothing of it is visible, unless the message says nobody knows;
                FencedError where a newer producer has the same ``transactional_id``.
            AuthenticationError: the brokers refused the sign-in, and nothing has begun.
        """
        self._check_usable()
        async with self._kafka.transaction() as transaction:
            token = self._open_transaction.set(transaction)
            try:
                yield ProducerTransaction(transaction)
            finally:
                self._open_transaction.reset(token)

    async def _settle_in_flight(self, timeout: float | None) -> int:
        return sum(await asyncio.gather(super()._settle_in_flight(timeout), self._kafka.give_up(timeout)))

    def _room(self) -> Awaitable[object] | None:
        transaction = self._open_transaction.get()
        return super()._room() if transaction is None else transaction.room()

    def _publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        transaction = self._open_transaction.get()
        return super()._publish(messages) if transaction is None else transaction.send(messages)

    def _looked_at(
        self, events: list[Any], key: Key | Callable[[Any], Key], headers: BatchHeaders
    ) -> tuple[Key | Callable[[Any], Key], BatchHeaders]:
        """See `EventProducer._looked_at`; of tombstones, whether each has a key."""
        key, headers = super()._looked_at(events, key, headers)
        keys: Iterable[Key] = repeat(None)
        if callable(key):
            keys = list(map(key, events))
            key = _in_turn(keys)
        elif key is not None:
            keys = repeat(key)
        if any(event is None and own is None for event, own in zip(events, keys, strict=False)):
            raise TypeError(_NO_KEY)
        return key, headers

    def _hand_over(
        self, topic: str, events: Sequence[Any], key: Key | Callable[[Any], Key], headers: BatchHeaders
    ) -> _Chunk:
        """Bytes with one key go to the client as they are, without a `Message` each."""
        if (
            set(map(type, events)) == {bytes}
            and not callable(key)
            and not callable(headers)
            and type(self._runtime) is Runtime  # else it stamps the messages
            and self._open_transaction.get() is None
        ):
            given = _key_bytes(key)
            largest = Message(topic, max(events, key=len), given, headers).size
            if largest <= (self.config.max_message_bytes or self._kafka.capabilities.max_message_bytes or largest):
                return _Chunk([], len(events), self._watched(self._kafka.publish_values(topic, events, given, headers)))
        return super()._hand_over(topic, events, key, headers)

    def _handed_over(self, chunks: int, left: int) -> None:
        if chunks == _LARGE or (chunks > _LARGE and not left):
            publisher = self._kafka.publisher
            if publisher is not None and self._open_transaction.get() is None:
                publisher.hurry(at_once=chunks == _LARGE)

    def _messages(
        self,
        topic: str,
        events: Sequence[Any],
        key: Key | Callable[[Any], Key],
        headers: BatchHeaders,
        timestamp: datetime,
    ) -> Messages | list[Message | SerializationError | MessageTooLargeError]:
        """See `EventProducer._messages`; bytes and tombstones among them have a `Message` each."""
        if not self._raw.intersection(map(type, events)):
            return super()._messages(topic, events, key, headers, timestamp)
        made: list[Message | SerializationError | MessageTooLargeError] = []
        for event in events:
            own_key = key(event) if callable(key) else key
            own_headers = headers(event) if callable(headers) else headers
            try:
                made.append(self._message(topic, event, own_key, None, own_headers, timestamp))
            except (SerializationError, MessageTooLargeError) as error:
                made.append(error)
        return made

    def _message(
        self,
        topic: str,
        event: Event | bytes | None,
        key: Key,
        partition: int | None,
        headers: Headers,
        timestamp: datetime | None,
    ) -> Message:
        if topic not in self._checked_topics:
            self._check_topic(topic)
        if not isinstance(timestamp, datetime | None):
            raise TypeError(f"send: the timestamp {timestamp!r} is no datetime; give an aware one.")
        if timestamp is not None and timestamp.tzinfo is None:
            raise ValueError(f"send: the timestamp {timestamp!r} is naive; give an aware datetime.")
        if timestamp is not None and not milliseconds(timestamp):
            raise ValueError(
                f"The timestamp {timestamp.isoformat()} is not after the beginning of 1970 (UTC): Kafka has none "
                "before; give a later one, or none for the present."
            )
        if event is not None and not isinstance(event, bytes):
            return super()._message(topic, event, key, partition, headers, timestamp or self._runtime.now())
        if event is None and key is None:
            raise TypeError(_NO_KEY)
        if timestamp is None and type(self._runtime) is not Runtime:
            timestamp = self._runtime.now()  # else librdkafka takes the same clock, at less cost
        if isinstance(key, str):
            key = key.encode()
        elif key is not None and not isinstance(key, bytes):
            raise TypeError(f"A key is str or bytes, not {type(key).__name__}; convert it, for example by str(key).")
        message = Message(topic, event, key, headers, timestamp, partition)
        limit = self.config.max_message_bytes
        if limit is not None and message.size > limit:
            raise MessageTooLargeError(
                f"A message of {message.size:,} bytes for topic {topic!r}; max_message_bytes is {limit:,}. Send less."
            )
        return message


def _no_partition(topic: str, partition: object) -> Exception:
    if type(partition) is not int:
        return TypeError(f"send: a partition is an int, not {partition!r}.")
    counted = f"from 0, and the last that Kafka can have is {_LAST_PARTITION}"
    return UnknownPartitionError(f"send: topic {topic!r} has no partition {partition}; they are counted {counted}.")
