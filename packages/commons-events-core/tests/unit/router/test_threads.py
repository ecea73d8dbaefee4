"""The threads of handlers that are not async: bounded, and replaced where one hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from functools import partial

import pytest

from commons_events.router._threads import HandlerThreads

MOST = 60.0
"""Seconds; nothing here takes a part of it."""


def test_calls_run_side_by_side_up_to_the_bound() -> None:
    threads = HandlerThreads(3, "bounded")
    together = threading.Barrier(3)
    used: set[str] = set()

    def call(number: int) -> int:
        used.add(threading.current_thread().name)
        together.wait(MOST)
        return number

    futures = [threads.submit(call, number) for number in range(30)]
    assert [future.result(MOST) for future in futures] == list(range(30))
    assert used == {"bounded_0", "bounded_1", "bounded_2"}
    threads.shutdown()


def test_a_call_that_was_left_gives_its_place_to_another() -> None:
    threads = HandlerThreads(1, "left")
    begun, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        may_end.wait(MOST)

    hanging, waiting = threads.submit(hang), threads.submit(lambda: "done")
    assert begun.wait(MOST)
    assert threads.leave(hang)
    assert threads.leave(hang)  # harmless twice
    assert threads.left == 1
    assert waiting.result(MOST) == "done"
    may_end.set()
    hanging.result(MOST)
    for _ in range(5):
        assert threads.submit(partial(int, "7")).result(MOST) == 7
    deadline = time.monotonic() + MOST
    while threads.left and time.monotonic() < deadline:  # it says so a moment after its result is there
        time.sleep(0.001)
    threads.leave(hang)  # it has ended
    assert threads.left == 0
    threads.shutdown()


def test_a_call_that_was_left_before_a_thread_came_to_it_never_begins() -> None:
    threads = HandlerThreads(1, "late")
    begun, may_end = threading.Event(), threading.Event()
    called: list[int] = []

    def hang() -> None:
        begun.set()
        may_end.wait(MOST)

    never = partial(called.append, 1)
    threads.submit(hang)
    waiting = threads.submit(never)
    assert begun.wait(MOST)
    assert not threads.leave(never)
    assert threads.left == 0
    may_end.set()
    assert waiting.cancelled()
    threads.submit(partial(called.append, 2)).result(MOST)
    assert called == [2]
    threads.shutdown()


def test_a_call_that_was_cancelled_has_not_begun_although_a_thread_came_to_it_meanwhile() -> None:
    threads = HandlerThreads(1, "between")
    may_end = threading.Event()
    called: list[int] = []
    never = partial(called.append, 1)
    threads.submit(lambda: may_end.wait(MOST))
    assert threads.submit(never).cancel()  # as asyncio does, before who awaited it hears of it
    may_end.set()
    threads.submit(partial(called.append, 2)).result(MOST)
    assert not threads.leave(never)
    assert called == [2]
    threads.shutdown()


def test_whatever_a_call_raises_is_its_caller_s() -> None:
    threads = HandlerThreads(1, "raising")

    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        threads.submit(leave).result(MOST)
    rows: Iterator[int] = iter([])
    with pytest.raises(RuntimeError, match="StopIteration") as raised:  # no future of asyncio takes that one
        threads.submit(lambda: next(rows)).result(MOST)
    assert isinstance(raised.value.__cause__, StopIteration)
    assert threads.submit(lambda: 1).result(MOST) == 1
    threads.shutdown()


def test_the_end_cancels_what_waits_and_refuses_more() -> None:
    threads = HandlerThreads(1, "ending")
    begun, may_end = threading.Event(), threading.Event()

    def hang() -> str:
        begun.set()
        may_end.wait(MOST)
        return "ended"

    running = threads.submit(hang)
    assert begun.wait(MOST)
    waiting: Future[str] = threads.submit(lambda: "never")
    threads.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        waiting.result(MOST)
    with pytest.raises(RuntimeError, match="closed"):
        threads.submit(hang)
    may_end.set()
    assert running.result(MOST) == "ended"
