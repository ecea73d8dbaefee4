"""A router under test: on an in-process broker, in virtual time, with what its handlers did at hand."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from commons_events.dead_letters import MARK, DeadLetter
from commons_events.event import Event
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.message import Message, Receipt
from commons_events.middleware import Middleware, Received, ReceiveNext
from commons_events.producers import EventProducer
from commons_events.router import EventRouter, RunningRouter
from commons_events.testing._virtual_time import VirtualTime, virtual_time
from commons_events.testing._wait import eventually
from commons_events.transport import Transport

__all__ = ["RouterRun", "run_router"]

T = TypeVar("T")

_TURNS = 1000


@dataclass(eq=False)
class _Record:
    """What one handler did."""

    function: Callable[..., Any]
    handled: list[Any] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)


class _Recorder(Middleware):
    def __init__(self, record: _Record) -> None:
        self.record = record

    async def receive(self, received: Received, call_next: ReceiveNext) -> Any:
        try:
            result = await call_next(received)
        except Exception as error:
            self.record.failed.append(error)
            raise
        self.record.handled.append(received.event)
        return result


class _RecordedRouter(EventRouter):
    """Another router, with a record of each of its handlers around all else."""

    def __init__(self, router: EventRouter) -> None:
        super().__init__()
        self.include(router)
        self.records: list[_Record] = []

    @property
    def registrations(self) -> list[Any]:
        """See `EventRouter.registrations`."""
        return [
            replace(one, middleware=(_Recorder(self._record(one.function)), *one.middleware))
            for one in super().registrations
        ]

    def _record(self, function: Callable[..., Any]) -> _Record:
        for record in self.records:
            if _same(record.function, function):
                return record
        self.records.append(_Record(function))
        return self.records[-1]

    def find(self, handler: Callable[..., Any]) -> _Record:
        """The record of a handler: of the function itself, else of the only one that has its name.

        Raises:
            ValueError: it is no handler of this router, or no one can say which.
        """
        for record in self.records:
            if _same(record.function, handler):
                return record
        name = _name(handler)  # what a decorator made of the handler has the handler's name
        named = [record for record in self.records if _name(record.function) == name]
        if len(named) == 1:
            return named[0]
        known = ", ".join(dict.fromkeys(_name(record.function) for record in self.records))
        problem = f"{len(named)} handlers of this router have the name {name}, and {handler!r} is none of them"
        if not named:
            problem = f"{handler!r} is no handler of this router, which has: {known}"
        raise ValueError(f"{problem}. Give the function that was decorated.")


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether both are the same function, or the same method of the same object, which is made anew each time."""
    return one is other or (inspect.ismethod(one) and inspect.ismethod(other) and one == other)


