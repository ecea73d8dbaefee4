"""What a million messages cost in processor time and memory: ours and the raw client, each in a process of its own.

``python kafka_resources.py JOB SERVERS TOPIC COUNT [growth]`` does one job and prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from tools.bench.resources import CPU, PEAK, costs, in_its_own_process, needs_linux, resident  # noqa: E402

LIBRARIES = ("confluent-kafka",)
COUNT = 1_000_000
VALUE = b"x" * 100
MANY = 10_000_000
EARLY, LATE = "MB after a tenth", "MB at the end"
RAW_PRODUCE, RAW_CONSUME = "raw produce, delivery callbacks", "raw consume(500)"


def raw_produce(servers: str, topic: str, count: int) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 5})
    for number in range(count):
        while True:
            try:
                producer.produce(topic, VALUE, on_delivery=lambda error, message: None)
                break
            except BufferError:
                producer.poll(0.05)
        if number % 64 == 0:
            producer.poll(0)
    while producer.flush(60):
        pass


def produce(servers: str, topic: str, count: int) -> None:
    from commons_events.kafka import KafkaProducer

    async def main() -> None:
        async with KafkaProducer(bootstrap_servers=servers, linger_ms=5) as producer:
            for start in range(0, count, 20_000):
                await producer.send_batch(topic, [VALUE] * min(20_000, count - start))

    asyncio.run(main())


def raw_consume(servers: str, topic: str, count: int) -> None:
    from confluent_kafka import Consumer

    settings: dict[str, Any] = {"bootstrap.servers": servers, "group.id": uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, "enable.auto.commit": False, "fetch.queue.backoff.ms": 10})
    consumer.subscribe([topic])
    while count > 0:
        for message in consumer.consume(500, 1.0):
            assert message.error() is None
            message.value()
            count -= 1
    consumer.close()


def consume(servers: str, topic: str, count: int) -> None:
    from commons_events.kafka import KafkaConsumer

    async def main(left: int) -> None:
        async with KafkaConsumer(bootstrap_servers=servers, group_id=uuid4().hex, topics=[topic]) as consumer:
            while left > 0:
                batch = await consumer.receive(500)
                for delivery in batch:
                    _ = delivery.value
                left -= len(batch)
                await consumer.commit()

    asyncio.run(main(count))


JOBS: Mapping[str, Callable[[str, str, int], None]] = {
    RAW_PRODUCE: raw_produce,
    "KafkaProducer.send_batch of bytes": produce,
    RAW_CONSUME: raw_consume,
    "KafkaConsumer.receive(500), commit()": consume,
}


def do(job: str, servers: str, topic: str, count: int) -> dict[str, float]:
    """One job's costs."""
    import commons_events.kafka  # noqa: F401  # so that it counts as before

    return costs(lambda: JOBS[job](servers, topic, count), count)


def grow(job: str, servers: str, topic: str, count: int) -> dict[str, float]:
    """One job; the process's memory in its second tenth and in its last one, beyond what it was before."""
    import commons_events.kafka  # noqa: F401  # so that it counts as before

    gc.collect()
    before = resident("VmRSS")
    seen: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            seen.append(resident("VmRSS") - before)

    watching = threading.Thread(target=watch)
    watching.start()
    JOBS[job](servers, topic, count)
    over.set()
    watching.join()
    tenth = max(len(seen) // 10, 1)
    return {EARLY: median(seen[tenth : 2 * tenth] or seen), LATE: median(seen[-tenth:])}


if __name__ == "__main__":
    measured = grow if "growth" in sys.argv[5:] else do
    print(json.dumps(measured(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    sys.exit()

from tools.bench.kafka import new_topic, servers  # noqa: E402
from tools.bench.kafka_consuming import filled  # noqa: E402
from tools.bench.measure import Effort, Table  # noqa: E402

table = Table(
    "kafka-resources",
    "Processor time of a million 100-byte messages, and the most memory that they took",
    "Of the client's process, all its threads, beyond what it had before. librdkafka's own queues are part of it.",
    CPU,
    PEAK,
)


growth = Table(
    "kafka-growth",
    "Memory over ten million 100-byte messages",
    "Of the client's process beyond what it had before: where it is flat, the second figure is about the first.",
    EARLY,
    LATE,
)


def alone(job: str, count: int, *more: str) -> Mapping[str, float]:
    needs_linux()
    topic = filled(count, VALUE) if "consum" in job.lower() else new_topic()
    return in_its_own_process(__file__, job, servers(), topic, str(count), *more)


def register(job: str) -> None:
    @table.contender(job)
    def run(effort: Effort) -> Mapping[str, float]:
        return alone(job, effort.count(COUNT))

    @growth.contender(job)
    def run_long(effort: Effort) -> Mapping[str, float]:
        return alone(job, effort.count(MANY), "growth")


for each_job in JOBS:
    register(each_job)

TABLES = (table, growth)
