"""Reading on PostgreSQL, without gaps.

Positions come from a sequence, and transactions commit in another order: a reader that sees 7 may yet be given 6 later.
So it is told up to which position the log is settled, and goes no further. The rule:

1. Read the highest position that is stored: h. A sequence only rises: whoever has one up to h has taken it by now.
2. After that, list the transactions that hold a ``ROW EXCLUSIVE`` lock on the events' table: W.
3. When all of W have ended, no position up to h can come any more: h is settled.

Why this is right: PostgreSQL gives every statement that inserts (INSERT, COPY) this lock before it is executed, so
before it takes a position, and lets it go only at the end of its transaction, after what it committed is visible. A
transaction that took a position up to h had therefore the lock at step 1 at the latest; if it is not in W it has ended
before step 2, and if it is, step 3 waits for it. What is read after that sees what it committed; what it did not is
never coming: a position that nobody has is a hole that readers pass. No row has to carry anything for it, an hour-long
transaction on other tables holds nobody back, and whoever inserts by hand is under the same rule.

A killed server forgets the positions that were taken, but not yet logged, and gives them out again. Those up to h it
does not forget: what can be seen is committed, and a commit takes to the disk all that was logged before it, so also
that positions up to its own are taken. This is why h is not what the sequence says. Nor is it ever higher than that,
which matters where somebody stores a position that did not come from the sequence. Behind the last stored event there
is no hole to pass. (With ``synchronous_commit=off`` an event is seen before it is on the disk: it may be lost, and its
position be given to another one.)

A prepared transaction (two-phase commit) shows under another name than before; while there is one, it counts as in W.
Where the positions follow each other without a hole from what is settled, nothing has to be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg import AsyncConnection, AsyncRawCursor

from commons_events.errors import CapabilityError
from commons_events.sourcing._backend import LogPage, LogQuery
from commons_events.sourcing._sql import as_utc
from commons_events.sourcing._tables import POSITIONS
from commons_events.sourcing._types import StoredEvent, StoredSnapshot, StreamId

__all__ = ["Watermark", "fetch_from_snapshot", "fetch_log", "fetch_snapshot", "fetch_stream"]

_VALUES = (
    "e.position, e.version, e.event_id, e.event_type, e.schema_version, e.format, e.data, e.data_bytes, e.tags, "
    "e.timestamp, e.recorded_at"
)
_STREAM = f"""SELECT {_VALUES} FROM commons_events_events e
WHERE stream_id = (SELECT stream_id FROM commons_events_streams WHERE id = $1 AND category = $2)
  AND version BETWEEN $3 AND $4 ORDER BY version"""
_LENGTH = "SELECT version FROM commons_events_streams WHERE id = $1 AND category = $2"
_PAGE = f"""SELECT {_VALUES}, ({_LENGTH}) FROM commons_events_events e
WHERE stream_id = (SELECT stream_id FROM commons_events_streams WHERE id = $1 AND category = $2) AND version """
_PAGE_ON = f"{_PAGE} BETWEEN $3 AND $4 ORDER BY e.version"
# psycopg sends small numbers as smallint, whose sums are smallint, too
_PAGE_BACK = (
    f"{_PAGE} BETWEEN greatest($3::bigint, least($4::bigint, ({_LENGTH})) - $5::bigint + 1) AND $4 "
    "ORDER BY e.version DESC"
)
_HIGHEST = f"""SELECT least(
  (SELECT coalesce(max(position), 0) FROM commons_events_events), CASE WHEN is_called THEN last_value ELSE 0 END
), pg_is_in_recovery() FROM {POSITIONS}"""
_WRITERS = """SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND relation = 'commons_events_events'::regclass AND mode = 'RowExclusiveLock'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
_PREPARED = "-1/"
"""What the name of a prepared transaction begins with in pg_locks."""
_MANY = 2**40
"""A limit that is none."""

Connection = AsyncConnection[Any]


class Sight(NamedTuple):
    """What was known when a reader began to look."""

    settled: int
    stored: int
    recorded: int
    """Counts which transactions are waited for."""


