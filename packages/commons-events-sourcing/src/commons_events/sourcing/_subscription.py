"""`Subscription`: catch up from a position, then live, for one reader."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Self

from commons_events.sourcing._backend import Backend, LogPage, LogQuery
from commons_events.sourcing._types import StoredEvent

if TYPE_CHECKING:
    from commons_events.sourcing._store import BaseEventStore

__all__ = ["Subscription"]

_LAST = 2**63 - 1


class Subscription:
    """An endless ``async for`` over stored events; made by `EventStore.subscribe`. For one task at a time.

    It holds up to two pages in memory: of a database server the next one is read while the one before is handled.
    Cancelling it, or leaving the loop, loses nothing: `position` says where to go on.
    """

    def __init__(self, store: BaseEventStore, query: LogQuery, after: int, poll_interval: float) -> None:
        self._store = store
        self._query = query
        self._read = after
        self._poll_interval = poll_interval
        self._page: deque[StoredEvent] = deque()
        self._ahead: asyncio.Task[LogPage] | None = None
        """The next page, on its way while the one before is handled; only where it is sure that there is more."""
        self._waiting: asyncio.Timeout | None = None
        """Around the waiting for what is new: `close` lets it run out."""
        self._closed = False
        self.position = after
        """The position that this reader has come to: nothing that it wants is at or before it but what it was given."""
        self.live = False
        """Whether it has caught up, and waits for what is new."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StoredEvent:
        while not self._page:
            if self._closed:
                raise StopAsyncIteration
            await self._fill(wait=True)
        stored = self._page.popleft()
        self.position = stored.position
        return stored

    async def next_page(self, limit: int = 500, *, wait: bool = True) -> list[StoredEvent]:
        """Up to ``limit`` events at once, for who handles them in batches.

        Args:
            limit: the most events.
            wait: wait until there is one; else the list may be empty, and all is read that there is.
        """
        while not self._page and not self._closed:
            await self._fill(wait=wait)
            if not wait:
                break
        count = min(limit, len(self._page))
        events = [self._page.popleft() for _ in range(count)]
        if events:
            self.position = events[-1].position
        return events

    async def _fill(self, *, wait: bool) -> None:
        """Read on; where there is nothing, wait for news."""
        backend = await self._store._ready()
        if self._ahead is None:
            self._ahead = self._ask(backend)
        asked = self._ahead
        try:
            page = await asyncio.shield(asked)  # who is cancelled here finds it the next time
        finally:
            if asked.done():
                self._ahead = None
        if self._closed:
            return
        self._page.extend(page.events)
        before, self._read = self._read, max(self._read, page.safe_position)
        if page.events:
            if backend.reads_ahead and len(page.events) == self._store.page_size:
                self._ahead = self._ask(backend)
            return
        self.position = self._read
        if self._read == before:
            self.live = True
            if wait:
                await self._wait(backend)

    async def _wait(self, backend: Backend) -> None:
        waiting = self._waiting = asyncio.timeout(None)
        try:
            async with waiting:
                await backend.wait(self._read, self._poll_interval)
        except TimeoutError:
            if not waiting.expired():
                raise
        finally:
            self._waiting = None

    def _ask(self, backend: Backend) -> asyncio.Task[LogPage]:
        asked = asyncio.ensure_future(self._fetch(backend))
        asked.add_done_callback(_look_at)
        return asked

    async def _fetch(self, backend: Backend) -> LogPage:
        return await backend.fetch_log(self._query, self._read + 1, _LAST, self._store.page_size, False)

    async def close(self) -> None:
        """End the loop, also one that waits; what was read ahead comes to whoever subscribes after `position`."""
        self._closed = True
        self._page.clear()
        self._ahead = None
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(0.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _look_at(page: asyncio.Task[LogPage]) -> None:
    """So that nobody complains of an error that nobody asks for any more."""
    if not page.cancelled():
        page.exception()
