"""From a store to a broker, and from a store to a store."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from commons_events import Event, EventConsumer, Message
from commons_events.errors import (
    ConfigurationError,
    ConnectionLostError,
    InvalidStreamError,
    InvalidVersionError,
    PublishError,
    UnknownEventTypeError,
)
from commons_events.event import registry
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.message import PublishResult
from commons_events.sourcing import (
    Append,
    EventStore,
    NewEvent,
    OutboxRelay,
    Progress,
    StoredEvent,
    StreamId,
    copy_events,
)
from commons_events.testing import eventually
from commons_events.testing._virtual_time import virtual_time

from .relaying import Relayed
from .stores import Place, place  # noqa: F401

pytestmark = pytest.mark.asyncio
WAIT = 60.0
RELAYING = Path(__file__).with_name("relaying.py")


class Moved(Event):
    event_type = "tests.moved"
    number: int = 0


class Counting(MemoryTransport):
    """The in-process broker, with failures to order."""

    failing: dict[int, Exception]
    sent: list[str]

    @classmethod
    def make(cls, **failing: Exception) -> Counting:
        transport = cls(MemoryBroker())
        transport.failing = {int(number[1:]): error for number, error in failing.items()}
        transport.sent = []
        return transport

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        passing: list[Message] = []
        results: list[PublishResult | None] = []
        for message in messages:
            name = message.header("ce_id") or ""
            error = self.failing.pop(len(self.sent) + len(passing), None)
            results.append(error)  # type: ignore[arg-type]
            if error is None:
                passing.append(message)
                self.sent.append(name)
        published = super().publish(passing)

        async def merge() -> Sequence[PublishResult]:
            done = iter(await published)
            return [next(done) if result is None else result for result in results]

        return asyncio.ensure_future(merge())


async def test_stored_events_reach_the_broker_in_order_for_each_stream(place: Place) -> None:  # noqa: F811
    transport = Counting.make(n3=ConnectionLostError("gone"), n7=ConnectionLostError("gone again"))
    async with place.opened() as store:
        for number in range(12):
            await store.append(StreamId(f"s{number % 3}", "Order"), [Moved(event_id=f"{number % 3}/{number}")])
        relay = OutboxRelay(store, transport, topic="orders", types=[Moved])
        assert await relay.run_once() == 12
        assert await relay.run_once() == 0
        for stream in range(3):
            of_stream = [name for name in transport.sent if name.startswith(f"{stream}/")]
            assert of_stream == [f"{stream}/{number}" for number in range(stream, 12, 3)]
        running = asyncio.ensure_future(relay.run())
        await store.append(StreamId("s1", "Order"), [Moved(event_id="late")])

        async def saved() -> bool:
            return await store.checkpoint("relay outbox") == await store.head()

        await eventually(saved, timeout=WAIT)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert len(transport.sent) == len(set(transport.sent)) == 13
    await transport.close()


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"categories": "Order"}, ConfigurationError, r"Write \['Order'\]"),
        ({"types": "tests.moved"}, ConfigurationError, r"Write \['tests.moved'\]"),
        ({"tags": "red"}, ConfigurationError, r"Write \['red'\]"),
        ({"name": ""}, InvalidStreamError, "relay's name is empty"),
        ({"after": -1}, InvalidVersionError, "after is -1"),
        ({"lease_seconds": float("nan")}, ConfigurationError, "lease_seconds is nan"),
        ({"topic": None}, ConfigurationError, "topic is None"),
    ],
)
async def test_a_relay_that_cannot_work_is_refused(settings: dict[str, Any], error: type[Exception], said: str) -> None:
    async with EventStore("memory://") as store:
        with pytest.raises(error, match=said):
            OutboxRelay(store, MemoryTransport(MemoryBroker()), **{"topic": "orders", **settings})


@pytest.mark.parametrize("arguments", [{"store": "sqlite://"}, {"transport": "memory://"}, {"transport": None}])
async def test_a_relay_takes_a_store_and_a_transport(arguments: dict[str, Any]) -> None:
    async with EventStore("memory://") as store:
        with pytest.raises(ConfigurationError, match=f"OutboxRelay's {next(iter(arguments))} is a (str|None)"):
            OutboxRelay(**{"store": store, "transport": MemoryTransport(MemoryBroker()), "topic": "t", **arguments})


async def test_a_relays_position_is_its_own_and_that_of_an_older_package_is_taken_over(place: Place) -> None:  # noqa: F811
    async with place.opened() as store:
        await store.append("a", [Moved(event_id=f"{number}") for number in range(4)])
        await store.save_checkpoint("orders", 3)  # another reader's
        transport = Counting.make()
        assert await OutboxRelay(store, transport, topic="t", name="orders").run_once() == 4
        assert await store.checkpoint("orders") == 3
        await store.delete_checkpoint("relay orders")
        assert await OutboxRelay(store, transport, topic="t", name="orders").run_once() == 1
        assert await OutboxRelay(store, transport, topic="t", name="new", after=2).run_once() == 2
        assert await OutboxRelay(store, transport, topic="t", name="new").run_once() == 0


async def test_a_relay_stays_in_charge_however_long_the_broker_takes() -> None:
    """Or another one would go past it, and what it is publishing would follow what is newer."""
    published: list[tuple[str, str]] = []
    under_way = asyncio.Event()

    class Named(Counting):
        who = ""
        pause = 0.0

        def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
            async def later() -> Sequence[PublishResult]:
                under_way.set()
                await asyncio.sleep(self.pause)
                published.extend((self.who, message.header("ce_id") or "") for message in messages)
                return await super(Named, self).publish(messages)

            return asyncio.ensure_future(later())

    slow, quick = Named.make(), Named.make()
    slow.who, slow.pause, quick.who = "slow", 100.0, "quick"
    with virtual_time():
        async with EventStore("memory://") as store:
            await store.append("a", [Moved(event_id=f"{number}") for number in range(4)])
            first, second = (OutboxRelay(store, one, topic="orders", lease_seconds=1) for one in (slow, quick))
            working = asyncio.ensure_future(first.run_once())
            await asyncio.wait_for(under_way.wait(), WAIT)
            standing_by = asyncio.ensure_future(second.run())
            assert await working == 4
            await store.append("a", [Moved(event_id="4")])
            await eventually(lambda: second.published, timeout=WAIT)
            standing_by.cancel()
            await asyncio.gather(standing_by, return_exceptions=True)
    assert published == [*(("slow", f"{number}") for number in range(4)), ("quick", "4")]
    for transport in (slow, quick):
        await transport.close()


async def test_a_relay_that_was_held_up_sends_nothing_more_once_another_one_has_taken_over(place: Place) -> None:  # noqa: F811
    """Or a stream's earlier events would come again behind its later ones."""
    if place.kind == "memory":
        pytest.skip("what holds up a relay on a store in memory holds up all of them")
    held_up, go_on = threading.Event(), threading.Event()

    class Slow(Counting):
        def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
            held_up.set()
            go_on.wait(WAIT)  # nor is the lease renewed meanwhile: the event loop stands still
            return super().publish(messages)

    async def work() -> list[str]:
        slow = Slow.make()
        async with place.opened() as store:
            await OutboxRelay(store, slow, topic="orders", lease_seconds=0.2).run_once()
        await slow.close()
        return slow.sent

    quick = Counting.make()
    async with place.opened() as store:
        await store.append("a", [Moved(event_id=f"{number}") for number in range(5)])
        second = OutboxRelay(store, quick, topic="orders", lease_seconds=30)
        working = asyncio.ensure_future(asyncio.to_thread(asyncio.run, work()))
        try:
            assert await asyncio.to_thread(held_up.wait, WAIT)

            async def took_over() -> bool:
                return await second.run_once() > 0

            await eventually(took_over, timeout=WAIT)
        finally:
            go_on.set()
        assert quick.sent == ["0", "1", "2", "3", "4"]
        assert await working == ["0"]  # what was under way when it was held up
        assert await store.checkpoint("relay outbox") == await store.head()
    await quick.close()


