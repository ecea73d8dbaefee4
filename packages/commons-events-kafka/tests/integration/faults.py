"""What the runs under faults share: a topic of a real broker, its group, and who sends to it and receives from it.

``COMMONS_EVENTS_CHAOS=N`` runs each N times as long.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from commons_events.errors import PublishError
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer
from commons_events.testing import FaultRun, History, eventually
from commons_events.testing.services import RunningKafka

__all__ = ["PARTITIONS", "ROUNDS", "Run", "needs"]

ROUNDS = int(os.environ.get("COMMONS_EVENTS_CHAOS", "1"))
PARTITIONS = 4


class Run(FaultRun):
    """A topic, its group, and the history of what is sent to it and handled."""

    def __init__(self, kafka: RunningKafka, history: History | None = None) -> None:
        super().__init__(history)
        self.kafka = kafka
        self.servers = kafka.bootstrap_servers
        self.topic = kafka.unique("faults")
        self.group = kafka.unique("group")

    def beside(self) -> Run:
        """Another group on the same topic."""
        other = Run(self.kafka, History(confirmed=self.history.confirmed))
        other.topic = self.topic
        return other

    async def declare(self, *more: str, replicas: int | None = None) -> None:
        """Make the topic, and ``more``."""
        config = None if replicas is None else {"min.insync.replicas": str(replicas - 1)}
        async with KafkaAdmin(self.kafka.bootstrap_servers) as admin:
            for topic in (self.topic, *more):
                await admin.create_topic(topic, partitions=PARTITIONS, replication_factor=replicas, config=config)

    async def more(self, count: int, what: str) -> None:
        """Wait until so many more are handled."""
        before = len(self.history.handled)
        await self.until(lambda: len(self.history.handled) >= before + count, f"handling {what}")

    async def sent(self, count: int, what: str) -> None:
        """Wait until so many more are confirmed."""
        before = len(self.history.confirmed)
        await self.until(lambda: len(self.history.confirmed) >= before + count, f"sending {what}")

    async def until_in_sync(self) -> None:
        """Wait until every replica of the topic has caught up."""
        async with KafkaAdmin(self.servers) as admin:

            async def in_sync() -> bool:
                found = await admin.describe_topic(self.topic)
                return all(set(place.replicas) == set(place.in_sync) for place in found.partitions)

            await eventually(in_sync, timeout=self.patience, interval=0.2, what="replicas in sync")

    async def send(self, *, again: type[PublishError] | tuple[()] = ()) -> None:
        """Send each key's numbers in order until `stop`.

        Args:
            again: an error of a broker in trouble, after which a number is sent again.
        """
        async with KafkaProducer(self.servers, linger_ms=1) as producer:

            async def send(key: str, value: bytes) -> None:
                while True:
                    try:
                        await producer.send(self.topic, value, key=key)
                    except again:
                        await asyncio.sleep(0.1)
                    else:
                        return

            await self.produce(lambda key, value: asyncio.ensure_future(send(key, value)))

    async def consume(self, leave: asyncio.Event, **settings: Any) -> None:
        """Handle messages until ``leave``."""
        async with KafkaConsumer(
            self.servers, self.group, [self.topic], commit_interval_ms=100, **settings
        ) as consumer:
            await self.handle(consumer, leave)

    async def consumer_process(self) -> asyncio.subprocess.Process:
        """A consumer in a process of its own, which has joined."""
        return await self.worker(Path(__file__).with_name("worker.py"), self.servers, self.group, self.topic)


def needs(kafka: RunningKafka, *capabilities: str) -> None:
    if reason := kafka.why_not(*capabilities):
        pytest.skip(reason)
