"""`EventProducer`: typed events to any broker. All that is not the broker's own is decided here, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain, repeat
from types import TracebackType
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from pydantic import Field

from commons_events.binding import BinaryBinding, Binding, StructuredBinding
from commons_events.config import ClientConfig, open_transport
from commons_events.errors import (
    BatchError,
    ClosedError,
    ConfigurationError,
    MessageTooLargeError,
    PublishError,
    PublishTimeoutError,
    SerializationError,
    TransportError,
    WrongEventLoopError,
)
from commons_events.event import Event
from commons_events.message import Headers, Message, Messages, PublishResult, Receipt, Receipts, is_text
from commons_events.runtime import current_runtime
from commons_events.telemetry import Telemetry
from commons_events.transport import Transport

__all__ = ["EventProducer", "ProducerConfig"]

Key = str | bytes | None
T = TypeVar("T")
GivenHeaders = Mapping[str, str | bytes]
BatchHeaders = Headers | Callable[[Any], Headers]
"""Of a batch: the same for all, or what makes those of an event."""
_CHUNK = 500
"""Events of a batch that are handed over before other tasks get a turn."""
_CHUNKS_UNDER_WAY = 100
"""How many of them a batch lets the broker owe it: the rest of a large one waits, so that no queue overflows."""


class ProducerConfig(ClientConfig):
    """Settings of an `EventProducer`; see `ClientConfig` for where they come from."""

    role: ClassVar[str] = "producer"

    source: str | None = Field(default=None, min_length=1)
    """CloudEvents' ``source`` (a URI reference) of events that state none; ``urn:commons-events:<client_id>``
    where this is None."""
    binding: Literal["binary", "structured"] = "binary"
    """CloudEvents' content mode."""
    delivery_timeout: float = Field(default=120.0, gt=0)
    """Seconds until a message that the broker has not confirmed is reported as failed."""