async def test_a_relayed_event_is_received_as_it_was_stored(place: Place) -> None:  # noqa: F811
    MemoryBroker.reset_all()
    transport = MemoryTransport(MemoryBroker.get())
    event = Moved(number=7, correlation_id="c", source="urn:mine")
    async with place.opened() as store:
        await store.append("a", [event, Moved(number=8)])
        relay = OutboxRelay(store, transport, topic=lambda stored: "orders" if stored.aggregate_version == 1 else None)
        assert await relay.run_once() == 1
    async with EventConsumer(topics=["orders"]) as consumer:
        delivery = await anext(aiter(consumer))
        assert delivery.event() == event
        assert delivery.message.key == b"a"
        await delivery.ack()
    MemoryBroker.reset_all()


async def test_what_cannot_be_published_is_not_skipped(event_registry: object) -> None:
    class Lost(Event):
        event_type = "tests.lost"

    async with EventStore("memory://") as store:
        await store.append("a", [Moved(), Lost(), Moved()])
        registry.unregister(Lost)
        transport = Counting.make()
        with pytest.raises(UnknownEventTypeError, match="position 2"):
            await OutboxRelay(store, transport, topic="t").run_once()
        refused = Counting.make(n0=PublishError("too large"))
        with pytest.raises(PublishError, match="too large"):
            await OutboxRelay(store, refused, topic="t", types=[Moved]).run_once()
        assert await store.checkpoint("relay outbox") == 0


