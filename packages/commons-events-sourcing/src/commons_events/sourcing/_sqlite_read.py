"""Reading on SQLite; what is here runs in the reader's thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from commons_events.sourcing._backend import LogPage, LogQuery
from commons_events.sourcing._sql import as_utc
from commons_events.sourcing._sqlite_names import HEAD, Names, kinds_of
from commons_events.sourcing._tables import BLOCK
from commons_events.sourcing._types import StoredEvent, StoredSnapshot, StreamId

__all__ = ["fetch_from_snapshot", "fetch_log", "fetch_snapshot", "fetch_stream", "find_head"]

_VALUES = (
    "e.position, e.version, e.event_id, e.kind_id, coalesce(e.data_bytes, CAST(e.data AS BLOB)), e.tags, e.timestamp, "
    "e.recorded_at"
)
_MERGED = 256
"""Kinds that are looked up one by one; where more are wanted, reading all events finds some soon."""
_TAGGED = "EXISTS (SELECT 1 FROM commons_events_tags o WHERE o.tag = ? AND o.position = t.position)"
_COUNTED = 1000
"""Events of a tag that are counted to find out which one is rare."""
_BLOCKS = 64
"""Blocks of a kind that are looked up at once."""


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
    known = min(last, raw.execute(f"SELECT {HEAD}").fetchone()[0])
    if first > known:
        return LogPage([], max(known, 0))
    conditions: list[str] = []
    ranges: Iterable[tuple[int, int]] = ((first, known),)
    if query.types or query.categories:
        wanted = kinds_of(raw, query)  # after the head, so that the kinds of all that is read are there
        if not wanted:
            return LogPage([], known)
        conditions.append(f"kind_id IN ({', '.join(map(str, wanted))})")
        if len(wanted) <= _MERGED and not query.tags:
            ranges = _ranges(raw, wanted, first, known, backwards)
    source, place, tags = "commons_events_events e", "e.position", query.tags
    if tags:
        source = "commons_events_tags t CROSS JOIN commons_events_events e ON e.position = t.position"
        place, tags = "t.position", _rarest_first(raw, tags, first, known)
        conditions.append("t.tag = ?")
        conditions += [_TAGGED] * (len(tags) - 1)
    statement = (
        f"SELECT {_VALUES}, e.stream_id FROM {source} "
        f"WHERE {' AND '.join([f'{place} BETWEEN ? AND ?', *conditions])} "
        f"ORDER BY {place} {'DESC' if backwards else ''} LIMIT ?"
    )
    rows: list[Any] = []
    for low, high in ranges:
        rows += raw.execute(statement, (low, high, *tags, limit - len(rows))).fetchall()
        if len(rows) == limit:
            break
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


def _rarest_first(raw: sqlite3.Connection, tags: tuple[str, ...], first: int, last: int) -> tuple[str, ...]:
    """So that the one that few events have leads to them, and the others are looked up for these."""
    if len(tags) == 1:
        return tags
    statement = (
        "SELECT count(*) FROM (SELECT 1 FROM commons_events_tags WHERE tag = ? AND position BETWEEN ? AND ? "
        f"LIMIT {_COUNTED})"
    )
    counts = {tag: raw.execute(statement, (tag, first, last)).fetchone()[0] for tag in tags}
    return tuple(sorted(counts, key=counts.__getitem__))


def _ranges(
    raw: sqlite3.Connection, kinds: Sequence[int], first: int, last: int, backwards: bool
) -> Iterator[tuple[int, int]]:
    """The parts of the log, in order, that have all events of these kinds, and some in every block."""
    order, step = ("DESC", -1) if backwards else ("", 1)
    statement = (
        "SELECT block FROM commons_events_blocks WHERE kind_id = ? AND block BETWEEN ? AND ? "
        f"ORDER BY block {order} LIMIT {_BLOCKS}"
    )
    low, high = first // BLOCK, last // BLOCK
    while low <= high:
        # of each kind the next ones: so all up to the nearest of their ends are known
        found: set[int] = set()
        ends: list[int] = []
        for kind in kinds:
            blocks = [row[0] for row in raw.execute(statement, (kind, low, high))]
            found.update(blocks)
            if len(blocks) == _BLOCKS:
                ends.append(blocks[-1])
        end = (max(ends) if backwards else min(ends)) if ends else (low if backwards else high)
        run: list[int] = []
        for block in sorted(found, reverse=backwards):
            if (block < end) if backwards else (block > end):
                break
            if run and block != run[-1] + step:
                yield _positions(run, first, last)
                run = []
            run.append(block)
        if run:
            yield _positions(run, first, last)
        if backwards:
            high = end - 1
        else:
            low = end + 1


def _positions(run: Sequence[int], first: int, last: int) -> tuple[int, int]:
    """From the first position of blocks that lie side by side to their last one."""
    return max(first, min(run) * BLOCK), min(last, (max(run) + 1) * BLOCK - 1)
