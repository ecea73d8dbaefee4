"""Reading streams and the log, and deleting streams."""

from __future__ import annotations

from typing import Any

import pytest

from commons_events.errors import (
    StreamDeletedError,
    StreamNotFoundError,
    UndecodableEventError,
    UnknownEventTypeError,
    VersionConflictError,
)
from commons_events.event import Event, migration, registry
from commons_events.testing.contracts._event_store_case import (
    Counted,
    EventStoreCase,
    Noted,
    TaggedEvent,
    counted,
    ids,
    listed,
    sourcing,
)

__all__ = ["ReadingTests"]


class ReadingTests(EventStoreCase, contract=True):
    """Reading, and what is gone."""

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

    async def test_filters_bounds_and_limits_hold_together(self) -> None:
        """Over pages that are full, over holes, and from both ends."""
        s, store = sourcing(), await self.store(page_size=3)
        for number in range(12):
            stream = s.StreamId(f"s{number % 4}", ("Order", "Invoice")[number % 2])
            event = Noted() if number % 3 == 0 else Counted(number=number)
            await store.append(stream, [s.NewEvent(event, ("even",) if number % 2 == 0 else ("odd", "ünï'\"{},"))])
        await store.delete_stream(s.StreamId("s1", "Invoice"))  # positions 2, 6 and 10
        everything = await listed(store.read_all())
        assert [one.position for one in everything] == [1, 3, 4, 5, 7, 8, 9, 11, 12]
        combinations: list[dict[str, Any]] = [
            {"types": [Noted], "tags": ["even"]},
            {"types": [Noted, Counted], "categories": ["Order", "Invoice"]},
            {"categories": ["Invoice"], "tags": ["ünï'\"{},", "odd"], "types": [Counted]},
            {"tags": ["even"]},
            {},
        ]
        for filters in combinations:
            kinds = {cls.event_type for cls in filters.get("types", (Noted, Counted))}
            for first, last in ((0, None), (2, 10), (6, 6), (3, 3), (10, 4)):
                wanted = [
                    one.position
                    for one in everything
                    if one.event_type in kinds
                    and one.stream.category in filters.get("categories", ("Order", "Invoice"))
                    and set(filters.get("tags", ())) <= set(one.tags)
                    and first <= one.position <= (last or 99)
                ]
                for limit in (None, 0, 1, 4):
                    for backwards in (False, True):
                        found = await listed(
                            store.read_all(
                                from_position=first, to_position=last, limit=limit, backwards=backwards, **filters
                            )
                        )
                        expected = (wanted[::-1] if backwards else wanted)[:limit]
                        assert [one.position for one in found] == expected, (filters, first, last, limit, backwards)

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
