"""A consumer process: handles messages, says so on its standard output, and is there to be killed.

Arguments: URL, queue.
"""

from __future__ import annotations

import asyncio
import sys

from commons_events.rabbitmq import RabbitMQConsumer


async def main(url: str, queue: str) -> None:
    async with RabbitMQConsumer(url, queue=queue, prefetch_count=100) as consumer:
        print("ready", flush=True)
        async for message in consumer:
            print((message.key or b"").decode(), message.value.decode(), flush=True)
            await asyncio.sleep(0.001)
            await message.ack()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
