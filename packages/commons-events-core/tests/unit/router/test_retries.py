"""`Retry`: what it says of exceptions and delays, and what the router makes of that."""

from __future__ import annotations

import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons_events import Delivery, Event
from commons_events.dead_letters import ATTEMPTS
from commons_events.errors import ConfigurationError, DeserializationError
from commons_events.memory import MemoryTransport
from commons_events.retries import Retry, RetryAfter
from commons_events.router import EventRouter
from commons_events.testing import EventTestHarness


class Order(Event):
    event_type = "router.order"
    n: int = 0


# --- the policy alone --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"attempts": None}, "no end"),
        ({"attempts": 0}, "attempts=0"),
        ({"endless": True}, "endless"),
        ({"attempts": None, "within": 0}, "within=0"),
        ({"delay": 0}, "delay=0"),
        ({"delay": 10, "max_delay": 1}, "max_delay=1"),
        ({"immediate": 11}, "hot loop"),
        ({"factor": 0.5}, "factor=0.5"),
        ({"jitter": 2}, "jitter=2"),
        ({"topic": "t"}, "by='topic'"),
        ({"by": "redelivery", "within": 5}, "within"),
        ({"on": (KeyError,), "fatal": KeyError}, "more than one"),
        ({"on": (KeyboardInterrupt,)}, "Exception classes"),
        ({"max_deliveries": 0}, "max_deliveries=0"),
        ({"by": "redeliver"}, "by='redeliver' does not fit: Input should be 'in-place', 'redelivery' or 'topic'"),
        ({"attempts": "5"}, "attempts='5'"),
        ({"attempts": 2.5}, "attempts=2.5"),
        ({"attempts": float("nan")}, "attempts=nan"),
        ({"attempts": True}, "attempts=True"),
        ({"delay": "1", "factor": "2"}, "delay='1'.*factor='2'"),
        ({"on": [ValueError]}, "Exception classes"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Retry(**settings)  # type: ignore[arg-type]


def test_the_most_specific_class_decides() -> None:
    policy = Retry(on=(OSError, IndexError), fatal=FileNotFoundError, ignore=(LookupError,))
    assert policy.verdict(ConnectionError()) == "retry"
    assert policy.verdict(FileNotFoundError()) == "fatal"
    assert policy.verdict(KeyError()) == "ignore"
    assert policy.verdict(IndexError()) == "retry"
    assert policy.verdict(ZeroDivisionError()) == "fatal"
    assert Retry().verdict(DeserializationError()) == "fatal"
    assert Retry(on=(DeserializationError,)).verdict(DeserializationError()) == "retry"
    assert Retry(on=()).verdict(RetryAfter(1)) == "retry"


def test_delays_are_immediate_then_double_up_to_the_most() -> None:
    policy = Retry(immediate=2, delay=1, max_delay=5, jitter=0)
    assert [policy.seconds(failures, 0.9) for failures in range(1, 8)] == [0, 0, 1, 2, 4, 5, 5]


def test_retry_after_crosses_processes_and_refuses_hot_loops() -> None:
    again = pickle.loads(pickle.dumps(RetryAfter(5, counted=False)))
    assert (again.delay, again.counted) == (5, False)
    with pytest.raises(ValueError, match="0.001"):
        RetryAfter(0)
    with pytest.raises(ValueError, match="seconds"):
        RetryAfter("30")  # type: ignore[arg-type]


@given(
    failures=st.integers(1, 10_000), chance=st.floats(0, 1, exclude_max=True), jitter=st.floats(0, 1),
    factor=st.floats(1, 1e6),
)  # fmt: skip
def test_a_delay_is_never_zero_nor_over_the_most(failures: int, chance: float, jitter: float, factor: float) -> None:
    policy = Retry(delay=0.5, max_delay=60, jitter=jitter, factor=factor)
    assert 0.001 <= policy.seconds(failures, chance) <= 60


# --- in the router -----------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_failed_message_is_tried_again_in_place_and_only_its_key_waits(harness: EventTestHarness) -> None:
    router = EventRouter()
    seen: list[tuple[bytes | None, int]] = []

    @router.subscribe("orders", group="g", retry=Retry(attempts=3, delay=10, jitter=0), dead_letter="letters")
    async def handle(event: Order, message: Delivery) -> None:
        seen.append((message.key, event.n))
        if event.n == 1 and seen.count((message.key, 1)) < 3:
            raise ConnectionError("not now")

    async with harness.run(router) as t:
        await t.send("orders", Order(n=1), Order(n=2), key="a")
        await t.send("orders", Order(n=3), key="b")
        await t.handled(handle, 1)
        assert (b"a", 2) not in seen
        await t.handled(handle, 3)
        assert 30 <= t.time.passed < 31
        assert t.dead_letters("letters") == []
    assert seen == [(b"a", 1), (b"b", 3), (b"a", 1), (b"a", 1), (b"a", 2)]


@pytest.mark.asyncio
async def test_when_attempts_are_used_up_the_message_is_a_dead_letter_and_its_key_goes_on(
    harness: EventTestHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "commons_events")  # what is logged has to be fit for the standard logger
    router = EventRouter()

    @router.subscribe("orders", group="g", retry=Retry(attempts=4, delay=1), dead_letter="letters")
    async def handle(event: Order) -> None:
        if event.n == 1:
            raise LookupError("no such customer")

    async with harness.run(router) as t:
        await t.send("orders", Order(n=1), Order(n=2), key="a")
        [event] = await t.handled(handle)
        [letter] = t.dead_letters("letters")
        assert len(await t.failed(handle, 4)) == 4
    assert event.n == 2
    assert (letter.attempts, letter.topic, letter.group, letter.key) == (4, "orders", "g", b"a")
    assert (letter.reason, letter.error_type) == ("failed 4 times", "builtins.LookupError")
    assert letter.error_message == "no such customer"
    assert Order.from_json(letter.message.value or b"").n == 1


@pytest.mark.asyncio
async def test_fatal_and_ignored_exceptions_are_not_tried_again(harness: EventTestHarness) -> None:
    router = EventRouter()
    policy = Retry(fatal=(ValueError,), ignore=(KeyError,))

    @router.subscribe("orders", group="g", retry=policy, dead_letter="letters")
    async def handle(event: Order) -> None:
        raise ValueError("bad") if event.n == 1 else KeyError("known")

    async with harness.run(router) as t:
        await t.send("orders", Order(n=1), Order(n=2))
        await t.idle()
        assert len(await t.failed(handle, 2)) == 2
        [letter] = t.dead_letters("letters")
    assert letter.reason == "failed for good"


@pytest.mark.asyncio
async def test_retry_after_says_when(harness: EventTestHarness) -> None:
    router = EventRouter()
    calls = 0

    @router.subscribe("orders", group="g", retry=Retry(attempts=2, delay=1, jitter=0), dead_letter="letters")
    async def handle(event: Order) -> None:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise RetryAfter(100, counted=False)
        if calls == 4:
            raise RetryAfter(50)

    async with harness.run(router) as t:
        await t.send("orders", Order())
        await t.handled(handle)
        assert 350 <= t.time.passed < 351
        assert t.dead_letters("letters") == []


@pytest.mark.asyncio
async def test_the_total_time_bounds_the_tries(harness: EventTestHarness) -> None:
    router = EventRouter()
    policy = Retry(attempts=None, within=10, delay=3, factor=1, jitter=0)

    @router.subscribe("orders", group="g", retry=policy, dead_letter="letters")
    async def handle(event: Order) -> None:
        raise OSError

    async with harness.run(router) as t:
        await t.send("orders", Order())
        await t.idle()
        assert len(await t.failed(handle, 4)) == 4
        assert [letter.reason for letter in t.dead_letters("letters")] == ["failed for 10 s"]


@pytest.mark.asyncio
async def test_by_redelivery_the_broker_counts_and_waits(harness: EventTestHarness) -> None:
    router = EventRouter()
    attempts: list[int] = []
    policy = Retry(attempts=3, delay=20, jitter=0, by="redelivery")

    @router.subscribe("orders", group="g", retry=policy, dead_letter="letters")
    async def handle(event: Order, message: Delivery) -> None:
        attempts.append(message.attempt)
        if event.n == 1:
            raise OSError

    async with harness.run(router) as t:
        await t.send("orders", Order(n=1), Order(n=2), key="k")
        await t.idle()
        await t.handled(handle)
        assert t.time.passed >= 60
        [letter] = t.dead_letters("letters")
    assert attempts == [1, 2, 3, 1]
    assert letter.message.header(ATTEMPTS) == "3"


@pytest.mark.asyncio
async def test_by_topic_the_count_travels_and_later_messages_go_on(harness: EventTestHarness) -> None:
    router = EventRouter()
    seen: list[tuple[str, int]] = []
    policy = Retry(attempts=3, delay=20, jitter=0, by="topic")

    @router.subscribe("orders", group="g", retry=policy, dead_letter="letters")
    async def handle(event: Order, message: Delivery) -> None:
        seen.append((message.topic, event.n))
        if event.n == 1:
            raise OSError("away")

    async with harness.run(router) as t:
        await t._producer.send("orders", Order(n=1), key="k", headers={"retry-policy": "the sender's own"})
        await t.send("orders", Order(n=2), key="k")
        await t.failed(handle, 3)
        await t.idle()
        assert t.time.passed >= 60
        [letter] = t.dead_letters("letters")
    assert seen == [("orders", 1), ("orders", 2), ("orders.g.retry", 1), ("orders.g.retry", 1)]
    assert (letter.topic, letter.attempts, letter.reason) == ("orders", 3, "failed 3 times")
    assert not [name for name, _ in letter.message.headers if name.startswith("commons-events-retry-")]
    assert letter.message.header("retry-policy") == "the sender's own"


@pytest.mark.asyncio
async def test_attempts_survive_a_restart_where_the_broker_counts(harness: EventTestHarness) -> None:
    def make() -> tuple[EventRouter, list[int]]:
        router, tries = EventRouter(), []

        @router.subscribe(
            "orders", group="g", retry=Retry(attempts=3, delay=1000, max_delay=1000), dead_letter="letters"
        )
        async def handle(event: Order) -> None:
            tries.append(event.n)
            raise OSError

        return router, tries

    for round_ in range(3):
        router, tries = make()
        async with harness.run(router) as t:
            if round_ == 0:
                await t.send("orders", Order(n=1))
            await t.time.sleep(1)
            letters = t.dead_letters("letters")
        assert tries == [1], round_
        assert len(letters) == (1 if round_ == 2 else 0)


@pytest.mark.asyncio
async def test_what_was_only_buffered_costs_no_attempt(harness: EventTestHarness) -> None:
    router = EventRouter()
    attempts: list[int] = []

    @router.subscribe("orders", group="g", concurrency=1)
    async def handle(event: Order, message: Delivery) -> None:
        attempts.append(message.attempt)
        await t.time.sleep(10)

    for _ in range(3):
        async with harness.run(router, grace=0) as t:
            if not attempts:
                await t.send("orders", *(Order(n=n) for n in range(50)))
            while t.time.passed < 5:
                await t.time.sleep(1)
    async with harness.consumer("orders", group_id="g") as consumer:
        left = await consumer.receive(100)
    assert len(left) == 50
    assert sum(delivery.attempt > 1 for delivery in left) <= 3  # those that were being handled


@pytest.mark.asyncio
async def test_a_message_that_comes_too_often_is_not_tried_again(harness: EventTestHarness) -> None:
    transport = MemoryTransport(harness.broker)
    await harness.publish("orders", Order())
    for _ in range(3):  # processes that die of it
        async with harness.consumer("orders", group_id="g") as consumer:
            await anext(consumer)
    router = EventRouter()
    called = False

    @router.subscribe("orders", group="g", retry=Retry(max_deliveries=3), dead_letter="letters")
    async def handle(event: Order) -> None:
        nonlocal called
        called = True

    async with harness.run(router) as t:
        await t.idle()
        [letter] = t.dead_letters("letters")
    assert not called
    assert "max_deliveries is 3" in (letter.error_message or "")
    await transport.close()
