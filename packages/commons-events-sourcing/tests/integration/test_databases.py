"""What a user does wrong with a database, and what a DBA looks at."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.exc import OperationalError

from commons_events import Event, EventSchema
from commons_events.errors import (
    CapabilityError,
    ClosedError,
    ConfigurationError,
    NewerStoreError,
    OlderStoreError,
    StoreSchemaError,
    StoreUnavailableError,
    StreamDeletedError,
    StreamNotFoundError,
    UnknownDatabaseError,
    VersionConflictError,
    WrongEventLoopError,
)
from commons_events.sourcing import STREAM_EXISTS, Append, EventStore, NewEvent, StreamId, upgrade
from commons_events.sourcing._postgres import PostgresBackend
from commons_events.sourcing._postgres_write import _WITH_ID, COPY_FROM
from commons_events.sourcing._sqlite_names import UNTAG
from commons_events.sourcing._sqlite_write import BY_ID, BY_VERSION, STATE
from commons_events.sourcing._tables import SCHEMA_VERSION, metadata, metadata_of
from commons_events.sourcing._types import PreparedAppend, PreparedEvent, StoredSnapshot
from commons_events.sourcing.projections import ProjectionStates
from commons_events.testing import eventually
from commons_events.testing.services import RunningPostgres

from .stores import Place, place  # noqa: F401

pytestmark = pytest.mark.asyncio


class Kept(Event):
    event_type = "tests.kept"
    number: int = 0


class Named(Event):
    event_type = "tests.named"


class Late(Event):
    event_type = "tests.late"


def sync(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


async def test_an_unknown_or_unreachable_database(postgres_service: RunningPostgres, tmp_path: Path) -> None:
    for url, error in (
        (postgres_service.url_of("no such database"), UnknownDatabaseError),
        ("postgresql://postgres:secret@127.0.0.1:1/x", StoreUnavailableError),
        (f"sqlite:///{tmp_path / 'missing' / 'file.db'}", UnknownDatabaseError),
    ):
        store = EventStore(url)
        for _ in range(2):  # it may be there the next time
            with pytest.raises(error) as caught:
                await store.append("a", [Kept()])
            assert "secret" not in str(caught.value)
        await store.close()
    (tmp_path / "text.db").write_text("this is no database, whatever its name says" * 30)
    async with EventStore("memory://"):
        pass
    store = EventStore(f"sqlite:///{tmp_path / 'text.db'}")
    with pytest.raises(UnknownDatabaseError, match="not an SQLite file"):
        await store.open()
    await store.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://localhost/x", "memory, postgresql, sqlite"),
        ("events.db", "connection string"),
        ("sqlite://events.db", "three slashes"),
        ("sqlite:///events.db?mode=fast", "synchronous"),
        ("sqlite:///events%00.db", "null character"),
        ("postgresql://localhost:abc/x", "no URL.*host:5432"),
        ("postgresql://[::1/x", "no URL"),
        ("postgresql://localhost:99999/x", "no port 99999"),
        (None, "connection string such as .*not NoneType"),
        (5, "connection string such as .*not int"),
        ("memory://?", "connections"),
    ],
)
async def test_a_wrong_connection_string_says_what_is_right(url: Any, said: str) -> None:
    options: dict[str, Any] = {"connections": 3} if url == "memory://?" else {}
    with pytest.raises(ConfigurationError, match=said):
        EventStore(url, **options)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("foo=bar", "foo"),
        ("sslmode=bogus", "sslmode"),
        ("keepalives=x", "keepalives"),
        ("connect_timeout=abc", "connect_timeout"),
        ("port=99999", "99999"),
        ("options=-c%20nonsense%3D1", "nonsense"),
        ("options=-c%20synchronous_commit%3Dbogus", "synchronous_commit"),
    ],
)
async def test_a_setting_that_the_server_refuses_is_not_tried_again(
    postgres_service: RunningPostgres, query: str, said: str
) -> None:
    url = f"{postgres_service.url}?{query}"
    store = EventStore(url)
    with pytest.raises(ConfigurationError, match=said):
        await store.open()
    await store.close()
    with pytest.raises(ConfigurationError, match=said):
        await asyncio.to_thread(upgrade, url)


async def test_a_database_that_was_missing_is_found_as_soon_as_it_is_there(
    postgres_service: RunningPostgres, tmp_path: Path
) -> None:
    from psycopg import AsyncConnection

    name = postgres_service.unique("late")
    folder = tmp_path / "a # and 100% ünï"
    address = str(folder / "events.db").replace("%", "%25").replace("?", "%3F")
    for url in (f"sqlite:///{address}", postgres_service.url_of(name)):
        store = EventStore(url)
        for _ in range(2):
            with pytest.raises(UnknownDatabaseError):
                await store.open()
        if url.startswith("sqlite"):
            folder.mkdir()
        else:
            async with await AsyncConnection.connect(postgres_service.url, autocommit=True) as connection:
                await connection.execute(f'CREATE DATABASE "{name}"'.encode())
        assert (await store.append("a", [Kept()])).version == 1  # the first call after it, not the second
        await store.close()
    assert (folder / "events.db").is_file()
    assert await asyncio.to_thread(upgrade, f"sqlite:///{address}") == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("memory://", ConfigurationError, "postgresql, sqlite"),
        ("mysql://localhost/x", ConfigurationError, "postgresql, sqlite"),
        ("events.db", ConfigurationError, "no URL"),
        (None, ConfigurationError, "no URL"),
        ("postgresql://localhost:abc/x", ConfigurationError, "no URL"),
        ("postgres://x:secret@127.0.0.1:1/y", StoreUnavailableError, "out of reach"),
        ("sqlite:////nowhere/events.db", UnknownDatabaseError, "no such file"),
    ],
)
async def test_what_cannot_be_upgraded_says_why(url: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        await asyncio.to_thread(upgrade, url)
    assert "secret" not in str(caught.value)


async def test_tables_of_a_newer_package_or_of_no_revision_are_not_upgraded(place: Place) -> None:  # noqa: F811
    if place.kind == "memory":
        pytest.skip("a store in memory has no tables")
    async with place.opened() as store:
        await store.append("a", [Kept()])
    with pytest.raises(ConfigurationError, match="no_such_revision"):
        await asyncio.to_thread(upgrade, place.url, "no_such_revision")
    engine = create_engine(sync(place.url.partition("?")[0]))
    with engine.begin() as connection:
        connection.execute(text("UPDATE commons_events_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(NewerStoreError, match="9999"):
        await asyncio.to_thread(upgrade, place.url)


async def test_tables_that_do_not_say_what_they_are_are_not_upgraded(place: Place) -> None:  # noqa: F811
    if place.kind == "memory":
        pytest.skip("a store in memory has no tables")
    async with place.opened() as store:
        await store.append("a", [Kept()])
    for damage in (
        "UPDATE commons_events_version SET version_num = ''",
        "DELETE FROM commons_events_version",
        "DROP TABLE commons_events_version",
    ):
        engine = create_engine(sync(place.url.partition("?")[0]))
        with engine.begin() as connection:
            connection.execute(text(damage))
        engine.dispose()
        with pytest.raises(StoreSchemaError, match="commons_events_version names none, or several"):
            await asyncio.to_thread(upgrade, place.url)


async def test_an_upgrade_waits_for_another_process_that_is_slow_on_sqlite(tmp_path: Path) -> None:
    path, another = tmp_path / "events.db", tmp_path / "another.db"
    path.touch()
    another.touch()
    await asyncio.to_thread(upgrade, f"sqlite:///{another}")  # what it imports takes its time once
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        upgrading = asyncio.ensure_future(asyncio.to_thread(upgrade, f"sqlite:///{path}"))
        await asyncio.sleep(6)  # more than the five seconds that it waited once
        other.execute("ROLLBACK")
        assert await upgrading == SCHEMA_VERSION


async def test_an_upgrade_makes_no_new_file(tmp_path: Path) -> None:
    with pytest.raises(UnknownDatabaseError, match=r"typo\.db: there is no such file"):
        await asyncio.to_thread(upgrade, f"sqlite:///{tmp_path / 'typo.db'}")
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


async def test_unknown_settings_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"no setting conections.*connections"):
        EventStore("postgresql://localhost/x", conections=3)
    with pytest.raises(ConfigurationError, match="page_size"):
        EventStore("memory://", page_size=0)


async def test_older_newer_and_damaged_tables(place: Place) -> None:  # noqa: F811
    if place.kind == "memory":
        pytest.skip("a store in memory has no tables")
    async with place.opened() as store:
        await store.append("a", [Kept()])
    engine = create_engine(sync(place.url.partition("?")[0]))

    def do(statement: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement))

    for version, error in (("0000", OlderStoreError), ("9999", NewerStoreError)):
        do(f"UPDATE commons_events_version SET version_num = '{version}'")
        store = place.store()
        with pytest.raises(error, match=version):
            await store.open()
        await store.close()
    do(f"UPDATE commons_events_version SET version_num = '{SCHEMA_VERSION}'")
    async with place.opened() as store:
        assert await store.stream_version("a") == 1
    do("DROP TABLE commons_events_leases")
    store = place.store()
    with pytest.raises(StoreSchemaError, match="commons_events_leases"):
        await store.open()
    await store.close()
    do("DROP TABLE commons_events_version")
    store = place.store()
    with pytest.raises(StoreSchemaError, match="commons_events_version"):
        await store.open()
    await store.close()
    engine.dispose()


async def open_still(place: Place) -> int:  # noqa: F811
    """How many connections there are to the database, or threads that have one."""
    if place.kind == "sqlite":
        return sum(thread.name.startswith("commons-events-sqlite") for thread in threading.enumerate())
    engine = create_engine(sync(place.url))
    with engine.connect() as connection:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        found: int = connection.execute(text(others)).scalar_one()
    engine.dispose()
    return found


async def test_a_store_that_cannot_be_entered_leaves_nothing_open(place: Place) -> None:  # noqa: F811
    if place.kind == "memory":
        pytest.skip("a store in memory is always open")
    await asyncio.to_thread(upgrade, place.url, "0001")
    for _ in range(3):
        with pytest.raises(OlderStoreError):
            async with place.store():
                raise AssertionError("it was entered")
    store = place.store()
    entering = asyncio.create_task(store.__aenter__())
    await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering

    async def nothing_is_open() -> bool:
        return await open_still(place) == 0

    await eventually(nothing_is_open, timeout=60)


async def test_a_store_of_another_event_loop_is_left_to_it() -> None:
    async with EventStore("sqlite://") as store:
        await store.append("a", [Kept()])

        async def enter() -> None:
            async with store:
                raise AssertionError("it was entered")

        with pytest.raises(WrongEventLoopError):
            await asyncio.to_thread(asyncio.run, enter())
        assert (await store.append("a", [Kept()])).version == 2


async def test_a_close_that_is_cancelled_goes_on(place: Place) -> None:  # noqa: F811
    if place.kind == "memory":
        pytest.skip("a store in memory has nothing to close")
    store, held, go = place.store(), asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with store.transaction() as transaction:
            await transaction.append("a", [Kept()])
            held.set()
            await go.wait()

    holding = asyncio.create_task(hold())
    await asyncio.wait_for(held.wait(), 60)
    waiting = asyncio.create_task(store.append("a", [Kept()]))
    await asyncio.sleep(0)  # it is handed over
    closing = asyncio.create_task(store.close())
    for _ in range(10):
        await asyncio.sleep(0)  # it waits for the append
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    again = asyncio.create_task(store.close())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not again.done()
    go.set()
    await asyncio.wait_for(again, 60)
    assert (await waiting).version == 2
    await holding

    async def nothing_is_open() -> bool:
        return await open_still(place) == 0

    await eventually(nothing_is_open, timeout=60)


async def test_a_transaction_that_outlives_its_store_leaves_no_connection(postgres_database: str) -> None:
    store, place = EventStore(postgres_database), Place("postgresql", postgres_database)  # noqa: F811
    begun = asyncio.Event()

    async def close() -> None:
        await begun.wait()
        await store.close()

    closing = asyncio.ensure_future(close())
    async with store.transaction() as transaction:
        await transaction.append("a", [Kept()])
        begun.set()
        await closing
    async with EventStore(postgres_database) as later:
        assert await later.stream_version("a") == 1

    async def nothing_is_open() -> bool:
        return await open_still(place) == 0

    await eventually(nothing_is_open, timeout=60)


async def test_migrations_make_just_the_tables_that_first_use_makes(place: Place) -> None:  # noqa: F811
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    if place.kind == "memory":
        pytest.skip("a store in memory has no tables")
    url = place.url.partition("?")[0]
    assert await asyncio.to_thread(upgrade, url) == SCHEMA_VERSION
    assert await asyncio.to_thread(upgrade, url) == SCHEMA_VERSION
    engine = create_engine(sync(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": "commons_events_version", "compare_type": True}
        )
        differences = compare_metadata(context, metadata_of(engine.dialect.name))
    engine.dispose()
    assert [d for d in differences if "commons_events_version" not in str(d)] == []
    async with place.opened() as store:
        assert (await store.append("a", [Kept()])).last_position == 1


@pytest.mark.parametrize("projections", ["none yet", "made by a projector of that time"])
async def test_a_store_of_the_first_revision_is_brought_up_and_keeps_all(place: Place, projections: str) -> None:  # noqa: F811
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    if place.kind == "memory":
        pytest.skip("a store in memory has no tables")
    url = place.url.partition("?")[0]
    assert await asyncio.to_thread(upgrade, url, "0001") == "0001"
    engine = create_engine(sync(url))
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO commons_events_checkpoints (name, position) VALUES ('projection:sales', 7)")
        )
        if projections != "none yet":
            old = MetaData()
            for table in (metadata.tables["commons_events_projections"], metadata.tables["commons_events_parked"]):
                for column in table.to_metadata(old).columns:
                    column.comment = None
            old.create_all(connection)
            connection.execute(
                text(
                    "INSERT INTO commons_events_projections (name, version, paused, changed_at) "
                    "VALUES ('sales', 1, :paused, CURRENT_TIMESTAMP)"
                ),
                {"paused": True},
            )
    store = place.store()
    with pytest.raises(OlderStoreError, match="0001.*upgrade"):
        await store.open()
    await store.close()
    assert await asyncio.to_thread(upgrade, url) == SCHEMA_VERSION
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "commons_events_version"})
        differences = compare_metadata(context, metadata_of(engine.dialect.name))
    engine.dispose()
    assert [d for d in differences if "commons_events_version" not in str(d)] == []
    async with place.opened() as opened:
        assert await opened.checkpoint("projection:sales") == 7
        found = await ProjectionStates(opened).status()
        assert [(one.name, one.paused) for one in found] == ([] if projections == "none yet" else [("sales", True)])


async def test_a_database_with_other_tables_is_shared(place: Place) -> None:  # noqa: F811
    if place.kind == "memory":
        pytest.skip("a store in memory has no tables")
    engine = create_engine(sync(place.url.partition("?")[0]))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE mine (n int)"))
    async with place.opened() as one, place.opened() as two:
        await asyncio.gather(one.append("a", [Kept()]), two.append("b", [Kept()]))
    engine.dispose()


async def test_tables_have_comments_and_each_read_has_its_index(postgres_database: str) -> None:
    async with EventStore(postgres_database) as store:
        await store.append(StreamId("a", "Order"), [Kept(number=n) for n in range(50)])
    engine = create_engine(sync(postgres_database))
    with engine.connect() as connection:
        commented = connection.execute(
            text(
                "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 "
                "WHERE c.relkind = 'r' AND starts_with(c.relname, 'commons_events_') "
                "AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)"
            )
        ).all()
        assert commented == []
        assert len(metadata.tables) == 9
        room = text("SELECT reloptions FROM pg_class WHERE relname = 'commons_events_streams'")
        assert connection.execute(room).scalar_one() == ["fillfactor=80"]
        read = connection.execute(text("SELECT data::jsonb ->> 'number' FROM commons_events_events WHERE position = 8"))
        assert read.scalar_one() == "7"
        connection.execute(text("SET enable_seqscan = off"))
        for condition in (
            "event_id = 'x'", "category = 'x' AND position > 1 ORDER BY position",
            "event_type = 'x' AND position > 1 ORDER BY position", "stream_id = 1 AND version > 1 ORDER BY version",
            "tags @> ARRAY['x'] AND tags IS NOT NULL",
        ):  # fmt: skip
            plan = connection.execute(text(f"EXPLAIN SELECT * FROM commons_events_events WHERE {condition}")).scalars()
            shown = "\n".join(plan)
            assert "commons_events_events_" in shown, shown
            assert "Sort" not in shown, shown
        by_id = _WITH_ID.replace("$1", "1").replace("$2", "ARRAY['x', 'y']")
        shown = "\n".join(connection.execute(text(f"EXPLAIN {by_id}")).scalars())
        assert "commons_events_events_id" in shown, shown
        assert "commons_events_events_stream" not in shown, shown
    engine.dispose()


OLD_EVENTS = [
    # position, stream, version, category, id, type, version of the class, format, data, bytes, tags
    (1, 1, 1, "Order", "id-1", "tests.kept", "1.0.0", "json", Kept(number=1).to_json().decode(), None, '["red"]'),
    (2, 2, 1, "", "id-2", "tests.kept", "1.0.0", "json", Kept(number=2).to_json().decode(), None, None),
    (4, 1, 2, "Order", "id-3", "tests.other", "1.0.0", "avro", None, b"\x00\xff", None),
    (5, 1, 3, "Order", "id-4", "tests.kept", "2.1.0", "json", Kept(number=4).to_json().decode(), None, None),
    (6, 3, 1, "Order", "id-5", "tests.kept", "1.0.0", "json", Kept(number=5).to_json().decode(), None, None),
]


def fill_old(path: Path) -> None:
    """Events as the second revision of the tables kept them; the last one of the store was deleted."""
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "INSERT INTO commons_events_streams (stream_id, id, category, version) VALUES (?, ?, ?, ?)",
            [(1, "a", "Order", 3), (2, "a", "", 1), (3, "b", "Order", 1)],
        )
        connection.executemany(
            "INSERT INTO commons_events_events (position, stream_id, version, category, event_id, event_type, "
            "schema_version, format, data, data_bytes, tags, timestamp, recorded_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '2026-01-02 03:04:05.000006+00:00', '2026-01-02 03:04:06+00:00')",
            OLD_EVENTS,
        )
        connection.execute("DELETE FROM commons_events_events WHERE position = 6")
        connection.execute("UPDATE commons_events_streams SET deleted_at = '2026-01-02' WHERE stream_id = 3")
    connection.close()


async def test_events_on_sqlite_keep_all_when_the_tables_are_brought_up(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    path.touch()
    url = f"sqlite:///{path}"
    assert await asyncio.to_thread(upgrade, url, "0002") == "0002"
    fill_old(path)
    assert await asyncio.to_thread(upgrade, url) == SCHEMA_VERSION
    async with EventStore(url) as store:
        found = [stored async for stored in store.read_all()]
        expected = [
            (row[0], row[2], row[4], *row[5:8], row[9] or row[8].encode())  # type: ignore[union-attr]
            for row in OLD_EVENTS[:-1]
        ]
        assert [(one[0], *one[2:8]) for one in found] == expected
        assert [str(one.stream) for one in found] == ["Order/a", "a", "Order/a", "Order/a"]
        assert [one.tags for one in found] == [("red",), (), (), ()]
        assert {(str(one.timestamp), str(one.recorded_at)) for one in found} == {
            ("2026-01-02 03:04:05.000006+00:00", "2026-01-02 03:04:06+00:00")
        }
        assert [one.position async for one in store.read_all(types=[Kept], categories=["Order"])] == [1, 5]
        assert [one.position async for one in store.read_all(tags=["red"])] == [1]
        with pytest.raises(VersionConflictError):
            await store.append(StreamId("a", "Order"), [Kept()], expected=2)
        # a position is not given twice, be its event deleted or not
        assert (await store.append(StreamId("a", "Order"), [Kept()], expected=3)).last_position == 7


@pytest.mark.parametrize("in_the_way", ["commons_events_events_0003", "commons_events_events_0004"])
async def test_an_upgrade_that_fails_on_sqlite_leaves_all_as_it_was(tmp_path: Path, in_the_way: str) -> None:
    path = tmp_path / "events.db"
    path.touch()
    url = f"sqlite:///{path}"
    await asyncio.to_thread(upgrade, url, "0002")
    fill_old(path)
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE {in_the_way} (n int)")
        before = list(connection.iterdump())
        with pytest.raises(StoreSchemaError, match="already exists"):
            await asyncio.to_thread(upgrade, url)
        assert list(connection.iterdump()) == before
        connection.execute(f"DROP TABLE {in_the_way}")
    connection.close()
    assert await asyncio.to_thread(upgrade, url) == SCHEMA_VERSION


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
async def test_what_a_program_has_made_on_the_tables_outlives_an_upgrade_on_sqlite(
    tmp_path: Path, revision: str
) -> None:
    path = tmp_path / "events.db"
    path.touch()
    url = f"sqlite:///{path}"
    await asyncio.to_thread(upgrade, url, revision)
    with sqlite3.connect(path) as connection:
        connection.executescript("""
            CREATE VIEW log AS SELECT position, id, data FROM commons_events_events JOIN commons_events_streams s
              USING (stream_id);
            CREATE INDEX by_time ON commons_events_events (recorded_at);
            CREATE TABLE counted (position INTEGER REFERENCES commons_events_events (position));
            CREATE TRIGGER count_it AFTER INSERT ON commons_events_events BEGIN
              INSERT INTO counted VALUES (new.position); END;
            CREATE INDEX too_old ON commons_events_streams (version)""")

        def made() -> list[Any]:
            names = "('log', 'by_time', 'counted', 'count_it', 'too_old')"
            return connection.execute(f"SELECT * FROM sqlite_master WHERE name IN {names} ORDER BY name").fetchall()

        before = [(*row[:3], row[4]) for row in made()]
        assert len(before) == 5
        with pytest.raises(ConfigurationError, match="too_old does not fit the new tables.*version.*drop it"):
            await asyncio.to_thread(upgrade, url)
        assert [(*row[:3], row[4]) for row in made()] == before
        connection.execute("DROP INDEX too_old")
        assert await asyncio.to_thread(upgrade, url) == SCHEMA_VERSION
        assert [(*row[:3], row[4]) for row in made()] == [row for row in before if row[1] != "too_old"]
        async with EventStore(url) as store:
            await store.append("a", [Kept(), Kept()])
        assert connection.execute("SELECT position, id FROM log").fetchall() == [(1, "a"), (2, "a")]
        assert connection.execute("SELECT position FROM counted").fetchall() == [(1,), (2,)]
    connection.close()


async def test_tables_that_are_changed_while_a_store_on_sqlite_is_open_are_named(tmp_path: Path) -> None:
    """As an upgrade by a newer package would: to wait for the database is of no use then."""
    path = tmp_path / "events.db"
    async with EventStore(f"sqlite:///{path}") as store:
        await store.append("a", [Kept()])
        with sqlite3.connect(path) as connection:
            connection.execute("ALTER TABLE commons_events_streams RENAME COLUMN deleted_at TO gone_at")
            connection.execute("ALTER TABLE commons_events_events RENAME COLUMN version TO number")
            connection.execute("DROP TABLE commons_events_checkpoints")
        connection.close()

        async def append_in_a_transaction() -> None:
            async with store.transaction() as transaction:
                await transaction.append("a", [Kept()])

        for attempt in (
            lambda: store.append("a", [Kept()]),
            lambda: store.append_many([Append("a", [Kept()]), Append("b", [Kept()])]),
            append_in_a_transaction,
            lambda: store.fetch_stream("a"),
            lambda: store.delete_stream("a"),
            lambda: store.delete_checkpoint("a"),
        ):
            with pytest.raises(StoreSchemaError, match="no longer those that this package opened.*no such"):
                await attempt()  # type: ignore[no-untyped-call]
        with pytest.raises(OperationalError, match="no such table: mine"):  # the program's own
            async with store.transaction() as transaction:
                await transaction.execute(text("SELECT * FROM mine"))


async def test_each_read_on_sqlite_has_its_index(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with EventStore(f"sqlite:///{path}") as store:
        await store.append(StreamId("a", "Order"), [Kept(number=n) for n in range(50)])
    with sqlite3.connect(path) as connection:
        for read in (
            "commons_events_events WHERE event_id = 'x'",
            "commons_events_events WHERE stream_id = 1 AND version BETWEEN 2 AND 9 ORDER BY version",
            "commons_events_events WHERE position BETWEEN 2 AND 9 AND kind_id IN (1, 2) ORDER BY position DESC LIMIT 3",
            "commons_events_blocks WHERE kind_id = 1 AND block BETWEEN 2 AND 9 ORDER BY block LIMIT 3",
            "commons_events_tags t CROSS JOIN commons_events_events e ON e.position = t.position WHERE "
            "t.position BETWEEN 2 AND 9 AND t.tag = 'red' AND kind_id IN (1, 2) AND EXISTS (SELECT 1 FROM "
            "commons_events_tags o WHERE o.tag = 'blue' AND o.position = t.position) ORDER BY t.position DESC LIMIT 3",
            "commons_events_blocks WHERE kind_id = 1 AND block BETWEEN 2 AND 9 ORDER BY block DESC LIMIT 3",
        ):
            shown = "\n".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN SELECT * FROM {read}"))
            assert shown.startswith("SEARCH"), shown
            assert "TEMP B-TREE" not in shown, shown
            assert "SCAN" not in shown, shown
        untag = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {UNTAG}", {"stream_id": 1})]
        assert any(step.startswith("SEARCH commons_events_tags USING PRIMARY KEY (tag=? AND p") for step in untag), (
            untag
        )
        assert any(step.startswith("SEARCH e USING INDEX") for step in untag), untag
        assert not [step for step in untag if step.startswith("SCAN commons_events")], untag
        for statement, values, index in ((BY_ID, ("x", 1), "events_id"), (BY_VERSION, (1, 2, 9), "autoindex")):
            ((*_, shown),) = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            assert shown.startswith("SEARCH"), shown
            assert index in shown, shown
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {STATE}", ("a", "Order"))]
        searched = [step for step in plan if "commons_events" in step or step.split()[1] in ("s", "e")]
        assert searched
        assert all(step.startswith("SEARCH") for step in searched), plan
    connection.close()


async def test_a_kind_that_was_rolled_back_is_made_again(tmp_path: Path) -> None:
    class Other(Event):
        event_type = "tests.other"

    async with EventStore(f"sqlite:///{tmp_path / 'events.db'}") as store:
        with pytest.raises(RuntimeError, match="on purpose"):  # the block is what is tested
            async with store.transaction() as transaction:
                await transaction.append("a", [Other()])
                assert [one.event_type for one in await transaction.fetch_stream("a")] == ["tests.other"]
                raise RuntimeError("on purpose")
        async with store.transaction() as transaction:
            await transaction.execute(text("SAVEPOINT mine"))
            await transaction.append("a", [Other()])
            await transaction.execute(text("ROLLBACK TO mine"))
            await transaction.append("a", [Kept()])
            await transaction.append("b", [Other()])
        with pytest.raises(VersionConflictError):
            await store.append_many([Append("c", [Named()]), Append("a", [Named()], 7)])
        await store.append("a", [Kept()], expected=1)
        await store.append("c", [Named()])
        kept = [(str(one.stream), one.event_type) async for one in store.read_all()]
        assert kept == [("a", "tests.kept"), ("b", "tests.other"), ("a", "tests.kept"), ("c", "tests.named")]


async def test_an_append_that_breaks_off_in_the_middle_leaves_nothing_on_sqlite(tmp_path: Path) -> None:
    """Neither half of it, nor the belief that what was noted of it is there."""
    now = datetime(2026, 1, 2, tzinfo=UTC)

    def of(event_id: str, event_type: str, data: bytes = b"{}") -> PreparedEvent:
        return PreparedEvent(event_id, event_type, "1.0.0", "json", data, (), now)

    async with EventStore(f"sqlite:///{tmp_path / 'events.db'}", synchronous="OFF") as store:
        await store.append("a", [Kept()])
        whole = [of(f"{n}", "tests.kept" if n in (0, 99) else "tests.named") for n in range(100)]
        whole.append(of("bad", "tests.late", b"\xff"))
        with pytest.raises(UnicodeDecodeError):
            await store.backend.append([PreparedAppend(StreamId("b"), whole, 0)])
        with pytest.raises(StreamNotFoundError):
            await store.find_stream("b")
        await store.append("c", [Named() for _ in range(60)])
        await store.append("c", [Kept()])
        kept = [one.position async for one in store.read_all(types=[Kept])]
        assert kept == [one.position async for one in store.read_all() if one.event_type == "tests.kept"] == [1, 62]


async def test_events_of_many_kinds_are_found_in_order_on_sqlite(tmp_path: Path) -> None:
    """By looking their kinds up one by one, and by reading through where there are more of these."""
    async with EventStore(f"sqlite:///{tmp_path / 'events.db'}", synchronous="OFF", page_size=7) as store:
        for few in (True, False):
            names = [f"{'few' if few else 'many'}-{n}" for n in range(40 if few else 300)]
            for event in (Kept, Named, Kept):
                await store.append_many([Append(StreamId("a", name), [event()]) for name in names])
            for wanted, event_type in (((), "tests.kept"), ((), "tests.named"), (tuple(names), "tests.kept")):
                query = {"types": [event_type], "categories": wanted}
                forwards = [one async for one in store.read_all(**query)]  # type: ignore[arg-type]
                every = [one async for one in store.read_all()]
                assert forwards == [
                    one
                    for one in every
                    if one.event_type == event_type and (not wanted or one.stream.category in wanted)
                ]
                backwards = [one async for one in store.read_all(**query, backwards=True, limit=20)]  # type: ignore[arg-type]
                assert backwards == forwards[::-1][:20]


@pytest.mark.parametrize("page_size", [3, 500])
async def test_events_are_found_by_their_tags_wherever_they_are(place: Place, page_size: int) -> None:  # noqa: F811
    async with place.store(page_size=page_size) as store:
        for start in range(0, 300, 50):
            events = [
                NewEvent(
                    (Named if number % 2 else Kept)(),
                    tuple(tag for tag, every in (("a", 3), ("b", 50), ("ä 'x'", 7)) if number % every == 0),
                )
                for number in range(start, start + 50)
            ]
            await store.append(StreamId(f"s{start}", "Order" if start % 100 else ""), events)
        await store.delete_stream("s100")
        every = [one async for one in store.read_all()]
        for wanted in (["a"], ["b"], ["a", "b"], ["b", "a"], ["ä 'x'", "a"], ["none"], ["a", "none"]):
            for more in ({}, {"types": [Named]}, {"categories": ["Order"]}, {"types": [Kept], "categories": [""]}):
                found = [one async for one in store.read_all(tags=wanted, **more)]  # type: ignore[arg-type]
                assert found == [
                    one
                    for one in every
                    if set(wanted) <= set(one.tags)
                    and (one.event_type in [cls.event_type for cls in more.get("types", [Kept, Named])])  # type: ignore[union-attr]
                    and one.stream.category in more.get("categories", ["", "Order"])
                ]
                back = store.read_all(tags=wanted, backwards=True, limit=4, **more)  # type: ignore[arg-type]
                assert [one async for one in back] == found[::-1][:4]
        if place.kind == "sqlite":
            async with store.transaction() as transaction:
                left = await transaction.execute(
                    text("SELECT count(*) FROM commons_events_tags WHERE position BETWEEN 101 AND 150")
                )
                assert left.scalar_one() == 0


@pytest.mark.parametrize("page_size", [7, 500])
async def test_events_of_a_kind_are_found_in_a_long_log_on_sqlite(tmp_path: Path, page_size: int) -> None:
    """Dense ones, rare ones, ones that come only at the end, and where a deleted stream has left a gap."""

    def kind_of(number: int) -> type[Event]:
        return Named if number % 701 == 0 else Late if number > 4_400 else Kept

    async with EventStore(f"sqlite:///{tmp_path / 'events.db'}", synchronous="OFF", page_size=page_size) as store:
        for start in range(0, 4_500, 100):
            await store.append(f"s{start % 900}", [kind_of(n)() for n in range(start, start + 100)])
        await store.delete_stream("s300")
        every = [one async for one in store.read_all()]
        assert len(every) == 4_000
        for wanted in ([Kept], [Named], [Late], [Named, Late], [Kept, Named, Late]):
            names = {one.event_type for one in wanted}
            for low, high in ((0, None), (650, 3_600), (31, 32), (4_480, None)):
                found = [one async for one in store.read_all(types=wanted, from_position=low, to_position=high)]
                assert found == [
                    one
                    for one in every
                    if one.event_type in names and low <= one.position and (high is None or one.position <= high)
                ]
                query = {"types": wanted, "from_position": low, "to_position": high, "backwards": True}
                assert [one async for one in store.read_all(**query)] == found[::-1]  # type: ignore[arg-type]


async def test_a_stream_of_which_parts_were_put_away_is_read_on(place: Place) -> None:  # noqa: F811
    """A page ends where its versions do: what a DBA has taken out of the table must not look like the stream's end."""
    if place.kind == "memory":
        pytest.skip("a store in memory has no tables")
    async with place.store(page_size=5) as store:
        await store.append("a", [Kept(number=n) for n in range(1, 41)])
        engine = create_engine(sync(place.url).partition("?")[0])
        there = list(range(1, 41))
        for gone in ((), (40,), range(1, 8), range(20, 33), (14,), (39,)):
            with engine.begin() as connection:
                for version in gone:
                    connection.execute(text(f"DELETE FROM commons_events_events WHERE version = {version}"))
            there = [version for version in there if version not in gone]
            for first, last in ((0, None), (1, 40), (6, 33), (15, 15), (22, 31), (38, None), (41, None)):
                wanted = [v for v in there if first <= v and (last is None or v <= last)]
                query = {"from_version": first, "to_version": last}
                found = [one async for one in store.read_stream("a", **query)]  # type: ignore[arg-type]
                assert [one.aggregate_version for one in found] == wanted
                assert found == await store.fetch_stream("a", **query)  # type: ignore[arg-type]
                back = [one async for one in store.read_stream("a", **query, backwards=True, limit=17)]  # type: ignore[arg-type]
                assert [one.aggregate_version for one in back] == wanted[::-1][:17]
        engine.dispose()
        high = 2**63 - 1
        assert [one async for one in store.read_stream("a", from_version=high, to_version=high)] == []
        assert [one async for one in store.read_stream("none", backwards=True)] == []


