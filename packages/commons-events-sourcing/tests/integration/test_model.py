"""Random use of a store against a model in plain lists: what a store says and what it gives back, step by step."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from commons_events import Event
from commons_events.errors import StreamDeletedError, StreamNotFoundError, VersionConflictError
from commons_events.sourcing import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    Append,
    AppendResult,
    EventStore,
    NewEvent,
    StoredEvent,
    StreamId,
)

from .stores import Place, place  # noqa: F401

pytestmark = pytest.mark.asyncio

if os.environ.get("COMMONS_EVENTS_CHAOS"):
    FIRST = random.randrange(2**32)
    SEEDS: Sequence[int] = range(FIRST, FIRST + 60)
else:
    SEEDS = range(2)
STEPS = 90


class Made(Event):
    event_type = "tests.model_made"


class Moved(Event):
    event_type = "tests.model_moved"


class Sold(Event):
    event_type = "tests.model_sold"


class Rare(Event):
    event_type = "tests.model_rare"


CLASSES = (Made, Moved, Sold, Rare)
TAGS = ("red", "blue", "grün", "'")
STREAMS = [StreamId(id, category) for id in ("a", "b", "c", "d") for category in ("", "Order", "Item")]


class Row(NamedTuple):
    position: int
    stream: StreamId
    version: int
    event_id: str
    event_type: str
    tags: tuple[str, ...]


class Model:
    """What a store has to hold."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.deleted: set[StreamId] = set()
        self.given = 0
        """The highest position that anyone was ever told."""

    def stream(self, stream: StreamId) -> list[Row]:
        return [row for row in self.rows if row.stream == stream]

    def refusal(self, append: Append) -> type[Exception] | None:
        """The error that it has to meet."""
        stream, version = self._of(append)
        if stream in self.deleted:
            return StreamDeletedError
        if self.repeat(append) is not None:
            return None
        present = {row.event_id for row in self.stream(stream)}
        anywhere = append.expected in (ANY, STREAM_EXISTS)
        if anywhere and present & {new.event.event_id for new in append.events}:  # type: ignore[union-attr]
            return VersionConflictError
        fits = {ANY: True, STREAM_EXISTS: version > 0, NO_STREAM: version == 0}.get(
            append.expected,  # type: ignore[arg-type]
            append.expected == version,
        )
        return None if fits else VersionConflictError

    def repeat(self, append: Append) -> list[Row] | None:
        """The rows that it has stored already."""
        rows = self.stream(self._of(append)[0])
        ids = [new.event.event_id for new in append.events]  # type: ignore[union-attr]
        if append.expected in (ANY, STREAM_EXISTS):
            starts: Sequence[int] = range(len(rows) - len(ids) + 1)
        else:
            starts = [0 if append.expected is NO_STREAM else append.expected]  # type: ignore[list-item]
        for start in starts:
            if ids and [row.event_id for row in rows[start : start + len(ids)]] == ids:
                return rows[start : start + len(ids)]
        return None

    def stored(self, append: Append, result: AppendResult) -> None:
        """Check what became of it, and take it in."""
        stream, version = self._of(append)
        assert result.stream == stream
        if (there := self.repeat(append)) is not None:
            assert result[1:] == (version, there[0].version, there[0].position, there[-1].position, False)
            return
        count = len(append.events)
        assert (result.version, result.first_version) == (version + count, version + 1)
        if not count:
            assert (result.first_position, result.last_position, result.stored) == (0, 0, False)
            return
        assert result.stored
        assert result.first_position > self.given
        assert result.last_position == result.first_position + count - 1
        self.given = result.last_position
        for at, new in enumerate(append.events):
            assert isinstance(new, NewEvent)
            event = new.event
            self.rows.append(
                Row(result.first_position + at, stream, version + at + 1, event.event_id, event.event_type, new.tags)
            )

    def delete(self, stream: StreamId) -> None:
        self.deleted.add(stream)
        self.rows = [row for row in self.rows if row.stream != stream]

    def _of(self, append: Append) -> tuple[StreamId, int]:
        assert isinstance(append.stream, StreamId)
        return append.stream, len(self.stream(append.stream))


