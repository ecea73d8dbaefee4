"""One prepared statement to PostgreSQL and back, with as little as possible between libpq and the event loop.

psycopg's cursors are made for any query. An append is one of a few statements, whose parameters are text and whose
answer is a few whole numbers: so it takes a third of a cursor's time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any

from psycopg import AsyncConnection, AsyncRawCursor, Error, OperationalError, errors
from psycopg.abc import RV, PQGen
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.waiting import Ready, Wait

__all__ = ["StoreConnection", "block", "numbers"]


class SessionResetError(OperationalError):
    """The server knows nothing of a statement that was prepared: something in between has reset the session."""

    sqlstate = "26000"


class StoreConnection(AsyncConnection[Any]):
    """A connection of the store's own, made by `connect`; its client encoding is UTF-8."""

    prepared: dict[str, bytes]
    """The names of the statements that it knows."""

    def is_alive(self) -> bool:
        """Whether nothing says, as far as can be told without asking the server, that it has ended the connection."""
        try:
            for _ in range(2):  # what it said last may come first
                self.pgconn.consume_input()
        except OperationalError:
            pass
        return not self.closed

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's, which sets a timer for each piece of an answer that arrives; event loops need none.

        To be cancelled closes the connection.
        """
        if timeout is not None:
            return await super().wait(gen, interval, timeout)
        socket = self.pgconn.socket
        try:
            wanted = next(gen)
            while True:
                try:
                    ready = await _ready(socket, wanted)
                except BaseException as error:
                    self._break_off(gen)
                    if isinstance(error, OSError):
                        raise OperationalError("the connection was closed") from error
                    raise
                wanted = gen.send(ready)
        except StopIteration as ended:
            found: RV = ended.value
            return found

    def _break_off(self, gen: PQGen[Any]) -> None:
        """Close the connection, and lead psycopg's work to its end, which then has nothing to wait for."""
        self.pgconn.finish()
        for _ in range(10):
            try:
                gen.throw(OperationalError("the work was broken off"))
            except (StopIteration, Error):
                return

    async def numbers(self, statement: str, parameters: Sequence[bytes | None]) -> list[tuple[int, ...]]:
        """See `numbers`. To be cancelled leaves the connection in the middle: it is of no use any more."""
        async with self.lock:
            prepared = vars(self).setdefault("prepared", {})
            name = prepared.get(statement)
            if name is None:
                name = b"commons_events_%d" % len(prepared)
                self.pgconn.send_prepare(name, statement.encode())
                await self._answer()
                prepared[statement] = name
            self.pgconn.send_query_prepared(name, parameters)
            try:
                result = await self._answer()
            except errors.InvalidSqlStatementName as error:
                prepared.clear()
                raise SessionResetError(str(error)) from error
        columns, value = range(result.nfields), result.get_value
        return [tuple([int(value(row, column) or 0) for column in columns]) for row in range(result.ntuples)]

    @asynccontextmanager
    async def block(self) -> AsyncIterator[None]:
        """A transaction unknown to psycopg's bookkeeping, which would forget all statements after a rollback."""
        await self._command(b"BEGIN")
        try:
            yield
        except BaseException:
            if self.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                await self._command(b"ROLLBACK")
            raise
        await self._command(b"COMMIT")

    async def _command(self, statement: bytes) -> None:
        async with self.lock:
            self.pgconn.send_query(statement)
            await self._answer()

    async def _answer(self) -> PGresult:
        """Send what is not sent yet, and wait for the result."""
        pgconn = self.pgconn
        while pgconn.flush():
            await _ready(pgconn.socket, Wait.RW)
            pgconn.consume_input()  # a server that waits for its reader reads no more
        found: PGresult | None = None
        while True:
            while pgconn.is_busy():
                await _ready(pgconn.socket, Wait.R)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            found = result
        if found is None:
            raise OperationalError("the connection is lost")
        if found.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise errors.error_from_result(found)
        return found


async def _ready(socket: int, wanted: Wait) -> Ready:
    """Wait until the socket can be read, or written to, or one of both."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[Ready] = loop.create_future()
    try:
        if wanted & Wait.R:
            loop.add_reader(socket, _settle, ready, Ready.R)
        if wanted & Wait.W:
            loop.add_writer(socket, _settle, ready, Ready.W)
        return await ready
    finally:
        if wanted & Wait.R:
            loop.remove_reader(socket)
        if wanted & Wait.W:
            loop.remove_writer(socket)


def _settle(ready: asyncio.Future[Ready], found: Ready) -> None:
    if not ready.done():
        ready.set_result(found)


async def numbers(
    connection: AsyncConnection[Any], statement: str, parameters: Sequence[bytes | None]
) -> list[tuple[int, ...]]:
    """The rows of whole numbers that a statement gives; it is prepared the first time.

    Args:
        connection: a `StoreConnection`, or one of psycopg's, on which this takes longer.
        statement: with ``$1`` …, each of a type that PostgreSQL can tell from the statement.
        parameters: in PostgreSQL's text form, UTF-8.

    Raises:
        psycopg.Error: the statement fails, or the connection does.
    """
    if isinstance(connection, StoreConnection):
        return await connection.numbers(statement, parameters)
    texts = [None if parameter is None else parameter.decode() for parameter in parameters]
    async with AsyncRawCursor(connection) as cursor:
        await cursor.execute(statement, texts, prepare=True, binary=True)
        return await cursor.fetchall()


def block(connection: AsyncConnection[Any]) -> AbstractAsyncContextManager[object]:
    """A transaction. Within another one it is a part of it: a second COMMIT would end the outer one, too.

    On a connection of psycopg's that part is a savepoint; on the store's own, what fails in it is to fail all.
    """
    if not isinstance(connection, StoreConnection):
        return connection.transaction()
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        return nullcontext()
    return connection.block()
