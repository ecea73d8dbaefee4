"""Appending on PostgreSQL: one statement a batch, compare-and-set on the streams' rows, COPY for what is large.

A stream's row is moved on from the expected version to the new one; whoever finds another version there stores nothing.
So two writers cannot both succeed, and where one has to wait it waits for one row.

Positions come from a sequence. Those of several events of one append are taken under a lock that is held for just that
long, so that two appends do not mix; it is let go within the same statement, long before the transaction's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection, AsyncRawCursor

from commons_events.sourcing._group_commit import ALONE, Alone, Outcome
from commons_events.sourcing._postgres_wire import block, numbers
from commons_events.sourcing._rules import Known, conflict, deleted, find_repeat, fits, lookup
from commons_events.sourcing._tables import POSITIONS
from commons_events.sourcing._types import AppendResult, ExpectedState, PreparedAppend, PreparedEvent

__all__ = ["COPY_FROM", "write", "write_batch"]

COPY_FROM = 500
"""From so many events in one append on, COPY is quicker."""

_MOST_BYTES = 32 * 1024 * 1024
"""Of events in one statement."""

_SEPARATOR, _WITHIN = "\x1f", "\x1e"
"""Between the values of a column, and between tags. No value has them: names have no control characters, and in JSON
they are escaped. So one text stands for a whole array, and neither side has to quote anything."""
_LOCK = "hashtextextended('commons_events_position', 0)"
_SPLIT = "string_to_array(${}, E'\\x1f')"

_ALL_STREAMS = f"""
WITH want AS (
  SELECT id, coalesce(category, '') AS category, expected, count, n FROM ROWS FROM (
    unnest({_SPLIT.format(1)}), unnest({_SPLIT.format(2)}),
    unnest({_SPLIT.format(3)}::bigint[]), unnest({_SPLIT.format(4)}::bigint[])
  ) WITH ORDINALITY AS w(id, category, expected, count, n)
), old AS (
  UPDATE commons_events_streams s SET version = s.version + w.count FROM want w
  WHERE w.expected > 0 AND s.id = w.id AND s.category = w.category AND s.version = w.expected
    AND s.deleted_at IS NULL
  RETURNING s.stream_id, w.n, w.category
), new AS (
  INSERT INTO commons_events_streams (id, category, version)
  SELECT id, category, count FROM want WHERE expected = 0 ORDER BY id, category
  ON CONFLICT DO NOTHING RETURNING stream_id, id, category
), done AS (
  SELECT stream_id, n, category FROM old
  UNION ALL SELECT new.stream_id, w.n, w.category FROM new JOIN want w USING (id, category)
)"""

_STREAMS = _ALL_STREAMS.replace(
    "FROM want w\n  WHERE",
    """FROM want w
    JOIN LATERAL (
      SELECT stream_id FROM commons_events_streams
      WHERE id = w.id AND category = w.category AND version = w.expected FOR NO KEY UPDATE SKIP LOCKED
    ) free ON true
  WHERE s.stream_id = free.stream_id AND""",
)
"""Passes over streams that another writer has locked: the appends of a batch do not wait for each other's streams."""

_COLUMNS = (
    "stream_id, version, category, event_id, event_type, schema_version, format, data, data_bytes, tags, timestamp"
)

_FRESH = f"""
  SELECT d.stream_id, e.v, d.category, e.id, e.type, e.schema, e.format,
    CASE WHEN nullif(e.bytes, '') IS NULL THEN e.data::json END AS data,
    decode(substr(nullif(e.bytes, ''), 2), 'hex') AS data_bytes,
    string_to_array(nullif(e.tags, ''), E'{_WITHIN.encode("unicode_escape").decode()}') AS tags,
    e.timestamp::timestamptz AS timestamp, e.i
  FROM ROWS FROM (
    unnest({_SPLIT.format(5)}::bigint[]), unnest({_SPLIT.format(6)}::bigint[]), unnest({_SPLIT.format(7)}),
    unnest({_SPLIT.format(8)}), unnest({_SPLIT.format(9)}), unnest({_SPLIT.format(10)}), unnest({_SPLIT.format(11)}),
    unnest({_SPLIT.format(12)}), unnest({_SPLIT.format(13)}), unnest({_SPLIT.format(14)})
  ) WITH ORDINALITY AS e(n, v, id, type, schema, format, data, timestamp, tags, bytes, i)
  JOIN done d USING (n)"""

