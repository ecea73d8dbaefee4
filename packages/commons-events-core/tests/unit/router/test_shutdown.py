"""The end of a router: what runs may finish, what was cut off comes again, and nothing is committed by a cancel."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import pytest

from commons_events import Event
from commons_events.errors import PublishTimeoutError
from commons_events.memory import MemoryTransport
from commons_events.retries import Retry
from commons_events.router import EventRouter
from commons_events.testing import EventTestHarness, eventually

pytestmark = pytest.mark.asyncio


class Job(Event):
    event_type = "router.job"
    n: int = 0


async def left_over(harness: EventTestHarness) -> list[int]:
    async with harness.consumer("jobs", group_id="g") as consumer:
        left = [delivery.event(Job).n for delivery in await consumer.receive(1000, timeout=0.05)]
        await consumer.commit(wait=True)
    return sorted(left)


def slow_router(seconds: float, done: list[int], begun: list[int] | None = None) -> EventRouter:
    router = EventRouter()
    began = [] if begun is None else begun

    @router.subscribe("jobs", group="g", concurrency=2)
    async def handle(event: Job) -> None:
        began.append(event.n)
        await asyncio.sleep(seconds)
        done.append(event.n)

    return router


async def test_within_grace_handlers_finish_and_the_rest_comes_again(harness: EventTestHarness) -> None:
    done: list[int] = []
    async with harness.run(slow_router(10, done), grace=30) as t:
        await t.send("jobs", *(Job(n=n) for n in range(6)))
        await asyncio.sleep(1)
    assert len(done) == 2
    assert sorted([*done, *await left_over(harness)]) == list(range(6))


async def test_past_grace_handlers_are_cut_off_and_their_messages_come_again(harness: EventTestHarness) -> None:
    done: list[int] = []
    async with harness.run(slow_router(100, done), grace=5) as t:
        await t.send("jobs", *(Job(n=n) for n in range(6)))
        await asyncio.sleep(1)
    assert done == []
    assert await left_over(harness) == list(range(6))


async def test_cancelling_commits_nothing_that_was_not_handled(harness: EventTestHarness) -> None:
    done: list[int] = []
    begun: list[int] = []
    router = slow_router(100, done, begun)
    await harness.publish("jobs", *(Job(n=n) for n in range(4)))
    task = asyncio.create_task(router.run(broker=MemoryTransport(harness.broker)))
    await eventually(lambda: len(begun) == 2, timeout=60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == []
    assert await left_over(harness) == list(range(4))


async def test_a_signal_ends_gracefully_and_a_second_one_at_once(harness: EventTestHarness) -> None:
    done: list[int] = []
    started, may_end = asyncio.Event(), asyncio.Event()
    router = EventRouter()

    @router.subscribe("jobs", group="g")
    async def handle(event: Job) -> None:
        started.set()
        await may_end.wait()
        done.append(event.n)

    for signals in (1, 2):
        started.clear()
        may_end.clear()
        await harness.publish("jobs", Job(n=signals))
        task = asyncio.create_task(router.run(broker=MemoryTransport(harness.broker), grace=60))
        await started.wait()
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.02)
        if signals == 1:
            assert not task.done()
            may_end.set()
        await asyncio.wait_for(task, 60)
    assert done == [1]
    assert await left_over(harness) == [2]


async def test_a_signal_ends_all_routers_of_an_event_loop(harness: EventTestHarness) -> None:
    """Also the one that ran first, and also when another has ended since."""

    def run() -> asyncio.Task[None]:
        return asyncio.create_task(slow_router(0, []).run(broker=MemoryTransport(harness.broker), grace=60))

    first, second, third = run(), run(), run()
    await eventually(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, timeout=60)
    third.cancel()
    await asyncio.wait([third])
    assert not first.done()
    assert not second.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(first, second), 60)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_what_a_handler_returned_is_confirmed_before_the_message_is_finished(harness: EventTestHarness) -> None:
    router = EventRouter()
    held: list[asyncio.Future[object]] = []

    class Holding(MemoryTransport):
        def publish(self, messages):  # type: ignore[no-untyped-def]
            if messages[0].topic != "out":
                return super().publish(messages)
            held.append(asyncio.get_running_loop().create_future())
            return held[-1]

    @router.subscribe("jobs", group="g", publish_to="out")
    async def handle(event: Job) -> Job:
        return Job()

    harness.transport = lambda: Holding(harness.broker)  # type: ignore[method-assign]
    with pytest.raises(PublishTimeoutError):  # from closing: one send was never confirmed
        async with harness.run(router, grace=1) as t:
            await t.send("jobs", Job(n=1))
            await asyncio.sleep(1)
            assert len(held) == 1
    del harness.transport  # type: ignore[attr-defined]
    assert await left_over(harness) == [1]


async def test_a_new_member_gets_what_has_not_begun(harness: EventTestHarness) -> None:
    """The partitions that move take along what waits in the lanes; each message is handled once."""
    done: list[int] = []
    async with harness.run(slow_router(1, done)) as t:
        await t.send("jobs", *(Job(n=n) for n in range(60)))
        await asyncio.sleep(0.5)
        async with slow_router(1, done).running(broker=MemoryTransport(harness.broker)):
            await asyncio.sleep(22)  # two of them take half the time
            assert len(done) == 60
    assert sorted(done) == list(range(60))


async def test_a_member_that_comes_and_goes_takes_nothing_of_a_batch_that_runs(harness: EventTestHarness) -> None:
    """What comes back of a partition meanwhile stands behind the batch, and is handled after it."""
    handled: list[int] = []
    calls: list[int] = []
    router, guest = EventRouter(), EventRouter()

    @router.subscribe("jobs", group="g", batch_size=10, retry=Retry(delay=1, jitter=0), dead_letter="letters")
    async def handle(events: list[Job]) -> list[Exception | None]:
        await asyncio.sleep(10)
        calls.append(len(events))
        outcomes = [OSError("not at first") if event.n and len(calls) == 1 else None for event in events]
        handled.extend(event.n for event, outcome in zip(events, outcomes, strict=True) if outcome is None)
        return outcomes

    @guest.subscribe("jobs", group="g", batch_size=10)
    async def hang(events: list[Job]) -> None:
        await asyncio.Event().wait()

    async with harness.run(router) as t:
        await t.send("jobs", *(Job(n=n) for n in range(10)), key="k")
        await asyncio.sleep(1)
        for _ in range(2):
            async with AsyncExitStack() as guests:
                for _ in range(4):
                    await guests.enter_async_context(guest.running(broker=harness.transport(), grace=0))
                await asyncio.sleep(1)
        await t.idle()
        assert sum(calls) == len(handled) + 9
        assert set(handled) == set(range(10))
    assert await left_over(harness) == []


async def test_a_router_that_was_ended_has_left_its_group(harness: EventTestHarness) -> None:
    """Also within its ``async with``: the other member has all partitions, and nothing waits with this one."""
    ended: list[int] = []
    left: list[int] = []
    transport = MemoryTransport(harness.broker)
    async with harness.run(slow_router(0, left)) as t, slow_router(0, ended).running(broker=transport) as guest:
        await t.send("jobs", *(Job(n=n) for n in range(200)), key=None)
        await guest.end()
        await guest.end()
        assert guest.status()["state"] == "stopped"
        before = len(ended)
        await t.send("jobs", *(Job(n=n) for n in range(200, 400)))
        await t.idle()
        assert len(ended) == before
    assert {*ended, *left} == set(range(400))