async def test_readers_are_woken_by_events_and_not_by_checkpoints(
    place: Place,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with place.opened() as store:
        backend: Any = store.backend
        told: list[int] = []
        monkeypatch.setattr(backend._news, "tell", lambda position=0: told.append(position))
        await store.save_checkpoint("reader", 1)
        async with store.transaction() as transaction:
            await transaction.append("a", [], expected=0)
        assert not told
        async with store.transaction() as transaction:
            await transaction.append_many([Append("a", [Kept()]), Append("b", [Kept()])])
            assert not told
        assert told


async def test_a_read_goes_to_the_end_of_what_is_there(place: Place) -> None:  # noqa: F811
    """On PostgreSQL it ended where an earlier read of the same store had seen the end."""
    async with place.store() as store:
        for number in range(1, 4):
            await store.append("a", [Kept(), Named(), Kept()])
            assert len([one async for one in store.read_all()]) == number * 3
            await store.append(f"b{number}", [Named(), Named()])
            assert len([one async for one in store.read_all(types=[Kept])]) == number * 2
            await store.delete_stream(f"b{number}")


async def test_a_position_is_not_given_twice_though_its_stream_was_deleted(place: Place) -> None:  # noqa: F811
    async with place.store() as store:
        await store.append("a", [Kept()])
        last = (await store.append("b", [Kept(), Kept()])).last_position
        await store.delete_stream("b")
        async with store.transaction() as transaction:
            again = await transaction.append("c", [Kept()])
        assert again.first_position > last
        await store.delete_stream("c")
        await store.delete_stream("a")
    if place.kind == "memory":
        return
    async with place.store() as store:
        assert (await store.append("d", [Kept()])).first_position > again.last_position


async def test_the_log_of_sqlite_gets_its_length_early_and_nothing_else_changes(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    log = tmp_path / "events.db-wal"
    async with EventStore(f"sqlite:///{path}") as store:
        for number in range(15):
            await store.append("a", [Kept(number=number)], expected=number)
        before = log.stat().st_size
        await store.append("a", [Kept(number=15)], expected=15)
        assert log.stat().st_size > 1_000 * 4_096 > before
        with sqlite3.connect(path) as other:
            assert other.execute("SELECT count(*) FROM commons_events_snapshots").fetchone() == (0,)
            assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        other.close()
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for name in ("events.db", "events.db-wal"):  # what a crash would leave at this moment
            (crashed / name).write_bytes((tmp_path / name).read_bytes())
    async with EventStore(f"sqlite:///{crashed / 'events.db'}") as store:
        numbers = [event.number for event in await store.get_events("a")]  # type: ignore[attr-defined]
        assert numbers == list(range(16))


async def test_other_formats_lie_there_as_their_own_bytes(place: Place, event_registry: object) -> None:  # noqa: F811

    @EventSchema(name="tests.in_avro", version="1.0.0", schema_type="avro")
    class InAvro(Event):
        number: int

    async with place.opened() as store:
        mixed: list[Event] = [InAvro(number=1), Kept(number=2), InAvro(number=3)]
        await store.append("a", mixed)
        await store.append("b", [InAvro(number=4)])
        await store.append("c", [InAvro(number=n) for n in range(600)])
        stored = await store.fetch_stream("a")
        assert [one.event() for one in stored] == mixed
        assert [one.data for one in stored] == [event.serialize() for event in mixed]
        assert [one.format for one in stored] == ["avro", "json", "avro"]
        assert (await store.fetch_stream("b"))[0].event().number == 4  # type: ignore[attr-defined]
        assert len(await store.get_events("c", from_version=2)) == 599


async def test_a_full_disk_on_sqlite_leaves_nothing_half_written(tmp_path: Path) -> None:
    async with EventStore(f"sqlite:///{tmp_path / 'events.db'}", synchronous="NORMAL") as store:
        backend: Any = store.backend
        await store.append("a", [Kept()])
        await backend._writer.submit(lambda: backend._raw.execute("PRAGMA max_page_count = 60").fetchall())
        large = [Kept(metadata={"x": "x" * 50_000}) for _ in range(10)]
        with pytest.raises(StoreUnavailableError, match="full"):
            await store.append("b", large)
        with pytest.raises(StoreUnavailableError, match="full"):
            async with store.transaction() as transaction:
                await transaction.append("c", [Kept()])
                await transaction.append("b", large)
        with pytest.raises(StoreUnavailableError, match="full"):
            async with store.transaction() as transaction:
                await transaction.append("c", [Kept()])
                await transaction.execute(text("CREATE TABLE large AS SELECT randomblob(500000)"))
        with pytest.raises(OperationalError, match="no such table"):  # the statement's fault stays the statement's
            async with store.transaction() as transaction:
                await transaction.execute(text("SELECT * FROM nowhere"))
        assert [await store.stream_version(name) for name in "abc"] == [1, 0, 0]
        assert (await store.append("a", [Kept()])).last_position == 2


async def test_what_is_more_than_a_statement_holds_goes_in_several(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here from a few kB on; PostgreSQL closes the connection from 1 GB on."""
    from commons_events.sourcing import _postgres_write

    monkeypatch.setattr(_postgres_write, "_MOST_BYTES", 5_000)

    def large(count: int) -> list[Kept]:
        return [Kept(number=number, metadata={"x": "ü" * 800}) for number in range(count)]

    async with EventStore(postgres_database, page_size=7) as store:
        batches = [large(1 + number % 4) for number in range(30)]
        await asyncio.gather(*(store.append(f"s{n}", batch, expected=0) for n, batch in enumerate(batches)))
        results = await store.append_many([Append(f"t{n}", batch, 0) for n, batch in enumerate(batches)])
        positions = [place for result in results for place in (result.first_position, result.last_position)]
        assert positions == sorted(positions)
        with pytest.raises(VersionConflictError):
            await store.append_many([*(Append(f"u{n}", large(2), 0) for n in range(5)), Append("s3", large(1), 0)])
        assert await store.stream_version("u0") == 0
        assert await store.append("s0", large(3), expected=1) != await store.append("s1", large(9), expected=2)
        for number, batch in enumerate(batches):
            for name in (f"s{number}", f"t{number}"):
                stored = await store.fetch_stream(name, to_version=len(batch))
                assert [one.event() for one in stored] == batch


async def test_appends_together_are_stored_whole_or_not_at_all_however_many_they_are(
    place: Place,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is large goes to PostgreSQL by COPY, whose end is not that of the transaction."""
    many = [Kept() for _ in range(COPY_FROM)]
    async with place.opened() as store:
        await store.append("there", [Kept()])
        await store.append("gone", [Kept()])
        await store.delete_stream("gone")
        for error, bad in (
            (VersionConflictError, Append("none", [Kept()], STREAM_EXISTS)),
            (VersionConflictError, Append("none", [], 3)),
            (VersionConflictError, Append("there", [Kept()], 5)),
            (StreamDeletedError, Append("gone", [Kept()])),
        ):
            for appends in ([Append("many", many), bad], [bad, Append("many", many, 0)]):
                with pytest.raises(error):
                    await store.append_many(appends)
                with pytest.raises(error):
                    async with store.transaction() as transaction:
                        await transaction.append_many(appends)
                assert await store.stream_version("many") == 0
        monkeypatch.setattr("commons_events.sourcing._postgres_write._MOST_BYTES", 100)
        with pytest.raises(VersionConflictError):
            await store.append_many([Append("many", many[:3], 0), Append("there", many[3:6], 5)])
        assert [str(one.stream) async for one in store.read_all()] == ["there"]
        results = await store.append_many([Append("many", many[:3], 0), Append("there", many[3:6], 1)])
        assert [result.version for result in results] == [3, 4]
        assert (await store.append_many([Append("many", many[:3], 0), Append("all", many)]))[1].version == COPY_FROM


@pytest.mark.parametrize("limit", [0.0, math.inf], ids=["thread", "loop"])
async def test_a_lock_of_another_process_on_sqlite(tmp_path: Path, limit: float) -> None:
    path = tmp_path / "events.db"
    url = f"sqlite:///{path}?synchronous=NORMAL"
    async with EventStore(url, busy_timeout=0.1, blocking_limit=limit) as store:
        await store.append("a", [Kept()])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="busy_timeout"):
            await store.append("a", [Kept()])
        with pytest.raises(StoreUnavailableError, match="busy_timeout"):
            async with store.transaction():
                pass
        other.execute("ROLLBACK")
        other.close()
        assert (await store.append("a", [Kept()])).version == 2


@pytest.mark.parametrize("limit", [0.0, math.inf], ids=["thread", "loop"])
async def test_a_stream_is_read_whole_wherever_its_first_events_are_read(tmp_path: Path, limit: float) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}?synchronous=NORMAL"
    async with EventStore(url, blocking_limit=limit) as store:
        await store.append("a", [Kept() for _ in range(200)])
        await store.append("b", [Kept() for _ in range(64)])
        await store.save_snapshot(
            StoredSnapshot(
                stream=StreamId("a"), version=100, kind="k", schema_version="1", data=b"s", taken_at=datetime.now(UTC)
            )
        )
        for first, last, most in ((1, 200, 500), (1, 64, 64), (1, 65, 65), (30, 180, 64), (30, 180, 65), (5, 5, 1)):
            expected = list(range(first, last + 1))
            found = await store.backend.fetch_stream(StreamId("a"), first, last, most, False)
            assert [one.aggregate_version for one in found] == expected[:most]
            found = await store.backend.fetch_stream(StreamId("a"), first, last, most, True)
            assert [one.aggregate_version for one in found] == expected[::-1][:most]
        assert len(await store.fetch_stream("b")) == 64
        snapshot, found = await store.backend.fetch_from_snapshot(StreamId("a"), "k", 190, 80)
        assert snapshot is not None
        assert [one.aggregate_version for one in found] == list(range(100, 180))
        assert await asyncio.gather(*(store.fetch_stream("b") for _ in range(9))) == [await store.fetch_stream("b")] * 9


@pytest.mark.parametrize("limit", [0.0, math.inf], ids=["thread", "loop"])
async def test_a_stream_that_is_deleted_while_it_is_read_is_not_half_of_it(tmp_path: Path, limit: float) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}?synchronous=NORMAL"
    async with EventStore(url, blocking_limit=limit) as store:
        backend: Any = store.backend
        read_few = backend._read_few

        async def deletes_it(*arguments: Any) -> Any:
            found = await read_few(*arguments)
            await store.delete_stream("a")
            return found

        await store.append("a", [Kept() for _ in range(200)])
        backend._read_few = deletes_it
        assert await store.fetch_stream("a") == []


