"""What queued messages cost in the in-process broker: memory, and time as the queue grows.

Each figure comes from a process of its own: ``python memory.py QUEUE SIZE`` prints it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from commons_events.consumers import EventConsumer  # noqa: E402
from commons_events.memory import MemoryBroker, MemoryTransport  # noqa: E402
from commons_events.message import Message  # noqa: E402
from tools.bench.measure import Effort, LeftOutError, Table, at_most  # noqa: E402

LIBRARIES = ("commons-events-core",)
PAYLOAD = 100
BATCH = 500
SIZES = (1_000, 10_000, 100_000, 1_000_000)
BYTES, PUBLISH, RECEIVE = "bytes beside payload", "publish µs", "receive + ack µs"
FLAT = 1.5
SMALLEST = f"{SIZES[0]:,} messages"

table = Table(
    "memory",
    f"Queued messages of {PAYLOAD} bytes in the in-process broker",
    "All are published, then all are received and acknowledged. Memory is the growth of the process's resident\n"
    f"set by the queued messages, less their {PAYLOAD} bytes (small sizes drown in pages). Flat: at most {FLAT:g} ×\n"
    f"the cost at {SIZES[0]:,}. deque: the same bytes objects in a bare collections.deque.",
    BYTES,
    PUBLISH,
    RECEIVE,
)


def in_a_process(queue: str, size: int) -> Mapping[str, float]:
    command = [sys.executable, str(Path(__file__)), queue, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def register(size: int) -> None:
    targets = [at_most(FLAT, SMALLEST, name=f"at {SIZES[0]:,}", metric=metric) for metric in (PUBLISH, RECEIVE)]

    @table.contender(f"{size:,} messages", *(targets if size > SIZES[0] else ()))
    def queued(effort: Effort) -> Mapping[str, float]:
        if effort.quick and size > 100_000:
            raise LeftOutError("not with --quick")
        return in_a_process("broker", size)


for each_size in SIZES:
    register(each_size)


@table.contender(f"deque, {SIZES[-1]:,} messages")
def bare_deque(effort: Effort) -> Mapping[str, float]:
    if effort.quick:
        raise LeftOutError("not with --quick")
    return in_a_process("deque", SIZES[-1])


TABLES = (table,)


# --- in the process of its own -----------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of the process that are in memory now."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except FileNotFoundError:
        import resource  # elsewhere: the most there ever was, in bytes on macOS

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")


def payload(number: int) -> bytes:
    return b"%0*d" % (PAYLOAD, number)


async def in_broker(size: int) -> tuple[float, float, float]:
    """Growth of memory, and the seconds of publishing and of receiving with ack."""
    transport = MemoryTransport(MemoryBroker("bench"))
    consumer = EventConsumer(transport=transport, topics=["bench"], group_id="bench")
    async with consumer:
        before, publishing, messages = resident(), 0.0, list[Message]()
        for start in range(0, size, BATCH):
            messages = [Message("bench", payload(n)) for n in range(start, min(start + BATCH, size))]
            began = perf_counter()
            await transport.publish(messages)
            publishing += perf_counter() - began
        messages = []  # the last ones are the broker's alone now
        grown, left = resident() - before, size
        began = perf_counter()
        while left:
            deliveries = await consumer.receive(BATCH)
            for delivery in deliveries:
                await delivery.ack()
            left -= len(deliveries)
        receiving = perf_counter() - began
    await transport.close()
    return grown, publishing, receiving


async def in_deque(size: int) -> tuple[float, float, float]:
    """As `in_broker`, for the least that keeping the messages takes."""
    before, publishing, queue = resident(), 0.0, deque[bytes]()
    for start in range(0, size, BATCH):
        messages = [payload(n) for n in range(start, min(start + BATCH, size))]
        began = perf_counter()
        for message in messages:
            queue.append(message)
        publishing += perf_counter() - began
    grown = resident() - before
    began = perf_counter()
    while queue:
        queue.popleft()
    return grown, publishing, perf_counter() - began


async def figures(fill: Callable[[int], Awaitable[tuple[float, float, float]]], size: int) -> dict[str, float]:
    """A message's share. Small queues are filled several times; memory by the first.

    The middle time of them counts: a large one goes through good and bad moments, too, and the best would be none.
    """
    grown, publishing, receiving = await fill(size)
    publishings, receivings = [publishing], [receiving]
    for _ in range(min(50_000 // size, 20)):
        _, publishing, receiving = await fill(size)
        publishings.append(publishing)
        receivings.append(receiving)
    return {
        BYTES: grown / size - PAYLOAD,
        PUBLISH: median(publishings) / size * 1e6,
        RECEIVE: median(receivings) / size * 1e6,
    }


if __name__ == "__main__":
    kinds = {"broker": in_broker, "deque": in_deque}
    print(json.dumps(asyncio.run(figures(kinds[sys.argv[1]], int(sys.argv[2])))))
