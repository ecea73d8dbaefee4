"""Handlers on Apache Kafka: a no-op typed one through the router and by FastStream, on one broker, in one run."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from functools import cache
from importlib import import_module
from time import perf_counter
from typing import Any
from uuid import uuid4

from commons_events import Delivery
from commons_events.kafka import KafkaConsumer, KafkaProducer
from commons_events.router import EventRouter
from tools.bench.kafka import new_topic, servers
from tools.bench.measure import Effort, LeftOutError, Table, times_as_fast
from tools.bench.model import OrderPlaced, PlainOrderPlaced, order_fields

LIBRARIES = ("confluent-kafka", "aiokafka", "faststream")
COUNT = 20_000
BARE = "KafkaConsumer: event(), ack (no router)"
FASTSTREAM = ("FastStream subscriber (confluent)", "FastStream subscriber (aiokafka)")
TWENTY_TIMES = times_as_fast(20, FASTSTREAM, name="FastStream")

table = Table(
    "router-kafka",
    "A no-op typed handler on Apache Kafka, µs an event",
    "A topic of one partition that is full already, a key each; from the first event on. Ours acknowledges each\n"
    "message after its handler. FastStream as it comes: it commits before the handler, at most once.",
    "µs",
    rate=True,
)


@cache
def filled(count: int) -> str:
    """A topic with that many events, which both read."""
    topic = new_topic()

    async def fill() -> None:
        async with KafkaProducer(bootstrap_servers=servers()) as producer:
            events = [OrderPlaced(**order_fields(number), source="bench") for number in range(count)]
            await producer.send_batch(topic, events, key=lambda event: str(getattr(event, "sku", "")))

    asyncio.run(fill())
    return topic


class Counter:
    """Seconds from the first call to the last."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.start = 0.0
        self.seconds = 0.0
        self.done = asyncio.Event()

    def count(self) -> None:
        self.start = self.start or perf_counter()
        self.left -= 1
        if not self.left:
            self.seconds = perf_counter() - self.start
            self.done.set()


@table.contender(BARE)
def bare(effort: Effort) -> float:
    count = effort.count(COUNT)
    topic = filled(count)

    async def main() -> float:
        counter = Counter(count)
        async with KafkaConsumer(bootstrap_servers=servers(), group_id=uuid4().hex, topics=[topic]) as consumer:
            gc.collect()
            async for delivery in consumer:
                delivery.event(OrderPlaced)
                counter.count()
                await delivery.ack()
                if not counter.left:
                    break
        return counter.seconds / count * 1e6

    return asyncio.run(main())


def through_router(effort: Effort, make: Callable[[Counter], Callable[..., Any]]) -> float:
    count = effort.count(COUNT)
    topic = filled(count)

    async def main() -> float:
        counter = Counter(count)
        router = EventRouter()
        router.subscribe(topic, group=uuid4().hex)(make(counter))
        async with router.running(broker=f"kafka://{servers()}"):
            gc.collect()
            await counter.done.wait()
        return counter.seconds / count * 1e6

    return asyncio.run(main())


@table.contender("router, async handler", TWENTY_TIMES)
def router(effort: Effort) -> float:
    def make(counter: Counter) -> Callable[..., Any]:
        async def handle(event: OrderPlaced) -> None:
            counter.count()

        return handle

    return through_router(effort, make)


@table.contender("router, handler of event and message", TWENTY_TIMES)
def with_message(effort: Effort) -> float:
    def make(counter: Counter) -> Callable[..., Any]:
        async def handle(event: OrderPlaced, message: Delivery) -> None:
            counter.count()

        return handle

    return through_router(effort, make)


def through_faststream(effort: Effort, client: str) -> float:
    try:
        module = import_module(f"faststream.{client}")
    except ImportError as error:
        raise LeftOutError(f'not installed; pip install "faststream[{client}]"') from error
    count = effort.count(COUNT)
    topic = filled(count)

    async def main() -> float:
        counter = Counter(count)
        broker = module.KafkaBroker(servers(), logger=None)

        async def handle(event: PlainOrderPlaced) -> None:
            counter.count()

        handle.__annotations__["event"] = PlainOrderPlaced  # it reads the type from there
        broker.subscriber(topic, group_id=uuid4().hex, auto_offset_reset="earliest")(handle)
        async with broker:
            gc.collect()
            await broker.start()
            await counter.done.wait()
        return counter.seconds / count * 1e6

    return asyncio.run(main())


@table.contender(FASTSTREAM[0])
def faststream_confluent(effort: Effort) -> float:
    return through_faststream(effort, "confluent")


@table.contender(FASTSTREAM[1])
def faststream_aiokafka(effort: Effort) -> float:
    return through_faststream(effort, "kafka")


TABLES = (table,)
