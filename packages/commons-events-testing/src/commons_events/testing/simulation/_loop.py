"""An event loop whose time is virtual, and in which a whole process can die between two steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from heapq import heappop
from typing import Any

__all__ = ["PROCESS", "HangError", "Process", "SimulatedLoop"]


class HangError(Exception):
    """Nothing can ever happen any more, and yet somebody waits."""


class Process:
    """What runs by itself and can die: all tasks and callbacks that were started in its context."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        """A dead process takes no further step: neither its handlers nor their ``finally`` run."""
        self.frozen_until = 0.0
        """Until then it takes no step either, and goes on as if nothing had been."""


PROCESS: ContextVar[Process | None] = ContextVar("commons_events_simulated_process", default=None)


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs one callback at a time, in the order of asyncio; when none is ready, time jumps to the next timer.

    Nothing outside is waited for, so a run is a function of its input. What is handed to an executor runs at once.

    Args:
        before_step: called before each step of a process that lives.
        max_steps: how many steps a run may take; more are taken for a loop without an end.
    """

    def __init__(self, before_step: Callable[[Process], None], max_steps: int) -> None:
        super().__init__()
        self._before_step = before_step
        self._virtual_now = 0.0
        self._steps_left = max_steps

    def time(self) -> float:
        """Seconds since the start."""
        return self._virtual_now

    def call_soon(  # type: ignore[override]  # typeshed's own needs a TypeVarTuple
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """As in asyncio, but the dead do not ask for anything."""
        handle = super().call_soon(callback, *args, context=context)
        if _is_dead(handle):
            handle.cancel()
        return handle

    def run_in_executor(  # type: ignore[override]  # as for call_soon
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run ``func`` now: a thread would bring real time and its own order."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # it is the caller's, as from any executor
            future.set_exception(error)
        return future

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        scheduled: Any = self._scheduled  # type: ignore[attr-defined]
        while scheduled and (scheduled[0]._cancelled or _is_dead(scheduled[0])):
            heappop(scheduled)._scheduled = False
        if not ready:
            if not scheduled:
                raise HangError("nothing is ready and no timer runs")
            self._virtual_now = max(self._virtual_now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self._virtual_now:
            timer = heappop(scheduled)
            timer._scheduled = False
            ready.append(timer)
        handle = ready.popleft()
        process = handle._context.get(PROCESS) if not handle._cancelled else None
        if process is not None and not process.dead:
            if process.frozen_until > self._virtual_now:
                # into its place again: by then it may be cancelled, or its process dead
                self.call_at(process.frozen_until, ready.append, handle)
                return
            self._take_step()
            self._before_step(process)
        if not handle._cancelled and (process is None or not process.dead):
            handle._run()

    def _take_step(self) -> None:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise HangError("it goes on without an end")

    def _process_events(self, event_list: Any) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody waits outside."""


def _is_dead(handle: asyncio.Handle) -> bool:
    process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
    return process is not None and process.dead
