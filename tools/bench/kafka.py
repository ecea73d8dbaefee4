"""Apache Kafka: ours beside the raw client, aiokafka and confluent's asyncio client, on one broker, in one run.

A broker of its own is started (`make services` brings it), or the one that COMMONS_EVENTS_TEST_KAFKA names is used.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from functools import cache
from time import perf_counter
from typing import Any
from uuid import uuid4

from commons_events import Message
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer, KafkaTransport
from commons_events.transport import SubscribeRequest
from tools.bench.measure import Effort, LeftOutError, Table, at_most, times_as_fast
from tools.bench.model import OrderPlaced, order_fields

LIBRARIES = ("confluent-kafka", "aiokafka")
COUNT = 200_000
FEWER = 50_000
WINDOW = 10_000
VALUE = b"x" * 100
LINGER = 5
RAW = "raw produce loop, delivery callbacks"
RAW_CONSUME = "raw consume(500)"
RAW_LATENCY = "raw produce and poll, one at a time"

produce = Table(
    "kafka-produce",
    "Producing 100-byte messages to Apache Kafka, µs a message",
    "acks=all, idempotent, linger.ms=5, one partition; a message counts once it is confirmed.",
    "µs",
    rate=True,
)
consume = Table(
    "kafka-consume",
    "Consuming 100-byte messages from Apache Kafka, µs a message",
    "From the first message on; with acknowledgement where it says so, else without.",
    "µs",
    rate=True,
)
latency = Table(
    "kafka-latency",
    "Confirming one message after the other, linger.ms=0, ms",
    "The median and the 99th percentile of one client's round trips.",
    "p50",
    "p99",
)


@cache
def servers() -> str:
    """The broker's address; it stops with this process."""
    from commons_events.testing.services import ServiceUnavailableError, shared

    try:
        kafka = shared.get("kafka")
    except ServiceUnavailableError as error:
        raise LeftOutError(str(error)) from error
    if reason := kafka.why_not("benchmark"):
        raise LeftOutError(reason)
    return kafka.address


def new_topic() -> str:
    topic = f"bench-{uuid4().hex}"

    async def make() -> None:
        async with KafkaAdmin(servers()) as admin:
            await admin.create_topic(topic, partitions=1)

    asyncio.run(make())
    return topic


def settings(linger: int = LINGER) -> dict[str, Any]:
    return {
        "bootstrap.servers": servers(),
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": linger,
        "queue.buffering.max.messages": 100_000,
        "log_level": 0,
    }


