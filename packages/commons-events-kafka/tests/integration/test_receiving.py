"""Who takes messages from librdkafka: the thread where few come, else the event loop. Neither waits for the other."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest

from commons_events.consumers import EventConsumer
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer, KafkaTransport, _poller
from commons_events.kafka._subscription import KafkaSubscription
from commons_events.testing.services import RunningKafka

from . import foreign

pytestmark = pytest.mark.asyncio
PATIENCE = 60.0


async def test_what_is_left_to_a_loop_that_waits_already_is_read_by_it(
    kafka_service: RunningKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took all, looked for more and fell asleep before the thread had left that to it."""
    topic, count = kafka_service.unique("receiving"), 1_000
    async with KafkaAdmin(kafka_service.bootstrap_servers) as admin:
        await admin.create_topic(topic, partitions=1)
    url, group = f"kafka://{kafka_service.bootstrap_servers}", kafka_service.unique("group")
    async with EventConsumer(url=url, group_id=group, topics=[topic], start="earliest") as consumer:
        subscription = consumer._subscription
        assert isinstance(subscription, KafkaSubscription)
        poller = subscription._poller
        read, hand_over, leave = poller.read, poller.hand_over, poller._leave_to_loop
        come_back, fell_asleep, left = poller._come_back.wait, threading.Event(), 0

        def reads() -> bool:
            if read():
                return True
            fell_asleep.set()
            return False

        def hands_over(*arrivals: Any) -> None:
            fell_asleep.clear()
            hand_over(*arrivals)

        def leaves_late() -> None:
            nonlocal left
            left += 1
            fell_asleep.wait(PATIENCE)
            leave()

        monkeypatch.setattr(_poller, "_AT_ONCE", 10)
        monkeypatch.setattr(poller, "read", reads)
        monkeypatch.setattr(poller, "hand_over", hands_over)
        monkeypatch.setattr(poller, "_leave_to_loop", leaves_late)
        monkeypatch.setattr(poller._come_back, "wait", lambda _: come_back())  # for as long as it takes
        async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
            await producer.send_batch(topic, [b"%d" % number for number in range(count)])
        values: list[Any] = []
        while len(values) < count:
            messages = await consumer.receive(500, timeout=PATIENCE)
            assert messages, f"{len(values)} of {count} came, and nothing more in {PATIENCE:g} s"
            values += [int(message.value) for message in messages]  # acknowledging them might wake the thread
    assert left
    assert values == [*range(count)]


async def test_a_header_of_another_client_whose_name_is_no_text_takes_nothing_down(kafka_service: RunningKafka) -> None:
    """The client for Python raises a `SystemError`, and then hands out tuples that end the process."""
    topic = kafka_service.unique("receiving")
    async with KafkaAdmin(kafka_service.bootstrap_servers) as admin:
        await admin.create_topic(topic, partitions=1)
    given = [(b"first", b"1"), (b"\xff\xfe", b"2"), (b"last", b"3"), ("ü".encode(), b"4")]
    await asyncio.to_thread(foreign.produce, kafka_service.bootstrap_servers, topic, b"value", given)
    expected = (("first", b"1"), ("\ufffd", b"2"), ("last", b"3"), ("ü", b"4"))
    group = kafka_service.unique("group")
    async with KafkaConsumer(kafka_service.bootstrap_servers, group, topic, retry_delay=0) as consumer:
        for _ in range(2):
            [message] = await consumer.receive(1, timeout=PATIENCE)
            assert (message.value, message.headers) == (b"value", expected)
            assert message.message.headers == message.headers == expected
            await message.nack()
        with pytest.raises(ValueError, match="event type"):
            message.event()
    transport = KafkaTransport(f"kafka://{kafka_service.bootstrap_servers}")
    [stored] = await transport.browse(topic, partition=0)
    await transport.close()
    assert stored.message.headers == expected


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_a_topic_of_a_pattern_may_be_deleted(kafka_service: RunningKafka, protocol: str) -> None:
    """Those that are left go on; a router stopped."""
    if protocol == "consumer":
        kafka_service.require("consumer-protocol")
    servers, name, group = kafka_service.bootstrap_servers, kafka_service.unique("receiving"), kafka_service.unique("g")
    gone, stays = f"{name}-gone", f"{name}-stays"
    settings: dict[str, Any] = {"topic_metadata_refresh_interval_ms": 200, "group_protocol": protocol}
    async with KafkaAdmin(servers) as admin, KafkaProducer(servers) as producer:
        for topic in (gone, stays):
            await admin.create_topic(topic, partitions=1)
            await producer.send(topic, b"before")
        async with KafkaConsumer(servers, group, [f"^{name}-.*"], **settings) as consumer:

            async def receive(count: int) -> list[tuple[str, bytes]]:
                found: list[tuple[str, bytes]] = []
                while len(found) < count:
                    messages = await consumer.receive(count, timeout=PATIENCE)
                    assert messages, f"{len(found)} of {count} came, and nothing more in {PATIENCE:g} s"
                    found += [(message.topic, message.value) for message in messages]
                return sorted(found)

            assert await receive(2) == [(gone, b"before"), (stays, b"before")]
            await consumer.commit(wait=True)
            await admin.delete_topic(gone)
            async with asyncio.timeout(PATIENCE):
                while gone in {place.topic for place in consumer.assignment}:
                    assert await consumer.receive(1, timeout=0.2) == []
            await producer.send(stays, b"after")
            assert await receive(1) == [(stays, b"after")]
            await consumer.commit(wait=True)


async def test_many_partitions_are_asked_about_at_once(kafka_service: RunningKafka) -> None:
    """Each question waits for a fetch, half a second as a rule, in which nothing is received."""
    topic, group, count = kafka_service.unique("receiving"), kafka_service.unique("group"), 20
    async with KafkaAdmin(kafka_service.bootstrap_servers) as admin:
        await admin.create_topic(topic, partitions=count)
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
        for partition in range(count):
            await producer.send(topic, b"value", partition=partition)
            await producer.send(topic, b"value", partition=partition)
    asked = Counter[str]()

    class Counted:
        """A client's consumer that counts what is asked of it."""

        def __init__(self, consumer: Any) -> None:
            self._consumer = consumer

        def __getattr__(self, name: str) -> Any:
            asked[name] += 1
            return getattr(self._consumer, name)

    async with KafkaConsumer(kafka_service.bootstrap_servers, group, topic) as consumer:
        first: dict[int, Any] = {}
        received = 0
        while received < 2 * count:
            for message in await consumer.receive(500, timeout=PATIENCE):
                received += 1
                first.setdefault(message.partition or 0, message)
        subscription = consumer._subscription
        assert isinstance(subscription, KafkaSubscription)
        poller: Any = subscription._poller
        poller.consumer = Counted(poller.consumer)
        assert {*(await consumer.lag()).values()} == {2}
        for message in first.values():
            await message.ack()
        assert {*(await consumer.lag()).values()} == {1}
        for target, left in (("beginning", 2), (1, 1), (-5, 2), (10**12, 0), (first[0].timestamp, 2), ("end", 0)):
            await consumer.seek(target)
            assert {*(await consumer.lag()).values()} == {left}, target
        questions = sum(asked[name] for name in ("get_watermark_offsets", "offsets_for_times", "committed"))
        assert questions <= 3 * 14, asked
        poller.consumer = poller.consumer._consumer
