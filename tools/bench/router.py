"""Handlers: a no-op through the router against FastStream's and against a bare loop; and many slow ones at once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any
from uuid import uuid4

from commons_events import Delivery, EventProducer
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.router import EventRouter
from tools.bench.inprocess import (
    FASTSTREAM,
    FASTSTREAM_COUNT,
    TOPIC,
    ack_each,
    orders,
    through_broker,
    through_faststream,
)
from tools.bench.measure import Effort, Table, at_most, times_as_fast
from tools.bench.model import OrderPlaced

LIBRARIES = ("pydantic", "faststream")
BARE = "bare async for: event(), ack (no router)"
TEN_TIMES = times_as_fast(10, FASTSTREAM, name="FastStream")
SLOW, KEYS, AT_ONCE, MESSAGES = 0.010, 1000, 64, 6400
IDEAL = "ideal: 64 sleeping tasks, no broker"

overhead = Table(
    "router",
    "A no-op typed handler on the in-process broker, µs an event",
    "The sending is part of each row: send_batch at ours, publish one by one at FastStream's, which has no batches.\n"
    "What the router costs an event is the difference between its row and the first one.",
    "µs",
    rate=True,
)
slow = Table(
    "router-slow",
    "64 handlers of 10 ms each at once, 1,000 keys in order, µs a message",
    "Ideal: 64 tasks that only sleep. A target of 90 % of its rate is 1.11 times its cost.",
    "µs",
)


@overhead.contender(BARE)
def bare(effort: Effort) -> float:
    return asyncio.run(through_broker(orders(effort), send_keyed, ack_each))


async def send_keyed(producer: EventProducer, events: Sequence[OrderPlaced]) -> None:
    await producer.send_batch(TOPIC, events, key=sku)


def sku(event: Any) -> str:
    return str(event.sku)


@overhead.contender("router, async handler, a key each", TEN_TIMES)
def keyed(effort: Effort) -> float:
    return asyncio.run(through_router(orders(effort), one_event, sku))


@overhead.contender("router, async handler, no key", TEN_TIMES)
def without_key(effort: Effort) -> float:
    return asyncio.run(through_router(orders(effort), one_event, None))


@overhead.contender("router, handler of event and message", TEN_TIMES)
def with_message(effort: Effort) -> float:
    return asyncio.run(through_router(orders(effort), event_and_message, sku))


@overhead.contender("router, batch handler of 100", TEN_TIMES)
def batches(effort: Effort) -> float:
    return asyncio.run(through_router(orders(effort), batch, sku))


class Counter:
    def __init__(self, count: int) -> None:
        self.left = count
        self.done = asyncio.Event()

    def count(self, number: int = 1) -> None:
        self.left -= number
        if self.left <= 0:
            self.done.set()


def one_event(counter: Counter) -> Callable[..., Any]:
    async def handle(event: OrderPlaced) -> None:
        counter.count()

    return handle


def event_and_message(counter: Counter) -> Callable[..., Any]:
    async def handle(event: OrderPlaced, message: Delivery) -> None:
        counter.count()

    return handle


def batch(counter: Counter) -> Callable[..., Any]:
    async def handle(events: list[OrderPlaced]) -> None:
        counter.count(len(events))

    return handle


async def through_router(
    events: Sequence[OrderPlaced], make: Callable[[Counter], Callable[..., Any]], key: Callable[[Any], str] | None
) -> float:
    broker = MemoryBroker(f"bench-{uuid4()}")
    counter = Counter(len(events))
    router = EventRouter()
    router.subscribe(TOPIC, group="bench")(make(counter))
    async with (
        EventProducer(transport=MemoryTransport(broker)) as producer,
        router.running(broker=MemoryTransport(broker)),
    ):
        gc.collect()
        start = perf_counter()
        await producer.send_batch(TOPIC, events, key=key)
        await counter.done.wait()
        return (perf_counter() - start) / len(events) * 1e6


@overhead.contender(FASTSTREAM[0])
def faststream_confluent(effort: Effort) -> float:
    return asyncio.run(through_faststream("confluent", effort.count(FASTSTREAM_COUNT)))


@overhead.contender(FASTSTREAM[1])
def faststream_aiokafka(effort: Effort) -> float:
    return asyncio.run(through_faststream("kafka", effort.count(FASTSTREAM_COUNT)))


# --- slow handlers -----------------------------------------------------------------------------------------------


@slow.contender(IDEAL)
def ideal(effort: Effort) -> float:
    count = effort.count(MESSAGES)

    async def sleep_only() -> None:
        for _ in range(count // AT_ONCE):
            await asyncio.sleep(SLOW)

    async def run() -> float:
        start = perf_counter()
        await asyncio.gather(*(sleep_only() for _ in range(AT_ONCE)))
        return (perf_counter() - start) / (count // AT_ONCE * AT_ONCE) * 1e6

    return asyncio.run(run())


@slow.contender("router, concurrency=64", at_most(1 / 0.9, IDEAL, name="ideal"))
def slow_handlers(effort: Effort) -> float:
    return asyncio.run(through_slow_handlers(effort.count(MESSAGES)))


async def through_slow_handlers(count: int) -> float:
    from tools.bench.model import order_fields

    broker = MemoryBroker(f"bench-{uuid4()}")
    counter = Counter(count)
    last: dict[bytes | None, int] = {}
    router = EventRouter()

    @router.subscribe(TOPIC, group="bench", concurrency=AT_ONCE, prefetch=2000)
    async def handle(event: OrderPlaced, message: Delivery) -> None:
        number = int(message.headers[-1][1])
        if last.get(message.key, -1) >= number:
            raise RuntimeError(f"{message.key!r}: {number} came after {last[message.key]}")
        last[message.key] = number
        await asyncio.sleep(SLOW)
        counter.count()

    handle.__annotations__.update(event=OrderPlaced, message=Delivery)
    async with EventProducer(transport=MemoryTransport(broker)) as producer:
        for number in range(count):
            event = OrderPlaced(**order_fields(number), source="bench")
            await producer.send(TOPIC, event, key=f"key-{number % KEYS}", headers={"number": str(number)})
        async with router.running(broker=MemoryTransport(broker)):
            start = perf_counter()
            await counter.done.wait()
            return (perf_counter() - start) / count * 1e6


TABLES = (overhead, slow)
