"""A consumer process: handles messages, says so on its standard output, and is there to be killed.

Arguments: bootstrap servers, group, topic.
"""

from __future__ import annotations

import asyncio
import sys

from commons_events.kafka import KafkaConsumer


async def main(servers: str, group: str, topic: str) -> None:
    settings = {"session_timeout_ms": 1_500, "heartbeat_interval_ms": 300, "commit_interval_ms": 50}
    async with KafkaConsumer(bootstrap_servers=servers, group_id=group, topics=[topic], **settings) as consumer:
        print("ready", flush=True)
        async for message in consumer:
            print((message.key or b"").decode(), message.value.decode(), flush=True)
            await asyncio.sleep(0.001)
            await message.ack()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
