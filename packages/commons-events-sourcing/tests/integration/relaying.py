"""A process that relays until it is killed: says on its output what was published, one line each."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from commons_events import Event, Message
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.message import PublishResult
from commons_events.sourcing import EventStore, OutboxRelay


class Relayed(Event):
    event_type = "tests.relayed"


class Saying(MemoryTransport):
    """The in-process broker, which says each message's event before it confirms it."""

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        for message in messages:
            os.write(1, f"{message.header('ce_id')}\n".encode())
        return super().publish(messages)


async def relay(url: str) -> None:
    async with EventStore(url, page_size=50) as store:
        await OutboxRelay(store, Saying(MemoryBroker()), topic="t", lease_seconds=0.5).run()


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1]))
