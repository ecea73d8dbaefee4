"""`Projector`: keeps projections up with the store; each event has its effect once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from commons_events.errors import (
    CommonsEventsError,
    ConfigurationError,
    HandlerCancelledError,
    UnknownProjectionError,
)
from commons_events.log import logger
from commons_events.retries import Retry
from commons_events.runtime import current_runtime
from commons_events.sourcing._aggregate_store import events_of
from commons_events.sourcing._backend import LogQuery
from commons_events.sourcing._projection import Projection
from commons_events.sourcing._projection_pages import NOT_THE_EVENTS, Ground, Outcome, Pages, check_version
from commons_events.sourcing._projection_states import ProjectionStates, ProjectionStatus, checkpoint_name
from commons_events.sourcing._rebuild import RebuildProgress, rebuild
from commons_events.sourcing._store import BaseEventStore
from commons_events.sourcing._subscription import Subscription
from commons_events.sourcing._types import check_count, check_interval

__all__ = ["Projector"]

_QUIET = 1.0
"""Seconds between savings of a position that moved past events that nobody wants."""
_RETRY = Retry(attempts=3, delay=0.1)
_MOST_PARKED = 1_000_000


class Projector:
    """Runs projections: catches up from where each has come to, and then goes on with what is new.

    Several processes may run the same projections: one batch of a projection is handled at a time, whoever does it,
    and none twice. A handler that raises is tried again as ``retry`` says; then its event is parked with the reason,
    and the others go on. While the database is out of reach it waits.

    Args:
        store: whose events, and in whose database the projections' tables are.
        projections: what to run.
        retry: of handlers' exceptions; by default three tries. Errors that are ``retriable``, such as a lost connection
            to the database, are waited for and never park an event.
        batch: the most events of one transaction.
        poll_interval: seconds after which it looks for new events by itself, should a notice be lost.

    Raises:
        ConfigurationError: two projections have one name, or write one table; or an argument is none of its kind.
    """

    def __init__(
        self,
        store: BaseEventStore,
        projections: Iterable[Projection],
        *,
        retry: Retry = _RETRY,
        batch: int = 200,
        poll_interval: float = 1.0,
    ) -> None:
        given: Any = store
        if not isinstance(given, BaseEventStore):
            raise ConfigurationError(f"Projector's store is a {type(given).__name__}; it is an EventStore.")
        given = projections
        if not isinstance(given, Iterable):
            raise ConfigurationError(f"Projector takes a list of projections, not {given!r:.100}. Write [projection].")
        given = retry
        if not isinstance(given, Retry):
            raise ConfigurationError(f"retry is {given!r:.100}; it is a Retry, such as Retry(attempts=3).")
        self._store = store
        self._projections: dict[str, Projection] = {}
        owners: dict[str, str] = {}
        for projection in projections:
            given = projection
            if not isinstance(given, Projection):
                raise ConfigurationError(f"Projector takes a list of projections, and {given!r:.100} is none.")
            if projection.name in self._projections:
                raise ConfigurationError(f"Two projections are called {projection.name!r}; give one another name.")
            for table in projection.tables:
                owner = owners.setdefault(table.name, projection.name)
                if owner != projection.name:
                    raise ConfigurationError(
                        f"The projections {owner!r} and {projection.name!r} both have the table {table.name!r}; a "
                        "rebuild of one would take it from the other. Give each its own."
                    )
            self._projections[projection.name] = projection
        if not self._projections:
            raise ConfigurationError("Projector takes at least one projection.")
        self._retry = retry
        self._batch = check_count(batch, "batch")
        self._poll_interval = check_interval(poll_interval, "poll_interval")
        self._states = ProjectionStates(store)
        self._started: set[str] = set()

    @property
    def store(self) -> BaseEventStore:
        """Whose events it handles."""
        return self._store

    @property
    def projections(self) -> Sequence[Projection]:
        """What it runs."""
        return tuple(self._projections.values())

    @property
    def states(self) -> ProjectionStates:
        """What operators see and do: status, pauses, parked events."""
        return self._states

    # --- running -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run all projections until this is cancelled, which loses nothing.

        Raises:
            ProjectionVersionError: a projection's tables are of another version than its code; rebuild it first.
            ProjectionDefinitionError: a projection has no handler, or one that takes a `StoreTransaction` and gives
                nothing to await.
            HandlerCancelledError: a projection's task ended by a cancellation that nobody had asked of this.
            CapabilityError: the store is in memory, and has no SQL.
        """
        tasks = [
            asyncio.create_task(self._follow(projection), name=f"projection {projection.name}")
            for projection in self._projections.values()
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended = next(task for task in tasks if task.done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if ended.cancelled():
            raise HandlerCancelledError(f"The task of the {ended.get_name()} was cancelled, though run() was not.")
        ended.result()

    async def catch_up(self) -> int:
        """Handle all that is there now, and return how many events that were.

        Raises:
            ProjectionVersionError: see `run`.
            StoreUnavailableError: the database is out of reach.
        """
        handled = 0
        for projection in self._projections.values():
            self._started.discard(projection.name)  # where nothing is to be handled, nothing else looks at the version
            await self._start(projection)
            worker = _Worker(self._store, projection, self._pages(projection), self._batch, self._poll_interval)
            while (count := await worker.step()) is not None:
                handled += count
            await worker.save_position()
        return handled

    def _pages(self, projection: Projection) -> Pages:
        return Pages(projection, Ground(self._store, self._states, rebuild=False), self._retry)

    async def _start(self, projection: Projection) -> None:
        """Make the projection's tables if it is new here, and check its version."""
        if projection.name in self._started:
            return
        _ = projection.event_types  # refuses one without handlers
        async with self._store.transaction() as transaction:
            check_version(projection, (await self._states.enter(transaction, projection)).version)
        self._started.add(projection.name)

    async def _follow(self, projection: Projection) -> None:
        runtime = current_runtime()
        worker = _Worker(self._store, projection, self._pages(projection), self._batch, self._poll_interval)
        failures = 0
        while True:
            try:
                await self._start(projection)
                count = await worker.step()
                failures = 0
                if count is None:
                    await worker.wait()
            except CommonsEventsError as error:
                if not error.retriable:
                    raise
                failures += 1
                delay = min(0.1 * 2.0 ** min(failures, 10), 10.0)
                logger().warning(
                    "a projection waits for its database", projection=projection.name, error=str(error), seconds=delay
                )
                await runtime.sleep(delay)

    # --- operations --------------------------------------------------------------------------------------------

    async def status(self) -> list[ProjectionStatus]:
        """How these projections are; one that has not run yet is left out.

        Raises:
            CapabilityError: the store is in memory, and has no SQL.
        """
        return [status for status in await self._states.status() if status.name in self._projections]

    async def rebuild(
        self, name: str, *, on_progress: Callable[[RebuildProgress], object] = lambda progress: None
    ) -> RebuildProgress:
        """Fill new tables beside the live ones from the store's first event on, and swap them in once they are level.

        The live ones are kept up by their workers meanwhile, and are read as before. A rebuild that was broken off is
        gone on with, where its version is the same. On SQLite the new tables are in a file of their own until the swap.

        Args:
            name: the projection's.
            on_progress: is called after each batch.

        Raises:
            UnknownProjectionError: this projector has no projection of this name.
            ProjectionVersionError: the live tables are of a newer version than this code.
        """
        projection = self._find(name)
        _ = projection.event_types
        async with self._store.transaction() as transaction:
            await self._states.enter(transaction, projection)
        done = await rebuild(self._store, projection, self._states, self._retry, self._batch, on_progress)
        self._started.discard(name)
        return done

    async def retry_parked(self, name: str) -> tuple[int, int]:
        """Try the parked events again, in order; those of a stream up to the first one that fails again.

        Returns:
            how many were handled, and how many are still parked.

        Raises:
            UnknownProjectionError: this projector has no projection of this name.
            ProjectionVersionError: see `run`.
        """
        projection = self._find(name)
        await self._start(projection)
        backend = await self._store._ready()
        blocked: set[object] = set()
        done = left = after = 0
        # Those that workers park meanwhile come in another round: they wait behind what is handled here.
        while waiting := [one for one in await self._states.parked(name, limit=_MOST_PARKED) if one.position > after]:
            after = waiting[-1].position
            for parked in waiting:
                if parked.stream in blocked:
                    left += 1
                    continue
                page = (await backend.fetch_log(LogQuery(), parked.position, parked.position, 1, False)).events
                try:
                    async with self._store.transaction() as transaction:
                        await transaction.checkpoint(checkpoint_name(name))
                        # somebody may have swapped new tables in since the start
                        check_version(projection, (await self._states.require(transaction, name)).version)
                        if not await self._states.unpark(transaction, name, parked.position):
                            continue  # somebody else retries, too
                        if page:  # else its stream was deleted, and nothing is left to handle
                            (event,) = events_of(page)
                            await projection.handle(event, page[0], transaction)
                    done += 1
                except NOT_THE_EVENTS:
                    raise
                except Exception as error:
                    if isinstance(error, CommonsEventsError) and error.retriable:
                        raise
                    left += 1
                    if projection.parking == "stream":
                        blocked.add(parked.stream)
                    async with self._store.transaction() as transaction:
                        await self._states.failed_again(transaction, name, parked.position, error)
        return done, left

    def _find(self, name: str) -> Projection:
        projection = self._projections.get(name)
        if projection is None:
            raise UnknownProjectionError(
                f"This projector has no projection {name!r}; it has: {', '.join(self._projections)}."
            )
        return projection


class _Worker:
    """One projection's way through the log."""

    def __init__(
        self, store: BaseEventStore, projection: Projection, pages: Pages, batch: int, poll_interval: float
    ) -> None:
        self._store = store
        self._projection = projection
        self._pages = pages
        self._batch = batch
        self._poll_interval = poll_interval
        self._reading: Subscription | None = None
        self._saved = 0
        self._saved_at = current_runtime().monotonic()

    async def step(self) -> int | None:
        """Read a page and handle it; how many events that were, or None where there is nothing to do now."""
        if self._reading is None:
            self._saved = await self._store.checkpoint(checkpoint_name(self._projection.name))
            self._reading = self._store.subscribe(
                after=self._saved, types=self._projection.event_types, poll_interval=self._poll_interval
            )
        reading, before = self._reading, self._reading.position
        self._reading = None  # unless all goes well, what was read is read again from what is saved
        page = await reading.next_page(self._batch, wait=False)
        end = reading.position
        if page or (end > self._saved and current_runtime().monotonic() - self._saved_at >= _QUIET):
            outcome = await self._pages.handle(page, self._saved, end)
            if outcome is Outcome.PAUSED:
                return None
            if outcome is Outcome.MOVED:
                return 0
            self._saved, self._saved_at = end, current_runtime().monotonic()
        self._reading = reading
        return len(page) if page or end > before else None

    async def save_position(self) -> None:
        """Save where it has come to, past events that nobody wants."""
        if self._reading is not None and self._reading.position > self._saved:
            await self._pages.handle((), self._saved, self._reading.position)
            self._saved = self._reading.position

    async def wait(self) -> None:
        """Return once there may be something to do."""
        if self._reading is None:  # paused
            await current_runtime().sleep(self._poll_interval)
        else:
            backend = await self._store._ready()
            await backend.wait(self._reading.position, self._poll_interval)
