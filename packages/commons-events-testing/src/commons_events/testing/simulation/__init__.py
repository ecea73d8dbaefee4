"""A simulator: a user's own workers on a simulated broker, in virtual time, under faults.

It needs Hypothesis: ``pip install "commons-events-testing[contracts]"``.
"""

from commons_events.testing.simulation._faults import Fault, FaultKind, schedules
from commons_events.testing.simulation._history import (
    INVARIANTS,
    Handled,
    History,
    Invariant,
    Sent,
    key_order,
    nothing_left,
    nothing_lost,
)
from commons_events.testing.simulation._simulate import SimulationFailure, SimulationReport, simulate
from commons_events.testing.simulation._world import Scenario, SimulatedEvent, Worker, run_once

__all__ = [
    "INVARIANTS",
    "Fault",
    "FaultKind",
    "Handled",
    "History",
    "Invariant",
    "Scenario",
    "Sent",
    "SimulatedEvent",
    "SimulationFailure",
    "SimulationReport",
    "Worker",
    "key_order",
    "nothing_left",
    "nothing_lost",
    "run_once",
    "schedules",
    "simulate",
]
