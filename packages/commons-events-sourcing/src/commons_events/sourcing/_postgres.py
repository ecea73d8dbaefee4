"""`PostgresBackend`: the event store on PostgreSQL, by psycopg 3 and SQLAlchemy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar, TypeVar

import psycopg
from psycopg.types.string import ByteaBinaryLoader
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoneFreeError
from sqlalchemy.ext.asyncio import AsyncConnection as EngineConnection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from commons_events.errors import (
    ClosedError,
    CommonsEventsError,
    ConfigurationError,
    StoreUnavailableError,
    TransactionAbortedError,
)
from commons_events.sourcing import _sql
from commons_events.sourcing._backend import Backend, Lease, LogPage, LogQuery
from commons_events.sourcing._group_commit import Alone, GroupCommit, Outcome, all_stored
from commons_events.sourcing._postgres_errors import failure_of, is_trouble, not_connected, unreachable
from commons_events.sourcing._postgres_news import PostgresNews, discard
from commons_events.sourcing._postgres_read import (
    Watermark,
    fetch_from_snapshot,
    fetch_log,
    fetch_snapshot,
    fetch_stream,
)
from commons_events.sourcing._postgres_transaction import PostgresTransaction, watch
from commons_events.sourcing._postgres_wire import StoreConnection
from commons_events.sourcing._postgres_write import COPY_FROM, write, write_batch
from commons_events.sourcing._rules import deleted
from commons_events.sourcing._types import (
    AppendResult,
    PreparedAppend,
    StoredEvent,
    StoredSnapshot,
    StreamId,
    check_count,
    check_interval,
)
from commons_events.sourcing._url import read_url

__all__ = ["PostgresBackend"]

T = TypeVar("T")

_HELD_BACK = 0.02
"""Seconds after which a reader looks again that waits for an open transaction."""
_NEVER = 2**63
"""A position that none is after."""
_LONGEST = 2**31 - 1
"""Seconds for which libpq can wait for a connection."""
_SYNCHRONOUS = ("none", "on", "off", "local", "remote_write", "remote_apply")
_PATIENCE = 60.0
"""Seconds that a transaction waits for others to give a connection back."""


class PostgresBackend(Backend):
    """Keeps events in a PostgreSQL database, 13 or newer.

    Args:
        url: ``postgresql://user:password@host:port/database``, with libpq's parameters as its query.
        connections: the most connections for reading and, beside these, for transactions.
        write_connections: how many appends' batches may be under way at once; one, unless another writer holds a
            stream's lock.
        connect_timeout: seconds.
        notify: tell other processes of new events by NOTIFY, and listen to theirs. Without, they poll: behind a
            connection pool that shares sessions between transactions, which LISTEN does not survive.
        synchronous_commit: as PostgreSQL's setting; None leaves the server's. With ``off`` a crash of the server loses
            the last few tenths of a second, of which it had said that they are stored.
    """

    name: ClassVar[str] = "postgresql"
    reads_ahead: ClassVar[bool] = True

    def __init__(
        self,
        url: str,
        *,
        connections: int = 5,
        write_connections: int = 4,
        connect_timeout: float = 10.0,
        notify: bool = True,
        synchronous_commit: str | None = None,
    ) -> None:
        check_count(connections, "connections")
        check_count(write_connections, "write_connections")
        check_interval(connect_timeout, "connect_timeout")
        if str(synchronous_commit).lower() not in _SYNCHRONOUS:
            raise ConfigurationError(
                f"synchronous_commit is {synchronous_commit!r}; it is on, off, local, remote_write or remote_apply."
            )
        parsed = read_url(url)
        self._shown = parsed.render_as_string(hide_password=True)
        given = tuple(sorted(parsed.query.items()))
        self._place = "postgresql", parsed.host, parsed.port or 5432, parsed.database, given
        query: dict[str, Any] = {
            "connect_timeout": f"{max(int(min(connect_timeout, _LONGEST)), 2)}",
            "application_name": "commons-events",
            **parsed.query,
            "client_encoding": "UTF8",
        }
        # a time is told in the zone of the session, in which it may be beyond the years that Python has
        settings = ["timezone=UTC"]
        if synchronous_commit is not None:
            settings.append(f"synchronous_commit={synchronous_commit}")
        query["options"] = _options(query.get("options", ""), settings)
        parsed = parsed.set(drivername="postgresql+psycopg", query=query)
        self._engine = create_async_engine(
            parsed,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=_PATIENCE,
            pool_pre_ping=True,
            isolation_level="READ COMMITTED",  # whatever the server's default: appends look at what others committed
        )
        event.listen(self._engine.sync_engine, "checkin", self._given_back)
        watch(self._engine.sync_engine)
        positional, named = self._engine.sync_engine.dialect.create_connect_args(parsed)
        # each of the store's statements has its index; a plan that was made while a table was small is kept for long
        # What a pipeline sends is one transaction: on one snapshot, a reader would learn who is writing now, and read
        # the events of before.
        settings = [
            "enable_seqscan=off",
            "plan_cache_mode=force_generic_plan",
            r"default_transaction_isolation=read\ committed",
        ]
        named["options"] = _options(named["options"], settings)
        self._arguments = positional, named
        self._connections = connections
        self._idle: list[StoreConnection] = []
        # apart: appends may all wait for the transaction of a block that reads
        self._reading = asyncio.Semaphore(connections)
        self._writing = asyncio.Semaphore(write_connections)
        self._writes = GroupCommit(self._write, lanes=write_connections)
        self._watermark = Watermark()
        self._news = PostgresNews(self._connect, notify=notify)
        self._reads: set[asyncio.Future[Any]] = set()
        self._closed = False

    @property
    def place(self) -> object:
        return self._place

    # --- connections -----------------------------------------------------------------------------------------

    async def _connect(self) -> StoreConnection:
        positional, named = self._arguments
        try:
            connection = await StoreConnection.connect(*positional, **named, autocommit=True)
        except psycopg.Error as error:
            raise not_connected(self._shown, error) from error
        # the text of a json column as its bytes, which nobody is to parse here
        connection.adapters.register_loader("json", ByteaBinaryLoader)
        return connection

    @asynccontextmanager
    async def _borrow(self, places: asyncio.Semaphore | None = None) -> AsyncIterator[StoreConnection]:
        """A connection that commits each statement; one that broke, or was left in the middle, is not used again."""
        async with places or self._reading:
            while self._idle and not self._idle[-1].is_alive():
                await discard(self._idle.pop())
            connection = self._idle.pop() if self._idle else await self._connect()
            failure: CommonsEventsError | None = None
            failed = False
            try:
                yield connection
            except BaseException as error:
                failed = isinstance(error, psycopg.Error)
                failure = failure_of(self._shown, error)
                if failure is None:
                    raise
                raise failure from error
            finally:
                usable = connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
                if isinstance(failure, StoreUnavailableError):
                    # the others are of the same server: after a failover new ones may be the primary's
                    idle, self._idle = self._idle, []
                    for other in idle:
                        await discard(other)
                if self._closed or not usable or failed:  # a statement that failed may leave a lock behind
                    await discard(connection)
                else:
                    self._idle.append(connection)

    @asynccontextmanager
    async def _begin(self, *, own: bool) -> AsyncIterator[EngineConnection]:
        """A transaction by SQLAlchemy.

        Args:
            own: all its statements are the store's; else an error may be that of a program's statement, and is left.
        """
        try:
            async with AsyncExitStack() as stack:
                try:
                    connection = await stack.enter_async_context(self._engine.connect())
                except NoneFreeError as error:
                    raise StoreUnavailableError(
                        f"{self._shown}: {self._connections} transactions are under way, as many as there are "
                        f"connections for, and none has ended for {_PATIENCE:g} s. Keep them short, or give the store "
                        "more connections."
                    ) from error
                async with connection.begin():
                    yield connection
        except DBAPIError as error:
            found = error.orig or error
            failure = failure_of(self._shown, found) if own or is_trouble(found) else None
            if failure is None and error.connection_invalidated:
                failure = unreachable(self._shown, found)
            if failure is None:
                raise
            raise failure from error
        except psycopg.Error as error:
            failure = failure_of(self._shown, error)
            if failure is None:
                raise
            raise failure from error

    async def _sync(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of `_sql` in a transaction of its own."""

        async def attempt() -> T:
            async with self._begin(own=True) as connection:
                return await connection.run_sync(function, *arguments)

        return await _again(attempt)

    def _given_back(self, connection: object, entry: ConnectionPoolEntry) -> None:
        if self._closed:
            entry.close()  # its transaction has outlived the store, and the pool is gone

    async def open(self) -> None:
        async with self._borrow():
            pass  # an error says what is wrong
        await self._sync(_sql.prepare_schema)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._writes.close()
        if self._reads:
            await asyncio.wait(set(self._reads))
        await self._news.close()
        for connection in self._idle:
            await discard(connection)
        self._idle.clear()
        await self._engine.dispose()
        self._news.tell()

    # --- writing ---------------------------------------------------------------------------------------------

    async def append(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        if len(appends) == 1 and len(appends[0].events) < COPY_FROM:
            return [await self._writes.submit(appends[0])]
        if not appends:
            return []
        return await asyncio.shield(asyncio.ensure_future(self._append_together(appends)))

    async def _append_together(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        async def attempt() -> list[AppendResult]:
            async with self._borrow(self._writing) as connection, connection.block():
                return all_stored(await write(connection, appends))

        results = await _again(attempt)
        self._announce(_last(results))
        return results

    def _announce(self, position: int) -> None:
        self._watermark.stored = max(self._watermark.stored, position)
        self._news.announce(position)

    async def _write(self, appends: Sequence[PreparedAppend]) -> Sequence[Outcome | Alone]:
        async def attempt() -> Sequence[Outcome | Alone]:
            async with self._borrow(self._writing) as connection:
                return await (write if len(appends) == 1 else write_batch)(connection, appends)

        try:
            outcomes: Sequence[Outcome | Alone] = await _again(attempt)
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError):
            if len(appends) == 1:
                raise
            outcomes = []
            for append in appends:  # one of them is at fault: the others are not to suffer
                try:
                    outcomes = [*outcomes, *await self._write([append])]
                except Exception as error:  # noqa: BLE001  # each has its own outcome
                    outcomes = [*outcomes, error]
        self._announce(_last(outcomes))
        return outcomes

    async def delete_stream(self, stream: StreamId, expected: int | None) -> None:
        await self._sync(_sql.delete_stream, stream, expected)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresTransaction]:
        async with self._begin(own=False) as connection, PostgresTransaction.begin(connection) as transaction:
            yield transaction
        if transaction.stored:  # else the readers, which a checkpoint is no news to, would all look in vain
            self._announce(transaction.stored)

    # --- reading ---------------------------------------------------------------------------------------------

    async def fetch_stream(
        self, stream: StreamId, first: int, last: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        async with self._borrow() as connection:
            return await fetch_stream(connection, stream, first, last, limit, backwards)

    async def fetch_log(
        self, query: LogQuery, first: int, last: int, limit: int, backwards: bool, *, scan: int | None = None
    ) -> LogPage:
        return await self._uncancelled(self._fetch_log(query, first, last, limit, backwards))

    async def _uncancelled(self, work: Coroutine[Any, Any, T]) -> T:
        """To cancel a query in a pipeline costs the connection; a page is read in no time."""
        reading = asyncio.ensure_future(work)
        self._reads.add(reading)
        reading.add_done_callback(self._reads.discard)
        return await asyncio.shield(reading)

    async def _fetch_log(self, query: LogQuery, first: int, last: int, limit: int, backwards: bool) -> LogPage:
        async with self._borrow() as connection:
            return await fetch_log(connection, self._watermark, query, first, last, limit, backwards)

    async def _all(self, statement: str, *parameters: Any) -> list[Any]:
        async with self._borrow() as connection, psycopg.AsyncRawCursor(connection) as cursor:
            await cursor.execute(statement, parameters, prepare=True)
            return await cursor.fetchall()

    async def stream_version(self, stream: StreamId) -> int:
        rows = await self._all(
            "SELECT version, deleted_at IS NOT NULL FROM commons_events_streams WHERE id = $1 AND category = $2",
            *stream,
        )
        version, gone = rows[0] if rows else (0, False)
        if gone:
            raise deleted(stream)
        return int(version)

    async def streams_of(self, id: str) -> list[StreamId]:
        statement = (
            "SELECT id, category FROM commons_events_streams "
            "WHERE id = $1 AND deleted_at IS NULL AND version > 0 ORDER BY category"
        )
        return [StreamId(*row) for row in await self._all(statement, id)]

    async def head(self) -> int:
        [(position,)] = await self._all("SELECT coalesce(max(position), 0) FROM commons_events_events")
        return int(position)

    async def snapshot(self, stream: StreamId, kind: str, at_most: int) -> StoredSnapshot | None:
        async with self._borrow() as connection:
            return await fetch_snapshot(connection, stream, kind, at_most)

    async def fetch_from_snapshot(
        self, stream: StreamId, kind: str, last: int, limit: int
    ) -> tuple[StoredSnapshot | None, list[StoredEvent]]:
        return await self._uncancelled(self._fetch_from_snapshot(stream, kind, last, limit))

    async def _fetch_from_snapshot(
        self, stream: StreamId, kind: str, last: int, limit: int
    ) -> tuple[StoredSnapshot | None, list[StoredEvent]]:
        async with self._borrow() as connection:
            return await fetch_from_snapshot(connection, stream, kind, last, limit)

    async def delete_snapshots(self, stream: StreamId) -> None:
        await self._sync(_sql.delete_snapshots, stream)

    async def checkpoints(self, prefix: str) -> Mapping[str, int]:
        statement = "SELECT name, position FROM commons_events_checkpoints WHERE starts_with(name, $1)"
        return dict(await self._all(statement, prefix))

    async def delete_checkpoint(self, name: str) -> None:
        await self._sync(_sql.delete_checkpoint, name)

    async def lease(
        self, group: str, partitions: int, owner: str, seconds: float, release: Sequence[int] = ()
    ) -> list[Lease]:
        return await self._sync(_sql.lease, group, partitions, owner, seconds, release)

    # --- news ------------------------------------------------------------------------------------------------

    async def wait(self, position: int, seconds: float) -> None:
        if self._closed:
            raise ClosedError("The event store is closed; make a new one.")
        self._news.listen()
        if self._watermark.held_back:  # what is there already may not be read yet
            position, seconds = _NEVER, min(seconds, _HELD_BACK)
        await self._news.wait(position, seconds)


def _options(given: str, settings: Sequence[str]) -> str:
    """What libpq hands to the server: settings of the session, of which the last one of a name counts."""
    return " ".join([given, *(f"-c {setting}" for setting in settings)]).strip()


def _last(outcomes: Sequence[object]) -> int:
    """The highest position of what was stored; 0 where nothing was."""
    return max([outcome.last_position for outcome in outcomes if isinstance(outcome, AppendResult)], default=0)


async def _again(attempt: Callable[[], Awaitable[T]]) -> T:
    """Call ``attempt``, and once more where transactions got into each other's way."""
    for left in range(9, -1, -1):
        try:
            return await attempt()
        except TransactionAbortedError:
            if not left:
                raise
    raise AssertionError
