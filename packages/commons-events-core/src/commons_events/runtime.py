"""Clock, sleep, randomness and new ids: the one door to everything that is not a pure function of its input.

Core never calls ``time``, ``random``, ``datetime.now`` or ``uuid4`` itself. Whoever installs another `Runtime`
(a test with a fixed clock, a simulator with virtual time and a seed) owns all of these at once.
"""

from __future__ import annotations

import asyncio
import itertools
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
        # Python's counter is safe between threads. It begins anywhere: processes are not to count alike.
        self._count = itertools.count(int.from_bytes(os.urandom(4), "big")).__next__

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
        """A new unique id: a UUID version 7 (RFC 9562, section 5.7).

        The milliseconds come first, then a counter, so that ids of one millisecond stay in the order in which they
        were made, too (section 6.2, method 1): an index of ids grows at its end alone. The counter begins again every
        67 million ids. The other 48 bits are random.
        """
        count = self._count()
        first = f"{time.time_ns() // 1_000_000 << 32 | _LAYOUT | (count & _UPPER) << 2 | count & _LOWER:020x}"
        return f"{first[:8]}-{first[8:12]}-{first[12:16]}-{first[16:]}-{os.urandom(6).hex()}"


_LAYOUT = 0x7000_8000
"""Version and variant, in the 32 bits behind the milliseconds."""
_UPPER, _LOWER = 0x3FF_C000, 0x3FFF
"""Of the counter's 26 bits: the 12 between version and variant, and the 14 behind the variant."""

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
