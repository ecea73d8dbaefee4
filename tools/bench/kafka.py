"""Producing to Apache Kafka: ours beside the raw client, aiokafka and confluent's asyncio client, on one broker.

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
from commons_events.kafka import KafkaAdmin, KafkaProducer, KafkaTransport
from tools.bench.measure import Effort, LeftOutError, Table, Target, at_most, times_as_fast
from tools.bench.model import OrderPlaced, order_fields

LIBRARIES = ("confluent-kafka", "aiokafka")
COUNT = 200_000
FEWER = 50_000
WINDOW = 10_000
SIZES = (100, 1024)
LINGER = 5
WARM_UP = 60_000
"""Requests: some eight seconds. The median of a fresh broker's answers falls to a third until then."""
RAW = "raw produce loop, delivery callbacks"
RAW_LATENCY = "raw produce and poll, one at a time"

PRODUCE = {
    size: Table(
        f"kafka-produce-{size}",
        f"Producing {size}-byte messages to Apache Kafka, µs a message",
        "acks=all, idempotent, linger.ms=5, one partition; a message counts once it is confirmed.",
        "µs",
        rate=True,
    )
    for size in SIZES
}
latency = Table(
    "kafka-latency",
    "Confirming one message after the other, linger.ms=0, ms",
    "The median and the 99th percentile of one client's round trips.",
    "p50",
    "p99",
)


Run = Callable[[Effort, bytes], float]


def for_each_size(tables: dict[int, Table], name: str, *targets: Target) -> Callable[[Run], Run]:
    """Decorates a function that becomes a row of the table of each size of message."""

    def register(run: Run) -> Run:
        for size, table in tables.items():
            table.contender(name, *targets)(lambda effort, size=size: run(effort, b"x" * size))  # type: ignore[misc]
        return run

    return register


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
    warm_up(kafka.address)
    return kafka.address


def warm_up(address: str) -> None:
    """Send until the broker's Java has compiled what it does, which keeps a core busy and its answers late."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin, topic = AdminClient({"bootstrap.servers": address}), f"bench-{uuid4().hex}"
    admin.create_topics([NewTopic(topic, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 0, "enable.idempotence": True, "log_level": 0})
    for _ in range(WARM_UP):
        producer.produce(topic, b"warm")
        producer.flush(30)


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


@for_each_size(PRODUCE, RAW)
def raw_produce(effort: Effort, value: bytes) -> float:
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
                producer.produce(topic, value, on_delivery=report)
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


@for_each_size(PRODUCE, "KafkaTransport.publish(500)", at_most(1.25, RAW))
def publish(effort: Effort, value: bytes) -> float:
    async def main() -> float:
        transport = KafkaTransport(f"kafka://{servers()}", **{"linger.ms": LINGER})
        topic, count = await asyncio.to_thread(new_topic), effort.count(COUNT)
        await transport.publish([Message(topic, b"warm")])
        messages = [Message(topic, value)] * 500

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


@for_each_size(PRODUCE, "KafkaProducer.send_batch of bytes", at_most(1.25, RAW))
def send_batch(effort: Effort, value: bytes) -> float:
    async def send(producer: KafkaProducer, topic: str, count: int) -> None:
        for start in range(0, count, 20_000):
            await producer.send_batch(topic, [value] * min(20_000, count - start))

    return ours(effort, COUNT, send)


OTHERS = ("aiokafka send, 10,000 in flight", "confluent AIOProducer, 10,000 in flight")


@for_each_size(
    PRODUCE, "KafkaProducer.send of bytes, 10,000 in flight", times_as_fast(2, OTHERS, name="asyncio clients")
)
def send_bytes(effort: Effort, value: bytes) -> float:
    async def send(producer: KafkaProducer, topic: str, count: int) -> None:
        for start in range(0, count, WINDOW):
            for future in [producer.send(topic, value) for _ in range(min(WINDOW, count - start))]:
                await future

    return ours(effort, FEWER, send)


@PRODUCE[100].contender("KafkaProducer.send of events, 10,000 in flight")
def send_events(effort: Effort) -> float:
    event = OrderPlaced(**order_fields(1), source="bench")

    async def send(producer: KafkaProducer, topic: str, count: int) -> None:
        for start in range(0, count, WINDOW):
            for future in [producer.send(topic, event) for _ in range(min(WINDOW, count - start))]:
                await future

    return ours(effort, FEWER, send)


@for_each_size(PRODUCE, OTHERS[0])
def aiokafka_send(effort: Effort, value: bytes) -> float:
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
                futures = [await producer.send(topic, value) for _ in range(min(WINDOW, count - start))]
                await asyncio.gather(*futures)

        seconds = await run()
        await producer.stop()
        return seconds / count * 1e6

    return asyncio.run(main())


@for_each_size(PRODUCE, OTHERS[1])
def aio_producer(effort: Effort, value: bytes) -> float:
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
                futures = [await producer.produce(topic, value) for _ in range(min(WINDOW, count - start))]
                await producer.flush()
                await asyncio.gather(*futures)

        seconds = await run()
        await producer.close()
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
        producer.produce(topic, b"x" * 100, on_delivery=lambda error, message: None)
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
                await producer.send(topic, b"x" * 100)
                trips.append(perf_counter() - start)
        return percentiles(trips)

    return asyncio.run(main())


TABLES = (*PRODUCE.values(), latency)
