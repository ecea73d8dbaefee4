"""Events of several formats, with and without tags, in one append, whatever way the store writes it."""

from __future__ import annotations

import pytest

from commons_events import Event, EventSchema
from commons_events.sourcing import Append, EventStore, NewEvent, StoredEvent, StreamId

from .stores import Place, place  # noqa: F401

pytestmark = pytest.mark.asyncio

TEXT = "ünïcode \U0001f600 'quoted' \"twice\" back\\slash \x1e\x1f {x, y} %s $1 \n end"


class Plain(Event):
    event_type = "formats.plain"
    text: str


@EventSchema(name="formats.binary", version="1.0.0", schema_type="avro")
class Binary(Event):
    text: str


def some(count: int, mix: str) -> list[NewEvent]:
    """Events in turns: JSON without tags, JSON with one, Avro with two."""
    kinds = {
        "plain": [(Plain, ())],
        "tagged": [(Plain, ()), (Plain, ("customer:1 ü{},\"'",))],
        "binary": [(Binary, ()), (Binary, ("a", "b"))],
        "mixed": [(Plain, ()), (Plain, ("a",)), (Binary, ("a", "b"))],
    }[mix]
    found = []
    for number in range(count):
        cls, tags = kinds[number % len(kinds)]
        found.append(NewEvent(cls(text=f"{number} {TEXT}"), tags))
    return found


def same(stored: list[StoredEvent], given: list[NewEvent]) -> None:
    assert [one.event() for one in stored] == [new.event for new in given]
    assert [one.data for one in stored] == [new.event.serialize() for new in given]
    assert [one.tags for one in stored] == [new.tags for new in given]
    assert [one.timestamp for one in stored] == [new.event.timestamp for new in given]
    positions = [one.position for one in stored]
    assert positions == sorted(set(positions))


async def read(store: EventStore, stream: StreamId) -> list[StoredEvent]:
    return [one async for one in store.read_stream(stream)]


@pytest.mark.parametrize("mix", ["plain", "tagged", "binary", "mixed"])
async def test_they_come_back_as_they_were(place: Place, mix: str) -> None:  # noqa: F811
    async with place.opened() as store:
        for count in (1, 2, 7, 600):
            stream = StreamId(f"s{count}", "F")
            first, second = some(count, mix), some(count, mix)
            done = await store.append(stream, first, expected=0)
            assert (done.version, done.last_position - done.first_position + 1) == (count, count)
            done = await store.append(stream, second, expected=count)
            same(await read(store, stream), [*first, *second])
            async with store.transaction() as transaction:
                third = some(min(count, 3), mix)
                await transaction.append(stream, third, expected=done.version)
            same((await read(store, stream))[done.version :], third)
        given = {StreamId(f"many{number}"): some(number, mix) for number in range(1, 4)}
        await store.append_many([Append(stream, events, 0) for stream, events in given.items()])
        for stream, events in given.items():
            same(await read(store, stream), events)
