"""`ThreadCommit`: group commit for a database that is written by one thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from commons_events.errors import ClosedError
from commons_events.runtime import Runtime
from commons_events.sourcing._group_commit import Outcome, Request, next_batch
from commons_events.sourcing._pace import Pace
from commons_events.sourcing._thread import DatabaseThread
from commons_events.sourcing._types import AppendResult, PreparedAppend

__all__ = ["ThreadCommit"]

_MOST = 1000
"""Events in one batch."""
_ROW = 256
"""Bytes that count for an event beside its data: its row's other columns, and its places in the indexes."""


class ThreadCommit:
    """Writes appends in batches, as `GroupCommit` does; but the thread itself takes what has come meanwhile.

    So an append costs the event loop one wake-up, and appends that come one after the other never make the thread wait
    for the loop. Whoever else uses the thread's connection takes turns with it: see `turn`.

    An append that is alone and short is written in the event loop's thread: the way to the other one and back takes
    longer than it does.

    Args:
        thread: the writer's.
        write: stores a batch, each stream once, in a transaction, and gives each append's outcome; in the thread.
        write_now: stores one, as ``write`` does, but in the event loop's thread and without waiting for another
            process; None where that cannot be, and nothing was written.
        told: called in the event loop after each batch, with the highest position that was stored.
        limit: seconds up to which an append is short: see `Pace`.
        runtime: whose clock says what they take.
    """

    def __init__(
        self,
        thread: DatabaseThread,
        write: Callable[[Sequence[PreparedAppend]], Sequence[Outcome]],
        write_now: Callable[[PreparedAppend], Outcome | None],
        told: Callable[[int], object],
        *,
        limit: float,
        runtime: Runtime,
    ) -> None:
        self._thread = thread
        self._write = write
        self._write_now = write_now
        self._told = told
        self._pace = Pace(limit)
        self._clock = runtime.monotonic
        self._waiting: deque[Request] = deque()
        self._lock = asyncio.Lock()
        self._others = 0
        """How many wait for their turn."""
        self._busy = False
        """Whether somebody is at work on appends, or will be: the thread, or the first who came."""
        self._starting: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, append: PreparedAppend) -> AppendResult:
        """Store it, and return what became of it. To be cancelled does not take it back.

        Raises:
            ClosedError: this is closed.
            Exception: what ``write`` said of it.
        """
        if self._closed:
            raise ClosedError("The event store is closed; make a new one.")
        loop = asyncio.get_running_loop()
        request = Request(append, loop.create_future())
        self._waiting.append(request)
        if self._busy:
            return await request.done
        self._busy = True
        if self._lock.locked() or self._others:
            self._starting = loop.create_task(self._start())
            return await request.done
        await self._lock.acquire()  # free: this does not wait; who wants a turn from now on comes after this append
        size = _size(append)
        if self._pace.is_short(size):
            try:
                await asyncio.sleep(0)  # whoever is about to append, too, or wants a turn, comes now
            except BaseException:
                request.done.cancel()
                self._thread.call(self._work, loop)
                raise
            if self._is_alone() and (outcome := self._at_once(append, size)) is not None:
                return outcome
        self._thread.call(self._work, loop)
        return await request.done

    def _is_alone(self) -> bool:
        return len(self._waiting) == 1 and not self._others

    def _at_once(self, append: PreparedAppend, size: int) -> AppendResult | None:
        """In the event loop's thread, which nobody else gets to meanwhile; None leaves it to the other thread."""
        began = self._clock()
        outcome = None
        ended = True
        try:
            outcome = self._write_now(append)
            ended = outcome is not None
        finally:
            if ended:
                self._pace.note(self._clock() - began, size)
                self._waiting.clear()
                self._busy = False
                self._lock.release()
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None and outcome.last_position:
            self._told(outcome.last_position)
        return outcome

    async def _start(self) -> None:
        await self._lock.acquire()
        self._thread.call(self._work, asyncio.get_running_loop())

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the thread: batch after batch, until there is nothing to do or somebody else wants a turn."""
        more = True
        while more:
            batch = next_batch(self._waiting, _MOST)
            began = self._clock()
            outcomes: Sequence[Outcome]
            try:
                outcomes = self._write([request.append for request in batch])
            except Exception as error:  # noqa: BLE001  # it belongs to those who wait
                outcomes = [error] * len(batch)
            if len(batch) == 1:
                self._pace.note(self._clock() - began, _size(batch[0].append))
            more = bool(self._waiting) and not self._others
            try:
                loop.call_soon_threadsafe(self._settle, batch, outcomes, more)
            except RuntimeError:  # the event loop has ended: nobody waits any more
                return

    def _settle(self, batch: Sequence[Request], outcomes: Sequence[Outcome], more: bool) -> None:
        position = 0
        for request, outcome in zip(batch, outcomes, strict=True):
            if not isinstance(outcome, Exception):
                position = max(position, outcome.last_position)
            if request.done.done():
                continue  # cancelled meanwhile
            if isinstance(outcome, Exception):
                request.done.set_exception(outcome)
            else:
                request.done.set_result(outcome)
        if position:
            self._told(position)
        if more:
            return
        self._busy = False
        self._lock.release()
        if self._waiting:
            self._busy = True
            self._starting = asyncio.get_running_loop().create_task(self._start())

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Keep appends, and others, off the connection for the block."""
        self._others += 1
        try:
            await self._lock.acquire()
        finally:
            self._others -= 1
        try:
            yield
        finally:
            self._lock.release()

    async def close(self) -> None:
        """Return once all that was handed over is written."""
        self._closed = True
        while self._busy or self._waiting:
            if self._starting is not None:
                await asyncio.wait([self._starting])
            async with self.turn():
                pass


def _size(append: PreparedAppend) -> int:
    return sum([_ROW + len(event.data) for event in append.events])
