"""What a million messages cost in processor time and memory: ours and pika by itself, each in a process of its own.

``python rabbitmq_resources.py JOB URL QUEUE COUNT`` does one job and prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

import pika  # noqa: E402

from tools.bench.resources import CPU, PEAK, costs, in_its_own_process, needs_linux  # noqa: E402

LIBRARIES = ("pika",)
COUNT = 1_000_000
VALUE = b"x" * 100
WINDOW = 1_000
PREFETCH = 500
RAW_PUBLISH = "pika SelectConnection, publish, confirms, 1,000 in flight"
RAW_CONSUME = "pika BlockingConnection, consume, prefetch 500, an ack for 250"


def raw_publish(url: str, queue: str, count: int) -> None:
    properties = pika.BasicProperties(delivery_mode=2)  # type: ignore[no-untyped-call]
    sent = acked = floor = 0
    ones: set[int] = set()
    channel: Any = None

    def pump(*_: object) -> None:
        nonlocal sent
        while sent < count and sent - acked < WINDOW:
            channel.basic_publish("", queue, VALUE, properties)
            sent += 1

    def confirmed(frame: Any) -> None:
        nonlocal acked, floor, ones
        if frame.method.multiple:
            floor = max(floor, frame.method.delivery_tag)
            ones = {tag for tag in ones if tag > floor}
        else:
            ones.add(frame.method.delivery_tag)
        acked = floor + len(ones)
        if acked >= count:
            connection.close()
        else:
            pump()

    def opened(new: Any) -> None:
        nonlocal channel
        channel = new
        channel.confirm_delivery(confirmed, callback=pump)

    connection = pika.SelectConnection(
        pika.URLParameters(url),
        on_open_callback=lambda connection: connection.channel(on_open_callback=opened),  # type: ignore[arg-type]
        on_close_callback=lambda connection, _: connection.ioloop.stop(),
    )
    connection.ioloop.start()


def publish(url: str, queue: str, count: int) -> None:
    from commons_events.rabbitmq import RabbitMQProducer
    from tools.bench.rabbitmq import in_flight

    async def main() -> None:
        async with RabbitMQProducer(url) as producer:
            await in_flight(lambda: producer.publish("", queue, VALUE), count, WINDOW)

    asyncio.run(main())


def raw_consume(url: str, queue: str, count: int) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    received = 0

    def take(channel: Any, method: Any, properties: object, body: bytes) -> None:
        nonlocal received
        received += 1
        if received % 250 == 0 or received == count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if received == count:
            channel.stop_consuming()

    channel.basic_consume(queue, take)
    channel.start_consuming()
    connection.close()


def consume(url: str, queue: str, count: int) -> None:
    from commons_events.rabbitmq import RabbitMQConsumer

    async def main(left: int) -> None:
        async with RabbitMQConsumer(url, queue=queue, prefetch_count=PREFETCH) as consumer:
            async for message in consumer:
                _ = message.body
                await message.ack()
                left -= 1
                if not left:
                    break

    asyncio.run(main(count))


JOBS: Mapping[str, Callable[[str, str, int], None]] = {
    RAW_PUBLISH: raw_publish,
    "RabbitMQProducer.publish of bytes, 1,000 in flight": publish,
    RAW_CONSUME: raw_consume,
    "RabbitMQConsumer, consume by async for, ack each": consume,
}


def do(job: str, url: str, queue: str, count: int) -> dict[str, float]:
    """One job's costs."""
    import commons_events.rabbitmq  # noqa: F401  # so that it counts as before
    import tools.bench.rabbitmq  # noqa: F401

    return costs(lambda: JOBS[job](url, queue, count), count)


if __name__ == "__main__":
    print(json.dumps(do(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    sys.exit()

from tools.bench.measure import Effort, Table  # noqa: E402
from tools.bench.rabbitmq import delete, filled, new_queue, server  # noqa: E402

table = Table(
    "rabbitmq-resources",
    "Processor time of a million 100-byte messages, and the most memory that they took",
    "Of the client's process, all its threads, beyond what it had before; with a durable classic queue.",
    CPU,
    PEAK,
)


def register(job: str) -> None:
    @table.contender(job)
    def run(effort: Effort) -> Mapping[str, float]:
        needs_linux()
        count = effort.count(COUNT)
        url = server()
        queue = filled(count) if "consume" in job else new_queue()
        figures = in_its_own_process(__file__, job, url, queue, str(count))
        delete(queue)
        return figures


for each_job in JOBS:
    register(each_job)

TABLES = (table,)
