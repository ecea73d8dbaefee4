"""`SqliteBackend`: the embedded event store, on Python's own sqlite3 in threads of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar
from urllib.parse import parse_qsl

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from commons_events.errors import (
    ClosedError,
    CommonsEventsError,
    ConfigurationError,
    StoreUnavailableError,
)
from commons_events.runtime import current_runtime
from commons_events.sourcing import _sql
from commons_events.sourcing._backend import Backend, Lease, LogPage, LogQuery
from commons_events.sourcing._group_commit import Outcome, all_stored
from commons_events.sourcing._news import News
from commons_events.sourcing._pace import Pace
from commons_events.sourcing._rules import deleted
from commons_events.sourcing._sqlite_errors import failure_of, find_trouble, is_busy
from commons_events.sourcing._sqlite_log import lengthen_log
from commons_events.sourcing._sqlite_names import Names
from commons_events.sourcing._sqlite_read import fetch_from_snapshot, fetch_log, fetch_snapshot, fetch_stream, find_head
from commons_events.sourcing._sqlite_transaction import SqliteTransaction
from commons_events.sourcing._sqlite_write import STATE, write
from commons_events.sourcing._thread import DatabaseThread
from commons_events.sourcing._thread_commit import ThreadCommit
from commons_events.sourcing._types import (
    AppendResult,
    PreparedAppend,
    StoredEvent,
    StoredSnapshot,
    StreamId,
    check_interval,
)
from commons_events.sourcing._url import file_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = ["SqliteBackend"]

T = TypeVar("T")

Synchronous = Literal["OFF", "NORMAL", "FULL", "EXTRA"]

_POLL = 0.1
"""Seconds after which a reader looks whether another process has written: SQLite tells nobody."""

_LONGEST = 2_000_000
"""Seconds for which SQLite can wait: it counts milliseconds in 31 bits."""
_PAUSE = 0.01
"""Seconds between two tries to switch a file to its mode."""
_FEW = 64
"""Events that are read as quickly as a thread is woken."""
_WARM = 16
"""Commits after which it pays to give the write-ahead log its length at once."""


class SqliteBackend(Backend):
    """Keeps events in an SQLite file, which several processes of one machine may use at once.

    The file is in write-ahead mode (``journal_mode=WAL``): readers and the one writer do not wait for each other.

    Args:
        url: ``sqlite:///relative/file.db``, ``sqlite:////absolute/file.db``, or ``sqlite://`` for memory.
        synchronous: as SQLite's setting. With FULL what `append` has confirmed outlives the loss of power; with NORMAL
            that of the process, and the last moments may be lost with power; OFF is for tests.
        busy_timeout: seconds to wait for another process that writes.
        blocking_limit: seconds for which an append, or reading a few events of a stream, may keep the event loop. Where
            it comes alone, and its like were done within this time of late, it is done there, since the way to a thread
            and back takes longer than it does. All else is left to the threads, and with 0 all is.
    """

    name: ClassVar[str] = "sqlite"

    def __init__(
        self,
        url: str,
        *,
        synchronous: Synchronous = "FULL",
        busy_timeout: float = 30.0,
        blocking_limit: float = 0.002,
    ) -> None:
        self._path = file_of(url)
        settings = dict(parse_qsl(url.partition("?")[2]))
        if unknown := settings.keys() - {"synchronous"}:
            raise ConfigurationError(f"{url}: unknown settings {', '.join(sorted(unknown))}; there is: synchronous.")
        given = settings.get("synchronous", synchronous)
        self._synchronous = str(given).upper()
        if self._synchronous not in ("OFF", "NORMAL", "FULL", "EXTRA"):
            raise ConfigurationError(f"synchronous is {given!r}; it is OFF, NORMAL, FULL or EXTRA.")
        self._timeout = min(_check_seconds(busy_timeout, "busy_timeout"), _LONGEST)
        self._runtime = current_runtime()
        self._writer = DatabaseThread("commons-events-sqlite-writer")
        self._reader = DatabaseThread("commons-events-sqlite-reader") if self._path else self._writer
        self._raw: sqlite3.Connection
        self._reading: sqlite3.Connection
        self._engine: Any = None
        self._short = _WARM if self._path and self._synchronous in ("FULL", "EXTRA") else 0
        """Commits until the log is given its length."""
        self._names = Names()
        self._names_read = Names()
        self._news = News()
        limit = _check_seconds(blocking_limit, "blocking_limit")
        self._pace = Pace(limit)
        """Of reading a few events."""
        self._patience: float = self._timeout
        """Seconds for which the writer's connection waits for another process."""
        self._writes = ThreadCommit(
            self._writer,
            self._commit,
            self._commit_now,
            self._news.tell,
            limit=limit,
            runtime=self._runtime,
        )
        self._closed = False

    @property
    def place(self) -> object:
        return ("sqlite", Path(self._path).resolve()) if self._path else self

    # --- life ------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self._path or ":memory:", timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            if self._path:
                mode = self._to_wal(connection)
                if mode != "wal":
                    raise StoreUnavailableError(
                        f"{self._path}: the file system has no shared memory for SQLite's write-ahead log (its mode is "
                        f"{mode!r}); put the file on a local disk."
                    )
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error
        return connection

    def _to_wal(self, connection: sqlite3.Connection) -> str:
        """Switch the file to its mode. For this alone SQLite does not wait while another one opens the file, too."""
        pause = threading.Event()
        for _ in range(int(self._timeout / _PAUSE)):
            try:
                return str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0])
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                pause.wait(_PAUSE)
        return str(connection.execute("PRAGMA journal_mode=WAL").fetchone()[0])

    def _failure(self, error: sqlite3.Error) -> CommonsEventsError:
        return failure_of(self._path or "sqlite://", error, self._timeout)

    async def open(self) -> None:
        await self._writer.submit(self._open)
        self._reading = await self._reader.submit(self._connect) if self._path else self._raw

    def _open(self) -> None:
        self._raw = self._connect()
        self._engine = create_engine("sqlite://", creator=lambda: self._raw, poolclass=StaticPool)
        try:
            self._in_transaction(_sql.prepare_schema)
        except BaseException:  # it may be opened again
            self._raw.close()
            raise

    def _in_transaction(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function of `_sql`; in the writer's thread."""
        connection = self._begin()
        try:
            result = function(connection, *arguments)
            connection.commit()
        except (sqlite3.Error, DBAPIError) as error:
            if (failed := find_trouble(error, own=True)) is not None:
                raise self._failure(failed) from error
            raise
        finally:
            connection.close()  # rolls back what was not committed
        return result

    def _begin(self) -> Connection:
        connection: Connection = self._engine.connect()
        connection.begin()  # which sends nothing, but makes commit() send something
        try:
            self._begin_write(self._timeout)
        except sqlite3.Error as error:
            connection.close()
            raise self._failure(error) from error
        return connection

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._writes.close()
        if self._engine is not None:
            async with self._writes.turn():
                if self._path and hasattr(self, "_reading"):
                    await self._reader.submit(self._reading.close)
                await self._writer.submit(self._dispose)
        await self._writer.stop()
        await self._reader.stop()
        self._news.tell()

    def _dispose(self) -> None:
        self._engine.dispose()
        self._raw.close()

    # --- writing ---------------------------------------------------------------------------------------------

    async def append(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        if len(appends) == 1:
            return [await self._writes.submit(appends[0])]
        if not appends:
            return []
        async with self._writes.turn():
            results = await _whole(self._writer.submit(self._append_together, appends))
        self._news.tell(max(result.last_position for result in results))
        return results

    def _begin_write(self, patience: float) -> None:
        if patience != self._patience:
            self._raw.execute(f"PRAGMA busy_timeout={int(patience * 1000)}")
            self._patience = patience
        self._raw.execute("BEGIN IMMEDIATE")

    def _commit(self, appends: Sequence[PreparedAppend], together: bool = False) -> list[Outcome]:
        if self._short:
            self._short -= 1
            if not self._short:
                lengthen_log(self._raw, self._path)
        try:
            self._begin_write(self._timeout)
        except sqlite3.Error as error:
            raise self._failure(error) from error
        return self._write(appends, together)

    def _commit_now(self, append: PreparedAppend) -> Outcome | None:
        """For `ThreadCommit`: in the event loop's thread, where nothing waits."""
        if self._short or not (self._path or self._writer.idle):  # in memory a read that was cancelled may go on
            return None
        try:
            self._begin_write(0.0)
            return self._write((append,))[0]
        except sqlite3.Error as error:  # of beginning: _write has its own
            if is_busy(error):
                return None
            raise self._failure(error) from error
        except BaseException:  # a signal's handler may raise in this thread, also between the two
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK")
            raise

    def _write(self, appends: Sequence[PreparedAppend], together: bool = False) -> list[Outcome]:
        """Store them in the transaction that has begun, and end it."""
        raw = self._raw
        try:
            try:
                outcomes = write(raw, appends, self._names, self._runtime.now())
                if together:
                    all_stored(outcomes)
                raw.execute("COMMIT")
            except BaseException:
                self._names = Names()
                if raw.in_transaction:
                    raw.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._failure(error) from error
        return outcomes

    def _append_together(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        return all_stored(self._commit(appends, True))

    async def _sync(self, function: Callable[..., T], *arguments: Any) -> T:
        async with self._writes.turn():
            return await _whole(self._writer.submit(self._in_transaction, function, *arguments))

    async def delete_stream(self, stream: StreamId, expected: int | None) -> None:
        await self._sync(_sql.delete_stream, stream, expected)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteTransaction]:
        async with self._writes.turn():
            beginning = self._writer.submit(self._begin)
            try:
                connection = await _whole(beginning)
            except asyncio.CancelledError:
                if beginning.done() and not beginning.cancelled() and beginning.exception() is None:
                    await _whole(self._writer.submit(beginning.result().close))  # it has begun all the same
                raise
            transaction = SqliteTransaction(
                self._writer, connection, self._raw, now=self._runtime.now, failure=self._failure
            )
            try:
                yield transaction
            except BaseException as error:
                await _whole(self._writer.submit(connection.close))
                if (failed := find_trouble(error)) is not None:
                    raise self._failure(failed) from error
                raise
            try:
                await _whole(self._writer.submit(transaction.commit))
            except (sqlite3.Error, DBAPIError) as error:
                if (failed := find_trouble(error)) is not None:
                    raise self._failure(failed) from error
                raise
        if transaction.stored:  # else the readers, which a checkpoint is no news to, would all look in vain
            self._news.tell(transaction.stored)

    # --- reading ---------------------------------------------------------------------------------------------

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        with self._telling():
            if self._path or self._blocks.inside:
                return await self._reader.submit(function, self._reading, *arguments)
            async with self._writes.turn():  # one connection for all: another task's open transaction is not to be seen
                return await self._reader.submit(function, self._reading, *arguments)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError as error:
            if self._closed:
                raise ClosedError("The event store is closed; make a new one.") from error
            raise
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error

    async def _read_events(self, function: Callable[..., T], *arguments: Any) -> T:
        own = not self._path and self._blocks.inside  # in a transaction that may be rolled back
        return await self._read(function, Names() if own else self._names_read, *arguments)

    async def _read_few(self, function: Callable[..., T], *arguments: Any) -> T:
        """Read `_FEW` events at most: in the event loop's thread, where that is short and nobody else reads."""
        if self._path and self._pace.is_short():
            await asyncio.sleep(0)  # others run, and those who read at the same time come now
            if self._reader.idle and not self._closed:
                with self._telling():
                    return self._timed(function, self._reading, self._names_read, *arguments)
        return await self._read_events(partial(self._timed, function), *arguments)

    def _timed(self, function: Callable[..., T], *arguments: Any) -> T:
        began = self._runtime.monotonic()
        result = function(*arguments)
        self._pace.note(self._runtime.monotonic() - began)
        return result

    async def fetch_stream(
        self, stream: StreamId, first: int, last: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        found = await self._read_few(fetch_stream, stream, first, last, min(limit, _FEW), backwards)
        return await self._rest(found, stream, first, last, limit, backwards)

    async def _rest(
        self, found: list[StoredEvent], stream: StreamId, first: int, last: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        """The first few of a stream and what comes after them; nothing where it was deleted in between."""
        if len(found) < _FEW or limit == _FEW:
            return found
        at = found[-1].aggregate_version
        first, last = (first, at) if backwards else (at, last)
        more = await self._read_events(fetch_stream, stream, first, last, limit - _FEW + 1, backwards)
        return found[:-1] + more if more else []  # the last of the few is read again: is it still there?

    async def fetch_log(
        self, query: LogQuery, first: int, last: int, limit: int, backwards: bool, *, scan: int | None = None
    ) -> LogPage:
        return await self._read_events(fetch_log, query, first, last, limit, backwards)

    async def stream_version(self, stream: StreamId) -> int:
        _, version, gone, _ = await self._read(lambda c: c.execute(STATE, stream).fetchone())
        if gone:
            raise deleted(stream)
        return int(version)

    async def streams_of(self, id: str) -> list[StreamId]:
        statement = (
            "SELECT id, category FROM commons_events_streams WHERE id = ? AND deleted_at IS NULL ORDER BY category"
        )
        return [StreamId(*row) for row in await self._read(lambda c: c.execute(statement, (id,)).fetchall())]

    async def head(self) -> int:
        return await self._read(find_head)

    async def snapshot(self, stream: StreamId, kind: str, at_most: int) -> StoredSnapshot | None:
        return await self._read(fetch_snapshot, stream, kind, at_most)

    async def fetch_from_snapshot(
        self, stream: StreamId, kind: str, last: int, limit: int
    ) -> tuple[StoredSnapshot | None, list[StoredEvent]]:
        snapshot, found = await self._read_few(fetch_from_snapshot, stream, kind, last, min(limit, _FEW))
        return snapshot, await self._rest(found, stream, 0, last, limit, False)

    async def delete_snapshots(self, stream: StreamId) -> None:
        await self._sync(_sql.delete_snapshots, stream)

    async def checkpoints(self, prefix: str) -> Mapping[str, int]:
        statement = "SELECT name, position FROM commons_events_checkpoints WHERE substr(name, 1, ?) = ?"
        return dict(await self._read(lambda c: c.execute(statement, (len(prefix), prefix)).fetchall()))

    async def delete_checkpoint(self, name: str) -> None:
        await self._sync(_sql.delete_checkpoint, name)

    async def lease(
        self, group: str, partitions: int, owner: str, seconds: float, release: Sequence[int] = ()
    ) -> list[Lease]:
        return await self._sync(_sql.lease, group, partitions, owner, seconds, release)

    async def wait(self, position: int, seconds: float) -> None:
        if self._closed:
            raise ClosedError("The event store is closed; make a new one.")
        await self._news.wait(position, min(seconds, _POLL) if self._path else seconds)


def _check_seconds(seconds: float, what: str) -> float:
    return check_interval(seconds, what) if seconds != 0 else 0.0


async def _whole(work: asyncio.Future[T]) -> T:
    """Wait for what the thread does, however often the waiting task is cancelled: it cannot be stopped half-way."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):  # the first one is raised
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()
        raise
