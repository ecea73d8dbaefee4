"""`copy_events`: one store's events into another one, while both are in use."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from commons_events.errors import ConfigurationError, EventTooLargeError
from commons_events.event import Event
from commons_events.sourcing._decoding import place_of
from commons_events.sourcing._encoding import prepare_event
from commons_events.sourcing._store import BaseEventStore
from commons_events.sourcing._types import (
    NewEvent,
    PreparedAppend,
    PreparedEvent,
    StoredEvent,
    StreamId,
    check_name,
    check_stream,
)

__all__ = ["Progress", "ProgressBar", "copy_events"]

Transformed = Event | NewEvent | Sequence[Event | NewEvent] | None
_MOST_STREAMS = 100_000
"""Whose versions in the target are remembered."""


class Progress(NamedTuple):
    """How far a copy has come."""

    position: int
    """The last position of the source that is copied."""
    head: int
    """The source's highest position."""
    copied: int
    """How many events were written by this call."""


class ProgressBar:
    """Shows a copy's progress on one line of the terminal: pass it as ``progress=``."""

    def __init__(self, width: int = 40) -> None:
        self._width = width

    def __call__(self, progress: Progress) -> None:
        """Draw it."""
        part = progress.position / progress.head if progress.head else 1.0
        full = int(part * self._width)
        end = "\n" if progress.position >= progress.head else ""
        sys.stderr.write(f"\r[{'#' * full}{'.' * (self._width - full)}] {part:4.0%} {progress.copied:,} events{end}")
        sys.stderr.flush()


async def copy_events(
    source: BaseEventStore,
    target: BaseEventStore,
    *,
    name: str = "copy",
    transform: Callable[[StoredEvent], Transformed] | None = None,
    rename: Callable[[StreamId], StreamId | str] | None = None,
    progress: Callable[[Progress], object] | None = None,
    follow: bool = False,
) -> int:
    """Copy all events, in their order, into another store; called again, go on where it ended.

    The copy's checkpoint lies in the target and is written with the events: each is copied once, whatever breaks in
    between. Without a transformation the bytes are the same, and versions, too. The source is only read. That a stream
    was deleted is not copied: the target takes events for it.

    Args:
        source: where from; it may be written to meanwhile.
        target: where to; let nobody else write to the streams that are copied.
        name: of the checkpoint.
        transform: gives what is stored in an event's place: an event, several, or None for nothing.
        rename: gives the stream's name in the target.
        progress: called when it has come further, such as a `ProgressBar`.
        follow: go on with what is new, until cancelled.

    Returns:
        how many events were written.

    Raises:
        ConfigurationError: both stores are on the same database, one is no event store, or a function is async.
        InvalidStreamError: ``rename`` gave a name that cannot be stored.
        EventTooLargeError: an event has more bytes than the target's ``max_event_bytes``.
    """
    check_name(name, "checkpoint's name")
    given: Any
    for which, given in (("source", source), ("target", target)):
        if not isinstance(given, BaseEventStore):
            raise ConfigurationError(f"copy_events: {which} is a {type(given).__name__}; it is an EventStore.")
    for which, given in (("transform", transform), ("rename", rename), ("progress", progress)):
        if given is not None and (not callable(given) or inspect.iscoroutinefunction(given)):
            raise ConfigurationError(f"copy_events: {which} is {given!r:.100}; it is a function, not async, or None.")
    if source.backend is target.backend or source.backend.place == target.backend.place:
        raise ConfigurationError(
            "copy_events copies into another database: within one it would copy its own copies, without end."
        )
    subscription = source.subscribe(after=await target.checkpoint(name))
    copied = 0
    shown: Progress | None = None
    versions: dict[StreamId, int] = {}
    while True:
        before = subscription.position
        page = await subscription.next_page(source.page_size, wait=follow)
        if subscription.position > before:
            if len(versions) > _MOST_STREAMS:
                versions.clear()
            changed = dict(versions)
            async with target.transaction() as transaction:
                for batch in _batches(page, target.max_event_bytes, transform, rename):
                    for stream in batch.keys() - changed.keys():
                        changed[stream] = await target.backend.stream_version(stream)
                    appends = [PreparedAppend(stream, events, changed[stream]) for stream, events in batch.items()]
                    for result in await transaction._backend.append(appends):
                        changed[result.stream] = result.version
                    copied += sum(map(len, batch.values()))
                await transaction.save_checkpoint(name, subscription.position)
            versions = changed
        if progress is not None:
            now = Progress(subscription.position, max(await source.head(), subscription.position), copied)
            if now != shown:
                progress(now)
            shown = now
        if not page and not follow:
            return copied


def _batches(
    page: Sequence[StoredEvent],
    max_bytes: int,
    transform: Callable[[StoredEvent], Transformed] | None,
    rename: Callable[[StreamId], StreamId | str] | None,
) -> Iterable[dict[StreamId, list[PreparedEvent]]]:
    """What is to be stored, in order, by as few appends as keep it: each takes a stream's events once, side by side."""
    batch: dict[StreamId, list[PreparedEvent]] = {}
    last: StreamId | None = None
    for stored in page:
        stream = stored.stream
        if rename is not None:
            stream = check_stream(rename(stream))
        events = _transformed(stored, max_bytes, transform)
        if not events:
            continue
        if stream != last and stream in batch:
            yield batch
            batch = {}
        batch.setdefault(stream, []).extend(events)
        last = stream
    if batch:
        yield batch


def _transformed(
    stored: StoredEvent, max_bytes: int, transform: Callable[[StoredEvent], Transformed] | None
) -> list[PreparedEvent]:
    if transform is None:
        if len(stored.data) > max_bytes:
            raise EventTooLargeError(
                f"{place_of(stored)} has {len(stored.data):,} bytes; the target takes {max_bytes:,} (max_event_bytes). "
                "Open the target with as many, or give a transform= that makes it smaller."
            )
        timestamp = stored.timestamp
        assert timestamp is not None  # every backend keeps it
        return [PreparedEvent(*stored[3:9], timestamp)]
    made = transform(stored)
    if made is None:
        return []
    several = [made] if isinstance(made, Event | NewEvent) else made
    return [
        prepare_event(one.event, one.tags, max_bytes)
        if isinstance(one, NewEvent)
        else prepare_event(one, stored.tags, max_bytes)
        for one in several
    ]
