"""Reaching another event loop, from any thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["Signal", "call_in_loop", "complete", "in_running_loop"]

T = TypeVar("T")


class Signal:
    """Wakes the one task that waits for it, in that task's event loop, from any thread."""

    __slots__ = ("_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None

    def arm(self) -> asyncio.Future[None]:
        """A future that the next `set` completes. Called under the broker's lock, in the loop of the signal."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def set(self) -> None:
        """Complete the armed future, if there is one."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            complete(waiter, None)


def complete(future: asyncio.Future[T], result: T | Exception) -> None:
    """Give ``future`` its result or error from any thread; nothing where it has one or its loop is closed."""
    loop = future.get_loop()
    if loop is asyncio._get_running_loop():
        _complete_here(future, result)
    else:
        call_in_loop(loop, lambda: _complete_here(future, result))


def _complete_here(future: asyncio.Future[T], result: T | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def in_running_loop(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
    """A future of the running loop that is done once ``future``, of any loop, is done."""
    here = asyncio.get_running_loop()
    if future.get_loop() is here:
        return future
    done: asyncio.Future[None] = here.create_future()
    call_in_loop(future.get_loop(), lambda: future.add_done_callback(lambda _: complete(done, None)))
    return done


def call_in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Run ``callback`` in ``loop`` soon; not at all where the loop is closed, since nobody waits in it any more."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise
