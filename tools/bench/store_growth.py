"""What an append costs as the store grows: from ten thousand stored events to ten million."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from commons_events.sourcing import EventStore
from commons_events.sourcing._tables import BLOCK
from tools.bench.measure import Effort, LeftOutError, Table, at_most
from tools.bench.store import SIZES, append, folder, item, run, server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commons_events.testing.services import RunningPostgres

LIBRARIES = ("psycopg", "SQLAlchemy")
STORED = (10_000, 1_000_000, 10_000_000)
LARGE = "COMMONS_EVENTS_BENCH_LARGE"
COUNTS = {1: 600, 10: 150, 100: 60}
A_STREAM = 100
"""Events of a stream."""

growth = Table(
    "store-growth",
    "Appending on PostgreSQL as the store grows, µs an event, by events in a transaction",
    "The rows are how many events are stored before, 100 in a stream, in a database each.",
    *(f"{size} a tx" for size in SIZES),
)

growth_sqlite = Table(
    "store-growth-sqlite",
    "Appending on SQLite as the store grows, µs an event, by events in a transaction",
    "The rows are how many events are stored before, 100 in a stream, in a file each; synchronous=FULL.",
    *(f"{size} a tx" for size in SIZES),
)

_FILL = (
    """INSERT INTO commons_events_streams (id, category, version)
    SELECT 'filled-' || s, 'Basket', {a_stream} FROM generate_series(1, {count} / {a_stream}) s""",
    """INSERT INTO commons_events_events (position, stream_id, version, category, event_id, event_type, schema_version,
      format, data, timestamp)
    SELECT g, f.low + (g - 1) / {a_stream}, (g - 1) % {a_stream} + 1, 'Basket',
      lpad(to_hex(g), 12, '0') || '-' || left(md5(g::text), 23), 'bench.item_added', '1.0.0', 'json', $1::json, now()
    FROM generate_series(1, {count}) g, (SELECT min(stream_id) AS low FROM commons_events_streams) f""",
    "SELECT setval('commons_events_events_position_seq', {count})",
)


_NUMBERS = "WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < :count{per})"
_FILL_SQLITE = (
    f"""{_NUMBERS.format(per=" / :a_stream")}
    INSERT INTO commons_events_streams (stream_id, id, category) SELECT n, 'filled-' || n, 'Basket' FROM g""",
    """INSERT INTO commons_events_kinds (kind_id, category, event_type, schema_version, format)
    VALUES (1, 'Basket', 'bench.item_added', '1.0.0', 'json')""",
    f"""{_NUMBERS.format(per=" / :a_block")}
    INSERT INTO commons_events_blocks (kind_id, block) SELECT 1, n - 1 FROM g""",
    "INSERT OR IGNORE INTO commons_events_blocks (kind_id, block) VALUES (1, :count / :a_block)",
    f"""{_NUMBERS.format(per="")}
    INSERT INTO commons_events_events (position, stream_id, version, kind_id, event_id, data, timestamp, recorded_at)
    SELECT n, (n - 1) / :a_stream + 1, (n - 1) % :a_stream + 1, 1,
      printf('%08x-%04x-7%03x-8%03x-%012x', n / 65536, n % 65536, n % 4096, n % 999, n), :data, :now, :now FROM g""",
)


@cache
def filled_sqlite(count: int) -> EventStore:
    """A store in a file with so many events."""
    path = folder() / f"grown-{count}.db"
    run(_make(f"sqlite:///{path}"))
    data, now = item(1).to_json().decode(), "2026-01-02 00:00:00.000000+00:00"
    given = {"count": count, "a_stream": A_STREAM, "a_block": BLOCK, "data": data, "now": now}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master "
            "WHERE type = 'index' AND tbl_name = 'commons_events_events' AND sql IS NOT NULL"
        ).fetchall()
        for index, _ in indexes:  # to make them afterwards is quicker
            connection.execute(f"DROP INDEX {index}")
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -256000"):
            connection.execute(f"PRAGMA {setting}")
        for statement in _FILL_SQLITE:
            connection.execute(statement, given)
        for _, definition in indexes:
            connection.execute(definition)
    with path.open("rb") as file:
        os.fsync(file.fileno())  # or the first appends wait for what is still on its way to the disk
    store = EventStore(f"sqlite:///{path}")
    run(_open(store))
    return store


@cache
def filled(count: int) -> EventStore:
    """A store with so many events."""
    import psycopg
    from psycopg import RawCursor

    from commons_events.testing.services import shared

    server()  # says why where there is none
    postgres = cast("RunningPostgres", shared.get("postgres"))
    name = postgres.unique("growth")
    with psycopg.connect(postgres.address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    store = EventStore(postgres.url_of(name))
    run(_open(store))
    data = item(1).to_json().decode()
    with psycopg.connect(postgres.url_of(name), autocommit=True) as connection, RawCursor(connection) as cursor:
        cursor.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'commons_events_events'")
        indexes = [row for row in cursor.fetchall() if "UNIQUE" not in row[1]]
        for index, _ in indexes:  # to make them afterwards is quicker
            cursor.execute(f"DROP INDEX {index}".encode())
        for statement in _FILL:
            given: Sequence[str] = [data] if "$1" in statement else []
            cursor.execute(statement.format(count=count, a_stream=A_STREAM).encode(), given)
        for _, definition in indexes:
            cursor.execute(definition.encode())
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")
    return store


async def _make(url: str) -> float:
    async with EventStore(url):
        return 0.0


async def _open(store: EventStore) -> float:
    await store.open()
    return 0.0


def costs(count: int, fill: Callable[[int], EventStore]) -> Callable[[Effort], dict[str, float]]:
    def measure(effort: Effort) -> dict[str, float]:
        if count == max(STORED) and not os.environ.get(LARGE):
            raise LeftOutError(f"it takes minutes and 10 GB of disk; set {LARGE}=1 for it")
        if count == 1_000_000 and effort.quick:
            raise LeftOutError("it takes a minute; leave --quick out")
        store = fill(count)
        return {f"{size} a tx": run(append("", effort.count(COUNTS[size]), size, uuid4().hex, store)) for size in SIZES}

    return measure


for _count in STORED:
    _targets = [] if _count == STORED[0] else [at_most(1.25, f"{STORED[0]:,}", metric=f"{n} a tx") for n in SIZES]
    growth.contender(f"{_count:,}", *_targets)(costs(_count, filled))
    growth_sqlite.contender(f"{_count:,}", *_targets)(costs(_count, filled_sqlite))

TABLES = (growth, growth_sqlite)
