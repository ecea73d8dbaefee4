"""`BaseEventStore`: streams of events on a `Backend`; policy lives here, SQL does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Self

from commons_events.errors import (
    AmbiguousStreamError,
    ClosedError,
    CommonsEventsError,
    StreamNotFoundError,
    WrongEventLoopError,
)
from commons_events.event import Event
from commons_events.sourcing._backend import Backend
from commons_events.sourcing._encoding import prepare_events
from commons_events.sourcing._groups import GroupSubscription, check_group
from commons_events.sourcing._store_transaction import (
    MAX_EVENT_BYTES,
    MAX_POSITION,
    StoreTransaction,
    bounds,
    log_query,
    prepare_all,
)
from commons_events.sourcing._subscription import Subscription
from commons_events.sourcing._types import (
    Append,
    AppendResult,
    Expected,
    ExpectedState,
    NewEvent,
    StoredEvent,
    StoredSnapshot,
    StreamId,
    check_count,
    check_interval,
    check_name,
    check_position,
    check_several,
    check_stream,
    checked_snapshot,
)

__all__ = ["BaseEventStore"]


class BaseEventStore:
    """Streams of events, each in order, and all of them in one order by their positions.

    It connects on first use, and then belongs to that event loop. First use makes the tables in a database that has
    none of them; nothing ever alters them by itself.

    Args:
        backend: the database.
        max_event_bytes: the largest event it takes.
        page_size: how many events reading holds in memory at once.
    """

    def __init__(self, backend: Backend, *, max_event_bytes: int = MAX_EVENT_BYTES, page_size: int = 500) -> None:
        self.backend = backend
        self.max_event_bytes = check_count(max_event_bytes, "max_event_bytes")
        self.page_size = check_count(page_size, "page_size")
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    # --- life ------------------------------------------------------------------------------------------------

    async def open(self) -> Self:
        """Connect now instead of on first use.

        Raises:
            StoreUnavailableError: the database is out of reach.
            UnknownDatabaseError: there is no such database.
            StoreSchemaError: its tables are of an older or newer version of the package.
        """
        await self._ready()
        return self

    async def _ready(self) -> Backend:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise ClosedError("The event store is closed; make a new one.")
        if self._loop is not loop:
            if self._loop is not None:
                raise WrongEventLoopError("The event store belongs to another event loop; make one for each.")
            self._loop = loop
        opening = self._opening
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception() is not None)):
            opening = self._opening = loop.create_task(self.backend.open())  # after a failure each call tries again
        if not opening.done():
            await asyncio.shield(opening)
        return self.backend

    async def _writable(self) -> Backend:
        """As `_ready`, for what would wait for the end of an open transaction."""
        self.backend._blocks.refuse()
        return await self._ready()

    async def close(self) -> None:
        """Finish what was handed over, and disconnect. Harmless twice.

        To be cancelled does not stop it: it goes on, and who calls it again waits for its end. In the block of a
        transaction it would wait for itself: that is a `CapabilityError`.
        """
        self.backend._blocks.refuse("Close the store after the block.")
        await asyncio.shield(self._begin_closing())

    def _begin_closing(self) -> asyncio.Task[None]:
        self._closed = True
        if self._closing is None or self._closing.cancelled():  # the latter with the event loop in which it began
            self._closing = asyncio.get_running_loop().create_task(self._close())
        return self._closing

    async def _close(self) -> None:
        if self._opening is not None:
            await asyncio.wait([self._opening])
            if not self._opening.cancelled():
                self._opening.exception()
        await self.backend.close()

    async def __aenter__(self) -> Self:
        try:
            return await self.open()
        except WrongEventLoopError:
            raise  # it is another one's, who goes on with it
        except asyncio.CancelledError:
            _ = self._begin_closing()  # which goes on by itself: opening may take its time to end
            raise
        except BaseException as error:
            if not (isinstance(error, CommonsEventsError) and error.retriable):  # else it may be entered again
                await self.close()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- writing ---------------------------------------------------------------------------------------------

    async def append(
        self, stream: StreamId | str, events: Iterable[Event | NewEvent], *, expected: Expected = ExpectedState.ANY
    ) -> AppendResult:
        """Store events at the end of a stream, all or none, and return once they are durable.

        The same events again, by their ids, where they already stand just where they would have gone, are not stored
        twice: so an append whose answer was lost may be sent again. With an exact version they have to follow it, with
        `NO_STREAM` to begin the stream; with `ANY` and `STREAM_EXISTS` to stand anywhere in it, side by side.

        Args:
            stream: its name; a str stands for a stream of the category ``""``.
            events: in their order; with tags as `NewEvent`. None at all only checks what is expected.
            expected: the version that the stream has to have, or `ANY`, `NO_STREAM`, `STREAM_EXISTS`.

        Raises:
            VersionConflictError: the stream is not as expected; it says at which version it is.
            StreamDeletedError: the stream was deleted.
            InvalidStreamError: the stream's name, an event's id or a tag cannot be stored.
            InvalidVersionError: the expected version is negative, or no version.
            EventTooLargeError: an event has more than ``max_event_bytes``.
            SerializationError: an event holds a value that its format cannot carry.
            StoreUnavailableError: the database is out of reach; the events may be stored all the same.
        """
        prepared = prepare_events(stream, check_several(events), expected, self.max_event_bytes)
        return (await (await self._writable()).append((prepared,)))[0]

    async def append_many(self, appends: Iterable[Append]) -> list[AppendResult]:
        """Store events in several streams, in one transaction: all or none. A stream may come once.

        Returns:
            one result for each append, in their order, which is also that of the positions.

        Raises:
            VersionConflictError: one of the streams is not as expected; and all that `append` raises.
        """
        prepared = prepare_all(appends, self.max_event_bytes)
        backend = await self._writable()
        return await backend.append(prepared)

    async def delete_stream(self, stream: StreamId | str, *, expected: int | None = None) -> None:
        """Delete a stream's events and snapshots for good; its name takes no events any more.

        Args:
            stream: its name.
            expected: the version that it has to have; None for any.

        Raises:
            VersionConflictError: it has another version.
            StreamNotFoundError: there is no such stream.
            StreamDeletedError: it was deleted before.
        """
        if expected is not None:
            check_position(expected, "The expected version")
        name = check_stream(stream)
        await (await self._writable()).delete_stream(name, expected)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[StoreTransaction]:
        """A transaction over the store's tables and the program's own: commits when the block ends.

        It rolls back, and lets the exception pass, when the block raises or is cancelled. Keep it short: on SQLite no
        one else can write meanwhile, so appending through the store itself inside the block would wait for ever, and
        is refused; on PostgreSQL readers stop before the first event that it has not yet committed.

        What another task has under way when the block ends is done first, and is part of it; where the block raises it
        is broken off. After that the transaction's methods raise `ClosedError`.
        """
        backend = await self._writable()
        async with backend.transaction() as begun:
            transaction = StoreTransaction(begun, self.max_event_bytes)
            try:
                with self.backend._blocks.block():
                    yield transaction
            except BaseException:
                await transaction._end(failed=True)
                raise
            await transaction._end(failed=False)
        for function in transaction._after_commit:
            function()

    # --- reading ---------------------------------------------------------------------------------------------

    async def read_stream(
        self,
        stream: StreamId | str,
        *,
        from_version: int = 0,
        to_version: int | None = None,
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[StoredEvent]:
        """A stream's events, a page in memory at a time. A stream that does not exist has none.

        Args:
            stream: its name.
            from_version: the first ``aggregate_version``, included; 0 and 1 both mean the beginning.
            to_version: the last one, included; None for the end.
            backwards: the newest first, from ``to_version`` down to ``from_version``.
            limit: the most events.
        """
        name = check_stream(stream)
        first, last = bounds(from_version, to_version, "version")
        left = MAX_POSITION if limit is None else check_position(limit, "limit")
        backend = await self._ready()
        while left > 0 and first <= last:
            size = min(left, self.page_size)
            page = await backend.fetch_stream(name, first, last, size, backwards)
            for stored in page:
                yield stored
            if len(page) < size:
                return
            left -= size
            if backwards:
                last = page[-1].aggregate_version - 1
            else:
                first = page[-1].aggregate_version + 1

    async def fetch_stream(
        self, stream: StreamId | str, *, from_version: int = 0, to_version: int | None = None
    ) -> list[StoredEvent]:
        """All of a stream's events in one list: the quickest way to load an aggregate."""
        name = check_stream(stream)
        first, last = bounds(from_version, to_version, "version")
        return await (await self._ready()).fetch_stream(name, first, last, MAX_POSITION, False)

    async def read_all(
        self,
        *,
        from_position: int = 0,
        to_position: int | None = None,
        categories: Iterable[str] = (),
        types: Iterable[str | type[Event]] = (),
        tags: Iterable[str] = (),
        backwards: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[StoredEvent]:
        """The store's events in the order of their positions, a page in memory at a time.

        Forwards it ends before what a transaction that is still open may yet bring, so that who goes on after the last
        position misses nothing.

        Args:
            from_position: the first position, included.
            to_position: the last one, included; None for the end.
            categories: only of streams of one of these categories.
            types: only events that were stored as one of these types, or are read as one of these classes.
            tags: only events that have all of these tags.
            backwards: the newest first.
            limit: the most events.
        """
        query = log_query(categories, types, tags)
        first, last = bounds(from_position, to_position, "position")
        left = MAX_POSITION if limit is None else check_position(limit, "limit")
        backend = await self._ready()
        while left > 0 and first <= last:
            size = min(left, self.page_size)
            page = await backend.fetch_log(query, first, last, size, backwards)
            for stored in page.events:
                yield stored
            left -= len(page.events)
            if len(page.events) < size:
                return
            if backwards:
                last = page.events[-1].position - 1
            else:
                first = page.events[-1].position + 1

    async def stream_version(self, stream: StreamId | str) -> int:
        """How many events the stream has: its last ``aggregate_version``, 0 where it does not exist.

        Raises:
            StreamDeletedError: it was deleted.
        """
        name = check_stream(stream)
        return await (await self._ready()).stream_version(name)

    async def find_stream(self, id: str) -> StreamId:
        """The stream of this id, whatever its category.

        Raises:
            StreamNotFoundError: there is none.
            AmbiguousStreamError: several categories have one.
        """
        check_name(id, "stream's id")
        found = await (await self._ready()).streams_of(id)
        if not found:
            raise StreamNotFoundError(f"There is no stream {id!r} in any category.")
        if len(found) > 1:
            categories = ", ".join(repr(stream.category) for stream in found)
            raise AmbiguousStreamError(
                f"The id {id!r} is that of streams of several categories: {categories}. Say which."
            )
        return found[0]

    async def head(self) -> int:
        """The highest position in the store; 0 in an empty one. A transaction that is open may yet fill lower ones."""
        return await (await self._ready()).head()

    # --- following -------------------------------------------------------------------------------------------

    def subscribe(
        self,
        *,
        after: int = 0,
        categories: Iterable[str] = (),
        types: Iterable[str | type[Event]] = (),
        tags: Iterable[str] = (),
        poll_interval: float = 1.0,
    ) -> Subscription:
        """All events after a position, and then those that come, for ever: ``async for stored in store.subscribe()``.

        Each event comes once and in order of position, none is left out. A new event is noticed at once; should that
        notice be lost, within ``poll_interval``.

        Args:
            after: the last position that is known already, such as a saved checkpoint; 0 for all.
            categories: only of streams of one of these categories.
            types: only events that were stored as one of these types, or are read as one of these classes.
            tags: only events that have all of these tags.
            poll_interval: seconds after which it looks by itself.
        """
        check_position(after, "after")
        check_interval(poll_interval, "poll_interval")
        return Subscription(self, log_query(categories, types, tags), after, poll_interval)

    def subscribe_group(
        self,
        name: str,
        *,
        worker: str | None = None,
        partitions: int = 8,
        after: int = 0,
        categories: Iterable[str] = (),
        types: Iterable[str | type[Event]] = (),
        tags: Iterable[str] = (),
        lease_seconds: float = 30.0,
        poll_interval: float = 1.0,
    ) -> GroupSubscription:
        """As `subscribe`, shared by the workers of a group: a stream's events go to one worker at a time, in order.

        The streams are spread over partitions; each worker holds a fair share of these by leases that it renews, and
        gets the events of one partition one after the other. Where a worker is not heard of for ``lease_seconds``,
        others take over from the saved checkpoints. Finish each event by ``delivery.done()``, or in the transaction of
        what it caused: ``await delivery.finish(transaction)``, which makes that happen once.

        Args:
            name: the group's.
            worker: this worker's, unique in the group; by default made up.
            partitions: how many parts; the same for all workers of the group, at all times.
            after: where a new group begins.
            categories: see `subscribe`.
            types: see `subscribe`.
            tags: see `subscribe`.
            lease_seconds: how long a silent worker keeps its parts.
            poll_interval: see `subscribe`.
        """
        check_group(name)
        check_interval(lease_seconds, "lease_seconds")
        check_interval(poll_interval, "poll_interval")
        query = log_query(categories, types, tags)
        return GroupSubscription(
            self,
            name,
            query,
            worker=worker,
            partitions=partitions,
            after=check_position(after, "after"),
            lease_seconds=lease_seconds,
            poll_interval=poll_interval,
        )

    # --- positions and snapshots -----------------------------------------------------------------------------

    async def checkpoint(self, name: str) -> int:
        """The position that a reader has saved under ``name``; 0 where there is none."""
        check_name(name, "checkpoint's name")
        return (await (await self._ready()).checkpoints(name)).get(name, 0)

    async def checkpoints(self, prefix: str = "") -> Mapping[str, int]:
        """All saved positions whose names begin with ``prefix``."""
        if prefix != "":
            check_name(prefix, "prefix of checkpoints' names")
        return await (await self._ready()).checkpoints(prefix)

    async def save_checkpoint(self, name: str, position: int, *, backwards: bool = False) -> None:
        """As `StoreTransaction.save_checkpoint`, in a transaction of its own."""
        async with self.transaction() as transaction:
            await transaction.save_checkpoint(name, position, backwards=backwards)

    async def delete_checkpoint(self, name: str) -> None:
        """Forget a saved position."""
        check_name(name, "checkpoint's name")
        await (await self._writable()).delete_checkpoint(name)

    async def snapshot(self, stream: StreamId | str, kind: str, *, at_most: int | None = None) -> StoredSnapshot | None:
        """The stream's latest snapshot of this kind, of no later version than ``at_most``; None without one."""
        name = check_stream(stream)
        check_name(kind, "snapshot's kind")
        limit = MAX_POSITION if at_most is None else check_position(at_most, "at_most")
        return await (await self._ready()).snapshot(name, kind, limit)

    async def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        """Keep a snapshot in the place of the stream's older one of the same kind."""
        snapshot = checked_snapshot(snapshot)
        async with self.transaction() as transaction:
            await transaction.save_snapshot(snapshot)

    async def delete_snapshots(self, stream: StreamId | str) -> None:
        """Forget the stream's snapshots; they are made anew from its events."""
        name = check_stream(stream)
        await (await self._writable()).delete_snapshots(name)
