"""The way of a delivery report into the event loop.

librdkafka calls back once a message, from whichever thread polls it, and each call takes the interpreter's lock. A
thread that polls beside a busy event loop waits for that lock once a message, so the thread here only waits for the
first report, and the loop itself takes all that are ready: one hop for each bundle of them.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from threading import get_ident

from confluent_kafka import Producer

__all__ = ["Reported"]

_IDLE = 0.1
"""Seconds that the thread waits for a report before it looks whether it should end."""


class _WakeError(Exception):
    """Ends a poll in the waiting thread at its first report; librdkafka keeps the others."""


class Reported(ABC):
    """A producing client of librdkafka whose reports come in the running event loop."""

    client: Producer

    def __init__(self) -> None:
        self.loop = self._loop = asyncio.get_running_loop()
        self._loop_thread = get_ident()
        self.polled_elsewhere = True
        """Whether reports may come in another thread than the event loop's. False only while the loop itself polls."""
        self._left: deque[Callable[[], None]] = deque()
        """What is left for the event loop to do about reports that came in another thread."""
        self._stop = False
        self._may_go_on = threading.Lock()  # takes a tenth of an Event's time
        self._may_go_on.acquire()
        self._thread = threading.Thread(target=self._wait_for_reports, name="commons-events-kafka-reports", daemon=True)

    @abstractmethod
    def _reports_taken(self) -> None:
        """In the event loop: there may be room for more messages."""

    @abstractmethod
    def _was_silent(self) -> Callable[[], None] | None:
        """In the thread, as there was no report for a moment: what the loop has to do about it, or None."""

    @abstractmethod
    def _was_reported(self) -> None:
        """In the thread: a report has come."""

    def in_loop(self) -> bool:
        """Whether this is the event loop's thread."""
        return get_ident() == self._loop_thread

    def leave_to_loop(self, what: Callable[[], None] | None) -> None:
        """In another thread: let the loop do ``what``, and take the reports that follow."""
        if what is not None:
            self._left.append(what)
        if get_ident() == self._thread.ident:
            self._ask_loop(self._take_reports)  # now: it wakes up while this thread leaves the client
            raise _WakeError
        self._call_in_loop(self._take_reports)

    def _take_reports(self) -> None:
        """In the event loop: take every report that is ready, then let the thread wait for the next one."""
        while self._left:
            self._left.popleft()()
        if not self._stop:
            self.polled_elsewhere = False
            try:
                self.client.poll(0)
            finally:
                self.polled_elsewhere = True
        self._go_on()
        self._reports_taken()

    def _wait_for_reports(self) -> None:
        while not self._stop:
            try:
                self.client.poll(_IDLE)
                callback = self._was_silent()
                if callback is not None:
                    self._ask_loop(callback)
                    self._wait_for_loop()
            except _WakeError:
                self._was_reported()
                self._wait_for_loop()

    def _ask_loop(self, callback: Callable[[], object]) -> None:
        """In the thread: let the loop run ``callback``, which calls `_go_on`; `_wait_for_loop` returns after that."""
        self._may_go_on.acquire(blocking=False)
        self._stop = not self._call_in_loop(callback) or self._stop

    def _wait_for_loop(self) -> None:
        while not self._stop and not self._may_go_on.acquire(timeout=1.0):
            if self._loop.is_closed():
                self._stop = True

    def _go_on(self) -> None:
        """In the event loop: let the thread wait for the next report."""
        if self._may_go_on.locked():
            self._may_go_on.release()

    def _call_in_loop(self, callback: Callable[[], object]) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            return False
        return True
