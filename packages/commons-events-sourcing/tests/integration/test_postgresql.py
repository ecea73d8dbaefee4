"""PostgreSQL's own: users and their rights, transactions in each other's way, and the store's connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack, nullcontext, suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit, urlunsplit

import psycopg
import psycopg.waiting
import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DataError

from commons_events import Event
from commons_events.errors import (
    AuthorizationError,
    ConfigurationError,
    InvalidStreamError,
    StoreUnavailableError,
    TransactionAbortedError,
    TransactionError,
)
from commons_events.sourcing import (
    Append,
    EventStore,
    StoredSnapshot,
    StoreTransaction,
    StreamId,
    _postgres,
    _postgres_write,
    upgrade,
)
from commons_events.sourcing._postgres_wire import StoreConnection
from commons_events.testing import eventually
from commons_events.testing.services import RunningPostgres

pytestmark = pytest.mark.asyncio

WAIT = 60.0


class Kept(Event):
    event_type = "tests.postgresql.kept"


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


# --- rights ----------------------------------------------------------------------------------------------------


@pytest.fixture
def role(postgres_service: RunningPostgres, postgres_database: str) -> Iterator[str]:
    """A user who may do nothing but look what there is."""
    name = postgres_service.unique("role")
    execute(
        postgres_database,
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'secret'",
        f'GRANT USAGE ON SCHEMA public TO "{name}"',
    )
    yield name
    execute(postgres_database, f'DROP OWNED BY "{name}"', f'DROP ROLE "{name}"')


async def in_transaction(store: EventStore) -> None:
    async with store.transaction() as transaction:
        await transaction.append("a", [Kept()])


async def read(store: EventStore) -> None:
    assert [stored.position async for stored in store.read_all()]


async def append_two(store: EventStore) -> None:
    await asyncio.gather(store.append("b", [Kept()]), store.append("c", [Kept()]))


CALLS: list[Callable[[EventStore], Awaitable[object]]] = [
    lambda store: store.append("a", [Kept()]),
    append_two,
    lambda store: store.append("a", [Kept() for _ in range(600)]),
    in_transaction,
    read,
    lambda store: store.get_events("a"),
    lambda store: store.save_checkpoint("reader", 1),
    lambda store: store.delete_checkpoint("reader"),
    lambda store: store.backend.lease("group", 1, "worker", 60.0),
]


async def test_missing_rights_are_named_and_those_that_are_named_suffice(postgres_database: str, role: str) -> None:
    parts = urlsplit(postgres_database)
    url = urlunsplit(parts._replace(netloc=f"{role}:secret@{parts.hostname}:{parts.port}"))
    store = EventStore(url)
    with pytest.raises(AuthorizationError, match=r"schema public.*CREATE on the schema") as caught:
        await store.open()
    assert "secret" not in str(caught.value)
    await store.close()
    with pytest.raises(AuthorizationError, match=r"schema public.*CREATE on the schema"):
        await asyncio.to_thread(upgrade, url)
    async with EventStore(postgres_database) as owners:
        await owners.append("a", [Kept()])
    store = EventStore(url)
    with pytest.raises(AuthorizationError, match="commons_events_version"):
        await store.open()
    execute(postgres_database, f'GRANT SELECT ON commons_events_version TO "{role}"')
    for call in CALLS:
        with pytest.raises(AuthorizationError, match="permission denied"):
            await call(store)
    execute(
        postgres_database,
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{role}"',
        f'GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO "{role}"',
    )
    for call in CALLS:
        await call(store)
    await store.close()


# --- in each other's way ---------------------------------------------------------------------------------------


async def by_appending(transaction: StoreTransaction, name: str) -> None:
    await transaction.append(name, [Kept()])


async def by_sql(transaction: StoreTransaction, name: str) -> None:
    await transaction.execute(text("UPDATE totals SET n = n + 1 WHERE name = :name"), {"name": name})


@pytest.mark.parametrize("write", [by_appending, by_sql])
async def test_of_two_transactions_that_wait_for_each_other_one_may_be_done_again(
    postgres_database: str, write: Callable[[StoreTransaction, str], Awaitable[None]]
) -> None:
    execute(postgres_database, "CREATE TABLE totals (name text, n int)", "INSERT INTO totals VALUES ('a', 0), ('b', 0)")
    async with EventStore(postgres_database) as store:
        await store.append("a", [Kept()])
        await store.append("b", [Kept()])
        begun = asyncio.Barrier(2)

        async def both(first: str, second: str) -> None:
            async with store.transaction() as transaction:
                await write(transaction, first)
                await begun.wait()
                await write(transaction, second)

        found = await asyncio.gather(both("a", "b"), both("b", "a"), return_exceptions=True)
        [aborted] = [one for one in found if one is not None]
        assert isinstance(aborted, TransactionAbortedError)
        assert aborted.retriable
        assert "deadlock" in str(aborted)
        async with store.transaction() as transaction:  # the connection is as good as new
            await write(transaction, "a")


async def test_transactions_wait_for_each_other_whatever_the_servers_default_isolation_is(
    postgres_database: str,
) -> None:
    name = urlsplit(postgres_database).path[1:]
    execute(postgres_database, f"ALTER DATABASE \"{name}\" SET default_transaction_isolation TO 'repeatable read'")
    async with EventStore(postgres_database) as store:
        await store.append("a", [Kept()])
        waiting = 3

        async def append() -> None:
            nonlocal waiting
            async with store.transaction() as transaction:
                await transaction.execute(text("SELECT 1"))
                waiting -= 1
                await eventually(lambda: not waiting, timeout=WAIT)  # each has what would be its snapshot
                await transaction.append("a", [Kept()])

        await asyncio.gather(*(append() for _ in range(3)))
        assert await store.stream_version("a") == 4
        held = await asyncio.gather(*(store.backend.lease("group", 8, f"worker {n}", 60.0) for n in range(5)))
        assert sum(map(len, held)) >= 8


async def test_a_block_that_goes_on_after_a_failed_statement_does_not_end_as_if_it_had_been_stored(
    postgres_database: str,
) -> None:
    def divide(connection: Connection) -> None:
        connection.execute(text("SELECT 1 / 0"))

    def divide_apart(connection: Connection) -> None:
        with connection.begin_nested():
            divide(connection)

    async def look(transaction: StoreTransaction) -> None:
        await transaction.execute(text("SELECT 1"))

    async with EventStore(postgres_database) as store:
        with pytest.raises(TransactionError, match="savepoint"):
            async with store.transaction() as transaction:
                await transaction.append("a", [Kept()])
                with pytest.raises(DataError):
                    await transaction.run_sync(divide)
        assert await store.stream_version("a") == 0
        more: Callable[[StoreTransaction], Awaitable[object]]
        for more in (
            lambda transaction: transaction.append("a", [Kept()]),
            look,
            lambda transaction: transaction.append_many([Append("a", [Kept()]), Append("b", [Kept()])]),
            lambda transaction: transaction.fetch_stream("a"),
            lambda transaction: transaction.save_checkpoint("reader", 1),
        ):
            with pytest.raises(TransactionError, match="DivisionByZero: division by zero"):
                async with store.transaction() as transaction:
                    with suppress(DataError):
                        await transaction.run_sync(divide)
                    await more(transaction)
        async with store.transaction() as transaction:
            await transaction.append("a", [Kept()])
            with pytest.raises(DataError):
                await transaction.run_sync(divide_apart)
        assert await store.stream_version("a") == 1


# --- connections -----------------------------------------------------------------------------------------------


async def test_settings_are_those_of_transactions_too(postgres_database: str) -> None:
    async with EventStore(
        f"{postgres_database}?application_name=mine&options=-c%20work_mem%3D8MB", synchronous_commit="off"
    ) as store:
        async with store.transaction() as transaction:
            for name, value in (("synchronous_commit", "off"), ("application_name", "mine"), ("work_mem", "8MB")):
                assert (await transaction.execute(text(f"SHOW {name}"))).scalar_one() == value
        async with EventStore(postgres_database, connect_timeout=5) as one, EventStore(postgres_database) as other:
            assert one.backend.place == other.backend.place


async def test_the_servers_time_zone_does_not_matter(postgres_database: str) -> None:
    execute(postgres_database, f"ALTER DATABASE \"{urlsplit(postgres_database).path[1:]}\" SET timezone = 'Asia/Tokyo'")
    times = [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)]
    async with EventStore(postgres_database) as store:
        await store.append("a", [Kept(timestamp=time) for time in times])
        async with store.transaction() as transaction:
            stored = await transaction.fetch_stream("a")
        assert stored == await store.fetch_stream("a")
        assert [one.timestamp.isoformat() for one in stored] == [time.isoformat() for time in times]


@pytest.mark.parametrize("by", ["the address", "the database"])
async def test_the_encoding_of_a_session_does_not_matter(postgres_database: str, by: str) -> None:
    url = f"{postgres_database}?client_encoding=latin1" if by == "the address" else postgres_database
    if by == "the database":
        execute(url, f"ALTER DATABASE \"{urlsplit(url).path[1:]}\" SET client_encoding = 'LATIN1'")
    await asyncio.to_thread(upgrade, url)
    async with EventStore(url) as store:
        for count in (1, 2, 600):
            await store.append(f"ü→{count}", [Kept() for _ in range(count)])
            async with store.transaction() as transaction:
                await transaction.append(f"ü→{count}", [Kept() for _ in range(count)])
                await transaction.save_checkpoint(f"ü→{count}", 1)
        assert {str(stored.stream) async for stored in store.read_all()} == {"ü→1", "ü→2", "ü→600"}


@pytest.mark.parametrize(("encoding", "works"), [("SQL_ASCII", True), ("LATIN1", False)])
async def test_the_encoding_of_a_database(postgres_service: RunningPostgres, encoding: str, works: bool) -> None:
    name = postgres_service.unique("encoded")
    execute(postgres_service.url, f"CREATE DATABASE \"{name}\" ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
    url = urlunsplit(urlsplit(postgres_service.url)._replace(path=f"/{name}"))
    try:
        if works:
            async with EventStore(url) as store:
                await store.append("ü→" * 100, [Kept()])
                assert [str(stored.stream) async for stored in store.read_all()] == ["ü→" * 100]
        else:
            store = EventStore(url)
            with pytest.raises(ConfigurationError, match=r"LATIN1.*UTF8"):
                await store.append("a", [Kept()])
            await store.close()
        if works:
            await asyncio.to_thread(upgrade, url)
        else:
            with pytest.raises(ConfigurationError, match=r"LATIN1.*UTF8"):
                await asyncio.to_thread(upgrade, url)
    finally:
        execute(postgres_service.url, f'DROP DATABASE "{name}"')


async def test_a_search_path_without_a_schema_says_so(postgres_database: str) -> None:
    url = f"{postgres_database}?options=-c%20search_path%3Dnone"
    store = EventStore(url)
    with pytest.raises(ConfigurationError, match="search_path"):
        await store.open()
    await store.close()
    with pytest.raises(ConfigurationError, match="search_path"):
        await asyncio.to_thread(upgrade, url)


async def test_a_snapshot_whose_names_are_too_long_for_an_index_is_refused(postgres_database: str) -> None:
    stream, taken_at = StreamId("😀" * 255, "😀" * 255), datetime(2026, 1, 2, tzinfo=UTC)
    async with EventStore(postgres_database) as store:
        await store.append(stream, [Kept()])
        for length, error in ((140, None), (255, InvalidStreamError)):
            snapshot = StoredSnapshot(
                stream=stream, version=1, kind="😀" * length, schema_version="1", data=b"", taken_at=taken_at
            )
            with pytest.raises(error, match="3,060 bytes") if error else nullcontext():
                await store.save_snapshot(snapshot)


async def test_several_processes_may_upgrade_at_once(postgres_database: str) -> None:
    name = urlsplit(postgres_database).path[1:]
    execute(postgres_database, f"ALTER DATABASE \"{name}\" SET default_transaction_isolation TO 'serializable'")
    found = await asyncio.gather(*(asyncio.to_thread(upgrade, postgres_database) for _ in range(6)))
    assert len(set(found)) == 1
    async with EventStore(postgres_database) as store:
        await store.append("a", [Kept()])


async def test_transactions_may_read_through_the_store_however_many_there_are(postgres_database: str) -> None:
    async with EventStore(postgres_database, connections=2) as store:
        await store.append("a", [Kept()])
        begun = asyncio.Barrier(2)

        async def work() -> int:
            async with store.transaction() as transaction:
                await transaction.execute(text("SELECT 1"))
                await begun.wait()
                assert await store.checkpoints() == {}
                assert await store.checkpoint("reader") == 0
                return len(await store.get_events("a"))

        async with asyncio.timeout(WAIT / 2):
            assert await asyncio.gather(work(), work()) == [1, 1]


async def test_a_transaction_reads_beside_all_the_appends_that_wait_for_it(postgres_database: str) -> None:
    async with EventStore(postgres_database, connections=1, write_connections=2) as store:
        await store.append("a", [Kept()])
        begun = asyncio.Event()

        async def append() -> None:
            await begun.wait()
            await store.append_many([Append("a", [Kept()]), Append("b", [Kept()])])

        appending = [asyncio.ensure_future(append()) for _ in range(3)]
        async with store.transaction() as transaction:
            await transaction.append("a", [Kept()])
            begun.set()

            async def waiting() -> bool:
                query = text(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                await transaction.execute(text("SELECT pg_stat_clear_snapshot()"))
                return (await transaction.execute(query)).scalar_one() == 2

            await eventually(waiting, timeout=WAIT)
            async with asyncio.timeout(WAIT / 2):
                assert len(await store.fetch_stream("a")) == 1
        await asyncio.gather(*appending)
        assert await store.stream_version("b") == 3


async def test_a_transaction_for_which_no_connection_becomes_free_says_so(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres, "_PATIENCE", 0.1)
    async with EventStore(postgres_database, connections=1) as store:
        begun = asyncio.Event()

        async def save() -> None:
            await begun.wait()
            await store.save_checkpoint("reader", 1)

        saving = asyncio.ensure_future(save())
        async with store.transaction():
            begun.set()
            with pytest.raises(StoreUnavailableError, match=r"1 transactions are under way.*more connections"):
                await saving
        await save()
        assert await store.checkpoint("reader") == 1


async def session_locks(url: str) -> int:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        found = await connection.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
            "WHERE locktype = 'advisory' AND datname = current_database()"
        )
        row = await found.fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.parametrize("end", ["cancelled", "cancelled by the server", "cancelled by the server, and caught"])
async def test_an_append_that_is_broken_off_while_it_takes_positions_leaves_no_lock(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    slow = _postgres_write._MAKE_PLAIN.replace("array_agg(nextval(", "array_agg(pg_sleep(600)::text || nextval(")
    assert slow != _postgres_write._MAKE_PLAIN
    slow = slow.replace("free.positions[e.i]", "free.positions[e.i]::bigint").replace(
        "SELECT 1, positions[1], positions[$4::bigint - $3::bigint]", "SELECT 1, 1, 1"
    )
    async with EventStore(postgres_database, connections=1) as store:
        await store.append("a", [Kept(), Kept()])
        monkeypatch.setattr(_postgres_write, "_MAKE_PLAIN", slow)

        async def append() -> None:
            async with store.transaction() as transaction:
                try:
                    async with AsyncExitStack() as stack:
                        if end.endswith("caught"):
                            stack.enter_context(suppress(psycopg.errors.QueryCanceled))
                        await transaction.run_sync(lambda connection: connection.begin_nested())
                        await transaction.append("b", [Kept(), Kept()])
                finally:
                    if end.endswith("caught"):
                        await transaction.execute(text("ROLLBACK TO SAVEPOINT sa_savepoint_1"))

        appending = asyncio.ensure_future(append())

        async def sleeps() -> bool:
            return await session_locks(postgres_database) == 1

        await eventually(sleeps, timeout=WAIT)
        if end == "cancelled":
            appending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await appending
        else:
            execute(
                postgres_database,
                "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()",
            )
            if end.endswith("caught"):
                await appending
            else:
                with pytest.raises(StoreUnavailableError, match="canceling statement"):
                    await appending
        monkeypatch.undo()
        async with store.transaction() as transaction:

            async def none_is_left() -> bool:  # a closed connection's process on the server ends by and by
                return await session_locks(postgres_database) == 0

            await eventually(none_is_left, timeout=WAIT)
            await transaction.append("b", [Kept(), Kept()], expected=0)


async def test_a_transaction_that_is_cancelled_in_its_copy_is_cancelled(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EventStore(postgres_database, connections=1) as store:
        await store.append("a", [Kept()])
        begun = asyncio.Event()
        write_row = psycopg.AsyncCopy.write_row

        async def slow(copy: psycopg.AsyncCopy, row: object) -> None:
            await write_row(copy, row)  # type: ignore[arg-type]
            begun.set()
            await copy.connection.wait(waiting(copy.connection.pgconn))

        def waiting(pgconn: object) -> Generator[psycopg.waiting.Wait, psycopg.waiting.Ready, None]:
            while True:
                yield psycopg.waiting.Wait.R

        monkeypatch.setattr(psycopg.AsyncCopy, "write_row", slow)

        async def append() -> None:
            async with store.transaction() as transaction:
                await transaction.append("b", [Kept() for _ in range(600)])

        appending = asyncio.ensure_future(append())
        await asyncio.wait_for(begun.wait(), WAIT)
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending
        monkeypatch.undo()
        await append()
        assert await store.stream_version("b") == 600


async def disconnect(url: str) -> None:
    """As a server does that restarts."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def use_all(store: EventStore) -> None:
    """So that several connections are idle after it."""
    await asyncio.gather(*(read(store) for _ in range(20)), *(store.get_events("a") for _ in range(20)))


async def test_connections_that_the_server_has_ended_are_not_used(postgres_database: str) -> None:
    async with EventStore(postgres_database) as store:
        await store.append("a", [Kept()])
        await use_all(store)
        assert len(store.backend._idle) > 1  # type: ignore[attr-defined]
        await disconnect(postgres_database)
        await store.append("a", [Kept()])
        await use_all(store)
        await store.save_checkpoint("reader", 1)


async def test_of_connections_that_are_lost_one_fails(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the network says nothing: what befell one has befallen all."""
    monkeypatch.setattr(StoreConnection, "is_alive", lambda connection: not connection.closed)
    async with EventStore(postgres_database) as store:
        await store.append("a", [Kept()])
        await use_all(store)
        await disconnect(postgres_database)
        with pytest.raises(StoreUnavailableError):
            await store.get_events("a")
        await use_all(store)
