"""A router for ``commons-events run`` on Kafka; the environment names its topic and group."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from commons_events import Event
from commons_events.router import EventRouter


class Numbered(Event):
    """An event with its key and its number under that key."""

    event_type = "kafka.run.numbered"
    key: str
    number: int


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    print("ready", flush=True)
    yield


router = EventRouter(lifespan=lifespan)


@router.subscribe(os.environ.get("TOPIC", "topic"), group=os.environ.get("GROUP", "group"))
async def handle(event: Numbered) -> None:
    print("began", event.key, event.number, "...", flush=True)
    await asyncio.sleep(0.01)  # whoever is stopped is in the middle of some
    print(event.key, event.number, flush=True)
