"""`EventStoreContract`: all that `commons_events.sourcing.EventStore` says of itself, whatever database it is on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commons_events.errors import (
    AmbiguousStreamError,
    CapabilityError,
    CheckpointError,
    ClosedError,
    ConfigurationError,
    EventTooLargeError,
    InvalidStreamError,
    InvalidVersionError,
    LeaseLostError,
    StreamDeletedError,
    StreamNotFoundError,
    UndecodableEventError,
    UnknownEventTypeError,
    VersionConflictError,
)
from commons_events.event import Event, migration, registry
from commons_events.testing._wait import eventually
from commons_events.testing.contracts._contract import Contract

if TYPE_CHECKING:
    from commons_events.sourcing import BaseEventStore, StoredEvent

__all__ = ["EventStoreContract"]

_WAIT = 60.0


class Counted(Event):
    """What the tests store."""

    event_type = "commons-events.contract.counted"
    number: int = 0
    text: str = ""


class Noted(Event):
    """Another type."""

    event_type = "commons-events.contract.noted"
    text: str = ""


class TaggedEvent(Event):
    """Says its tags by itself."""

    event_type = "commons-events.contract.tagged"
    customer: str

    def event_tags(self) -> list[str]:
        """One."""
        return [f"customer:{self.customer}"]


def sourcing() -> Any:
    """The package that the contract is of; imported when a test runs, since this one does not depend on it."""
    return import_module("commons_events.sourcing")


def counted(count: int, start: int = 0) -> list[Counted]:
    """So many events."""
    return [Counted(number=number) for number in range(start, start + count)]


def ids(events: Sequence[Any]) -> list[str]:
    """Their event ids."""
    return [event.event_id for event in events]


async def listed(events: AsyncIterator[StoredEvent]) -> list[StoredEvent]:
    """All of them."""
    return [stored async for stored in events]


class EventStoreContract(Contract, contract=True):
    """The contract of an event store: subclass it, give it `make_store`, and run pytest.

    Class attributes:
        has_sql: whether the store's transactions execute SQL.
        writers: how many writers write at once.
        max_examples: how many histories are compared with the model.
    """

    has_sql: ClassVar[bool] = True
    writers: ClassVar[int] = 20
    max_examples: ClassVar[int] = 25

    async def make_store(self, **settings: Any) -> BaseEventStore:
        """A store, not yet opened, on the test's database: empty at the test's beginning, and the same at each call."""
        raise NotImplementedError(f"{type(self).__name__}.make_store has to return an event store.")

    async def store(self, **settings: Any) -> BaseEventStore:
        """A store that is closed at the test's end."""
        made = await self.make_store(**settings)
        self.__dict__.setdefault("_stores", []).append(made)
        return made

    async def clean_up(self) -> None:
        """Close the test's stores."""
        for made in self.__dict__.pop("_stores", ()):
            await made.close()

    # --- appending -------------------------------------------------------------------------------------------

    async def test_what_is_appended_is_read_back_byte_by_byte(self) -> None:
        store, before = await self.store(), datetime.now(UTC)
        event = Counted(number=1, text='ü\u0000"\\\n😀', metadata={"a": -0.0, "b": 1e300, "c": 2**80})
        result = await store.append("one", [event], expected=0)
        (stored,) = await listed(store.read_stream("one"))
        assert (stored.stream, stored.aggregate_version, stored.position) == (("one", ""), 1, result.last_position)
        assert (stored.event_id, stored.event_type) == (event.event_id, event.event_type)
        assert (stored.schema_version, stored.format, stored.tags) == ("1.0.0", "json", ())
        assert stored.data == event.to_json()
        assert stored.event() == event
        assert stored.timestamp == event.timestamp
        assert stored.recorded_at is not None
        assert abs((stored.recorded_at - before).total_seconds()) < 600

    async def test_versions_and_positions_follow_each_other(self) -> None:
        store = await self.store()
        first = await store.append("a", counted(2), expected=0)
        second = await store.append("b", counted(1), expected=0)
        third = await store.append("a", counted(3), expected=2)
        assert [(r.first_version, r.version) for r in (first, second, third)] == [(1, 2), (1, 1), (3, 5)]
        spans = [(r.first_position, r.last_position) for r in (first, second, third)]
        assert spans == [(1, 2), (3, 3), (4, 6)]
        assert await store.head() == 6
        assert await store.stream_version("a") == 5

    async def test_an_empty_append_stores_nothing_and_checks_what_is_expected(self) -> None:
        s, store = sourcing(), await self.store()
        for expected in (s.ANY, s.NO_STREAM, 0):
            result = await store.append("a", [], expected=expected)
            assert (result.version, result.stored) == (0, False)
        assert await store.stream_version("a") == 0
        for expected in (s.STREAM_EXISTS, 1):
            with pytest.raises(VersionConflictError):
                await store.append("a", [], expected=expected)

    async def test_each_expectation_against_each_state(self) -> None:
        s, store = sourcing(), await self.store()
        for events in (0, 1, 3):
            holds = {s.ANY: True, s.NO_STREAM: events == 0, s.STREAM_EXISTS: events > 0, events: True}
            holds |= {version: False for version in (0, 1, 2, 3, 4, 999) if version != events}
            for number, (expected, fits) in enumerate(holds.items()):
                name = f"a{events}-{number}"
                await store.append(name, counted(events))
                if fits:
                    assert (await store.append(name, counted(1), expected=expected)).version == events + 1
                    continue
                with pytest.raises(VersionConflictError) as caught:
                    await store.append(name, counted(2), expected=expected)
                assert caught.value.actual == events
                assert caught.value.stream == name
                assert caught.value.expected == (expected if isinstance(expected, int) else expected.value)
                assert await store.stream_version(name) == events

    async def test_the_same_events_again_are_not_stored_twice(self) -> None:
        s, store, events = sourcing(), await self.store(), counted(3)
        first = await store.append("a", events, expected=0)
        for expected in (0, s.NO_STREAM, s.ANY, s.STREAM_EXISTS):
            again = await store.append("a", events, expected=expected)
            assert again == first._replace(stored=False)
        part = await store.append("a", events[1:2], expected=1)
        assert (part.first_version, part.version, part.stored) == (2, 3, False)
        assert (await store.append("a", events[1:], expected=s.ANY)).stored is False
        assert await store.stream_version("a") == 3

    async def test_a_batch_that_is_only_partly_there_is_a_conflict(self) -> None:
        s, store, events = sourcing(), await self.store(), counted(3)
        await store.append("a", events[:2], expected=0)
        for batch, expected in ((events, s.NO_STREAM), (events, s.ANY), (events[1::-1], s.ANY), (events[:1], 1)):
            with pytest.raises(VersionConflictError):
                await store.append("a", batch, expected=expected)
        assert await store.stream_version("a") == 2

    async def test_an_event_that_is_appended_on_purpose_is_stored_again(self) -> None:
        store, events = await self.store(), counted(2)
        await store.append("a", events, expected=0)
        assert (await store.append("a", events[:1], expected=2)).version == 3
        assert (await store.append("b", [events[0]] * 6, expected=0)).version == 6
        assert (await store.append("b", [events[0]] * 6, expected=0)).stored is False

    async def test_a_repeat_from_an_iterator_that_raises_stores_nothing(self) -> None:
        store = await self.store()

        def broken() -> Any:
            yield Counted()
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            await store.append("a", broken())
        assert await store.stream_version("a") == 0

    async def test_several_streams_in_one_transaction_or_none(self) -> None:
        s, store = sourcing(), await self.store()
        await store.append("taken", counted(1))
        with pytest.raises(VersionConflictError) as caught:
            await store.append_many([s.Append("x", counted(2), 0), s.Append("taken", counted(1), 0)])
        assert caught.value.stream == "taken"
        assert await store.stream_version("x") == 0
        assert len(await listed(store.read_all())) == 1
        results = await store.append_many([s.Append("y", counted(2), 0), s.Append("taken", counted(1), 1)])
        assert [result.version for result in results] == [2, 2]
        assert results[0].last_position < results[1].first_position
        with pytest.raises(ConfigurationError, match="twice"):
            await store.append_many([s.Append("z", counted(1)), s.Append("z", counted(1))])

    async def test_many_events_at_once(self) -> None:
        store, events = await self.store(), counted(2_500)
        tagged = [sourcing().NewEvent(event, ("bulk",)) for event in events]
        result = await store.append("a", tagged, expected=0)
        assert result.last_position - result.first_position == 2_499
        stored = await listed(store.read_stream("a"))
        assert ids(stored) == ids(events)
        assert [one.aggregate_version for one in stored] == list(range(1, 2_501))
        assert stored[0].tags == ("bulk",)
        assert (await store.append("a", tagged, expected=0)).stored is False
        with pytest.raises(VersionConflictError):
            await store.append("a", counted(600), expected=7)

    async def test_streams_of_two_categories_may_have_one_id(self) -> None:
        s, store = sourcing(), await self.store()
        for category in ("Order", "Invoice"):
            await store.append(s.StreamId("7", category), counted(1), expected=0)
        await store.append(s.StreamId("8", "Order"), counted(1), expected=0)
        assert await store.find_stream("8") == ("8", "Order")
        with pytest.raises(AmbiguousStreamError, match=r"Invoice.*Order"):
            await store.find_stream("7")
        with pytest.raises(StreamNotFoundError):
            await store.find_stream("9")

    async def test_bad_input_is_refused_and_nothing_is_stored(self) -> None:
        s, store = sourcing(), await self.store(max_event_bytes=2_000)
        good = Counted()
        strange: Any
        for strange in (
            "",
            "x" * 256,
            "a\nb",
            "a\x00",
            "\ud800",
            7,
            None,
            s.StreamId("a", "b\x1f"),
            s.StreamId("a", None),
        ):
            with pytest.raises(InvalidStreamError):
                await store.append(strange, [good])
        for strange in (-1, 2**63, 1.5, "1", True, None):
            with pytest.raises(InvalidVersionError):
                await store.append("a", [good], expected=strange)
        for bad in (Counted(event_id=""), Counted(event_id="i" * 256), Counted(event_id="a\x00b")):
            with pytest.raises(InvalidStreamError, match="event's id"):
                await store.append("a", [good, bad])
        with pytest.raises(InvalidStreamError, match="tag"):
            await store.append("a", [s.NewEvent(good, ("",))])
        with pytest.raises(EventTooLargeError, match="max_event_bytes"):
            await store.append("a", [good, Counted(text="x" * 2_000)])
        with pytest.raises(TypeError, match="dict"):
            await store.append("a", [{"no": "event"}])  # type: ignore[list-item]
        with pytest.raises(InvalidVersionError):
            await listed(store.read_stream("a", from_version=-1))
        with pytest.raises(ConfigurationError, match="types"):
            await listed(store.read_all(types="a"))
        assert await store.head() == 0

    async def test_names_of_all_kinds_hold(self) -> None:
        s, store = sourcing(), await self.store()
        names = ["x" * 255, "Ünïcode 😀", "a'b\"c\\d{}%s$1", "a/b", " ", "NULL"]
        for name in names:
            event = s.NewEvent(Counted(event_id=name), (name, "b"))
            await store.append(s.StreamId(name, name), [event], expected=0)
        stored = await listed(store.read_all())
        assert [one.stream for one in stored] == [(name, name) for name in names]
        assert ids(stored) == names
        assert [one.tags for one in stored] == [(name, "b") for name in names]
        for name in names:
            assert ids(await listed(store.read_all(tags=[name]))) == [name]
            assert ids(await listed(store.read_all(categories=[name]))) == [name]

    async def test_cancelling_an_append_leaves_it_whole(self) -> None:
        store = await self.store()
        await store.append("before", counted(1))
        tasks = [asyncio.ensure_future(store.append(f"s{n}", counted(3), expected=0)) for n in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.append("after", counted(1))
        for n in range(20):
            assert await store.stream_version(f"s{n}") in ((3,) if n % 2 else (0, 3))

    # --- reading ---------------------------------------------------------------------------------------------

    async def test_a_stream_is_read_from_both_ends_and_in_parts(self) -> None:
        store, events = await self.store(page_size=3), counted(10)
        await store.append("a", events)
        await store.append("b", counted(1))

        async def numbers(**bounds: Any) -> list[int]:
            return [stored.aggregate_version async for stored in store.read_stream("a", **bounds)]

        assert await numbers() == list(range(1, 11))
        assert await numbers(backwards=True) == list(range(10, 0, -1))
        assert await numbers(from_version=4, to_version=6) == [4, 5, 6]
        assert await numbers(from_version=4, to_version=6, backwards=True) == [6, 5, 4]
        assert await numbers(to_version=2, backwards=True, limit=1) == [2]
        assert await numbers(backwards=True, limit=1) == [10]
        assert await numbers(from_version=9) == [9, 10]
        assert await numbers(limit=4) == [1, 2, 3, 4]
        assert (
            await numbers(limit=0)
            == await numbers(from_version=11)
            == await numbers(from_version=5, to_version=4)
            == []
        )
        assert await listed(store.read_stream("unknown", backwards=True, limit=1)) == []
        assert ids(await store.fetch_stream("a", from_version=3, to_version=4)) == ids(events[2:4])

    async def test_the_log_is_read_by_category_type_and_tags(self) -> None:
        s, store = sourcing(), await self.store(page_size=2)
        for number in range(3):
            await store.append(s.StreamId(f"o{number}", "Order"), [s.NewEvent(Counted(), ("big", f"n{number}"))])
            await store.append(s.StreamId(f"i{number}", "Invoice"), [Noted(), TaggedEvent(customer="ann")])
        await store.append("plain", [s.NewEvent(TaggedEvent(customer="bob"), ("big",))])

        async def positions(**filters: Any) -> list[int]:
            return [stored.position async for stored in store.read_all(**filters)]

        assert await positions() == list(range(1, 11))
        assert await positions(backwards=True) == list(range(10, 0, -1))
        assert await positions(from_position=3, to_position=5) == [3, 4, 5]
        assert await positions(from_position=3, to_position=9, backwards=True, limit=3) == [9, 8, 7]
        assert await positions(from_position=2, limit=1) == [2]
        assert await positions(from_position=11) == []
        assert await positions(categories=["Order"]) == [1, 4, 7]
        assert await positions(categories=["Order", ""]) == [1, 4, 7, 10]
        assert await positions(categories=["Invoice"], types=[Noted], backwards=True) == [8, 5, 2]
        assert await positions(types=[Noted]) == [2, 5, 8]
        assert await positions(types=[Counted, Noted.event_type], from_position=2, limit=3) == [2, 4, 5]
        assert await positions(types=["unknown"]) == await positions(categories=["unknown"]) == []
        assert await positions(tags=["big"]) == [1, 4, 7, 10]
        assert await positions(tags=["big", "n1"]) == [4]
        assert await positions(tags=["customer:ann"], types=[TaggedEvent]) == [3, 6, 9]
        assert await positions(tags=["customer:bob", "big"]) == [10]
        assert await positions(tags=["n1", "n2"]) == []

    async def test_reading_holds_one_page_in_memory(self) -> None:
        store = await self.store(page_size=10)
        await store.append("a", counted(50))
        fetched: list[int] = []
        fetch = store.backend.fetch_log

        async def watched(*arguments: Any, **named: Any) -> Any:
            page = await fetch(*arguments, **named)
            fetched.append(len(page.events))
            return page

        store.backend.fetch_log = watched  # type: ignore[method-assign]
        reader = store.read_all()
        async for _ in reader:
            break
        assert fetched == [10]
        assert len(await listed(reader)) == 0 or max(fetched) <= 10

    async def test_events_that_cannot_be_read_say_where_they_are(self) -> None:
        with registry.isolated():
            await self._events_that_cannot_be_read_say_where_they_are()

    async def _events_that_cannot_be_read_say_where_they_are(self) -> None:
        store = await self.store()

        class Passing(Event):
            event_type = "commons-events.contract.passing"
            number: int

        await store.append("a", [Passing(number=1)])
        (stored,) = await listed(store.read_stream("a"))
        registry.unregister(Passing)
        with pytest.raises(UnknownEventTypeError, match=r"position 1, version 1 of stream 'a'"):
            stored.event()

        class PassingAgain(Event):
            event_type = "commons-events.contract.passing"
            other: str

        with pytest.raises(UndecodableEventError, match=r"position 1, version 1 of stream 'a'"):
            stored.event()
        assert len(await listed(store.read_all())) == 1

    async def test_older_events_come_through_their_migrations_and_their_bytes_stay(self) -> None:
        with registry.isolated():
            await self._older_events_come_through_their_migrations_and_their_bytes_stay()

    async def _older_events_come_through_their_migrations_and_their_bytes_stay(self) -> None:
        store = await self.store()

        class Old(Event):
            event_type = "commons-events.contract.moved"
            price: float

        old = Old(price=2.5)
        await store.append("a", [old])

        from commons_events.event import EventSchema

        @EventSchema(name="commons-events.contract.moved", version="2.0.0")
        class New(Event):
            cents: int

        @migration(from_=Old, to=New)
        def move(event: Old) -> New:
            return New(cents=int(event.price * 100))

        (stored,) = await listed(store.read_stream("a"))
        event = stored.event()
        assert isinstance(event, New)
        assert (event.cents, event.event_id) == (250, old.event_id)
        assert stored.data == old.to_json()

    # --- deleting --------------------------------------------------------------------------------------------

    async def test_a_deleted_stream_is_gone_and_stays_so(self) -> None:
        s, store = sourcing(), await self.store()
        await store.append("a", counted(2))
        await store.append("b", counted(1))
        with pytest.raises(VersionConflictError):
            await store.delete_stream("a", expected=1)
        await store.delete_stream("a", expected=2)
        assert await listed(store.read_stream("a")) == []
        assert [stored.stream.id for stored in await listed(store.read_all())] == ["b"]
        for expected in (s.NO_STREAM, s.ANY, 5, s.STREAM_EXISTS):
            with pytest.raises(StreamDeletedError):
                await store.append("a", counted(1), expected=expected)
        for call in (store.stream_version("a"), store.delete_stream("a")):
            with pytest.raises(StreamDeletedError):
                await call
        with pytest.raises(StreamNotFoundError):
            await store.delete_stream("c")
        assert (await store.append("b", counted(1))).last_position == 4

    # --- transactions ----------------------------------------------------------------------------------------

    async def test_a_transaction_is_seen_as_a_whole_or_not_at_all(self) -> None:
        store, other = await self.store(), await self.store()
        with pytest.raises(RuntimeError, match="no"):  # noqa: PT012  # the block is what is tested
            async with store.transaction() as transaction:
                await transaction.append("a", counted(2), expected=0)
                await transaction.save_checkpoint("reader", 5)
                raise RuntimeError("no")
        assert await store.stream_version("a") == 0
        assert await store.checkpoint("reader") == 0
        async with store.transaction() as transaction:
            await transaction.append("a", counted(2), expected=0)
            assert len(await transaction.fetch_stream("a")) == 2
            with pytest.raises(VersionConflictError):
                await transaction.append("a", counted(1), expected=0)
            await transaction.append("a", counted(1), expected=2)
            await transaction.save_checkpoint("reader", 5)
            assert await transaction.checkpoint("reader") == 5
        assert await other.stream_version("a") == 3
        assert await other.checkpoint("reader") == 5

    async def test_a_failed_append_of_a_transaction_leaves_nothing_of_itself(self) -> None:
        s, store = sourcing(), await self.store()
        await store.append("taken", counted(1))
        async with store.transaction() as transaction:
            await transaction.append("kept", counted(1))
            with pytest.raises(VersionConflictError):
                await transaction.append_many([s.Append("lost", counted(2)), s.Append("taken", counted(1), 0)])
        assert await store.stream_version("kept") == 1
        assert await store.stream_version("lost") == 0

    async def test_writing_past_an_open_transaction_in_its_own_task_is_refused(self) -> None:
        store = await self.store()
        async with store.transaction() as transaction:
            await transaction.append("a", counted(1))
            with pytest.raises(CapabilityError, match="transaction"):
                await store.append("a", counted(1))
        assert await store.stream_version("a") == 1

    async def test_a_programs_own_tables_take_part(self) -> None:
        store = await self.store()
        if not self.has_sql:
            with pytest.raises(CapabilityError, match="SQL"):
                async with store.transaction() as transaction:
                    await transaction.execute(None)  # type: ignore[arg-type]
            return
        from sqlalchemy import Column, Integer, MetaData, String, Table, select

        totals = Table(
            "totals", metadata := MetaData(), Column("name", String(20), primary_key=True), Column("n", Integer)
        )
        async with store.transaction() as transaction:
            await transaction.run_sync(lambda connection: metadata.create_all(connection))
            await transaction.execute(totals.insert(), [{"name": "a", "n": 1}, {"name": "b", "n": 2}])
            await transaction.save_checkpoint("totals", 1)
        with pytest.raises(CheckpointError, match="position 1"):  # noqa: PT012  # the block is what is tested
            async with store.transaction() as transaction:
                await transaction.execute(totals.update().values(n=99))
                await transaction.save_checkpoint("totals", 1)
        async with store.transaction() as transaction:
            rows = (await transaction.execute(select(totals.c.n).order_by(totals.c.name))).scalars().all()
            await transaction.run_sync(lambda connection: metadata.drop_all(connection))
        assert rows == [1, 2]

    # --- checkpoints and snapshots ---------------------------------------------------------------------------

    async def test_checkpoints_move_forward_only(self) -> None:
        store = await self.store()
        assert await store.checkpoint("p") == 0
        await store.save_checkpoint("p", 3)
        for position in (3, 2, 0):
            with pytest.raises(CheckpointError):
                await store.save_checkpoint("p", position)
        await store.save_checkpoint("p", 4)
        await store.save_checkpoint("p", 1, backwards=True)
        await store.save_checkpoint("p%", 7)
        await store.save_checkpoint("pq", 8)
        assert await store.checkpoints("p%") == {"p%": 7}
        assert await store.checkpoints() == {"p": 1, "p%": 7, "pq": 8}
        await store.delete_checkpoint("p")
        assert await store.checkpoint("p") == 0
        with pytest.raises(InvalidVersionError):
            await store.save_checkpoint("p", -1)

    async def test_tracking_in_the_transaction_of_the_effect_makes_it_happen_once(self) -> None:
        store = await self.store()
        for attempt in range(2):
            with suppress(CheckpointError):
                async with store.transaction() as transaction:
                    await transaction.append(f"effect-{attempt}", counted(1))
                    await transaction.save_checkpoint("upstream", 1)
        assert await store.stream_version("effect-0") == 1
        assert await store.stream_version("effect-1") == 0

    async def test_snapshots_keep_the_latest(self) -> None:
        s, store = sourcing(), await self.store()
        stream = s.StreamId("a", "Order")

        def snapshot(version: int, kind: str = "Order") -> Any:
            return s.StoredSnapshot(
                stream=stream, version=version, kind=kind, schema_version="2", data=b"\x00%d" % version,
                taken_at=datetime(2026, 1, 2, tzinfo=UTC),
            )  # fmt: skip

        assert await store.snapshot(stream, "Order") is None
        for version in (5, 9, 7):
            await store.save_snapshot(snapshot(version))
        assert await store.snapshot(stream, "Order") == snapshot(9)
        assert await store.snapshot(stream, "Order", at_most=8) is None
        assert await store.snapshot(stream, "Other") is None
        assert await store.snapshot("a", "Order") is None
        await store.delete_snapshots(stream)
        assert await store.snapshot(stream, "Order") is None

    # --- following -------------------------------------------------------------------------------------------

    async def test_a_subscription_catches_up_and_goes_on_live(self) -> None:
        store, other = await self.store(page_size=4), await self.store()
        await store.append("a", counted(10))
        seen: list[int] = []
        subscription = store.subscribe(after=2)

        async def follow() -> None:
            async for stored in subscription:
                seen.append(stored.position)
                assert subscription.position == stored.position

        task = asyncio.ensure_future(follow())
        await eventually(lambda: len(seen) == 8 and subscription.live, timeout=_WAIT)
        for number in range(5):
            await (other if number % 2 else store).append(f"b{number}", counted(1))
            await eventually(lambda number=number: len(seen) == 9 + number, timeout=_WAIT)  # type: ignore[misc]
        task.cancel()
        assert seen == list(range(3, 16))
        await subscription.close()
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)

    async def test_a_filtered_subscription_sees_all_of_its_kind(self) -> None:
        store = await self.store(page_size=5)
        seen: list[int] = []

        async def follow() -> None:
            async for stored in store.subscribe(types=[Noted]):
                seen.append(stored.position)  # noqa: PERF401  # it never ends

        task = asyncio.ensure_future(follow())
        for number in range(30):
            await store.append(f"s{number}", [Noted() if number % 3 == 0 else Counted()])
        await eventually(lambda: len(seen) == 10, timeout=_WAIT)
        task.cancel()
        assert seen == list(range(1, 31, 3))

    async def test_a_page_at_a_time(self) -> None:
        store = await self.store()
        await store.append("a", counted(5))
        subscription = store.subscribe()
        assert [len(await subscription.next_page(3)), len(await subscription.next_page(3))] == [3, 2]
        assert await subscription.next_page(wait=False) == []
        assert subscription.position == 5

    async def test_readers_miss_nothing_while_many_write(self) -> None:
        """Some writers roll back, some take their time between storing and committing."""
        store = await self.store(page_size=50)
        others = [await self.store() for _ in range(3)]
        committed: set[str] = set()
        rounds = 5

        async def write(writer: int) -> None:
            target = others[writer % len(others)]
            for number in range(rounds):
                events = counted(1 + (writer + number) % 5)
                if (writer + number) % 3 == 0:
                    await target.append(f"w{writer}-{number}", events, expected=0)
                    committed.update(ids(events))
                    continue
                with suppress(ZeroDivisionError):
                    async with target.transaction() as transaction:
                        await transaction.append(f"w{writer}-{number}", events, expected=0)
                        await asyncio.sleep((writer * 7 + number * 3) % 20 / 1000)
                        if (writer + number) % 10 == 1:
                            raise ZeroDivisionError
                    committed.update(ids(events))

        seen: list[StoredEvent] = []

        async def follow() -> None:
            async for stored in store.subscribe(poll_interval=0.05):
                seen.append(stored)  # noqa: PERF401  # it never ends

        reader = asyncio.ensure_future(follow())
        await asyncio.gather(*(write(writer) for writer in range(self.writers)))
        await eventually(lambda: len(seen) >= len(committed) or reader.done(), timeout=_WAIT)
        reader.cancel()
        assert set(ids(seen)) == committed
        assert len(seen) == len(committed)
        positions = [stored.position for stored in seen]
        assert positions == sorted(positions)

    async def test_concurrent_writers_of_one_stream_lose_nothing(self) -> None:
        stores = [await self.store() for _ in range(2)]
        conflicts = 0

        async def write(writer: int) -> None:
            nonlocal conflicts
            store = stores[writer % 2]
            for _ in range(3):
                event = Counted(number=writer)
                while True:
                    version = await store.stream_version("shared")
                    try:
                        result = await store.append("shared", [event], expected=version)
                    except VersionConflictError:
                        conflicts += 1
                        continue
                    assert result.version == version + 1
                    break

        await asyncio.gather(*(write(writer) for writer in range(self.writers)))
        await asyncio.gather(*(stores[n % 2].append("shared", counted(2)) for n in range(self.writers)))
        stored = await listed(stores[0].read_stream("shared"))
        assert [one.aggregate_version for one in stored] == list(range(1, self.writers * 5 + 1))
        assert len(set(ids(stored))) == self.writers * 5

    async def test_two_big_appends_do_not_mix(self) -> None:
        first, second = await self.store(), await self.store()
        results = await asyncio.gather(
            *(store.append(f"s{n}", counted(300), expected=0) for n, store in enumerate((first, second, first, second)))
        )
        spans = sorted((result.first_position, result.last_position) for result in results)
        assert all(high - low == 299 for low, high in spans)
        assert all(one[1] < two[0] for one, two in pairwise(spans))

    # --- groups ----------------------------------------------------------------------------------------------

    async def test_a_groups_workers_share_streams_and_keep_their_order(self) -> None:
        store = await self.store()
        for number in range(40):
            await store.append(f"s{number % 10}", counted(1, number))
        handled: list[tuple[str, str, int]] = []

        async def work(worker: str) -> None:
            async with (await self.store()).subscribe_group("g", worker=worker, poll_interval=0.05) as group:
                async for delivery in group:
                    await delivery.done()
                    handled.append((worker, delivery.stored.stream.id, delivery.stored.aggregate_version))

        workers = [asyncio.ensure_future(work(name)) for name in ("a", "b", "c")]
        await eventually(lambda: len(handled) == 40, timeout=_WAIT)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for stream in range(10):
            assert [version for _, name, version in handled if name == f"s{stream}"] == [1, 2, 3, 4]
        late = store.subscribe_group("g", worker="d")
        async with late:
            await store.append("s3", counted(1))
            delivery = await anext(late)
            assert (delivery.stored.stream.id, delivery.stored.aggregate_version) == ("s3", 5)

    async def test_who_lost_a_lease_cannot_finish(self) -> None:
        store = await self.store()
        await store.append("s", counted(1))
        slow = store.subscribe_group("g", worker="slow", partitions=1, lease_seconds=0.2)
        delivery = await anext(slow)
        quick = store.subscribe_group("g", worker="quick", partitions=1, lease_seconds=60, poll_interval=0.05)
        taken = await asyncio.wait_for(anext(quick), _WAIT)
        assert taken.stored == delivery.stored
        assert taken.lease.epoch > delivery.lease.epoch
        with pytest.raises(LeaseLostError, match="slow"):
            await delivery.done()
        await taken.done()
        await quick.close()

    async def test_partitions_are_shared_evenly(self) -> None:
        store = await (await self.store()).open()
        share = store.backend.lease
        assert len(await share("g", 8, "a", 60)) == 8
        assert await share("g", 8, "b", 60) == []
        assert len(await share("g", 8, "a", 60)) == 4
        assert len(await share("g", 8, "b", 60)) == 4
        await share("g", 8, "c", 60)
        held = {name: len(await share("g", 8, name, 60)) for name in ("a", "b", "c", "a", "b", "c")}
        assert sorted(held.values()) == [2, 3, 3]
        await share("g", 8, "a", 0, range(8))
        held = {name: len(await share("g", 8, name, 60)) for name in ("b", "c", "b", "c")}
        assert sorted(held.values()) == [4, 4]

    # --- life ------------------------------------------------------------------------------------------------

    async def test_another_store_finds_what_was_stored(self) -> None:
        store, events = await self.store(), counted(3)
        await store.append("a", events)
        other = await self.store()
        assert ids(await listed(other.read_stream("a"))) == ids(events)
        assert (await other.append("a", events)).stored is False

    async def test_a_closed_store_says_so(self) -> None:
        store = await self.store()
        await store.append("a", counted(1))
        await store.close()
        await store.close()
        with pytest.raises(ClosedError):
            await store.append("a", counted(1))
        with pytest.raises(ClosedError):
            await listed(store.read_all())

    async def test_closing_finishes_what_was_handed_over(self) -> None:
        store = await self.store()
        await store.append("first", counted(1))
        tasks = [asyncio.ensure_future(store.append(f"s{number}", counted(2))) for number in range(50)]
        await asyncio.sleep(0)
        await store.close()
        results = await asyncio.gather(*tasks)
        assert len(results) == 50
        assert len(await listed((await self.store()).read_all())) == 101

    # --- the model -------------------------------------------------------------------------------------------

    async def test_any_history_is_as_the_model_says(self) -> None:
        """Random appends, with random expectations and repeats, against lists in memory."""
        s, store = sourcing(), await self.store(page_size=7)
        loop = asyncio.get_running_loop()
        model: dict[str, list[str]] = {}
        log: list[str] = []
        pool = counted(12)
        histories = 0
        steps = st.lists(
            st.tuples(
                st.sampled_from("abc"),
                st.sampled_from(["any", "none", "exists", "right", "wrong", "earlier"]),
                st.lists(st.sampled_from(pool), max_size=4),
                st.booleans(),
            ),
            max_size=12,
        )

        async def play(history: list[tuple[str, str, list[Counted], bool]]) -> None:
            nonlocal histories
            histories += 1
            for name, word, chosen, fresh in history:
                stream = f"{histories}-{name}"
                events = [Counted(number=event.number) for event in chosen] if fresh else chosen
                present = model.setdefault(stream, [])
                version = len(present)
                expected = {
                    "any": s.ANY, "none": s.NO_STREAM, "exists": s.STREAM_EXISTS, "right": version,
                    "wrong": version + 2, "earlier": max(version - 2, 0),
                }[word]  # fmt: skip
                outcome = judge(s, present, ids(events), expected)
                if outcome == "conflict":
                    with pytest.raises(VersionConflictError) as caught:
                        await store.append(stream, events, expected=expected)
                    assert caught.value.actual == version
                    continue
                result = await store.append(stream, events, expected=expected)
                assert result.stored is (outcome == "store" and bool(events))
                if outcome == "store":
                    present += ids(events)
                    log.extend(ids(events))
                assert result.version == len(present)
            for stream in {f"{histories}-{step[0]}" for step in history}:
                stored = await listed(store.read_stream(stream))
                assert ids(stored) == model[stream]
                assert [one.aggregate_version for one in stored] == list(range(1, len(stored) + 1))

        @settings(
            max_examples=self.max_examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(steps)
        def run(history: list[tuple[str, str, list[Counted], bool]]) -> None:
            asyncio.run_coroutine_threadsafe(play(history), loop).result()

        await asyncio.to_thread(run)
        stored = await listed(store.read_all())
        assert ids(stored) == log
        assert ids(await listed(store.read_all(backwards=True))) == log[::-1]


def judge(s: Any, present: list[str], new: list[str], expected: Any) -> str:
    """What has to become of an append: ``store``, ``repeat`` or ``conflict``."""
    version, count = len(present), len(new)
    exact = {s.NO_STREAM: 0}.get(expected, expected)
    if isinstance(exact, int):
        if exact == version:
            return "store"
        repeat = exact < version and count and present[exact : exact + count] == new
        return "repeat" if repeat else "conflict"
    if count and set(new) & set(present):
        there = any(present[start : start + count] == new for start in range(version))
        return "repeat" if there else "conflict"
    return "conflict" if exact is s.STREAM_EXISTS and not version else "store"