async def test_what_a_signal_s_handler_raises_leaves_no_transaction_open(tmp_path: Path) -> None:
    class Interrupted(BaseException):
        """As KeyboardInterrupt, which a test had better not raise."""

    url = f"sqlite:///{tmp_path / 'events.db'}?synchronous=NORMAL"
    async with EventStore(url, blocking_limit=math.inf) as store:
        backend: Any = store.backend
        begin = backend._begin_write

        def interrupted(patience: float) -> None:
            begin(patience)
            raise Interrupted

        backend._begin_write = interrupted
        with pytest.raises(Interrupted):
            await store.append("a", [Kept()])
        backend._begin_write = begin
        async with EventStore(url, busy_timeout=0.1) as other:
            await other.append("a", [Kept()], expected=0)
        await store.append("a", [Kept()], expected=1)


async def test_the_event_loop_keeps_off_a_connection_that_a_thread_still_reads_on() -> None:
    async with EventStore("sqlite://", blocking_limit=math.inf) as store:
        await store.append("a", [Kept()])
        backend: Any = store.backend
        reading, may_end = threading.Event(), threading.Event()

        def read(*_: object) -> None:
            reading.set()
            may_end.wait(60)

        cancelled = asyncio.create_task(backend._read(read))
        await asyncio.to_thread(reading.wait, 60)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        appending = asyncio.create_task(store.append("a", [Kept()]))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not appending.done()
        may_end.set()
        assert (await appending).version == 2


