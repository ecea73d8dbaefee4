"""A router on Kafka whose handlers fail now and then; as a program it is a process that is there to be killed.

Arguments: URL, topic, group, dead-letter topic, output topic.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Literal

from commons_events import Delivery, Event
from commons_events.retries import Retry
from commons_events.router import DeadLetters, EventRouter

__all__ = ["Numbered", "make_router", "poisoned"]


class Numbered(Event):
    """An event with its key and its number under that key."""

    event_type = "kafka.faults.numbered"
    key: str
    number: int


def poisoned(number: int) -> bool:
    """Whether an event fails for good."""
    return number % 40 == 17


def make_router(
    topic: str,
    group: str,
    letters: str,
    output: str | None,
    handled: Callable[[str, int], None],
    *,
    order: Literal["none", "key"] = "none",
    fails: Callable[[int], bool] = poisoned,
) -> EventRouter:
    """A router that passes on what it has handled; every 13th event fails the first two times in each process."""
    router = EventRouter()
    failed: dict[tuple[str, int], int] = {}

    async def handle(event: Numbered, message: Delivery) -> Any:
        if fails(event.number):
            raise ValueError("poisoned")
        await asyncio.sleep(0)
        tries = failed.get((event.key, event.number), 0)
        if event.number % 13 == 5 and tries < 2:
            failed[event.key, event.number] = tries + 1
            raise OSError("not yet")
        handled(event.key, event.number)
        return None if output is None else Numbered(key=event.key, number=event.number)

    router.subscribe(
        topic,
        group=group,
        # What the broker does not take while it is gone fails as well, and is no dead letter.
        retry=Retry(attempts=None, endless=True, delay=0.02, max_delay=0.2, fatal=(ValueError,)),
        dead_letter=DeadLetters(letters, order=order, check_every=0.2),
        publish_to=output,
    )(handle)
    return router


async def main(url: str, topic: str, group: str, letters: str, output: str) -> None:
    router = make_router(topic, group, letters, output, lambda key, number: print(key, number, flush=True))
    async with router.running(broker=url) as running:
        print("ready", flush=True)
        await running.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
