"""Typed handlers: dispatch by annotation, kinds of functions, dependencies, results, filters, included routers."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar
from decimal import Decimal
from typing import Annotated

import pytest
from fast_depends import Depends

from commons_events import Delivery, Event, EventSchema, migration
from commons_events.errors import HandlerResultError
from commons_events.event import registry
from commons_events.message import Message
from commons_events.retries import Retry
from commons_events.router import EventRouter
from commons_events.testing import EventTestHarness, RouterRun, eventually

pytestmark = pytest.mark.asyncio


class Registered(Event):
    event_type = "router.registered"
    n: int = 0


class Renamed(Event):
    event_type = "router.renamed"
    n: int = 0


class Closed(Event):
    event_type = "router.closed"
    n: int = 0


class Shop(Event):
    event_type = "router.shop"
    shop: str = "a"


class Placed(Shop):
    event_type = "router.shop.placed"


class Paid(Shop):
    event_type = "router.shop.paid"


class Refunded(Paid):
    event_type = "router.shop.refunded"


async def test_a_handler_gets_its_event_and_its_message_in_any_order(harness: EventTestHarness) -> None:
    router = EventRouter()
    seen: list[tuple[int, str, bytes | None]] = []

    @router.subscribe("users", group="g")
    async def on_registered(delivery: Delivery, happened: Registered) -> None:
        seen.append((happened.n, delivery.topic, delivery.key))

    async with harness.run(router) as t:
        await t.send("users", Registered(n=7), key="k")
        [event] = await t.handled(on_registered)
    assert event.n == 7
    assert seen == [(7, "users", b"k")]


async def test_a_decorated_function_stays_itself() -> None:
    async def handle(event: Registered) -> None: ...

    assert EventRouter().subscribe("users", group="g")(handle) is handle


async def test_handlers_of_several_types_share_a_subscription_and_a_union_serves_several(
    harness: EventTestHarness,
) -> None:
    router = EventRouter()
    seen: list[tuple[str, str]] = []

    @router.subscribe("users", group="g")
    async def on_registered(event: Registered) -> None:
        seen.append(("one", event.event_type))

    @router.subscribe("users", group="g")
    async def on_others(event: Renamed | Closed) -> None:
        seen.append(("others", event.event_type))

    async with harness.run(router) as t:
        assert len(t.running.status()["subscriptions"]) == 1
        await t.send("users", Registered(), Renamed(), Closed(), Registered(), key="k")
        await t.idle()
    assert seen == [
        ("one", "router.registered"), ("others", "router.renamed"), ("others", "router.closed"),
        ("one", "router.registered"),
    ]  # fmt: skip


async def test_event_itself_takes_what_no_other_handler_does(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("users", group="g")
    async def on_registered(event: Registered) -> None: ...

    @router.subscribe("users", group="g")
    async def on_rest(event: Event) -> None: ...

    async with harness.run(router) as t:
        await t.send("users", Registered(), Renamed(n=3))
        [event] = await t.handled(on_rest)
        assert len(await t.handled(on_registered)) == 1
    assert event == Renamed.from_json(event.to_json())


@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
@pytest.mark.parametrize("headers", [True, False], ids=["headers", "bytes alone"])
async def test_a_base_class_takes_its_subclasses_that_have_no_handler_of_their_own(
    harness: EventTestHarness, headers: bool, batch: bool
) -> None:
    router = EventRouter()
    seen: list[str] = []

    if batch:

        @router.subscribe("shop", group="g")
        async def several(events: list[Shop | Paid]) -> None:
            seen.extend(f"batch of {type(event).__name__}" for event in events)
    else:

        @router.subscribe("shop", group="g")
        async def any_shop(event: Shop) -> None:
            seen.append(f"any {type(event).__name__}")

        @router.subscribe("shop", group="g")
        async def paid(event: Paid) -> None:
            seen.append(f"paid {type(event).__name__}")

        @router.subscribe("shop", group="g")
        async def rest(event: Event) -> None:
            seen.append(f"rest {type(event).__name__}")

    async def send(t: RouterRun, *events: Event) -> None:
        if headers:
            await t.send("shop", *events, key="k")
        else:
            await t.publish(*(Message("shop", event.to_json(), key=b"k") for event in events))

    with registry.isolated():
        async with harness.run(router) as t:
            await send(t, Placed(), Refunded(), Shop(), Paid(), Registered())
            await t.idle()

            class Late(Shop):  # after what is like it was asked for
                event_type = "router.shop.late"

            await send(t, Late(), Late())
            await t.idle()
    if batch:
        names = ["Placed", "Refunded", "Shop", "Paid", "Late", "Late"]
        assert seen == [f"batch of {name}" for name in names]
    else:
        assert seen == [
            "any Placed", "paid Refunded", "any Shop", "paid Paid", "rest Registered", "any Late", "any Late",
        ]  # fmt: skip


async def test_an_older_version_is_migrated_to_the_annotated_class(harness: EventTestHarness) -> None:
    @EventSchema(name="router.product", version="1.0.0")
    class ProductV1(Event):
        name: str

    @EventSchema(name="router.product", version="2.0.0")
    class ProductV2(Event):
        title: str

    @migration(from_=ProductV1, to=ProductV2)
    def rename(event: ProductV1) -> ProductV2:
        return ProductV2(title=event.name)

    router = EventRouter()

    async def on_product(event: Event) -> None: ...

    on_product.__annotations__["event"] = ProductV2
    router.subscribe("products", group="g")(on_product)
    async with harness.run(router) as t:
        await t.send("products", ProductV1(name="chair"))
        [event] = await t.handled(on_product)
    assert type(event) is ProductV2
    assert event.title == "chair"


async def test_events_without_headers_are_read_by_what_their_bytes_say(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("users", group="g", dead_letter="letters")
    async def on_registered(event: Registered) -> None: ...

    async with harness.run(router) as t:
        await t.publish(
            Message("users", Registered(n=1).to_json()),
            Message("users", b'{"n": 2}'),
            Message("users", b"no event at all"),
        )
        await t.idle()
        assert sorted(event.n for event in await t.handled(on_registered, 2)) == [1, 2]
        [letter] = t.dead_letters("letters")
    assert (letter.message.value, letter.reason) == (b"no event at all", "cannot be decoded")


async def test_what_no_handler_takes_is_finished_or_a_dead_letter_as_stated(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("users", group="lenient", dead_letter="lenient-letters")
    async def lenient(event: Registered) -> None: ...

    @router.subscribe("users", group="strict", dead_letter="strict-letters", unhandled="error")
    async def strict(event: Registered) -> None: ...

    async with harness.run(router) as t:
        await t.send("users", Renamed(), Registered())
        await t.idle()
        assert t.dead_letters("lenient-letters") == []
        [letter] = t.dead_letters("strict-letters")
    assert letter.reason == "no handler for its type"
    assert "'router.renamed'" in (letter.error_message or "")


@pytest.mark.parametrize("kind", ["one", "retried", "sync", "batch"])
@pytest.mark.parametrize("virtual", [False, True], ids=["short way", "middleware"])
async def test_what_a_handler_sets_in_its_context_is_gone_for_the_next_message(
    harness: EventTestHarness, kind: str, virtual: bool
) -> None:
    router = EventRouter()
    user: ContextVar[int | None] = ContextVar("user", default=None)
    seen: list[int | None] = []
    subscribe = router.subscribe(
        "users", group="g", concurrency=1, batch_size=1, retry=Retry(attempts=2, delay=0.01), dead_letter="letters"
    )

    def see(event: Registered) -> None:
        seen.append(user.get())
        user.set(event.n)

    if kind == "sync":
        subscribe(see)
    elif kind == "batch":

        @subscribe
        async def several(events: list[Registered]) -> None:
            see(*events)
    else:

        @subscribe
        async def one(event: Registered) -> None:
            see(event)
            await asyncio.sleep(0)
            if kind == "retried":
                raise ValueError

    events, tries = [Registered(n=n) for n in range(20)], 40 if kind == "retried" else 20
    for key in ("k", None):
        if virtual:
            async with harness.run(router) as t:
                await t.send("users", *events, key=key)
                await t.idle()
        else:
            await harness.publish("users", *events, key=key)
            async with router.running(broker=harness.transport()):
                await eventually(lambda: len(seen) >= tries, timeout=30)
        assert seen == [None] * tries
        seen.clear()


async def test_a_context_may_hold_what_cannot_be_compared(harness: EventTestHarness) -> None:
    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError("The truth value of an array is ambiguous.")

        __hash__ = None  # type: ignore[assignment]

    array: ContextVar[Array] = ContextVar("array")
    first = Array()
    seen: list[bool] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        array.set(first)
        yield

    router = EventRouter(lifespan=lifespan)

    @router.subscribe("users", group="g", concurrency=1)
    async def handle(event: Registered) -> None:
        seen.append(array.get() is first)
        array.set(Array())

    for key in ("k", None):
        await harness.publish("users", *[Registered(n=n) for n in range(3)], key=key)
    async with router.running(broker=harness.transport()) as running:
        await eventually(lambda: len(seen) == 6 or running.error is not None, timeout=30)
    assert seen == [True] * 6


async def test_decimals_are_nothing_that_a_handler_sets(harness: EventTestHarness) -> None:
    """The first one makes a context variable; a worker for each message would cost twice as much."""
    router = EventRouter()
    workers: list[asyncio.Task[object] | None] = []

    @router.subscribe("users", group="g", concurrency=1)
    async def handle(event: Registered) -> None:
        workers.append(asyncio.current_task())
        assert Decimal(event.n) / 3 >= 0

    await harness.publish("users", *[Registered(n=n) for n in range(20)])
    running = Context().run(asyncio.create_task, _until(router, harness, lambda: len(workers) == 20))
    await running
    assert len(set(workers)) < 10


async def _until(router: EventRouter, harness: EventTestHarness, done: Callable[[], bool]) -> None:
    async with router.running(broker=harness.transport()):
        await eventually(done, timeout=30)


async def test_what_an_async_handler_is_wrapped_in_may_be_plain(harness: EventTestHarness) -> None:
    """A decorator that returns the coroutine, or a static method; what that returns is published, too."""
    router = EventRouter()

    def plainly(function: Callable[..., object]) -> Callable[..., object]:
        return functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))

    @router.subscribe("users", group="wrapped", publish_to="wrapped")
    @plainly
    async def wrapped(event: Registered) -> Closed:
        await asyncio.sleep(1)
        return Closed(n=event.n)

    class Handlers:
        @router.subscribe("users", group="static", publish_to="static")
        @staticmethod
        async def static(event: Registered) -> Closed:
            assert threading.current_thread() is threading.main_thread()
            return Closed(n=event.n)

    async with harness.run(router) as t:
        await t.send("users", Registered(n=5))
        await t.idle()
        for topic in ("wrapped", "static"):
            assert [Closed.from_json(each.value or b"").n for each in t.messages(topic)] == [5]


async def test_a_sync_handler_runs_in_a_thread(harness: EventTestHarness) -> None:
    router = EventRouter()
    threads: list[str] = []

    @router.subscribe("users", group="billing")
    def on_registered(event: Registered, message: Delivery) -> None:
        threads.append(threading.current_thread().name)

    async with harness.run(router) as t:
        await t.send("users", Registered())
        await t.handled(on_registered)
    assert threads[0].startswith("billing-handler")


async def test_returned_and_yielded_events_are_published_with_what_led_to_them(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("in", group="one", publish_to="one")
    async def returns_one(event: Registered) -> Renamed:
        return Renamed(n=event.n)

    @router.subscribe("in", group="many", publish_to="many")
    async def returns_many(event: Registered) -> list[Renamed]:
        return [Renamed(n=1), Renamed(n=2)]

    @router.subscribe("in", group="yields", publish_to="yields")
    async def yields(event: Registered) -> AsyncIterator[Renamed | Closed]:
        yield Renamed(n=1)
        yield Closed(n=2, correlation_id="own", causation_id="mine")

    @router.subscribe("in", group="sync", publish_to="sync", publish_key=lambda event: f"key-{event.n}")
    def yields_in_a_thread(event: Registered) -> Iterator[Renamed]:
        yield Renamed(n=1)
        yield Renamed(n=2)

    @router.subscribe("in", group="none", publish_to="none")
    async def returns_none(event: Registered) -> Renamed | None:
        return None

    cause = Registered(n=5)
    async with harness.run(router) as t:
        await t.send("in", cause, key="k")
        await t.idle()
        [one] = t.messages("one")
        sent = {topic: [Event.from_json(m.value or b"") for m in t.messages(topic)] for topic in ("many", "yields")}
        assert {message.key for message in t.messages("sync")} == {b"key-1", b"key-2"}
        assert t.messages("none") == []
    event = Renamed.from_json(one.value or b"")
    assert (event.n, event.correlation_id, event.causation_id) == (5, cause.event_id, cause.event_id)
    assert one.key == b"k"
    assert [event.event_type for event in sent["many"]] == ["router.renamed", "router.renamed"]
    renamed, closed = sent["yields"]
    assert (renamed.correlation_id, renamed.causation_id) == (cause.event_id, cause.event_id)
    assert (closed.correlation_id, closed.causation_id) == ("own", "mine")


async def test_the_correlation_goes_on(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("in", group="g", publish_to="middle")
    async def first(event: Registered) -> Renamed:
        return Renamed()

    @router.subscribe("middle", group="g", publish_to="end")
    async def second(event: Renamed) -> Closed:
        return Closed()

    cause = Registered(correlation_id="the-order")
    async with harness.run(router) as t:
        await t.send("in", cause)
        await t.idle()
        [middle], [end] = t.messages("middle"), t.messages("end")
    middle_event, end_event = Renamed.from_json(middle.value or b""), Closed.from_json(end.value or b"")
    assert middle_event.correlation_id == end_event.correlation_id == "the-order"
    assert end_event.causation_id == middle_event.event_id


async def test_a_wrong_result_is_a_dead_letter_without_a_retry(harness: EventTestHarness) -> None:
    router = EventRouter()
    calls = 0

    @router.subscribe("users", group="g", dead_letter="letters", publish_to="out")
    async def returns_text(event: Registered):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        return "done"

    @router.subscribe("users", group="nowhere", dead_letter="nowhere-letters")
    async def returns_an_event(event: Registered):  # type: ignore[no-untyped-def]
        return Renamed()

    async with harness.run(router) as t:
        await t.send("users", Registered())
        await t.idle()
        [letter], [nowhere] = t.dead_letters("letters"), t.dead_letters("nowhere-letters")
        assert t.messages("out") == []
    assert calls == 1
    assert letter.error_type == f"{HandlerResultError.__module__}.HandlerResultError"
    assert "returned a str" in (letter.error_message or "")
    assert "publish_to" in (nowhere.error_message or "")


class Database:
    open = 0


async def session(event: Registered) -> AsyncIterator[Database]:
    Database.open += 1
    yield Database()
    Database.open -= 1


async def name_of(session: Annotated[Database, Depends(session)]) -> str:
    return f"session of {Database.open}"


async def test_dependencies_are_filled_and_closed(harness: EventTestHarness) -> None:
    router = EventRouter()
    seen: list[tuple[int, str, int]] = []

    @router.subscribe("users", group="g")
    async def on_registered(
        event: Registered,
        db: Annotated[Database, Depends(session)],
        name: Annotated[str, Depends(name_of)],
        message: Delivery,
    ) -> None:
        seen.append((event.n, name, db.open))

    @router.subscribe("users", group="sync")
    def in_a_thread(event: Registered, number: Annotated[int, Depends(lambda: 3)]) -> None:
        seen.append((number, "", 0))

    async with harness.run(router) as t:
        await t.send("users", Registered(n=1))
        await t.idle()
        await t.handled(on_registered)
        await t.handled(in_a_thread)
    assert sorted(seen) == [(1, "session of 1", 1), (3, "", 0)]
    assert Database.open == 0


async def test_a_filter_finishes_what_it_refuses(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("users", group="g", filter=lambda event: event.n % 2 == 0)
    async def even(event: Registered) -> None: ...

    async with harness.run(router) as t:
        await t.send("users", *(Registered(n=n) for n in range(5)), key="k")
        await t.idle()
        assert [event.n for event in await t.handled(even, 3)] == [0, 2, 4]


@pytest.mark.parametrize("batch", [False, True], ids=["one", "batch"])
async def test_a_filter_may_be_async_and_what_it_raises_is_its_message_s(
    harness: EventTestHarness, batch: bool
) -> None:
    router = EventRouter()
    seen: list[int] = []

    async def wanted(event: Registered) -> bool:
        await asyncio.sleep(0)
        if event.n == 2:
            raise ValueError("two")
        return event.n % 2 == 0

    subscribe = router.subscribe(
        "users", group="g", filter=wanted, retry=Retry(attempts=2, delay=1), dead_letter="letters"
    )
    if batch:

        @subscribe
        async def several(events: list[Registered]) -> None:
            seen.extend(event.n for event in events)
    else:

        @subscribe
        async def one(event: Registered) -> None:
            seen.append(event.n)

    async with harness.run(router) as t:
        await t.send("users", *(Registered(n=n) for n in range(6)))
        await t.idle()
        [letter] = t.dead_letters("letters")
    assert sorted(seen) == [0, 4]
    assert (letter.reason, letter.error_message) == ("failed 2 times", "two")


async def test_included_routers_bring_prefix_middleware_and_lifespan(harness: EventTestHarness) -> None:
    steps: list[str] = []

    def lifespan_of(name: str):  # type: ignore[no-untyped-def]
        @asynccontextmanager
        async def lifespan() -> AsyncIterator[None]:
            steps.append(f"{name} begins")
            yield
            steps.append(f"{name} ends")

        return lifespan

    inner = EventRouter(prefix="users.", lifespan=lifespan_of("inner"))
    outer = EventRouter(prefix="eu.", lifespan=lifespan_of("outer"))
    outer.include(inner, prefix="shop.")

    @inner.subscribe("registered", group="g")
    async def on_registered(event: Registered) -> None:
        steps.append("handled")

    async with harness.run(outer) as t:
        await t.send("eu.shop.users.registered", Registered())
        await t.handled(on_registered)
    assert steps == ["outer begins", "inner begins", "handled", "inner ends", "outer ends"]


async def test_handlers_run_side_by_side_on_several_brokers_and_a_bridge_links_them(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("copies", group="g", broker="archive")
    async def on_copy(event: Registered, message: Delivery) -> None:
        assert message.message.header("tenant") == "t1"
        assert message.key == b"k"

    router.bridge("users", to="copies", group="bridge", to_broker="archive")
    async with harness.run(router) as t:
        message = Registered(n=4, source="s")
        await t._producer.send("users", message, key="k", headers={"tenant": "t1"})
        [event] = await t.handled(on_copy)
        assert t.messages("copies") == []
    assert event == message


async def test_a_handler_may_wait_without_real_time_passing(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("users", group="g")
    async def slow(event: Registered) -> None:
        await asyncio.sleep(1000)

    async with harness.run(router) as t:
        await t.send("users", Registered())
        await t.handled(slow)
        assert 1000 <= t.time.passed < 1010


async def test_handled_says_what_went_wrong(harness: EventTestHarness) -> None:
    router = EventRouter()

    @router.subscribe("users", group="g", retry=Retry(attempts=2, delay=1), dead_letter="letters")
    async def broken(event: Registered) -> None:
        raise LookupError("no such user")

    async with harness.run(router) as t:
        await t.send("users", Registered())
        with pytest.raises(AssertionError, match=r"handled 0 of 1 times.*no such user"):
            await t.handled(broken, timeout=60)
        assert len(await t.failed(broken, 2)) == 2
