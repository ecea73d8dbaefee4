"""What the store is given and cannot mean: refused at once, by the name of what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from commons_events import Event
from commons_events.errors import ConfigurationError, InvalidVersionError, MissingDistributionError
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


@pytest.mark.parametrize("bad", [0, -1, 1.5, "5", True, None])
@pytest.mark.parametrize("setting", ["connections", "write_connections"])
async def test_connections_are_counted(setting: str, bad: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{setting} is .*whole number"):
        EventStore("postgresql://localhost/x", **{setting: bad})


async def test_without_psycopg_it_is_said_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingDistributionError, match=r'pip install "psycopg\[binary\]"'):
        EventStore("postgresql://localhost/events")


@pytest.mark.parametrize("bad", [-1, "x", True, None, float("nan")])
async def test_time_limits_of_a_database_are_numbers_of_seconds(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="busy_timeout is .*number of seconds"):
        EventStore("sqlite://", busy_timeout=bad)
    with pytest.raises(ConfigurationError, match="blocking_limit is .*number of seconds"):
        EventStore("sqlite://", blocking_limit=bad)
    with pytest.raises(ConfigurationError, match="connect_timeout is .*number of seconds"):
        EventStore("postgresql://localhost/x", connect_timeout=bad)


@pytest.mark.parametrize("seconds", [0, float("inf")])
async def test_a_time_limit_may_be_none_at_all_or_endless(tmp_path: Path, seconds: float) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    async with EventStore(url, busy_timeout=seconds, blocking_limit=seconds) as store:
        assert await store.head() == 0
    EventStore("postgresql://localhost/x", connect_timeout=float("inf"))


@pytest.mark.parametrize("bad", ["bogus", 5, True, ""])
async def test_how_commits_wait_is_one_of_a_few_words(bad: Any) -> None:
    for value in (bad, None):
        with pytest.raises(ConfigurationError, match="synchronous is .*FULL"):
            EventStore("sqlite://", synchronous=value)
    with pytest.raises(ConfigurationError, match="synchronous_commit is .*remote_apply"):
        EventStore("postgresql://localhost/x", synchronous_commit=bad)
    EventStore("postgresql://localhost/x", synchronous_commit="OFF")


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
