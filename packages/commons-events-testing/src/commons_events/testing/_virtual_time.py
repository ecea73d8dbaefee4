"""Time that passes only when nothing else is to do: an event loop that never waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from commons_events.runtime import Runtime, use_runtime

__all__ = ["RuntimeAhead", "VirtualTime", "virtual_time"]

_FOR_THREADS = 0.002
"""Real seconds that are waited at once while a thread works."""


class RuntimeAhead(Runtime):
    """Real time, but some seconds ahead: what goes on after virtual time has passed."""

    def __init__(self, ahead: float) -> None:
        super().__init__()
        self.ahead = ahead

    def now(self) -> datetime:
        """See `Runtime.now`."""
        return super().now() + timedelta(seconds=self.ahead)

    def monotonic(self) -> float:
        """See `Runtime.monotonic`."""
        return super().monotonic() + self.ahead


class VirtualTime(Runtime):
    """The runtime of an event loop whose time is virtual: `virtual_time` makes it so, and a simulation's is.

    Args:
        loop: the event loop, whose time is the only clock there is.
        begun_at: what the clock shows at the beginning.
        ahead: seconds by which `monotonic` is ahead of the loop's time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, begun_at: datetime, ahead: float = 0.0) -> None:
        super().__init__()
        self._loop = loop
        self._begun = loop.time()
        self._begun_at = begun_at
        self._ahead = ahead

    @property
    def passed(self) -> float:
        """Seconds that have passed virtually, to the nanosecond."""
        # What the loop's clock showed at the beginning would else decide whether 4 s are 3.999999999996 s.
        return round(self._loop.time() - self._begun, 9)

    def now(self) -> datetime:
        """See `Runtime.now`."""
        return self._begun_at + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        """See `Runtime.monotonic`."""
        return self._loop.time() + self._ahead


@contextmanager
def virtual_time(ahead: float = 0.0) -> Iterator[VirtualTime]:
    """Make the running event loop's time virtual for the block: timers are due at once when nothing else is to do.

    That holds for all that asyncio does with time, ``asyncio.sleep`` included. While something runs in a thread,
    time stands.

    Args:
        ahead: seconds by which the clock is ahead of the real one at the beginning.

    Raises:
        RuntimeError: the event loop is not one of asyncio's own on selectors (uvloop, for example).
    """
    loop: Any = asyncio.get_running_loop()
    selector = getattr(loop, "_selector", None)
    if selector is None:
        raise RuntimeError(
            f"Virtual time needs one of asyncio's own event loops on selectors, not {type(loop).__qualname__}."
        )
    passed, threads = loop.time(), 0
    select, run_in_executor = selector.select, loop.run_in_executor

    def select_at_once(timeout: float | None = None) -> Any:
        nonlocal passed
        if timeout is None or timeout <= 0:
            return select(timeout)
        found = select(0)
        if found:
            return found
        if threads:
            return select(_FOR_THREADS)
        passed += timeout
        return found

    def counted(executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal threads
        future = run_in_executor(executor, function, *arguments)
        threads += 1

        def ended(_: Any) -> None:
            nonlocal threads
            threads -= 1

        future.add_done_callback(ended)
        return future

    loop.time, loop.run_in_executor, selector.select = (lambda: passed), counted, select_at_once
    try:
        runtime = VirtualTime(loop, datetime.now(UTC) + timedelta(seconds=ahead), ahead)
        with use_runtime(runtime):
            yield runtime
    finally:
        del loop.time, loop.run_in_executor, selector.select
