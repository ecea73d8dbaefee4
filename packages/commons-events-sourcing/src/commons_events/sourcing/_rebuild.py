"""A rebuild: new tables are filled beside the live ones, and take their place in one transaction."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Table, insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import sort_tables
from sqlalchemy.sql.ddl import SchemaGenerator

from commons_events.errors import CapabilityError, DependentObjectsError, ProjectionDefinitionError, StoreSchemaError
from commons_events.retries import Retry
from commons_events.runtime import current_runtime
from commons_events.sourcing import _tables as t
from commons_events.sourcing._projection import Projection
from commons_events.sourcing._projection_pages import Ground, Outcome, Pages, check_version
from commons_events.sourcing._projection_states import ProjectionStates, checkpoint_name, take_turns
from commons_events.sourcing._store import BaseEventStore
from commons_events.sourcing._store_transaction import StoreTransaction

__all__ = ["RebuildProgress", "rebuild"]

_PAUSE = 0.01
"""Seconds before it is tried again to be level with the live tables."""
_ROWS = 5_000
"""Rows that are copied at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildProgress:
    """How far a rebuild has come."""

    position: int
    head: int
    """The store's highest position; it may rise meanwhile."""
    events: int
    """Read so far, by this call; those included that were parked."""
    parked: int = 0
    """Events that are parked in what is live now; known at the end."""
    swapped: bool = False
    """Whether what was filled is live."""


class _Shadow(ABC):
    """The tables that a rebuild fills.

    Args:
        store: where the projection lives.
        projection: the new version.
        states: the store's.
    """

    ground: Ground
    """Where they are filled; once this is `opened`."""

    def __init__(self, store: BaseEventStore, projection: Projection, states: ProjectionStates) -> None:
        self._store = store
        self._projection = projection
        self._states = states
        self._tables = sort_tables(projection.tables)

    @abstractmethod
    async def begin(self, transaction: StoreTransaction, resumed: bool) -> None:
        """Begin anew, unless ``resumed``, in the transaction that says whose rebuild it is.

        What another version has left would else be gone on with, should this one be broken off now.
        """

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[None]:
        """Make them ready to be filled, for the ``async with`` block."""

    @abstractmethod
    async def swap(self, transaction: StoreTransaction, saved: int) -> bool:
        """Put them in the place of the live ones, unless another rebuild has moved them on past ``saved``."""


async def rebuild(
    store: BaseEventStore,
    projection: Projection,
    states: ProjectionStates,
    retry: Retry,
    batch: int,
    on_progress: Callable[[RebuildProgress], object],
) -> RebuildProgress:
    """See `Projector.rebuild`."""
    name = projection.name
    shadows: dict[str, type[_Shadow]] = {"postgresql": _PostgresShadow, "sqlite": _SqliteShadow}
    async with store.transaction() as transaction:
        dialect = await transaction.run_sync(lambda connection: connection.dialect.name)
        if dialect not in shadows:
            raise CapabilityError(f"Projections can be rebuilt on PostgreSQL and SQLite, and not on {dialect}.")
        shadow = shadows[dialect](store, projection, states)
        await transaction.run_sync(take_turns)
        await transaction.checkpoint(checkpoint_name(name, rebuild=True))  # another one's swap is over then
        row = await states.require(transaction, name)
        if row.version > projection.version:
            check_version(projection, row.version)
        await shadow.begin(transaction, row.rebuild_version == projection.version)
        await states.write(transaction, name, rebuild_version=projection.version)
    handled = 0
    async with shadow.opened():
        ground = shadow.ground
        pages = Pages(projection, ground, retry)
        saved = await ground.store.checkpoint(checkpoint_name(name, rebuild=True))
        reading = store.subscribe(after=saved, types=projection.event_types)
        while True:
            before = reading.position
            page = await reading.next_page(batch, wait=False)
            end = reading.position
            if page:
                outcome = await pages.handle(page, saved, end)
                if outcome is not Outcome.DONE:  # somebody else goes on with this rebuild, too
                    saved = await ground.store.checkpoint(checkpoint_name(name, rebuild=True))
                    reading = store.subscribe(after=saved, types=projection.event_types)
                    if await _is_over(store, states, projection):
                        break
                    continue
                saved = end
                handled += len(page)
                await _note(store, states, name, saved)
                on_progress(RebuildProgress(position=saved, head=await store.head(), events=handled))
            elif end == before:
                if await _swap(store, projection, states, shadow, saved, end):
                    break
                # The live tables, or another one's rebuild, are ahead: go on from what is saved now.
                await current_runtime().sleep(_PAUSE)
                saved = await ground.store.checkpoint(checkpoint_name(name, rebuild=True))
                reading = store.subscribe(after=saved, types=projection.event_types)
    parked = len(await states.parked(name, limit=1_000_000))
    done = RebuildProgress(position=end, head=await store.head(), events=handled, parked=parked, swapped=True)
    on_progress(done)
    return done