_EVENTS = f""", fresh AS ({_FRESH}
)"""

_ONE = f"""{_STREAMS}{_EVENTS}, put AS (
  INSERT INTO commons_events_events ({_COLUMNS})
  SELECT stream_id, v, category, id, type, schema, format, data, data_bytes, tags, timestamp FROM fresh
  RETURNING stream_id, position
)
SELECT done.n, put.position, put.position FROM put JOIN done USING (stream_id)"""
"""For batches in which each append has one event: what one append has cannot mix with another's."""

_PLACED = f"""{_EVENTS}, lock AS MATERIALIZED (
  SELECT pg_advisory_lock({_LOCK})::text AS locked, count FROM (SELECT count(*) FROM fresh) c
), taken AS MATERIALIZED (
  SELECT array_agg(nextval('{POSITIONS}')) AS positions FROM lock, generate_series(1, lock.count)
), free AS MATERIALIZED (
  SELECT positions, pg_advisory_unlock({_LOCK}) AS unlocked FROM taken
), put AS (
  INSERT INTO commons_events_events (position, {_COLUMNS})
  SELECT p.position, f.stream_id, f.v, f.category, f.id, f.type, f.schema, f.format, f.data, f.data_bytes, f.tags,
    f.timestamp
  FROM free, unnest(free.positions) WITH ORDINALITY AS p(position, place)
  JOIN (SELECT *, row_number() OVER (ORDER BY i) AS place FROM fresh) f USING (place)
  WHERE free.unlocked
  RETURNING stream_id, position
)
SELECT done.n, min(put.position), max(put.position) FROM put JOIN done USING (stream_id) GROUP BY done.n"""
"""The lock is taken and let go on the way to one row, that of ``free``, and nothing else leads to either of them: so
whoever asks for positions leaves no lock behind."""

_MANY = f"{_STREAMS}{_PLACED}"
_ALL = f"{_ALL_STREAMS}{_PLACED}"

_LARGE = f"""{_ALL_STREAMS}, lock AS MATERIALIZED (
  SELECT pg_advisory_lock({_LOCK})::text AS locked, count
  FROM (SELECT coalesce(sum(w.count), 0)::bigint AS count FROM done JOIN want w USING (n)) c
), taken AS MATERIALIZED (
  SELECT array_agg(nextval('{POSITIONS}')) AS positions FROM lock, generate_series(1, lock.count)
), free AS MATERIALIZED (
  SELECT positions, pg_advisory_unlock({_LOCK}) AS unlocked FROM taken
)
SELECT done.stream_id, free.positions FROM done, free WHERE free.unlocked"""

_MOVE = """WITH done AS (
  UPDATE commons_events_streams SET version = $4
  WHERE id = $1 AND category = $2 AND version = $3 AND deleted_at IS NULL
  RETURNING stream_id, category
)"""
_MAKE = """WITH done AS (
  INSERT INTO commons_events_streams (id, category, version) SELECT $1, $2, $4 WHERE $3::bigint = 0
  ON CONFLICT DO NOTHING RETURNING stream_id, category
)"""
_BYTES = "decode(substr(nullif({0}, ''), 2), 'hex')"
_TAGS = f"string_to_array(nullif({{0}}, ''), E'{_WITHIN.encode('unicode_escape').decode()}')"
_SINGLE = f"""
INSERT INTO commons_events_events ({_COLUMNS})
SELECT stream_id, $4::bigint, category, $5, $6, $7, $8, $9::json, {_BYTES.format("$10::text")},
  {_TAGS.format("$11::text")}, $12::timestamptz FROM done
RETURNING 1, position, position"""
"""One event for one stream: what most appends are, in the fewest steps."""

