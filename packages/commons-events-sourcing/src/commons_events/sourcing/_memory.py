"""`MemoryBackend`: the event store's executable reference, in this process alone."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from commons_events.errors import (
    CapabilityError,
    CheckpointError,
    StreamNotFoundError,
    VersionConflictError,
)
from commons_events.runtime import current_runtime
from commons_events.sourcing._backend import Backend, BackendTransaction, Lease, LogPage, LogQuery
from commons_events.sourcing._groups import lost, repartitioned
from commons_events.sourcing._leases import share
from commons_events.sourcing._news import News
from commons_events.sourcing._rules import Known, deleted, find_repeat, lookup, refuse, wanted
from commons_events.sourcing._types import AppendResult, PreparedAppend, StoredEvent, StoredSnapshot, StreamId

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Result
    from sqlalchemy.sql import Executable

__all__ = ["MemoryBackend", "not_ahead", "not_found"]

T = TypeVar("T")


class _State:
    """All that is stored. A transaction works on a copy of what it changes, and puts it in place at its end."""

    def __init__(self) -> None:
        self.log: list[StoredEvent] = []
        self.next_position = 1
        self.streams: dict[StreamId, list[StoredEvent]] = {}
        self.deleted: set[StreamId] = set()
        self.checkpoints: dict[str, int] = {}
        self.snapshots: dict[tuple[StreamId, str], StoredSnapshot] = {}
        self.leases: dict[tuple[str, int], tuple[str, int, float]] = {}
        self.workers: dict[tuple[str, str], float] = {}

    def copy(self) -> _State:
        other = _State()
        for name, value in vars(self).items():
            setattr(other, name, value if isinstance(value, int) else value.copy())
        other.streams = {stream: list(events) for stream, events in self.streams.items()}
        return other


class _Transaction(BackendTransaction):
    def __init__(self, state: _State) -> None:
        self.state = state

    async def append(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        state = self.state.copy()
        results = _append(state, appends)
        self.state = state
        return results

    async def fetch_stream(
        self, stream: StreamId, first: int, last: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        return _stream(self.state, stream, first, last, limit, backwards)

    async def checkpoint(self, name: str) -> int:
        return self.state.checkpoints.get(name, 0)

    async def save_checkpoint(self, name: str, position: int, *, backwards: bool) -> None:
        saved = self.state.checkpoints.get(name, 0)
        if position <= saved and not backwards:
            raise not_ahead(name, position, saved)
        self.state.checkpoints[name] = position

    async def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        key = (snapshot.stream, snapshot.kind)
        present = self.state.snapshots.get(key)
        if present is None or present.version <= snapshot.version:
            self.state.snapshots[key] = replace(snapshot)

    async def check_lease(self, lease: Lease) -> None:
        owner, epoch, _ = self.state.leases.get((lease.group, lease.partition), ("", 0, 0.0))
        if owner != lease.owner or epoch != lease.epoch:
            raise lost(lease)

    async def execute(self, statement: Executable, parameters: Any = None) -> Result[Any]:
        _no_sql()

    async def run_sync(self, function: Callable[[Connection], T]) -> T:
        _no_sql()


class MemoryBackend(Backend):
    """Keeps everything in this object: for tests, and as the shortest description of what a backend does."""

    name: ClassVar[str] = "memory"

    def __init__(self) -> None:
        self._state = _State()
        self._lock = asyncio.Lock()
        self._news = News()

    async def open(self) -> None:
        """Nothing is to be opened."""

    async def close(self) -> None:
        """What is stored stays until this object goes."""

    async def append(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        await asyncio.sleep(0)  # as a database would, it lets others run, and its caller be cancelled
        async with self._lock:
            if len(appends) == 1:  # by itself it changes nothing where it fails
                results = _append(self._state, appends)
            else:
                state = self._state.copy()
                results = _append(state, appends)
                self._state = state
        self._news.tell()
        return results

    async def fetch_stream(
        self, stream: StreamId, first: int, last: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        await asyncio.sleep(0)
        return _stream(self._state, stream, first, last, limit, backwards)

    async def fetch_log(
        self, query: LogQuery, first: int, last: int, limit: int, backwards: bool, *, scan: int | None = None
    ) -> LogPage:
        await asyncio.sleep(0)
        log = self._state.log
        start = bisect_left(log, first, key=_position)
        end = bisect_left(log, last + 1, key=_position)
        matching: list[StoredEvent] = []
        everything = not any(query)
        for index in reversed(range(start, end)) if backwards else range(start, end):
            if everything or wanted(query, log[index]):
                matching.append(log[index])
                if len(matching) == limit:
                    break
        if len(matching) == limit and not backwards:
            safe = matching[-1].position
        else:
            safe = min(last, self._state.next_position - 1)
        return LogPage(matching, safe)

    async def stream_version(self, stream: StreamId) -> int:
        if stream in self._state.deleted:
            raise deleted(stream)
        return len(self._state.streams.get(stream, ()))

    async def streams_of(self, id: str) -> list[StreamId]:
        return sorted(stream for stream in self._state.streams if stream.id == id)

    async def head(self) -> int:
        return self._state.log[-1].position if self._state.log else 0

    async def delete_stream(self, stream: StreamId, expected: int | None) -> None:
        async with self._lock:
            state = self._state
            if stream in state.deleted:
                raise deleted(stream)
            if stream not in state.streams:
                raise not_found(stream)
            if expected is not None and expected != len(state.streams[stream]):
                raise VersionConflictError(str(stream), expected, len(state.streams[stream]))
            state.deleted.add(stream)
            del state.streams[stream]
            state.log = [stored for stored in state.log if stored.stream != stream]
            state.snapshots = {key: value for key, value in state.snapshots.items() if key[0] != stream}

    async def snapshot(self, stream: StreamId, kind: str, at_most: int) -> StoredSnapshot | None:
        found = self._state.snapshots.get((stream, kind))
        return found if found is not None and found.version <= at_most else None

    async def delete_snapshots(self, stream: StreamId) -> None:
        async with self._lock:
            snapshots = self._state.snapshots
            self._state.snapshots = {key: value for key, value in snapshots.items() if key[0] != stream}

    async def checkpoints(self, prefix: str) -> Mapping[str, int]:
        return {name: at for name, at in self._state.checkpoints.items() if name.startswith(prefix)}

    async def delete_checkpoint(self, name: str) -> None:
        async with self._lock:
            self._state.checkpoints.pop(name, None)

    async def lease(
        self, group: str, partitions: int, owner: str, seconds: float, release: Sequence[int] = ()
    ) -> list[Lease]:
        async with self._lock:
            present = sum(of == group for of, _ in self._state.leases)
            if seconds > 0 and present not in (0, partitions):
                raise repartitioned(group, present, partitions)
            return share(self._state.leases, self._state.workers, group, partitions, owner, seconds, release)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Transaction]:
        async with self._lock:
            transaction = _Transaction(self._state.copy())
            yield transaction
            before, self._state = self._state, transaction.state
        if self._state.next_position > before.next_position:  # a checkpoint is no news to readers
            self._news.tell()

    async def wait(self, position: int, seconds: float) -> None:
        if self._state.next_position - 1 <= position:
            await self._news.wait(position, seconds)


def _position(stored: StoredEvent) -> int:
    return stored.position


def _append(state: _State, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
    now = current_runtime().now()
    return [_append_one(state, append, now) for append in appends]


def _append_one(state: _State, append: PreparedAppend, now: datetime) -> AppendResult:
    stream = append.stream
    if stream in state.deleted:
        raise deleted(stream)
    present = state.streams.get(stream, [])
    version = len(present)
    ids = [event.event_id for event in append.events]
    where = lookup(append.expected, version, len(ids))
    if where is not None:
        known = [Known(at.event_id, at.aggregate_version, at.position) for at in present[where[0] - 1 : where[1]]]
        repeat = find_repeat(stream, append.expected, version, ids, known)
        if repeat is not None:
            return AppendResult(
                stream, version, repeat[0].aggregate_version, repeat[0].position, repeat[-1].position, False
            )
    refuse(append, version)
    if not ids:
        return AppendResult(stream, version, version + 1, 0, 0, False)
    first = state.next_position
    stored = [
        StoredEvent(first + index, stream, version + 1 + index, *event[:6], event.timestamp, now)
        for index, event in enumerate(append.events)
    ]
    state.next_position += len(stored)
    state.log += stored
    state.streams.setdefault(stream, []).extend(stored)
    return AppendResult(stream, version + len(stored), version + 1, first, state.next_position - 1)


def _stream(state: _State, stream: StreamId, first: int, last: int, limit: int, backwards: bool) -> list[StoredEvent]:
    found = state.streams.get(stream, [])[max(first - 1, 0) : last]
    return (found[::-1] if backwards else found)[:limit]


def not_found(stream: StreamId) -> StreamNotFoundError:
    """The error for a stream that is not there."""
    return StreamNotFoundError(f"There is no stream {str(stream)!r}.")


def not_ahead(name: str, position: int, saved: int) -> CheckpointError:
    """The error for a checkpoint that would not move forward."""
    return CheckpointError(
        f"The checkpoint {name!r} is at position {saved}, and {position} is not ahead of it: what is there was handled "
        "before, perhaps by another worker. Let the transaction roll back; to start anew, save it with backwards=True."
    )


def _no_sql() -> NoReturn:
    raise CapabilityError(
        'An event store in memory has no SQL. Use EventStore("sqlite:///file.db"), or "sqlite://" for a database in '
        "memory."
    )
