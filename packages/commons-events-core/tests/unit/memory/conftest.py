"""Brokers on a virtual clock, and short words for what the tests of the in-process broker do over and over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from commons_events import Message
from commons_events.memory import MemoryBroker, MemoryLimits, MemorySubscription, MemoryTransport
from commons_events.transport import Delivery, SubscribeRequest


class Bench:
    """A private broker with a client, on a virtual clock."""

    def __init__(self, clock: Any, **limits: Any) -> None:
        self.clock = clock
        self.broker = MemoryBroker("bench", MemoryLimits(**limits), runtime=clock)
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
def bench(clock: Any) -> Callable[..., Bench]:
    return lambda **limits: Bench(clock, **limits)


@pytest.fixture
def acknowledge() -> Callable[[Sequence[Delivery]], None]:
    def ack(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            delivery.ack()

    return ack
