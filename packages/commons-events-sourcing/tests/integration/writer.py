"""A process that writes until it is killed: says on its output what is confirmed, one line each."""

from __future__ import annotations

import asyncio
import sys

from commons_events import Event
from commons_events.errors import StoreUnavailableError
from commons_events.sourcing import Append, EventStore, NewEvent


class Written(Event):
    event_type = "tests.written"
    text: str


SIZE = 5
"""Events of one append."""


async def write(url: str, name: str, tasks: int) -> None:
    store = EventStore(url)
    await store.open()
    sys.stdout.write("ready\n")
    sys.stdout.flush()

    async def one(task: int) -> None:
        number = 0
        while True:
            number += 1
            streams = [f"{name}-{task}-{number}", f"{name}-{task}-{number}b"][: 1 + number % 2]
            appends = [
                Append(s, [NewEvent(Written(text="x" * 200, event_id=f"{s}/{n}"), (f"n{n}",)) for n in range(SIZE)], 0)
                for s in streams
            ]
            while True:
                try:
                    await store.append_many(appends)
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.02)
            sys.stdout.write("".join(f"{stream}\n" for stream in streams))
            sys.stdout.flush()

    await asyncio.gather(*(one(task) for task in range(tasks)))


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2], int(sys.argv[3])))
