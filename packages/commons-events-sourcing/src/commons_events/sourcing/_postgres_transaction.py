"""`PostgresTransaction`: a program's transaction on PostgreSQL, on SQLAlchemy's connection and psycopg's below it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from psycopg import AsyncConnection, errors
from psycopg.pq import TransactionStatus
from psycopg.types.string import ByteaBinaryLoader
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from commons_events.errors import CommonsEventsError, InvalidStreamError, TransactionError
from commons_events.sourcing import _sql
from commons_events.sourcing._backend import BackendTransaction, Lease
from commons_events.sourcing._group_commit import all_stored
from commons_events.sourcing._guard import TransactionGuard
from commons_events.sourcing._postgres_read import fetch_stream
from commons_events.sourcing._postgres_write import write
from commons_events.sourcing._types import AppendResult, PreparedAppend, StoredEvent, StoredSnapshot, StreamId

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine, ExceptionContext, Result
    from sqlalchemy.ext.asyncio import AsyncConnection as EngineConnection
    from sqlalchemy.sql import Executable

__all__ = ["PostgresTransaction", "watch"]

T = TypeVar("T")

_SEEN = "commons_events_seen"
"""In a connection's ``info`` while a program's transaction is on it."""
_LONGEST_KEY = 2_600
"""Bytes. A row of an index has up to 2,704, of which some are PostgreSQL's own."""
_OPEN = (TransactionStatus.ACTIVE, TransactionStatus.INTRANS, TransactionStatus.INERROR)


class _Seen:
    """What is seen of each statement, also of those that a program executes on the connection itself."""

    def __init__(self, raw: AsyncConnection[Any]) -> None:
        self.raw = raw
        self.failure = ""
        """What has failed last, in words."""
        self.ended = False
        """Whether the transaction was; with its next statement psycopg begins another one."""

    def look(self) -> bool:
        """Whether the transaction is open."""
        self.ended = self.ended or self.raw.info.transaction_status not in _OPEN
        return not self.ended

    def note(self, error: BaseException) -> None:
        if isinstance(error, errors.Error) and not isinstance(error, errors.InFailedSqlTransaction):
            self.failure = f"{type(error).__name__}: {' '.join(str(error).split())}"


class PostgresTransaction(BackendTransaction):
    """Made by `begin`."""

    def __init__(self, connection: EngineConnection, raw: AsyncConnection[Any]) -> None:
        self._connection = connection
        self._raw = raw
        self._seen = _Seen(raw)
        assert connection.sync_connection is not None
        self._guard = TransactionGuard(connection.sync_connection, self._seen.look)
        self.stored = 0
        """The highest position that it has stored; 0 where it has stored nothing."""
        self._doubtful = False
        """Whether one of the store's own statements was broken off, which may leave a lock of the session behind."""

    @classmethod
    @asynccontextmanager
    async def begin(cls, connection: EngineConnection) -> AsyncIterator[Self]:
        """The transaction that has begun on this connection, whose end is its caller's.

        Raises:
            TransactionError: at the end of the block, where a commit could not store what it did.
        """
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        raw.adapters.register_loader("json", ByteaBinaryLoader)
        # SQLAlchemy begins with the first statement, and psycopg would take an inner transaction for the outer
        await connection.exec_driver_sql("SELECT 1")
        transaction = cls(connection, raw)
        info = connection.info
        info[_SEEN] = transaction._seen
        try:
            yield transaction
            transaction.check()
            if transaction._doubtful:
                await connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")
        except BaseException:
            if transaction._doubtful:
                await connection.invalidate()
            raise
        finally:
            del info[_SEEN]

    def check(self) -> None:
        self._check_open()
        if self._raw.info.transaction_status is TransactionStatus.INERROR:  # its COMMIT would be a ROLLBACK
            raise self._failed()

    def _failed(self) -> TransactionError:
        said = self._seen.failure
        return TransactionError(
            f"A statement of this transaction has failed{f' ({said})' if said else ''}, and PostgreSQL takes all of it "
            "back, although the block or handler went on. Let the error pass out of it, or do what may fail in a "
            "savepoint: run_sync with connection.begin_nested()."
        )

    async def _own(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Call what executes the store's own statements, of which none is to fail."""
        self.check()
        task = asyncio.current_task()
        cancelling = task.cancelling() if task is not None else 0
        try:
            return await function(*arguments)
        except CommonsEventsError:
            raise  # of what was found, not of a statement
        except BaseException as error:
            self._doubtful = True
            self._seen.note(error)
            if isinstance(error, Exception) and task is not None and task.cancelling() > cancelling:
                raise asyncio.CancelledError from error  # psycopg's, of the COPY that was broken off
            raise

    async def _program(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Call what executes a program's statements."""
        self._check_open()
        try:
            result = await function(*arguments)
        except Exception as error:
            self._check_open()
            if isinstance(error, DBAPIError) and isinstance(error.orig, errors.InFailedSqlTransaction):
                raise self._failed() from error
            raise
        self._check_open()
        return result

    def _check_open(self) -> None:
        if not self._raw.closed:  # one that broke has its own error, which the next statement raises
            self._guard.check()

    async def append(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        results = await self._own(self._append, appends)
        self.stored = max([self.stored, *(result.last_position for result in results)])
        return results

    async def _append(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        if len(appends) == 1:
            return all_stored(await write(self._raw, appends))
        async with self._raw.transaction():  # within the outer one: what fails here leaves nothing behind
            return all_stored(await write(self._raw, appends))

    async def fetch_stream(
        self, stream: StreamId, first: int, last: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        return await self._own(fetch_stream, self._raw, stream, first, last, limit, backwards)

    async def checkpoint(self, name: str) -> int:
        return await self._own(self._connection.run_sync, _sql.checkpoint, name)

    async def save_checkpoint(self, name: str, position: int, *, backwards: bool) -> None:
        await self._own(self._connection.run_sync, _sql.save_checkpoint, name, position, backwards)

    async def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        length = sum(len(name.encode()) for name in (*snapshot.stream, snapshot.kind))
        if length > _LONGEST_KEY:
            raise InvalidStreamError(
                f"The stream's id, its category and the snapshot's kind have together {length:,} bytes in UTF-8, and "
                f"PostgreSQL finds snapshots by up to {_LONGEST_KEY:,}. Choose shorter names."
            )
        await self._own(self._connection.run_sync, _sql.save_snapshot, snapshot)

    async def check_lease(self, lease: Lease) -> None:
        await self._own(self._connection.run_sync, _sql.check_lease, lease)

    async def execute(self, statement: Executable, parameters: Any = None) -> Result[Any]:
        return await self._program(self._connection.execute, statement, parameters)

    async def run_sync(self, function: Callable[[Connection], T]) -> T:
        return await self._program(self._connection.run_sync, function)


def watch(engine: Engine) -> None:
    """Let transactions on the engine's connections see what becomes of each statement."""
    event.listen(engine, "handle_error", _failed)
    event.listen(engine, "after_cursor_execute", _executed)


def _failed(context: ExceptionContext) -> None:
    if context.connection is not None and not context.is_disconnect:
        seen: _Seen | None = context.connection.info.get(_SEEN)
        if seen is not None:
            seen.note(context.original_exception)


def _executed(connection: Connection, *_: object) -> None:
    seen: _Seen | None = connection.info.get(_SEEN)
    if seen is not None:
        seen.look()
