"""What cannot work is an error at the start, before the first message, and names the handler and the place."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import pytest
from fast_depends import Depends

from commons_events import Delivery, Event, EventConsumer, EventProducer, EventSchema
from commons_events.dead_letters import DeadLetter
from commons_events.errors import (
    CapabilityError,
    ConfigurationError,
    HandlerDefinitionError,
    HandlerTimeoutError,
    MissingMigrationError,
)
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.middleware import CircuitBreaker, Middleware, RateLimit, Received, ReceiveNext
from commons_events.retries import Retry
from commons_events.router import DeadLetters, EventRouter
from commons_events.router._threads import HandlerThreads
from commons_events.testing import EventTestHarness, eventually
from commons_events.transport import Capabilities


class Known(Event):
    event_type = "router.known"


class Other(Event):
    event_type = "router.other"


class Counted(Event):
    event_type = "router.counted"
    n: int


async def start(router: EventRouter, transport: MemoryTransport | None = None) -> None:
    async with router.running(broker=transport or MemoryTransport(MemoryBroker())):
        pytest.fail("it started")


async def no_annotation(event) -> None: ...  # type: ignore[no-untyped-def]


async def foreign_annotation(event: dict[str, str]) -> None: ...


async def no_parameter() -> None: ...


async def two_events(one: Known, two: Other) -> None: ...


async def only_a_message(message: Delivery) -> None: ...


async def unfilled(event: Known, database: str) -> None: ...


async def unknown_name(event: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821, UP037


async def mixed_union(event: Known | str) -> None: ...


async def list_of_events_one_message(events: list[Known], message: Delivery) -> None: ...


async def two_messages(event: Known, one: Delivery, two: Delivery) -> None: ...


async def positional_only(event: Known, /) -> None: ...


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (no_annotation, r"'event' has no annotation"),
        (foreign_annotation, r"dict\[str, str\], which is neither an event class"),
        (no_parameter, "has no event parameter"),
        (two_events, "several event parameters: one, two"),
        (only_a_message, "has no event parameter"),
        (unfilled, r"'database' has the annotation str"),
        (unknown_name, "Nowhere"),
        (mixed_union, "neither an event class"),
        (list_of_events_one_message, r"list\[Delivery\]"),
        (two_messages, "two Delivery parameters"),
        (positional_only, "positional-only"),
    ],
)
@pytest.mark.asyncio
async def test_a_handler_s_annotations(handler: Callable[..., Any], complaint: str) -> None:
    router = EventRouter()
    router.subscribe("topic", group="g")(handler)
    with pytest.raises(HandlerDefinitionError, match=complaint) as caught:
        await start(router)
    assert f"{handler.__qualname__} ({__file__}:" in str(caught.value)


def handle(event: Known) -> None: ...


def handle_too(event: Known | Other) -> None: ...


def batch(events: list[Known]) -> None: ...


def returns_an_event(event: Known) -> Other:
    return Other()


def returns_text(event: Known) -> str:
    return ""


def declare(*arguments: tuple[Callable[..., Any], dict[str, Any]]) -> EventRouter:
    router = EventRouter()
    for function, options in arguments:
        router.subscribe("topic", **{"group": "g", **options})(function)
    return router


@pytest.mark.parametrize(
    ("router", "complaint"),
    [
        (
            declare((handle, {}), (handle_too, {})),
            r"Two handlers take events of type 'router.known'.*handle.*handle_too",
        ),
        (declare((handle, {"dead_letter": "topic"})), r"dead-letter topic 'topic'.*its own source.*handle"),
        (declare((handle, {"retry": Retry(by="topic", topic="topic")})), "its own source"),
        (declare((handle, {"dead_letter": "a"}), (returns_an_event, {"publish_to": "x"})), "Two handlers"),
        (
            declare((handle, {"concurrency": 1}), (handle_too, {"concurrency": 2})),
            r"different things of its concurrency",
        ),
        (declare((batch, {}), (handle, {})), "batch handler .* shares"),
        (declare((batch, {"publish_to": "x"})), "outcomes"),
        (declare((batch, {"dead_letter": DeadLetters("x", order="key")})), "order='none'"),
        (declare((returns_an_event, {})), "publish_to="),
        (declare((returns_text, {"publish_to": "x"})), "no event"),
        (declare((handle, {"publish_to": "x"})), "no event"),
        (declare((handle, {"broker": "elsewhere"})), r"broker 'elsewhere'.*handle|handle.*broker 'elsewhere'"),
    ],
)
@pytest.mark.asyncio
async def test_handlers_that_contradict_each_other_or_themselves(router: EventRouter, complaint: str) -> None:
    with pytest.raises(HandlerDefinitionError, match=complaint):
        await start(router)


@pytest.mark.asyncio
async def test_a_router_without_handlers() -> None:
    with pytest.raises(ConfigurationError, match="no handlers"):
        await start(EventRouter())


@pytest.mark.asyncio
async def test_a_bridge_to_itself_and_one_that_shares_a_group() -> None:
    router = EventRouter()
    router.bridge("topic", group="g")
    with pytest.raises(HandlerDefinitionError, match="leads to itself"):
        await start(router)
    shared = declare((handle, {}))
    shared.bridge("topic", to="elsewhere", group="g")
    with pytest.raises(HandlerDefinitionError, match="group of its own"):
        await start(shared)


@pytest.mark.asyncio
async def test_a_router_that_includes_itself() -> None:
    one, two = EventRouter(), EventRouter()
    one.include(two)
    with pytest.raises(ConfigurationError, match="include itself"):
        two.include(one)


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0}, {"prefetch": 0}, {"timeout": 0}, {"timeout": float("inf")}, {"batch_size": 0},
        {"group": ""}, {"batch_wait": -1}, {"concurrency": "64"}, {"concurrency": 1.5}, {"timeout": "5"}, {"group": 5},
        {"retry": 3}, {"retry": Retry}, {"unhandled": "raise"}, {"start": "begin"}, {"filter": "n"}, {"dead_letter": 5},
        {"middleware": [RateLimit]}, {"middleware": RateLimit(1)},
    ],
)  # fmt: skip
@pytest.mark.asyncio
async def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        EventRouter().subscribe("topic", **{"group": "g", **options})


@pytest.mark.parametrize("topics", [(["a", "b"],), (5,), ("",), ()])
@pytest.mark.asyncio
async def test_topics_that_are_no_names(topics: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigurationError, match="topics"):
        EventRouter().subscribe(*topics, group="g")


@pytest.mark.parametrize(
    "make",
    [
        lambda: EventRouter(middleware=RateLimit(1)),  # type: ignore[arg-type]
        lambda: EventRouter(lifespan="x"),  # type: ignore[arg-type]
        lambda: EventRouter().add_middleware(RateLimit),  # type: ignore[arg-type]
        lambda: EventRouter().include("x"),  # type: ignore[arg-type]
        lambda: EventRouter().bridge("a", group="g", concurrency="2"),  # type: ignore[arg-type]
        lambda: EventRouter().running(grace="5"),  # type: ignore[arg-type]
        lambda: DeadLetters("letters", order="keys"),  # type: ignore[arg-type]
        lambda: DeadLetters("letters", check_every="1"),  # type: ignore[arg-type]
        lambda: RateLimit("5"),  # type: ignore[arg-type]
        lambda: CircuitBreaker(on=[OSError]),  # type: ignore[arg-type]
    ],
)
@pytest.mark.asyncio
async def test_settings_of_a_wrong_type(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        make()


def first(second: "Annotated[int, Depends(second_dependency)]") -> int:  # noqa: UP037
    return second


def second_dependency(first_: "Annotated[int, Depends(first)]") -> int:  # noqa: UP037
    return first_


async def in_a_circle(event: Known, number: Annotated[int, Depends(first)]) -> None: ...


@pytest.mark.asyncio
async def test_dependencies_in_a_circle() -> None:
    with pytest.raises(HandlerDefinitionError, match=r"themselves: \S+first → \S+second_dependency → \S+first"):
        await start(declare((in_a_circle, {})))


@pytest.mark.asyncio
async def test_an_older_version_without_a_migration() -> None:
    @EventSchema(name="router.versioned", version="1.0.0")
    class V1(Event):
        n: int

    @EventSchema(name="router.versioned", version="2.0.0")
    class V2(Event):
        m: int

    async def on_v2(event: Event) -> None: ...

    on_v2.__annotations__["event"] = V2
    with pytest.raises(MissingMigrationError, match=r"router\.versioned"):
        await start(declare((on_v2, {})))


class Limited(MemoryTransport):
    """Claims less than it can."""

    def __init__(self, **claims: Any) -> None:
        super().__init__(MemoryBroker())
        self._claims = claims

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, **self._claims)


@pytest.mark.parametrize(
    ("claims", "options", "named"),
    [
        ({"consumer_groups": False}, {}, "consumer_groups"),
        ({"redelivery_delay": False}, {"retry": Retry(by="redelivery")}, "redelivery_delay"),
        ({"attempts": False}, {"retry": Retry(by="redelivery")}, "attempts"),
        ({"attempts": False}, {"retry": Retry(max_deliveries=3)}, "attempts"),
        ({"ordering": "none"}, {"dead_letter": DeadLetters("x", order="key")}, "ordering"),
        ({"browse": False}, {"dead_letter": DeadLetters("x", order="key")}, "browse"),
    ],
)
@pytest.mark.asyncio
async def test_a_broker_that_lacks_what_is_asked_for(
    claims: dict[str, Any], options: dict[str, Any], named: str
) -> None:
    transport = Limited(**claims)
    with pytest.raises(CapabilityError, match=f"'{named}'.*'memory'"):
        await start(declare((handle, options)), transport)
    assert not await transport.topics()  # nothing was subscribed to


# --- handlers that misbehave while they run ------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_handler_that_never_returns_is_cancelled_and_tried_again(harness: EventTestHarness) -> None:
    router = EventRouter()
    cancelled = 0

    @router.subscribe("topic", group="g", timeout=5, retry=Retry(attempts=2, delay=1), dead_letter="letters")
    async def hangs(event: Known) -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise

    async with harness.run(router) as t:
        await t.send("topic", Known())
        await t.idle()
        [letter] = t.dead_letters("letters")
    assert cancelled == 2
    assert letter.error_type == "commons_events.errors.HandlerTimeoutError"
    assert "within 5 s" in (letter.error_message or "")


@pytest.mark.asyncio
async def test_a_time_out_that_a_handler_swallows_lets_its_result_count(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("topic", group="g", timeout=5)
    async def swallows(event: Known) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(1)

    async with harness.run(router) as t:
        await t.send("topic", Known(), Known())
        await t.handled(swallows, 2)


@pytest.mark.asyncio
async def test_a_thread_that_never_returns_is_left_and_its_message_is_a_dead_letter() -> None:
    """Nobody can stop a thread: another takes its place, and its message is not tried beside it."""
    transport = MemoryTransport(MemoryBroker())
    may_end = threading.Event()
    handled: list[int] = []
    calls = 0
    router = EventRouter()

    @router.subscribe("topic", group="g", timeout=0.1, retry=Retry(attempts=5), dead_letter="letters", concurrency=1)
    def hangs(event: Counted) -> None:
        nonlocal calls
        calls += 1
        if event.n < 3:
            may_end.wait()
        handled.append(event.n)

    try:
        async with (
            EventConsumer(transport=transport, topics=["letters"], group_id="look") as consumer,
            EventProducer(transport=transport) as producer,
            router.running(broker=transport, grace=60),
        ):
            for n in range(5):
                await producer.send("topic", Counted(n=n), key="k")
            letters = [DeadLetter.read((await anext(consumer)).message) for _ in range(3)]
            await eventually(lambda: handled == [3, 4], timeout=60)
    finally:
        may_end.set()
    assert {letter.error_type for letter in letters} == {"commons_events.errors.HandlerTimeoutError"}
    assert calls == 5


@pytest.mark.asyncio
async def test_a_handler_that_no_thread_came_to_in_time_is_tried_again(
    harness: EventTestHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine: nothing of it runs, so that another try runs beside nothing."""
    may_begin = threading.Event()
    run, submit, tries = HandlerThreads._run, HandlerThreads.submit, 0

    def runs_late(self: HandlerThreads) -> None:
        may_begin.wait()
        run(self)

    def counted(self: HandlerThreads, *arguments: Any) -> Any:
        nonlocal tries
        tries += 1
        return submit(self, *arguments)

    monkeypatch.setattr(HandlerThreads, "_run", runs_late)
    monkeypatch.setattr(HandlerThreads, "submit", counted)
    handled: list[int] = []
    router = EventRouter()

    @router.subscribe("topic", group="g", timeout=0.05, retry=Retry(attempts=2, delay=0.01), dead_letter="letters")
    def handle(event: Counted) -> None:
        handled.append(event.n)

    await harness.publish("topic", Counted(n=1), key="k")
    async with router.running(broker=harness.transport()):
        [letter] = await harness.deliveries("letters", timeout=60)
        may_begin.set()
    assert (tries, handled) == (2, [])
    assert "did not begin, for want of a thread, within 0.05 s" in (DeadLetter.read(letter.message).error_message or "")


