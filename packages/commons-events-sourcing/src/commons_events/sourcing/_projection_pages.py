"""How a page of events becomes a part of a read model: once, with the position, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import Connection

from commons_events.errors import (
    CommonsEventsError,
    ProjectionDefinitionError,
    ProjectionVersionError,
    TransactionAbortedError,
)
from commons_events.log import logger
from commons_events.retries import Retry, RetryAfter
from commons_events.runtime import current_runtime
from commons_events.sourcing._aggregate_store import events_of
from commons_events.sourcing._projection import Projection
from commons_events.sourcing._projection_states import ProjectionStates, checkpoint_name
from commons_events.sourcing._store import BaseEventStore
from commons_events.sourcing._types import StoredEvent

__all__ = ["NOT_THE_EVENTS", "Ground", "Outcome", "Pages", "check_version"]

NOT_THE_EVENTS = (ProjectionDefinitionError, ProjectionVersionError)
"""What is wrong with the code, whatever the event."""
_TRIES = 10
"""Of a transaction that is broken off by a deadlock, say."""


class Outcome(Enum):
    """What became of a page."""

    DONE = "done"
    MOVED = "moved"
    """Another worker has been there; nothing was done."""
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a projection is written: the live tables, or those of a rebuild."""

    store: BaseEventStore
    """Whose transactions reach them."""
    states: ProjectionStates
    """In the same database."""
    rebuild: bool
    enter: Callable[[Connection], bool] | None = None
    """Is called once a transaction holds the checkpoint, so that the tables' names stand for the right ones; False
    where these are gone."""