class RouterRun:
    """What a test sees of a router that runs. `EventTestHarness.run` makes it.

    Time is virtual: whatever waits (a retry's delay, ``asyncio.sleep`` in a handler, a time-out) takes no real time. It
    stands while something runs in a thread, but not while a socket or a subprocess is waited for: a time-out is over
    before those answer, so stand in for them, or run the router by `EventRouter.running`.
    """

    def __init__(
        self,
        running: RunningRouter,
        producers: Mapping[str | None, EventProducer],
        brokers: Mapping[str | None, MemoryBroker],
        recorded: _RecordedRouter,
        time: VirtualTime,
    ) -> None:
        self.running = running
        """The running router, for `RunningRouter.status` and `RunningRouter.stop`."""
        self.time = time
        """The runtime; ``time.passed`` is how many virtual seconds went by."""
        self._producers = producers
        self._producer = producers[None]
        self._brokers = brokers
        self._recorded = recorded

    async def send(self, topic: str, *events: Event, key: str | bytes | None = None, broker: str | None = None) -> None:
        """Send events, and return once the broker has them.

        Args:
            topic: where to.
            events: what.
            key: theirs.
            broker: the name of one that the router's handlers name; by default the harness's own. So below.

        Raises:
            InvalidTopicError: the topic is no text, or none that a topic can have.
            ValueError: no handler names such a broker.
        """
        await self._of(self._producers, broker).send_batch(topic, events, key=key)

    async def publish(self, *messages: Message, broker: str | None = None) -> None:
        """Publish messages as they are, undecodable ones for example.

        Raises:
            TypeError: one is no `Message`.
        """
        for message in messages:
            if not isinstance(message, Message):
                raise TypeError(f"publish() takes Messages, and {message!r:.100} is none; send() takes events.")
        for result in await MemoryTransport(self._of(self._brokers, broker)).publish(messages):
            if not isinstance(result, Receipt):
                raise result

    async def handled(self, handler: Callable[..., Any], count: int = 1, *, timeout: float = 3600.0) -> list[Any]:
        """Wait until a handler has returned ``count`` times since the start; what it was given, in order.

        Args:
            handler: the function that was decorated; a method of the object that it was taken from.
            count: 0 waits for nothing.
            timeout: virtual seconds.

        Raises:
            AssertionError: it did not within ``timeout`` virtual seconds, or the router has stopped or ended; the
                message says what the handler raised.
            ValueError: it is no handler of this router.
        """
        record = self._recorded.find(handler)
        return await self._wait(record, record.handled, count, timeout, "handled")

    async def failed(self, handler: Callable[..., Any], count: int = 1, *, timeout: float = 3600.0) -> list[Any]:
        """As `handled`, for the exceptions that a handler raised."""
        record = self._recorded.find(handler)
        return await self._wait(record, record.failed, count, timeout, "failed")

    async def _wait(self, record: _Record, of: list[Any], count: int, timeout: float, what: str) -> list[Any]:
        def enough() -> bool:
            return len(of) >= count or self._is_over()

        name = _name(record.function)
        try:
            await eventually(enough, timeout=timeout, interval=0.01, what=f"{name} {what} {count} times")
        except AssertionError as error:
            raise AssertionError(self._complaint(record, what, count, len(of))) from error
        if len(of) < count:
            raise AssertionError(self._complaint(record, what, count, len(of))) from self.running.error
        for _ in range(_TURNS):  # let it be settled, which takes no time
            if not any(each["running"] for each in self.running.status()["subscriptions"]):
                break
            await asyncio.sleep(0)
        return list(of)

    def _complaint(self, record: _Record, what: str, count: int, times: int) -> str:
        raised = record.failed
        said = f" It raised: {', '.join(repr(error) for error in raised[:3])}." if raised else ""
        return f"{_name(record.function)} {what} {times} of {count} times.{said}{self._why_over()}"

    def _is_over(self) -> bool:
        return self.running.error is not None or self.running.state == "stopped"

    def _why_over(self) -> str:
        if self.running.error is not None:
            return f" The router stopped: {self.running.error!r}."
        return " The router has ended; ask inside of its block." if self.running.state == "stopped" else ""

    async def idle(self, *, timeout: float = 3600.0) -> None:
        """Wait until all that was sent is settled, retries included, also those that wait in a broker.

        Raises:
            AssertionError: something is left after ``timeout`` virtual seconds, or the router has stopped or ended.
        """

        def done() -> bool:
            subscriptions = self.running.status()["subscriptions"]
            return self._is_over() or (
                all(not each["buffered"] and not each["running"] for each in subscriptions)
                and not any(
                    broker.lag({each["group"] for each in subscriptions if each["broker"] == name})
                    for name, broker in self._brokers.items()
                )
            )

        for _ in range(3):  # what is handled may send, and what is sent has to be fetched
            await eventually(done, timeout=timeout, interval=0.01, what="all messages are settled")
            if self._is_over():
                raise AssertionError(self._why_over().lstrip()) from self.running.error
            await asyncio.sleep(0.01)

    def messages(self, topic: str, *, broker: str | None = None) -> list[Message]:
        """What lies in a topic, without any effect on groups; in the order of publishing within a partition."""
        lying_in = self._of(self._brokers, broker)
        infos = {info.topic: info.partitions for info in lying_in.topics()}
        return [
            stored.message
            for partition in range(infos.get(topic, 0))
            for stored in lying_in.browse(topic, partition, 0, 1_000_000)
        ]

    def dead_letters(self, topic: str, *, broker: str | None = None) -> Sequence[DeadLetter]:
        """The letters in a dead-letter topic, in the order of publishing within a partition."""
        return [DeadLetter.read(each) for each in self.messages(topic, broker=broker) if each.header(MARK) is None]

    def _of(self, each: Mapping[str | None, T], broker: str | None) -> T:
        if broker not in each:
            known = ", ".join(repr(name) for name in each if name is not None) or "none"
            raise ValueError(f"No handler names the broker {broker!r}; those that are named: {known}.")
        return each[broker]


@asynccontextmanager
async def run_router(
    router: EventRouter, broker: MemoryBroker, transport: Transport, grace: float
) -> AsyncIterator[RouterRun]:
    """See `EventTestHarness.run`."""
    recorded = _RecordedRouter(router)
    named = {one.broker for one in router.registrations}
    named |= {one.bridge.to_broker for one in router.registrations if one.bridge is not None}
    # The broker keeps the runtime, which stays right after the block: what is due by virtual time has to stay due.
    with virtual_time(after=broker.runtime) as time:
        broker.runtime = time
        brokers: dict[str | None, MemoryBroker] = {None: broker}
        brokers |= {name: MemoryBroker(name) for name in named if name is not None}
        transports = {name: MemoryTransport(each) for name, each in brokers.items() if name is not None}
        running = recorded.running(broker=transport, brokers=transports, grace=grace)
        async with AsyncExitStack() as stack:
            producers = {
                name: await stack.enter_async_context(EventProducer(transport=MemoryTransport(each)))
                for name, each in brokers.items()
            }
            async with running:
                yield RouterRun(running, producers, brokers, recorded, time)
