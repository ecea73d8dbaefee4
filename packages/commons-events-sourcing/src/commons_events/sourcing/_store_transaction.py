"""`StoreTransaction`, and how it and the store take what they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, overload

from commons_events.errors import ClosedError, ConfigurationError
from commons_events.event import Event
from commons_events.sourcing._backend import BackendTransaction, Lease, LogQuery
from commons_events.sourcing._decoding import stored_types
from commons_events.sourcing._encoding import prepare
from commons_events.sourcing._types import (
    Append,
    AppendResult,
    Expected,
    ExpectedState,
    NewEvent,
    PreparedAppend,
    StoredEvent,
    StoredSnapshot,
    StreamId,
    check_name,
    check_position,
    check_several,
    check_stream,
    checked_snapshot,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, CursorResult, Result
    from sqlalchemy.sql import Executable
    from sqlalchemy.sql.dml import UpdateBase
    from sqlalchemy.sql.selectable import TypedReturnsRows


__all__ = [
    "MAX_EVENT_BYTES",
    "MAX_POSITION",
    "StoreTransaction",
    "bounds",
    "log_query",
    "prepare_all",
]

T = TypeVar("T")
Columns = TypeVarTuple("Columns")

MAX_POSITION = 2**63 - 1
MAX_EVENT_BYTES = 16 * 1024 * 1024


class StoreTransaction:
    """What is done through it is seen together, or not at all; made by `EventStore.transaction`.

    Appends, checkpoints and snapshots of the store, and whatever SQL the program has for its own tables in the same
    database. Calls of several tasks are done one after the other; after the block's end each is a `ClosedError`.
    """

    def __init__(self, backend: BackendTransaction, max_event_bytes: int) -> None:
        self._backend = backend
        self._max_event_bytes = max_event_bytes
        self._after_commit: list[Callable[[], object]] = []
        """Called in this order once the transaction is committed, and never where it was rolled back."""
        self._turn = asyncio.Lock()
        self._under_way: asyncio.Timeout | None = None
        self._ended = False

    async def _call(self, function: Callable[..., Awaitable[T]], *arguments: Any, **keywords: Any) -> T:
        """Call the backend, which by the end of the block may have given the connection to somebody else."""
        async with self._turn:
            if self._ended:
                raise ClosedError("The block of this transaction has ended; begin another one for what comes next.")
            try:
                async with asyncio.timeout(None) as self._under_way:
                    return await function(*arguments, **keywords)
            except TimeoutError as error:
                if self._under_way is not None and self._under_way.expired():
                    raise ClosedError("This was broken off and rolled back: the transaction's block failed.") from error
                raise
            finally:
                self._under_way = None

    async def _end(self, *, failed: bool) -> None:
        """Take no more calls, and return once the one that another task may have under way is over.

        Args:
            failed: break it off, as is done where the caller is cancelled; else it is waited for.
        """
        self._ended = True
        cancelled: asyncio.CancelledError | None = None
        while self._turn.locked():
            if failed and self._under_way is not None and not self._under_way.expired():
                self._under_way.reschedule(0)
            try:
                async with self._turn:
                    pass
            except asyncio.CancelledError as error:
                failed, cancelled = True, error
        if cancelled is not None:
            raise cancelled

    async def append(
        self, stream: StreamId | str, events: Iterable[Event | NewEvent], *, expected: Expected = ExpectedState.ANY
    ) -> AppendResult:
        """As `EventStore.append`. The stream stays locked for other writers until the transaction ends."""
        return (await self.append_many([Append(stream, tuple(check_several(events)), expected)]))[0]

    async def append_many(self, appends: Iterable[Append]) -> list[AppendResult]:
        """As `EventStore.append_many`."""
        return await self._call(self._backend.append, prepare_all(appends, self._max_event_bytes))

    async def fetch_stream(
        self, stream: StreamId | str, *, from_version: int = 0, to_version: int | None = None
    ) -> list[StoredEvent]:
        """The stream's events as this transaction sees them."""
        first, last = bounds(from_version, to_version, "version")
        name = check_stream(stream)
        return await self._call(self._backend.fetch_stream, name, first, last, MAX_POSITION, False)

    async def checkpoint(self, name: str) -> int:
        """The position saved under ``name``, 0 where there is none; locked until the transaction ends."""
        check_name(name, "checkpoint's name")
        return await self._call(self._backend.checkpoint, name)

    async def save_checkpoint(self, name: str, position: int, *, backwards: bool = False) -> None:
        """Save how far a reader has come, with what it wrote in this transaction.

        Args:
            name: the reader's.
            position: the last position that is handled.
            backwards: allow a position at or before the one that is saved, for a rebuild.

        Raises:
            CheckpointError: the position is not ahead of the saved one: it was handled before.
        """
        check_name(name, "checkpoint's name")
        check_position(position, "A checkpoint")
        await self._call(self._backend.save_checkpoint, name, position, backwards=backwards)

    async def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        """As `EventStore.save_snapshot`, in this transaction."""
        await self._call(self._backend.save_snapshot, checked_snapshot(snapshot))

    async def check_lease(self, lease: Lease) -> None:
        """Let the transaction commit only while this worker has the lease.

        Raises:
            LeaseLostError: another worker has taken over.
        """
        await self._call(self._backend.check_lease, lease)

    @overload
    async def execute(self, statement: TypedReturnsRows[*Columns], parameters: Any = None) -> Result[*Columns]: ...
    @overload
    async def execute(self, statement: UpdateBase, parameters: Any = None) -> CursorResult[*tuple[Any, ...]]: ...
    @overload
    async def execute(self, statement: Executable, parameters: Any = None) -> Result[*tuple[Any, ...]]: ...
    async def execute(self, statement: Executable, parameters: Any = None) -> Result[Any]:
        """Execute a SQLAlchemy statement in this transaction, on any table of the store's database.

        Args:
            statement: such as ``table.insert()``, ``select(…)`` or ``text("…")``.
            parameters: a mapping, or a list of mappings.

        Returns:
            the rows, wholly read, typed as SQLAlchemy does; of an insert, update or delete that returns none,
            ``rowcount``.

        Raises:
            CapabilityError: the store is in memory, and has no SQL.
            TransactionError: the transaction is over, or on PostgreSQL a statement before this one has failed.
        """
        return await self._call(self._backend.execute, statement, parameters)

    async def run_sync(self, function: Callable[[Connection], T]) -> T:
        """Call ``function(connection)`` with this transaction's SQLAlchemy connection, for what needs a whole one.

        Such as ``metadata.create_all``, or an ORM session:
        ``Session(bind=connection, join_transaction_mode="create_savepoint")``. The block alone ends the transaction:
        the connection refuses ``commit()`` and ``rollback()``, and for what may fail has ``begin_nested()``.

        Raises:
            CapabilityError: the store is in memory, and has no SQL.
            TransactionError: the function has ended the transaction.
        """
        return await self._call(self._backend.run_sync, function)


