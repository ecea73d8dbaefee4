"""What every backend decides alike: whether an append fits, or has happened before, and which events are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from commons_events.errors import StreamDeletedError, VersionConflictError
from commons_events.sourcing._backend import LogQuery
from commons_events.sourcing._types import Expected, ExpectedState, PreparedAppend, StoredEvent, StreamId

__all__ = ["Known", "conflict", "deleted", "find_repeat", "fits", "lookup", "refuse", "wanted"]


class Known(NamedTuple):
    """What is to be known of an event that a stream has."""

    event_id: str
    aggregate_version: int
    position: int


def fits(expected: Expected, version: int) -> bool:
    """Whether a stream at this version is as expected."""
    if expected is ExpectedState.ANY:
        return True
    if expected is ExpectedState.STREAM_EXISTS:
        return version > 0
    return version == (0 if expected is ExpectedState.NO_STREAM else expected)


def conflict(stream: StreamId, expected: Expected, version: int, detail: str = "") -> VersionConflictError:
    """The error for a stream that is not as expected."""
    return VersionConflictError(str(stream), expected, version, detail)


def deleted(stream: StreamId) -> StreamDeletedError:
    """The error for a stream that was deleted."""
    return StreamDeletedError(f"Stream {str(stream)!r} was deleted, and takes no events any more. Use another id.")


def refuse(append: PreparedAppend, version: int) -> None:
    """Raise `VersionConflictError` where the stream is not as expected."""
    if not fits(append.expected, version):
        raise conflict(append.stream, append.expected, version)


def lookup(expected: Expected, version: int, count: int) -> tuple[int, int] | None:
    """The versions at which these events would stand if this append had happened before; None where they cannot.

    With `ANY` and `STREAM_EXISTS` that is anywhere in the stream: 1 and its version.
    """
    if not count or not version:
        return None
    if isinstance(expected, ExpectedState) and expected is not ExpectedState.NO_STREAM:
        return 1, version
    first = (0 if expected is ExpectedState.NO_STREAM else expected) + 1
    last = first + count - 1
    return (first, last) if last <= version else None


def find_repeat(
    stream: StreamId, expected: Expected, version: int, ids: Sequence[str], present: Iterable[Known]
) -> Sequence[Known] | None:
    """These very events, where the append has happened before; else None.

    Args:
        stream: its name.
        expected: what the writer expects.
        version: the stream's version.
        ids: the new events' ids, in order.
        present: the stream's events, in order, of the versions that `lookup` gives; those of other ids may be left out.

    Raises:
        VersionConflictError: with `ANY`, where some of the events are there and others not, or in another order.
    """
    known = set(ids)
    found = [stored for stored in present if stored.event_id in known]
    for start in range(len(found) - len(ids) + 1):
        part = found[start : start + len(ids)]
        consecutive = part[-1].aggregate_version - part[0].aggregate_version == len(ids) - 1
        if consecutive and [stored.event_id for stored in part] == list(ids):
            return part
    if found and isinstance(expected, ExpectedState) and expected is not ExpectedState.NO_STREAM:
        detail = f"it has {found[0].event_id!r} of the events to be stored already, but not all of them in this order"
        raise conflict(stream, expected, version, detail)
    return None


def wanted(query: LogQuery, stored: StoredEvent) -> bool:
    """Whether an event fits a query."""
    return (
        (not query.categories or stored.stream.category in query.categories)
        and (not query.types or stored.event_type in query.types)
        and (not query.tags or set(query.tags) <= set(stored.tags))
    )
