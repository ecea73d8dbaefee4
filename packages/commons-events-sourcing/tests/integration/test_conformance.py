"""Other event stores' behaviours, where COMMONS_EVENTS_CONFORMANCE names the folder that holds them.

The sequences of expected versions are played as they are written. The others are words; each has its test here, or in
the contract, under the behaviour's id, and one test looks that none is forgotten.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from commons_events import Event
from commons_events.errors import CheckpointError, VersionConflictError
from commons_events.sourcing import ANY, NO_STREAM, STREAM_EXISTS, Append, EventStore, StoredEvent
from commons_events.testing import eventually

from .stores import Place, place  # noqa: F401

VARIABLE = "COMMONS_EVENTS_CONFORMANCE"
FOLDER = Path(os.environ.get(VARIABLE, "/nonexistent")) / "event_sourcing"
CASES: dict[str, list[dict[str, Any]]] = (
    json.loads((FOLDER / "behaviours.json").read_text("utf-8")) if FOLDER.is_dir() else {}
)
needs_cases = pytest.mark.skipif(not CASES, reason=f"{VARIABLE} names no folder with behaviours of event stores")
pytestmark = pytest.mark.asyncio
WAIT = 60.0
EXPECTED = {"any": ANY, "no_stream": NO_STREAM, "stream_exists": STREAM_EXISTS}

HERE = Path(__file__).read_text("utf-8")
CONTRACT = {
    "pyes-20": "test_readers_miss_nothing_while_many_write",
    "pyes-27": "test_two_big_appends_do_not_mix",
    "gap-04": "test_readers_miss_nothing_while_many_write",
    "esdb-v07": "test_a_deleted_stream_is_gone_and_stays_so",
    "esdb-v13": "test_a_deleted_stream_is_gone_and_stays_so",
    "esdb-v14": "test_many_events_at_once",
    "esdb-v16": "test_a_repeat_from_an_iterator_that_raises_stores_nothing",
}
"""Behaviours that the published contract tests."""


class Happened(Event):
    event_type = "tests.conformance.happened"
    number: int = 0


class First(Happened):
    event_type = "tests.conformance.first"


class Second(Happened):
    event_type = "tests.conformance.second"


class Third(Happened):
    event_type = "tests.conformance.third"


async def versions(store: EventStore, stream: str, **bounds: Any) -> list[int]:
    return [stored.aggregate_version async for stored in store.read_stream(stream, **bounds)]


async def positions(store: EventStore, **bounds: Any) -> list[int]:
    return [stored.position async for stored in store.read_all(**bounds)]


@needs_cases
@pytest.mark.parametrize("case", CASES.get("expected_version_sequences", [None]), ids=lambda case: case and case["id"])
async def test_a_sequence_of_expected_versions(place: Place, case: dict[str, Any]) -> None:  # noqa: F811
    """The cases count a stream's revisions from 0; an expected revision r is our version r + 1."""
    events = [Happened(number=number) for number in range(case["events"])]
    async with place.opened() as store:

        async def append(step: dict[str, Any]) -> Any:
            expected = step["expected"]
            chosen = [events[number] for number in step["events"]]
            return await store.append("s", chosen, expected=EXPECTED.get(expected) or expected + 1)

        await append(case["first_append"])
        if "wrong" in case["expect"]:
            with pytest.raises(VersionConflictError):
                for step in case["then"]:
                    await append(step)
            return
        results = [await append(step) for step in case["then"]]
        idempotent = "idempotent" in case["expect"]
        assert all(result.stored is not idempotent for result in results)
        assert await store.stream_version("s") == int(case["expect"].split()[-1])


async def test_streams_pyes_00_to_10(place: Place) -> None:  # noqa: F811
    async with place.opened() as store:
        await store.append("a", [])  # 00
        assert await versions(store, "a", backwards=True, limit=1) == []  # 01
        event = Happened()
        await store.append("a", [event], expected=0)
        (stored,) = [stored async for stored in store.read_stream("a")]  # 02
        assert (stored.event_id, stored.aggregate_version, stored.event_type, stored.data) == (
            event.event_id, 1, event.event_type, event.to_json(),
        )  # fmt: skip
        for batch in ([Happened()], [Happened(), Happened()]):  # 03, 04
            with pytest.raises(VersionConflictError):
                await store.append("a", batch, expected=0)
        assert await versions(store, "a") == [1]
        with pytest.raises(Exception, match="twice"):  # 05: one version cannot be said twice; one stream neither
            await store.append_many([Append("a", [Happened()], 1), Append("a", [Happened()], 1)])
        assert await versions(store, "a") == [1]
        await store.append("a", [Happened(), Happened()], expected=1)
        assert await versions(store, "a") == [1, 2, 3]  # 06
        assert await versions(store, "a", backwards=True, limit=1) == [3]  # 07
        assert await versions(store, "a", to_version=2, backwards=True, limit=1) == [2]  # 08
        assert await versions(store, "a", from_version=2, to_version=2) == [2]  # 09
        assert await versions(store, "b") == []  # 10
        await store.append("b", [Happened()], expected=0)
        assert await versions(store, "b") == [1]


