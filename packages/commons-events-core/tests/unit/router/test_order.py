"""One key in order, different keys side by side, whatever fails; fairness and bounds."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons_events import Delivery, Event
from commons_events.errors import BatchHandlerError
from commons_events.message import Message
from commons_events.middleware import Middleware
from commons_events.retries import Retry
from commons_events.router import DeadLetters, EventRouter
from commons_events.testing import EventTestHarness, RouterRun, _router_run


class Entry(Event):
    event_type = "router.entry"
    n: int = 0


class NoRecorder(Middleware):
    """In place of the harness's own: a handler then has nothing around it, and its messages take the short way."""

    def __init__(self, record: object) -> None: ...


Plan = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 3), st.sampled_from([0, 0.5, 3])), max_size=40)
"""For each message its key, how often its handler fails, and how long it takes."""


@given(
    plan=Plan,
    concurrency=st.integers(1, 5),
    order=st.sampled_from(["none", "key"]),
    prefetch=st.integers(1, 20),
    by=st.sampled_from(["in-place", "redelivery"]),
    plain=st.booleans(),
)
def test_a_key_keeps_its_order_and_nothing_is_lost(
    plan: list[tuple[str, int, float]], concurrency: int, order: str, prefetch: int, by: str, plain: bool
) -> None:
    handled: dict[str, list[int]] = defaultdict(list)
    tries: dict[int, int] = defaultdict(int)
    running: set[str] = set()
    router = EventRouter()

    @router.subscribe(
        "entries", group="g", concurrency=concurrency, prefetch=prefetch,
        retry=Retry(attempts=3, delay=1, by=by),  # type: ignore[arg-type]
        dead_letter=DeadLetters("letters", order=order),  # type: ignore[arg-type]
    )  # fmt: skip
    async def handle(event: Entry) -> None:
        key, failures, seconds = plan[event.n]
        assert key not in running, "two handlers of one key at once"
        running.add(key)
        assert len(running) <= concurrency
        try:
            if seconds or not plain:  # else it never waits
                await asyncio.sleep(seconds)
            tries[event.n] += 1
            if tries[event.n] <= failures:
                raise OSError
            handled[key].append(event.n)
        finally:
            running.remove(key)

    async def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            if plain:
                patch.setattr(_router_run, "_Recorder", NoRecorder)
            async with EventTestHarness() as harness, harness.run(router) as t:
                await check(t)

    async def check(t: RouterRun) -> None:
        await t._producer.send_batch(
            "entries", [Entry(n=n) for n in range(len(plan))], key=lambda event: plan[vars(event)["n"]][0]
        )
        if by == "redelivery":
            await asyncio.sleep(1000)  # of virtual time: what waits is in the broker
        await t.idle()
        assert t.running.error is None
        kept: dict[str, list[int]] = defaultdict(list)
        for letter in t.dead_letters("letters"):
            kept[(letter.key or b"").decode()].append(Entry.from_json(letter.message.value or b"").n)
        for key in "abcde":
            sent = [n for n, (own, _, _) in enumerate(plan) if own == key]
            poisoned = [n for n in sent if plan[n][1] >= 3]
            if order == "none":
                assert (handled[key], kept[key]) == ([n for n in sent if n not in poisoned], poisoned)
            else:
                first = poisoned[0] if poisoned else len(plan)
                assert handled[key] == [n for n in sent if n < first]
                assert kept[key] == [n for n in sent if n >= first]

    asyncio.run(run())


@pytest.mark.asyncio
async def test_partitions_take_turns(harness: EventTestHarness) -> None:
    router = EventRouter()
    seen: list[int | None] = []

    @router.subscribe("entries", group="g", concurrency=1)
    async def handle(event: Entry, message: Delivery) -> None:
        seen.append(message.partition)
        await asyncio.sleep(1)

    async with harness.run(router) as t:
        value = Entry().to_json()
        header = (("ce_type", b"router.entry"),)
        await t.publish(*(Message("entries", value, headers=header, partition=0) for _ in range(200)))
        await t.publish(*(Message("entries", value, headers=header, partition=1) for _ in range(3)))
        await t.handled(handle, 12)
    assert seen[:12].count(1) == 3


