"""The threads of handlers that are not async: one that hangs holds up neither the others nor the process's end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

__all__ = ["HandlerThreads"]

P = ParamSpec("P")
R = TypeVar("R")


class _Work:
    def __init__(self, future: Future[Any], function: Callable[..., Any], call: Callable[[], Any]) -> None:
        self.future = future
        self.function = function
        self.call = call
        self.began = self.ended = self.left = False


class HandlerThreads(Executor):
    """Up to ``most`` threads, which the interpreter does not wait for at its end.

    Of a call that hangs `leave` is told: its thread then counts no more, and another one may take its place.

    Args:
        most: how many calls run at once.
        name: begins the threads' names.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads = 0
        """Those that take new work; one that was left takes none before it has come back."""
        self._idle = 0
        self._started = 0
        self._closed = False
        self._works: dict[Callable[..., Any], _Work] = {}
        self.left = 0
        """Calls that were left and go on."""

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """See `concurrent.futures.Executor.submit`."""
        future: Future[R] = Future()
        work = _Work(future, fn, lambda: fn(*args, **kwargs))
        with self._lock:
            if self._closed:
                raise RuntimeError("These threads are closed.")
            self._works[fn] = work
            if self._idle:
                self._idle -= 1
            elif self._threads < self._most:
                self._begin()
            self._queue.put(work)
        return future

    def _begin(self) -> None:
        self._threads += 1
        self._started += 1
        threading.Thread(target=self._run, name=f"{self._name}_{self._started - 1}", daemon=True).start()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            self._do(work)
            with self._lock:
                if work.began:  # else it was cancelled, and `leave` has yet to tell that it never began
                    self._works.pop(work.function, None)
                work.ended = True
                if work.left:
                    self.left -= 1
                    return  # another thread has its place
                if self._queue.empty():
                    self._idle += 1
            del work

    def _do(self, work: _Work) -> None:
        with self._lock:
            if not work.future.set_running_or_notify_cancel():
                return
            work.began = True
        try:
            result = work.call()
        except StopIteration as error:  # which no future takes; a generator or coroutine makes the same of it (PEP 479)
            stopped = RuntimeError(f"A call in a thread raised StopIteration: {error!r}.")
            stopped.__cause__ = error
            work.future.set_exception(stopped)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is the caller's
            work.future.set_exception(error)
        else:
            work.future.set_result(result)

    def leave(self, fn: Callable[..., Any]) -> bool:
        """Nobody waits any more for a call of what was submitted: where it runs, another thread may take its place.

        Returns whether it has begun; one that has not never will.
        """
        with self._lock:
            work = self._works.get(fn)
            if work is not None and not work.began:
                del self._works[fn]
                work.future.cancel()
                return False
            if work is not None and not work.ended and not work.left:
                work.left = True
                self.left += 1
                self._threads -= 1
                if not self._queue.empty():
                    self._begin()
            return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads; calls that run go on, and are never waited for."""
        with self._lock:
            self._closed = True
            waiting = [work for work in self._works.values() if not work.began] if cancel_futures else []
        for work in waiting:
            work.future.cancel()
        for _ in range(self._started):
            self._queue.put(None)
