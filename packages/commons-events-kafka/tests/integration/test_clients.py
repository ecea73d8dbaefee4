"""What `KafkaProducer` and `KafkaConsumer` add to the contracts."""

from __future__ import annotations

import asyncio

import pytest

from commons_events.errors import StaleDeliveryError
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer
from commons_events.message import Receipt
from commons_events.testing.services import RunningKafka
from commons_events.transport import TopicPartition

pytestmark = pytest.mark.asyncio


async def new_topic(kafka: RunningKafka, partitions: int = 1, name: str = "clients") -> str:
    topic = kafka.unique(name)
    async with KafkaAdmin(kafka.bootstrap_servers) as admin:
        await admin.create_topic(topic, partitions=partitions)
    return topic


@pytest.mark.parametrize(
    ("key", "murmur2"),
    [
        # What Kafka's own client makes of these, by its UtilsTest.testMurmur2.
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
async def test_a_key_lies_where_the_java_client_puts_it(
    kafka_service: RunningKafka, key: str | bytes, murmur2: int
) -> None:
    topic = await new_topic(kafka_service, partitions=31)
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
        one = await producer.send(topic, b"", key=key)
        (in_batch,) = await producer.send_batch(topic, [b""], key=key)
    expected = (murmur2 & 0x7FFFFFFF) % 31
    assert one.partition == in_batch.partition == expected


async def test_receipts_of_a_batch_say_where_each_message_lies(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service, partitions=3)
    values = [b"%d" % number for number in range(1_300)]
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
        for _ in range(2):  # the second time in what the first left behind
            receipts = await producer.send_batch(topic, values, key=lambda value: value)
    told = {(receipt.partition, receipt.offset): value for receipt, value in zip(receipts, values, strict=True)}
    assert len(told) == len(values)
    found = {}
    async with KafkaConsumer(kafka_service.bootstrap_servers, kafka_service.unique("group"), topic) as consumer:
        async for delivery in consumer:
            found[delivery.partition, delivery.offset] = delivery.value
            if len(found) == 2 * len(values):
                break
    assert {place: found[place] for place in told} == told


async def test_acks_of_none_give_receipts_without_an_offset(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service)
    async with KafkaProducer(kafka_service.bootstrap_servers, acks=0, enable_idempotence=False) as producer:
        await producer.send(topic, b"first")
        receipts = await producer.send_batch(topic, [b"a", b"b"])
        one = await producer.send(topic, b"c")
    assert [*receipts, one] == [Receipt(topic, 0, None)] * 3


async def test_lag_counts_what_is_not_finished(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service, partitions=2)
    place, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
        for number in range(5):
            await producer.send(topic, b"%d" % number, partition=0)
    group = kafka_service.unique("group")
    async with KafkaConsumer(kafka_service.bootstrap_servers, group, topic) as consumer:
        deliveries = []
        while len(deliveries) < 5:
            deliveries += await consumer.receive(5 - len(deliveries))
        assert await consumer.lag() == {place: 5, other: 0}
        await deliveries[0].ack()
        await deliveries[1].ack()
        await deliveries[3].ack()
        assert await consumer.lag() == {place: 3, other: 0}
        await consumer.commit(wait=True)
        assert await consumer.lag() == {place: 0, other: 0}


async def test_committing_what_was_sought_away_from_is_stale(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service)
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
        await producer.send_batch(topic, [b"0", b"1"])
    async with KafkaConsumer(kafka_service.bootstrap_servers, kafka_service.unique("group"), topic) as consumer:
        (first,) = await consumer.receive(1)
        await consumer.seek("beginning")
        with pytest.raises(StaleDeliveryError, match="no longer this consumer's"):
            await consumer.commit(first)
        (again,) = await consumer.receive(1)
        assert again.value == b"0"
        await consumer.commit(again, wait=True)
        await first.ack()  # passed over
        assert await consumer.lag() == {TopicPartition(topic, 0): 1}


async def test_a_pattern_receives_from_every_topic_that_it_matches(kafka_service: RunningKafka) -> None:
    stem = kafka_service.unique("pattern")
    topics = [f"{stem}-{name}" for name in ("one", "two")]
    async with KafkaAdmin(kafka_service.bootstrap_servers) as admin:
        for topic in [*topics, f"other-{stem}-one"]:
            await admin.create_topic(topic, partitions=1)
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
        for topic in [*topics, f"other-{stem}-one"]:
            await producer.send(topic, topic.encode())
    group = kafka_service.unique("group")
    async with KafkaConsumer(kafka_service.bootstrap_servers, group, [f"^{stem}-.*"]) as consumer:
        received = []
        async with asyncio.timeout(60):
            while len(received) < 2:
                received += await consumer.receive(10)
        assert sorted((delivery.topic, delivery.value) for delivery in received) == [
            (topic, topic.encode()) for topic in topics
        ]
        assert await consumer.receive(10, timeout=0.5) == []