class Watermark:
    """Up to which position the log is settled, as far as this process knows; its readers look side by side."""

    def __init__(self) -> None:
        self.settled = 0
        self.stored = 0
        self._high = 0
        self._writers: frozenset[str] | None = None
        self._recorded = 0

    @property
    def held_back(self) -> bool:
        """Whether events are stored that are not settled."""
        return self.stored > self.settled

    def begin(self) -> Sight:
        """To be called before the steps are sent."""
        return Sight(self.settled, self.stored, self._recorded)

    def observe(self, sight: Sight, highest: int, writers: frozenset[str]) -> int:
        """Take the answers of steps 1 and 2, asked in this order, after ``sight``.

        Returns:
            up to which position this reader has seen all, if it read the events after asking. What another reader has
            found out meanwhile does not count: it may have committed after this one read.
        """
        highest = max(highest, sight.stored)  # the stream of that event may be deleted since
        self.stored = max(self.stored, highest)
        edge = sight.settled
        if not writers:
            self.settled = max(self.settled, highest)
            if sight.recorded == self._recorded:
                self._writers = None
            return max(edge, highest)
        if sight.recorded != self._recorded:  # those waited for are of a later time: here they may not have begun yet
            return edge
        if self._writers is not None and not any(
            writer in self._writers or writer.startswith(_PREPARED) for writer in writers
        ):
            edge = max(edge, self._high)
            self.settled = max(self.settled, edge)
            self._writers = None
        if self._writers is None:
            self._high, self._writers = highest, writers
            self._recorded += 1
        return edge

    def accept(self, events: Sequence[StoredEvent], edge: int, whole: bool) -> tuple[int, int]:
        """How many of these events a reader may have, and up to which position it then has all.

        Args:
            events: what was read, in order, after it asked.
            edge: what `observe` gave.
            whole: no filter was asked for, so that a missing position is a hole.
        """
        count = 0
        for stored in events:
            if stored.position > edge:
                if not whole or stored.position != edge + 1:
                    break
                edge = stored.position
            count += 1
        self.settled = max(self.settled, edge)  # what is given out is not to be waited for again
        return count, edge


async def fetch_stream(
    connection: Connection, stream: StreamId, first: int, last: int, limit: int, backwards: bool
) -> list[StoredEvent]:
    """See `Backend.fetch_stream`."""
    if limit >= _MANY:
        return await _fetch(connection, _STREAM + (" DESC" if backwards else ""), stream, first, last)
    # The versions say where a page ends. Told only how many rows are wanted, the server reads and sorts all of a long
    # stream for each page wherever it takes streams to be short.
    first = max(first, 1)
    async with AsyncRawCursor(connection) as cursor:
        if backwards:
            await cursor.execute(_PAGE_BACK, (*stream, first, last, limit), prepare=True, binary=True)
        else:
            await cursor.execute(_PAGE_ON, (*stream, first, min(last, first + limit - 1)), prepare=True, binary=True)
        rows = await cursor.fetchall()
    events = _made(rows, stream)
    if len(rows) == limit:
        return events
    if rows:
        length: int = rows[0][-1]
        if backwards:
            last = min(last, length) - limit
        else:
            first, last = first + limit, min(last, length)
        if first > last:
            return events
    # there are none, or some are missing in between, such as a part of the table that was put away
    statement = f"{_STREAM} {'DESC' if backwards else ''} LIMIT {limit - len(rows)}"
    return events + await _fetch(connection, statement, stream, first, last)


async def _fetch(connection: Connection, statement: str, stream: StreamId, first: int, last: int) -> list[StoredEvent]:
    async with AsyncRawCursor(connection) as cursor:
        await cursor.execute(statement, (*stream, first, last), prepare=True, binary=True)
        return await _events_of(cursor, stream)


async def _events_of(cursor: AsyncRawCursor[Any], stream: StreamId) -> list[StoredEvent]:
    return _made(await cursor.fetchall(), stream)


def _made(rows: Sequence[Sequence[Any]], stream: StreamId) -> list[StoredEvent]:
    make = StoredEvent._make
    return [
        make((a, stream, b, c, d, e, f, g if g is not None else h, tuple(i) if i else (), j, k))
        for a, b, c, d, e, f, g, h, i, j, k, *_ in rows
    ]


_SNAPSHOT = """SELECT version, schema_version, data, taken_at FROM commons_events_snapshots
WHERE id = $1 AND category = $2 AND kind = $3 AND version <= $4"""
_FROM_SNAPSHOT = f"""SELECT {_VALUES} FROM commons_events_events e
WHERE stream_id = (SELECT stream_id FROM commons_events_streams WHERE id = $1 AND category = $2)
  AND version >= coalesce((SELECT version FROM ({_SNAPSHOT}) s), 0) AND version <= $4 ORDER BY version LIMIT $5"""


async def _snapshot_of(cursor: AsyncRawCursor[Any], stream: StreamId, kind: str) -> StoredSnapshot | None:
    row = await cursor.fetchone()
    if row is None:
        return None
    version, schema_version, data, taken_at = row
    return StoredSnapshot(
        stream=stream, version=version, kind=kind, schema_version=schema_version, data=data, taken_at=as_utc(taken_at)
    )


async def fetch_snapshot(connection: Connection, stream: StreamId, kind: str, at_most: int) -> StoredSnapshot | None:
    """See `Backend.snapshot`."""
    async with AsyncRawCursor(connection) as cursor:
        await cursor.execute(_SNAPSHOT, (*stream, kind, at_most), prepare=True, binary=True)
        return await _snapshot_of(cursor, stream, kind)


