"""Appending on SQLite; what is here runs in the writer's thread, within a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from commons_events.sourcing._group_commit import Outcome
from commons_events.sourcing._rules import Known, conflict, deleted, find_repeat, fits, lookup
from commons_events.sourcing._sqlite_names import HEAD, Kind, Names
from commons_events.sourcing._types import AppendResult, ExpectedState, PreparedAppend

__all__ = ["BY_ID", "BY_VERSION", "STATE", "write"]

STATE = f"""SELECT s.stream_id,
  coalesce((SELECT max(version) FROM commons_events_events WHERE stream_id = s.stream_id), 0),
  s.deleted_at IS NOT NULL, {HEAD}
FROM (SELECT 1) LEFT JOIN commons_events_streams s ON s.id = ? AND s.category = ?"""
"""Of a stream: what stands for it, NULL where it does not exist; its version; whether it was deleted. And the head."""
_KNOWN = "SELECT event_id, version, position FROM commons_events_events WHERE "
# the plus keeps SQLite from looking through all of the stream
BY_ID = f"{_KNOWN} event_id = ? AND +stream_id = ?"
BY_VERSION = f"{_KNOWN} stream_id = ? AND version BETWEEN ? AND ? ORDER BY version"
_COLUMNS = "position, stream_id, version, kind_id, event_id, data, data_bytes, tags, timestamp, recorded_at"
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_AT_ONCE = 64
"""Rows of one statement: each statement costs as much as some rows. Its text is made for 1, 2, 4, 8 … rows alone."""
_INSERTS = {
    count: f"INSERT INTO commons_events_events ({_COLUMNS}) VALUES {', '.join([_ROW] * count)}"
    for count in (2**power for power in range(_AT_ONCE.bit_length()))
}


def write(raw: sqlite3.Connection, appends: Sequence[PreparedAppend], names: Names, now: datetime) -> list[Outcome]:
    """Store each, or say why not; one that fails has written nothing of its events."""
    cursor = raw.cursor()
    recorded_at = now.isoformat(" ")
    outcomes: list[Outcome] = []
    for append in appends:
        before = raw.total_changes
        try:
            outcomes.append(_write_one(cursor, append, recorded_at, names))
        except sqlite3.Error:
            raise
        except Exception as error:
            if raw.total_changes != before:  # half of it is written: all is to be rolled back
                raise
            outcomes.append(error)  # one append's failure is its own
    return outcomes


def _write_one(cursor: sqlite3.Cursor, append: PreparedAppend, recorded_at: str, names: Names) -> AppendResult:
    stream, events, expected = append
    stream_id, version, gone, head = cursor.execute(STATE, stream).fetchone()
    if gone:
        raise deleted(stream)
    if expected != version and (where := lookup(expected, version, len(events))) is not None:
        ids = [event.event_id for event in events]
        present = _known(cursor, stream_id or 0, where, ids, expected)
        repeat = find_repeat(stream, expected, version, ids, present)
        if repeat is not None:
            return AppendResult(
                stream, version, repeat[0].aggregate_version, repeat[0].position, repeat[-1].position, False
            )
    if not fits(expected, version):
        raise conflict(stream, expected, version)
    if not events:
        return AppendResult(stream, version, version + 1, 0, 0, False)
    if stream_id is None:
        cursor.execute("INSERT INTO commons_events_streams (id, category) VALUES (?, ?)", stream)
        stream_id = cursor.lastrowid
    category = stream.category
    values: list[object] = []
    kind: Kind | None = None
    kind_id = block_end = 0
    tagged: list[tuple[str, int]] = []
    at, position = version, head
    for event_id, event_type, schema_version, format, data, tags, timestamp in events:
        at += 1
        position += 1
        if kind is None or kind[1] != event_type or kind[2] != schema_version or kind[3] != format:
            kind = (category, event_type, schema_version, format)
            kind_id = names.kind_id(cursor, kind)
            block_end = 0
        if position >= block_end:
            block_end = names.note_block(cursor, kind_id, position)
        json_text, raw_bytes = (data.decode(), None) if format == "json" else (None, data)
        tags_text = None
        if tags:
            tags_text = json.dumps(tags, ensure_ascii=False)
            tagged += [(tag, position) for tag in tags]
        values += (
            position, stream_id, at, kind_id, event_id, json_text, raw_bytes, tags_text, timestamp.isoformat(" "),
            recorded_at,
        )  # fmt: skip
    _insert(cursor, values, len(events))
    if tagged:
        cursor.executemany("INSERT INTO commons_events_tags (tag, position) VALUES (?, ?)", tagged)
    return AppendResult(stream, at, version + 1, head + 1, position)


def _insert(cursor: sqlite3.Cursor, values: list[object], count: int) -> None:
    """Store these rows, their values one after the other."""
    start, size, width = 0, _AT_ONCE, len(values) // count
    while start < count:
        while size > count - start:
            size //= 2
        cursor.execute(_INSERTS[size], values[start * width : (start + size) * width])
        start += size


def _known(
    cursor: sqlite3.Cursor, stream_id: int, where: tuple[int, int], ids: Sequence[str], expected: object
) -> list[Known]:
    if isinstance(expected, ExpectedState) and expected is not ExpectedState.NO_STREAM:
        found: list[Known] = []
        for event_id in dict.fromkeys(ids):
            found += [Known(*row) for row in cursor.execute(BY_ID, (event_id, stream_id))]
        return sorted(found, key=lambda known: known.aggregate_version)
    return [Known(*row) for row in cursor.execute(BY_VERSION, (stream_id, *where))]
