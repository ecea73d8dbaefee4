"""Reading on SQLite; what is here runs in the reader's thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from commons_events.sourcing._backend import LogPage, LogQuery
from commons_events.sourcing._sql import as_utc
from commons_events.sourcing._sqlite_names import Names, kinds_of
from commons_events.sourcing._types import StoredEvent, StoredSnapshot, StreamId

__all__ = ["fetch_from_snapshot", "fetch_log", "fetch_snapshot", "fetch_stream", "find_head"]

_VALUES = (
    "e.position, e.version, e.event_id, e.kind_id, coalesce(e.data_bytes, CAST(e.data AS BLOB)), e.tags, e.timestamp, "
    "e.recorded_at"
)
_MERGED = 256
"""Kinds that are looked up one by one; where more are wanted, reading all events finds some soon."""


def _tags(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def fetch_stream(
    raw: sqlite3.Connection, names: Names, stream: StreamId, first: int, last: int, limit: int, backwards: bool
) -> list[StoredEvent]:
    rows = raw.execute(
        f"SELECT {_VALUES} FROM commons_events_events e "
        "WHERE stream_id = (SELECT stream_id FROM commons_events_streams WHERE id = ? AND category = ?) "
        f"AND version BETWEEN ? AND ? ORDER BY version {'DESC' if backwards else ''} LIMIT ?",
        (*stream, first, last, limit),
    ).fetchall()
    kinds = names.kinds(raw, {row[3] for row in rows})
    new, time = tuple.__new__, datetime.fromisoformat
    return [
        new(StoredEvent, (a, stream, b, c, (k := kinds[d])[0], k[1], k[2], e, _tags(f) if f else (), time(g), time(h)))
        for a, b, c, d, e, f, g, h in rows
    ]


def fetch_snapshot(raw: sqlite3.Connection, stream: StreamId, kind: str, at_most: int) -> StoredSnapshot | None:
    """See `Backend.snapshot`."""
    row = raw.execute(
        "SELECT version, schema_version, data, taken_at FROM commons_events_snapshots "
        "WHERE id = ? AND category = ? AND kind = ? AND version <= ?",
        (*stream, kind, at_most),
    ).fetchone()
    if row is None:
        return None
    taken = as_utc(datetime.fromisoformat(row[3]))
    return StoredSnapshot(stream=stream, version=row[0], kind=kind, schema_version=row[1], data=row[2], taken_at=taken)


def fetch_from_snapshot(
    raw: sqlite3.Connection, names: Names, stream: StreamId, kind: str, last: int, limit: int
) -> tuple[StoredSnapshot | None, list[StoredEvent]]:
    """See `Backend.fetch_from_snapshot`."""
    found = fetch_snapshot(raw, stream, kind, last)
    return found, fetch_stream(raw, names, stream, found.version if found else 0, last, limit, False)


def find_head(raw: sqlite3.Connection) -> int:
    found: int = raw.execute("SELECT coalesce(max(position), 0) FROM commons_events_events").fetchone()[0]
    return found


def fetch_log(
    raw: sqlite3.Connection, names: Names, query: LogQuery, first: int, last: int, limit: int, backwards: bool
) -> LogPage:
    # There is one writer at a time, and positions rise with every commit: all up to the head that is there is there.
    head = raw.execute("SELECT seq FROM sqlite_sequence WHERE name = 'commons_events_events'").fetchone()
    known = min(last, head[0] if head is not None else 0)
    if first > known:
        return LogPage([], max(known, 0))
    conditions: list[str] = ["position BETWEEN ? AND ?"]
    parameters: list[int | str] = [first, known]
    if query.types or query.categories:
        wanted = kinds_of(raw, query)  # after the head, so that the kinds of all that is read are there
        if not wanted:
            return LogPage([], known)
        if not query.tags and 1 < len(wanted) <= _MERGED:
            positions = _merged(raw, wanted, first, known, limit, backwards)
            conditions, parameters = ["position IN (SELECT value FROM json_each(?))"], [json.dumps(positions)]
        else:
            # the plus keeps SQLite from sorting all that is there instead of reading in order
            plus = "+" if len(wanted) > 1 else ""
            conditions.append(f"{plus}kind_id IN ({', '.join(map(str, wanted))})")
    if query.tags:
        conditions.append("tags IS NOT NULL")
    for tag in query.tags:
        conditions.append("EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?)")
        parameters.append(tag)
    order = "DESC" if backwards else ""
    rows = raw.execute(
        f"SELECT {_VALUES}, e.stream_id FROM commons_events_events e "
        f"WHERE {' AND '.join(conditions)} ORDER BY position {order} LIMIT ?",
        (*parameters, limit),
    ).fetchall()
    kinds = names.kinds(raw, {row[3] for row in rows})
    streams = names.streams(raw, {row[8] for row in rows})
    new, time = tuple.__new__, datetime.fromisoformat
    events = [
        new(
            StoredEvent,
            (a, streams[i], b, c, (k := kinds[d])[0], k[1], k[2], e, _tags(f) if f else (), time(g), time(h)),
        )
        for a, b, c, d, e, f, g, h, i in rows
    ]
    return LogPage(events, events[-1].position if len(events) == limit and not backwards else known)


def _merged(
    raw: sqlite3.Connection, kinds: Sequence[int], first: int, last: int, limit: int, backwards: bool
) -> list[int]:
    """The first positions of events of these kinds: each kind's are found in order, so that few are looked at."""
    statement = (
        "SELECT position FROM commons_events_events WHERE kind_id = ? AND position BETWEEN ? AND ? "
        f"ORDER BY position {'DESC' if backwards else ''} LIMIT ?"
    )
    found = [row[0] for kind in kinds for row in raw.execute(statement, (kind, first, last, limit))]
    return sorted(found, reverse=backwards)[:limit]