def rows_of(events: Sequence[StoredEvent]) -> list[Row]:
    return [
        Row(one.position, one.stream, one.aggregate_version, one.event_id, one.event_type, one.tags) for one in events
    ]


class Walk:
    """One random use of a store, through two objects that know nothing of each other."""

    def __init__(self, place: Place, seed: int) -> None:  # noqa: F811
        self.place = place
        self.random = random.Random(seed)
        self.model = Model()
        self.made: list[Append] = []
        self.numbers = 0
        self.stores: list[EventStore] = []
        self.streams = self.random.sample(STREAMS, self.random.randint(2, len(STREAMS)))
        self.classes = self.random.choices(CLASSES[:3], k=2)

    @property
    def store(self) -> EventStore:
        store = self.random.choice(self.stores)
        store.page_size = self.random.choice((1, 2, 3, 7, 500))
        return store

    def new(self) -> NewEvent:
        self.numbers += 1
        cls = self.random.choice(self.classes) if self.random.random() < 0.95 else Rare
        tags = tuple(self.random.sample(TAGS, self.random.choice((0, 0, 1, 2))))
        return NewEvent(cls(event_id=f"e{self.numbers}"), tags)

    def append(self, stream: StreamId | None = None) -> Append:
        """A new one, the same as an earlier one, or one that is nearly the same."""
        pick = self.random
        of_stream = [one for one in self.made if stream in (None, one.stream)]
        if of_stream and pick.random() < 0.25:
            old = pick.choice(of_stream)
            events = list(old.events)
            change = pick.random()
            if change < 0.15:
                events = events[: len(events) // 2]
            elif change < 0.3:
                events.append(self.new())
            elif change < 0.4:
                events.reverse()
            expected = old.expected if pick.random() < 0.6 else self.expected(old.stream)  # type: ignore[arg-type]
            return Append(old.stream, tuple(events), expected)
        stream = stream or pick.choice(self.streams)
        count = pick.choice((0, 1, 1, 1, 2, 3, 5, 33, 70)) if pick.random() < 0.98 else 501
        append = Append(stream, tuple(self.new() for _ in range(count)), self.expected(stream))
        self.made.append(append)
        return append

    def expected(self, stream: StreamId) -> Any:
        version = len(self.model.stream(stream))
        exact = version if self.random.random() < 0.7 else max(0, version + self.random.choice((-3, -1, 1)))
        return self.random.choice((ANY, ANY, exact, exact, NO_STREAM, STREAM_EXISTS))

    async def one(self) -> None:
        append = self.append()
        refusal = self.model.refusal(append)
        if refusal is not None:
            with pytest.raises(refusal):
                await self.store.append(append.stream, append.events, expected=append.expected)
            return
        self.model.stored(append, await self.store.append(append.stream, append.events, expected=append.expected))

    def several(self) -> list[Append]:
        return [self.append(stream) for stream in self.random.sample(self.streams, min(len(self.streams), 3))]

    async def together(self) -> None:
        appends = self.several()
        refused = tuple({error for one in appends if (error := self.model.refusal(one)) is not None})
        if refused:
            with pytest.raises(refused):
                await self.store.append_many(appends)
            return
        self._take(appends, await self.store.append_many(appends))

    async def side_by_side(self) -> None:
        appends, store = self.several(), self.store
        results = await asyncio.gather(
            *(store.append(one.stream, one.events, expected=one.expected) for one in appends), return_exceptions=True
        )
        done: list[tuple[AppendResult, Append]] = []
        for append, result in zip(appends, results, strict=True):
            if isinstance(result, BaseException):
                assert type(result) is self.model.refusal(append)
            else:
                assert self.model.refusal(append) is None
                done.append((result, append))
        done.sort(key=lambda one: one[0].first_position)
        self._take([append for _, append in done], [result for result, _ in done])

    def _take(self, appends: Sequence[Append], results: Sequence[AppendResult]) -> None:
        for append, result in zip(appends, results, strict=True):
            self.model.stored(append, result)

    async def in_a_transaction(self) -> None:
        before = Model()
        before.rows, before.deleted, before.given = list(self.model.rows), set(self.model.deleted), self.model.given
        end = self.random.choice(("commit", "commit", "roll back"))
        try:
            async with self.store.transaction() as transaction:
                for _ in range(self.random.randint(1, 4)):
                    append = self.append()
                    refusal = self.model.refusal(append)
                    if refusal is not None:
                        with pytest.raises(refusal):
                            await transaction.append(append.stream, append.events, expected=append.expected)
                    else:
                        result = await transaction.append(append.stream, append.events, expected=append.expected)
                        self.model.stored(append, result)
                    stream = self.random.choice(self.streams)
                    assert rows_of(await transaction.fetch_stream(stream)) == self.model.stream(stream)
                if end != "commit":
                    raise KeyError(end)
        except KeyError:
            self.model = before

    async def delete(self) -> None:
        if self.random.random() < 0.5:
            return
        stream = self.random.choice(self.streams)
        version = len(self.model.stream(stream))
        expected = self.random.choice((None, version, version + 1))
        error: type[Exception] | None = None
        if stream in self.model.deleted:
            error = StreamDeletedError
        elif not version:
            error = StreamNotFoundError
        elif expected not in (None, version):
            error = VersionConflictError
        if error is not None:
            with pytest.raises(error):
                await self.store.delete_stream(stream, expected=expected)
            return
        await self.store.delete_stream(stream, expected=expected)
        self.model.delete(stream)

    async def reopen(self) -> None:
        if self.place.kind != "memory":
            at = self.random.randrange(len(self.stores))
            await self.stores[at].close()
            self.stores[at] = await self.place.store().open()

    async def read_a_stream(self) -> None:
        stream = self.random.choice(self.streams)
        rows = self.model.stream(stream)
        first, last = self._bounds(len(rows))
        found = [row for row in rows if first <= row.version and (last is None or row.version <= last)]
        fetched = await self.store.fetch_stream(stream, from_version=first, to_version=last)
        assert rows_of(fetched) == found
        backwards, limit = self.random.random() < 0.5, self.random.choice((None, 0, 1, 5, 100))
        read = self.store.read_stream(stream, from_version=first, to_version=last, backwards=backwards, limit=limit)
        assert rows_of([one async for one in read]) == (found[::-1] if backwards else found)[:limit]
        if stream not in self.model.deleted:
            assert await self.store.stream_version(stream) == len(rows)

    async def read_the_log(self) -> None:
        pick = self.random
        types = pick.sample(CLASSES, pick.choice((0, 0, 1, 2)))
        categories = pick.sample(("", "Order", "Item", "none"), pick.choice((0, 0, 1, 2)))
        tags = pick.sample(TAGS, pick.choice((0, 0, 0, 1, 2)))
        first, last = self._bounds(self.model.given)
        names = [cls.event_type for cls in types]
        found = [
            row
            for row in self.model.rows
            if first <= row.position
            and (last is None or row.position <= last)
            and (not types or row.event_type in names)
            and (not categories or row.stream.category in categories)
            and set(tags) <= set(row.tags)
        ]
        backwards, limit = pick.random() < 0.5, pick.choice((None, None, 0, 1, 5, 100))
        read = self.store.read_all(
            from_position=first, to_position=last, types=types, categories=categories, tags=tags,
            backwards=backwards, limit=limit,
        )  # fmt: skip
        assert rows_of([one async for one in read]) == (found[::-1] if backwards else found)[:limit]
        assert await self.store.head() == max((row.position for row in self.model.rows), default=0)

    def _bounds(self, high: int) -> tuple[int, int | None]:
        first = self.random.choice((0, 0, self.random.randint(0, high + 2)))
        return first, self.random.choice((None, None, self.random.randint(0, high + 40)))

    async def run(self) -> None:
        self.stores = [await self.place.store().open()]
        if self.place.kind != "memory":
            self.stores.append(await self.place.store().open())
        steps = (
            self.one, self.one, self.one, self.together, self.side_by_side, self.in_a_transaction, self.delete,
            self.reopen, self.read_a_stream, self.read_the_log, self.read_the_log,
        )  # fmt: skip
        try:
            for _ in range(STEPS):
                await self.random.choice(steps)()
            assert rows_of([one async for one in self.store.read_all()]) == self.model.rows
        finally:
            for store in self.stores:
                await store.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_store_does_what_its_model_does(place: Place, seed: int) -> None:  # noqa: F811
    await Walk(place, seed).run()
