"""Appends that are gathered: none waits for one that it does not depend on, nor passes one of its stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from commons_events.sourcing import ANY, AppendResult, StreamId
from commons_events.sourcing._group_commit import ALONE, Alone, GroupCommit, Outcome
from commons_events.sourcing._types import PreparedAppend

WAIT = 20.0


def appending(stream: str) -> PreparedAppend:
    return PreparedAppend(StreamId(stream), (), ANY)


def stored(append: PreparedAppend, version: int = 1) -> AppendResult:
    return AppendResult(append.stream, version, version, version, version)


@pytest.mark.asyncio
@pytest.mark.parametrize("closing", [False, True])
async def test_an_append_to_be_tried_alone_does_not_wait_behind_another_such_one(closing: bool) -> None:
    free = asyncio.Event()

    async def write(batch: Sequence[PreparedAppend]) -> Sequence[Outcome | Alone]:
        if len(batch) > 1:
            await asyncio.sleep(0.05)  # longer than another lane is waited for
            return [ALONE for _ in batch]
        if batch[0].stream.id == "held":
            await free.wait()
        return [stored(append) for append in batch]

    commits = GroupCommit(write, lanes=2)
    held, other, behind = (commits.submit(appending(stream)) for stream in ("held", "other", "held"))
    close = asyncio.ensure_future(commits.close() if closing else asyncio.sleep(0))
    async with asyncio.timeout(WAIT):
        await other
        assert not held.done()
        assert not behind.done()
        free.set()
        await asyncio.gather(held, behind, close)
        await commits.close()


@pytest.mark.asyncio
async def test_many_appends_to_one_stream_are_written_in_order_and_without_looking_at_all_of_them_each_time() -> None:
    written = 0

    async def write(batch: Sequence[PreparedAppend]) -> Sequence[Outcome | Alone]:
        nonlocal written
        assert not commits._waiting  # among which the next batch is looked for
        await asyncio.sleep(0)
        assert [append.stream.id for append in batch] == ["busy"]
        written += 1
        return [stored(append, written) for append in batch]

    commits, count = GroupCommit(write, lanes=4), 2_000
    async with asyncio.timeout(WAIT):
        results = await asyncio.gather(*(commits.submit(appending("busy")) for _ in range(count)))
    assert [result.version for result in results] == list(range(1, count + 1))
    await commits.close()


@pytest.mark.asyncio
async def test_what_fails_or_is_cancelled_lets_the_next_to_its_stream_come() -> None:
    async def write(batch: Sequence[PreparedAppend]) -> Sequence[Outcome | Alone]:
        await asyncio.sleep(0)
        if failures:
            raise failures.pop()
        return [stored(append) for append in batch]

    failures = [OSError()]
    commits = GroupCommit(write)
    first, second, third = (commits.submit(appending("a")) for _ in range(3))
    second.cancel()
    async with asyncio.timeout(WAIT):
        with pytest.raises(OSError):  # noqa: PT011  # the very one
            await first
        assert (await third).version == 1
        await commits.close()
    assert not commits._behind
