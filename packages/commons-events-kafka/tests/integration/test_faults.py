"""Brokers and consumers die, freeze and come and go; what was confirmed is handled, in each key's order.

``COMMONS_EVENTS_CHAOS=N`` runs each N times as long.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from commons_events.errors import TransportError
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer
from commons_events.testing.services import RunningKafka

from .faults import ROUNDS, Run, needs
from .running_router import Numbered

pytestmark = pytest.mark.asyncio


async def test_a_broker_that_is_killed_and_started_again(kafka_service: RunningKafka) -> None:
    needs(kafka_service, "signals", "durability")
    run = Run(kafka_service)
    await run.declare()
    leave = asyncio.Event()
    producing = run.begin(run.send())
    consuming = run.begin(run.consume(leave))
    for _ in range(ROUNDS):
        await run.more(200, "before the kill")
        await asyncio.to_thread(kafka_service.kill)
        await asyncio.to_thread(kafka_service.start)
    await run.sent(100, "after the restart")
    run.stop.set()
    await producing
    await run.until(lambda: not run.history.missing(), "handling after the restart")
    leave.set()
    await consuming
    run.history.check()


async def test_brokers_of_three_that_are_killed_one_after_the_other(kafka_cluster: RunningKafka) -> None:
    """Two are left each time, which is as many as have to confirm; the third comes again before the next one dies."""
    needs(kafka_cluster, "cluster", "signals")
    run = Run(kafka_cluster)
    await run.declare(replicas=3)
    leave = asyncio.Event()
    sending = run.begin(run.send())
    consuming = [run.begin(run.consume(leave, session_timeout_ms=6_000)) for _ in range(2)]
    nodes = kafka_cluster.nodes
    try:
        for number in range(2 * ROUNDS):
            node = nodes[number % len(nodes)]
            await run.more(200, "before the kill")
            await asyncio.to_thread(kafka_cluster.kill, node)
            await run.sent(100, "with two of three")
            await run.more(200, "with two of three")
            await asyncio.to_thread(kafka_cluster.start, node)
            await run.until_in_sync()
        run.stop.set()
        await sending
        await run.until(lambda: not run.history.missing(), "handling what is left")
        leave.set()
        await asyncio.gather(*consuming)
    finally:
        await asyncio.to_thread(kafka_cluster.start_all)
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
    await run.sent(100, "after the freeze")
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
        await run.more(100, "before the kill")
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
        await run.more(50, "before the signal")
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


@pytest.mark.parametrize("blocks", [False, True], ids=["waits", "blocks the event loop"])
async def test_a_handler_that_is_slower_than_every_timeout(kafka_service: RunningKafka, blocks: bool) -> None:
    """It costs no membership, so that nothing comes twice, and another group isn't held up."""
    run = Run(kafka_service)
    await run.declare()
    beside = run.beside()
    leave = asyncio.Event()
    sending = run.begin(run.send())
    slow: dict[str, Any] = {"session_timeout_ms": 6_000, "max_poll_interval_ms": 6_000}

    async def handle_slowly() -> None:
        async with KafkaConsumer(run.servers, run.group, [run.topic], **slow) as consumer:
            for _ in range(ROUNDS):
                (message,) = await consumer.receive(1)
                if blocks:
                    time.sleep(7.0)  # noqa: ASYNC251
                else:
                    await asyncio.sleep(7.0)
                run.note((message.key or b"").decode(), int(message.value))
                await consumer.commit(message, wait=True)
            await run.handle(consumer, leave)

    handling = run.begin(handle_slowly())
    other = beside.begin(beside.consume(leave))
    await run.more(200, "slowly")
    await beside.more(200, "beside the slow one")
    run.stop.set()
    await sending
    for one in (run, beside):
        await one.until(lambda: not one.history.missing(), "handling what is left")  # noqa: B023
    leave.set()
    await asyncio.gather(handling, other)
    for one in (run, beside):
        one.history.check(duplicates=False)


async def test_a_handler_that_always_fails_holds_up_its_own_key_alone(kafka_service: RunningKafka) -> None:
    """Not even after a restart is anything committed beyond what failed; once it is mended, all is in order."""
    run = Run(kafka_service)
    await run.declare()
    broken, stuck = "key-3", 20
    sending = run.begin(run.send())
    mended = asyncio.Event()
    failures = 0

    async def handle(leave: asyncio.Event) -> None:
        nonlocal failures
        async with KafkaConsumer(run.servers, run.group, [run.topic], commit_interval_ms=50) as consumer:
            while not leave.is_set():
                failed = False
                for message in await consumer.receive(50, timeout=0.2):
                    key, number = (message.key or b"").decode(), int(message.value)
                    failed = failed or ((key, number) == (broken, stuck) and not mended.is_set())
                    if failed and key == broken:  # and what has come with it and is to follow it
                        failures += number == stuck
                        await message.nack(delay=0.01)
                    else:
                        run.note(key, number)
                        await message.ack()

    for _ in range(ROUNDS + 1):
        leave = asyncio.Event()
        before = failures
        handling = run.begin(handle(leave))
        await run.until(lambda: failures > before + 10, "failing again and again")  # noqa: B023
        await run.more(200, "of the other keys")
        leave.set()
        await handling
    run.stop.set()
    await sending
    assert {number for key, number in run.history.handled if key == broken} == set(range(stuck))
    mended.set()
    leave = asyncio.Event()
    handling = run.begin(handle(leave))
    await run.until(lambda: not run.history.missing(), "handling what is mended")
    leave.set()
    await handling
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

    all_written = asyncio.Event()

    async def transform(limit: int) -> None:
        servers = kafka_service.bootstrap_servers
        async with (
            KafkaProducer(bootstrap_servers=servers) as producer,
            KafkaConsumer(bootstrap_servers=servers, group_id=run.group, topics=[run.topic]) as consumer,
        ):
            handled = 0
            while handled < limit and not all_written.is_set():
                messages = await consumer.receive(20, timeout=0.5)
                if not messages:
                    continue
                with suppress(TransportError):
                    async with producer.transaction() as transaction:
                        for message in messages:
                            if message.key is not None:
                                await producer.send(output, message.value, key=message.key)
                        transaction.send_offsets(messages)
                handled += len(messages)

    first = [run.begin(transform(60)), run.begin(transform(80))]
    await run.until(lambda: all(one.done() for one in first), "transforming some")
    async with KafkaConsumer(kafka_service.bootstrap_servers, run.group + "-check", [output]) as consumer:

        async def check(timeout: float) -> bool:
            batch = await consumer.receive(1000, timeout=timeout)
            run.history.handled += [((m.key or b"").decode(), int(m.value)) for m in batch]
            return bool(batch)

        rest = run.begin(transform(1_000_000))
        async with asyncio.timeout(run.patience):
            while run.history.missing():
                await check(0.5)
        all_written.set()
        await rest
        while await check(3.0):
            pass
    run.history.check(duplicates=False)
