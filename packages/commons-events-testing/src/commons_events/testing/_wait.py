"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

from commons_events.runtime import current_runtime

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
            cancelled.
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
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await asked
    except TimeoutError:
        if not limit.expired():
            raise
        raise AssertionError(
            f"{what} did not hold: the condition was asked, and gave no answer within {seconds:g} s."
        ) from None
