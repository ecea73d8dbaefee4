"""The event store: ours beside eventsourcing and a bare psycopg or sqlite3, on one server and with the same durability.

A PostgreSQL of its own is started, with fsync off, or the one that COMMONS_EVENTS_TEST_POSTGRES names is used; SQLite's
files lie in the temporary folder, in WAL mode with synchronous=FULL.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

from commons_events import Event
from commons_events.sourcing import EventStore
from tools.bench.measure import Effort, LeftOutError, Table, at_most

if TYPE_CHECKING:
    from commons_events.testing.services import RunningPostgres

LIBRARIES = ("eventsourcing", "psycopg", "SQLAlchemy")
NOTE = "customer asked for gift wrapping and a card, deliver to the back door"
SIZES = (1, 10, 100)
WRITERS = (1, 4, 16)
APPENDS = {1: 400, 10: 150, 100: 40}

OURS = "ours"
BARE = "bare psycopg, execute/executemany"
BARE_SQLITE = "bare sqlite3, one thread"
APPLICATION = "eventsourcing application and aggregate"
FUNCTIONS = "eventsourcing recorder, database functions"


class ItemAdded(Event):
    event_type = "bench.item_added"
    sku: str
    name: str
    qty: int
    price: float
    note: str


def item(number: int) -> ItemAdded:
    return ItemAdded(sku=f"SKU-{number:06d}", name="Blue widget, large", qty=number % 7 + 1, price=19.99, note=NOTE)


def table(key: str, title: str, note: str, *metrics: str) -> Table:
    return Table(key, title, note, *metrics)


_NOTE = "Events with 5 fields and the envelope, into one new stream, with the expected version."
postgres_append = table(
    "store-postgres-append",
    "Appending on PostgreSQL, µs an event, by events in a transaction",
    _NOTE,
    *(f"{size} a tx" for size in SIZES),
)
sqlite_append = table(
    "store-sqlite-append",
    "Appending on SQLite, µs an event, by events in a transaction",
    f"{_NOTE} One saver; the table of concurrent savers has the rest.",
    *(f"{size} a tx" for size in SIZES),
)
postgres_writers = table(
    "store-postgres-writers",
    "Concurrent savers on PostgreSQL, one event a transaction, µs an event",
    "Each into a stream of its own: tasks of one process, or threads with a connection each.",
    *(f"{count} savers" for count in WRITERS),
)
sqlite_writers = table(
    "store-sqlite-writers",
    "Concurrent savers on SQLite, one event a transaction, µs an event",
    "As above.",
    *(f"{count} savers" for count in WRITERS),
)
sqlite_batches = table(
    "store-sqlite-batches",
    "Concurrent savers on SQLite, 10 and 100 events a transaction, µs an event",
    "As above; ours write several savers' appends in one transaction where they wait for each other.",
    *(f"{size} a tx, {count} savers" for size in SIZES[1:] for count in WRITERS[1:]),
)
catch_up = table(
    "store-catch-up",
    "Catching up with a subscription, µs an event",
    "Stored events, not decoded, from the first position on.",
    "PostgreSQL",
    "SQLite",
)

# --- places ----------------------------------------------------------------------------------------------------

_loop = asyncio.new_event_loop()


def run(work: Coroutine[Any, Any, float]) -> float:
    return _loop.run_until_complete(work)


@cache
def server() -> str:
    """The address of an empty database; it goes with this process."""
    from commons_events.testing.services import ServiceUnavailableError, shared

    try:
        postgres = shared.get("postgres")
    except ServiceUnavailableError as error:
        raise LeftOutError(str(error)) from error
    import psycopg

    name = postgres.unique("bench")
    with psycopg.connect(postgres.address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return cast("RunningPostgres", postgres).url_of(name)


@cache
def folder() -> Path:
    made = tempfile.mkdtemp(prefix="bench-store-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)  # the grown stores have gigabytes
    return Path(made)


@cache
def store(kind: str) -> EventStore:
    url = server() if kind == "postgres" else f"sqlite:///{folder() / 'ours.db'}"
    return EventStore(url)


# --- ours ------------------------------------------------------------------------------------------------------


async def append(kind: str, count: int, size: int, stream: str, to: EventStore | None = None) -> float:
    target = await (to or store(kind)).open()
    start = perf_counter()
    for version in range(0, count * size, size):
        await target.append(stream, [item(version + n) for n in range(size)], expected=version)
    return (perf_counter() - start) / count / size * 1e6


async def savers(kind: str, count: int, writers: int, size: int = 1) -> float:
    await store(kind).open()
    start = perf_counter()
    await asyncio.gather(*(append(kind, count // writers, size, uuid4().hex) for _ in range(writers)))
    return (perf_counter() - start) / (count // writers * writers) / size * 1e6


def ours_appends(kind: str) -> Callable[[Effort], dict[str, float]]:
    def measure(effort: Effort) -> dict[str, float]:
        return {f"{n} a tx": run(append(kind, effort.count(APPENDS[n]), n, uuid4().hex)) for n in SIZES}

    return measure


def ours_savers(kind: str) -> Callable[[Effort], dict[str, float]]:
    def measure(effort: Effort) -> dict[str, float]:
        return {f"{n} savers": run(savers(kind, max(effort.count(640), n), n)) for n in WRITERS}

    return measure


def in_batches(work: Callable[[int, int, int], float]) -> Callable[[Effort], dict[str, float]]:
    """Of concurrent savers, each metric: given how many transactions, how many savers, and how many events in each."""
    return lambda effort: {
        f"{size} a tx, {n} savers": work(max(effort.count(APPENDS[size]) * 2, n), n, size)
        for size in SIZES[1:]
        for n in WRITERS[1:]
    }


# --- bare ------------------------------------------------------------------------------------------------------

_BARE = """CREATE TABLE IF NOT EXISTS bare (
position {key}, stream text NOT NULL, version int NOT NULL, type text NOT NULL,
data {json} NOT NULL, recorded_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP, UNIQUE (stream, version))"""


def row(stream: str, version: int) -> tuple[str, int, str, str]:
    return stream, version, "bench.item_added", item(version).to_json().decode()


def bare_postgres(count: int, size: int) -> float:
    import psycopg

    statement = "INSERT INTO bare (stream, version, type, data) VALUES (%s, %s, %s, %s)"
    with psycopg.connect(server()) as connection:
        stream = uuid4().hex
        start = perf_counter()
        for version in range(0, count * size, size):
            rows = [row(stream, version + n) for n in range(size)]
            with connection.cursor() as cursor:
                if size == 1:
                    cursor.execute(statement, rows[0], prepare=True)
                else:
                    cursor.executemany(statement, rows)
            connection.commit()
        return (perf_counter() - start) / count / size * 1e6


def bare_sqlite(count: int, size: int) -> float:
    statement = "INSERT INTO bare (stream, version, type, data) VALUES (?, ?, ?, ?)"
    with contextlib.closing(sqlite3.connect(folder() / "bare.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(_BARE.format(key="INTEGER PRIMARY KEY AUTOINCREMENT", json="text", time="text"))
        stream = uuid4().hex
        start = perf_counter()
        for version in range(0, count * size, size):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(statement, [row(stream, version + n) for n in range(size)])
            connection.execute("COMMIT")
        return (perf_counter() - start) / count / size * 1e6


def threads(work: Callable[[int, int], float], count: int, writers: int, size: int = 1) -> float:
    with ThreadPoolExecutor(writers) as pool:
        start = perf_counter()
        list(pool.map(work, [count // writers] * writers, [size] * writers))
        return (perf_counter() - start) / (count // writers * writers) / size * 1e6


def make_bare() -> None:
    import psycopg

    with psycopg.connect(server()) as connection:
        kinds = {"key": "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "json": "jsonb", "time": "timestamptz"}
        connection.execute(_BARE.format(**kinds))


# --- eventsourcing ---------------------------------------------------------------------------------------------


@cache
def application(kind: str, functions: bool = False) -> Any:
    try:
        from eventsourcing.application import Application
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise LeftOutError(f"{error.name} is not installed (make install brings it)") from error
    if kind == "sqlite":
        path = folder() / f"{uuid4().hex}.db"
        return Application(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)})
    address = conninfo_to_dict(server())
    env = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(address["dbname"]),
        "POSTGRES_HOST": str(address["host"]),
        "POSTGRES_PORT": str(address["port"]),
        "POSTGRES_USER": str(address["user"]),
        "POSTGRES_PASSWORD": "none",
    }
    return Application(env=env | ({"POSTGRES_ENABLE_DB_FUNCTIONS": "y"} if functions else {}))


@cache
def basket() -> Any:
    from eventsourcing.domain import Aggregate, event

    class Basket(Aggregate):
        @event("Opened")
        def __init__(self) -> None:
            self.total = 0

        @event("ItemAdded")
        def add(self, sku: str, name: str, qty: int, price: float, note: str) -> None:
            self.total += qty

    Basket.__qualname__ = "Basket"
    globals()["Basket"] = Basket
    return Basket


def fill(app: Any, count: int, size: int) -> tuple[UUID, float]:
    aggregate = basket()()
    app.save(aggregate)
    start = perf_counter()
    for version in range(0, count * size, size):
        for n in range(version, version + size):
            aggregate.add(sku=f"SKU-{n:06d}", name="Blue widget, large", qty=n % 7 + 1, price=19.99, note=NOTE)
        app.save(aggregate)
    return aggregate.id, (perf_counter() - start) / count / size * 1e6


def theirs(kind: str) -> Callable[[int, int], float]:
    return lambda count, size: fill(application(kind), count, size)[1]


def recorder(count: int, size: int) -> float:
    app = application("postgres", True)
    from eventsourcing.persistence import StoredEvent

    stream = uuid4()
    start = perf_counter()
    for version in range(0, count * size, size):
        events = [
            StoredEvent(stream, version + n, "bench.item_added", item(version + n).to_json()) for n in range(size)
        ]
        app.recorder.insert_events(events)
    return (perf_counter() - start) / count / size * 1e6


def appends(work: Callable[[int, int], float]) -> Callable[[Effort], dict[str, float]]:
    return lambda effort: {f"{size} a tx": work(effort.count(APPENDS[size]), size) for size in SIZES}


def in_threads(work: Callable[[int, int], float]) -> Callable[[Effort], dict[str, float]]:
    return lambda effort: {f"{n} savers": threads(work, max(effort.count(640), n), n) for n in WRITERS}


# --- rows ------------------------------------------------------------------------------------------------------


@postgres_append.contender(BARE)
def _(effort: Effort) -> dict[str, float]:
    make_bare()
    return appends(bare_postgres)(effort)


postgres_append.contender(APPLICATION)(appends(theirs("postgres")))
postgres_append.contender(FUNCTIONS)(appends(recorder))
postgres_append.contender(
    OURS,
    *(at_most(1 / 0.8, BARE, metric=f"{size} a tx") for size in SIZES),
    *(at_most(0.5, APPLICATION, metric=f"{size} a tx") for size in SIZES),
    *(at_most(1.0, FUNCTIONS, metric=f"{size} a tx") for size in SIZES),
)(ours_appends("postgres"))

sqlite_append.contender(BARE_SQLITE)(appends(bare_sqlite))
sqlite_append.contender(APPLICATION)(appends(theirs("sqlite")))
sqlite_append.contender(OURS, *(at_most(1 / 1.5, APPLICATION, metric=f"{size} a tx") for size in (10, 100)))(
    ours_appends("sqlite")
)


@postgres_writers.contender(BARE)
def _(effort: Effort) -> dict[str, float]:
    make_bare()
    return in_threads(bare_postgres)(effort)


postgres_writers.contender(APPLICATION)(in_threads(theirs("postgres")))
postgres_writers.contender(OURS, *(at_most(0.5, APPLICATION, metric=f"{n} savers") for n in WRITERS))(
    ours_savers("postgres")
)
sqlite_writers.contender(APPLICATION)(in_threads(theirs("sqlite")))
sqlite_writers.contender(OURS, at_most(1.0, APPLICATION, metric="16 savers"))(ours_savers("sqlite"))

sqlite_batches.contender(APPLICATION)(
    in_batches(lambda count, writers, size: threads(theirs("sqlite"), count, writers, size))
)
sqlite_batches.contender(
    OURS,
    *(at_most(1 / 1.5, APPLICATION, metric=f"{size} a tx, {n} savers") for size in SIZES[1:] for n in WRITERS[1:]),
)(in_batches(lambda count, writers, size: run(savers("sqlite", count, writers, size))))


@catch_up.contender(OURS)
def _(effort: Effort) -> dict[str, float]:
    async def follow(kind: str, count: int) -> float:
        target = store(kind)
        while await target.head() < count:
            await target.append(uuid4().hex, [item(n) for n in range(1_000)], expected=0)
        start = perf_counter()
        seen = 0
        async for _ in target.subscribe():
            seen += 1
            if seen == count:
                break
        return (perf_counter() - start) / count * 1e6

    count = effort.count(20_000)
    return {"PostgreSQL": run(follow("postgres", count)), "SQLite": run(follow("sqlite", count))}


@catch_up.contender("eventsourcing, select_notifications(500)")
def _(effort: Effort) -> dict[str, float]:
    def follow(kind: str, count: int) -> float:
        app = application(kind)
        while (app.recorder.max_notification_id() or 0) < count:
            fill(app, 1, 1_000)
        start, position, seen = perf_counter(), 0, 0
        while seen < count:
            page = app.recorder.select_notifications(start=position + 1, limit=500)
            seen += len(page)
            position = page[-1].id
        return (perf_counter() - start) / count * 1e6

    count = effort.count(20_000)
    return {"PostgreSQL": follow("postgres", count), "SQLite": follow("sqlite", count)}


TABLES = (postgres_append, postgres_writers, sqlite_append, sqlite_writers, sqlite_batches, catch_up)