class EventProducer:
    """Sends events to a broker, and tells when the broker has them.

    Connects on the first send. Belongs to the event loop of its first use.

    Args:
        config: a `ProducerConfig`, or keyword arguments that make one (``broker="memory"``, ``url="kafka://…"``).
        transport: use this one, which stays its maker's to close, instead of opening the configured one.

    Raises:
        UnknownBrokerError: no installed transport has the broker's name.
        ConfigurationError: a setting is unknown or wrong.
    """

    _raw: ClassVar[frozenset[type]] = frozenset()
    """Which values are sent as they are, beside events."""

    def __init__(
        self, config: ProducerConfig | None = None, /, *, transport: Transport | None = None, **settings: Any
    ) -> None:
        if config is not None and settings:
            raise ConfigurationError(f"EventProducer: give a config or settings, not both: {', '.join(settings)}.")
        if not isinstance(config, ProducerConfig | None):
            kind = type(config).__name__
            raise TypeError(
                f"EventProducer: give a ProducerConfig, or settings by their names, such as url=…, not a {kind}."
            )
        self.config = config or ProducerConfig(**settings)
        self._owned = transport is None
        self._transport = transport or open_transport(self.config)
        binding = BinaryBinding if self.config.binding == "binary" else StructuredBinding
        self._binding: Binding = binding(
            self._transport.header_prefix,
            outside=self._transport.capabilities.durability != "process",
            source=self.config.source or f"urn:commons-events:{self.config.client_id}",
        )
        self._telemetry = Telemetry(self._transport.name, self.config.client_id)
        self._runtime = current_runtime()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._unconfirmed = 0
        """How many sends were not confirmed when it closed."""
        self._in_flight: set[asyncio.Future[Sequence[PublishResult]]] = set()
        self._checked_topics: set[str] = set()

    async def __aenter__(self) -> Self:
        self._check_usable()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def send(
        self,
        topic: str,
        event: Event,
        *,
        key: Key = None,
        partition: int | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        timestamp: datetime | None = None,
    ) -> asyncio.Future[Receipt]:
        """Hand an event over, now; the future returns once the broker has confirmed it.

        Thousands of sends may be in flight: keep the futures, and await them later. Events of one key and topic
        arrive in the order of the calls.

        Args:
            topic: where to.
            event: what happened. One without a ``source`` gets the producer's, in the bytes and headers.
            key: decides the partition and with it the order; a str stands for its UTF-8 bytes.
            partition: asks for one partition, where the broker has such.
            headers: more headers, by names that the event does not fill; a str stands for its UTF-8 bytes.
            timestamp: aware; by default now.

        Raises:
            InvalidTopicError: the broker takes no such name.
            ConfigurationError: ``headers`` name what the event itself fills, such as its type; or a name is no text.
            SerializationError: the event holds a value that its format cannot carry.
            MessageTooLargeError: the message is over the limit.
            ClosedError: the producer is closed.
            WrongEventLoopError: this is not the producer's event loop.
            TransportError: (from the future) the broker refused or failed; PublishTimeoutError if it never answered.
        """
        loop = self._check_usable()
        if self._telemetry.tracing:
            with self._telemetry.send(topic) as context:
                published = self._send_one(topic, event, key, partition, (*_headers(headers), *context), timestamp)
        else:
            published = self._send_one(topic, event, key, partition, _headers(headers), timestamp)
        self._telemetry.sent(topic)
        receipt: asyncio.Future[Receipt] = loop.create_future()
        if published.done():
            _resolve(receipt, published)
        else:
            published.add_done_callback(lambda done: _resolve(receipt, done))
        return receipt

    async def send_batch(
        self,
        topic: str,
        events: Iterable[Event],
        *,
        key: Key | Callable[[Event], Key] = None,
        headers: GivenHeaders | Callable[[Event], GivenHeaders | None] | None = None,
    ) -> Sequence[Receipt]:
        """Send events in order, and return their receipts once the broker has confirmed all of them.

        Args:
            topic: where to.
            events: what happened.
            key: one key for all, or a function of the event.
            headers: more headers, the same for all, or a function of the event.

        Raises:
            BatchError: some were not confirmed; it says which and why. The others are sent.
            TypeError: one is no event, or a key or header has a wrong type; none is sent.
            ConfigurationError: ``headers`` name what the event itself fills, or a name is no text; none is sent.
            InvalidTopicError: the broker takes no such name.
            ClosedError: the producer is closed.
            WrongEventLoopError: this is not the producer's event loop.
        """
        self._check_usable()
        events = list(events)
        if not self._telemetry.tracing:
            return await self._send_all(topic, events, key, _batch_headers(headers, ()))
        with self._telemetry.send(topic, len(events)) as context:
            return await self._send_all(topic, events, key, _batch_headers(headers, context))

    async def flush(self) -> None:
        """Return once everything that was handed over is confirmed or failed."""
        self._check_usable()
        await self._settle_in_flight(None)
        await self._transport.flush()

    async def close(self) -> None:
        """Flush and disconnect, within the ``close_timeout``; harmless twice.

        It goes on where the caller is cancelled: closing again waits for its end.

        Raises:
            PublishTimeoutError: (once) the broker did not confirm everything in time; the producer is closed.
        """
        if self._closing is None:
            self._check_usable()
            self._closed = True
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)
        unconfirmed, self._unconfirmed = self._unconfirmed, 0
        if unconfirmed:
            raise PublishTimeoutError(
                f"close: {unconfirmed} sends were not confirmed within {self.config.close_timeout:g} s "
                "(close_timeout); the broker may have them all the same."
            )

    async def _close(self) -> None:
        self._unconfirmed = await self._settle_in_flight(self.config.close_timeout)
        if self._owned:
            await self._transport.close()

    # --- the way of an event -----------------------------------------------------------------------------------

    def _message(
        self,
        topic: str,
        event: Event,
        key: Key,
        partition: int | None,
        headers: Headers,
        timestamp: datetime,
    ) -> Message:
        _check_class(type(event))
        if type(key) is not bytes and key is not None:
            key = _key_bytes(key)
        if headers:
            self._binding.check_headers(headers)
        message = self._binding.to_message(
            event, topic, key=key, headers=headers, timestamp=timestamp, partition=partition
        )
        refused = self._too_large(event, message)
        if refused is not None:
            raise refused
        return message

    def _messages(
        self,
        topic: str,
        events: Sequence[Event],
        key: Key | Callable[[Event], Key],
        headers: BatchHeaders,
        timestamp: datetime,
    ) -> Messages | list[Message | SerializationError | MessageTooLargeError]:
        """Those of a batch; in the place of one that cannot be sent, why."""
        for event_class in set(map(type, events)):
            _check_class(event_class)
        keys: Iterable[bytes | None] = repeat(None)
        if callable(key):
            keys = [k if type(k) is bytes else _key_bytes(k) for k in map(key, events)]
        elif key is not None:
            keys = repeat(_key_bytes(key))
        same = () if callable(headers) else headers
        self._binding.check_headers(same)
        made = self._binding.to_messages(events, topic, keys=keys, headers=same, timestamp=timestamp)
        if callable(headers):
            own = [headers(event) for event in events]
            for more in own:
                self._binding.check_headers(more)
            made = [
                result if isinstance(result, SerializationError) else result._replace(headers=result.headers + more)
                for result, more in zip(made, own, strict=True)
            ]
        if self.config.max_message_bytes is None:
            return made if isinstance(made, Messages) else [*made]
        return [
            result if isinstance(result, SerializationError) else self._too_large(event, result) or result
            for event, result in zip(events, made, strict=True)
        ]

    def _too_large(self, event: Event, message: Message) -> MessageTooLargeError | None:
        limit = self.config.max_message_bytes
        if limit is None or message.size <= limit:
            return None
        return MessageTooLargeError(
            f"{type(event).__qualname__} {event.event_id!r} makes a message of {message.size:,} bytes for topic "
            f"{message.topic!r}; max_message_bytes is {limit:,}. Send less, for example a reference to the data."
        )

    def _check_topic(self, topic: str) -> None:
        if topic not in self._checked_topics:
            self._transport.check_target(topic)
            self._checked_topics.add(topic)

    def _publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        return self._watched(self._transport.publish(messages))

    def _watched(self, published: asyncio.Future[Sequence[PublishResult]]) -> asyncio.Future[Sequence[PublishResult]]:
        """Keep what is under way in mind until it is confirmed, or the delivery_timeout is over."""
        if not published.done():
            self._in_flight.add(published)
            published.add_done_callback(self._in_flight.discard)
            timer = self._runtime.call_later(self.config.delivery_timeout, lambda: self._give_up(published))
            published.add_done_callback(lambda _: timer.cancel())
        return published

    def _give_up(self, published: asyncio.Future[Sequence[PublishResult]]) -> None:
        if not published.done():
            published.set_exception(
                PublishTimeoutError(
                    f"The broker did not confirm within {self.config.delivery_timeout:g} s (delivery_timeout); it may "
                    "have the message all the same."
                )
            )

    def _send_one(
        self,
        topic: str,
        event: Event,
        key: Key,
        partition: int | None,
        headers: Headers,
        timestamp: datetime | None,
    ) -> asyncio.Future[Sequence[PublishResult]]:
        self._check_topic(topic)
        if timestamp is None:
            timestamp = self._runtime.now()
        elif timestamp.tzinfo is None:
            raise ValueError(f"send: the timestamp {timestamp!r} is naive; give an aware datetime.")
        return self._publish([self._message(topic, event, key, partition, headers, timestamp)])

    async def _send_all(
        self, topic: str, events: list[Event], key: Key | Callable[[Event], Key], headers: BatchHeaders
    ) -> Sequence[Receipt]:
        self._check_topic(topic)  # also of no events: an event in the topic's place is a topic that was forgotten
        if len(events) > _CHUNK:  # else nothing is sent before all of it is looked at
            key, headers = self._looked_at(events, key, headers)
        published: list[_Chunk] = []
        for start in range(0, len(events), _CHUNK):
            if start:
                await self._runtime.sleep(0)
                if len(published) >= _CHUNKS_UNDER_WAY:
                    await asyncio.wait([published[-_CHUNKS_UNDER_WAY].future])
                self._check_usable()
            while (room := self._room()) is not None:
                await room
                self._check_usable()
            published.append(self._hand_over(topic, events[start : start + _CHUNK], key, headers))
            self._handed_over(len(published), max(len(events) - start - _CHUNK, 0))
        parts: list[Sequence[PublishResult]] = []
        for chunk in published:
            try:
                outcomes = await chunk.future
            except TransportError as error:
                outcomes = [error] * chunk.sent
            if chunk.unsent:
                outcomes = list(outcomes)
                for place, refusal in chunk.unsent:
                    outcomes.insert(place, refusal)
            parts.append(outcomes)
        self._telemetry.sent(topic, len(events))
        confirmed = [part for part in parts if isinstance(part, Receipts)]
        if parts and len(confirmed) == len(parts):
            return Receipts.joined(confirmed)
        results = list(chain.from_iterable(parts))
        receipts = [result for result in results if isinstance(result, Receipt)]
        if len(receipts) < len(results):
            raise BatchError(results)
        return receipts

    def _looked_at(
        self, events: list[Event], key: Key | Callable[[Event], Key], headers: BatchHeaders
    ) -> tuple[Key | Callable[[Event], Key], BatchHeaders]:
        """What is to be sent with each event, found before any is sent: the last key may be the one that is wrong."""
        for event_class in set(map(type, events)).difference(self._raw):
            _check_class(event_class)
        if callable(key):
            key = _in_turn([k if type(k) is bytes else _key_bytes(k) for k in map(key, events)])
        if callable(headers):
            all_headers = [headers(event) for event in events]
            for event, own in zip(events, all_headers, strict=True):
                if type(event) not in self._raw:
                    self._binding.check_headers(own)
            headers = _in_turn(all_headers)
        return key, headers

    def _room(self) -> Awaitable[object] | None:
        return self._transport.room()

    def _hand_over(
        self, topic: str, events: Sequence[Event], key: Key | Callable[[Event], Key], headers: BatchHeaders
    ) -> _Chunk:
        made = self._messages(topic, events, key, headers, self._runtime.now())  # they are handed over together
        if isinstance(made, Messages):
            return _Chunk([], len(made), self._publish(made))
        messages = [message for message in made if isinstance(message, Message)]
        unsent: list[tuple[int, TransportError]] = [
            (place, error if isinstance(error, PublishError) else _not_sent(error))
            for place, error in enumerate(made)
            if not isinstance(error, Message)
        ]
        return _Chunk(unsent, len(messages), self._publish(messages))

    def _handed_over(self, chunks: int, left: int) -> None:
        """Of a batch ``chunks`` are handed over, and ``left`` events are not: its sender waits for all, so hurry."""

    async def _settle_in_flight(self, timeout: float | None) -> int:
        if not self._in_flight:
            return 0
        in_flight = list(self._in_flight)
        with suppress(TimeoutError):
            async with self._runtime.timeout(timeout):
                await asyncio.wait(in_flight)
        missing = [future for future in in_flight if not future.done()]
        for future in missing:
            future.set_exception(
                PublishTimeoutError(
                    f"The producer was closed before the broker confirmed, within {timeout:g} s (close_timeout); the "
                    "broker may have the message all the same."
                )
            )
        return len(missing)

    def _check_usable(self) -> asyncio.AbstractEventLoop:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise WrongEventLoopError("An EventProducer is used inside a running event loop (asyncio.run).") from error
        if self._loop is not loop:
            if self._loop is not None:
                raise WrongEventLoopError(
                    "This EventProducer belongs to another event loop, that of its first use; make one here."
                )
            self._loop = loop
        if self._closed:
            raise ClosedError("This EventProducer is closed; make a new one.")
        return loop


