"""The in-process broker keeps every contract, in each of its configurations; JSON keeps the serializer's."""

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import ClassVar

import pytest

from commons_events.memory import MemoryBroker, MemorySubscription, MemoryTransport
from commons_events.message import Message
from commons_events.serialization import JsonSerializer, Serializer
from commons_events.testing.contracts import (
    SHORT,
    ConsumerContract,
    ProducerContract,
    RouterContract,
    SerializerContract,
    TransportContract,
)
from commons_events.transport import Outcome, Settlement, SubscribeRequest, Subscription, Transport, TransportSettings

_names = count(1)


class InProcess:
    """A broker that belongs to one test, reached by its URL."""

    timeout: ClassVar[float] = 60.0
    quiet: ClassVar[float] = 0.05
    limits: ClassVar[str] = "partitions=8"
    small_limits: ClassVar[str] = "partitions=4&max_messages=500"

    def _url(self, limits: str) -> str:
        name = self.__dict__.setdefault("_name", f"contract-{next(_names)}")
        # Limits belong to a broker, so each set of them has one of its own.
        return f"memory://{name}-{len(limits)}?{limits}"

    async def make_transport(self) -> Transport:
        return MemoryTransport.from_settings(TransportSettings(url=self._url(self.limits)))

    async def make_small_transport(self) -> Transport:
        return MemoryTransport.from_settings(TransportSettings(url=self._url(self.small_limits)))

    async def lose(self, subscription: Subscription) -> None:
        assert isinstance(subscription, MemorySubscription)
        name = f"{self.__dict__['_name']}-{len(self.limits)}"
        MemoryBroker.get(name).disconnect(subscription)


@pytest.fixture(autouse=True)
def forget_brokers() -> Iterator[None]:
    yield
    MemoryBroker.reset_all()


class TestTransport(InProcess, TransportContract):
    """As it comes."""


class TestTransportOfOnePartition(InProcess, TransportContract):
    limits = "partitions=1"
    small_limits = "partitions=1&max_messages=500"


class TestTransportBoundedByBytes(InProcess, TransportContract):
    """Topics with room for little: every test that sends more than fits goes through waiting publishes."""

    scale = SHORT
    limits = "partitions=3&max_bytes=4000000&retain=20&max_message_bytes=1000000"
    small_limits = "partitions=2&max_bytes=100000"


class TestProducer(InProcess, ProducerContract):
    pass


class TestConsumer(InProcess, ConsumerContract):
    pass


class TestConsumerOfOnePartition(InProcess, ConsumerContract):
    limits = "partitions=1"


class TestRouter(InProcess, RouterContract):
    pass


class TestRouterOfOnePartition(InProcess, RouterContract):
    scale = SHORT
    limits = "partitions=1"


class TestJson(SerializerContract):
    def make_serializer(self) -> Serializer:
        return JsonSerializer()


def test_threads_with_event_loops_of_their_own_share_a_broker() -> None:
    """Publishers and consumers in many threads: nothing is lost, doubled or out of a key's order."""
    broker = MemoryBroker("threads")
    publishers, count_each = 4, 500
    received: list[tuple[bytes | None, int]] = []

    async def publish(publisher: int) -> None:
        transport = MemoryTransport(broker)
        for start in range(0, count_each, 50):
            numbers = range(start, start + 50)
            await transport.publish([Message("topic", b"%d" % n, key=b"key-%d" % publisher) for n in numbers])
        await transport.close()

    async def consume() -> None:
        transport = MemoryTransport(broker)
        subscription = await transport.subscribe(SubscribeRequest(topics=("topic",), group_id="group"))
        async with asyncio.timeout(60):
            while len(received) < publishers * count_each:
                try:
                    async with asyncio.timeout(0.05):
                        batch = await subscription.receive(20)
                except TimeoutError:
                    continue
                received.extend((delivery.key, int(delivery.value)) for delivery in batch)
                await subscription.settle([Settlement(delivery, Outcome.ACK) for delivery in batch])
        await transport.close()

    async def in_threads() -> None:
        consumers = [asyncio.to_thread(asyncio.run, consume()) for _ in range(2)]
        await asyncio.gather(*consumers, *(asyncio.to_thread(asyncio.run, publish(n)) for n in range(publishers)))

    for _ in range(2):  # a second asyncio.run finds the broker as the first one left it
        received.clear()
        asyncio.run(in_threads())
        assert len(set(received)) == len(received) == publishers * count_each
        for key in {key for key, _ in received}:
            numbers = [number for other, number in received if other == key]
            assert numbers == sorted(numbers)
