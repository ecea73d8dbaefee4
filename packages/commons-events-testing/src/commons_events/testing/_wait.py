"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar, overload

from commons_events.runtime import current_runtime
from commons_events.testing._virtual_time import VirtualTime

__all__ = ["eventually"]

T = TypeVar("T")

_AN_ANSWER = 5.0
"""Seconds that an async condition has at least, however soon it is to hold: the machine may be busy."""


@overload
async def eventually(
    condition: Callable[[], Awaitable[T]], *, timeout: float = ..., interval: float = ..., what: str = ...
) -> T: ...


@overload
async def eventually(
    condition: Callable[[], T], *, timeout: float = ..., interval: float = ..., what: str = ...
) -> T: ...


async def eventually(
    condition: Callable[[], T | Awaitable[T]],
    *,
    timeout: float = 5.0,
    interval: float = 0.005,
    what: str = "the condition",
) -> T:
    """Return the first truthy value of ``condition()``, which is asked again every ``interval`` seconds.

    Time is the runtime's, so virtual time serves as well.

    Args:
        condition: may be a coroutine function. What gives no answer for ``timeout`` seconds, at least five, is
            cancelled; these are real ones also in virtual time.
        timeout: seconds until it has to hold. It is asked at least once.
        interval: seconds from one answer to the next question.
        what: names the condition in the error.

    Raises:
        AssertionError: ``condition()`` is still falsy after ``timeout`` seconds, or gives no answer; ``what`` and the
            last value are in the message.
    """
    runtime = current_runtime()
    deadline = runtime.monotonic() + timeout
    while True:
        outcome = condition()
        value = await _answer(outcome, timeout, what) if isinstance(outcome, Awaitable) else outcome
        if value:
            return value
        if runtime.monotonic() >= deadline:
            raise AssertionError(f"{what} did not hold within {timeout:g} s; the last value was {value!r}.")
        await runtime.sleep(interval)


async def _answer(asked: Awaitable[T], timeout: float, what: str) -> T:
    seconds = max(timeout, _AN_ANSWER)
    virtual = isinstance(current_runtime(), VirtualTime)
    limit = asyncio.timeout(None if virtual else seconds)
    # Virtual seconds would be over before a socket, or a database's thread, answers.
    timer = threading.Timer(seconds, _expire, (asyncio.get_running_loop(), limit)) if virtual else None
    try:
        async with limit:
            if timer is not None:
                timer.daemon = True
                timer.start()
            return await asked
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(
            f"{what} did not hold: the condition was asked, and gave no answer within {seconds:g} s."
        ) from None
    finally:
        if timer is not None:
            timer.cancel()


def _expire(loop: asyncio.AbstractEventLoop, limit: asyncio.Timeout) -> None:
    def expire() -> None:
        with suppress(RuntimeError):  # it has ended meanwhile
            limit.reschedule(float("-inf"))

    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(expire)