async def test_the_event_loop_does_not_wait_for_another_process_that_writes(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with EventStore(f"sqlite:///{path}", synchronous="NORMAL", blocking_limit=math.inf) as store:
        writes: Any = store.backend._writes  # type: ignore[attr-defined]
        await store.append("a", [Kept()])
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            appending = asyncio.create_task(store.append("a", [Kept()]))
            await eventually(lambda: writes._lock.locked(), timeout=60)  # the thread has it, and waits
            assert not appending.done()
            other.execute("ROLLBACK")
        assert (await appending).version == 2
        assert (await store.append("a", [Kept()])).version == 3


async def test_a_transaction_that_is_cancelled_twice_while_it_begins_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    async with EventStore(f"sqlite:///{path}") as store:
        await store.append("a", [Kept()])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def change() -> None:
            async with store.transaction():
                pass

        changing = asyncio.create_task(change())
        await asyncio.sleep(0.1)  # its BEGIN waits in the thread
        for _ in range(3):
            changing.cancel()
            await asyncio.sleep(0.02)
        assert not changing.done(), "it gave its turn away while the thread was at work"
        other.execute("ROLLBACK")
        other.close()
        with pytest.raises(asyncio.CancelledError):
            await changing
        assert (await store.append("a", [Kept()])).version == 2


async def test_a_database_in_memory_is_read_in_the_block_of_its_transaction_also_by_other_tasks() -> None:
    async with EventStore("sqlite://") as store:
        await store.append("a", [Kept()])
        subscription = store.subscribe()
        async with store.transaction() as transaction, asyncio.timeout(60):
            await transaction.append("a", [Kept()])
            assert [len(found) for found in await asyncio.gather(store.fetch_stream("a"))] == [2]
            assert len(await subscription.next_page(wait=False)) == 2


async def test_a_server_that_takes_no_writes_is_read_and_says_so(postgres_database: str) -> None:
    async with EventStore(postgres_database) as store:
        await store.append("a", [Kept()])
    engine = create_engine(sync(postgres_database), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
    engine.dispose()
    async with EventStore(postgres_database) as store:
        assert len([stored async for stored in store.read_all()]) == 1
        for events in ([Kept()], [Kept(), Kept()], [Kept() for _ in range(600)]):
            with pytest.raises(StoreUnavailableError, match=r"takes no writes.*read-write"):
                await store.append("a", events)
        for write in (store.save_checkpoint("p", 1), store.delete_stream("a"), store.delete_checkpoint("p")):
            with pytest.raises(StoreUnavailableError, match="takes no writes"):
                await write
        with pytest.raises(StoreUnavailableError, match="takes no writes"):
            async with store.transaction() as transaction:
                await transaction.append("a", [Kept()])
        assert await store.stream_version("a") == 1


async def test_the_log_of_a_standby_is_not_read_onwards(postgres_database: str) -> None:
    """The server is asked whether it is one; here a function of the same name, which comes first, says yes."""
    async with EventStore(postgres_database) as store:
        await store.append("a", [Kept()])
    engine = create_engine(sync(postgres_database), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text("CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean RETURN true"))
        connection.execute(text(f'ALTER DATABASE "{name}" SET search_path = public, pg_catalog'))
    engine.dispose()
    async with EventStore(postgres_database) as store:
        assert len(await store.get_events("a")) == 1
        assert len([stored async for stored in store.read_all(backwards=True)]) == 1
        with pytest.raises(CapabilityError, match=r"standby.*primary"):
            [stored async for stored in store.read_all()]
        with pytest.raises(CapabilityError, match="standby"):
            await anext(aiter(store.subscribe()))


async def test_a_new_file_that_another_one_is_opening_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (n int)")
    other.execute("BEGIN")
    other.execute("SELECT * FROM mine").fetchall()  # holds what the file's mode cannot be changed beside
    store = EventStore(f"sqlite:///{path}", busy_timeout=60.0)
    opening = asyncio.ensure_future(store.open())
    await asyncio.sleep(0.1)
    assert not opening.done()
    other.execute("ROLLBACK")
    other.close()
    await opening
    assert (await store.append("a", [Kept()])).version == 1
    await store.close()


async def test_a_server_whose_transactions_keep_their_snapshot_is_read_without_gaps(postgres_database: str) -> None:
    """What commits while a page is asked for must not count as settled and be left out."""
    engine = create_engine(sync(postgres_database), isolation_level="AUTOCOMMIT")
    name = engine.url.database
    with engine.connect() as connection:
        connection.execute(text(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation TO 'repeatable read'"))
    engine.dispose()
    engine = create_engine(sync(postgres_database), isolation_level="AUTOCOMMIT")
    async with EventStore(postgres_database) as store:
        await store.append("a", [Kept()])
        backend = store.backend
        assert isinstance(backend, PostgresBackend)
        counted = "SELECT count(*) FROM commons_events_streams"
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(7)"))
            async with backend._borrow() as reader, reader.pipeline():
                before = await reader.execute(counted)
                await reader.execute("SELECT pg_advisory_xact_lock(7)")
                after = await reader.execute(counted)

                async def waits() -> bool:
                    query = (
                        "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
                        "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
                    )
                    return bool(connection.execute(text(query)).scalar_one())

                await eventually(waits, timeout=60)
                connection.execute(
                    text("INSERT INTO commons_events_streams (id, category, version) VALUES ('b', '', 0)")
                )
                connection.execute(text("SELECT pg_advisory_unlock(7)"))
                assert [await before.fetchone(), await after.fetchone()] == [(1,), (2,)]
    engine.dispose()


@pytest.mark.parametrize("failed", [False, True])
async def test_a_call_that_waits_for_a_lock_while_its_block_ends_is_over_before_it(
    postgres_database: str, failed: bool
) -> None:
    """It is waited for, or broken off where nothing is kept; never does it go on when the connection is another's."""
    import psycopg

    async with EventStore(postgres_database, connections=1) as store:
        await store.append("locked", [Kept()])
        async with (
            await psycopg.AsyncConnection.connect(postgres_database) as other,
            await psycopg.AsyncConnection.connect(postgres_database, autocommit=True) as watch,
        ):
            await other.execute("SELECT 1 FROM commons_events_streams FOR UPDATE")

            async def waits() -> bool:
                found = await watch.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
                return await found.fetchone() is not None

            calls, ending = [], asyncio.Event()

            async def change() -> None:
                async with store.transaction() as transaction:
                    await transaction.append("free", [Kept()])
                    calls.append(asyncio.create_task(transaction.append("locked", [Kept()])))
                    await eventually(waits, timeout=60)
                    ending.set()
                    if failed:
                        raise ZeroDivisionError

            changing = asyncio.create_task(change())
            if failed:
                with pytest.raises(ZeroDivisionError):
                    await asyncio.wait_for(changing, 60)
                with pytest.raises(ClosedError, match="broken off"):
                    await calls[0]
                await other.rollback()
            else:
                await asyncio.wait_for(ending.wait(), 60)
                assert await waits()
                assert not changing.done()
                await other.rollback()
                await asyncio.wait_for(changing, 60)
                assert (await calls[0]).version == 2
        kept = 0 if failed else 1
        assert (await store.append("locked", [Kept()])).version == 2 + kept
        async with store.transaction() as transaction:
            assert len(await transaction.fetch_stream("free")) == kept


async def test_a_lock_on_one_stream_leaves_the_others_be(postgres_database: str) -> None:
    async with EventStore(postgres_database) as one, EventStore(postgres_database) as two:
        await one.append("locked", [Kept()])
        async with one.transaction() as transaction:
            await transaction.append("locked", [Kept()])
            waiting = asyncio.ensure_future(two.append("locked", [Kept()], expected=1))
            for number in range(5):
                await asyncio.wait_for(two.append(f"free-{number}", [Kept(), Kept()]), 60)
            assert not waiting.done()
        with pytest.raises(VersionConflictError) as caught:
            await waiting
        assert caught.value.actual == 2


async def test_appends_that_wait_for_another_writer_keep_their_order(postgres_database: str) -> None:
    import psycopg

    async with EventStore(postgres_database) as store:
        await store.append("locked", [Kept()])
        async with await psycopg.AsyncConnection.connect(postgres_database) as other:
            await other.execute("SELECT 1 FROM commons_events_streams FOR UPDATE")
            waiting, free = [], []
            for number in range(1, 6):
                waiting.append(asyncio.ensure_future(store.append("locked", [Kept()], expected=number)))
                free.append(asyncio.ensure_future(store.append(f"free-{number}", [Kept()])))
                await asyncio.sleep(0.02)  # so that other lanes are tried
            async with asyncio.timeout(60):
                await asyncio.gather(*free)
            assert not any(append.done() for append in waiting)
            await other.rollback()
        assert [result.version for result in await asyncio.gather(*waiting)] == [2, 3, 4, 5, 6]


async def test_twenty_concurrent_savers_share_commits(tmp_path: Path) -> None:
    async with EventStore(f"sqlite:///{tmp_path / 'events.db'}", synchronous="NORMAL") as store:
        await store.append("first", [Kept()])
        batches: list[int] = []
        writes: Any = store.backend._writes  # type: ignore[attr-defined]
        write = writes._write

        def counted(appends: Any) -> Any:
            batches.append(len(appends))
            return write(appends)

        writes._write = counted
        await asyncio.gather(*(store.append(f"s{n}", [Kept()], expected=0) for n in range(20)))
        assert sum(batches) == 20
        assert len(batches) < 20


async def test_no_lock_on_positions_is_left_behind(postgres_database: str) -> None:
    async with EventStore(postgres_database) as store:
        await store.append("a", [Kept(), Kept()], expected=0)
        for events in ([Kept(), Kept()], [Kept() for _ in range(600)]):
            with pytest.raises(VersionConflictError):
                await store.append("a", events, expected=0)
        engine = create_engine(sync(postgres_database))
        with engine.connect() as connection:
            held = connection.execute(
                text(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
                    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
            )
            assert held.scalar_one() == 0
        engine.dispose()


async def test_a_session_that_was_reset_is_no_matter(postgres_database: str) -> None:
    """As a connection pool between the store and the server may do."""
    async with EventStore(postgres_database) as store:
        for number in range(3):
            await store.append("a", [Kept()], expected=number)
            for connection in store.backend._idle:  # type: ignore[attr-defined]
                await connection.execute("DEALLOCATE ALL")
        assert await store.stream_version("a") == 3
