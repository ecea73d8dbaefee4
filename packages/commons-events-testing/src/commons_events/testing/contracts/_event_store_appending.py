"""What is appended is stored as it is, once, all of it or nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from commons_events.errors import (
    AmbiguousStreamError,
    ConfigurationError,
    EventTooLargeError,
    InvalidStreamError,
    InvalidVersionError,
    StreamNotFoundError,
    VersionConflictError,
)
from commons_events.testing.contracts._event_store_case import (
    Counted,
    EventStoreCase,
    Noted,
    counted,
    ids,
    listed,
    sourcing,
)

__all__ = ["AppendingTests"]


class AppendingTests(EventStoreCase, contract=True):
    """Writing to streams."""

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
                assert caught.value.expected == expected
                assert await store.stream_version(name) == events

    async def test_the_highest_expected_version_is_a_conflict_too(self) -> None:
        s, store = sourcing(), await self.store()
        await store.append("a", counted(1))
        for expected in (2**63 - 1, 2**63 - 2, 2**62 + 1):
            for count in (1, 2, 600):
                for append in (
                    store.append("a", counted(count), expected=expected),
                    store.append_many([s.Append("a", counted(count), expected), s.Append("b", counted(1))]),
                    asyncio.gather(*(store.append(stream, counted(count), expected=expected) for stream in "ac")),
                ):
                    with pytest.raises(VersionConflictError) as caught:
                        await append
                    assert caught.value.expected == expected
        assert await store.head() == 1

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

    async def test_the_same_ids_are_the_same_events_whatever_else_they_hold(self) -> None:
        """What is stored stays as it was: a fact has its id once."""
        s, store, event = sourcing(), await self.store(), Counted(number=1)
        await store.append("a", [event], expected=0)
        other = Noted(event_id=event.event_id, text="another")
        for expected in (0, s.NO_STREAM, s.ANY, s.STREAM_EXISTS):
            assert (await store.append("a", [other], expected=expected)).stored is False
        (stored,) = await listed(store.read_stream("a"))
        assert stored.event() == event
        assert (await store.append("b", [other], expected=0)).stored is True  # another stream, another story

    async def test_a_transaction_may_hold_what_is_stored_and_what_is_new(self) -> None:
        s, store, old = sourcing(), await self.store(), counted(2)
        first = await store.append("old", old, expected=0)
        results = await store.append_many(
            [s.Append("before", counted(1), 0), s.Append("old", old, 0), s.Append("after", counted(2), 0)]
        )
        assert [(result.stored, result.version) for result in results] == [(True, 1), (False, 2), (True, 2)]
        assert results[1].first_position == first.first_position
        assert results[0].last_position < results[2].first_position
        with pytest.raises(VersionConflictError) as caught:  # a part of the batch is there, and it is not the beginning
            await store.append_many([s.Append("new", counted(1), 0), s.Append("old", [*old, Counted()], 0)])
        assert (caught.value.stream, caught.value.actual) == ("old", 2)
        assert await store.stream_version("new") == 0

    async def test_events_of_one_time_or_of_a_clock_that_goes_back_keep_their_order(self) -> None:
        store, now = await self.store(), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
        times = [now, now, now - timedelta(hours=1), datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
        for number, time in enumerate(times):
            await store.append("a", [Counted(number=number, timestamp=time)], expected=number)
        for reading in (store.read_stream("a"), store.read_all()):
            stored = await listed(reading)
            assert [one.timestamp for one in stored] == times
            assert [one.aggregate_version for one in stored] == [1, 2, 3, 4, 5]

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

    async def test_appends_of_one_store_to_one_stream_are_stored_in_the_order_of_their_calls(self) -> None:
        store, count = await self.store(), 40
        for turn in range(5):
            exact, any_version = f"exact-{turn}", f"any-{turn}"
            results = await asyncio.gather(
                *(
                    store.append(stream, counted(1, number), expected=expected)
                    for number in range(count)
                    for stream, expected in ((exact, number), (any_version, sourcing().ANY))
                )
            )
            assert [result.version for result in results[::2]] == list(range(1, count + 1))
            for stream in (exact, any_version):
                events = [stored.event() for stored in await store.fetch_stream(stream)]
                assert [event.number for event in events if isinstance(event, Counted)] == list(range(count))

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
