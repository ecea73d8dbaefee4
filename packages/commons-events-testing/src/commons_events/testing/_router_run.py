"""A router under test: on an in-process broker, in virtual time, with what its handlers did at hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from commons_events.dead_letters import MARK, DeadLetter
from commons_events.event import Event
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.message import Message, Receipt
from commons_events.middleware import Middleware, Received, ReceiveNext
from commons_events.producers import EventProducer
from commons_events.router import EventRouter, RunningRouter
from commons_events.testing._virtual_time import RuntimeAhead, VirtualTime, virtual_time
from commons_events.testing._wait import eventually
from commons_events.transport import Transport

__all__ = ["RouterRun", "run_router"]

_TURNS = 1000


class _Recorder(Middleware):
    def __init__(self) -> None:
        self.handled: dict[str, list[Any]] = {}
        self.failed: dict[str, list[Exception]] = {}

    async def receive(self, received: Received, call_next: ReceiveNext) -> Any:
        try:
            result = await call_next(received)
        except Exception as error:
            self.failed.setdefault(received.handler, []).append(error)
            raise
        self.handled.setdefault(received.handler, []).append(received.event)
        return result


class RouterRun:
    """What a test sees of a router that runs. `EventTestHarness.run` makes it.

    Time is virtual: whatever waits (a retry's delay, ``asyncio.sleep`` in a handler, a time-out) takes no real time. It
    stands while something runs in a thread, but not while a socket or a subprocess is waited for: a time-out is over
    before those answer, so stand in for them, or run the router by `EventRouter.running`.
    """

    def __init__(
        self,
        running: RunningRouter,
        producer: EventProducer,
        broker: MemoryBroker,
        recorder: _Recorder,
        time: VirtualTime,
    ) -> None:
        self.running = running
        """The running router, for `RunningRouter.status` and `RunningRouter.stop`."""
        self.time = time
        """The runtime; ``time.passed`` is how many virtual seconds went by."""
        self._producer = producer
        self._broker = broker
        self._recorder = recorder

    async def send(self, topic: str, *events: Event, key: str | bytes | None = None) -> None:
        """Send events, and return once the broker has them."""
        await self._producer.send_batch(topic, events, key=key)

    async def publish(self, *messages: Message) -> None:
        """Publish messages as they are, undecodable ones for example."""
        for result in await MemoryTransport(self._broker).publish(messages):
            if not isinstance(result, Receipt):
                raise result

    async def handled(self, handler: Callable[..., Any], count: int = 1, *, timeout: float = 3600.0) -> list[Any]:
        """Wait until a handler has returned ``count`` times since the start; what it was given, in order.

        Raises:
            AssertionError: it did not within ``timeout`` virtual seconds, or the router has stopped; the message says
                what the handler raised.
        """
        return await self._wait(self._recorder.handled, handler, count, timeout, "handled")

    async def failed(self, handler: Callable[..., Any], count: int = 1, *, timeout: float = 3600.0) -> list[Any]:
        """As `handled`, for the exceptions that a handler raised."""
        return await self._wait(self._recorder.failed, handler, count, timeout, "failed")

    async def _wait(
        self, of: dict[str, list[Any]], handler: Callable[..., Any], count: int, timeout: float, what: str
    ) -> list[Any]:
        name = f"{handler.__module__}.{handler.__qualname__}"

        def enough() -> bool:
            return len(of.get(name, ())) >= count or self.running.error is not None

        try:
            await eventually(enough, timeout=timeout, interval=0.01, what=f"{name} {what} {count} times")
        except AssertionError as error:
            raise AssertionError(self._complaint(name, what, count, of)) from error
        if len(of.get(name, ())) < count:
            raise AssertionError(self._complaint(name, what, count, of)) from self.running.error
        for _ in range(_TURNS):  # let it be settled, which takes no time
            if not any(each["running"] for each in self.running.status()["subscriptions"]):
                break
            await asyncio.sleep(0)
        return list(of[name])

    def _complaint(self, name: str, what: str, count: int, of: dict[str, list[Any]]) -> str:
        raised = self._recorder.failed.get(name, [])
        said = f" It raised: {', '.join(repr(error) for error in raised[:3])}." if raised else ""
        stopped = f" The router stopped: {self.running.error!r}." if self.running.error is not None else ""
        return f"{name} {what} {len(of.get(name, ()))} of {count} times.{said}{stopped}"

    async def idle(self, *, timeout: float = 3600.0) -> None:
        """Wait until all that was sent is settled, retries included, also those that wait in the broker.

        Raises:
            AssertionError: something is left after ``timeout`` virtual seconds, or the router has stopped.
        """

        def done() -> bool:
            subscriptions = self.running.status()["subscriptions"]
            return self.running.error is not None or (
                all(not each["buffered"] and not each["running"] for each in subscriptions)
                and not self._broker.lag({each["group"] for each in subscriptions if each["broker"] is None})
            )

        for _ in range(3):  # what is handled may send, and what is sent has to be fetched
            await eventually(done, timeout=timeout, interval=0.01, what="all messages are settled")
            if self.running.error is not None:
                raise AssertionError(f"The router stopped: {self.running.error!r}.") from self.running.error
            await asyncio.sleep(0.01)

    def messages(self, topic: str) -> list[Message]:
        """What lies in a topic, without any effect on groups; in the order of publishing within a partition."""
        infos = {info.topic: info.partitions for info in self._broker.topics()}
        return [
            stored.message
            for partition in range(infos.get(topic, 0))
            for stored in self._broker.browse(topic, partition, 0, 1_000_000)
        ]

    def dead_letters(self, topic: str) -> Sequence[DeadLetter]:
        """The letters in a dead-letter topic, in the order of publishing within a partition."""
        return [DeadLetter.read(each) for each in self.messages(topic) if each.header(MARK) is None]


@asynccontextmanager
async def run_router(
    router: EventRouter, broker: MemoryBroker, transport: Transport, grace: float
) -> AsyncIterator[RouterRun]:
    """See `EventTestHarness.run`."""
    recorder = _Recorder()
    outer = EventRouter(middleware=[recorder])
    outer.include(router)
    named = {one.broker for one in router.registrations}
    named |= {one.bridge.to_broker for one in router.registrations if one.bridge is not None}
    before = broker.runtime.ahead if isinstance(broker.runtime, RuntimeAhead) else 0.0
    with virtual_time(before) as time:
        broker.runtime = time
        try:
            brokers = {name: MemoryTransport(MemoryBroker(name)) for name in named if name is not None}
            running = outer.running(broker=transport, brokers=brokers, grace=grace)
            async with EventProducer(transport=MemoryTransport(broker)) as producer, running:
                yield RouterRun(running, producer, broker, recorder, time)
        finally:
            broker.runtime = RuntimeAhead(before + time.passed)  # what is due by virtual time has to stay due
