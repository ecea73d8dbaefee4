"""`GroupCommit`: appends that come while one is being written go into the next transaction together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from commons_events.errors import ClosedError
from commons_events.sourcing._types import AppendResult, PreparedAppend, StreamId

__all__ = ["ALONE", "Alone", "GroupCommit", "Outcome", "Request", "all_stored", "next_batch"]

Outcome = AppendResult | Exception


class Alone(NamedTuple):
    """The outcome of an append that is to be tried again by itself, since it would keep the others waiting."""


ALONE = Alone()


class Request(NamedTuple):
    """An append that waits, and where its outcome goes."""

    append: PreparedAppend
    done: asyncio.Future[AppendResult]


def all_stored(outcomes: Sequence[Outcome]) -> list[AppendResult]:
    """The results, where all of them are; else raise the first failure."""
    results: list[AppendResult] = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        results.append(outcome)
    return results


def next_batch(waiting: deque[Request], most: int) -> list[Request]:
    """Take the next requests out, in order, each stream once: of those that are not behind ``most`` others.

    Others may be added meanwhile at the right end, also by another thread.
    """
    batch = [waiting.popleft()]
    if not waiting:
        return batch
    streams = {batch[0].append.stream}
    size = len(batch[0].append.events)
    later: list[Request] = []
    while waiting and size < most and len(later) < most:  # who waits in thousands for one stream is not looked at anew
        request = waiting.popleft()
        if request.append.stream in streams:
            later.append(request)
            continue
        streams.add(request.append.stream)
        size += len(request.append.events)
        batch.append(request)
    waiting.extendleft(reversed(later))
    return batch


class GroupCommit:
    """Writes appends in batches: as many concurrent savers, so few transactions; nobody waits for more to come.

    Those to one stream are written in the order in which they came, one after the other.

    Args:
        write: stores a batch, each stream once, and gives each append's outcome; one that fails leaves the others be.
            Of several, it may say of some that they are to be tried alone.
        lanes: how many batches may be under way at once. Another one than the first is used only where a batch takes
            longer than ``patience``, such as one that waits for another writer's lock on a stream.
        patience: seconds.
        most: events in one batch.
    """

    def __init__(
        self,
        write: Callable[[Sequence[PreparedAppend]], Awaitable[Sequence[Outcome | Alone]]],
        *,
        lanes: int = 1,
        patience: float = 0.01,
        most: int = 1000,
    ) -> None:
        self._write = write
        self._lanes = lanes
        self._patience = patience
        self._most = most
        self._waiting: deque[Request] = deque()
        self._alone: deque[Request] = deque()
        self._behind: dict[StreamId, deque[Request]] = {}
        """Of each stream to which an append was handed over and is not done, those that have to come after it."""
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def submit(self, append: PreparedAppend) -> asyncio.Future[AppendResult]:
        """Hand an append over; the future has its outcome. Cancelling the future does not take the append back."""
        if self._closed:
            raise ClosedError("The event store is closed; make a new one.")
        loop = asyncio.get_running_loop()
        request = Request(append, loop.create_future())
        behind = self._behind.get(append.stream)
        if behind is not None:  # who finishes what is before it goes on with it
            behind.append(request)
            return request.done
        self._behind[append.stream] = deque()
        self._waiting.append(request)
        if not self._running:
            self._start()
        else:
            self._hurry()
        return request.done

    def _hurry(self) -> None:
        """Start another lane soon, where those that run are held up."""
        if self._timer is None and len(self._running) < self._lanes:
            self._timer = asyncio.get_running_loop().call_later(self._patience, self._overdue)

    def _overdue(self) -> None:
        self._timer = None
        if len(self._running) < self._lanes and (self._waiting or self._alone):
            self._start()
            self._hurry()

    def _start(self) -> None:
        task = asyncio.get_running_loop().create_task(self._run())
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._waiting or self._alone:
            if not self._running:
                self._start()
            else:
                self._hurry()

    def _next(self) -> list[Request]:
        """What can be written now; those who would wait for others let the others go first."""
        if self._waiting:
            batch = next_batch(self._waiting, self._most)
        else:
            batch = [self._alone.popleft()] if self._alone else []
        if self._waiting or self._alone:
            self._hurry()
        return batch

    def _done(self, stream: StreamId) -> None:
        """Let the next append to the stream come, behind those to others."""
        if self._behind[stream]:
            self._waiting.append(self._behind[stream].popleft())
        else:
            del self._behind[stream]

    async def _run(self) -> None:
        while batch := self._next():
            try:
                outcomes = await self._write([request.append for request in batch])
            except BaseException as error:
                for request in batch:
                    self._done(request.append.stream)
                    if not request.done.done():
                        failure = error if isinstance(error, Exception) else ClosedError("The event store was stopped.")
                        request.done.set_exception(failure)
                if not isinstance(error, Exception):
                    raise
                continue
            for request, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Alone):
                    self._alone.append(request)
                    continue
                self._done(request.append.stream)
                if request.done.done():
                    continue  # cancelled meanwhile
                if isinstance(outcome, Exception):
                    request.done.set_exception(outcome)
                else:
                    request.done.set_result(outcome)

    async def close(self) -> None:
        """Return once all that was handed over is written."""
        self._closed = True
        while self._running:
            await asyncio.wait(set(self._running))
            await asyncio.sleep(0)
        if self._timer is not None:
            self._timer.cancel()