async def fetch_from_snapshot(
    connection: Connection, stream: StreamId, kind: str, last: int, limit: int
) -> tuple[StoredSnapshot | None, list[StoredEvent]]:
    """See `Backend.fetch_from_snapshot`; one round trip."""
    async with (
        connection.pipeline(),
        AsyncRawCursor(connection) as snapshots,
        AsyncRawCursor(connection) as events,
    ):
        await snapshots.execute(_SNAPSHOT, (*stream, kind, last), prepare=True, binary=True)
        await events.execute(_FROM_SNAPSHOT, (*stream, kind, last, limit), prepare=True, binary=True)
        return await _snapshot_of(snapshots, stream, kind), await _events_of(events, stream)


def _log_statement(query: LogQuery, limit: int, backwards: bool) -> tuple[str, list[Any]]:
    """The statement and its parameters after the first two, which are the positions.

    Several types (or categories) are one index scan each, merged: a list of words in one condition would make the
    database choose between reading the whole log and sorting all that fits.
    """
    parameters: list[Any] = []

    def number(value: Any) -> str:
        parameters.append(value)
        return f"${len(parameters) + 2}"

    # One bound: of two, the database thinks that few rows lie between them, and sorts all that do.
    conditions, rest = ("position <= $2", "position >= $1") if backwards else ("position >= $1", "position <= $2")
    if query.tags:
        conditions, rest = "position BETWEEN $1 AND $2", "true"
        conditions += f" AND tags @> {number(list(query.tags))}::text[]"
    leading, words = ("event_type", query.types) if query.types else ("category", query.categories)
    if query.types and query.categories:
        conditions += f" AND category = ANY({number(list(query.categories))}::text[])"
    way = " DESC" if backwards else ""
    order = f"ORDER BY position{way} LIMIT {limit:d}"
    if len(words) > _MOST_SCANS:
        parts = [f"{conditions} AND {leading} = ANY({number(list(words))}::text[])"]
    elif words:
        parts = [f"{conditions} AND {leading} = {number(word)}" for word in dict.fromkeys(words)]
    else:
        parts = [conditions]
    scans = " UNION ALL ".join(f"(SELECT * FROM commons_events_events WHERE {part} {order})" for part in parts)
    return (
        f"SELECT {_VALUES}, s.id, s.category FROM (SELECT * FROM ({scans}) a {order}) e "
        f"JOIN commons_events_streams s USING (stream_id) WHERE {rest} ORDER BY e.position{way}",
        parameters,
    )


_MOST_SCANS = 16


async def _events(
    cursor: AsyncRawCursor[Any], query: LogQuery, first: int, last: int, limit: int, backwards: bool
) -> None:
    statement, parameters = _log_statement(query, limit, backwards)
    await cursor.execute(statement, [first, last, *parameters], prepare=True, binary=True)


async def _stored(cursor: AsyncRawCursor[Any]) -> list[StoredEvent]:
    make = StoredEvent._make
    rows = await cursor.fetchall()
    streams = {name: StreamId._make(name) for name in {row[11:] for row in rows}}
    return [
        make((a, streams[m, n], b, c, d, e, f, g if g is not None else h, tuple(i) if i else (), j, k))
        for a, b, c, d, e, f, g, h, i, j, k, m, n in rows
    ]


async def fetch_log(
    connection: Connection,
    watermark: Watermark,
    query: LogQuery,
    first: int,
    last: int,
    limit: int,
    backwards: bool,
) -> LogPage:
    """See `Backend.fetch_log`."""
    async with AsyncRawCursor(connection) as cursor:
        if backwards:
            await _events(cursor, query, first, last, limit, backwards)
            return LogPage(await _stored(cursor), watermark.settled)
        known = min(last, watermark.settled)
        events: list[StoredEvent] = []
        if first <= known:
            await _events(cursor, query, first, known, limit, False)
            events = await _stored(cursor)
            if len(events) == limit:
                return LogPage(events, events[-1].position)
            if known == last:
                return LogPage(events, known)
            first = known + 1
    sight = watermark.begin()
    async with (
        connection.pipeline(),
        AsyncRawCursor(connection) as highest,
        AsyncRawCursor(connection) as writers,
        AsyncRawCursor(connection) as cursor,
    ):
        await highest.execute(_HIGHEST, prepare=True)
        await writers.execute(_WRITERS, prepare=True)
        await _events(cursor, query, first, last, limit, False)  # one text, whatever is missing
        row = await highest.fetchone()
        held = frozenset([name for (name,) in await writers.fetchall()])
        more = await _stored(cursor)
    if row and row[1]:
        raise CapabilityError(
            "This server is a standby, which does not show who is writing on the primary one, so a reader of the log "
            "could miss events. Read it from the primary; with several hosts, by target_session_attrs=read-write."
        )
    count, edge = watermark.accept(more, watermark.observe(sight, row[0] if row else 0, held), not any(query))
    events += more[: min(count, limit - len(events))]
    if len(events) == limit:
        return LogPage(events, events[-1].position)
    return LogPage(events, max(min(last, edge), first - 1))
