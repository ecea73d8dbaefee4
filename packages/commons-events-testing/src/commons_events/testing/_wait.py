"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

from commons_events.runtime import current_runtime

__all__ = ["eventually"]

T = TypeVar("T")


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

    ``condition`` may be a coroutine function. Time is the runtime's, so virtual time serves as well.

    Raises:
        AssertionError: ``condition()`` is still falsy after ``timeout`` seconds; ``what`` and the last value are
            in the message.
    """
    runtime = current_runtime()
    deadline = runtime.monotonic() + timeout
    while True:
        outcome = condition()
        value = await cast("Awaitable[T]", outcome) if isinstance(outcome, Awaitable) else outcome
        if value:
            return value
        if runtime.monotonic() >= deadline:
            raise AssertionError(f"{what} did not hold within {timeout:g} s; the last value was {value!r}.")
        await runtime.sleep(interval)
