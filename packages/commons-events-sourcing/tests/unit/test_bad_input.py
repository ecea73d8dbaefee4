"""What the store is given and cannot mean: refused at once, by the name of what is wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from commons_events import Event
from commons_events.errors import ConfigurationError, InvalidVersionError
from commons_events.sourcing import AggregateRoot, Append, EventStore, NewEvent

pytestmark = pytest.mark.asyncio


class Noted(Event):
    event_type = "tests.noted"


class Notebook(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "500", True, None, float("nan")])
async def test_counts_are_whole_numbers_from_one_on(bad: Any) -> None:
    for setting in ("page_size", "max_event_bytes"):
        with pytest.raises(ConfigurationError, match=f"{setting} is .*whole number"):
            EventStore("memory://", **{setting: bad})
    async with EventStore("memory://") as store:
        with pytest.raises(ConfigurationError, match="partitions is .*at most 1,024"):
            store.subscribe_group("g", partitions=bad)


@pytest.mark.parametrize("bad", [0, -1.0, "1", True, None, float("nan")])
async def test_pauses_are_numbers_of_seconds(bad: Any) -> None:
    async with EventStore("memory://") as store:
        with pytest.raises(ConfigurationError, match="poll_interval is"):
            store.subscribe(poll_interval=bad)
        with pytest.raises(ConfigurationError, match="lease_seconds is"):
            store.subscribe_group("g", lease_seconds=bad)


@pytest.mark.parametrize("version", [0, -1, 1.5, "1", True, 2**63])
async def test_an_aggregate_has_no_such_version(version: Any) -> None:
    async with EventStore("sqlite://") as store:
        with pytest.raises(InvalidVersionError, match="An aggregate's version"):
            await store.load(Notebook, "n", version=version)


async def test_an_append_takes_events_and_several_appends_are_appends() -> None:
    bad_events: list[Any] = [None, 5, Noted(), NewEvent(Noted())]
    bad_appends: list[Any] = [None, ("a", [Noted()]), Noted(), "a"]

    def many(append: Any) -> Callable[[Any], Awaitable[object]]:
        return lambda target: target.append_many([append])

    async with EventStore("memory://") as store, store.transaction() as transaction:
        for target in (store, transaction):
            for events in bad_events:
                with pytest.raises(TypeError, match="takes a list of events"):
                    await target.append("a", events)
                with pytest.raises(TypeError, match="takes a list of events"):
                    await many(Append("a", events))(target)
            for append in bad_appends:
                with pytest.raises(TypeError, match="takes a list of Append"):
                    await many(append)(target)
            with pytest.raises(TypeError, match="takes a list of Append, not str"):
                await target.append_many("ab")  # type: ignore[arg-type]
