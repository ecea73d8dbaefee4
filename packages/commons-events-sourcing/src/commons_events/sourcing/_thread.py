"""`DatabaseThread`: a thread of its own for a connection that blocks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

__all__ = ["DatabaseThread"]

T = TypeVar("T")


class _Call(NamedTuple):
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    loop: asyncio.AbstractEventLoop | None
    done: asyncio.Future[Any] | None
    """None where nobody waits for it."""


class DatabaseThread:
    """Calls functions one after the other, in the order in which they came. The thread starts with the first one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._put_so_far = self._done_so_far = 0

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do. In the event loop's thread this stays so until the loop goes on."""
        return self._put_so_far == self._done_so_far

    def submit(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Call ``function(*arguments)`` in the thread. Cancelling the future does not stop it."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._put(_Call(function, arguments, loop, done))
        return done

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call ``function(*arguments)`` in the thread. It raises nothing, and says itself what came of it."""
        self._put(_Call(function, arguments, None, None))

    def _put(self, call: _Call) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._put_so_far += 1
        self._calls.put(call)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            if call.loop is None or call.done is None:
                call.function(*call.arguments)
                self._done_so_far += 1
                continue
            result: Any = None
            error: BaseException | None = None
            try:
                result = call.function(*call.arguments)
            except BaseException as caught:  # noqa: BLE001  # whatever it is, it belongs to who waits
                error = caught
            self._done_so_far += 1
            try:
                call.loop.call_soon_threadsafe(_settle, call.done, result, error)
            except RuntimeError:  # the event loop has ended: nobody waits any more
                continue

    async def stop(self) -> None:
        """Return once all calls are done and the thread has ended."""
        if self._thread is None:
            return
        ended = self.submit(lambda: None)
        self._calls.put(None)
        await ended
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        self._thread = None


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