@pytest.mark.asyncio
async def test_what_is_in_the_process_is_bounded_and_a_slow_handler_pauses_the_fetch(harness: EventTestHarness) -> None:
    router = EventRouter()
    most = 0

    @router.subscribe("entries", group="g", concurrency=4, prefetch=20)
    async def handle(event: Entry) -> None:
        nonlocal most
        most = max(most, t.running.status()["subscriptions"][0]["buffered"])
        await asyncio.sleep(1)

    async with harness.run(router) as t:
        await t.send("entries", *(Entry(n=n) for n in range(200)))
        await t.handled(handle, 200)
        assert 49 <= t.time.passed < 53
    assert most <= 20


@pytest.mark.asyncio
async def test_handlers_that_never_wait_keep_up_with_wave_after_wave(harness: EventTestHarness) -> None:
    """What arrives in the moment in which the workers have just ended is taken up all the same."""
    router = EventRouter()
    seen: list[int] = []

    @router.subscribe("entries", group="g")
    async def handle(event: Entry) -> None:
        seen.append(event.n)

    # Without the harness's run, whose middleware and waiting change what happens in one turn of the event loop.
    async with harness.producer() as producer, router.running(broker=harness.transport()):
        events = [Entry(n=n) for n in range(1000)]
        await producer.send_batch("entries", events, key=lambda event: event.event_id)
        await harness.wait_until(lambda: len(seen) == 1000, what="all are handled")


@pytest.mark.asyncio
async def test_waiting_for_a_retry_takes_no_place(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("entries", group="g", concurrency=1, retry=Retry(attempts=2, delay=50), dead_letter="letters")
    async def handle(event: Entry) -> None:
        if event.n < 10:
            raise OSError

    async with harness.run(router) as t:
        await t.send("entries", *(Entry(n=n) for n in range(20)))
        await t.handled(handle, 10)
        assert t.time.passed < 1


@pytest.mark.asyncio
async def test_a_batch_handler_gets_lists_and_each_message_its_own_outcome(harness: EventTestHarness) -> None:
    router = EventRouter()
    sizes: list[int] = []
    tries: dict[int, int] = defaultdict(int)

    @router.subscribe(
        "entries", group="g", batch_size=10, batch_wait=2, retry=Retry(attempts=2, delay=5), dead_letter="letters"
    )
    async def handle(events: list[Entry], messages: list[Delivery]) -> list[Exception | None]:
        assert len(events) == len(messages)
        sizes.append(len(events))
        for event in events:
            tries[event.n] += 1
        return [OSError(f"{event.n}") if event.n % 5 == 3 else None for event in events]

    async with harness.run(router) as t:
        await t.publish(Message("entries", b"broken", key=b"k"))
        await t.send("entries", *(Entry(n=n) for n in range(14)), key="k")
        await t.idle()
        letters = [Entry.from_json(each.message.value or b"").n for each in t.dead_letters("letters")[1:]]
    assert sizes[0] == 9
    assert max(sizes) <= 10
    assert letters == [3, 8, 13]
    assert tries == {n: 2 if n % 5 == 3 else 1 for n in range(14)}


@pytest.mark.asyncio
async def test_a_batch_handler_may_raise_for_some_or_for_all(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("some", group="g", batch_wait=1, retry=Retry(attempts=1), dead_letter="some-letters")
    async def some(events: list[Entry]) -> None:
        raise BatchHandlerError({1: ValueError("one")})

    @router.subscribe("all", group="g", batch_wait=1, retry=Retry(attempts=1), dead_letter="all-letters")
    def all_(events: list[Entry]) -> None:
        raise ValueError("all")

    @router.subscribe("wrong", group="g", batch_wait=1, retry=Retry(attempts=9), dead_letter="wrong-letters")
    async def wrong(events: list[Entry]):  # type: ignore[no-untyped-def]
        return [None]

    async with harness.run(router) as t:
        for topic in ("some", "all", "wrong"):
            await t.send(topic, Entry(n=0), Entry(n=1), Entry(n=2), key="k")
        await t.idle()
        assert [letter.error_message for letter in t.dead_letters("some-letters")] == ["one"]
        assert len(t.dead_letters("all-letters")) == 3
        assert ["was given 3 events" in (e.error_message or "") for e in t.dead_letters("wrong-letters")] == [True] * 3
