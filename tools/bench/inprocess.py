"""Typed events through the in-process broker, a bare queue, and FastStream's in-memory test broker."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from time import perf_counter
from typing import Any
from uuid import uuid4

from commons_events import Event, EventConsumer, EventProducer
from commons_events.memory import MemoryBroker, MemoryTransport
from tools.bench.measure import Effort, LeftOutError, Table, at_most, times_as_fast
from tools.bench.model import OrderPlaced, PlainOrderFields, PlainOrderPlaced, order_fields

LIBRARIES = ("pydantic", "faststream", "confluent-kafka", "aiokafka")
COUNT = 10_000
FASTSTREAM_COUNT = 1000
BATCH = 500
TOPIC = "orders"
FLOOR = "asyncio.Queue + plain pydantic (floor)"
FASTSTREAM = ("FastStream TestKafkaBroker (confluent)", "FastStream TestKafkaBroker (aiokafka)")
TARGETS = (at_most(2, FLOOR, name="floor"), times_as_fast(10, FASTSTREAM, name="FastStream"))

table = Table(
    "inprocess",
    "Typed events with 5 fields through the in-process broker, µs an event",
    "The same work: an event that exists becomes JSON, with envelope; is carried; becomes a typed object again.\n"
    "Floor: asyncio.Queue(1000), model_dump_json().encode() and model_validate_json of a BaseModel with these fields.\n"
    "Ours: EventProducer → EventConsumer → delivery.event() → ack, sender and receiver as two tasks, as at the floor.",
    "µs",
    rate=True,
)

Receiving = Callable[[EventConsumer, int], Awaitable[None]]
Sending = Callable[[EventProducer, Sequence[OrderPlaced]], Awaitable[None]]


# --- the floor ---------------------------------------------------------------------------------------------------


@table.contender(FLOOR)
def floor(effort: Effort) -> float:
    events = [PlainOrderPlaced(**order_fields(n), source="bench") for n in range(effort.count(COUNT))]
    return asyncio.run(
        through_queue(events, lambda e: e.model_dump_json().encode(), PlainOrderPlaced.model_validate_json)
    )


@table.contender("asyncio.Queue + the five fields alone")
def bare_fields(effort: Effort) -> float:
    events = [PlainOrderFields(**order_fields(n)) for n in range(effort.count(COUNT))]
    return asyncio.run(
        through_queue(events, lambda e: e.model_dump_json().encode(), PlainOrderFields.model_validate_json)
    )


@table.contender("asyncio.Queue + to_json and from_json")
def own_codec(effort: Effort) -> float:
    return asyncio.run(through_queue(orders(effort), OrderPlaced.to_json, OrderPlaced.from_json))


async def through_queue(
    events: Sequence[Any], encode: Callable[[Any], bytes], decode: Callable[[bytes], object]
) -> float:
    queue: asyncio.Queue[bytes] = asyncio.Queue(1000)

    async def receive() -> None:
        for _ in events:
            decode(await queue.get())

    gc.collect()
    start = perf_counter()
    receiver = asyncio.create_task(receive())
    for event in events:
        await queue.put(encode(event))
    await receiver
    return (perf_counter() - start) / len(events) * 1e6


# --- ours --------------------------------------------------------------------------------------------------------


@table.contender("send_batch → async for, ack each", *TARGETS)
def each(effort: Effort) -> float:
    return asyncio.run(through_broker(orders(effort), send_batch, ack_each))


@table.contender("  … with a key each", *TARGETS)
def each_keyed(effort: Effort) -> float:
    return asyncio.run(through_broker(orders(effort), send_keyed, ack_each))


@table.contender("  … whose source the producer states", *TARGETS)
def each_without_source(effort: Effort) -> float:
    return asyncio.run(through_broker(orders(effort, source=None), send_batch, ack_each))


@table.contender("send_batch → receive(500), commit()", *TARGETS)
def batches(effort: Effort) -> float:
    return asyncio.run(through_broker(orders(effort), send_batch, commit_batches))


@table.contender("  … with a key each ", *TARGETS)
def batches_keyed(effort: Effort) -> float:
    return asyncio.run(through_broker(orders(effort), send_keyed, commit_batches))


@table.contender("await send, one by one → async for, ack each", TARGETS[1])
def one_by_one(effort: Effort) -> float:
    return asyncio.run(through_broker(orders(effort), send_one_by_one, ack_each))


def orders(effort: Effort, source: str | None = "bench") -> list[OrderPlaced]:
    return [OrderPlaced(**order_fields(n), source=source) for n in range(effort.count(COUNT))]


@asynccontextmanager
async def clients() -> AsyncIterator[tuple[EventProducer, EventConsumer]]:
    """A producer and a consumer, which has joined, on a broker of their own."""
    broker = MemoryBroker(f"bench-{uuid4()}")
    producer = EventProducer(transport=MemoryTransport(broker))
    consumer = EventConsumer(transport=MemoryTransport(broker), topics=[TOPIC], group_id="bench")
    async with producer, consumer:
        yield producer, consumer


async def through_broker(events: Sequence[OrderPlaced], send: Sending, receive: Receiving) -> float:
    async with clients() as (producer, consumer):
        gc.collect()
        start = perf_counter()
        receiver = asyncio.ensure_future(receive(consumer, len(events)))
        await send(producer, events)
        await receiver
        return (perf_counter() - start) / len(events) * 1e6


async def send_batch(producer: EventProducer, events: Sequence[OrderPlaced]) -> None:
    await producer.send_batch(TOPIC, events)


async def send_keyed(producer: EventProducer, events: Sequence[OrderPlaced]) -> None:
    await producer.send_batch(TOPIC, events, key=_sku)


async def send_one_by_one(producer: EventProducer, events: Sequence[OrderPlaced]) -> None:
    for event in events:
        await producer.send(TOPIC, event)


def _sku(event: Event) -> str:
    assert isinstance(event, OrderPlaced)
    return event.sku


async def ack_each(consumer: EventConsumer, count: int) -> None:
    async for delivery in consumer:
        delivery.event()
        await delivery.ack()
        count -= 1
        if not count:
            break


async def commit_batches(consumer: EventConsumer, count: int) -> None:
    while count:
        deliveries = await consumer.receive(BATCH)
        for delivery in deliveries:
            delivery.event()
        await consumer.commit()
        count -= len(deliveries)


# --- FastStream --------------------------------------------------------------------------------------------------


@table.contender(FASTSTREAM[0])
def faststream_confluent(effort: Effort) -> float:
    return asyncio.run(through_faststream("confluent", effort.count(FASTSTREAM_COUNT)))


@table.contender(FASTSTREAM[1])
def faststream_aiokafka(effort: Effort) -> float:
    return asyncio.run(through_faststream("kafka", effort.count(FASTSTREAM_COUNT)))


async def through_faststream(client: str, count: int) -> float:
    try:
        module = import_module(f"faststream.{client}")
    except ImportError as error:
        raise LeftOutError(f'not installed; pip install "faststream[{client}]"') from error
    broker = module.KafkaBroker(logger=None)
    received = 0

    async def handle(event: PlainOrderPlaced) -> None:
        nonlocal received
        received += 1

    handle.__annotations__["event"] = PlainOrderPlaced  # it reads the type from there
    broker.subscriber(TOPIC)(handle)
    events = [PlainOrderPlaced(**order_fields(n), source="bench") for n in range(count)]
    async with module.TestKafkaBroker(broker) as running:
        await running.publish(events[0], topic=TOPIC)
        gc.collect()
        received, start = 0, perf_counter()
        for event in events:
            await running.publish(event, topic=TOPIC)
        seconds = perf_counter() - start
    if received != count:
        raise RuntimeError(f"{received} of {count} events arrived")
    return seconds / count * 1e6


TABLES = (table,)