async def _note(store: BaseEventStore, states: ProjectionStates, name: str, position: int) -> None:
    async with store.transaction() as transaction:
        await states.write(transaction, name, rebuild_position=position)


async def _is_over(store: BaseEventStore, states: ProjectionStates, projection: Projection) -> bool:
    async with store.transaction() as transaction:
        return bool((await states.require(transaction, projection.name)).rebuild_version != projection.version)


async def _swap(
    store: BaseEventStore, projection: Projection, states: ProjectionStates, shadow: _Shadow, saved: int, end: int
) -> bool:
    """Swap, if the shadow is not behind the live tables; workers wait until that is done."""
    name = projection.name
    async with store.transaction() as transaction:
        live = await transaction.checkpoint(checkpoint_name(name))
        row = await states.require(transaction, name)
        if row.rebuild_version != projection.version:
            return True  # another one has done it
        # What the live tables are ahead by may be deleted since.
        if (live > end and await store.head() > end) or not await shadow.swap(transaction, saved):
            return False
        await states.write(
            transaction,
            name,
            version=projection.version,
            rebuild_version=None,
            rebuild_position=None,
            error=None,
            error_position=None,
        )
        await transaction.save_checkpoint(checkpoint_name(name), max(live, end), backwards=True)
    return True


# --- PostgreSQL ------------------------------------------------------------------------------------------------


_ENTER = """
SELECT set_config('search_path', :schema || ', ' || current_setting('search_path'), true)
WHERE to_regnamespace(:schema) IS NOT NULL"""
_DEPENDENTS = """
WITH replaced AS (SELECT to_regclass(name)::oid AS oid FROM unnest(CAST(:tables AS text[])) AS name)
SELECT DISTINCT pg_describe_object('pg_class'::regclass, coalesce(r.ev_class, c.conrelid), 0) || ' depends on '
  || pg_describe_object('pg_class'::regclass, d.refobjid, 0)
FROM pg_depend d
LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
LEFT JOIN pg_constraint c ON d.classid = 'pg_constraint'::regclass AND c.oid = d.objid AND c.contype = 'f'
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid IN (SELECT oid FROM replaced)
  AND coalesce(r.ev_class, c.conrelid) NOT IN (SELECT oid FROM replaced WHERE oid IS NOT NULL)
ORDER BY 1"""
"""The views that read the tables, and the other tables whose foreign keys refer to them."""
_MADE_WITH_TABLES = """
SELECT 'TYPE', typname FROM pg_type WHERE typnamespace = to_regnamespace(:schema) AND typtype IN ('d', 'e')
UNION ALL
SELECT 'SEQUENCE', relname FROM pg_class WHERE relnamespace = to_regnamespace(:schema) AND relkind = 'S'"""
"""What has not gone with its table into another schema."""
_STRANGERS = """
SELECT pg_describe_object(d.classid, d.objid, 0)
FROM pg_depend d
LEFT JOIN pg_class r ON d.classid = 'pg_class'::regclass AND r.oid = d.objid
LEFT JOIN pg_type t ON d.classid = 'pg_type'::regclass AND t.oid = d.objid
WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace(:schema)
  AND NOT coalesce(r.relkind = 'S' OR r.relname = ANY(:tables), t.typtype IN ('d', 'e'), false)
ORDER BY 1"""
"""What lies in the schema, and would not go from there: functions, say, that a listener has made."""
_DEPENDENTS_EXIST = "2BP01"


