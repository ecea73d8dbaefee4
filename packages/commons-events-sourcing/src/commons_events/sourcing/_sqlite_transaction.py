"""`SqliteTransaction`: a program's transaction on SQLite, on SQLAlchemy's connection and sqlite3's below it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from commons_events.errors import CommonsEventsError
from commons_events.sourcing import _sql
from commons_events.sourcing._backend import BackendTransaction, Lease
from commons_events.sourcing._group_commit import all_stored
from commons_events.sourcing._guard import TransactionGuard
from commons_events.sourcing._sqlite_errors import find_trouble
from commons_events.sourcing._sqlite_names import Names
from commons_events.sourcing._sqlite_read import fetch_stream
from commons_events.sourcing._sqlite_write import write
from commons_events.sourcing._thread import DatabaseThread
from commons_events.sourcing._types import AppendResult, PreparedAppend, StoredEvent, StoredSnapshot, StreamId

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Result
    from sqlalchemy.sql import Executable

__all__ = ["SqliteTransaction"]

T = TypeVar("T")


class SqliteTransaction(BackendTransaction):
    """See `BackendTransaction`.

    Args:
        thread: the writer's, in which all of it is done.
        connection: SQLAlchemy's, on which the transaction has begun.
        raw: sqlite3's below it.
        now: tells the time.
        failure: what to raise in the place of SQLite's own error.
    """

    def __init__(
        self,
        thread: DatabaseThread,
        connection: Connection,
        raw: sqlite3.Connection,
        *,
        now: Callable[[], datetime],
        failure: Callable[[sqlite3.Error], CommonsEventsError],
    ) -> None:
        self._submit = thread.submit
        self._now = now
        self._failure = failure
        self._connection = connection
        self._raw = raw
        self.stored = 0
        """The highest position that it has stored; 0 where it has stored nothing."""
        self._guard = TransactionGuard(connection, lambda: raw.in_transaction)

    def check(self) -> None:
        self._guard.check()

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._submit(self._guarded, function, *arguments)

    def _guarded(self, function: Callable[..., T], *arguments: Any) -> T:
        self._guard.check()
        try:
            result = function(*arguments)
        except Exception as error:
            if not isinstance(error, CommonsEventsError) and find_trouble(error) is None:
                self._guard.check()  # else SQLite itself may have rolled back
            raise
        self._guard.check()
        return result

    def commit(self) -> None:
        """In the writer's thread."""
        try:
            self._guard.commit()
        finally:
            self._connection.close()

    async def append(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        results = await self._call(self._append, appends)
        self.stored = max([self.stored, *(result.last_position for result in results)])
        return results

    def _append(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        self._raw.execute("SAVEPOINT commons_events_append")
        try:
            # its caller may roll back: so nothing is kept of the names
            results = all_stored(write(self._raw, appends, Names(), self._now()))
        except BaseException as error:
            if self._raw.in_transaction:  # a full disk, for one, makes SQLite roll all of it back at once
                self._raw.execute("ROLLBACK TO commons_events_append")
                self._raw.execute("RELEASE commons_events_append")
            if (failed := find_trouble(error, own=True)) is not None:
                raise self._failure(failed) from error
            raise
        self._raw.execute("RELEASE commons_events_append")
        return results

    async def fetch_stream(
        self, stream: StreamId, first: int, last: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        return await self._call(fetch_stream, self._raw, Names(), stream, first, last, limit, backwards)

    async def checkpoint(self, name: str) -> int:
        return await self._call(_sql.checkpoint, self._connection, name)

    async def save_checkpoint(self, name: str, position: int, *, backwards: bool) -> None:
        await self._call(_sql.save_checkpoint, self._connection, name, position, backwards)

    async def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        await self._call(_sql.save_snapshot, self._connection, snapshot)

    async def check_lease(self, lease: Lease) -> None:
        await self._call(_sql.check_lease, self._connection, lease)

    async def execute(self, statement: Executable, parameters: Any = None) -> Result[Any]:
        return await self._call(self._execute, statement, parameters)

    def _execute(self, statement: Executable, parameters: Any) -> Result[Any]:
        result = self._connection.execute(statement, parameters)
        if not result.returns_rows:
            return result
        return result.freeze()()  # wholly read, so that it may be used outside the thread

    async def run_sync(self, function: Callable[[Connection], T]) -> T:
        return await self._call(function, self._connection)
