"""Appends to a database that one thread writes: which of them are written in the event loop's own thread, and how."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from commons_events.errors import ClosedError
from commons_events.runtime import Runtime
from commons_events.sourcing import ANY, AppendResult, StreamId
from commons_events.sourcing._group_commit import Outcome
from commons_events.sourcing._thread import DatabaseThread
from commons_events.sourcing._thread_commit import ThreadCommit
from commons_events.sourcing._types import PreparedAppend, PreparedEvent

pytestmark = pytest.mark.asyncio
WAIT = 20.0


class Clock(Runtime):
    """Stands but for what is written."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


class Interrupted(BaseException):
    """As KeyboardInterrupt, which a test had better not raise."""


class Database:
    """Writes down who wrote what; each append takes ``took`` seconds of the clock."""

    def __init__(self, limit: float) -> None:
        self.clock = Clock()
        self.took = 0.0
        self.fails: list[BaseException] = []
        self.held = False
        """By another process."""
        self.batches: list[tuple[str, list[str]]] = []
        self.told: list[int] = []
        self.at_work = threading.Event()
        """The thread has come to a batch."""
        self.free = threading.Event()
        """It goes on with it."""
        self.free.set()
        self.thread = DatabaseThread("database")
        self.commits = ThreadCommit(
            self.thread, self._write, self._write_now, self.told.append, limit=limit, runtime=self.clock
        )

    def _write(self, appends: Sequence[PreparedAppend]) -> Sequence[Outcome]:
        self.at_work.set()
        assert self.free.wait(WAIT)
        return self._stored("thread", appends)

    def _write_now(self, append: PreparedAppend) -> Outcome | None:
        return None if self.held else self._stored("loop", [append])[0]

    def _stored(self, who: str, appends: Sequence[PreparedAppend]) -> Sequence[Outcome]:
        assert who == ("thread" if threading.current_thread().name == "database" else "loop")
        self.batches.append((who, [append.stream.id for append in appends]))
        self.clock.seconds += self.took
        if self.fails:
            raise self.fails.pop()
        at = len(self.batches)
        return [AppendResult(append.stream, at, at, at, at) for append in appends]

    async def append(self, stream: str = "a") -> AppendResult:
        return await self.commits.submit(PreparedAppend(StreamId(stream), (), ANY))

    def who(self) -> list[str]:
        return [who for who, _ in self.batches]


@asynccontextmanager
async def database(limit: float = math.inf) -> AsyncIterator[Database]:
    made = Database(limit)
    async with asyncio.timeout(WAIT):
        try:
            yield made
            await made.commits.close()
        finally:
            made.free.set()
            await made.thread.stop()


async def test_one_that_is_alone_and_short_is_written_in_the_loop_and_lets_others_run_each_time() -> None:
    async with database() as db:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.create_task(other())
        for number in range(1, 11):
            assert (await db.append()).last_position == number
        running.cancel()
        assert db.who() == ["loop"] * 10
        assert db.told == list(range(1, 11))
        assert turns >= 10


async def test_with_a_limit_of_nothing_all_is_left_to_the_thread() -> None:
    async with database(0.0) as db:
        for _ in range(3):
            await db.append()
        assert db.who() == ["thread"] * 3


async def test_what_takes_long_is_left_to_the_thread_until_it_does_not_any_more() -> None:
    async with database(0.002) as db:
        db.took = 0.001
        await db.append()
        assert db.who() == ["thread"], "nothing is known yet"
        await db.append()
        db.took = 0.2
        await db.append()
        assert db.who()[1:] == ["loop", "loop"]
        for _ in range(5):
            await db.append()
        assert set(db.who()[3:]) == {"thread"}
        db.took = 0.001
        for _ in range(100):
            await db.append()
        assert db.who()[8] == "thread"
        assert db.who()[-1] == "loop"


async def test_a_larger_one_is_not_taken_for_as_short_as_small_ones() -> None:
    async with database(0.002) as db:
        for _ in range(3):
            await db.append()
        event = PreparedEvent("id", "kept", "1.0.0", "json", b"x" * 10_000, (), datetime.now(UTC))
        large = PreparedAppend(StreamId("a"), [event], ANY)
        for _ in range(2):
            await db.commits.submit(large)
        assert db.who() == ["thread", "loop", "loop", "thread", "loop"]


async def test_several_that_come_together_share_a_batch_in_the_thread() -> None:
    async with database() as db:
        await asyncio.gather(*(db.append(f"s{number}") for number in range(5)))
        assert db.batches == [("thread", [f"s{number}" for number in range(5)])]
        await db.append()
        assert db.who() == ["thread", "loop"]


async def test_those_to_one_stream_keep_their_order() -> None:
    async with database() as db:
        results = await asyncio.gather(*(db.append() for _ in range(5)), db.append())
        assert [result.version for result in results] == [1, 2, 3, 4, 5, 6]


async def test_one_that_another_process_holds_up_is_left_to_the_thread() -> None:
    async with database() as db:
        db.held = True
        await db.append()
        db.held = False
        await db.append()
        assert db.who() == ["thread", "loop"]


async def test_one_that_fails_is_told_and_the_next_one_goes_on() -> None:
    async with database() as db:
        db.fails.append(OSError("full"))
        with pytest.raises(OSError, match="full"):
            await db.append()
        await db.append()
        assert db.who() == ["loop", "loop"]
        assert db.told == [2]


async def test_one_that_is_cancelled_before_it_is_written_is_written_and_nothing_stands_still() -> None:
    async with database() as db:
        appending = asyncio.create_task(db.append("cancelled"))
        await asyncio.sleep(0)
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending
        await db.append("next")
        assert [stream for _, streams in db.batches for stream in streams] == ["cancelled", "next"]


async def test_a_turn_that_was_asked_for_comes_first() -> None:
    async with database() as db:
        ended = False

        async def turn() -> None:
            nonlocal ended
            async with db.commits.turn():
                for _ in range(3):
                    await asyncio.sleep(0)
                    assert db.batches == []
                ended = True

        taking = asyncio.create_task(turn())
        appending = asyncio.create_task(db.append())
        await appending
        assert ended
        await taking
        assert db.who() == ["thread"]


async def test_a_turn_that_is_asked_for_later_does_not_overtake_an_append() -> None:
    async with database() as db:

        async def turn() -> None:
            async with db.commits.turn():
                assert db.batches == [("thread", ["a"])]

        appending = asyncio.create_task(db.append())
        await asyncio.gather(turn(), appending)


async def test_closing_waits_for_one_that_lets_others_go_first() -> None:
    async with database() as db:
        appending = asyncio.create_task(db.append())
        await asyncio.sleep(0)
        await db.commits.close()
        assert (await appending).version == 1
        with pytest.raises(ClosedError):
            await db.append()


async def test_what_comes_while_the_thread_writes_waits_for_it() -> None:
    async with database() as db:
        db.free.clear()
        first = [asyncio.create_task(db.append(stream)) for stream in "ab"]
        await asyncio.to_thread(db.at_work.wait, WAIT)
        later = [asyncio.create_task(db.append(stream)) for stream in "cd"]
        await asyncio.sleep(0)
        assert db.batches == []
        db.free.set()
        await asyncio.gather(*first, *later)
        assert [sorted(streams) for _, streams in db.batches] == [["a", "b"], ["c", "d"]]


async def test_what_is_no_exception_of_the_append_s_leaves_nothing_standing() -> None:
    async with database() as db:
        db.fails.append(Interrupted())
        with pytest.raises(Interrupted):
            await db.append()
        await db.append()
        assert db.who() == ["loop", "loop"]
