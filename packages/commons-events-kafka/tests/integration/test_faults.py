"""Brokers and consumers die, freeze and come and go; what was confirmed is handled, in each key's order.

``COMMONS_EVENTS_CHAOS=N`` runs each N times as long.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from commons_events.errors import TransportError
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer
from commons_events.testing import FaultRun, History
from commons_events.testing.services import RunningKafka

from .running_router import Numbered

pytestmark = pytest.mark.asyncio

ROUNDS = int(os.environ.get("COMMONS_EVENTS_CHAOS", "1"))


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

    async def declare(self) -> None:
        async with KafkaAdmin(self.kafka.bootstrap_servers) as admin:
            await admin.create_topic(self.topic, partitions=4)

    async def send(self) -> None:
        """Send each key's numbers in order until `stop`."""
        async with KafkaProducer(self.servers, linger_ms=1) as producer:
            await self.produce(lambda key, value: producer.send(self.topic, value, key=key))

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


async def test_a_broker_that_is_killed_and_started_again(kafka_service: RunningKafka) -> None:
    needs(kafka_service, "signals", "durability")
    run = Run(kafka_service)
    await run.declare()
    leave = asyncio.Event()
    producing = run.begin(run.send())
    consuming = run.begin(run.consume(leave))
    for _ in range(ROUNDS):
        before = len(run.history.handled)
        await run.until(lambda: len(run.history.handled) > before + 200, "handling before the kill")  # noqa: B023
        await asyncio.to_thread(kafka_service.kill)
        await asyncio.to_thread(kafka_service.start)
    before = len(run.history.confirmed)
    await run.until(lambda: len(run.history.confirmed) > before + 100, "sending after the restart")
    run.stop.set()
    await producing
    await run.until(lambda: not run.history.missing(), "handling after the restart")
    leave.set()
    await consuming
    run.history.check()


@pytest.mark.parametrize("seconds", [3.0, 8.0], ids=["longer than the session", "until its cluster counts it out"])
async def test_a_broker_that_freezes(kafka_service: RunningKafka, seconds: float) -> None:
    needs(kafka_service, "signals")
    run = Run(kafka_service)
    await run.declare()
    # Several groups: once the cluster has counted its broker out, librdkafka loses it for ever in some of them.
    runs = [run, *(run.beside() for _ in range(3 if seconds > 6 else 0))]
    leave = asyncio.Event()
    producing = run.begin(run.send())
    consuming = [one.begin(one.consume(leave, session_timeout_ms=2_000, heartbeat_interval_ms=300)) for one in runs]
    for _ in range(ROUNDS):
        before = [len(one.history.handled) for one in runs]
        for one, count in zip(runs, before, strict=True):
            await one.until(lambda: len(one.history.handled) > count + 100, "handling before the freeze")  # noqa: B023
        await asyncio.to_thread(kafka_service.pause)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(kafka_service.resume)
    confirmed = len(run.history.confirmed)
    await run.until(lambda: len(run.history.confirmed) > confirmed + 100, "sending after the freeze")
    run.stop.set()
    await producing
    for one in runs:
        await one.until(lambda: not one.history.missing(), "handling after the freeze")  # noqa: B023
    leave.set()
    await asyncio.gather(*consuming)
    for one in runs:
        one.history.check()


async def test_a_consumer_that_is_killed_in_the_middle_of_a_batch(kafka_service: RunningKafka) -> None:
    run = Run(kafka_service)
    await run.declare()
    producing = run.begin(run.send())
    for _ in range(ROUNDS + 1):
        process = await run.consumer_process()
        watching = run.begin(run.watch(process))
        before = len(run.history.handled)
        await run.until(lambda: len(run.history.handled) > before + 100, "handling before the kill")  # noqa: B023
        process.kill()
        await process.wait()
        await watching
    run.stop.set()
    await producing
    leave = asyncio.Event()
    consuming = run.begin(run.consume(leave))
    await run.until(lambda: not run.history.missing(), "handling what the killed left")
    leave.set()
    await consuming
    run.history.check()


