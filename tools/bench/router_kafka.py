"""Handlers on Apache Kafka: a no-op typed one through the router and by FastStream, on one broker, in one run."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from functools import cache, partial
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
FEW = 4_000
FASTSTREAM = ("FastStream, ack after the handler (confluent)", "FastStream, ack after the handler (aiokafka)")
AT_MOST_ONCE = ("FastStream as it comes, at most once (confluent)", "FastStream as it comes, at most once (aiokafka)")
TWENTY_TIMES = times_as_fast(20, FASTSTREAM, name="FastStream")

table = Table(
    "router-kafka",
    "A no-op typed handler on Apache Kafka, µs an event",
    "A topic of one partition that is full already, a key each; from the first event on. Ours acknowledges each\n"
    "message after its handler, at least once. The target is for FastStream with the same guarantee\n"
    "(AckPolicy.ACK); as it comes it commits before the handler, and loses what a crash finds in it.",
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


def through_faststream(effort: Effort, client: str, *, at_least_once: bool) -> float:
    try:
        module = import_module(f"faststream.{client}")
    except ImportError as error:
        raise LeftOutError(f'not installed; pip install "faststream[{client}]"') from error
    from faststream import AckPolicy

    count = effort.count(FEW if at_least_once else COUNT)
    topic = filled(effort.count(COUNT))
    how: dict[str, Any] = {"ack_policy": AckPolicy.ACK} if at_least_once else {}

    async def main() -> float:
        counter = Counter(count)
        broker = module.KafkaBroker(servers(), logger=None)

        async def handle(event: PlainOrderPlaced) -> None:
            counter.count()

        handle.__annotations__["event"] = PlainOrderPlaced  # it reads the type from there
        broker.subscriber(topic, group_id=uuid4().hex, auto_offset_reset="earliest", **how)(handle)
        async with broker:
            gc.collect()
            await broker.start()
            await counter.done.wait()
        return counter.seconds / count * 1e6

    return asyncio.run(main())


for names, keeps in ((FASTSTREAM, True), (AT_MOST_ONCE, False)):
    for row, driver in zip(names, ("confluent", "kafka"), strict=True):
        table.contender(row)(partial(through_faststream, client=driver, at_least_once=keeps))


TABLES = (table,)
