"""Topics that are streams, beside what the contract says: who reads, where a group goes on, and what a time means."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from commons_events.consumers import EventConsumer
from commons_events.errors import ConfigurationError
from commons_events.message import Message, Receipt
from commons_events.rabbitmq import (
    RabbitMQAdmin,
    RabbitMQConsumer,
    RabbitMQStreamSubscription,
    RabbitMQTransport,
    _stream,
)
from commons_events.rabbitmq._places import Place
from commons_events.testing.services import RunningRabbitMQ
from commons_events.transport import Delivery, SubscribeRequest

STREAM: dict[str, Any] = {"queue_type": "stream"}


@pytest.fixture(autouse=True)
def _streams(rabbitmq_service: RunningRabbitMQ) -> None:
    rabbitmq_service.require("streams")


async def publish(transport: RabbitMQTransport, first: int, last: int) -> None:
    results = await transport.publish([Message("t", b"%d" % number) for number in range(first, last)])
    assert all(isinstance(result, Receipt) for result in results), results


async def take(consumer: EventConsumer, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(60):
        while len(taken) < count:
            taken += await consumer.receive(count - len(taken))
    return taken


def numbers(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(delivery.value) for delivery in deliveries]


@pytest.mark.asyncio
async def test_the_one_that_stands_by_goes_on_where_the_group_was(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str
) -> None:
    """Its place survives all of the group's members, and a connection that is closed by force."""
    rabbitmq_service.require("management")
    settings: dict[str, Any] = {"broker": rabbitmq_vhost, "topics": ["t"], "group_id": "g", "options": STREAM}
    transport = RabbitMQTransport(rabbitmq_vhost, **STREAM)
    await publish(transport, 0, 100)
    first = EventConsumer(**settings, client_id="first-of-group")
    await first.start()
    second = EventConsumer(**settings, client_id="second-of-group")
    await second.start()
    messages = await take(first, 100)
    assert numbers(messages) == list(range(100))
    assert [message.offset for message in messages] == list(range(100))
    assert await second.receive(10, timeout=0.2) == []
    for number in (*range(40), 60):  # 60 is finished, and what is before it is not: it comes again
        await messages[number].ack()
    await first.commit(messages[0], wait=True)
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(rabbitmq_service.close_connections, "first-of-group consuming"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    again = await take(second, 60)
    assert numbers(again) == list(range(40, 100))
    for message in again:
        await message.ack()
    await second.close()
    await publish(transport, 100, 110)
    assert numbers(await take(first, 10)) == list(range(100, 110)), "the first one stands by meanwhile"
    await first.close()
    async with EventConsumer(**settings) as third:
        assert numbers(await take(third, 10)) == list(range(100, 110)), "they were never acknowledged"
    await transport.close()


@pytest.mark.asyncio
async def test_who_is_alone_has_its_turn_when_it_has_subscribed(
    rabbitmq_vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow RabbitMQ is; else it would seek nothing."""
    take_over = RabbitMQStreamSubscription._take_over

    async def slowly(self: RabbitMQStreamSubscription, *arguments: Any) -> None:
        await asyncio.sleep(6.0)
        await take_over(self, *arguments)

    monkeypatch.setattr(_stream, "_TURN", 5.0)
    monkeypatch.setattr(RabbitMQStreamSubscription, "_take_over", slowly)
    transport = RabbitMQTransport(rabbitmq_vhost, **STREAM)
    await publish(transport, 0, 5)
    async with EventConsumer(broker=rabbitmq_vhost, topics=["t"], group_id="g", options=STREAM) as consumer:
        await consumer.seek(3)
        assert numbers(await take(consumer, 2)) == [3, 4]
    await transport.close()


@pytest.mark.asyncio
async def test_a_group_from_the_end_does_not_go_back_where_a_slow_server_loses_its_connection(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rabbitmq_service.require("management")
    monkeypatch.setattr(_stream, "_LAST_PATIENCE", 0.0)
    transport = RabbitMQTransport(rabbitmq_vhost, **STREAM)
    await publish(transport, 0, 20)
    async with RabbitMQAdmin(rabbitmq_vhost) as admin, asyncio.timeout(60):
        while (await admin.queue("t")).messages < 20:  # noqa: ASYNC110  # RabbitMQ counts every few seconds
            await asyncio.sleep(0.1)
    async with EventConsumer(
        broker=rabbitmq_vhost, topics=["t"], group_id="g", start="latest", options=STREAM, client_id="late"
    ) as consumer:
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(rabbitmq_service.close_connections, "late consuming"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await publish(transport, 20, 21)
        assert numbers(await take(consumer, 1)) == [20]
    await transport.close()


@pytest.mark.asyncio
async def test_seeking_a_time_is_about_arrival(rabbitmq_vhost: str) -> None:
    transport = RabbitMQTransport(rabbitmq_vhost, **STREAM)
    await publish(transport, 0, 5)
    await asyncio.sleep(2.1)  # RabbitMQ counts whole seconds, of chunks of messages
    middle = datetime.now(UTC)
    await asyncio.sleep(1.1)
    await publish(transport, 5, 8)
    async with EventConsumer(broker=rabbitmq_vhost, topics=["t"], group_id="g", options=STREAM) as consumer:
        assert numbers(await take(consumer, 8)) == list(range(8))
        await consumer.seek(middle)
        assert numbers(await take(consumer, 3)) == [5, 6, 7]
        await consumer.seek(middle - timedelta(days=1))
        assert numbers(await take(consumer, 8)) == list(range(8))
        await consumer.seek(middle)
    async with EventConsumer(broker=rabbitmq_vhost, topics=["t"], group_id="g", options=STREAM) as consumer:
        assert numbers(await take(consumer, 3)) == [5, 6, 7], "the group keeps the time that was sought"
    async with RabbitMQConsumer(rabbitmq_vhost, queue="t", stream_offset=middle) as consumer:
        assert numbers(await take(consumer, 3)) == [5, 6, 7]
    await transport.close()


@pytest.mark.asyncio
async def test_every_offset_of_amqp_is_taken(rabbitmq_vhost: str) -> None:
    transport = RabbitMQTransport(rabbitmq_vhost, **STREAM)
    await publish(transport, 0, 20)
    for offset, first in (("first", 0), (7, 7), ("7", 7), (20, 20), ("next", 20)):
        async with RabbitMQConsumer(rabbitmq_vhost, queue="t", stream_offset=offset) as consumer:
            if first < 20:
                assert numbers(await take(consumer, 20 - first)) == list(range(first, 20))
            assert await consumer.receive(1, timeout=0.1) == []
    async with RabbitMQConsumer(rabbitmq_vhost, queue="t", stream_offset="last") as consumer:
        got = numbers(await take(consumer, 1))
        while got[-1] < 19:
            got += numbers(await take(consumer, 1))
        assert got == list(range(got[0], 20)), "the last chunk, which RabbitMQ has cut as it came"
    await transport.close()


@pytest.mark.asyncio
async def test_headers_come_back_though_not_in_their_order(rabbitmq_vhost: str) -> None:
    headers = (
        ("z", b"first"),
        ("a", b"second"),
        ("empty", b""),
        ("unicode", "grüße 🎈".encode()),
        ("raw", b"\xff\x00"),
    )
    transport = RabbitMQTransport(rabbitmq_vhost, **STREAM)
    member = await transport.subscribe(SubscribeRequest(topics=("t",), group_id="g"))
    await transport.publish([Message("t", b"v", b"key", headers), Message("t", None)])
    async with asyncio.timeout(60):
        received: list[Delivery] = []
        while len(received) < 2:
            received += await member.receive(2)
    assert sorted(received[0].headers) == sorted(headers)
    assert received[0].key == b"key"
    assert received[1].message.value is None
    await transport.close()


@pytest.mark.asyncio
async def test_a_queue_of_places_that_was_purged_is_a_new_group(rabbitmq_vhost: str) -> None:
    settings: dict[str, Any] = {"broker": rabbitmq_vhost, "topics": ["t"], "group_id": "g", "options": STREAM}
    transport = RabbitMQTransport(rabbitmq_vhost, **STREAM)
    await publish(transport, 0, 3)
    async with EventConsumer(**settings) as consumer:
        for message in await take(consumer, 3):
            await message.ack()
    async with RabbitMQAdmin(rabbitmq_vhost) as admin:
        assert await admin.purge("t.g.position") >= 1
    async with EventConsumer(**settings) as consumer:
        assert numbers(await take(consumer, 3)) == [0, 1, 2]
    await transport.close()


@pytest.mark.parametrize("setting", ["retry_queues", "single_active_consumer", "exclusive", "consumer_priority"])
def test_what_is_of_queues_alone_is_refused(setting: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{setting} is of queues"):
        RabbitMQTransport("amqp://localhost", queue_type="stream", **{setting: 1})


@pytest.mark.parametrize("place", [Place(3, 17), Place(0, "first"), Place(1, datetime(2026, 1, 1, tzinfo=UTC))])
def test_a_place_comes_back_as_it_was(place: Place) -> None:
    assert Place.decode(place.encode()) == place


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"fence": "x"}', b'{"term": "1", "offset": 2}', b'{"term": 1, "offset": "next"}']
)
def test_what_is_no_place_is_told_apart(data: bytes) -> None:
    assert Place.decode(data) is None
