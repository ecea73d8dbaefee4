"""The way of a delivery report into the event loop.

librdkafka calls back once a message, from whichever thread polls it, and each call takes the interpreter's lock. A
thread that polls beside a busy event loop waits for that lock once a message, so the thread here only waits for the
first report, and the loop itself takes all that are ready: one hop for each bundle of them.

That hop is a good part of a quick broker's round trip. Where messages are sent one after the other the thread rests,
and the loop looks for each report by itself, again and again between its other callbacks, for `busy.poll.ms` at most.
What takes longer is left to the thread. On a machine that has no core to spare, or with a slow broker, the thread is as
quick: which of the two ways is taken is learned from how long messages took on either.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from threading import get_ident
from time import monotonic

from confluent_kafka import KafkaException, Producer

__all__ = ["Reported"]

_IDLE = 0.1
"""Seconds that the thread waits for a report before it looks whether it should end."""
_REST = 0.5
"""Seconds that it rests at most while nothing is sent: errors and statistics are reported by polling, too."""
_FEW = 16
"""Messages in flight up to which the loop looks for reports by itself."""
_STEP = 0.03
"""By what part of it a message that took longer, or less, moves what is typical, in the long run."""
_ENOUGH = 8
"""As many messages go either way before what they took decides."""
_WORTH_IT = 0.9
"""Looking uses the processor, so it has to take this part of the other way's time at most."""
_TRY_OTHER = 16
"""Every so many messages go the other way, since it may have become the quicker one."""
_yield_core: Callable[[], object] = getattr(os, "sched_yield", lambda: time.sleep(0))
"""Lets whatever else waits for this core run: on a small machine that is librdkafka's thread, or the broker itself."""


class _WakeError(Exception):
    """Ends a poll in the waiting thread at its first report; librdkafka keeps the others."""


class Quicker:
    """Whether to look for a report or to leave it to the thread: what took less time lately.

    What is typical is a running median, so that a few messages that took very long do not count for more than others.
    It moves in large steps at first: the first message may have taken very long, for a connection.
    """

    def __init__(self) -> None:
        self._typical = {True: 0.0, False: 0.0}
        self._seen = {True: 0, False: 0}
        self._count = 0

    def looks(self) -> bool:
        """Whether to look for the next one."""
        self._count += 1
        seen = self._seen
        if seen[True] < _ENOUGH or seen[False] < _ENOUGH:
            return seen[True] <= seen[False]
        better = self._typical[True] < self._typical[False] * _WORTH_IT
        return better != (self._count % _TRY_OTHER == 0)

    def took(self, looked: bool, seconds: float) -> None:
        """Learn how long a message took."""
        typical = self._typical[looked]
        self._seen[looked] = seen = self._seen[looked] + 1
        step = 1 + max(_STEP, 1 / seen)
        if not typical:
            typical = seconds
        elif seconds > typical:
            typical *= step
        else:
            typical = max(typical / 2, seconds) if seconds < typical / 2 else typical / step
        self._typical[looked] = typical


class Reported(ABC):
    """A producing client of librdkafka whose reports come in the running event loop.

    Either the thread polls or the loop does: the thread waits from when it asks the loop until `_go_on`.

    Args:
        busy: seconds that the loop may look for a report by itself; 0 for never.
    """

    client: Producer

    def __init__(self, busy: float) -> None:
        self.loop = self._loop = asyncio.get_running_loop()
        self._loop_thread = get_ident()
        self.polled_elsewhere = True
        """Whether reports may come in another thread than the event loop's. False only while the loop itself polls."""
        self._left: deque[Callable[[], None]] = deque()
        """What is left for the event loop to do about reports that came in another thread."""
        self._stop = False
        self.rests = False
        """Whether the thread rests with nothing in flight: who hands a message over calls `expect_report`."""
        self._asked = False
        """Whether the thread waits for the loop, which polls meanwhile."""
        self._busy = busy
        self._looking = False
        """Whether the loop looks for a report by itself."""
        self._quicker = Quicker()
        self._looked = False
        """Whether it looked for the last one that was sent while the thread rested …"""
        self._sent_at = 0.0
        """… and when that was; 0 where it was one of many."""
        self._may_go_on = threading.Lock()  # takes a tenth of an Event's time
        self._may_go_on.acquire()
        self._thread = threading.Thread(target=self._wait_for_reports, name="commons-events-kafka-reports", daemon=True)

    @abstractmethod
    def _in_flight(self) -> int:
        """How many messages, or batches of them, are neither confirmed nor failed."""

    @abstractmethod
    def _reports_taken(self) -> None:
        """In the event loop: there may be room for more messages."""

    @abstractmethod
    def _was_silent(self) -> Callable[[], None] | None:
        """In the thread, as there was no report for a moment: what the loop has to do about it, or None."""

    @abstractmethod
    def _end_by(self, error: KafkaException) -> None:
        """In the event loop: polling has raised ``error``, so this client is of no use any more."""

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
        """In the event loop: take every report that is ready."""
        while self._left:
            self._left.popleft()()
        if self._asked and not self._stop:
            self.polled_elsewhere = False
            try:
                self.client.poll(0)
            except KafkaException as error:
                self._loop.call_soon(self._end_by, error)
            finally:
                self.polled_elsewhere = True
        self._reports_taken()

    # --- the thread --------------------------------------------------------------------------------------------

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
            except KafkaException as error:
                self._ask_loop(partial(self._end_by, error))
                self._wait_for_loop()

    def _ask_loop(self, callback: Callable[[], object]) -> None:
        """In the thread: let the loop run ``callback`` and poll; `_wait_for_loop` returns when that is over."""
        self._asked = True
        self._stop = not self._call_in_loop(partial(self._answer, callback)) or self._stop

    def _wait_for_loop(self) -> None:
        while not self._stop and not self._may_go_on.acquire(timeout=_REST):
            self._stop = not self._call_in_loop(self._end_rest) or self._stop

    def _answer(self, callback: Callable[[], object]) -> None:
        """In the event loop, as the thread asked."""
        try:
            callback()
        finally:
            if self._stop or not self._busy or self._in_flight():
                self._go_on()
            else:
                self._all_reported()
                self.rests = True

    def _go_on(self) -> None:
        """In the event loop: let the thread wait for the next report."""
        if self._asked:
            self._asked = self.rests = False
            self._may_go_on.release()

    def _end_rest(self) -> None:
        if self.rests and not self._looking:
            self._go_on()

    # --- looking for reports in the loop -----------------------------------------------------------------------

    def expect_report(self, count: int = 1) -> None:
        """In the event loop, after messages were handed over while the thread rests."""
        if self._looking and count <= _FEW:
            return
        self._sent_at = 0.0
        if count <= _FEW:
            self._sent_at = monotonic()
            self._looked = self._quicker.looks()
            if self._looked:
                self._looking = True
                self._loop.call_soon(self._look)
                return
        self._go_on()

    def _look(self) -> None:
        self._looking = False
        if not self.rests:
            return
        rests = False
        try:
            self._take_reports()
            in_flight = self._in_flight()
            if not in_flight:
                self._all_reported()
                rests = True
            elif in_flight > _FEW:
                self._sent_at = 0.0
            elif monotonic() < self._sent_at + self._busy:
                rests = self._looking = True
                self._loop.call_soon(self._look)
                _yield_core()
        finally:
            if not rests:
                self._go_on()

    def _all_reported(self) -> None:
        if self._sent_at:
            self._quicker.took(self._looked, monotonic() - self._sent_at)
            self._sent_at = 0.0

    def _call_in_loop(self, callback: Callable[[], object]) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            return False
        return True