def prepare_all(appends: Iterable[Append], max_bytes: int) -> Sequence[PreparedAppend]:
    """Encode and check them.

    Raises:
        ConfigurationError: a stream comes twice.
    """
    prepared = []
    given: Any
    for given in appends:
        if not isinstance(given, Append):
            raise TypeError(f"append_many() takes a list of Append, not {type(given).__name__}: {given!r:.100}.")
        check_several(given.events)
        prepared.append(prepare(given, max_bytes))
    if len(prepared) > 1 and len({append.stream for append in prepared}) < len(prepared):
        raise ConfigurationError("A stream comes twice in one append_many; put its events into one Append.")
    return prepared


def bounds(first: int, last: int | None, what: str) -> tuple[int, int]:
    """Both ends, checked."""
    low = check_position(first, f"from_{what}")
    return low, MAX_POSITION if last is None else check_position(last, f"to_{what}")


def log_query(categories: Iterable[str], types: Iterable[str | type[Event]], tags: Iterable[str]) -> LogQuery:
    """The query of a reader of the log, checked.

    Raises:
        ConfigurationError: one was given where several are wanted.
    """
    one: Any
    for name, one in (("categories", categories), ("types", types), ("tags", tags)):
        if isinstance(one, str):
            raise ConfigurationError(f"{name} is a list or tuple of str, not one str: {one!r}. Write [{one!r}].")
        if not isinstance(one, Iterable):
            raise ConfigurationError(
                f"{name} is a list or tuple, not {one!r:.100}. Write [{getattr(one, '__name__', one)}]."
            )
    given_types: Any = tuple(types)
    for kind in given_types:
        if not isinstance(kind, str) and not (isinstance(kind, type) and issubclass(kind, Event)):
            raise ConfigurationError(f"types are event classes and types of events as str, not {kind!r:.100}.")
    kinds = dict.fromkeys(k for kind in given_types for k in ((kind,) if isinstance(kind, str) else stored_types(kind)))
    query = LogQuery(tuple(categories), tuple(kinds), tuple(tags))
    for category in query.categories:
        if category != "":
            check_name(category, "stream's category")
    for kind in query.types:
        check_name(kind, "event's type")
    for tag in query.tags:
        check_name(tag, "tag")
    return query
