"""`simulate`: many runs with many schedules of faults; the shortest one that breaks an invariant is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, seed, settings

from commons_events.testing.simulation._faults import Fault, FaultKind, schedules
from commons_events.testing.simulation._history import INVARIANTS, History, Invariant
from commons_events.testing.simulation._world import Program, Scenario, run_once

__all__ = ["SimulationFailure", "SimulationReport", "simulate"]


class SimulationFailure(AssertionError):  # noqa: N818  # as an AssertionError is none either
    """A schedule broke an invariant. The message has what broke, the faults, and what happened."""

    def __init__(self, problems: Sequence[str], schedule: Sequence[Fault], history: History) -> None:
        self.problems = tuple(problems)
        self.schedule = tuple(schedule)
        self.history = history
        super().__init__("\n".join([*problems, *_faults(schedule), "what happened:", *_shown(history.trace)]))


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What a simulation did that found nothing."""

    runs: int
    deliveries: int
    steps: int


def simulate(
    program: Program,
    *,
    scenario: Scenario | None = None,
    runs: int = 100,
    random_seed: int = 0,
    faults: Collection[FaultKind] = tuple(FaultKind),
    max_faults: int = 4,
    invariants: Sequence[Invariant] = INVARIANTS,
) -> SimulationReport:
    """Run a worker's program on a simulated broker, under faults, until an invariant breaks or ``runs`` are over.

    Time is virtual and randomness seeded, so that a run takes milliseconds and is the same every time. A schedule that
    breaks something is made as short as it goes (by Hypothesis) before it is reported.

    Args:
        program: a coroutine function of a `Worker`: receives by ``worker.transport``, calls ``worker.handled(message)``
            where the handling has its effect, and runs until it is cancelled.
        scenario: how many events, keys, partitions and workers; see `Scenario`.
        runs: how many schedules are tried.
        random_seed: another one tries other schedules.
        faults: what may go wrong.
        max_faults: how much of it in one run.
        invariants: what has to be true of every history.

    Raises:
        SimulationFailure: (an AssertionError) an invariant broke, a run did not end, or the program failed by itself.
        ValueError: nothing would be tried: no run, no fault, or a fault that there is not.
        TypeError: an invariant is no function that yields sentences.
        RuntimeError: an event loop runs here; a simulation has its own.
    """
    _refuse_loop()
    kinds = _kinds(faults)
    for name, count in (("runs", runs), ("max_faults", max_faults)):
        if count < 1:
            raise ValueError(f"simulate: {name}={count} has to be 1 or more.")
    if callable(invariants):
        raise TypeError("simulate: invariants are a list of functions: invariants=(*INVARIANTS, handled_once).")
    scenario = scenario or Scenario()
    undisturbed = run_once(program, scenario, (), random_seed)
    _check(undisturbed.problems, undisturbed.history, (), invariants)
    total = [1, undisturbed.deliveries, undisturbed.steps]

    def run(schedule: list[Fault]) -> None:
        result = run_once(program, scenario, schedule, random_seed)
        total[0] += 1
        total[1] += result.deliveries
        total[2] += result.steps
        _check(result.problems, result.history, schedule, invariants)

    search = settings(
        max_examples=runs,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    seed(random_seed)(search(given(schedules(undisturbed.steps, kinds, max_faults))(run)))()
    return SimulationReport(*total)


def _check(
    problems: Sequence[str], history: History, schedule: Sequence[Fault], invariants: Sequence[Invariant]
) -> None:
    found = [*problems, *(problem for invariant in invariants for problem in _said(invariant, history))]
    if found:
        raise SimulationFailure(found, schedule, history)


def _said(invariant: Invariant, history: History) -> Iterable[str]:
    said: object = invariant(history)
    if isinstance(said, str) or not isinstance(said, Iterable):
        name = getattr(invariant, "__qualname__", repr(invariant))
        raise TypeError(f"The invariant {name} returned {said!r:.100}; it yields a sentence for each thing wrong.")
    return said


def _kinds(faults: Collection[FaultKind]) -> list[FaultKind]:
    known = ", ".join(repr(str(kind)) for kind in FaultKind)
    if isinstance(faults, str) or not faults:
        raise ValueError(f"simulate: faults={faults!r} has to be some of: {known}.")
    try:
        return [FaultKind(fault) for fault in faults]
    except ValueError as error:
        raise ValueError(f"simulate: {error}; there are: {known}.") from None


def _refuse_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "simulate runs event loops of its own, and can't where one runs already: call it in a test that is not async."
    )


def _faults(schedule: Sequence[Fault]) -> list[str]:
    if not schedule:
        return ["without any fault"]
    return ["faults:", *(f"  before step {fault.step}: {fault.kind}" for fault in schedule)]


_MOST_LINES = 60


def _shown(trace: Sequence[str]) -> Sequence[str]:
    if len(trace) <= _MOST_LINES:
        return trace
    half = _MOST_LINES // 2
    return [*trace[:half], f"  … {len(trace) - _MOST_LINES} lines …", *trace[-half:]]
