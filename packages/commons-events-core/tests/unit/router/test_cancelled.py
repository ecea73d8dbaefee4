"""Handlers that are cancelled: by the router, which leaves their message, or by themselves, which is a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from commons_events import Event
from commons_events.errors import HandlerCancelledError
from commons_events.memory import MemoryTransport
from commons_events.retries import Retry
from commons_events.router import EventRouter
from commons_events.testing import EventTestHarness, eventually

pytestmark = pytest.mark.asyncio


class Job(Event):
    event_type = "router.cancelled.job"
    n: int = 0


async def raises_it() -> None:
    raise asyncio.CancelledError


def cancel_me(task: asyncio.Task[object] | None = None) -> None:
    task = task or asyncio.current_task()
    assert task is not None
    task.cancel()


async def cancels_its_task() -> None:
    cancel_me()
    await asyncio.Event().wait()


async def awaits_what_was_cancelled() -> None:
    other = asyncio.ensure_future(asyncio.Event().wait())
    asyncio.get_running_loop().call_soon(other.cancel)
    await other


async def makes_a_time_out_of_it() -> None:
    try:
        await cancels_its_task()
    except asyncio.CancelledError:
        raise TimeoutError from None


async def swallows_it() -> None:
    with suppress(asyncio.CancelledError):
        await cancels_its_task()


async def ends_before_it_comes() -> None:
    cancel_me()


def router_of(handle: Callable[[list[int]], object], *, batch: bool) -> EventRouter:
    """A router whose handler, of one event or several, awaits ``handle(numbers)``."""
    router = EventRouter()
    subscribe = router.subscribe(
        "jobs", group="g", retry=Retry(attempts=2, delay=0.01), dead_letter="letters", batch_size=2, batch_wait=0.01
    )
    if batch:

        @subscribe
        async def several(events: list[Job]) -> None:
            await handle([event.n for event in events])  # type: ignore[misc]
    else:

        @subscribe
        async def one(event: Job) -> None:
            await handle([event.n])  # type: ignore[misc]

    return router


@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
@pytest.mark.parametrize("virtual", [False, True], ids=["short way", "middleware"])
@pytest.mark.parametrize(
    ("how", "error"),
    [
        (raises_it, "commons_events.errors.HandlerCancelledError"),
        (cancels_its_task, "commons_events.errors.HandlerCancelledError"),
        (awaits_what_was_cancelled, "commons_events.errors.HandlerCancelledError"),
        (makes_a_time_out_of_it, "builtins.TimeoutError"),
        (swallows_it, None),
        (ends_before_it_comes, None),
    ],
)
async def test_a_handler_that_is_cancelled_otherwise_has_failed_and_its_key_goes_on(
    harness: EventTestHarness, how: Callable[[], object], error: str | None, virtual: bool, batch: bool
) -> None:
    """Unless it returns all the same. Nothing of it is left for the handlers after it."""
    calls: list[int] = []

    async def handle(numbers: list[int]) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        calls.extend(numbers)
        await asyncio.sleep(0)
        if 0 in numbers:
            await how()  # type: ignore[misc]

    router = router_of(handle, batch=batch)
    tries = [0, 1] if batch else [0]
    expected = tries * (2 if error else 1) + [n for n in range(6) if n not in tries]
    if virtual:
        async with harness.run(router) as t:
            await t.send("jobs", *(Job(n=n) for n in range(6)), key="k")
            await t.idle()
            letters = t.dead_letters("letters")
        assert [letter.error_type for letter in letters] == [error] * len(tries) * bool(error)
    else:
        await harness.publish("jobs", *(Job(n=n) for n in range(6)), key="k")
        async with router.running(broker=harness.transport()) as running:
            await eventually(
                lambda: len(calls) >= len(expected) and not running.status()["subscriptions"][0]["buffered"],
                timeout=30,
            )
        if error:
            assert len(await harness.deliveries("letters", timeout=0.05)) == len(tries)
    assert calls == expected


@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
@pytest.mark.parametrize("virtual", [False, True], ids=["short way", "middleware"])
@pytest.mark.parametrize("makes_of_it", [None, ConnectionError, HandlerCancelledError])
async def test_what_is_cut_off_stays_unsettled_whatever_the_handler_makes_of_it(
    harness: EventTestHarness, makes_of_it: type[Exception] | None, virtual: bool, batch: bool
) -> None:
    begun = asyncio.Event()

    async def handle(numbers: list[int]) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if makes_of_it is not None:
                raise makes_of_it("aborted") from None

    await harness.publish("jobs", Job(n=1), Job(n=2), key="k")
    router = router_of(handle, batch=batch)
    run = harness.run(router, grace=0) if virtual else router.running(broker=harness.transport(), grace=0)
    async with run:
        await begun.wait()
    async with harness.consumer("jobs", group_id="g") as consumer:
        assert [message.event(Job).n for message in await consumer.receive(10, timeout=1)] == [1, 2]
    assert all(info.topic != "letters" for info in harness.broker.topics())


async def test_the_end_of_a_loop_with_all_its_tasks_is_no_failure(harness: EventTestHarness) -> None:
    """A router that nobody ends is cut off with everything else: `asyncio.run` cancels all that is left."""
    begun = asyncio.Event()
    tries = 0

    async def handle(numbers: list[int]) -> None:
        nonlocal tries
        tries += 1
        begun.set()
        await asyncio.Event().wait()

    await harness.publish("jobs", Job(n=1), key="k")
    running = router_of(handle, batch=False).running(broker=harness.transport(), grace=0)
    before = asyncio.all_tasks()
    await running.__aenter__()
    await begun.wait()
    left = asyncio.all_tasks() - before
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    assert tries == 1
    assert running.error is None
    await running.end()


async def test_a_cancellation_that_comes_too_late_stops_the_router(harness: EventTestHarness) -> None:
    """It hits the worker while it runs no handler: the key would stand still in silence."""
    router = EventRouter()

    class NeverConfirms(MemoryTransport):
        def publish(self, messages):  # type: ignore[no-untyped-def]
            return asyncio.get_running_loop().create_future()

    @router.subscribe("jobs", group="g", retry=Retry(fatal=OSError), dead_letter="letters")
    async def handle(event: Job) -> None:
        asyncio.get_running_loop().call_soon(cancel_me, asyncio.current_task())
        raise OSError

    await harness.publish("jobs", Job(n=1), key="k")
    running = router.running(broker=NeverConfirms(harness.broker), grace=0)
    with pytest.raises(HandlerCancelledError, match="while it ran no handler"):
        async with running:
            async with asyncio.timeout(30):
                await running.wait()