async def test_one_relay_works_and_the_others_stand_by(place: Place) -> None:  # noqa: F811
    async with place.opened() as store:
        first, second = (OutboxRelay(store, Counting.make(), topic="t", lease_seconds=30) for _ in range(2))
        await store.append("a", [Moved()])
        running = asyncio.ensure_future(first.run())
        await eventually(lambda: store.checkpoint("relay outbox"), timeout=WAIT)  # saved behind what is published
        assert first.published == 1
        assert await second.run_once() == 0
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await store.append("a", [Moved()])
        assert await second.run_once() == 1


async def test_a_relay_that_is_killed_loses_nothing_and_keeps_each_streams_order(place: Place) -> None:  # noqa: F811
    if place.kind == "memory":
        pytest.skip("what is in memory dies with its process")
    streams, events = 10, 24
    runs: list[list[str]] = []
    async with place.opened() as store:
        for first in range(0, events, 4):
            await store.append_many(
                [
                    Append(f"s{number}", [Relayed(event_id=f"s{number}/{first + n}") for n in range(4)], first)
                    for number in range(streams)
                ]
            )
        for wanted in (60, streams * events):  # killed between pages, and at the end
            process = await asyncio.create_subprocess_exec(
                sys.executable, RELAYING, place.url, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            said: list[str] = []
            runs.append(said)
            seen = {name for run in runs for name in run}
            while len(seen) < wanted:
                line = await asyncio.wait_for(process.stdout.readline(), WAIT)
                assert line, "the relay has ended by itself"
                said.append(line.decode().strip())
                seen.add(said[-1])
            process.kill()
            said += (await process.stdout.read()).decode().split()
            await process.wait()
    for number in range(streams):
        order = [f"s{number}/{n}" for n in range(events)]
        for said in runs:  # without a gap from where it began again
            own = [name for name in said if name.startswith(f"s{number}/")]
            start = order.index(own[0]) if own else 0
            assert own == order[start : start + len(own)]
        together = [name for said in runs for name in said if name.startswith(f"s{number}/")]
        assert list(dict.fromkeys(together)) == order


async def test_a_copy_is_the_same_and_goes_on_where_it_ended(place: Place) -> None:  # noqa: F811
    async with EventStore("sqlite://", page_size=4) as source, place.opened() as target:
        for number in range(10):
            await source.append(StreamId(f"s{number % 3}", "C"), [NewEvent(Moved(number=number), ("t",)), Moved()])
        seen: list[Progress] = []
        assert await copy_events(source, target, progress=seen.append) == 20
        assert seen[-1].position == seen[-1].head == 20
        assert [progress.position for progress in seen] == sorted(progress.position for progress in seen)
        assert await copy_events(source, target) == 0
        await source.append("late", [Moved()])
        assert await copy_events(source, target) == 1

        def shape(stored: StoredEvent) -> object:
            return (*stored[:10],)

        originals = [shape(stored) async for stored in source.read_all()]
        assert [shape(stored) async for stored in target.read_all()] == originals


async def test_a_copy_keeps_the_order_by_few_appends(place: Place) -> None:  # noqa: F811
    order = [*"abc", *"abbc", *"ddd", "a", *"cab"]
    async with EventStore("memory://", page_size=100) as source, place.opened() as target:
        for number, stream in enumerate(order):
            await source.append(stream, [Moved(number=number)])
        backend: Any = target.backend
        counts: list[list[int]] = []
        begin = backend.transaction

        @asynccontextmanager
        async def counted() -> AsyncIterator[Any]:
            async with begin() as transaction:
                append = transaction.append

                async def noted(appends: Any) -> Any:
                    counts.append([len(one.events) for one in appends])
                    return await append(appends)

                transaction.append = noted
                yield transaction

        backend.transaction = counted
        seen: list[Progress] = []
        assert await copy_events(source, target, progress=seen.append) == len(order)
        assert counts == [[1, 1, 1], [1, 2, 1, 3], [1, 1], [1, 1]]
        assert [stored.stream.id async for stored in target.read_all()] == order
        assert len(seen) == len(set(seen))


async def test_a_copy_between_what_are_no_stores_is_refused() -> None:
    async with EventStore("memory://") as source, EventStore("memory://") as target:
        for arguments, said in (((source, None), "target is a NoneType"), (("sqlite://", target), "source is a str")):
            with pytest.raises(ConfigurationError, match=f"copy_events: {said}; it is an EventStore"):
                await copy_events(*arguments)  # type: ignore[arg-type]
        for name in ("transform", "rename", "progress"):
            for bad in (5, asyncio.sleep):
                with pytest.raises(ConfigurationError, match=f"copy_events: {name} is .*; it is a function, not async"):
                    await copy_events(source, target, **{name: bad})  # type: ignore[arg-type]
        await source.append("a", [Moved()])
        for named in ("", "x" * 256, "\ud800", None):
            with pytest.raises(InvalidStreamError):
                await copy_events(source, target, rename=lambda stream: named)  # type: ignore[arg-type,return-value]  # noqa: B023
        assert await copy_events(source, target) == 1


async def test_a_copy_is_transformed_while_it_follows(place: Place) -> None:  # noqa: F811
    def transform(stored: StoredEvent) -> list[Event] | None:
        event = stored.event()
        assert isinstance(event, Moved)
        if event.number % 2:
            return None
        return [event, Moved(number=event.number + 100)]

    async with EventStore("memory://") as source, place.opened() as target:
        await source.append("a", [Moved(number=number) for number in range(4)])
        copying = asyncio.ensure_future(
            copy_events(source, target, transform=transform, rename=lambda stream: f"new-{stream.id}", follow=True)
        )
        await eventually(lambda: target.stream_version("new-a"), timeout=WAIT)
        await source.append("a", [Moved(number=6)])

        async def numbers() -> list[int]:
            return [event.number for event in await target.get_events("new-a")]  # type: ignore[attr-defined]

        await eventually(lambda: _equal(numbers(), [0, 100, 2, 102, 6, 106]), timeout=WAIT)
        copying.cancel()
        with suppress(asyncio.CancelledError):
            await copying


async def _equal(found: object, wanted: object) -> bool:
    return bool(await found == wanted)  # type: ignore[misc]
