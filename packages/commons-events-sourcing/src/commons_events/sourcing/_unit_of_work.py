"""`UnitOfWork`: several aggregates that are loaded once each, and saved together."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from commons_events.errors import AggregateNotFoundError, ClosedError, ForeignAggregateError, VersionConflictError
from commons_events.retries import Retry
from commons_events.runtime import current_runtime
from commons_events.sourcing._aggregate import A, AggregateRoot

if TYPE_CHECKING:
    from commons_events.sourcing._aggregate_store import AggregateStore

__all__ = ["CONFLICTS", "UnitOfWork", "retrying"]

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
    """

    def __init__(self, store: AggregateStore) -> None:
        self._store = store
        self._known: dict[tuple[type[AggregateRoot], str], AggregateRoot] = {}
        self._open = True

    async def load(self, aggregate_class: type[A], id: str) -> A:
        """The aggregate, as it is in this unit.

        Raises:
            AggregateNotFoundError: there is no event of it, and it was not added.
        """
        self._check_open()
        known = self._known.get((aggregate_class, id))
        if known is None:
            loaded = await self._store.load(aggregate_class, id)
            known = self._known.setdefault((aggregate_class, id), loaded)  # another task may have been quicker
        return cast(A, known)

    async def get(self, aggregate_class: type[A], id: str) -> A | None:
        """As `load`; None where there is no such aggregate."""
        try:
            return await self.load(aggregate_class, id)
        except AggregateNotFoundError:
            return None

    def add(self, aggregate: A) -> A:
        """Let a new aggregate be a part of this unit; returns it.

        Raises:
            ForeignAggregateError: the unit has another object of the same class and id, or it is no aggregate.
        """
        self._check_open()
        given: Any = aggregate
        if not isinstance(given, AggregateRoot):
            raise ForeignAggregateError(
                f"add() takes an aggregate, and {given!r:.100} is none. Derive its class from AggregateRoot, and make "
                "an object of it."
            )
        key = (type(aggregate), aggregate.id)
        if self._known.setdefault(key, aggregate) is not aggregate:
            raise ForeignAggregateError(
                f"This unit of work has {type(aggregate).__qualname__} {aggregate.id!r} as another object already; use "
                f"the one that load({type(aggregate).__qualname__}, {aggregate.id!r}) gives."
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
