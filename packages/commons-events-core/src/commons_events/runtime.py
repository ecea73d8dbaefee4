"""Clock, sleep, randomness and new ids: the one door to everything that is not a pure function of its input.

Core never calls ``time``, ``random``, ``datetime.now`` or ``uuid4`` itself. Whoever installs another `Runtime`
(a test with a fixed clock, a simulator with virtual time and a seed) owns all of these at once.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

__all__ = ["Runtime", "current_runtime", "use_runtime"]


class Runtime:
    """The real clock, the real sleep, the system's randomness. Subclass it to own some or all of them.

    An instance may be used from several threads at once.
    """

    def __init__(self) -> None:
        self._random = random.Random()

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back; only differences mean something."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds`` of this runtime's time; 0 lets other tasks run once."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Call ``callback()`` in the running event loop after ``seconds``, unless the handle is cancelled."""
        return asyncio.get_running_loop().call_later(seconds, callback)

    @asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncGenerator[None]:
        """Cancel the ``async with`` block after ``seconds`` of this runtime's time; None for never.

        Raises:
            TimeoutError: the time was over before the block was.
        """
        async with asyncio.timeout(None) as limit:
            timer = None if seconds is None else self.call_later(seconds, lambda: limit.reschedule(float("-inf")))
            try:
                yield
            finally:
                if timer is not None:
                    timer.cancel()

    def random(self) -> float:
        """A float in [0, 1), for jitter; not for secrets."""
        return self._random.random()

    def new_id(self) -> str:
        """A new unique id: a UUID version 7 (RFC 9562, section 5.7), so that ids sort by the time they were made."""
        clock = f"{time.time_ns() // 1_000_000:012x}"
        noise = os.urandom(10).hex()
        return f"{clock[:8]}-{clock[8:]}-7{noise[:3]}-{_VARIANT[noise[3]]}{noise[4:7]}-{noise[7:19]}"


_VARIANT = {digit: "89ab"[int(digit, 16) & 0b11] for digit in "0123456789abcdef"}
"""A random hex digit with its two upper bits set to the variant of RFC 9562, section 4.1."""

_current: ContextVar[Runtime] = ContextVar("commons_events_runtime")
_REAL = Runtime()


def current_runtime() -> Runtime:
    """The runtime in force here: the one `use_runtime` installed in this context, else the real one."""
    return _current.get(_REAL)


@contextmanager
def use_runtime(runtime: Runtime) -> Generator[Runtime]:
    """Install ``runtime`` for the ``with`` block and for the tasks started inside it.

    Clients and brokers take the runtime at the moment they are made; make them inside the block.
    """
    token = _current.set(runtime)
    try:
        yield runtime
    finally:
        _current.reset(token)
