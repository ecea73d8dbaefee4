"""RabbitMQ: ours beside pika by itself, aio-pika and FastStream, on one server, in one run.

A server of its own is started (`make services` brings it), or the one that COMMONS_EVENTS_TEST_RABBITMQ names is used.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from functools import cache
from time import perf_counter, process_time
from typing import Any
from uuid import uuid4

import pika

from commons_events.rabbitmq import (
    Binding,
    Exchange,
    Queue,
    RabbitMQAdmin,
    RabbitMQConsumer,
    RabbitMQProducer,
    Topology,
)
from tools.bench.measure import Effort, LeftOutError, Table, at_most, times_as_fast
from tools.bench.model import OrderPlaced, order_fields

LIBRARIES = ("pika", "aio-pika", "faststream")
COUNT = 20_000
FEWER = 10_000
WINDOW = 1_000
PREFETCH = 500
VALUE = b"x" * 100
RAW = "pika SelectConnection, confirms, 1,000 in flight"
RAW_CONSUME = "pika, prefetch 500, an ack for 250"
RAW_LATENCY = "pika BlockingConnection, confirmed one at a time"
OTHERS = ("aio-pika publish, gather 100", "FastStream publish, gather 100")
OTHERS_CONSUME = ("aio-pika, prefetch 500, an ack for 250", "FastStream subscriber, prefetch 500, ack each")

produce = Table(
    "rabbitmq-publish",
    "Publishing 100-byte persistent messages to a durable classic queue, µs a message",
    "A message counts once it is confirmed. The second column is the client's own CPU time: seconds a million.",
    "µs",
    "CPU µs",
    rate=True,
)
consume = Table(
    "rabbitmq-consume",
    "Consuming 100-byte messages from a classic queue and acknowledging all, µs a message",
    "From the call that begins to consume. The second column is the client's own CPU time: seconds a million.",
    "µs",
    "CPU µs",
    rate=True,
)
latency = Table(
    "rabbitmq-latency",
    "Confirming one message after the other, ms",
    "The median and the 99th percentile of one client's round trips.",
    "p50",
    "p99",
)


@cache
def server() -> str:
    """The server's address; it stops with this process."""
    from commons_events.testing.services import ServiceUnavailableError, shared

    try:
        return shared.get("rabbitmq").address
    except ServiceUnavailableError as error:
        raise LeftOutError(str(error)) from error


def new_queue() -> str:
    """A durable queue, which the exchange ``bench`` has by its name."""
    queue = f"bench-{uuid4().hex}"

    async def make() -> None:
        async with RabbitMQAdmin(server()) as admin:
            await admin.declare(
                Topology(
                    exchanges=[Exchange(name="bench", type="direct")],
                    queues=[Queue(name=queue, type="classic")],
                    bindings=[Binding(exchange="bench", queue=queue, routing_key=queue)],
                )
            )

    asyncio.run(make())
    return queue


def delete(queue: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(server()))
    connection.channel().queue_delete(queue)
    connection.close()


class Stopwatch:
    """Wall and CPU time of a block, and their costs a message."""

    def __enter__(self) -> Stopwatch:
        gc.collect()
        self.begun, self.cpu = perf_counter(), process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.seconds, self.cpu_seconds = perf_counter() - self.begun, process_time() - self.cpu

    def costs(self, count: int) -> dict[str, float]:
        return {"µs": self.seconds / count * 1e6, "CPU µs": self.cpu_seconds / count * 1e6}


# --- publishing ----------------------------------------------------------------------------------------------------


@produce.contender(RAW)
def raw_publish(effort: Effort) -> dict[str, float]:
    count, queue = effort.count(COUNT), new_queue()
    properties = pika.BasicProperties(delivery_mode=2)  # type: ignore[no-untyped-call]
    watch = Stopwatch()
    sent = acked = floor = 0
    ones: set[int] = set()
    channel: Any = None

    def pump() -> None:
        nonlocal sent
        while sent < count and sent - acked < WINDOW:
            channel.basic_publish("", queue, VALUE, properties)
            sent += 1

    def confirmed(frame: Any) -> None:
        nonlocal acked, floor, ones
        method = frame.method
        assert method.NAME == "Basic.Ack"
        if method.multiple:
            floor = max(floor, method.delivery_tag)
            ones = {tag for tag in ones if tag > floor}
        else:
            ones.add(method.delivery_tag)
        acked = floor + len(ones)
        if acked >= count:
            watch.stop()
            connection.close()
        else:
            pump()

    def begin(_: object) -> None:
        watch.__enter__()
        pump()

    def opened(new: Any) -> None:
        nonlocal channel
        channel = new
        channel.confirm_delivery(confirmed, callback=begin)

    connection = pika.SelectConnection(
        pika.URLParameters(server()),
        on_open_callback=lambda connection: connection.channel(on_open_callback=opened),  # type: ignore[arg-type]
        on_close_callback=lambda connection, _: connection.ioloop.stop(),
    )
    connection.ioloop.start()
    delete(queue)
    return watch.costs(count)


