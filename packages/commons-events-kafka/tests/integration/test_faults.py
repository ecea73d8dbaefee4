"""Brokers and consumers die, freeze and come and go; what was confirmed is handled, in each key's order.

``COMMONS_EVENTS_CHAOS=N`` runs each N times as long.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from commons_events.errors import TransportError
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer
from commons_events.testing import History
from commons_events.testing.services import RunningKafka

pytestmark = pytest.mark.asyncio

ROUNDS = int(os.environ.get("COMMONS_EVENTS_CHAOS", "1"))
KEYS = 8
PATIENCE = 180.0


class Run:
    """A topic, its group, and the history of what is sent to it and handled."""

    def __init__(self, kafka: RunningKafka) -> None:
        self.kafka = kafka
        self.topic = kafka.unique("faults")
        self.group = kafka.unique("group")
        self.history = History()
        self.stop = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def beside(self) -> Run:
        """Another group on the same topic."""
        other = Run(self.kafka)
        other.topic, other.history = self.topic, History(confirmed=self.history.confirmed)
        return other

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work in the background; `until` raises what it raised."""
        task = asyncio.create_task(work)
        self.tasks.append(task)
        return task

    async def declare(self) -> None:
        async with KafkaAdmin(self.kafka.bootstrap_servers) as admin:
            await admin.create_topic(self.topic, partitions=4)

    async def produce(self, pause: float = 0.002) -> None:
        """Send each key's numbers in order; one is counted as confirmed when it is."""
        async with KafkaProducer(bootstrap_servers=self.kafka.bootstrap_servers, linger_ms=1) as producer:
            number = 0
            while not self.stop.is_set():
                keys = [f"key-{place}" for place in range(KEYS)]
                sending = [producer.send(self.topic, b"%d" % number, key=key) for key in keys]
                for key, sent in zip(keys, sending, strict=True):
                    await sent
                    self.history.confirmed.append((key, number))
                number += 1
                await asyncio.sleep(pause)

    async def consume(self, leave: asyncio.Event, **settings: object) -> None:
        """Handle messages until ``leave``."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.kafka.bootstrap_servers,
            group_id=self.group,
            topics=[self.topic],
            commit_interval_ms=100,
            **settings,
        )
        async with consumer:
            leaving = asyncio.create_task(leave.wait())
            while not leave.is_set():
                receiving = asyncio.ensure_future(consumer.receive(50))
                await asyncio.wait([receiving, leaving], return_when=asyncio.FIRST_COMPLETED)
                if not receiving.done():
                    receiving.cancel()
                    with suppress(asyncio.CancelledError):
                        await receiving
                    break
                for message in receiving.result():
                    self.history.handled.append(((message.key or b"").decode(), int(message.value)))
                    await message.ack()
            leaving.cancel()

    async def worker(self) -> asyncio.subprocess.Process:
        """A consumer process, which has joined."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("worker.py")),
            self.kafka.bootstrap_servers,
            self.group,
            self.topic,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    async def watch(self, process: asyncio.subprocess.Process) -> None:
        """Write down what a worker handles, until it ends."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line.endswith(b"\n"):
                key, _, number = line.decode().strip().partition(" ")
                self.history.handled.append((key, int(number)))

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():  # it is about counters
                    for task in self.tasks:
                        if task.done():
                            task.result()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(
                f"{what} took more than {PATIENCE:g} s; {len(self.history.missing())} missing"
            ) from None


def needs(kafka: RunningKafka, *capabilities: str) -> None:
    if reason := kafka.why_not(*capabilities):
        pytest.skip(reason)


async def test_a_broker_that_is_killed_and_started_again(kafka_service: RunningKafka) -> None:
    needs(kafka_service, "signals", "durability")
    run = Run(kafka_service)
    await run.declare()
    leave = asyncio.Event()
    producing = run.begin(run.produce())
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
    producing = run.begin(run.produce())
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
    producing = run.begin(run.produce())
    for _ in range(ROUNDS + 1):
        process = await run.worker()
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


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_consumers_that_come_and_go(kafka_service: RunningKafka, protocol: str) -> None:
    if protocol == "consumer":
        needs(kafka_service, "consumer-protocol")
    run = Run(kafka_service)
    await run.declare()
    producing = run.begin(run.produce())
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
            await producer.send_batch(run.topic, [b"%d" % number] * KEYS, key=None)
            for place in range(KEYS):
                await producer.send(run.topic, b"%d" % number, key=f"key-{place}")
                run.history.confirmed.append((f"key-{place}", number))

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
