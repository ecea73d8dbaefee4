"""`Runtime`: the one door to clock, sleep, randomness and ids."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest

from commons_events import Event, EventProducer
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.runtime import Runtime, current_runtime, use_runtime

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Still(Runtime):
    """A clock that stands, and ids that count."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def now(self) -> datetime:
        return NOON

    def new_id(self) -> str:
        self.made += 1
        return f"id-{self.made}"


def test_ids_are_uuids_of_version_7_and_the_rfc_s_variant() -> None:
    runtime = Runtime()
    for _ in range(300):
        text = runtime.new_id()
        id = UUID(text)
        assert str(id) == text
        assert id.version == 7
        assert id.variant == "specified in RFC 4122"


def test_the_first_48_bits_of_an_id_are_the_milliseconds_of_its_time() -> None:
    before = datetime.now(UTC)
    id = UUID(Runtime().new_id())
    after = datetime.now(UTC)
    made = datetime.fromtimestamp((id.int >> 80) / 1000, UTC)
    assert before - timedelta(milliseconds=2) <= made <= after + timedelta(milliseconds=2)


def test_the_other_bits_of_an_id_are_random() -> None:
    """The counter's too, of a new runtime: each begins anywhere."""
    ids = [UUID(Runtime().new_id()).int for _ in range(400)]
    noise_bits = [bit for bit in range(80) if bit not in (62, 63, 76, 77, 78, 79)]
    for bit in noise_bits:
        ones = sum(id >> bit & 1 for id in ids)
        assert 100 < ones < 300, f"bit {bit} is set in {ones} of 400"


def test_ids_of_one_millisecond_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime()
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_123_456_789)
    ids = [runtime.new_id() for _ in range(50_000)]  # more than the counter's lower part holds
    falls = sum(later <= earlier for earlier, later in pairwise(ids))
    assert falls <= 1  # where its 26 bits begin again
    assert {id[:13] for id in ids} == {f"{1_700_000_000_123:012x}"[:8] + "-" + f"{1_700_000_000_123:012x}"[8:]}
    assert len({id[-12:] for id in ids}) == len(ids)


def test_ids_of_many_threads_differ() -> None:
    runtime = Runtime()
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend(runtime.new_id() for _ in range(500))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2000


def test_now_is_aware_and_in_utc() -> None:
    before, now, after = datetime.now(UTC), Runtime().now(), datetime.now(UTC)
    assert now.utcoffset() == timedelta(0)
    assert before <= now <= after


def test_random_is_in_the_unit_interval_and_differs() -> None:
    runtime = Runtime()
    drawn = [runtime.random() for _ in range(100)]
    assert all(0 <= value < 1 for value in drawn)
    assert len(set(drawn)) > 90


def test_monotonic_never_goes_back() -> None:
    runtime = Runtime()
    readings = [runtime.monotonic() for _ in range(100)]
    assert readings == sorted(readings)


def test_use_runtime_holds_for_the_block_and_nests() -> None:
    real = current_runtime()
    outer, inner = Still(), Still()
    with use_runtime(outer) as installed:
        assert installed is outer
        assert current_runtime() is outer
        with use_runtime(inner):
            assert current_runtime() is inner
        assert current_runtime() is outer
    assert current_runtime() is real


def test_use_runtime_ends_with_an_exception() -> None:
    real = current_runtime()
    with pytest.raises(KeyError), use_runtime(Still()):
        raise KeyError
    assert current_runtime() is real


def test_a_thread_has_the_real_runtime() -> None:
    seen: list[Runtime] = []
    with use_runtime(Still()):
        thread = threading.Thread(target=lambda: seen.append(current_runtime()))
        thread.start()
        thread.join()
    assert type(seen[0]) is Runtime


@pytest.mark.asyncio
async def test_tasks_that_start_inside_the_block_keep_its_runtime_and_others_do_not() -> None:
    gate = asyncio.Event()

    async def ask() -> Runtime:
        await gate.wait()
        return current_runtime()

    runtime = Still()
    before = asyncio.create_task(ask())
    with use_runtime(runtime):
        inside = asyncio.create_task(ask())
    after = asyncio.create_task(ask())
    gate.set()
    assert await inside is runtime
    assert await before is not runtime
    assert await after is not runtime


def test_a_fixed_clock_and_own_ids_reach_an_event() -> None:
    class Made(Event):
        pass

    with use_runtime(Still()):
        one, two = Made(), Made()
        read = Made.from_json(b"{}")
    assert one.timestamp == two.timestamp == read.timestamp == NOON
    assert (one.event_id, two.event_id, read.event_id) == ("id-1", "id-2", "id-3")


def test_what_is_given_or_copied_asks_for_no_new_id() -> None:
    class Made(Event):
        n: int = 0

    runtime = Still()
    with use_runtime(runtime):
        event = Made()
        event.model_copy()
        event.model_copy(update={"n": 1})
        event.with_source("s")
        Made.from_json(event.to_json())
        Made(event_id="mine")
    assert runtime.made == 1


@pytest.mark.asyncio
async def test_a_fixed_clock_reaches_the_message_s_timestamp() -> None:
    class Made(Event):
        pass

    with use_runtime(Still()):
        broker = MemoryBroker()
        async with EventProducer(transport=MemoryTransport(broker)) as producer:
            await producer.send("t", Made(), partition=0)
    (stored,) = broker.browse("t", 0, 0, 10)
    assert stored.message.timestamp == NOON


@pytest.mark.asyncio
async def test_sleep_zero_lets_other_tasks_run_once() -> None:
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    task = asyncio.create_task(other())
    await Runtime().sleep(0)
    order.append("first")
    await task
    assert order == ["other", "first"]


@pytest.mark.asyncio
async def test_call_later_calls_unless_it_is_cancelled() -> None:
    called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    dropped: list[int] = []
    runtime = Runtime()
    runtime.call_later(0, lambda: dropped.append(1)).cancel()
    runtime.call_later(0.001, lambda: called.set_result(None))
    await asyncio.wait_for(called, 60)
    assert dropped == []


@pytest.mark.asyncio
async def test_a_timeout_cancels_its_block_after_the_time_and_no_other() -> None:
    runtime = Runtime()
    with pytest.raises(TimeoutError):
        async with runtime.timeout(0.001):
            await asyncio.sleep(60)
    async with runtime.timeout(60), runtime.timeout(None):
        await asyncio.sleep(0)
    with pytest.raises(KeyError):
        async with runtime.timeout(60):
            raise KeyError