_SERIES = f""", lock AS MATERIALIZED (
  SELECT pg_advisory_lock({_LOCK})::text AS locked FROM done
), taken AS MATERIALIZED (
  SELECT array_agg(nextval('{POSITIONS}')) AS positions
  FROM lock, generate_series(1, $4::bigint - $3::bigint) HAVING count(*) > 0
), free AS MATERIALIZED (
  SELECT positions, pg_advisory_unlock({_LOCK}) AS unlocked FROM taken
), put AS (
  INSERT INTO commons_events_events (position, {_COLUMNS})
  SELECT free.positions[e.i], done.stream_id, $3::bigint + e.i, done.category, e.id, e.type, e.schema, {{values}},
    e.timestamp::timestamptz
  FROM done, free, ROWS FROM ({{arrays}}) WITH ORDINALITY AS e({{names}}, i)
  WHERE free.unlocked
)
SELECT 1, positions[1], positions[$4::bigint - $3::bigint] FROM free"""
_NAMES = "id, type, schema, data, timestamp"
_PLAIN = _SERIES.format(
    values="'json', e.data::json, NULL, NULL",
    arrays=", ".join(f"unnest({_SPLIT.format(n)})" for n in range(5, 10)),
    names=_NAMES,
)
"""Several events for one stream, all of them JSON without tags."""
_FULL = _SERIES.format(
    values="e.format, CASE WHEN e.bytes = '' THEN e.data::json END, "
    f"{_BYTES.format('e.bytes')}, {_TAGS.format('e.tags')}",
    arrays=", ".join(f"unnest({_SPLIT.format(n)})" for n in range(5, 13)),
    names=f"{_NAMES}, format, bytes, tags",
)
"""Several events for one stream. The lock is held and let go as in those for several streams."""

_MOVE_SINGLE, _MAKE_SINGLE = _MOVE + _SINGLE, _MAKE + _SINGLE
_MOVE_PLAIN, _MAKE_PLAIN = _MOVE + _PLAIN, _MAKE + _PLAIN
_MOVE_FULL, _MAKE_FULL = _MOVE + _FULL, _MAKE + _FULL

_STATE = "SELECT stream_id, version, deleted_at IS NOT NULL FROM commons_events_streams WHERE id = $1 AND category = $2"
_AT = """SELECT event_id, version, position FROM commons_events_events
WHERE stream_id = $1 AND version BETWEEN $2 AND $3 ORDER BY version"""
# The sum keeps the server from looking through all of the stream, as it does where it takes streams to be short.
_WITH_ID = """SELECT event_id, version, position FROM commons_events_events
WHERE stream_id + 0 = $1 AND event_id = ANY($2::text[]) ORDER BY version"""

_LATEST = 2**62
"""A version that no stream has, and that more events can be added to without leaving PostgreSQL's numbers."""
_RETRIES = 100
"""How often an append that fits any version is tried again where other writers were quicker."""

Connection = AsyncConnection[Any]


async def write_batch(connection: Connection, appends: Sequence[PreparedAppend]) -> list[Outcome | Alone]:
    """Store each of these, or say why not; what would have to wait for another writer is to be tried alone."""
    outcomes: list[Outcome | Alone] = [ALONE] * len(appends)
    left: list[tuple[int, PreparedAppend, int]] = []
    for index, append in enumerate(appends):
        if append.events and not isinstance(append.expected, ExpectedState) and append.expected <= _LATEST:
            left.append((index, append, append.expected))
        elif append.events and append.expected is ExpectedState.NO_STREAM:
            left.append((index, append, 0))
        else:
            outcomes[index] = await _place(connection, append, left, index) or ALONE
    for index, (version, first, last) in (await _store(connection, left, False)).items():
        append = appends[index]
        count = len(append.events)
        outcomes[index] = AppendResult(append.stream, version + count, version + 1, first, last)
    return outcomes


async def write(connection: Connection, appends: Sequence[PreparedAppend]) -> list[Outcome]:
    """Store each of these, or say why not; each stream comes once.

    Outside a transaction each of them is atomic by itself.
    """
    outcomes: list[Outcome | None] = [None] * len(appends)
    left: list[tuple[int, PreparedAppend, int]] = []
    for index, append in enumerate(appends):
        expected = append.expected
        if append.events and expected is ExpectedState.NO_STREAM:
            left.append((index, append, 0))
        elif append.events and not isinstance(expected, ExpectedState) and expected <= _LATEST:
            left.append((index, append, expected))
        else:
            outcomes[index] = await _place(connection, append, left, index)
    for _ in range(_RETRIES):
        if not left:
            break
        stored = await _store(connection, left, True)
        missed = [(index, append) for index, append, _ in left if index not in stored]
        for index, append, expected_version in left:
            if index in stored:
                count = len(append.events)
                _, first, last = stored[index]
                outcomes[index] = AppendResult(
                    append.stream, expected_version + count, expected_version + 1, first, last
                )
        left = []
        for index, append in missed:
            outcomes[index] = await _place(connection, append, left, index)
    for index, append, version in left:
        outcomes[index] = conflict(append.stream, append.expected, version, "other writers were always quicker")
    return [outcome for outcome in outcomes if outcome is not None]