class Pages:
    """Handles pages of events for one projection.

    Args:
        projection: the projection.
        ground: where it is written.
        retry: of handlers' exceptions.
    """

    def __init__(self, projection: Projection, ground: Ground, retry: Retry) -> None:
        self._projection = projection
        self._ground = ground
        self._retry = retry
        self._checkpoint = checkpoint_name(projection.name, rebuild=ground.rebuild)

    async def handle(self, page: Sequence[StoredEvent], start: int, end: int) -> Outcome:
        """Handle a page; where an event fails, one by one, and that one is parked when nothing helps.

        Args:
            page: events after ``start``, up to ``end``, in order.
            start: the position that is saved now.
            end: the position to save with the last event.

        Raises:
            CommonsEventsError: an error that is ``retriable``; what was done before it stays done.
            ProjectionVersionError: the live tables are of another version.
            ProjectionDefinitionError: a handler cannot work, whatever the event.
        """
        try:
            return await self._together(page, start, end)
        except NOT_THE_EVENTS:
            raise
        except Exception as error:
            if _waits(error) or not page:
                raise
        for place, stored in enumerate(page):
            last = end if place == len(page) - 1 else stored.position
            outcome = await self._alone(stored, start, last)
            if outcome is not Outcome.DONE:
                return outcome
            start = last
        return Outcome.DONE

    async def _together(self, page: Sequence[StoredEvent], start: int, end: int) -> Outcome:
        """All in one transaction, again where the server breaks it off for a reason that passes."""
        for left in range(_TRIES - 1, -1, -1):
            try:
                return await self._once(page, start, end)
            except TransactionAbortedError:
                if not left:
                    raise
        raise AssertionError

    async def _once(self, page: Sequence[StoredEvent], start: int, end: int) -> Outcome:
        projection, ground = self._projection, self._ground
        name, states = projection.name, ground.states
        events = events_of(page)
        async with ground.store.transaction() as transaction:
            if await transaction.checkpoint(self._checkpoint) != start:
                return Outcome.MOVED
            if ground.enter is not None and not await transaction.run_sync(ground.enter):
                return Outcome.MOVED
            row: Any = None
            if not ground.rebuild:
                row = await states.require(transaction, name)
                if row.paused:
                    return Outcome.PAUSED
                check_version(projection, row.version)
            blocked = {}
            if page and projection.parking == "stream":
                streams = [stored.stream for stored in page]
                blocked = await states.blocked(transaction, name, streams, rebuild=ground.rebuild)
            for event, stored in zip(events, page, strict=True):
                if stored.stream in blocked:
                    behind = blocked[stored.stream]
                    await states.park(
                        transaction, name, stored, rebuild=ground.rebuild, error=None, behind=behind, attempts=0
                    )
                else:
                    await projection.handle(event, stored, transaction)
            if end != start:
                await transaction.save_checkpoint(self._checkpoint, end)
            if row is not None and row.error is not None:
                await states.write(transaction, name, error=None, error_position=None)
        return Outcome.DONE

    async def _alone(self, stored: StoredEvent, start: int, end: int) -> Outcome:
        """One event in a transaction of its own, as often as the policy says; then it is parked."""
        runtime, retry = current_runtime(), self._retry
        started, failures = runtime.monotonic(), 0
        while True:
            try:
                return await self._together((stored,), start, end)
            except NOT_THE_EVENTS:
                raise
            except Exception as problem:
                if _waits(problem):
                    raise
                error = problem
            failures += 1
            verdict = retry.verdict(error)
            delay = error.delay if isinstance(error, RetryAfter) else retry.seconds(failures, runtime.random())
            over = retry.attempts is not None and failures >= retry.attempts
            late = retry.within is not None and runtime.monotonic() - started + delay > retry.within
            if verdict != "retry" or over or late:
                return await self._put_aside(stored, start, end, error, failures, park=verdict != "ignore")
            await self._note(stored, error)
            await runtime.sleep(delay)

    async def _put_aside(
        self, stored: StoredEvent, start: int, end: int, error: Exception, attempts: int, *, park: bool
    ) -> Outcome:
        ground, name = self._ground, self._projection.name
        async with ground.store.transaction() as transaction:
            if await transaction.checkpoint(self._checkpoint) != start:
                return Outcome.MOVED
            if not ground.rebuild:  # somebody may have swapped new tables in between the last try and now
                check_version(self._projection, (await ground.states.require(transaction, name)).version)
            if park:
                await ground.states.park(
                    transaction, name, stored, rebuild=ground.rebuild, error=error, attempts=attempts
                )
            if not ground.rebuild:
                await ground.states.write(transaction, name, error=None, error_position=None)
            await transaction.save_checkpoint(self._checkpoint, end)
        logger().error(
            "a projection's event was parked" if park else "a projection's event was left out",
            projection=name,
            position=stored.position,
            stream=str(stored.stream),
            event_type=stored.event_type,
            attempts=attempts,
            exc_info=error,
        )
        return Outcome.DONE

    async def _note(self, stored: StoredEvent, error: Exception) -> None:
        """Let operators see what fails while it is tried again."""
        if self._ground.rebuild:
            return
        async with self._ground.store.transaction() as transaction:
            text = f"{type(error).__qualname__}: {error}".replace("\0", "\\0")[:4000]
            await self._ground.states.write(
                transaction, self._projection.name, error=text, error_position=stored.position
            )


def check_version(projection: Projection, live: int) -> None:
    """Refuse to write tables of another version.

    Raises:
        ProjectionVersionError: the live tables are not of the code's version.
    """
    if live == projection.version:
        return
    start = f"The projection {projection.name!r} is version {projection.version} in this code, and its tables are of "
    if live < projection.version:
        raise ProjectionVersionError(
            f"{start}the older version {live}. Rebuild it, beside the live one: commons-events projections rebuild "
            f"MODULE:PROJECTOR {projection.name}"
        )
    raise ProjectionVersionError(f"{start}the newer version {live}. Run the newer code; this one writes nothing.")


def _waits(error: Exception) -> bool:
    """Whether it is the database's trouble and not the event's."""
    return isinstance(error, CommonsEventsError) and error.retriable
