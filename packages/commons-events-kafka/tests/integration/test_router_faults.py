"""Routers with retries and dead letters while brokers die and members come, go and are killed.

What was confirmed is handled or a dead letter; each key's events are first handled in its order, and what handlers
return is published in that order too. ``COMMONS_EVENTS_CHAOS=N`` runs each N times as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from commons_events.dead_letters import DeadLetter, DeadLetterQueue
from commons_events.kafka import KafkaConsumer, KafkaProducer, KafkaTransport
from commons_events.router import EventRouter
from commons_events.testing import History, eventually
from commons_events.testing.services import RunningKafka

from .faults import ROUNDS, Run, needs
from .router_worker import Numbered, make_router, poisoned

pytestmark = pytest.mark.asyncio

AHEAD = 400


class RouterRun(Run):
    """With dead letters and an output, and with events among what is sent that are poisoned."""

    def __init__(self, kafka: RunningKafka) -> None:
        super().__init__(kafka)
        self.letters, self.output = kafka.unique("letters"), kafka.unique("output")
        options = "session.timeout.ms=3000&heartbeat.interval.ms=300&commit.interval.ms=10"
        self.url = f"kafka://{self.servers}?{options}"
        self.all_sent: list[tuple[str, int]] = []
        """What was confirmed, poisoned events included; the history has those that are to be handled."""
        self.distinct: set[tuple[str, int]] = set()

    def router(self) -> EventRouter:
        return make_router(self.topic, self.group, self.letters, self.output, self.note)

    def note(self, key: str, number: int) -> None:
        super().note(key, number)
        self.distinct.add((key, number))

    async def send(self) -> None:
        """Send each key's numbers in order until `stop`, not far ahead of what is handled."""
        async with KafkaProducer(self.servers, linger_ms=1) as producer:
            number = 0
            while not self.stop.is_set():
                sending = [producer.send(self.topic, Numbered(key=key, number=number), key=key) for key in self.keys]
                for key, sent in zip(self.keys, sending, strict=True):
                    await sent
                    self.all_sent.append((key, number))
                    if not poisoned(number):
                        self.history.confirmed.append((key, number))
                number += 1
                await asyncio.sleep(0.002)
                await self.until(lambda: self.stop.is_set() or self.ahead() < AHEAD, "handling what was sent")

    def ahead(self) -> int:
        return len(self.history.confirmed) - len(self.distinct)

    async def check(self) -> None:
        """Look into the topics: everything is where it has to be, in order."""
        await self.until(lambda: not self.history.missing(), "handling everything")
        self.history.check()
        poison = {(key, number) for key, number in self.all_sent if poisoned(number)}
        assert poison, "nothing was poisoned"
        letters: set[tuple[str, int]] = set()
        passed_on = History(confirmed=self.history.confirmed)
        async with KafkaConsumer(self.servers, self.kafka.unique("check"), [self.letters, self.output]) as consumer:
            async with asyncio.timeout(self.patience):
                while passed_on.missing() or poison - letters:
                    for message in await consumer.receive(1000):
                        event = message.event(Numbered)
                        if message.topic == self.output:
                            passed_on.handled.append((event.key, event.number))
                        else:
                            assert poisoned(event.number), DeadLetter.read(message.message)
                            letters.add((event.key, event.number))
        passed_on.check()


@asynccontextmanager
async def new_run(kafka: RunningKafka) -> AsyncIterator[RouterRun]:
    run = RouterRun(kafka)
    await run.declare(run.letters, run.output)
    sending = asyncio.create_task(run.send())
    try:
        yield run
    finally:
        run.stop.set()
        await sending


async def test_a_broker_that_is_killed_and_started_again(kafka_service: RunningKafka) -> None:
    needs(kafka_service, "signals", "durability")
    async with (
        new_run(kafka_service) as run,
        run.router().running(broker=run.url),
        run.router().running(broker=run.url),
    ):
        for _ in range(ROUNDS):
            await run.more(300, "what is sent")
            await asyncio.to_thread(kafka_service.kill)
            await asyncio.to_thread(kafka_service.start)
        await run.more(300, "what is sent")
        run.stop.set()
        await run.check()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_routers_that_come_and_go(kafka_service: RunningKafka, protocol: str) -> None:
    if protocol == "consumer":
        needs(kafka_service, "consumer-protocol")
    async with new_run(kafka_service) as run:
        if protocol == "consumer":
            run.url = f"kafka://{kafka_service.bootstrap_servers}?group.protocol=consumer&commit.interval.ms=10"
        async with run.router().running(broker=run.url):
            for _ in range(3 * ROUNDS):
                async with run.router().running(broker=run.url):
                    await run.more(200, "what is sent")
                await run.more(50, "what is sent")
            run.stop.set()
            await run.check()


async def test_a_router_that_is_killed_in_the_middle(kafka_service: RunningKafka) -> None:
    async with new_run(kafka_service) as run:
        for _ in range(ROUNDS + 1):
            process = await run.worker(
                Path(__file__).with_name("router_worker.py"),
                *(run.url, run.topic, run.group, run.letters, run.output),
            )
            watching = asyncio.create_task(run.watch(process))
            await run.more(200, "what is sent")
            process.kill()
            await process.wait()
            await watching
        async with run.router().running(broker=run.url):
            await run.more(200, "what is sent")
            run.stop.set()
            await run.check()


async def test_parked_keys_keep_their_order_while_members_come_and_go(kafka_service: RunningKafka) -> None:
    """A key's followers wait in the dead letters behind the one that failed, and are redriven in order."""
    run = RouterRun(kafka_service)
    await run.declare(run.letters)
    broken = True
    router = make_router(
        run.topic, run.group, run.letters, None, run.note, order="key", fails=lambda n: broken and n == 5
    )
    numbers = 20 * ROUNDS
    async with (
        KafkaProducer(bootstrap_servers=kafka_service.bootstrap_servers) as producer,
        AsyncExitStack() as stack,
    ):
        transport = KafkaTransport(f"kafka://{kafka_service.bootstrap_servers}")
        stack.push_async_callback(transport.close)
        await stack.enter_async_context(router.running(broker=run.url))
        for number in range(numbers):
            for key in run.keys:
                await producer.send(run.topic, Numbered(key=key, number=number), key=key)
                run.history.confirmed.append((key, number))
            if number == 10:
                guest = await stack.enter_async_context(router.running(broker=run.url))
        queue = DeadLetterQueue(transport, run.letters)

        async def parked() -> set[tuple[str, int]]:
            events = [Numbered.from_json(letter.message.value or b"") async for letter in queue.letters()]
            return {(event.key, event.number) for event in events}

        expected = {(key, number) for key in run.keys for number in range(5, numbers)}

        odd = expected

        async def all_parked() -> bool:
            nonlocal odd
            odd = await parked() ^ expected
            return not odd

        try:
            await eventually(all_parked, timeout=run.patience, interval=0.2, what="parking the followers")
        except AssertionError as error:
            early = odd & set(run.history.handled)
            error.add_note(f"parked or not against what was expected: {sorted(odd)}; of these handled: {sorted(early)}")
            raise
        assert set(run.history.handled) == set(run.history.confirmed) - expected
        broken = False
        redriving = 0

        async def redriven() -> bool:
            nonlocal redriving
            redriving += 1
            if redriving == 2:
                await guest.end()
            await queue.redrive()
            return not await parked()

        await eventually(redriven, timeout=run.patience, interval=0.2, what="redriving everything")
        assert not run.history.missing()
    run.history.check()