async def _place(
    connection: Connection, append: PreparedAppend, left: list[tuple[int, PreparedAppend, int]], index: int
) -> Outcome | None:
    """Look at the stream: the outcome; or None, and in ``left`` with the version at which to try."""
    async with AsyncRawCursor(connection) as cursor:
        await cursor.execute(_STATE, append.stream, prepare=True)
        row = await cursor.fetchone()
        stream_id, version, gone = row if row is not None else (0, 0, False)
        if gone:
            return deleted(append.stream)
        ids = [event.event_id for event in append.events]
        where = lookup(append.expected, version, len(ids))
        present: list[Known] = []
        if where is not None:
            anywhere = isinstance(append.expected, ExpectedState) and append.expected is not ExpectedState.NO_STREAM
            if anywhere:
                await cursor.execute(_WITH_ID, (stream_id, ids), prepare=True)
            else:
                await cursor.execute(_AT, (stream_id, *where), prepare=True)
            present = [Known(*known) for known in await cursor.fetchall()]
    if where is not None:
        try:
            repeat = find_repeat(append.stream, append.expected, version, ids, present)
        except Exception as error:  # noqa: BLE001  # one append's failure is its own
            return error
        if repeat is not None:
            return AppendResult(
                append.stream, version, repeat[0].aggregate_version, repeat[0].position, repeat[-1].position, False
            )
    if not fits(append.expected, version):
        return conflict(append.stream, append.expected, version)
    if not ids:
        return AppendResult(append.stream, version, version + 1, 0, 0, False)
    left.append((index, append, version))
    return None


async def _store(
    connection: Connection, left: Sequence[tuple[int, PreparedAppend, int]], wait: bool
) -> dict[int, tuple[int, int, int]]:
    """Of those that fitted: the version that they followed, and the positions, first and last."""
    if not left:
        return {}
    if len(left) > 1 and len(portions := _portions(left)) > 1:
        found: dict[int, tuple[int, int, int]] = {}
        for portion in portions:
            found |= await _store(connection, portion, wait)
        return found
    if len(left) == 1 and _by_copy(left[0][1].events):
        positions = await _copy(connection, left[0][1], left[0][2])
        return {left[0][0]: (left[0][2], positions[0], positions[-1])} if positions else {}
    if len(left) == 1:
        statement, parameters = _alone(left[0][1], left[0][2])
    else:
        statement, parameters = _together(left, wait)
    rows = await numbers(connection, statement, parameters)
    return {left[n - 1][0]: (left[n - 1][2], first, last) for n, first, last in rows}


def _by_copy(events: Sequence[PreparedEvent]) -> bool:
    """Whether they go by COPY: many, or more than one parameter is to hold."""
    return len(events) >= COPY_FROM or (len(events) > 1 and sum([len(event[4]) for event in events]) > _MOST_BYTES)


def _portions(
    left: Sequence[tuple[int, PreparedAppend, int]],
) -> list[Sequence[tuple[int, PreparedAppend, int]]]:
    """The same in their order, in parts that a statement can hold: PostgreSQL takes up to 1 GB."""
    sizes = [sum([len(event[4]) for event in append.events]) for _, append, _ in left]
    if sum(sizes) <= _MOST_BYTES:
        return [left]
    portions: list[list[tuple[int, PreparedAppend, int]]] = []
    room = 0
    for one, size in zip(left, sizes, strict=True):
        room -= size
        if room < 0 or not portions:
            portions.append([])
            room = _MOST_BYTES - size
        portions[-1].append(one)
    return [*portions]