async def test_a_run_worker_that_is_told_to_stop_finishes_and_commits_what_it_handles(
    kafka_service: RunningKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``commons-events run`` and SIGTERM, again and again: the next one goes on exactly where the last one ended."""
    run = Run(kafka_service)
    await run.declare()
    monkeypatch.setenv("TOPIC", run.topic)
    monkeypatch.setenv("GROUP", run.group)
    command = ("-m", "commons_events.cli", "run", "running_router:router", "--broker", f"kafka://{run.servers}")

    async def send() -> None:
        async with KafkaProducer(run.servers, linger_ms=1) as producer:
            await run.produce(
                lambda key, value: producer.send(run.topic, Numbered(key=key, number=int(value)), key=key), pause=0.02
            )

    sending = run.begin(send())
    for _ in range(ROUNDS + 1):
        process = await run.worker(*command, folder=Path(__file__).parent)
        watching = run.begin(run.watch(process))
        before = len(run.history.handled)
        await run.until(lambda: len(run.history.handled) > before + 50, "handling before the signal")  # noqa: B023
        process.terminate()
        await watching
        assert await process.wait() == 0
    run.stop.set()
    await sending
    process = await run.worker(*command, folder=Path(__file__).parent)
    watching = run.begin(run.watch(process))
    await run.until(lambda: not run.history.missing(), "handling what was left")
    process.terminate()
    await watching
    assert await process.wait() == 0
    run.history.check(duplicates=False)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_consumers_that_come_and_go(kafka_service: RunningKafka, protocol: str) -> None:
    if protocol == "consumer":
        needs(kafka_service, "consumer-protocol")
    run = Run(kafka_service)
    await run.declare()
    producing = run.begin(run.send())
    stays = asyncio.Event()
    staying = run.begin(run.consume(stays, group_protocol=protocol))
    guests: list[asyncio.Task[None]] = []
    for _ in range(4 * ROUNDS):
        leave = asyncio.Event()
        guest = run.begin(run.consume(leave, group_protocol=protocol))
        guests.append(guest)
        await asyncio.sleep(1.0)
        leave.set()
    await asyncio.gather(*guests)
    run.stop.set()
    await producing
    await run.until(lambda: not run.history.missing(), "handling after the storm")
    stays.set()
    await staying
    run.history.check()


async def test_transactions_handle_nothing_twice(kafka_service: RunningKafka) -> None:
    """Consume, transform, produce, while consumers come and go: what was committed holds each input once."""
    needs(kafka_service, "transactions", "transactional-offsets", "read-committed")
    run = Run(kafka_service)
    await run.declare()
    output = kafka_service.unique("output")
    async with KafkaAdmin(kafka_service.bootstrap_servers) as admin:
        await admin.create_topic(output, partitions=1)
    async with KafkaProducer(bootstrap_servers=kafka_service.bootstrap_servers) as producer:
        for number in range(20 * ROUNDS):
            await producer.send_batch(run.topic, [b"%d" % number] * len(run.keys), key=None)
            for key in run.keys:
                await producer.send(run.topic, b"%d" % number, key=key)
                run.history.confirmed.append((key, number))

    async def transform(limit: int) -> None:
        servers = kafka_service.bootstrap_servers
        async with (
            KafkaProducer(bootstrap_servers=servers) as producer,
            KafkaConsumer(bootstrap_servers=servers, group_id=run.group, topics=[run.topic]) as consumer,
        ):
            handled = 0
            while handled < limit and (messages := await consumer.receive(20, timeout=5)):
                with suppress(TransportError):
                    async with producer.transaction() as transaction:
                        for message in messages:
                            if message.key is not None:
                                await producer.send(output, message.value, key=message.key)
                        transaction.send_offsets(messages)
                handled += len(messages)

    await asyncio.gather(transform(60), transform(80))
    await transform(1_000_000)
    async with KafkaConsumer(kafka_service.bootstrap_servers, run.group + "-check", [output]) as consumer:
        while batch := await consumer.receive(1000, timeout=3):
            run.history.handled += [((m.key or b"").decode(), int(m.value)) for m in batch]
    run.history.check(duplicates=False)
