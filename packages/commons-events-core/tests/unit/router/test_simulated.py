"""A router keeps its promises in simulated runs, whatever dies, freezes, gets lost or fails meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from commons_events import Delivery, EventRouter, Retry
from commons_events.router import DeadLetters
from commons_events.testing.simulation import (
    INVARIANTS,
    Scenario,
    SimulatedEvent,
    Worker,
    nothing_left,
    nothing_lost,
    simulate,
)

SCENARIO = Scenario(events=30, keys=5, dead_letter_topic="dead")


def single(
    by: Literal["in-place", "redelivery", "topic"], order: Literal["none", "key"] = "none"
) -> Callable[[Worker], Awaitable[None]]:
    """One event after the other of a key; some fail for good."""

    async def program(worker: Worker) -> None:
        router = EventRouter()

        @router.subscribe(
            "events",
            group="billing",
            retry=Retry(attempts=3, by=by),
            dead_letter=DeadLetters("dead", order=order),
            concurrency=8,
        )
        async def on_event(event: SimulatedEvent, message: Delivery) -> None:
            await asyncio.sleep(0.02)
            if event.number % 7 == 3:
                raise ValueError("never")
            worker.handled(message)

        await router.run(broker=worker.transport)

    return program


async def batches(worker: Worker) -> None:
    router = EventRouter()

    @router.subscribe("events", group="billing", retry=Retry(attempts=3), dead_letter="dead", concurrency=8)
    async def on_events(events: list[SimulatedEvent], messages: list[Delivery]) -> None:
        await asyncio.sleep(0.02)
        for message in messages:
            worker.handled(message)

    await router.run(broker=worker.transport)


async def cancelled(worker: Worker) -> None:
    """Handlers that cancel their own task, as a time-out of a library does that does not take it back."""
    router = EventRouter()

    @router.subscribe("events", group="billing", retry=Retry(attempts=3), dead_letter="dead", concurrency=8)
    async def on_event(event: SimulatedEvent, message: Delivery) -> None:
        if event.number % 7 == 3:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.sleep(0.02)
        worker.handled(message)

    await router.run(broker=worker.transport)


@pytest.mark.parametrize(
    ("program", "invariants"),
    [
        pytest.param(single("in-place"), INVARIANTS, id="in-place"),
        pytest.param(single("redelivery"), INVARIANTS, id="redelivery"),
        pytest.param(batches, INVARIANTS, id="batches"),
        pytest.param(cancelled, INVARIANTS, id="cancelled"),
        # what is tried again by a topic of its own, or stands parked, is not handled in its order
        pytest.param(single("topic"), (nothing_lost, nothing_left), id="topic"),
        pytest.param(single("in-place", "key"), (nothing_lost, nothing_left), id="parked"),
    ],
)
def test_nothing_is_lost_and_a_key_keeps_its_order(
    program: Callable[[Worker], Awaitable[None]], invariants: tuple[Callable[..., object], ...]
) -> None:
    report = simulate(program, scenario=SCENARIO, runs=60, invariants=invariants)  # type: ignore[arg-type]
    assert report.deliveries > 10 * report.runs  # what stands parked is not handled
