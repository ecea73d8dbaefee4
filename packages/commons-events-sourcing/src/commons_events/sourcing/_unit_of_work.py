"""`UnitOfWork`: several aggregates that are loaded once each, and saved together."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from commons_events.errors import (
    AggregateNotFoundError,
    ClosedError,
    ConfigurationError,
    ForeignAggregateError,
    VersionConflictError,
)
from commons_events.retries import Retry
from commons_events.runtime import current_runtime
from commons_events.sourcing._aggregate import A, AggregateRoot, check_aggregate_class, check_aggregate_id
from commons_events.sourcing._aggregate_store import AggregateStore, stream_of
from commons_events.sourcing._types import StreamId

__all__ = ["CONFLICTS", "UnitOfWork", "check_retry", "check_store", "retrying"]

T = TypeVar("T")

CONFLICTS = Retry(attempts=5, immediate=1, delay=0.01, max_delay=1.0, on=(VersionConflictError,))
"""What is done after a conflict unless something else is said: five tries in all, the second one at once."""


class UnitOfWork:
    """What one command does to one or several aggregates: all of it is stored, in one transaction, or nothing.

    An aggregate is loaded once: asking for it again gives the same object (an identity map). Leaving ``async with``
    saves those that have changed; an exception, a cancelled task and `discard` leave all as it was.
    A unit belongs to one task and one event loop. It holds no connection while it is open.

    Args:
        store: where they are.

    Raises:
        ConfigurationError: the store is none.
    """

    def __init__(self, store: AggregateStore) -> None:
        check_store(store)
        self._store = store
        self._known: dict[StreamId, AggregateRoot] = {}
        self._open = True

    async def load(self, aggregate_class: type[A], id: str) -> A:
        """The aggregate, as it is in this unit.

        Raises:
            AggregateNotFoundError: there is no event of it, and it was not added.
            ForeignAggregateError: the unit has its stream as an object that is none of this class.
        """
        self._check_open()
        check_aggregate_class(aggregate_class)
        stream = stream_of(aggregate_class, check_aggregate_id(id, aggregate_class.__qualname__))
        known = self._known.get(stream)
        if known is None:
            loaded = await self._store.load(aggregate_class, id)
            known = self._known.setdefault(stream, loaded)  # another task may have been quicker
        if not isinstance(known, aggregate_class):
            raise ForeignAggregateError(
                f"This unit of work has the stream {str(stream)!r} as {type(known).__qualname__} already, which is no "
                f"{aggregate_class.__qualname__}. Load it as {type(known).__qualname__}, or in another unit."
            )
        return known

    async def get(self, aggregate_class: type[A], id: str) -> A | None:
        """As `load`; None where there is no such aggregate."""
        try:
            return await self.load(aggregate_class, id)
        except AggregateNotFoundError:
            return None

    def add(self, aggregate: A) -> A:
        """Let a new aggregate be a part of this unit; returns it.

        Raises:
            ForeignAggregateError: the unit has another object of the same stream, or it is no aggregate.
        """
        self._check_open()
        given: Any = aggregate
        if not isinstance(given, AggregateRoot):
            raise ForeignAggregateError(
                f"add() takes an aggregate, and {given!r:.100} is none. Derive its class from AggregateRoot, and make "
                "an object of it."
            )
        known = self._known.setdefault(stream_of(type(aggregate), aggregate.id), aggregate)
        if known is not aggregate:
            raise ForeignAggregateError(
                f"This unit of work has {type(known).__qualname__} {known.id!r} as another object already; use the one "
                f"that load({type(known).__qualname__}, {known.id!r}) gives."
            )
        return aggregate

    async def commit(self) -> None:
        """Save what has changed; the unit goes on, with the same objects.

        Raises:
            VersionConflictError: one of them was changed by somebody else; nothing was saved.
        """
        self._check_open()
        changed = [aggregate for aggregate in self._known.values() if aggregate.pending_events]
        if changed:
            await self._store.save(*changed)

    def discard(self) -> None:
        """End the unit; what was not saved is forgotten."""
        self._open = False
        self._known.clear()

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self._open:
                await self.commit()
        finally:
            self.discard()

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("This unit of work has ended; make a new one for what comes next.")


def check_store(store: object) -> None:
    """Raise `ConfigurationError` where it is no store of aggregates."""
    if not isinstance(store, AggregateStore):
        raise ConfigurationError(f"The store has to be an EventStore, and is {store!r:.100}.")


def check_retry(retry: object) -> None:
    """Raise `ConfigurationError` where it is no policy."""
    if not isinstance(retry, Retry):
        raise ConfigurationError(
            f"retry is {retry!r:.100}, and has to be a commons_events.retries.Retry, such as "
            "Retry(attempts=10, on=(VersionConflictError,)); Retry(attempts=1) tries once."
        )


async def retrying(work: Callable[[], Awaitable[T]], policy: Retry) -> T:
    """Do the work, again after a conflict, as the policy says.

    Args:
        work: begins anew each time: it loads, decides and saves.
        policy: of `VersionConflictError` and what else it names in ``on``; ``by`` and deliveries mean nothing here.

    Raises:
        VersionConflictError: that of the last try.
    """
    runtime = current_runtime()
    started, failures = runtime.monotonic(), 0
    while True:
        try:
            return await work()
        except Exception as error:
            failures += 1
            if policy.verdict(error) != "retry" or (policy.attempts is not None and failures >= policy.attempts):
                raise
            delay = policy.seconds(failures, runtime.random())
            if policy.within is not None and runtime.monotonic() - started + delay > policy.within:
                raise
        await runtime.sleep(delay)


async def finished(result: Any) -> Any:
    """What a command returned, awaited where it is to be."""
    return await result if inspect.isawaitable(result) else result
