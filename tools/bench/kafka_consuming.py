"""Consuming from Apache Kafka: ours beside the raw client, aiokafka and FastStream, on one broker, in one run."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from functools import cache, partial
from time import perf_counter
from typing import Any
from uuid import uuid4

from commons_events.kafka import KafkaConsumer, KafkaTransport
from commons_events.transport import SubscribeRequest
from tools.bench.kafka import COUNT, FEWER, SIZES, for_each_size, new_topic, servers, settings
from tools.bench.measure import Effort, Table, at_most, times_as_fast

LIBRARIES = ("confluent-kafka", "aiokafka", "faststream")
FEW = 3_000
RAW_CONSUME = "raw consume(500)"

CONSUME = {
    size: Table(
        f"kafka-consume-{size}",
        f"Consuming {size}-byte messages from Apache Kafka, µs a message",
        "From the first message on; with acknowledgement where it says so, else without. FastStream commits after\n"
        "each handler (AckPolicy.ACK; its default may lose messages), ours within a second, both at least once.",
        "µs",
        rate=True,
    )
    for size in SIZES
}


@cache
def filled(count: int, value: bytes) -> str:
    """A topic with that many messages."""
    from confluent_kafka import Producer

    topic = new_topic()
    producer = Producer(settings())
    for _ in range(count):
        while True:
            try:
                producer.produce(topic, value)
                break
            except BufferError:
                producer.poll(0.05)
    producer.flush(60)
    return topic


FASTSTREAM = {
    (driver, batch): f"FastStream {driver}, "
    + ("batches of 500, ack after the handler" if batch else "ack after the handler")
    for driver in ("confluent", "aiokafka")
    for batch in (False, True)
}
TWENTY_TIMES = times_as_fast(20, (FASTSTREAM["confluent", False], FASTSTREAM["aiokafka", False]), name="FastStream")
FIVE_TIMES = times_as_fast(
    5, (FASTSTREAM["confluent", True], FASTSTREAM["aiokafka", True]), name="FastStream's batches"
)


@for_each_size(CONSUME, RAW_CONSUME)
def raw_consume(effort: Effort, value: bytes) -> float:
    from confluent_kafka import Consumer

    count = effort.count(COUNT)
    consumer = Consumer(
        {
            "bootstrap.servers": servers(),
            "group.id": uuid4().hex,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 10,
        }
    )
    consumer.subscribe([filled(count, value)])
    received, start = 0, 0.0
    gc.collect()
    while received < count:
        for message in consumer.consume(500, 1.0):
            start = start or perf_counter()
            assert message.error() is None
            message.value()
            received += 1
    seconds = perf_counter() - start
    consumer.close()
    return seconds / count * 1e6


def consumed(effort: Effort, value: bytes, receive: Callable[[KafkaConsumer, int], Awaitable[float]]) -> float:
    count = effort.count(COUNT)
    topic = filled(count, value)

    async def main() -> float:
        async with KafkaConsumer(bootstrap_servers=servers(), group_id=uuid4().hex, topics=[topic]) as consumer:
            gc.collect()
            return await receive(consumer, count) / count * 1e6

    return asyncio.run(main())


@for_each_size(CONSUME, "subscription.receive(500), settle by a list")
def subscription(effort: Effort, value: bytes) -> float:
    from commons_events.transport import Outcome, Settlement

    count = effort.count(COUNT)
    topic = filled(count, value)

    async def main() -> float:
        transport = KafkaTransport(f"kafka://{servers()}")
        member = await transport.subscribe(SubscribeRequest(topics=(topic,), group_id=uuid4().hex))
        received, start = 0, 0.0
        while received < count:
            batch = await member.receive(500)
            start = start or perf_counter()
            for delivery in batch:
                _ = delivery.value
            received += len(batch)
            await member.settle([Settlement(delivery, Outcome.ACK) for delivery in batch])
        seconds = perf_counter() - start
        await transport.close()
        return seconds / count * 1e6

    return asyncio.run(main())


@for_each_size(CONSUME, "KafkaConsumer.receive(500), commit()", at_most(1 / 0.7, RAW_CONSUME), FIVE_TIMES)
def in_batches(effort: Effort, value: bytes) -> float:
    async def receive(consumer: KafkaConsumer, count: int) -> float:
        received, start = 0, 0.0
        while received < count:
            batch = await consumer.receive(500)
            start = start or perf_counter()
            for delivery in batch:
                _ = delivery.value
            received += len(batch)
            await consumer.commit()
        return perf_counter() - start

    return consumed(effort, value, receive)


@for_each_size(CONSUME, "KafkaConsumer, async for, ack each", at_most(4, RAW_CONSUME), TWENTY_TIMES)
def one_by_one(effort: Effort, value: bytes) -> float:
    async def receive(consumer: KafkaConsumer, count: int) -> float:
        start = 0.0
        async for delivery in consumer:
            start = start or perf_counter()
            _ = delivery.value
            await delivery.ack()
            count -= 1
            if not count:
                break
        return perf_counter() - start

    return consumed(effort, value, receive)


@for_each_size(CONSUME, "aiokafka getmany(500)")
def aiokafka_getmany(effort: Effort, value: bytes) -> float:
    from aiokafka import AIOKafkaConsumer  # type: ignore[import-untyped]

    count = effort.count(COUNT)
    topic = filled(count, value)

    async def main() -> float:
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=servers(), group_id=uuid4().hex, auto_offset_reset="earliest"
        )
        await consumer.start()
        received, start = 0, 0.0
        while received < count:
            for messages in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
                start = start or perf_counter()
                received += len(messages)
        seconds = perf_counter() - start
        await consumer.stop()
        return seconds / count * 1e6

    return asyncio.run(main())


def faststream(effort: Effort, value: bytes, driver: str, batch: bool) -> float:
    from faststream import AckPolicy

    count = effort.count(FEWER if batch else FEW)
    topic = filled(effort.count(COUNT), value)

    async def main() -> float:
        broker: Any
        if driver == "confluent":
            from faststream.confluent import KafkaBroker

            broker = KafkaBroker(servers(), logger=None, config={"fetch.queue.backoff.ms": 10})
        else:
            from faststream.kafka import KafkaBroker as AiokafkaBroker

            broker = AiokafkaBroker(servers(), logger=None)
        received, start, done = 0, 0.0, asyncio.Event()
        how: dict[str, Any] = {"batch": True, "max_records": 500} if batch else {}

        @broker.subscriber(  # type: ignore[untyped-decorator,unused-ignore]
            topic, group_id=uuid4().hex, auto_offset_reset="earliest", ack_policy=AckPolicy.ACK, **how
        )
        async def handle(message: Any) -> None:
            nonlocal received, start
            start = start or perf_counter()
            received += len(message) if batch else 1
            if received >= count:
                done.set()

        await broker.start()
        await asyncio.wait_for(done.wait(), 300)
        seconds = perf_counter() - start
        await broker.stop()
        return seconds / received * 1e6

    return asyncio.run(main())


for (each_driver, in_batch), row in FASTSTREAM.items():
    for_each_size(CONSUME, row)(partial(faststream, driver=each_driver, batch=in_batch))


TABLES = tuple(CONSUME.values())