async def test_the_log_pyes_11_to_19(place: Place) -> None:  # noqa: F811
    async with place.opened() as store:
        await store.append("before", [Happened()])
        m = await store.head()
        assert await positions(store, from_position=m + 1, limit=3) == []  # 11
        assert await positions(store, from_position=m + 1, limit=3, types=[First]) == []
        result = await store.append("a", [First(), Second()], expected=0)
        assert (result.first_position, result.last_position) == (m + 1, m + 2)  # 12
        result = await store.append("b", [Third()], expected=0)
        assert result.last_position == m + 3  # 13
        with pytest.raises(VersionConflictError):  # 14
            await store.append("b", [Third()], expected=0)
        entries = [stored async for stored in store.read_all(from_position=m + 1, limit=3)]  # 15
        assert [(e.position - m, e.stream.id, e.event_type) for e in entries] == [
            (1, "a", First.event_type), (2, "a", Second.event_type), (3, "b", Third.event_type),
        ]  # fmt: skip
        for types, found in (
            ([First, Second, Third], [1, 2, 3]), ([First], [1]), ([Second], [2]), ([Third], [3]),
            ([First, Third], [1, 3]),
        ):  # fmt: skip
            assert await positions(store, from_position=m + 1, types=types) == [m + one for one in found]  # 16
        assert await store.head() == m + 3  # 17
        for start, limit, found in ((1, 1, [1]), (2, 1, [2]), (2, 2, [2, 3]), (3, 1, [3])):  # 18
            assert await positions(store, from_position=m + start, limit=limit) == [m + one for one in found]
        assert await positions(store, from_position=m + 2, to_position=m + 2, limit=10) == [m + 2]  # 19
        assert await positions(store, from_position=m + 1, to_position=m + 2, limit=10) == [m + 1, m + 2]
        assert (await store.append("b", [Third()], expected=1)).first_position > m + 3


async def test_tracking_pyes_21_to_26(place: Place) -> None:  # noqa: F811
    async with place.opened() as store:
        assert await store.checkpoint("upstream") == 0  # 21

        async def track(stream: str, count: int, position: int | None) -> None:
            async with store.transaction() as transaction:
                await transaction.append(stream, [Happened() for _ in range(count)])
                if position is not None:
                    await transaction.save_checkpoint("upstream", position)

        await track("a", 2, 1)
        assert await store.checkpoint("upstream") == 1  # 22
        with pytest.raises(CheckpointError):
            await track("b", 1, 1)
        assert (await store.checkpoint("upstream"), await store.stream_version("b")) == (1, 0)  # 23
        await track("b", 1, 2)
        assert await store.checkpoint("upstream") == 2  # 24
        await track("b", 1, None)
        assert (await store.checkpoint("upstream"), await store.stream_version("b")) == (2, 2)  # 25
        assert [position <= await store.checkpoint("upstream") for position in (1, 2, 3)] == [True, True, False]  # 26


async def test_expected_versions_esdb_v00_to_v17(place: Place) -> None:  # noqa: F811
    async with place.opened() as store:
        for expected in (ANY, NO_STREAM):  # 00, 02
            for _ in range(2):
                assert (await store.append("none", [], expected=expected)).version == 0
        assert (await store.append("v01", [Happened()], expected=ANY)).version == 1
        assert (await store.append("v03", [Happened()], expected=NO_STREAM)).version == 1
        four = [Happened() for _ in range(4)]
        assert [(await store.append("v04", four)).version for _ in range(2)] == [4, 4]
        same = Happened()
        assert (await store.append("v05", [same] * 6)).version == 6
        assert [(await store.append("v06", [same] * 6, expected=NO_STREAM)).version for _ in range(2)] == [6, 6]
        assert (await store.append("v01", [Happened()], expected=1)).version == 2  # 08
        assert (await store.append("v03", [Happened()], expected=ANY)).version == 2  # 09
        with pytest.raises(VersionConflictError) as caught:
            await store.append("v03", [Happened()], expected=999)
        assert (caught.value.expected, caught.value.actual) == (999, 2)  # 10
        assert (await store.append("v05", [Happened()], expected=STREAM_EXISTS)).version == 7  # 11
        with pytest.raises(VersionConflictError) as caught:
            await store.append("v12", [Happened()], expected=STREAM_EXISTS)
        assert caught.value.actual == 0
        with pytest.raises(VersionConflictError):  # 15: as an error, as everywhere
            await store.append("v15", [Happened()], expected=7)
        with pytest.raises(TimeoutError):  # 17
            async with asyncio.timeout(0):
                await store.append("v17", [Happened()])


