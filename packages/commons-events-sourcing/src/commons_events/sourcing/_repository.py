"""`Repository`: aggregates of one class, and commands that are tried again after a conflict."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Concatenate, Generic, ParamSpec, TypeVar, overload
from weakref import WeakValueDictionary

from commons_events.errors import AggregateNotFoundError, ForeignAggregateError
from commons_events.retries import Retry
from commons_events.sourcing._aggregate import A, check_aggregate_class, check_aggregate_id, fresh
from commons_events.sourcing._aggregate_store import AggregateStore, stream_of
from commons_events.sourcing._nesting import Nesting, nested
from commons_events.sourcing._types import StreamId
from commons_events.sourcing._unit_of_work import CONFLICTS, UnitOfWork, check_retry, check_store, finished, retrying

__all__ = ["Repository", "run_unit"]

P = ParamSpec("P")
T = TypeVar("T")

_commands = Nesting()
_turns: WeakValueDictionary[tuple[AggregateStore, asyncio.AbstractEventLoop, StreamId], asyncio.Lock]
_turns = WeakValueDictionary()
"""Who carries out a command on a stream; there as long as somebody does, or waits for it."""


class Repository(Generic[A]):
    """The aggregates of one class in a store.

    Args:
        store: where they are.
        aggregate_class: their class.
        retry: what is done when somebody else has changed an aggregate in the meantime; by default five tries in all.

    Raises:
        ConfigurationError: the store or the policy is none.
        AggregateDefinitionError: the class is none of aggregates.
    """

    def __init__(self, store: AggregateStore, aggregate_class: type[A], *, retry: Retry = CONFLICTS) -> None:
        check_store(store)
        check_aggregate_class(aggregate_class)
        check_retry(retry)
        self._store = store
        self._class = aggregate_class
        self._retry = retry

    async def load(self, id: str, *, version: int | None = None) -> A:
        """The aggregate; with ``version``, as it was then.

        Raises:
            AggregateNotFoundError: there is no event of it.
        """
        return await self._store.load(self._class, id, version=version)

    async def get(self, id: str) -> A | None:
        """As `load`; None where there is no such aggregate."""
        try:
            return await self._store.load(self._class, id)
        except AggregateNotFoundError:
            return None

    async def save(self, aggregate: A) -> None:
        """See `EventStore.save`.

        Raises:
            ForeignAggregateError: it is of another class, or its stream another one than `load` reads, as that of a
                subclass without the same ``category`` is.
        """
        if not isinstance(aggregate, self._class):
            raise ForeignAggregateError(
                f"This repository is of {self._class.__qualname__}, and {aggregate!r:.100} is none. Save it by a "
                "repository of its own class, or by the store."
            )
        saved, read = stream_of(type(aggregate), aggregate.id), stream_of(self._class, aggregate.id)
        if saved != read:
            raise ForeignAggregateError(
                f"{aggregate!r:.100} is saved in the stream {str(saved)!r}, and this repository reads {str(read)!r}. "
                "Save it by a repository of its own class, or give both classes one category."
            )
        await self._store.save(aggregate)

    @overload
    async def execute(
        self, id: str, command: Callable[Concatenate[A, P], Awaitable[T]], *arguments: P.args, **keywords: P.kwargs
    ) -> T: ...

    @overload
    async def execute(
        self, id: str, command: Callable[Concatenate[A, P], T], *arguments: P.args, **keywords: P.kwargs
    ) -> T: ...

    async def execute(
        self, id: str, command: Callable[Concatenate[A, P], object], *arguments: P.args, **keywords: P.kwargs
    ) -> object:
        """Load the aggregate, carry out a command and save it; again, with the newest state, after a conflict.

        ``await users.execute("user_123", UserAggregate.activate)``. A command that applies no event saves nothing.

        Commands on one aggregate through one store take turns. Those that a command carries out itself, or that are
        carried out in a transaction's block, wait for nobody. A command must not wait for another task's one on its
        aggregate, which waits for its end.

        Args:
            id: the aggregate's.
            command: is called with the aggregate and the other arguments, once a try. What it raises reaches the
                caller, and nothing is saved.
            arguments: passed on.
            keywords: passed on.

        Returns:
            what the command returned.

        Raises:
            AggregateNotFoundError: there is no event of it.
            VersionConflictError: it was changed by somebody else in each try.
        """

        async def attempt() -> object:
            aggregate = await self._store.load(self._class, id)
            return await self._carry_out(aggregate, command, *arguments, **keywords)

        if nested():  # what is around it may be what the turn's owner waits for
            return await retrying(attempt, self._retry)
        stream = stream_of(self._class, check_aggregate_id(id, self._class.__qualname__))
        turn = _turns.setdefault((self._store, asyncio.get_running_loop(), stream), asyncio.Lock())
        async with turn:
            with _commands.block():
                return await retrying(attempt, self._retry)

    @overload
    async def create(
        self, id: str, command: Callable[Concatenate[A, P], Awaitable[T]], *arguments: P.args, **keywords: P.kwargs
    ) -> T: ...

    @overload
    async def create(
        self, id: str, command: Callable[Concatenate[A, P], T], *arguments: P.args, **keywords: P.kwargs
    ) -> T: ...

    async def create(
        self, id: str, command: Callable[Concatenate[A, P], object], *arguments: P.args, **keywords: P.kwargs
    ) -> object:
        """As `execute`, for an aggregate that does not exist yet.

        Raises:
            VersionConflictError: there is one of this id; it is not tried again.
        """
        return await self._carry_out(fresh(self._class, id), command, *arguments, **keywords)

    async def _carry_out(
        self, aggregate: A, command: Callable[Concatenate[A, P], object], *arguments: P.args, **keywords: P.kwargs
    ) -> object:
        result = await finished(command(aggregate, *arguments, **keywords))
        if aggregate.pending_events:
            await self._store.save(aggregate)
        return result


async def run_unit(store: AggregateStore, work: Callable[[UnitOfWork], Awaitable[T]], *, retry: Retry = CONFLICTS) -> T:
    """Do something to several aggregates in one transaction; again, from the start, after a conflict.

    Args:
        store: where they are.
        work: is called with a new `UnitOfWork` in each try, and loads from it all that it decides by.
        retry: what is done when somebody else has changed one of them in the meantime.

    Returns:
        what ``work`` returned.

    Raises:
        VersionConflictError: that of the last try.
        ConfigurationError: the store or the policy is none.
    """
    check_retry(retry)

    async def attempt() -> T:
        async with UnitOfWork(store) as unit:
            return await work(unit)

    return await retrying(attempt, retry)
