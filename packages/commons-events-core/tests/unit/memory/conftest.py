"""Brokers on a virtual clock, and short words for what the tests of the in-process broker do over and over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from commons_events import Message
from commons_events.memory import MemoryBroker, MemoryLimits, MemorySubscription, MemoryTransport
from commons_events.runtime import Runtime
from commons_events.transport import Delivery, SubscribeRequest

START = datetime(2030, 1, 1, tzinfo=UTC)


class _Timer:
    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualRuntime(Runtime):
    """Time that passes only by `advance`."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0
        self.timers: list[_Timer] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        timer = _Timer(self.passed + seconds, callback)
        self.timers.append(timer)
        return cast(asyncio.TimerHandle, timer)

    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.passed += seconds
        due = [timer for timer in self.timers if timer.due <= self.passed]
        self.timers = [timer for timer in self.timers if timer.due > self.passed]
        for timer in due:
            if not timer.cancelled:
                timer.callback()


class Bench:
    """A private broker with a client, on a virtual clock."""

    def __init__(self, **limits: Any) -> None:
        self.clock = VirtualRuntime()
        self.broker = MemoryBroker("bench", MemoryLimits(**limits), runtime=self.clock)
        self.transport = MemoryTransport(self.broker)

    async def subscribe(self, *topics: str, group: str | None = "g", **options: Any) -> MemorySubscription:
        request = SubscribeRequest(topics=topics or ("t",), group_id=group, **options)
        return await self.transport.subscribe(request)

    async def publish(
        self, *values: bytes, topic: str = "t", partition: int | None = 0, key: bytes | None = None
    ) -> None:
        results = await self.transport.publish([Message(topic, value, key, partition=partition) for value in values])
        assert not [result for result in results if isinstance(result, Exception)]

    async def take(self, subscription: MemorySubscription, limit: int = 100) -> list[Delivery]:
        """What can be received now, without waiting."""
        task = asyncio.ensure_future(subscription.receive(limit))
        for _ in range(3):
            await asyncio.sleep(0)
        if task.done():
            return list(task.result())
        task.cancel()
        await asyncio.wait([task])
        return []

    async def values(self, subscription: MemorySubscription) -> list[bytes]:
        return [delivery.value for delivery in await self.take(subscription)]

    def stored(self, topic: str = "t") -> list[bytes | None]:
        """All that a topic holds, partition by partition."""
        partitions = {info.topic: info.partitions for info in self.broker.topics()}[topic]
        return [item.message.value for p in range(partitions) for item in self.broker.browse(topic, p, 0, 1_000_000)]


@pytest.fixture
def bench() -> Callable[..., Bench]:
    return Bench


@pytest.fixture
def acknowledge() -> Callable[[Sequence[Delivery]], None]:
    def ack(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            delivery.ack()

    return ack