@pytest.mark.asyncio
async def test_a_middleware_s_own_time_limit_holds_also_where_no_thread_came(
    harness: EventTestHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_begin = threading.Event()
    run = HandlerThreads._run

    def runs_late(self: HandlerThreads) -> None:
        may_begin.wait()
        run(self)

    monkeypatch.setattr(HandlerThreads, "_run", runs_late)
    seen: list[BaseException] = []

    class Limit(Middleware):
        async def receive(self, received: Received, call_next: ReceiveNext) -> Any:
            try:
                async with asyncio.timeout(0.05):
                    return await call_next(received)
            except BaseException as error:
                seen.append(error)
                raise

    router = EventRouter(middleware=[Limit()])

    @router.subscribe("topic", group="g", dead_letter="letters")
    def handle(event: Counted) -> None: ...

    await harness.publish("topic", Counted(n=1), key="k")
    async with router.running(broker=harness.transport()):
        await harness.deliveries("letters", timeout=60)
        may_begin.set()
    assert {type(error) for error in seen} == {TimeoutError}


def test_a_thread_that_never_returns_does_not_hold_up_the_end_of_the_program(python: Callable[..., str]) -> None:
    code = """
import asyncio, threading
from commons_events import Event, EventProducer, EventRouter
class Happened(Event):
    event_type = "happened"
router = EventRouter()
begun = threading.Event()
@router.subscribe("t", group="g")
def hangs(event: Happened) -> None:
    begun.set()
    threading.Event().wait()
async def main():
    async with EventProducer(broker="memory") as producer, router.running(broker="memory", grace=0):
        await producer.send("t", Happened())
        while not begun.is_set():
            await asyncio.sleep(0.01)
asyncio.run(main())
print("end")
"""
    assert python(code) == "end\n"


@pytest.mark.asyncio
async def test_too_many_threads_that_hang_stop_the_router(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commons_events.router._subscription._LEFT", 3)
    transport = MemoryTransport(MemoryBroker())
    may_end = threading.Event()
    router = EventRouter()

    again = Retry(attempts=100, delay=0.01)  # of what no thread came to in time

    @router.subscribe("topic", group="g", timeout=0.02, retry=again, dead_letter="letters", concurrency=1)
    def hangs(event: Counted) -> None:
        may_end.wait()

    try:
        with pytest.raises(HandlerTimeoutError, match="3 calls of handlers on topic 'topic', group 'g' hang"):
            async with EventProducer(transport=transport) as producer, router.running(broker=transport) as running:
                for n in range(10):
                    await producer.send("topic", Counted(n=n))
                await running.wait()
    finally:
        may_end.set()


@pytest.mark.parametrize("outcome", [["not an exception"], [None, None], "all well", 1])
@pytest.mark.asyncio
async def test_a_batch_handler_that_returns_something_else_has_failed(harness: EventTestHarness, outcome: Any) -> None:
    router = EventRouter()
    calls = 0

    @router.subscribe("topic", group="g", dead_letter="letters", batch_size=1)
    async def returns(events: list[Known]):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        return outcome

    async with harness.run(router) as t:
        await t.send("topic", Known())
        await t.idle()
        [letter] = t.dead_letters("letters")
    assert (calls, letter.error_type) == (1, "commons_events.errors.HandlerResultError")


def raising(kind: str, error: BaseException) -> Callable[..., Any]:
    """A handler of some kind that raises ``error``."""

    async def in_the_loop(event: Known) -> None:
        raise error

    def in_a_thread(event: Known) -> None:
        raise error

    async def by_the_batch(events: list[Known]) -> None:
        raise error

    return {"async": in_the_loop, "thread": in_a_thread, "batch": by_the_batch}[kind]


@pytest.mark.parametrize("kind", ["async", "thread", "batch"])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.asyncio
async def test_a_base_exception_stops_the_router_and_leaves_the_message(
    harness: EventTestHarness, kind: str, error: BaseException
) -> None:
    router = EventRouter()
    router.subscribe("topic", group="g", dead_letter="letters")(raising(kind, error))
    try:
        async with harness.run(router) as t:
            await t.send("topic", Known())
            await t.running.wait()
            letters = t.dead_letters("letters")
    except BaseException as caught:  # noqa: BLE001
        assert type(caught) is type(error)
    else:
        pytest.fail("it did not come out")
    assert letters == []
    async with harness.consumer("topic", group_id="g") as consumer:
        assert (await anext(consumer)).event(Known)
