"""Dead letters of a router: confirmed first; with ``order="key"`` the followers are parked, in order."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from commons_events import Delivery, Event
from commons_events.dead_letters import DeadLetter, Journal, Mark
from commons_events.errors import HandlerFailedError, PublishError
from commons_events.memory import MemoryTransport
from commons_events.message import Message
from commons_events.retries import Retry
from commons_events.router import DeadLetters, EventRouter
from commons_events.testing import EventTestHarness, RouterRun, eventually

pytestmark = pytest.mark.asyncio


class Step(Event):
    event_type = "router.step"
    n: int = 0


def keyed_router(seen: list[int], broken: set[int]) -> EventRouter:
    router = EventRouter()

    @router.subscribe("steps", group="g", retry=Retry(attempts=1), dead_letter=DeadLetters("letters", order="key"))
    async def handle(event: Step) -> None:
        if event.n in broken:
            raise ValueError(f"{event.n} is broken")
        seen.append(event.n)

    return router


def numbers(letters: list[DeadLetter]) -> list[int]:
    return [Step.from_json(letter.message.value or b"").n for letter in letters]


async def redrive_all(t: RouterRun, harness: EventTestHarness) -> None:
    """What ``commons-events dlq redrive`` does, letter by letter."""
    transport = MemoryTransport(harness.broker)
    journal = Journal(transport, "letters")
    await journal.refresh()
    for entry in list(journal.entries.values()):
        letter = await journal.letter(entry)
        assert letter is not None
        await t.publish(letter.original())
        await journal.mark([(entry, Mark.REDRIVEN, (None, None))])


async def test_the_followers_of_a_failed_key_are_parked_and_others_go_on(harness: EventTestHarness) -> None:
    seen: list[int] = []
    async with harness.run(keyed_router(seen, {1})) as t:
        await t.send("steps", Step(n=0), Step(n=1), Step(n=2), Step(n=3), key="a")
        await t.send("steps", Step(n=10), Step(n=11), key="b")
        await t.idle()
        letters = list(t.dead_letters("letters"))
    assert sorted(seen) == [0, 10, 11]
    assert numbers(letters) == [1, 2, 3]
    assert [letter.reason for letter in letters] == [
        "failed 1 times", f"parked behind {letters[0].id}", f"parked behind {letters[0].id}",
    ]  # fmt: skip


async def test_another_process_knows_what_was_parked(harness: EventTestHarness) -> None:
    seen: list[int] = []
    async with harness.run(keyed_router(seen, {1})) as t:
        await t.send("steps", Step(n=1), key="a")
        await t.idle()
    async with harness.run(keyed_router(seen, set())) as t:
        await t.send("steps", Step(n=2), key="a")
        await t.send("steps", Step(n=3), key="b")
        await t.idle()
        assert numbers(list(t.dead_letters("letters"))) == [1, 2]
    assert seen == [3]


async def test_redriving_brings_a_key_back_in_order(harness: EventTestHarness) -> None:
    seen: list[int] = []
    broken = {1}
    async with harness.run(keyed_router(seen, broken)) as t:
        await t.send("steps", Step(n=1), Step(n=2), Step(n=3), key="a")
        await t.idle()
        broken.clear()
        await t.send("steps", Step(n=4), key="a")  # comes before what is redriven, and has to wait behind it
        await redrive_all(t, harness)
        await t.idle()
        assert seen == [1, 2, 3]
        await redrive_all(t, harness)
        await t.idle()
        await t.send("steps", Step(n=5), key="a")
        await t.idle()
    assert seen == [1, 2, 3, 4, 5]


async def test_what_fails_again_stays_first_and_holds_the_others(harness: EventTestHarness) -> None:
    seen: list[int] = []
    broken = {1}
    async with harness.run(keyed_router(seen, broken)) as t:
        await t.send("steps", Step(n=1), Step(n=2), key="a")
        await t.idle()
        await redrive_all(t, harness)
        await t.idle()
        assert seen == []
        assert numbers(list(t.dead_letters("letters"))) == [1, 2]  # no new ones
        broken.clear()
        await redrive_all(t, harness)
        await t.idle()
    assert seen == [1, 2]


async def test_discarding_the_head_lets_the_next_one_be_redriven(harness: EventTestHarness) -> None:
    seen: list[int] = []
    async with harness.run(keyed_router(seen, {1})) as t:
        await t.send("steps", Step(n=1), Step(n=2), key="a")
        await t.idle()
        journal = Journal(MemoryTransport(harness.broker), "letters")
        await journal.refresh()
        await journal.mark([(next(iter(journal.entries.values())), Mark.DISCARDED, (None, None))])
        await redrive_all(t, harness)
        await t.idle()
        await t.send("steps", Step(n=3), key="a")
        await t.idle()
    assert seen == [2, 3]


async def test_a_message_that_was_redriven_twice_is_handled_once(harness: EventTestHarness) -> None:
    seen: list[int] = []
    broken = {1}
    async with harness.run(keyed_router(seen, broken)) as t:
        await t.send("steps", Step(n=1), key="a")
        await t.idle()
        broken.clear()
        [letter] = t.dead_letters("letters")
        await redrive_all(t, harness)
        await t.publish(letter.original())
        await t.idle()
    assert seen == [1]


async def test_what_was_redriven_for_one_group_is_not_handled_by_another(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("steps", group="fails", retry=Retry(attempts=1), dead_letter="letters")
    async def fails(event: Step) -> None:
        raise ValueError

    @router.subscribe("steps", group="works")
    async def works(event: Step) -> None: ...

    async with harness.run(router) as t:
        await t.send("steps", Step(n=1), key="a")
        await t.idle()
        [letter] = t.dead_letters("letters")
        await t.publish(letter.original())
        await t.failed(fails, 2)
        await t.idle()
        assert len(await t.handled(works)) == 1


async def test_a_dead_letter_that_cannot_be_published_leaves_the_original_and_backs_off(
    harness: EventTestHarness,
) -> None:
    refused = 0

    class NoLetters(MemoryTransport):
        def publish(self, messages):  # type: ignore[no-untyped-def]
            nonlocal refused
            if messages[0].topic != "letters" or refused >= 5:
                return super().publish(messages)
            refused += 1
            future = t.running._stop_asked.get_loop().create_future()  # type: ignore[union-attr]
            future.set_result([PublishError("no room")])
            return future

    router = EventRouter()
    calls = 0

    @router.subscribe("steps", group="g", retry=Retry(attempts=1), dead_letter="letters")
    async def handle(event: Step) -> None:
        nonlocal calls
        calls += 1
        raise ValueError

    harness.transport = lambda: NoLetters(harness.broker)  # type: ignore[method-assign]
    async with harness.run(router) as t:
        await t.send("steps", Step())
        await t.failed(handle)
        assert t.dead_letters("letters") == []
        assert t.running.status()["subscriptions"][0]["buffered"] == 1
        await t.idle()
        assert len(t.dead_letters("letters")) == 1
        assert t.time.passed > 0.5
    assert (refused, calls) == (5, 1)


async def test_without_a_dead_letter_topic_the_router_stops_and_the_message_stays(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("steps", group="g", retry=Retry(attempts=1))
    async def handle(event: Step) -> None:
        raise ValueError("bad")

    with pytest.raises(HandlerFailedError, match=r"dead_letter=") as caught:
        async with harness.run(router) as t:
            await t.send("steps", Step(n=7))
            await t.running.wait()
    assert isinstance(caught.value.__cause__, ValueError)
    async with harness.consumer("steps", group_id="g") as consumer:
        assert (await anext(consumer)).event(Step).n == 7


async def test_undecodable_bytes_are_kept_with_their_reason_and_stop_nothing(harness: EventTestHarness) -> None:
    seen: list[int] = []
    async with harness.run(keyed_router(seen, set())) as t:
        await t.publish(Message("steps", b"\xff", key=b"a", headers=(("ce_type", b"router.step"), ("x", b"y"))))
        await t.publish(Message("steps", None, key=b"b"))
        await t.send("steps", Step(n=1), key="c")
        await t.idle()
        letters = {letter.key: letter for letter in t.dead_letters("letters")}
    assert seen == [1]
    assert letters[b"a"].message.value == b"\xff"
    assert letters[b"a"].message.headers[:2] == (("ce_type", b"router.step"), ("x", b"y"))
    assert letters[b"a"].error_type == "commons_events.errors.DeserializationError"
    assert letters[b"b"].message.value is None


# --- handlers that settle by themselves ----------------------------------------------------------------------------


@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("order", ["none", "key"])
@pytest.mark.parametrize("virtual", [False, True], ids=["short way", "middleware"])
async def test_what_a_handler_rejects_is_kept_by_the_subscription_s_plan(
    harness: EventTestHarness, virtual: bool, order: Literal["none", "key"], raises: bool
) -> None:
    router = EventRouter()
    calls: list[int] = []

    @router.subscribe("steps", group="g", dead_letter=DeadLetters("letters", order=order))
    async def handle(event: Step, message: Delivery) -> None:
        calls.append(event.n)
        if event.n == 1:
            try:
                raise LookupError("no such thing")
            except LookupError:
                await message.reject("not ours")
            await message.reject("nor anybody's")  # the first one wins
            await message.ack()
            if raises:
                raise OSError

    events = [Step(n=n) for n in range(3)]
    parked = order == "key"
    if virtual:
        async with harness.run(router) as t:
            await t.send("steps", *events, key="k")
            await t.idle()
    else:
        await harness.publish("steps", *events, key="k")
        async with router.running(broker=harness.transport()):
            await harness.deliveries("letters", count=1 + parked)
            await eventually(lambda: len(calls) == 3 - parked)
    first, *followers = [DeadLetter.read(each.message) for each in await harness.deliveries("letters")]
    assert (first.reason, first.attempts, first.group) == ("not ours", 1, "g")
    assert (first.error_type, first.error_message) == ("builtins.LookupError", "no such thing")
    assert numbers(followers) == [2] * parked
    assert calls == [0, 1] + [2] * (not parked)


async def test_a_batch_handler_rejects_single_messages(harness: EventTestHarness) -> None:
    router = EventRouter()
    calls: list[int] = []

    @router.subscribe("steps", group="g", dead_letter="letters")
    async def handle(events: list[Step], messages: list[Delivery]) -> None:
        calls.extend(event.n for event in events)
        await messages[1].reject("not ours")
        await messages[1].nack()

    async with harness.run(router) as t:
        await t.send("steps", *(Step(n=n) for n in range(3)), key="k")
        await t.idle()
        letters = t.dead_letters("letters")
    assert calls == [0, 1, 2]
    assert [(letter.reason, letter.error_type) for letter in letters] == [("not ours", None)]
    assert numbers(list(letters)) == [1]


@pytest.mark.parametrize("outcome", ["ack", "nack"])
async def test_what_a_handler_has_settled_before_it_fails_is_settled(harness: EventTestHarness, outcome: str) -> None:
    """It is neither tried again here nor kept: the first outcome wins."""
    router = EventRouter()
    attempts: list[int] = []

    @router.subscribe("steps", group="g", retry=Retry(attempts=2, delay=1), dead_letter="letters")
    async def handle(event: Step, message: Delivery) -> None:
        attempts.append(message.attempt)
        if len(attempts) < 4:
            await getattr(message, outcome)()
            raise OSError

    async with harness.run(router) as t:
        await t.send("steps", Step())
        await asyncio.sleep(3600)
        assert t.dead_letters("letters") == []
    assert attempts == ([1] if outcome == "ack" else [1, 2, 3, 4])
