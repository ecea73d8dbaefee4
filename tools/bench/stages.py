"""Where the time of one event goes on its way through the in-process broker: ``--profile stages``."""

from __future__ import annotations

import asyncio
import cProfile
import gc
import pstats
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter

from commons_events.binding import BinaryBinding
from commons_events.consumers import EventConsumer
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.message import Message
from commons_events.runtime import current_runtime
from commons_events.transport import Delivery
from tools.bench.inprocess import BATCH, TOPIC, orders
from tools.bench.measure import Effort, Table
from tools.bench.model import OrderPlaced

STAGES = (
    "making the event", "to_json", "from_json", "stating the source", "binding (with to_json)", "publish",
    "receive", "event() (with from_json)", "event(OrderPlaced)", "ack each", "commit() of all",
)  # fmt: skip


class Stages:
    """Seconds a stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        gc.collect()
        start = perf_counter()
        yield
        self.seconds[stage] = perf_counter() - start


async def walk(effort: Effort) -> Mapping[str, float]:
    """Takes every event through one stage after the other; returns µs an event and stage."""
    stages = Stages()
    with stages.time("making the event"):
        events = orders(effort)
    with stages.time("to_json"):
        texts = [event.to_json() for event in events]
    with stages.time("from_json"):
        for text in texts:
            OrderPlaced.from_json(text)
    with stages.time("stating the source"):
        for event in events:
            event.with_source("bench")
    binding, now = BinaryBinding(MemoryTransport.header_prefix), current_runtime().now
    with stages.time("binding (with to_json)"):
        messages = [binding.to_message(event, TOPIC, timestamp=now()) for event in events]
    await _deliver(stages, messages, commit=True)
    await _deliver(stages, messages, commit=False)
    return {stage: seconds / len(events) * 1e6 for stage, seconds in stages.seconds.items()}


async def _deliver(stages: Stages, messages: Sequence[Message], *, commit: bool) -> None:
    broker = MemoryBroker("stages")
    transport = MemoryTransport(broker)
    async with EventConsumer(transport=transport, topics=[TOPIC], group_id="bench") as consumer:
        with stages.time("publish"):
            for start in range(0, len(messages), BATCH):
                await transport.publish(messages[start : start + BATCH])
        deliveries: list[Delivery] = []
        with stages.time("receive"):
            while len(deliveries) < len(messages):
                deliveries += await consumer.receive(BATCH)
        with stages.time("event() (with from_json)"):
            for delivery in deliveries:
                delivery.event()
        with stages.time("event(OrderPlaced)"):
            for delivery in deliveries:
                delivery.event(OrderPlaced)
        if commit:
            with stages.time("commit() of all"):
                await consumer.commit()
        else:
            with stages.time("ack each"):
                for delivery in deliveries:
                    await delivery.ack()


def show_stages(runs: int, effort: Effort) -> None:
    """Prints the stages' costs, the medians of ``runs`` walks."""
    table = Table(
        "stages",
        "One event with 5 fields on its way, stage by stage, µs an event",
        "Each stage for all events before the next one begins.",
        "µs",
        ratios=False,
    )
    walks = [asyncio.run(walk(effort)) for _ in range(runs)]
    for stage in STAGES:
        table.contender(stage)(lambda _: 0.0)
        table.rows[-1].rounds = [{"µs": costs[stage]} for costs in walks]
    table.show()


def show_functions(tables: Sequence[Table], name: str, effort: Effort) -> bool:
    """Prints the functions in which contenders whose name has ``name`` in it spend their time."""
    rows = [row for table in tables for row in table.rows if name in row.name]
    for row in rows:
        profile = cProfile.Profile()
        print(f"\n## {row.name.strip()}")
        profile.runcall(row.run, effort)
        pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(30)
    return bool(rows)
