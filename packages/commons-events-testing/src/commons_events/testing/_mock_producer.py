"""`MockProducer`: remembers what was sent, and refuses what production would refuse."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, ClassVar, Self

from commons_events.errors import ClosedError, ConfigurationError, PublishError, TransportError
from commons_events.event import Event
from commons_events.message import Headers, Message, PublishResult, Receipt
from commons_events.producers import EventProducer, ProducerConfig
from commons_events.transport import (
    CONTRACT_VERSION,
    Capabilities,
    SubscribeRequest,
    Subscription,
    Transport,
    TransportSettings,
)

__all__ = ["MockProducer", "SentEvent"]

Key = str | bytes | None


@dataclass(frozen=True, slots=True)
class SentEvent:
    """One event that a `MockProducer` was given, and the message that a broker would have got."""

    topic: str
    event: Event
    """The event as it was given, without the source that the producer states."""
    message: Message
    receipt: Receipt

    @property
    def key(self) -> bytes | None:
        """The key as it travels."""
        return self.message.key

    @property
    def headers(self) -> Headers:
        """All headers, CloudEvents' included."""
        return self.message.headers

    @property
    def value(self) -> bytes:
        """The payload as it travels."""
        return self.message.value or b""

    @property
    def partition(self) -> int | None:
        """The partition that was asked for, or None."""
        return self.message.partition

    @property
    def timestamp(self) -> datetime | None:
        """The message's timestamp."""
        return self.message.timestamp


class MockProducer:
    """Takes the place of an `EventProducer` in a test: same methods, same errors, no broker.

    An event goes through the same checks, serializer and binding as in production, so that a test finds what a real
    producer would refuse. What passes is in ``sent_events``, in order.

    Example::

        producer = MockProducer()
        await producer.send("orders", event)
        assert producer.sent_events[0].topic == "orders"
    """

    def __init__(self, config: ProducerConfig | None = None, /, **settings: Any) -> None:
        if config is not None and settings:
            raise ConfigurationError(f"MockProducer: give a config or settings, not both: {', '.join(settings)}.")
        self.sent_events: list[SentEvent] = []
        """What was confirmed, in order."""
        self.closed = False
        """Whether it was closed."""
        self._failures: deque[Exception] = deque()
        self._transport = _Recorder(self._take_failure)
        self._producer = EventProducer(config or ProducerConfig(**settings), transport=self._transport)

    async def __aenter__(self) -> Self:
        await self._producer.__aenter__()
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
        """As `EventProducer.send`; the future is done at once."""
        future = self._producer.send(topic, event, key=key, partition=partition, headers=headers, timestamp=timestamp)
        self._note(topic, [event])
        return future

    async def send_batch(
        self,
        topic: str,
        events: Iterable[Event],
        *,
        key: Key | Callable[[Event], Key] = None,
        headers: Mapping[str, str | bytes] | Callable[[Event], Mapping[str, str | bytes] | None] | None = None,
    ) -> Sequence[Receipt]:
        """As `EventProducer.send_batch`."""
        given = list(events)
        try:
            return await self._producer.send_batch(topic, given, key=key, headers=headers)
        finally:
            self._note(topic, given)

    async def flush(self) -> None:
        """As `EventProducer.flush`: there is nothing to wait for."""
        await self._producer.flush()

    async def close(self) -> None:
        """As `EventProducer.close`; what was sent stays in ``sent_events``."""
        await self._producer.close()
        self.closed = True

    def fail_with(self, error: Exception, *, times: int = 1) -> None:
        """Let the next ``times`` events fail with ``error``, as if the broker had refused them.

        An error that is no `TransportError` comes as the cause of a `PublishError`, as a transport would report it.

        Raises:
            TypeError: it is no exception, but a class of them, for example.
            ValueError: ``times`` is less than 1.
        """
        given: object = error
        if not isinstance(given, Exception):
            hint = f"; make one: {given.__name__}(…)" if isinstance(given, type) else ""
            raise TypeError(f"fail_with takes an exception, and {given!r:.100} is none{hint}.")
        if times < 1:
            raise ValueError(f"fail_with: times has to be 1 or more, not {times}.")
        self._failures.extend([error] * times)

    def clear(self) -> None:
        """Forget what was sent, and the failures that are still to come."""
        self.sent_events.clear()
        self._failures.clear()

    def events(self, topic: str | None = None) -> list[Event]:
        """The events that were sent, to one topic or to all."""
        return [sent.event for sent in self.sent_events if topic in (None, sent.topic)]

    def _take_failure(self) -> TransportError | None:
        if not self._failures:
            return None
        error = self._failures.popleft()
        if isinstance(error, TransportError):
            return error
        wrapped = PublishError(f"The broker did not take the message: {error}")
        wrapped.__cause__ = error
        return wrapped

    def _note(self, topic: str, events: list[Event]) -> None:
        """Pair the messages that were taken with the events that they were made from."""
        # Those that did not serialize, or were told to fail, have no message: the ids tell which are left.
        candidates = iter(events)
        for message, receipt in self._transport.take():
            event_id = message.header(f"{self._transport.header_prefix}id") or json.loads(message.value or b"")["id"]
            event = next(candidate for candidate in candidates if candidate.event_id == event_id)
            self.sent_events.append(SentEvent(topic, event, message, receipt))


class _Recorder(Transport):
    """Confirms every message and keeps it."""

    name: ClassVar[str] = "mock"

    def __init__(self, failure: Callable[[], TransportError | None]) -> None:
        self._failure = failure
        self._offset = 0
        self._taken: list[tuple[Message, Receipt]] = []

    @classmethod
    def from_settings(cls, settings: TransportSettings) -> Self:
        raise ConfigurationError("A mock is made by MockProducer() alone.")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            contract=CONTRACT_VERSION,
            ordering="key",
            durability="process",
            consumer_groups=False,
            new_group_start="latest",
            redelivery=False,
            redelivery_delay=False,
            attempts=False,
            settles_each=False,
            publish_delay=False,
            pause=False,
            seek=False,
            browse=False,
            declare=False,
            transactions=False,
            binary_headers=True,
            repeated_headers=True,
            binary_keys=True,
            tombstones=True,
            back_pressure=False,
        )

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        results: list[PublishResult] = []
        for message in messages:
            error = self._failure()
            if error is None:
                receipt = Receipt(message.topic, message.partition or 0, self._offset)
                self._offset += 1
                self._taken.append((message, receipt))
                results.append(receipt)
            else:
                results.append(error)
        future: asyncio.Future[Sequence[PublishResult]] = asyncio.get_running_loop().create_future()
        future.set_result(results)
        return future

    def take(self) -> list[tuple[Message, Receipt]]:
        taken, self._taken = self._taken, []
        return taken

    async def subscribe(self, request: SubscribeRequest) -> Subscription:
        raise ClosedError("A mock producer has nothing to subscribe to.")

    async def flush(self) -> None:
        pass

    async def close(self) -> None:
        pass
