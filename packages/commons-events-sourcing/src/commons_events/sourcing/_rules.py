"""What every backend decides alike: whether an append fits, or has happened before, and which events are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from commons_events.errors import StreamDeletedError, VersionConflictError
from commons_events.sourcing._backend import LogQuery
from commons_events.sourcing._types import Expected, ExpectedState, PreparedAppend, StoredEvent, StreamId

__all__ = ["conflict", "deleted", "find_repeat", "fits", "refuse", "wanted"]


def fits(expected: Expected, version: int) -> bool:
    """Whether a stream at this version is as expected."""
    if expected is ExpectedState.ANY:
        return True
    if expected is ExpectedState.STREAM_EXISTS:
        return version > 0
    return version == (0 if expected is ExpectedState.NO_STREAM else expected)


def conflict(stream: StreamId, expected: Expected, version: int, detail: str = "") -> VersionConflictError:
    """The error for a stream that is not as expected."""
    stated = expected.value if isinstance(expected, ExpectedState) else expected
    return VersionConflictError(str(stream), stated, version, detail)


def deleted(stream: StreamId) -> StreamDeletedError:
    """The error for a stream that was deleted."""
    return StreamDeletedError(f"Stream {str(stream)!r} was deleted, and takes no events any more. Use another id.")


def refuse(append: PreparedAppend, version: int) -> None:
    """Raise `VersionConflictError` where the stream is not as expected."""
    if not fits(append.expected, version):
        raise conflict(append.stream, append.expected, version)


def find_repeat(
    stream: StreamId,
    expected: Expected,
    version: int,
    ids: Sequence[str],
    between: Callable[[int, int], Sequence[StoredEvent]],
    containing: Callable[[], Sequence[StoredEvent]],
) -> int | None:
    """The version at which these very events stand already, where the append has happened before; else None.

    Args:
        stream: its name.
        expected: what the writer expects.
        version: the stream's version.
        ids: the new events' ids, in order.
        between: gives the stream's events of versions from … to.
        containing: gives those of the stream's events, in order, that have one of these ids; others may be among them.

    Raises:
        VersionConflictError: with `ANY`, where some of the events are there and others not, or in another order.
    """
    if not ids or version == 0:
        return None
    if isinstance(expected, ExpectedState) and expected is not ExpectedState.NO_STREAM:
        known = set(ids)
        found = [stored for stored in containing() if stored.event_id in known]
        if not found:
            return None
        for start in range(len(found) - len(ids) + 1):
            part = found[start : start + len(ids)]
            consecutive = part[-1].aggregate_version - part[0].aggregate_version == len(ids) - 1
            if consecutive and [stored.event_id for stored in part] == list(ids):
                return part[0].aggregate_version
        raise conflict(
            stream,
            expected,
            version,
            f"of the events to be stored it has {found[0].event_id!r} already, but not all of them in this order",
        )
    first = (0 if expected is ExpectedState.NO_STREAM else expected) + 1
    if first > version or first + len(ids) - 1 > version:
        return None
    present = between(first, first + len(ids) - 1)
    return first if [stored.event_id for stored in present] == list(ids) else None


def wanted(query: LogQuery, stored: StoredEvent) -> bool:
    """Whether an event fits a query."""
    return (
        (not query.categories or stored.stream.category in query.categories)
        and (not query.types or stored.event_type in query.types)
        and (not query.tags or set(query.tags) <= set(stored.tags))
    )
