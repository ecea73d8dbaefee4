"""News between processes on PostgreSQL: a NOTIFY for what was stored in some time, and LISTEN where somebody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg

from commons_events.errors import CommonsEventsError
from commons_events.runtime import current_runtime
from commons_events.sourcing._news import News
from commons_events.sourcing._postgres_wire import StoreConnection

__all__ = ["CHANNEL", "PostgresNews", "discard"]

CHANNEL = "commons_events"
"""What LISTEN and NOTIFY are called on."""

_EVERY = 0.05
"""Seconds between two notices of one process: a notice says that there is news, not what."""
_RETRY = 1.0
"""Seconds after which a broken connection is tried again; meanwhile readers poll."""


class PostgresNews(News):
    """`News` that reaches the readers of other processes, and comes from their writers.

    Args:
        connect: makes a connection.
        notify: without, only this process's readers are told.
    """

    def __init__(self, connect: Callable[[], Awaitable[StoreConnection]], *, notify: bool) -> None:
        super().__init__()
        self._connect = connect
        self._notify = notify
        self._listening: asyncio.Task[None] | None = None
        self._announcing: asyncio.Task[None] | None = None
        self._announcer: StoreConnection | None = None
        self._unannounced = False
        self._closed = False

    def announce(self, position: int = 0) -> None:
        """Tell this process's readers, and soon those of others. See `tell`."""
        self.tell(position)
        if not self._notify or self._closed:
            return
        self._unannounced = True
        if self._announcing is None or self._announcing.done():
            self._announcing = asyncio.get_running_loop().create_task(self._announce())

    async def _announce(self) -> None:
        while self._unannounced and not self._closed:
            self._unannounced = False
            try:
                if self._announcer is None or self._announcer.closed:
                    self._announcer = await self._connect()
                    # a notice that is lost with the server is none that anybody misses: it need not wait for the disk
                    await self._announcer.execute("SET synchronous_commit = off")
                await self._announcer.numbers(f"NOTIFY {CHANNEL}", ())
            except (psycopg.Error, CommonsEventsError):  # who missed it polls
                if self._announcer is not None:
                    await discard(self._announcer)
                await current_runtime().sleep(_RETRY)
            await current_runtime().sleep(_EVERY)

    def listen(self) -> None:
        """Hear of what other processes store from now on."""
        if self._notify and self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while not self._closed:
            try:
                connection = await self._connect()
                try:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    async for _ in connection.notifies():
                        self.tell()
                finally:
                    await discard(connection)
            except (psycopg.Error, CommonsEventsError):
                await current_runtime().sleep(_RETRY)

    async def close(self) -> None:
        """Disconnect, once what was being announced is."""
        self._closed = True
        if self._announcing is not None:
            await asyncio.wait([self._announcing])
        if self._announcer is not None:
            await discard(self._announcer)
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])


async def discard(connection: StoreConnection) -> None:
    """Close a connection, whatever state it is in."""
    with suppress(psycopg.Error):
        await connection.close()