class Reader:
    """Follows the whole log."""

    def __init__(self, store: EventStore, after: int = 0) -> None:
        self.seen: list[StoredEvent] = []
        self.task = asyncio.ensure_future(self._follow(store, after))

    async def _follow(self, store: EventStore, after: int) -> None:
        async for stored in store.subscribe(after=after, poll_interval=0.05):
            self.seen.append(stored)  # it never ends

    @property
    def streams(self) -> list[str]:
        return [stored.stream.id for stored in self.seen]

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


@pytest.fixture
def shared(postgres_database: str) -> str:
    """A PostgreSQL database: elsewhere there is one writer at a time, and no gap to fall into."""
    return postgres_database


async def test_commit_order_differs_from_the_sequences_gap_01(shared: str) -> None:
    async with EventStore(shared) as one, EventStore(shared) as two:
        reader = Reader(two)
        async with one.transaction() as transaction:
            first = await transaction.append("t1", [Happened()])
            second = await two.append("t2", [Happened()])
            assert second.first_position > first.last_position
            await eventually(lambda: two.backend._watermark.stored >= second.first_position, timeout=WAIT)  # type: ignore[attr-defined]
            assert reader.seen == []
        await eventually(lambda: len(reader.seen) == 2, timeout=WAIT)
        assert reader.streams == ["t1", "t2"]
        await reader.stop()


async def test_a_rolled_back_transaction_leaves_a_hole_gap_02(shared: str) -> None:
    async with EventStore(shared) as one, EventStore(shared) as two:
        reader = Reader(two)
        with suppress(ZeroDivisionError):
            async with one.transaction() as transaction:
                lost = await transaction.append("t1", [Happened()])
                raise ZeroDivisionError
        kept = await two.append("t2", [Happened()])
        assert kept.first_position > lost.last_position
        await eventually(lambda: reader.streams == ["t2"], timeout=WAIT)
        await reader.stop()


async def test_a_long_transaction_holds_back_the_tail_only_gap_03(shared: str) -> None:
    async with EventStore(shared) as one, EventStore(shared) as two:
        for number in range(3):
            await two.append(f"before-{number}", [Happened()])
        reader = Reader(two)
        await eventually(lambda: len(reader.seen) == 3, timeout=WAIT)
        async with one.transaction() as transaction:
            await transaction.append("t1", [Happened()])
            last = [await two.append(f"t{number}", [Happened()]) for number in range(2, 51)][-1]
            await eventually(lambda: two.backend._watermark.stored >= last.last_position, timeout=WAIT)  # type: ignore[attr-defined]
            assert len(reader.seen) == 3
        await eventually(lambda: len(reader.seen) == 53, timeout=WAIT)
        assert reader.streams[3:] == [f"t{number}" for number in range(1, 51)]
        await reader.stop()


async def test_an_unrelated_long_transaction_holds_nobody_back(shared: str) -> None:
    import psycopg

    async with EventStore(shared) as store, await psycopg.AsyncConnection.connect(shared) as other:
        await other.execute("CREATE TABLE elsewhere (n int)")
        await other.commit()
        await other.execute("INSERT INTO elsewhere VALUES (1)")
        with suppress(ZeroDivisionError):
            async with store.transaction() as transaction:
                await transaction.append("hole", [Happened()])
                raise ZeroDivisionError
        await store.append("a", [Happened()])
        reader = Reader(store)
        await eventually(lambda: reader.streams == ["a"], timeout=WAIT)
        await reader.stop()


async def test_dying_between_handling_and_saving_gap_05(place: Place) -> None:  # noqa: F811
    """Without tracking the event comes again; with tracking its effect is there once."""
    async with place.opened() as store:
        await store.append("a", [Happened()])
        for _ in range(2):
            handled = await anext(aiter(store.subscribe(after=await store.checkpoint("reader"))))
            assert handled.position == 1
            with suppress(ZeroDivisionError):
                async with store.transaction() as transaction:
                    await transaction.append("effect", [Happened()])
                    await transaction.save_checkpoint("reader", handled.position)
                    raise ZeroDivisionError  # dies before its commit
        assert await store.stream_version("effect") == 0


@needs_cases
async def test_no_behaviour_is_forgotten() -> None:
    here = HERE
    from commons_events.testing.contracts import EventStoreContract

    spans = {"pyes": [(0, 19), (21, 26)], "esdb-v": [(0, 17)]}
    for case in (*CASES["recorder"], *CASES["postgres_gaps"], *CASES["expected_version"]):
        name: str = case["id"]
        family, number = ("esdb-v", name[6:]) if name.startswith("esdb-v") else tuple(name.split("-"))
        covered = any(low <= int(number) <= high for low, high in spans.get(family, ()))
        in_contract = name in CONTRACT and hasattr(EventStoreContract, CONTRACT[name])
        assert covered or in_contract or f"{family}_{number}" in here, f"{name}: {case}"
