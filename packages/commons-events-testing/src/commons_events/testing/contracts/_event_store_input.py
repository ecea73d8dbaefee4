"""What a program gets wrong is said at once, by an error of its own, and nothing is stored."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from commons_events.errors import (
    CapabilityError,
    ConfigurationError,
    EventTooLargeError,
    InvalidStreamError,
    InvalidVersionError,
    SerializationError,
)
from commons_events.event import Event
from commons_events.testing.contracts._event_store_case import Counted, EventStoreCase, counted, listed, sourcing

__all__ = ["InputTests"]


class OneWord(Event):
    """Says its tags wrongly."""

    event_type = "commons-events.contract.one-word"

    def event_tags(self) -> str:
        """One str in the place of several."""
        return "word"


class InputTests(EventStoreCase, contract=True):
    """Bad input."""

    async def test_one_in_the_place_of_several_is_refused(self) -> None:
        s, store, good = sourcing(), await self.store(), Counted()
        strange: Any
        for strange in (good, s.NewEvent(good)):
            with pytest.raises(TypeError, match=r"\[event\]"):
                await store.append("a", strange)
        for strange in (s.NewEvent(good, "word"), OneWord()):
            with pytest.raises(InvalidStreamError, match=r"\['word'\]"):
                await store.append("a", [good, strange])
        for wrong in ({"types": [7]}, {"types": [dict]}, {"types": Counted}, {"categories": "a"}, {"tags": "a"}):
            with pytest.raises(ConfigurationError):
                await listed(store.read_all(**wrong))
            with pytest.raises(ConfigurationError):
                store.subscribe(**wrong)
        assert await store.head() == 0

    async def test_bounds_that_cannot_be_are_refused_also_where_there_is_nothing_to_read(self) -> None:
        store = await self.store()
        for bad in (-1, 2**63, 1.5, "1", True):
            bound: Any = bad
            for reading in (
                store.read_stream("none", from_version=bound),
                store.read_stream("none", to_version=bound),
                store.read_stream("none", limit=bound),
                store.read_all(from_position=bound),
                store.read_all(to_position=bound),
                store.read_all(limit=bound),
            ):
                with pytest.raises(InvalidVersionError, match=str(bad)):
                    await listed(reading)
            with pytest.raises(InvalidVersionError):
                await store.fetch_stream("none", from_version=bound)
            with pytest.raises(InvalidVersionError):
                store.subscribe(after=bound)
            with pytest.raises(InvalidVersionError):
                await store.save_checkpoint("reader", bound)
            with pytest.raises(InvalidVersionError):
                await store.delete_stream("none", expected=bound)
        assert await store.checkpoints() == {}

    async def test_a_time_that_is_none_in_utc_is_refused(self) -> None:
        """Years before 1 or after 9999, which no database gives back: one such event would close the log to readers."""
        store = await self.store()
        east, west = timezone(timedelta(hours=5)), timezone(timedelta(hours=-5))
        late, early = datetime.max.replace(tzinfo=west), datetime.min.replace(tzinfo=east)
        for time in (late, early):
            refused, *good = await asyncio.gather(
                store.append("bad", [Counted(), Counted(timestamp=time)]),
                *(store.append(f"good{number}", counted(1)) for number in range(3)),
                return_exceptions=True,
            )
            assert isinstance(refused, SerializationError)
            assert "years 1 to 9999" in str(refused)
            assert not any(isinstance(one, BaseException) for one in good)
        async with store.transaction() as transaction:
            with pytest.raises(SerializationError, match=r"0001-01-01 00:00:00\+05:00"):
                await transaction.append("bad", [Counted(timestamp=early)])
        times = [datetime.max.replace(tzinfo=east), datetime.min.replace(tzinfo=west)]
        await store.append("edges", [Counted(timestamp=time) for time in times])
        assert [stored.timestamp for stored in await store.fetch_stream("edges")] == times
        assert len(await listed(store.read_all())) == 8

    async def test_waiting_for_no_time_is_refused(self) -> None:
        store = await self.store()
        for seconds in (0, -1, float("nan")):
            with pytest.raises(ConfigurationError, match="poll_interval"):
                store.subscribe_group("g", poll_interval=seconds)
            with pytest.raises(ConfigurationError, match="lease_seconds"):
                store.subscribe_group("g", lease_seconds=seconds)
            with pytest.raises(ConfigurationError, match="poll_interval"):
                store.subscribe(poll_interval=seconds)

    async def test_names_that_are_too_long_are_refused(self) -> None:
        s, store, long = sourcing(), await self.store(), "x" * 256
        with pytest.raises(InvalidStreamError, match="256 characters"):
            await store.append(s.StreamId("a", long), counted(1))
        with pytest.raises(InvalidStreamError, match="256 characters"):
            await store.append("a", [s.NewEvent(Counted(), (long,))])
        for call in (store.checkpoint(long), store.delete_checkpoint(long), store.find_stream(long)):
            with pytest.raises(InvalidStreamError, match="256 characters"):
                await call
        none: Any = None
        for prefix in (none, long, "a\0"):
            with pytest.raises(InvalidStreamError, match="prefix of checkpoints' names"):
                await store.checkpoints(prefix)
        with pytest.raises(InvalidStreamError, match=r"251 characters.*250"):  # the partition stands behind it
            store.subscribe_group("x" * 251)
        await store.append("a", counted(1))
        async with store.subscribe_group("x" * 250, partitions=1024) as group:
            await (await anext(group)).done()
        assert await store.head() == 1

    async def test_a_snapshot_that_cannot_be_kept_is_refused(self) -> None:
        s, store = sourcing(), await self.store()
        good = s.StoredSnapshot(
            stream=s.StreamId("a"), version=1, kind="A", data=b"x", taken_at=datetime(2026, 1, 2, tzinfo=UTC)
        )
        wrong: dict[str, Any]
        for wrong, error in (
            ({"version": -1}, InvalidVersionError),
            ({"stream": s.StreamId("")}, InvalidStreamError),
            ({"kind": "x" * 256}, InvalidStreamError),
        ):
            values = {
                "stream": good.stream, "version": good.version, "kind": good.kind, "data": good.data,
                "taken_at": good.taken_at, **wrong,
            }  # fmt: skip
            with pytest.raises(error):
                await store.save_snapshot(s.StoredSnapshot(**values))
            async with store.transaction() as transaction:
                with pytest.raises(error):
                    await transaction.save_snapshot(s.StoredSnapshot(**values))
        naive = s.StoredSnapshot(stream="a", version=1, kind="A", data=b"x", taken_at=datetime(2026, 1, 2))
        await store.save_snapshot(naive)  # a naive time means UTC, a str the stream of no category
        assert await store.snapshot("a", "A") == good

    async def test_what_is_refused_in_a_transaction_leaves_the_rest_of_it_be(self) -> None:
        store = await self.store(max_event_bytes=2_000)
        async with store.transaction() as transaction:
            await transaction.append("a", counted(1))
            for stream, events in (("", counted(1)), ("b", [Counted(), Counted(text="x" * 2_000)])):
                with pytest.raises((InvalidStreamError, EventTooLargeError)):
                    await transaction.append(stream, events)
            with pytest.raises(InvalidVersionError):
                await transaction.save_checkpoint("reader", -1)
            with pytest.raises(CapabilityError):  # by another way than the transaction's own
                await store.append("a", counted(1))
            await transaction.append("a", counted(1), expected=1)
        assert (await store.stream_version("a"), await store.stream_version("b"), await store.head()) == (2, 0, 2)

    async def test_a_copy_brings_no_event_that_is_larger_than_the_target_takes(self) -> None:
        s, store = sourcing(), await self.store(max_event_bytes=2_000)
        large = Counted(text="x" * 2_000)
        async with s.EventStore("memory://") as source:
            await source.append("small", counted(2))
            await source.append("large", [large])
            with pytest.raises(EventTooLargeError, match=rf"'{large.event_id}' .* 'large' has 2,... bytes.* 2,000"):
                await s.copy_events(source, store)
            assert (await store.head(), await store.checkpoint("copy")) == (0, 0)
            assert await s.copy_events(source, store, transform=lambda stored: Counted(number=stored.position)) == 3

    async def test_a_store_is_not_copied_onto_itself(self) -> None:
        store, again = await self.store(), await self.store()
        await store.append("a", counted(3))
        for target in (store, again):
            with pytest.raises(ConfigurationError, match="another database"):
                await sourcing().copy_events(store, target)
        assert await store.head() == 3