class _Chunk(NamedTuple):
    """A part of a batch that was handed over."""

    unsent: list[tuple[int, TransportError]]
    """Events that were not, by their places, in order."""
    sent: int
    """How many were."""
    future: asyncio.Future[Sequence[PublishResult]]


def _not_sent(error: SerializationError) -> PublishError:
    refused = PublishError(f"not sent: {error}")
    refused.__cause__ = error
    return refused


def _resolve(receipt: asyncio.Future[Receipt], published: asyncio.Future[Sequence[PublishResult]]) -> None:
    if published.cancelled():
        receipt.cancel()
        return
    error = published.exception()  # asked for also where nobody waits any more, so that asyncio does not complain
    if receipt.done():
        return
    result = error if error is not None else published.result()[0]
    if isinstance(result, Receipt):
        receipt.set_result(result)
    else:
        receipt.set_exception(result)


def _check_class(event_class: type[Any]) -> None:
    if Event not in event_class.__mro__:  # isinstance asks pydantic's metaclass, which takes its time
        raise TypeError(f"send takes an Event, not {event_class.__name__}; define a subclass of Event.")


def _in_turn(values: Iterable[T]) -> Callable[[object], T]:
    """Gives one after the other, whatever it is asked for."""
    following = iter(values).__next__
    return lambda event: following()


def _key_bytes(key: object) -> bytes | None:
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, bytes) or key is None:
        return key
    raise TypeError(f"A key is str or bytes, not {type(key).__name__}; convert it, for example by str(key).")


def _headers(headers: Mapping[str, str | bytes] | None) -> Headers:
    if not headers:
        return ()
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers: give a mapping of names to str or bytes, not {type(headers).__name__}.")
    return tuple((name, _header_bytes(name, value)) for name, value in headers.items())


def _batch_headers(
    headers: GivenHeaders | Callable[[Event], GivenHeaders | None] | None, context: Headers
) -> BatchHeaders:
    """With those of the trace ``context`` behind them."""
    if callable(headers):
        given = headers
        return lambda event: (*_headers(given(event)), *context)
    return (*_headers(headers), *context)


def _header_bytes(name: object, value: object) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"headers: a name is a str, not {type(name).__name__}: {name!r}.")
    if not is_text(name):
        raise ConfigurationError(f"headers: {name!r} is no name: it holds a zero byte, or half of a surrogate pair.")
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise TypeError(f"headers: {name!r} is a {type(value).__name__}; give str or bytes.")