def timed(run: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
    async def measured() -> float:
        gc.collect()
        start = perf_counter()
        await run()
        return perf_counter() - start

    return measured


# --- producing -----------------------------------------------------------------------------------------------------


@produce.contender(RAW)
def raw_produce(effort: Effort) -> float:
    from confluent_kafka import Producer

    count, topic, confirmed = effort.count(COUNT), new_topic(), 0
    producer = Producer(settings())
    producer.produce(topic, b"warm")
    producer.flush(30)

    def report(error: object, message: object) -> None:
        nonlocal confirmed
        assert error is None
        confirmed += 1

    gc.collect()
    start = perf_counter()
    for number in range(count):
        while True:
            try:
                producer.produce(topic, VALUE, on_delivery=report)
                break
            except BufferError:
                producer.poll(0.05)
        if number % 64 == 0:
            producer.poll(0)
    while producer.flush(60):
        pass
    seconds = perf_counter() - start
    assert confirmed == count
    return seconds / count * 1e6


@produce.contender("KafkaTransport.publish(500)", at_most(1.25, RAW))
def publish(effort: Effort) -> float:
    async def main() -> float:
        transport = KafkaTransport(f"kafka://{servers()}", **{"linger.ms": LINGER})
        topic, count = await asyncio.to_thread(new_topic), effort.count(COUNT)
        await transport.publish([Message(topic, b"warm")])
        messages = [Message(topic, VALUE)] * 500

        @timed
        async def run() -> None:
            futures = []
            for _ in range(count // 500):
                futures.append(transport.publish(messages))
                if len(futures) >= 100:
                    await futures.pop(0)
                else:
                    await asyncio.sleep(0)
            for future in futures:
                await future

        seconds = await run()
        await transport.close()
        return seconds / (count // 500 * 500) * 1e6

    return asyncio.run(main())


def ours(effort: Effort, count: int, send: Callable[[KafkaProducer, str, int], Awaitable[None]]) -> float:
    async def main() -> float:
        topic = await asyncio.to_thread(new_topic)
        async with KafkaProducer(bootstrap_servers=servers(), linger_ms=LINGER) as producer:
            await producer.send(topic, b"warm")

            @timed
            async def run() -> None:
                await send(producer, topic, effort.count(count))

            return await run() / effort.count(count) * 1e6

    return asyncio.run(main())


@produce.contender("KafkaProducer.send_batch of bytes", at_most(1.25, RAW))
def send_batch(effort: Effort) -> float:
    async def send(producer: KafkaProducer, topic: str, count: int) -> None:
        for start in range(0, count, 20_000):
            await producer.send_batch(topic, [VALUE] * min(20_000, count - start))

    return ours(effort, COUNT, send)


OTHERS = ("aiokafka send, 10,000 in flight", "confluent AIOProducer, 10,000 in flight")


@produce.contender("KafkaProducer.send of bytes, 10,000 in flight", times_as_fast(2, OTHERS, name="asyncio clients"))
def send_bytes(effort: Effort) -> float:
    async def send(producer: KafkaProducer, topic: str, count: int) -> None:
        for start in range(0, count, WINDOW):
            for future in [producer.send(topic, VALUE) for _ in range(min(WINDOW, count - start))]:
                await future

    return ours(effort, FEWER, send)


@produce.contender("KafkaProducer.send of events, 10,000 in flight")
def send_events(effort: Effort) -> float:
    event = OrderPlaced(**order_fields(1), source="bench")

    async def send(producer: KafkaProducer, topic: str, count: int) -> None:
        for start in range(0, count, WINDOW):
            for future in [producer.send(topic, event) for _ in range(min(WINDOW, count - start))]:
                await future

    return ours(effort, FEWER, send)


@produce.contender(OTHERS[0])
def aiokafka_send(effort: Effort) -> float:
    from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]

    async def main() -> float:
        topic, count = await asyncio.to_thread(new_topic), effort.count(FEWER)
        producer = AIOKafkaProducer(
            bootstrap_servers=servers(), acks="all", enable_idempotence=True, linger_ms=LINGER, max_batch_size=1_000_000
        )
        await producer.start()
        await producer.send_and_wait(topic, b"warm")

        @timed
        async def run() -> None:
            for start in range(0, count, WINDOW):
                futures = [await producer.send(topic, VALUE) for _ in range(min(WINDOW, count - start))]
                await asyncio.gather(*futures)

        seconds = await run()
        await producer.stop()
        return seconds / count * 1e6

    return asyncio.run(main())


@produce.contender(OTHERS[1])
def aio_producer(effort: Effort) -> float:
    from confluent_kafka.aio import AIOProducer

    async def main() -> float:
        topic, count = await asyncio.to_thread(new_topic), effort.count(FEWER)
        producer = AIOProducer(settings())
        warm = await producer.produce(topic, b"warm")
        await producer.flush()
        await warm

        @timed
        async def run() -> None:
            for start in range(0, count, WINDOW):
                futures = [await producer.produce(topic, VALUE) for _ in range(min(WINDOW, count - start))]
                await producer.flush()
                await asyncio.gather(*futures)

        seconds = await run()
        await producer.close()
        return seconds / count * 1e6

    return asyncio.run(main())


# --- consuming -----------------------------------------------------------------------------------------------------


@cache
def filled(count: int) -> str:
    """A topic with that many messages."""
    from confluent_kafka import Producer

    topic = new_topic()
    producer = Producer(settings())
    for _ in range(count):
        while True:
            try:
                producer.produce(topic, VALUE)
                break
            except BufferError:
                producer.poll(0.05)
    producer.flush(60)
    return topic


@consume.contender(RAW_CONSUME)
def raw_consume(effort: Effort) -> float:
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
    consumer.subscribe([filled(count)])
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


def consumed(effort: Effort, receive: Callable[[KafkaConsumer, int], Awaitable[float]]) -> float:
    count = effort.count(COUNT)
    topic = filled(count)

    async def main() -> float:
        async with KafkaConsumer(bootstrap_servers=servers(), group_id=uuid4().hex, topics=[topic]) as consumer:
            gc.collect()
            return await receive(consumer, count) / count * 1e6

    return asyncio.run(main())


@consume.contender("subscription.receive(500), settle", at_most(1 / 0.7, RAW_CONSUME))
def subscription(effort: Effort) -> float:
    from commons_events.transport import Outcome, Settlement

    count = effort.count(COUNT)
    topic = filled(count)

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


@consume.contender("KafkaConsumer.receive(500), commit()", at_most(1 / 0.7, RAW_CONSUME))
def in_batches(effort: Effort) -> float:
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

    return consumed(effort, receive)


@consume.contender("KafkaConsumer, async for, ack each", at_most(4, RAW_CONSUME))
def one_by_one(effort: Effort) -> float:
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

    return consumed(effort, receive)


@consume.contender("aiokafka getmany(500)")
def aiokafka_getmany(effort: Effort) -> float:
    from aiokafka import AIOKafkaConsumer

    count = effort.count(COUNT)
    topic = filled(count)

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


# --- latency -------------------------------------------------------------------------------------------------------


def percentiles(trips: list[float]) -> dict[str, float]:
    trips.sort()
    return {"p50": trips[len(trips) // 2] * 1000, "p99": trips[len(trips) * 99 // 100] * 1000}


@latency.contender(RAW_LATENCY)
def raw_latency(effort: Effort) -> dict[str, float]:
    from confluent_kafka import Producer

    producer, topic, trips = Producer(settings(linger=0)), new_topic(), []
    producer.produce(topic, b"warm")
    producer.flush(30)
    for _ in range(effort.count(1000)):
        start = perf_counter()
        producer.produce(topic, VALUE, on_delivery=lambda error, message: None)
        producer.flush(10)
        trips.append(perf_counter() - start)
    return percentiles(trips)


@latency.contender("await KafkaProducer.send", at_most(1.1, RAW_LATENCY, metric="p50"))
def our_latency(effort: Effort) -> dict[str, float]:
    async def main() -> dict[str, float]:
        topic, trips = await asyncio.to_thread(new_topic), []
        async with KafkaProducer(bootstrap_servers=servers(), linger_ms=0) as producer:
            await producer.send(topic, b"warm")
            for _ in range(effort.count(1000)):
                start = perf_counter()
                await producer.send(topic, VALUE)
                trips.append(perf_counter() - start)
        return percentiles(trips)

    return asyncio.run(main())


TABLES = (produce, consume, latency)