def ours(effort: Effort, send: Callable[[RabbitMQProducer, str, int], Awaitable[None]]) -> dict[str, float]:
    count = effort.count(COUNT)
    queue = new_queue()

    async def main() -> dict[str, float]:
        async with RabbitMQProducer(server()) as producer:
            await producer.publish("", queue, b"warm")
            with Stopwatch() as watch:
                await send(producer, queue, count)
        return watch.costs(count)

    costs = asyncio.run(main())
    delete(queue)
    return costs


async def in_flight(publish: Callable[[], asyncio.Future[Any]], count: int, window: int) -> None:
    """Publish with so many in flight: half of them are awaited at a time."""
    futures = [publish() for _ in range(min(window, count))]
    left = count - len(futures)
    while futures:
        half = futures[: max(window // 2, 1)]
        del futures[: len(half)]
        for future in half:
            await future
        more = min(len(half), left)
        futures += [publish() for _ in range(more)]
        left -= more


TARGETS = (
    at_most(1 / 0.9, RAW, metric="µs"),
    times_as_fast(2.5, OTHERS[:1], name="aio-pika"),
    times_as_fast(3, OTHERS[1:], name="FastStream"),
)


@produce.contender("RabbitMQProducer.publish of bytes, 1,000 in flight", *TARGETS)
def publish_bytes(effort: Effort) -> dict[str, float]:
    async def send(producer: RabbitMQProducer, queue: str, count: int) -> None:
        await in_flight(lambda: producer.publish("", queue, VALUE), count, WINDOW)

    return ours(effort, send)


@produce.contender("RabbitMQProducer.publish of bytes, 5,000 in flight")
def publish_many(effort: Effort) -> dict[str, float]:
    async def send(producer: RabbitMQProducer, queue: str, count: int) -> None:
        await in_flight(lambda: producer.publish("", queue, VALUE), count, 5_000)

    return ours(effort, send)


@produce.contender("RabbitMQProducer.publish of events, 1,000 in flight")
def publish_events(effort: Effort) -> dict[str, float]:
    event = OrderPlaced(**order_fields(1), source="bench")

    async def send(producer: RabbitMQProducer, queue: str, count: int) -> None:
        await in_flight(lambda: producer.publish("bench", queue, event), count, WINDOW)

    return ours(effort, send)


@produce.contender(OTHERS[0])
def aio_publish(effort: Effort) -> dict[str, float]:
    import aio_pika

    count, queue = effort.count(FEWER), new_queue()

    async def main() -> dict[str, float]:
        connection = await aio_pika.connect(server())
        channel = await connection.channel(publisher_confirms=True)
        exchange = channel.default_exchange
        with Stopwatch() as watch:
            for _ in range(count // 100):
                messages = [aio_pika.Message(VALUE, delivery_mode=aio_pika.DeliveryMode.PERSISTENT) for _ in range(100)]
                await asyncio.gather(*(exchange.publish(message, queue) for message in messages))
        await connection.close()
        return watch.costs(count)

    costs = asyncio.run(main())
    delete(queue)
    return costs


@produce.contender(OTHERS[1])
def faststream_publish(effort: Effort) -> dict[str, float]:
    from faststream.rabbit import RabbitBroker

    count, queue = effort.count(FEWER), new_queue()

    async def main() -> dict[str, float]:
        broker = RabbitBroker(server(), logger=None)
        await broker.start()
        await broker.publish(VALUE, queue, persist=True)
        with Stopwatch() as watch:
            for _ in range(count // 100):
                await asyncio.gather(*(broker.publish(VALUE, queue, persist=True) for _ in range(100)))
        await broker.stop()
        return watch.costs(count)

    costs = asyncio.run(main())
    delete(queue)
    return costs


# --- consuming -----------------------------------------------------------------------------------------------------


def filled(count: int) -> str:
    """A queue with that many messages."""
    queue = new_queue()

    async def fill() -> None:
        async with RabbitMQProducer(server()) as producer:
            await in_flight(lambda: producer.publish("", queue, VALUE), count, 5_000)

    asyncio.run(fill())
    return queue


@consume.contender(RAW_CONSUME)
def raw_consume(effort: Effort) -> dict[str, float]:
    return raw_consumed(effort.count(COUNT), 250)


@consume.contender("pika, prefetch 500, ack each")
def raw_consume_each(effort: Effort) -> dict[str, float]:
    return raw_consumed(effort.count(COUNT), 1)


def raw_consumed(count: int, every: int) -> dict[str, float]:
    queue = filled(count)
    connection = pika.BlockingConnection(pika.URLParameters(server()))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    received = 0

    def take(channel: Any, method: Any, properties: object, body: bytes) -> None:
        nonlocal received
        received += 1
        if received % every == 0 or received == count:
            channel.basic_ack(method.delivery_tag, multiple=every > 1)
        if received == count:
            channel.stop_consuming()

    with Stopwatch() as watch:
        channel.basic_consume(queue, take)
        channel.start_consuming()
    connection.close()
    delete(queue)
    return watch.costs(count)


def consumed(effort: Effort, receive: Callable[[RabbitMQConsumer, int], Awaitable[None]]) -> dict[str, float]:
    count = effort.count(COUNT)
    queue = filled(count)

    async def main() -> dict[str, float]:
        consumer = RabbitMQConsumer(server(), queue=queue, prefetch_count=PREFETCH)
        with Stopwatch() as watch:
            await consumer.start()
            await receive(consumer, count)
        await consumer.close()
        return watch.costs(count)

    costs = asyncio.run(main())
    delete(queue)
    return costs


CONSUME_TARGETS = (
    at_most(1 / 0.8, RAW_CONSUME, metric="µs"),
    times_as_fast(1.5, OTHERS_CONSUME[:1], name="aio-pika"),
    times_as_fast(3, OTHERS_CONSUME[1:], name="FastStream"),
)


@consume.contender("RabbitMQConsumer, async for, ack each", *CONSUME_TARGETS)
def one_by_one(effort: Effort) -> dict[str, float]:
    async def receive(consumer: RabbitMQConsumer, count: int) -> None:
        async for message in consumer:
            _ = message.body
            await message.ack()
            count -= 1
            if not count:
                break
        await consumer.commit(wait=True)

    return consumed(effort, receive)


@consume.contender("RabbitMQConsumer.receive(250), commit()", *CONSUME_TARGETS)
def in_batches(effort: Effort) -> dict[str, float]:
    async def receive(consumer: RabbitMQConsumer, count: int) -> None:
        while count:
            batch = await consumer.receive(250)
            for message in batch:
                _ = message.body
            count -= len(batch)
            await consumer.commit()
        await consumer.commit(wait=True)

    return consumed(effort, receive)


@consume.contender(OTHERS_CONSUME[0])
def aio_consume(effort: Effort) -> dict[str, float]:
    import aio_pika

    count = effort.count(COUNT)
    name = filled(count)

    async def main() -> dict[str, float]:
        connection = await aio_pika.connect(server())
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        queue = await channel.get_queue(name)
        received, done = 0, asyncio.Event()

        async def take(message: Any) -> None:
            nonlocal received
            received += 1
            if received % 250 == 0 or received == count:
                await message.ack(multiple=True)
            if received == count:
                done.set()

        with Stopwatch() as watch:
            await queue.consume(take)
            await done.wait()
        await connection.close()
        return watch.costs(count)

    costs = asyncio.run(main())
    delete(name)
    return costs


@consume.contender(OTHERS_CONSUME[1])
def faststream_consume(effort: Effort) -> dict[str, float]:
    from faststream import AckPolicy
    from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

    count = effort.count(FEWER)
    name = filled(count)

    async def main() -> dict[str, float]:
        broker = RabbitBroker(server(), logger=None, default_channel=Channel(prefetch_count=PREFETCH))
        received, done = 0, asyncio.Event()

        @broker.subscriber(RabbitQueue(name, durable=True), ack_policy=AckPolicy.ACK)
        async def handle(message: bytes) -> None:
            nonlocal received
            received += 1
            if received == count:
                done.set()

        await broker.connect()
        with Stopwatch() as watch:
            await broker.start()
            await done.wait()
        await broker.stop()
        return watch.costs(count)

    costs = asyncio.run(main())
    delete(name)
    return costs


# --- latency -------------------------------------------------------------------------------------------------------


def percentiles(trips: list[float]) -> dict[str, float]:
    trips.sort()
    return {"p50": trips[len(trips) // 2] * 1000, "p99": trips[len(trips) * 99 // 100] * 1000}


@latency.contender(RAW_LATENCY)
def raw_latency(effort: Effort) -> dict[str, float]:
    queue = new_queue()
    connection = pika.BlockingConnection(pika.URLParameters(server()))
    channel = connection.channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(delivery_mode=2)  # type: ignore[no-untyped-call]
    trips = []
    for _ in range(effort.count(1000)):
        start = perf_counter()
        channel.basic_publish("", queue, VALUE, properties)
        trips.append(perf_counter() - start)
    connection.close()
    delete(queue)
    return percentiles(trips)


@latency.contender("await RabbitMQProducer.publish", at_most(1.5, RAW_LATENCY, metric="p50"))
def our_latency(effort: Effort) -> dict[str, float]:
    queue = new_queue()

    async def main() -> dict[str, float]:
        trips = []
        async with RabbitMQProducer(server()) as producer:
            await producer.publish("", queue, b"warm")
            for _ in range(effort.count(1000)):
                start = perf_counter()
                await producer.publish("", queue, VALUE)
                trips.append(perf_counter() - start)
        return percentiles(trips)

    costs = asyncio.run(main())
    delete(queue)
    return costs


TABLES = (produce, consume, latency)
