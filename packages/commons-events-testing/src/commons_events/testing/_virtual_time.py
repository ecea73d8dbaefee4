"""Time that passes only when nothing else is to do: an event loop that never waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from commons_events.runtime import Runtime, current_runtime, use_runtime

__all__ = ["VirtualTime", "virtual_time"]

_FOR_THREADS = 0.002
"""Real seconds that are waited at once while a thread works."""


class VirtualTime(Runtime):
    """The runtime of an event loop whose time is virtual: `virtual_time` makes it so, and a simulation's is.

    It stays right once the loop's time is real again, since that goes on from where it was.

    Args:
        loop: the event loop, whose time is the only clock there is.
        begun_at: what the clock shows at the beginning.
        ahead: seconds by which `monotonic` is ahead of the loop's time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, begun_at: datetime, ahead: float = 0.0) -> None:
        super().__init__()
        self._loop = loop
        self._begun = loop.time()
        self._ended: float | None = None
        self._begun_at = begun_at
        self._ahead = ahead

    @property
    def passed(self) -> float:
        """Seconds that have passed virtually, to the nanosecond."""
        return self._since_begun() if self._ended is None else self._ended

    def end(self) -> None:
        """Count no further in `passed`."""
        self._ended = self._since_begun()

    def now(self) -> datetime:
        """See `Runtime.now`."""
        return self._begun_at + timedelta(seconds=self._since_begun())

    def _since_begun(self) -> float:
        # What the loop's clock showed at the beginning would else decide whether 4 s are 3.999999999996 s.
        return round(self._loop.time() - self._begun, 9)

    def monotonic(self) -> float:
        """See `Runtime.monotonic`."""
        return self._loop.time() + self._ahead


class _Clock:
    """What an event loop goes by once its time was virtual.

    Its time then is real, or stands but for jumps. It never goes back: what waits would wait for all that time again.
    """

    def __init__(self, loop: Any) -> None:
        self.blocks = 0
        """How many blocks of `virtual_time` are open on this loop."""
        self._loop = loop
        self._real = loop.time
        self._stands_at: float | None = None
        self._ahead = 0.0
        self._threads = 0
        loop.time = self.time

    def time(self) -> float:
        return self._real() + self._ahead if self._stands_at is None else self._stands_at

    def begin(self) -> None:
        self.blocks += 1
        if self.blocks == 1:
            self._stands_at = self.time()
            self._select, self._run_in_executor = self._loop._selector.select, self._loop.run_in_executor
            self._loop._selector.select, self._loop.run_in_executor = self._select_at_once, self._counted

    def end(self) -> None:
        self.blocks -= 1
        if self.blocks == 0:
            self._ahead, self._stands_at = self.time() - self._real(), None
            del self._loop._selector.select, self._loop.run_in_executor

    def _select_at_once(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return self._select(timeout)
        found = self._select(0)
        if found:
            return found
        if self._threads:
            return self._select(_FOR_THREADS)
        assert self._stands_at is not None
        self._stands_at += timeout
        return found

    def _counted(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        future = self._run_in_executor(executor, function, *arguments)
        self._threads += 1

        def ended(_: Any) -> None:
            self._threads -= 1

        future.add_done_callback(ended)
        return future


def _clock_of(loop: Any) -> _Clock:
    clock = getattr(loop.time, "__self__", None)
    return clock if isinstance(clock, _Clock) else _Clock(loop)


@contextmanager
def virtual_time(after: Runtime | None = None) -> Iterator[VirtualTime]:
    """Make the running event loop's time virtual for the block: timers are due at once when nothing else is to do.

    That holds for all that asyncio does with time, ``asyncio.sleep`` included. While something runs in a thread,
    time stands. Several blocks may be open at a time, in one task or in several; the time is the same for all. Once
    none is, the loop's time is real again and goes on from there.

    Args:
        after: a runtime whose clocks this one's go on from; by default the one that is in force here.

    Raises:
        RuntimeError: the event loop is not one of asyncio's own on selectors (uvloop, for example).
    """
    loop: Any = asyncio.get_running_loop()
    if getattr(loop, "_selector", None) is None:
        raise RuntimeError(
            f"Virtual time needs one of asyncio's own event loops on selectors, not {type(loop).__qualname__}."
        )
    before = after or current_runtime()
    clock = _clock_of(loop)
    clock.begin()
    try:
        runtime = VirtualTime(loop, before.now(), before.monotonic() - loop.time())
        try:
            with use_runtime(runtime):
                yield runtime
        finally:
            runtime.end()
    finally:
        clock.end()
