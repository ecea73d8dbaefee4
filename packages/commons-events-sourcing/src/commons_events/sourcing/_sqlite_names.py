"""`Names`: what the numbers in the rows of SQLite's events stand for, looked up once: their streams and kinds."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from commons_events.sourcing._backend import LogQuery
from commons_events.sourcing._tables import BLOCK
from commons_events.sourcing._types import StreamId

__all__ = ["HEAD", "UNTAG", "Kind", "Names", "kinds_of"]

Kind = tuple[str, str, str, str]
"""Category, event type, schema version and format."""

HEAD = """max(coalesce((SELECT max(position) FROM commons_events_events), 0), coalesce((
  SELECT max(deleted_position) FROM commons_events_streams WHERE deleted_position IS NOT NULL), 0))"""
"""In SQL: the last position that was given to an event, be it deleted or not."""

UNTAG = """DELETE FROM commons_events_tags WHERE (tag, position) IN (
  SELECT j.value, e.position FROM commons_events_events e, json_each(e.tags) j
  WHERE e.stream_id = :stream_id AND e.tags IS NOT NULL)"""
"""In SQL: leave out a stream's events; each is looked up by its own tags, as no index is by position alone."""

_MOST = 10_000
_ID = (
    "SELECT kind_id FROM commons_events_kinds "
    "WHERE category = ? AND event_type = ? AND schema_version = ? AND format = ?"
)
_INSERT = "INSERT INTO commons_events_kinds (category, event_type, schema_version, format) VALUES (?, ?, ?, ?)"
_NOTE = "INSERT OR IGNORE INTO commons_events_blocks (kind_id, block) VALUES (?, ?)"
_KINDS = (
    "SELECT kind_id, event_type, schema_version, format FROM commons_events_kinds "
    "WHERE kind_id IN (SELECT value FROM json_each(?))"
)
_STREAMS = (
    "SELECT stream_id, id, category FROM commons_events_streams WHERE stream_id IN (SELECT value FROM json_each(?))"
)


class Names:
    """The streams and kinds that one connection has met. Their rows are only added, so what was committed stays true.

    Where a transaction may yet be rolled back by somebody else, take a new one: what it has learnt goes with it.
    """

    def __init__(self) -> None:
        self._ids: dict[Kind, int] = {}
        self._blocks: dict[int, int] = {}
        self._kinds: dict[int, tuple[str, str, str]] = {}
        self._streams: dict[int, StreamId] = {}

    def kind_id(self, cursor: sqlite3.Cursor, kind: Kind) -> int:
        """What stands for this kind, which is added where it is new; in a transaction that writes."""
        found = self._ids.get(kind)
        if found is not None:
            return found
        row = cursor.execute(_ID, kind).fetchone()
        if row is None:
            cursor.execute(_INSERT, kind)
            row = (cursor.lastrowid,)
        if len(self._ids) >= _MOST:  # categories that a program makes on and on
            self._ids.clear()
            self._blocks.clear()
        kind_id: int = row[0]
        self._ids[kind] = kind_id
        return kind_id

    def note_block(self, cursor: sqlite3.Cursor, kind_id: int, position: int) -> int:
        """Note that an event of this kind goes to this position; gives the first one behind the block of it."""
        block = position // BLOCK
        if self._blocks.get(kind_id, -1) < block:  # they rise
            cursor.execute(_NOTE, (kind_id, block))
            self._blocks[kind_id] = block
        return (block + 1) * BLOCK

    def kinds(self, raw: sqlite3.Connection, ids: set[int]) -> dict[int, tuple[str, str, str]]:
        """Type, schema version and format by what stands for them, of these ids and maybe more."""
        if not ids <= self._kinds.keys():
            if len(self._kinds) >= _MOST:
                self._kinds = {}
            rows = raw.execute(_KINDS, (json.dumps([*ids - self._kinds.keys()]),))
            self._kinds.update((row[0], row[1:]) for row in rows)
        return self._kinds

    def streams(self, raw: sqlite3.Connection, ids: set[int]) -> dict[int, StreamId]:
        """Streams' names by what stands for them, of these ids and maybe more."""
        if not ids <= self._streams.keys():
            if len(self._streams) >= _MOST:
                self._streams = {}
            rows = raw.execute(_STREAMS, (json.dumps([*ids - self._streams.keys()]),))
            self._streams.update((row[0], StreamId(row[1], row[2])) for row in rows)
        return self._streams


def kinds_of(raw: sqlite3.Connection, query: LogQuery) -> Sequence[int]:
    """The kinds that a query is for; it names types or categories."""
    conditions: list[str] = []
    parameters: list[str] = []
    for column, words in (("event_type", query.types), ("category", query.categories)):
        if words:
            conditions.append(f"{column} IN ({', '.join('?' * len(words))})")
            parameters += words
    rows = raw.execute(f"SELECT kind_id FROM commons_events_kinds WHERE {' AND '.join(conditions)}", parameters)
    return [row[0] for row in rows]