def _alone(append: PreparedAppend, expected: int) -> tuple[str, list[bytes | None]]:
    """The statement for one stream, and its parameters."""
    events = append.events
    name, last = append.stream, expected + len(events)
    parameters: list[bytes | None] = [name.id.encode(), name.category.encode(), b"%d" % expected, b"%d" % last]
    if len(events) == 1:
        event_id, event_type, schema_version, format, data, tags, timestamp = events[0]
        text, raw = (data, None) if format == "json" else (None, b"x" + data.hex().encode())
        parameters += [
            event_id.encode(), event_type.encode(), schema_version.encode(), format.encode(), text, raw,
            _WITHIN.join(tags).encode() if tags else None, timestamp.isoformat().encode(),
        ]  # fmt: skip
        return (_MOVE_SINGLE if expected else _MAKE_SINGLE), parameters
    ids, types, schemas, formats, data_of, tags_of, timestamps = zip(*events, strict=True)
    plain = set(formats) == {"json"} and not any(tags_of)
    join = _SEPARATOR.join
    parameters += [
        join(ids).encode(), join(types).encode(), join(schemas).encode(),
        b"\x1f".join(data_of) if plain else _json(events, True).encode(),
        join([timestamp.isoformat() for timestamp in timestamps]).encode(),
    ]  # fmt: skip
    if plain:
        return (_MOVE_PLAIN if expected else _MAKE_PLAIN), parameters
    parameters += [join(formats).encode(), _hex(events).encode(), join(map(_WITHIN.join, tags_of)).encode()]
    return (_MOVE_FULL if expected else _MAKE_FULL), parameters


def _together(left: Sequence[tuple[int, PreparedAppend, int]], wait: bool) -> tuple[str, list[bytes | None]]:
    """The statement for several streams, and its parameters."""
    join = _SEPARATOR.join
    streams = [
        join([append.stream.id for _, append, _ in left]),
        join([append.stream.category for _, append, _ in left]),
        join([str(expected) for _, _, expected in left]),
        join([str(len(append.events)) for _, append, _ in left]),
    ]
    events = [event for _, append, _ in left for event in append.events]
    places = [str(n) for n, (_, append, _) in enumerate(left, 1) for _ in append.events]
    versions = [str(expected + v) for _, append, expected in left for v in range(1, len(append.events) + 1)]
    single = len(events) == len(left)
    columns = [*streams, *_arrays(events, places, versions)]
    return _ALL if wait else _ONE if single else _MANY, [
        None if column is None else column.encode() for column in columns
    ]


def _arrays(events: Sequence[PreparedEvent], places: list[str], versions: list[str]) -> list[str | None]:
    """The events' columns, each as one text."""
    join = _SEPARATOR.join
    binary = any(event.format != "json" for event in events)
    return [
        join(places),
        join(versions),
        join([event[0] for event in events]),
        join([event[1] for event in events]),
        join([event[2] for event in events]),
        join([event[3] for event in events]),
        _json(events, binary),
        join([event[6].isoformat() for event in events]),
        join([_WITHIN.join(event[5]) for event in events]) if any(event[5] for event in events) else None,
        _hex(events) if binary else None,
    ]


def _hex(events: Sequence[PreparedEvent]) -> str:
    """Those that are not JSON, each after an x."""
    return _SEPARATOR.join(["" if event.format == "json" else "x" + event.data.hex() for event in events])


def _json(events: Sequence[PreparedEvent], binary: bool) -> str:
    if binary:
        return _SEPARATOR.join([event.data.decode() if event.format == "json" else "" for event in events])
    return b"\x1f".join([event[4] for event in events]).decode()


async def _copy(connection: Connection, append: PreparedAppend, expected: int) -> list[int] | None:
    """Many events of one stream, by COPY; None where the stream is not at this version."""
    async with block(connection), AsyncRawCursor(connection) as cursor:
        # as an insert would hold it from before it takes a position: see the reader's rule
        await cursor.execute("LOCK TABLE commons_events_events IN ROW EXCLUSIVE MODE")
        name = append.stream
        parameters = (name.id, name.category, str(expected), str(len(append.events)))
        await cursor.execute(_LARGE, parameters, prepare=True, binary=True)
        row = await cursor.fetchone()
        if row is None:
            return None
        stream_id, positions = row
        async with cursor.copy(f"COPY commons_events_events (position, {_COLUMNS}) FROM STDIN") as copy:
            for at, (position, event) in enumerate(zip(positions, append.events, strict=True), expected + 1):
                as_json = event.format == "json"
                await copy.write_row(
                    (
                        position, stream_id, at, name.category, event.event_id, event.event_type, event.schema_version,
                        event.format, event.data.decode() if as_json else None, None if as_json else event.data,
                        list(event.tags) or None, event.timestamp,
                    )
                )  # fmt: skip
        found: list[int] = positions
        return found
