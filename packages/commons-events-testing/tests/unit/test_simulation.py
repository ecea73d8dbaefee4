"""The simulator finds what is wrong, and nothing where nothing is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from commons_events import ConsumerConfig, Delivery, EventConsumer
from commons_events.dead_letters import dead_letter
from commons_events.errors import ConnectionLostError
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.message import Receipt
from commons_events.testing.simulation import (
    INVARIANTS,
    Fault,
    FaultKind,
    History,
    Scenario,
    SimulationFailure,
    Worker,
    run_once,
    simulate,
)

CONFIG = ConsumerConfig(topics=("events",), group_id="g")
RUNS = 300
"""Within so many schedules each planted bug is found."""


def consumer(worker: Worker) -> EventConsumer:
    return EventConsumer(CONFIG, transport=worker.transport)


async def acknowledge(message: Delivery) -> None:
    """One whose acknowledgement does not get through comes again."""
    try:
        await message.ack()
    except ConnectionLostError:
        message.outcome = None
        await message.nack(0.0)


async def good(worker: Worker) -> None:
    """Handles one after the other, and acknowledges what is handled."""
    async with consumer(worker) as messages:
        async for message in messages:
            await asyncio.sleep(0.01)
            worker.handled(message)
            await acknowledge(message)


def test_a_good_worker_survives_everything() -> None:
    report = simulate(good, runs=RUNS)
    assert report.runs > RUNS / 2
    assert report.deliveries >= report.runs * 20


def test_a_run_is_the_same_every_time() -> None:
    schedule = [Fault(10, FaultKind.CRASH), Fault(30, FaultKind.FREEZE), Fault(45, FaultKind.JOIN)]
    one, other = (run_once(good, Scenario(), schedule).history.trace for _ in range(2))
    assert one == other
    assert sum("FAULT" in line for line in one) == 3


def test_the_dead_do_not_clean_up() -> None:
    """A crash runs no ``finally``: whoever relies on one is found out."""
    cleaned: list[str] = []

    async def tidy(worker: Worker) -> None:
        try:
            await good(worker)
        finally:
            cleaned.append(worker.name)

    assert not run_once(tidy, Scenario(workers=1), [Fault(20, FaultKind.CRASH)]).problems
    # one clean-up at the end of the run, and one when what was left of the dead was taken away
    history = run_once(tidy, Scenario(workers=1), [Fault(20, FaultKind.CRASH)]).history
    assert sum("starts" in line for line in history.trace) == 2
    assert not any("ends with" in line for line in history.trace)


# --- planted bugs ----------------------------------------------------------------------------------------------


async def acknowledges_before_it_handles(worker: Worker) -> None:
    async with consumer(worker) as messages:
        async for message in messages:
            await acknowledge(message)
            await asyncio.sleep(0.01)
            worker.handled(message)


async def commits_past_what_is_unfinished(worker: Worker) -> None:
    async def handle(message: Delivery, seconds: float) -> None:
        await asyncio.sleep(seconds)
        worker.handled(message)

    async with consumer(worker) as messages:
        while batch := await messages.receive(4):
            slow = asyncio.gather(*(handle(message, 0.05) for message in batch[1:]))
            await handle(batch[0], 0.01)
            await messages.commit()  # the first is finished, and the others with it
            await slow


async def acknowledges_when_it_is_cancelled(worker: Worker) -> None:
    async with consumer(worker) as messages:
        async for message in messages:
            try:
                await asyncio.sleep(0.01)
                worker.handled(message)
            finally:
                await acknowledge(message)


async def loses_a_dead_letter_whose_publish_fails(worker: Worker) -> None:
    async with consumer(worker) as messages:
        async for message in messages:
            if message.event().event_id.endswith("3"):
                try:
                    (result,) = await worker.transport.publish([dead_letter(message, "dead", "three", None)])
                    assert isinstance(result, Receipt)
                except TimeoutError:
                    pass  # never mind
            else:
                worker.handled(message)
            await acknowledge(message)


async def handles_a_key_side_by_side(worker: Worker) -> None:
    async def handle(place: int, message: Delivery) -> None:
        await asyncio.sleep(0.01 if place % 2 else 0.02)
        worker.handled(message)
        await acknowledge(message)

    async with consumer(worker) as messages:
        while batch := await messages.receive(10):
            await asyncio.gather(*(handle(place, message) for place, message in enumerate(batch)))


@pytest.mark.parametrize(
    ("program", "problem", "most_faults"),
    [
        (acknowledges_before_it_handles, "lost: events", 1),
        (commits_past_what_is_unfinished, "lost: events", 1),
        (acknowledges_when_it_is_cancelled, "lost: events", 2),
        (loses_a_dead_letter_whose_publish_fails, "lost: events", 1),
        (handles_a_key_side_by_side, "order: event", 1),
    ],
)
def test_a_planted_bug_is_found_and_shown_by_a_short_schedule(
    program: Callable[[Worker], Awaitable[object]], problem: str, most_faults: int
) -> None:
    with pytest.raises(SimulationFailure, match=problem) as found:
        simulate(program, scenario=Scenario(dead_letter_topic="dead"), runs=RUNS)
    assert len(found.value.schedule) <= most_faults
    text = str(found.value)
    assert "what happened:" in text
    assert len(text.splitlines()) < 80


def handled_once(history: History) -> Iterable[str]:
    for event_id, times in Counter(handled.event_id for handled in history.handled).items():
        if times > 1:
            yield f"twice: {event_id} had its effect {times} times"


def deduplicating(seen_of: Callable[[Worker], set[str]]) -> Callable[[Worker], Awaitable[None]]:
    async def program(worker: Worker) -> None:
        seen = seen_of(worker)
        async with consumer(worker) as messages:
            async for message in messages:
                identity = message.event().event_id
                await asyncio.sleep(0.01)
                if identity not in seen:
                    seen.add(identity)
                    worker.handled(message)
                await acknowledge(message)

    return program


def test_a_retry_that_is_not_deduplicated_breaks_an_invariant_of_the_user_s_own() -> None:
    with pytest.raises(SimulationFailure, match="twice: "):
        simulate(good, runs=RUNS, invariants=(*INVARIANTS, handled_once))
    with pytest.raises(SimulationFailure, match="twice: "):  # remembered in a process that dies with it
        simulate(deduplicating(lambda worker: set()), runs=RUNS, invariants=(*INVARIANTS, handled_once))


def test_deduplication_outside_the_process_holds() -> None:
    tables: WeakKeyDictionary[MemoryBroker, set[str]] = WeakKeyDictionary()

    def table(worker: Worker) -> set[str]:
        assert isinstance(worker.transport, MemoryTransport)
        return tables.setdefault(worker.transport.broker, set())  # one a run

    simulate(deduplicating(table), runs=RUNS, invariants=(*INVARIANTS, handled_once))


async def ignores_its_cancellation(worker: Worker) -> None:
    while True:
        try:
            await good(worker)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)


async def waits_for_nobody(worker: Worker) -> None:
    await asyncio.get_running_loop().create_future()


async def spins(worker: Worker) -> None:
    while worker.name:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def fails_at_once(worker: Worker) -> None:
    raise LookupError("no such table")


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (ignores_its_cancellation, "did not end within 30 s"),
        (waits_for_nobody, "lost: events"),
        (spins, "hang: it goes on without an end"),
        (fails_at_once, "failed without any fault: LookupError: no such table"),
    ],
)
def test_what_hangs_or_fails_by_itself_is_found_before_any_fault(
    program: Callable[[Worker], Awaitable[object]], problem: str
) -> None:
    with pytest.raises(SimulationFailure, match=problem) as found:
        simulate(program, scenario=Scenario(max_steps=20_000), runs=1)
    assert found.value.schedule == ()


def nothing_said(history: History) -> Any:
    return None


def said_in_one_piece(history: History) -> Any:
    return "wrong"


@pytest.mark.parametrize(
    ("settings", "error", "problem"),
    [
        ({"faults": ("krash",)}, ValueError, "'krash' is not a valid FaultKind; there are: 'crash', 'stop'"),
        ({"faults": ()}, ValueError, "has to be some of: 'crash'"),
        ({"faults": "crash"}, ValueError, "has to be some of: 'crash'"),
        ({"runs": 0}, ValueError, "runs=0 has to be 1 or more"),
        ({"max_faults": 0}, ValueError, "max_faults=0 has to be 1 or more"),
        ({"invariants": handled_once}, TypeError, "invariants are a list of functions"),
        ({"invariants": (nothing_said,)}, TypeError, "nothing_said returned None; it yields a sentence"),
        ({"invariants": (said_in_one_piece,)}, TypeError, "said_in_one_piece returned 'wrong'"),
    ],
)
def test_what_would_try_nothing_is_refused(settings: Any, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        simulate(good, **{"runs": 1, **settings})


@pytest.mark.parametrize("name", ["events", "keys", "partitions", "workers", "max_steps"])
def test_a_scenario_has_one_of_each_at_least(name: str) -> None:
    for wrong in (0, "1"):
        with pytest.raises(ValueError, match=f"Scenario: {name}={wrong!r} has to be 1 or more"):
            Scenario(**{name: wrong})  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_where_a_loop_runs_it_is_said_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="call it in a test that is not async"):
        simulate(good, runs=1)


def test_faults_may_be_named_by_their_words() -> None:
    assert simulate(good, runs=2, faults=("crash",)).runs > 1  # type: ignore[arg-type]
