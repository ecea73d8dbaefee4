"""`TcpProxy`: a way to a server that a test can cut or block, as a network does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

__all__ = ["TcpProxy"]

_CHUNK = 1 << 16


class TcpProxy:
    """Passes on what clients and a server send each other, until it is told otherwise; an async context manager.

    Args:
        host: the server's.
        port: the server's.
        listen: the port of 127.0.0.1 for the clients; 0 takes a free one.
    """

    def __init__(self, host: str, port: int, *, listen: int = 0) -> None:
        self._server_at = host, port
        self.port = listen
        """Where clients connect to, on 127.0.0.1."""
        self._passing = asyncio.Event()
        self._passing.set()
        self._is_cut = False
        self._open = False
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Close every connection, and each new one at once, until `restore`; what is on its way is lost."""
        self._is_cut = True
        for connection in self._connections:
            connection.cancel()

    def block(self) -> None:
        """Keep every connection open, and let nothing through until `restore`; what is sent meanwhile comes then.

        That is so of a connection's end, too: of a side that closes, or dies, the other learns at `restore`.
        """
        self._passing.clear()

    def restore(self) -> None:
        """Pass everything on again."""
        self._is_cut = False
        self._passing.set()

    async def __aenter__(self) -> Self:
        if self._open:
            raise RuntimeError("This TcpProxy is open already; make another one for another way.")
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self._open = True
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        self._open = False
        self.cut()
        while self._connections:
            await asyncio.wait(list(self._connections))
        self.restore()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        writers = [writer]
        try:
            if self._open and not self._is_cut:
                from_server, to_server = await asyncio.open_connection(*self._server_at)
                writers.append(to_server)
                async with asyncio.TaskGroup() as ways:
                    ways.create_task(self._pass_on(reader, to_server))
                    ways.create_task(self._pass_on(from_server, writer))
                for each in writers:
                    each.close()
                    await each.wait_closed()  # until what it was sent has arrived
        except* (OSError, asyncio.CancelledError):
            pass  # either side is gone, or it was cut
        finally:
            for each in writers:
                each.transport.abort()  # not close(), which would wait for a peer that does not read
            for each in writers:
                with suppress(OSError, asyncio.CancelledError):  # cut once more
                    await each.wait_closed()
            self._connections.discard(connection)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            await self._passing.wait()
            raise
        await self._passing.wait()
        writer.write_eof()  # the other way may still have an answer
