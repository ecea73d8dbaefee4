"""Middleware: around receiving and sending, a rate limit, a circuit breaker, and what a time-out is to them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from commons_events import Event
from commons_events.errors import ConfigurationError
from commons_events.middleware import CircuitBreaker, Middleware, Outgoing, RateLimit, Received, ReceiveNext, SendNext
from commons_events.retries import Retry
from commons_events.router import EventRouter
from commons_events.testing import EventTestHarness


class Entry(Event):
    event_type = "router.middleware.entry"
    n: int = 0


@pytest.mark.asyncio
async def test_middleware_stands_around_receiving_and_sending_the_first_outermost(harness: EventTestHarness) -> None:
    steps: list[str] = []

    class Named(Middleware):
        def __init__(self, name: str) -> None:
            self.name = name

        async def receive(self, received: Received, call_next: ReceiveNext) -> object:
            steps.append(f"{self.name} receives {received.event.n} attempt {received.attempt}")
            return await call_next(received)

        async def send(self, outgoing: Outgoing, call_next: SendNext):  # type: ignore[no-untyped-def]
            steps.append(f"{self.name} sends")
            outgoing.headers = {**outgoing.headers, self.name: "was here"}
            return await call_next(outgoing)

    router = EventRouter(middleware=[Named("outer")])

    @router.subscribe("entries", group="g", publish_to="out", middleware=[Named("inner")])
    async def handle(event: Entry) -> Entry:
        return Entry(n=2)

    async with harness.run(router) as t:
        await t.send("entries", Entry(n=1))
        await t.handled(handle)
        await t.idle()
        [message] = t.messages("out")
    assert steps == [
        "outer receives 1 attempt 1", "inner receives 1 attempt 1", "outer sends", "inner sends",
    ]  # fmt: skip
    assert (message.header("outer"), message.header("inner")) == ("was here", "was here")


@pytest.mark.asyncio
async def test_a_rate_limit_spreads_handlers(harness: EventTestHarness) -> None:
    router = EventRouter(middleware=[RateLimit(10, burst=5)])

    @router.subscribe("entries", group="g", concurrency=8)
    async def handle(event: Entry) -> None: ...

    async with harness.run(router) as t:
        await t.send("entries", *(Entry(n=n) for n in range(45)))
        await t.handled(handle, 45)
        assert 3.999 <= t.time.passed < 4.2  # the clock's own rounding apart


@pytest.mark.asyncio
async def test_a_circuit_breaker_pauses_probes_and_resumes_without_using_up_attempts(harness: EventTestHarness) -> None:
    breaker = CircuitBreaker(3, reset=100, max_reset=200)
    router = EventRouter(middleware=[breaker])
    calls: list[float] = []
    down = True

    @router.subscribe("entries", group="g", concurrency=1, retry=Retry(attempts=3, delay=1), dead_letter="letters")
    async def handle(event: Entry) -> None:
        calls.append(t.time.passed)
        if down:
            raise ConnectionError

    async with harness.run(router) as t:
        await t.send("entries", *(Entry(n=n) for n in range(10)))
        await asyncio.sleep(10)
        assert len(calls) == 3
        assert breaker.state == "open"
        assert t.running.status()["subscriptions"][0]["paused"]
        await asyncio.sleep(750)
        # Probes after 100 s, then 200 s each.
        assert [round(moment, -2) for moment in calls[3:]] == [100, 300, 500, 700]
        down = False
        await t.handled(handle, 10)
        assert breaker.state == "closed"
        assert t.dead_letters("letters") == []


@pytest.mark.parametrize("make", [lambda: RateLimit(0), lambda: RateLimit(1, burst=0), lambda: CircuitBreaker(0)])
def test_middleware_refuses_settings_that_cannot_work(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationError):
        make()


@pytest.mark.asyncio
async def test_waiting_for_a_rate_limit_is_no_time_of_the_handler(harness: EventTestHarness) -> None:
    router = EventRouter(middleware=[RateLimit(1)])

    @router.subscribe("entries", group="g", timeout=2, dead_letter="letters", retry=Retry(attempts=1))
    async def handle(event: Entry) -> None: ...

    async with harness.run(router) as t:
        await t.send("entries", *(Entry(n=n) for n in range(16)))
        await t.handled(handle, 16)
        assert t.dead_letters("letters") == []


@pytest.mark.asyncio
async def test_what_hangs_opens_the_circuit(harness: EventTestHarness) -> None:
    breaker = CircuitBreaker(3, reset=100)
    router = EventRouter(middleware=[breaker])
    hangs = True

    @router.subscribe("entries", group="g", timeout=2, concurrency=4, retry=Retry(attempts=1), dead_letter="letters")
    async def handle(event: Entry) -> None:
        if hangs:
            await asyncio.Event().wait()

    async with harness.run(router) as t:
        await t.send("entries", *(Entry(n=n) for n in range(10)))
        await asyncio.sleep(150)  # the probe hangs, too
        assert breaker.state == "open"
        hangs = False
        await t.handled(handle, 8)
        assert breaker.state == "closed"
        assert len(t.dead_letters("letters")) == 2  # those before the third failure, which opened it


@pytest.mark.asyncio
async def test_a_thread_that_hangs_is_not_tried_again_because_of_an_open_circuit(harness: EventTestHarness) -> None:
    router = EventRouter(middleware=[CircuitBreaker(1, reset=0.01)])
    may_end = threading.Event()
    calls = 0

    @router.subscribe("entries", group="g", timeout=0.05, retry=Retry(attempts=100, delay=0.01), dead_letter="letters")
    def handle(event: Entry) -> None:
        nonlocal calls
        calls += 1
        may_end.wait()

    await harness.publish("entries", Entry())
    try:
        async with router.running(broker=harness.transport()):
            [letter] = await harness.deliveries("letters", timeout=60)
    finally:
        may_end.set()
    assert calls == 1
    assert letter.message.header("deadletter-error-type") == "commons_events.errors.HandlerTimeoutError"


@pytest.mark.asyncio
@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
async def test_a_probe_that_says_nothing_is_followed_by_another(harness: EventTestHarness, batch: bool) -> None:
    breaker = CircuitBreaker(1, reset=100, on=ConnectionError)
    router = EventRouter(middleware=[breaker])
    errors = [ConnectionError, ValueError, ValueError]

    def outcome() -> None:
        if errors:
            raise errors.pop(0)

    subscribe = router.subscribe("entries", group="g", concurrency=1, batch_size=2, dead_letter="letters")
    if batch:

        @subscribe
        async def several(events: list[Entry]) -> None:
            outcome()
    else:

        @subscribe
        async def one(event: Entry) -> None:
            outcome()

    async with harness.run(router) as t:
        await t.send("entries", *(Entry(n=n) for n in range(10)))
        await t.idle()
        assert breaker.state == "closed"
        assert t.dead_letters("letters") == []


def test_another_event_loop_finds_no_circuit_open_and_no_rate_used_up() -> None:
    """A router of a module runs anew in each test, and in a process that starts it again."""
    breaker, limit = CircuitBreaker(1, reset=100), RateLimit(1)
    router = EventRouter(middleware=[breaker, limit])
    down = True

    @router.subscribe("entries", group="g", dead_letter="letters")
    async def handle(event: Entry) -> None:
        if down:
            raise ConnectionError

    async def first() -> None:
        async with EventTestHarness() as harness, harness.run(router) as t:
            await t.send("entries", Entry())
            await t.failed(handle)
            await asyncio.sleep(1)
        assert breaker.state == "open"

    async def second(time: float) -> None:
        async with EventTestHarness() as harness, harness.run(router) as t:
            await t.send("entries", Entry(n=1))
            await t.handled(handle)
            assert t.time.passed < time

    asyncio.run(first())
    down = False
    asyncio.run(second(0.5))
    assert breaker.state == "closed"

    async def both() -> None:  # in one loop, but each in a time of its own
        nonlocal down
        down = True
        await first()
        down = False
        await second(0.5)

    asyncio.run(both())