class _PostgresShadow(_Shadow):
    """A schema of its own, which comes first in the search path of the rebuild's transactions."""

    def __init__(self, store: BaseEventStore, projection: Projection, states: ProjectionStates) -> None:
        super().__init__(store, projection, states)
        self._schema = _slug("commons_events_rebuild_", projection.name, 63)
        self.ground = Ground(store, states, rebuild=True, enter=self._enter)

    async def begin(self, transaction: StoreTransaction, resumed: bool) -> None:
        """See `_Shadow.begin`."""
        await transaction.run_sync(self._check_dependents)
        if resumed and await transaction.run_sync(self._is_there):
            return
        name = self._projection.name
        # First, so that it is locked: who fills the older tables takes it before them, too.
        await transaction.save_checkpoint(checkpoint_name(name, rebuild=True), 0, backwards=True)
        await self._states.forget_parked(transaction, name, rebuild=True)
        await transaction.run_sync(self._make)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """See `_Shadow.opened`."""
        yield

    def _enter(self, connection: Connection) -> bool:
        # without the schema, which another one's swap takes away, the names would stand for the live tables
        return connection.execute(text(_ENTER), {"schema": self._schema}).one_or_none() is not None

    def _is_there(self, connection: Connection) -> bool:
        found = connection.execute(text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": self._schema})
        return bool(found.scalar_one())

    def _make(self, connection: Connection) -> None:
        connection.execute(text(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE"))
        connection.execute(text(f"CREATE SCHEMA {self._schema}"))
        path = connection.execute(text("SHOW search_path")).scalar_one()
        self._enter(connection)
        # As Table.create does it, with comments and all that belongs to a table. But `checkfirst` is for its types and
        # sequences alone: those that are there already are used, while the live table does not count as there.
        generator = SchemaGenerator(connection.dialect, connection, checkfirst=True)  # type: ignore[no-untyped-call]
        for table in self._tables:
            generator.traverse_single(table, create_ok=True)
        names = {"schema": self._schema, "tables": [table.name for table in self._tables]}
        strangers = connection.execute(text(_STRANGERS), names).scalars().all()
        if strangers:
            raise ProjectionDefinitionError(
                f"The projection {self._projection.name!r} cannot be rebuilt: listeners make {'; '.join(strangers)} "
                "with its tables, which would stay behind when these take the live ones' place. Let their DDL name a "
                "schema, as in CREATE OR REPLACE FUNCTION public.name."
            )
        connection.execute(text("SELECT set_config('search_path', :path, true)"), {"path": path})

    async def swap(self, transaction: StoreTransaction, saved: int) -> bool:
        """See `_Shadow.swap`."""
        name = self._projection.name
        if await transaction.checkpoint(checkpoint_name(name, rebuild=True)) != saved:
            return False
        await transaction.run_sync(self._swap)
        await self._states.promote_parked(transaction, name)
        return True

    def _swap(self, connection: Connection) -> None:
        quoted = connection.dialect.identifier_preparer.quote
        target = quoted(connection.execute(text("SELECT current_schema()")).scalar_one())
        try:
            for table in reversed(self._tables):
                connection.execute(text(f"DROP TABLE IF EXISTS {target}.{quoted(table.name)}"))
        except DBAPIError as error:
            problem: Any = error.orig
            if problem.sqlstate != _DEPENDENTS_EXIST:
                raise
            raise self._dependents(problem.diag.message_detail) from error
        for table in self._tables:
            connection.execute(text(f"ALTER TABLE {self._schema}.{quoted(table.name)} SET SCHEMA {target}"))
        for kind, name in connection.execute(text(_MADE_WITH_TABLES), {"schema": self._schema}).all():
            connection.execute(text(f"ALTER {kind} {self._schema}.{quoted(name)} SET SCHEMA {target}"))
        connection.execute(text(f"DROP SCHEMA {self._schema}"))

    def _check_dependents(self, connection: Connection) -> None:
        """Refuse at once what would fail in the end, when the live tables are to be dropped."""
        quoted = connection.dialect.identifier_preparer.quote
        tables = [quoted(table.name) for table in self._tables]
        found = connection.execute(text(_DEPENDENTS), {"tables": tables}).scalars().all()
        if found:
            raise self._dependents("; ".join(found))

    def _dependents(self, which: str) -> DependentObjectsError:
        return DependentObjectsError(
            f"A rebuild of the projection {self._projection.name!r} cannot replace its tables, since other objects of "
            f"the database depend on them: {which}. Nothing was replaced. Drop these, rebuild, and make them again."
        )


# --- SQLite ----------------------------------------------------------------------------------------------------


class _SqliteShadow(_Shadow):
    """A database of its own, whose rows are copied in the end: the live one has one writer, who must not wait."""

    _path: Path
    _in_memory = False
    """Whether the store is; then there is nothing to go on with, and the file goes with its folder in the end."""

    async def begin(self, transaction: StoreTransaction, resumed: bool) -> None:
        """See `_Shadow.begin`."""
        main = await transaction.run_sync(_main_file)
        if main is None:
            self._in_memory = True
            return
        self._path = main.with_name(_slug(f"{main.name}-rebuild-", self._projection.name, 200))
        if not resumed:
            _remove(self._path)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """See `_Shadow.opened`."""
        from commons_events.sourcing._facade import EventStore

        with ExitStack() as stack:
            if self._in_memory:
                folder = TemporaryDirectory(prefix="commons-events-rebuild-", ignore_cleanup_errors=True)
                self._path = Path(stack.enter_context(folder)) / "rebuild.db"
            url = f"sqlite:///{quote(str(self._path))}"
            beside = EventStore(url)
            try:
                try:
                    await beside.open()
                except StoreSchemaError:  # a rebuild that another version of the package has broken off: from the start
                    await beside.close()
                    _remove(self._path)
                    beside = EventStore(url)
                async with beside.transaction() as transaction:
                    await transaction.run_sync(_make_missing(self._tables))
                self.ground = Ground(beside, ProjectionStates(beside), rebuild=True)
                yield
            finally:
                await beside.close()
            _remove(self._path)

    async def swap(self, transaction: StoreTransaction, saved: int) -> bool:
        """See `_Shadow.swap`."""
        name = self._projection.name
        async with self.ground.store.transaction() as beside:
            if await beside.checkpoint(checkpoint_name(name, rebuild=True)) != saved:
                return False
            rows = (await beside.execute(t.parked.select().where(t.parked.c.projection == name))).mappings().all()
            await transaction.run_sync(self._copy)
        await self._states.forget_parked(transaction, name, rebuild=False)
        if rows:
            await transaction.execute(insert(t.parked), [{**row, "rebuild": False} for row in rows])
        return True

    def _copy(self, connection: Connection) -> None:
        for table in reversed(self._tables):
            table.drop(connection, checkfirst=True)
        for table in self._tables:
            table.create(connection)
        quoted = connection.dialect.identifier_preparer.quote
        source = sqlite3.connect(self._path)
        try:
            for table in self._tables:
                columns = ", ".join(quoted(column.name) for column in table.columns if column.computed is None)
                count = sum(column.computed is None for column in table.columns)
                put = f"INSERT INTO {quoted(table.name)} ({columns}) VALUES ({', '.join('?' * count)})"
                rows = source.execute(f"SELECT {columns} FROM {quoted(table.name)}")
                while some := rows.fetchmany(_ROWS):
                    connection.exec_driver_sql(put, some)
        finally:
            source.close()


def _main_file(connection: Connection) -> Path | None:
    """The database's file; None where it is in memory."""
    rows: Sequence[Any] = connection.exec_driver_sql("PRAGMA database_list").all()
    file = next((row[2] for row in rows if row[1] == "main"), "")
    return Path(file) if file else None


def _make_missing(tables: Sequence[Table]) -> Callable[[Connection], None]:
    def make(connection: Connection) -> None:
        for table in tables:
            table.create(connection, checkfirst=True)

    return make


def _remove(path: Path) -> None:
    for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
        with suppress(FileNotFoundError):
            file.unlink()


def _slug(start: str, name: str, longest: int) -> str:
    """A name for a schema or file that tells projections apart whatever their names are made of."""
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    words = re.sub(r"[^a-z0-9]+", "_", name.lower())[: longest - len(start) - 9]
    return f"{start}{words}_{mark}"
