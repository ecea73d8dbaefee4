"""`MockConsumer`: hands out what a test gives it, and remembers what became of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar, overload

from commons_events.binding import BinaryBinding
from commons_events.errors import ClosedError
from commons_events.event import Event
from commons_events.message import Message
from commons_events.transport import DONE, Delivery, Outcome

__all__ = ["MockConsumer", "MockDelivery"]

Item = TypeVar("Item")

_SOURCE = "urn:commons-events:mock"


class MockDelivery(Delivery):
    """A `Delivery` from a `MockConsumer`, which remembers how it was settled."""

    __slots__ = ("delay", "reason")

    delay: float | None
    """The delay that a nack asked for."""
    reason: str | None
    """The reason that a reject gave, or None."""


class MockConsumer(Generic[Item]):
    """Takes the place of an `EventConsumer` in a test: the same loop and the same words, no broker.

    Iterating yields the events as they were given, and ends after the last one. With ``as_deliveries=True`` it yields
    a `MockDelivery` of each, which went through a real binding and is settled like a real delivery; a nacked one comes
    again as the next attempt, behind what is left and without its delay. A `Message` may be given in an event's place,
    for bytes that no event has; it comes as a delivery in either case.

    Example::

        consumer = MockConsumer([first, second])
        async for event in consumer:
            await handle(event)
            await consumer.commit()
        assert consumer.committed == [first, second]
    """

    @overload
    def __init__(
        self: MockConsumer[Event],
        events: Iterable[Event] = ...,
        *,
        as_deliveries: Literal[False] = False,
        topic: str = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: MockConsumer[MockDelivery],
        events: Iterable[Event | Message] = ...,
        *,
        as_deliveries: Literal[True],
        topic: str = ...,
    ) -> None: ...

    def __init__(
        self, events: Iterable[Event | Message] = (), *, as_deliveries: bool = False, topic: str = "mock"
    ) -> None:
        self.header_prefix = "ce_"
        self.closed = False
        """Whether it was closed."""
        self.committed: list[Item] = []
        """What was finished, by ``commit`` or ``ack``, in that order."""
        self.nacked: list[Item] = []
        """What somebody said no to; one entry each time."""
        self.rejected: list[Item] = []
        """What went to the dead letters."""
        self._as_deliveries = as_deliveries
        self._topic = topic
        self._binding = BinaryBinding(self.header_prefix)
        self._offset = 0
        self._waiting: deque[MockDelivery] = deque()
        self._out: dict[MockDelivery, None] = {}
        self._items: dict[MockDelivery, Event | Message] = {}
        if isinstance(events, Event | Message):
            raise TypeError("MockConsumer takes a list of events: MockConsumer([event]).")
        self.add(*events)

    def add(self, *events: Event | Message) -> None:
        """Hand these out as well, after those that wait.

        Raises:
            TypeError: one is neither an event nor a message; none is added.
        """
        for event in events:
            given: object = event
            if not isinstance(given, Event | Message):
                raise TypeError(f"A MockConsumer hands out events and messages, and {given!r:.100} is neither.")
        for event in events:
            if isinstance(event, Message):
                message = event
            else:
                stated = event if event.source else event.with_source(_SOURCE)
                message = self._binding.to_message(stated, self._topic, timestamp=event.timestamp)
            delivery = self._delivery(message, 1, self._offset)
            self._items[delivery] = event
            self._waiting.append(delivery)
            self._offset += 1

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        """The next one; ends after the last, and once the consumer is closed."""
        await asyncio.sleep(0)  # as a broker would, let other tasks run
        if self.closed or not self._waiting:
            raise StopAsyncIteration
        return self._hand_out()

    async def receive(self, limit: int, timeout: float | None = None) -> list[Item]:
        """Up to ``limit`` of those that wait; an empty list where there are none, without waiting for ``timeout``."""
        if limit < 1:
            raise ValueError(f"receive: limit has to be 1 or more, not {limit}.")
        await asyncio.sleep(0)
        if self.closed:
            return []
        return [self._hand_out() for _ in range(min(limit, len(self._waiting)))]

    def commit(self, item: Item | None = None, *, wait: bool = False) -> Awaitable[None]:
        """Finish one, or all that were handed out so far.

        Raises:
            ValueError: this consumer did not hand ``item`` out.
            ClosedError: the consumer is closed.
        """
        self._check_open()
        if item is None:
            for delivery in list(self._out):
                delivery.ack()  # type: ignore[unused-awaitable]  # it is done when it returns
            return DONE
        for delivery in list(self._out):
            if self._shown(delivery) is item:
                return delivery.ack()
        if any(done is item for done in self.committed):
            return DONE
        raise ValueError(f"commit: this consumer did not hand out {item!r}, or it was settled otherwise.")

    @property
    def unsettled(self) -> list[Item]:
        """What was handed out and not settled: what a real broker would deliver again."""
        return [self._shown(delivery) for delivery in self._out]

    async def close(self) -> None:
        """End the iteration; harmless twice. What is unsettled stays in ``unsettled``."""
        self.closed = True

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        """See `Settler`."""
        self._check_open()
        assert isinstance(delivery, MockDelivery)
        if self._out.pop(delivery, _ABSENT) is _ABSENT:
            return DONE
        if outcome is Outcome.ACK:
            self.committed.append(self._shown(delivery))
            return DONE
        if outcome is Outcome.NACK:
            delivery.delay = delay
            self.nacked.append(self._shown(delivery))
        again = self._delivery(delivery.message, delivery.attempt + (outcome is Outcome.NACK), delivery.offset or 0)
        self._items[again] = self._items[delivery]
        self._waiting.append(again)
        return DONE

    def reject_delivery(self, delivery: Delivery, reason: str, error: BaseException | None) -> Awaitable[None]:
        """See `Settler`; the dead letter is in ``rejected``."""
        self._check_open()
        assert isinstance(delivery, MockDelivery)
        if self._out.pop(delivery, _ABSENT) is not _ABSENT:
            delivery.reason = reason
            delivery.outcome = Outcome.ACK
            self.rejected.append(self._shown(delivery))
        return DONE

    def _delivery(self, message: Message, attempt: int, offset: int) -> MockDelivery:
        delivery = MockDelivery(message, self, 0, offset, attempt)
        delivery.delay = delivery.reason = None
        return delivery

    def _hand_out(self) -> Item:
        delivery = self._waiting.popleft()
        self._out[delivery] = None
        return self._shown(delivery)

    def _shown(self, delivery: MockDelivery) -> Item:
        item = self._items[delivery]
        return delivery if self._as_deliveries or isinstance(item, Message) else item  # type: ignore[return-value]

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("This MockConsumer is closed; make a new one.")


_ABSENT = object()
