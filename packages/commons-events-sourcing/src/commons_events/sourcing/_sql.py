"""What both databases do alike, through SQLAlchemy: tables, checkpoints, snapshots, leases, deletion.

Each function takes a connection in whose transaction it works.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, delete, func, inspect, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import Insert

from commons_events.errors import (
    ConfigurationError,
    NewerStoreError,
    OlderStoreError,
    StoreSchemaError,
    VersionConflictError,
)
from commons_events.runtime import current_runtime
from commons_events.sourcing import _tables as t
from commons_events.sourcing._backend import Lease
from commons_events.sourcing._groups import lost, repartitioned
from commons_events.sourcing._leases import plan
from commons_events.sourcing._memory import not_ahead, not_found
from commons_events.sourcing._rules import deleted
from commons_events.sourcing._sqlite_names import HEAD, UNTAG
from commons_events.sourcing._types import StoredSnapshot, StreamId

__all__ = [
    "check_lease",
    "check_schema",
    "checkpoint",
    "delete_checkpoint",
    "delete_snapshots",
    "delete_stream",
    "lease",
    "prepare_schema",
    "save_checkpoint",
    "save_snapshot",
    "snapshot",
    "take_turns",
]


def _insert(connection: Connection, table: Any) -> Any:
    insert: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    made: Insert = insert(table)
    return made


# --- the tables ------------------------------------------------------------------------------------------------


def take_turns(connection: Connection) -> None:
    """Let one process at a time look for the store's tables, and make or change them: until the transaction ends.

    Raises:
        ConfigurationError: the database cannot hold all characters.
    """
    if connection.dialect.name != "postgresql":  # where a transaction of the caller's keeps others off
        return
    lock = "SELECT current_setting('server_encoding'), pg_advisory_xact_lock(hashtextextended(:name, 0))"
    encoding = connection.execute(text(lock), {"name": "commons_events_tables"}).scalar_one()
    if encoding not in ("UTF8", "SQL_ASCII"):  # the latter takes bytes as they come
        raise ConfigurationError(
            f"The database {connection.engine.url.database!r} holds text as {encoding}, which has not all characters. "
            "Make one for the store by CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
        )


def prepare_schema(connection: Connection) -> None:
    """Make the tables where there are none of them, and check that they are this version's.

    Raises:
        ConfigurationError: the database cannot hold all characters.
        StoreSchemaError: they are not.
    """
    take_turns(connection)
    present = t.NAMES & set(inspect(connection).get_table_names())
    if not present:
        t.metadata_of(connection.dialect.name).create_all(connection, checkfirst=False)
        connection.execute(t.versions.insert().values(version_num=t.SCHEMA_VERSION))
    else:
        check_schema(connection, present)


def check_schema(connection: Connection, present: frozenset[str]) -> None:
    """Raise where the tables are older, newer or incomplete."""
    found = connection.execute(select(t.versions.c.version_num)).scalars().all() if t.versions.name in present else []
    if len(found) != 1 or not found[0]:
        raise StoreSchemaError(
            f"The database has the tables {', '.join(sorted(present))}, but does not say of which version they are: "
            "commons_events_version names none, or several. Restore it, or let the store have a database of its own."
        )
    version = found[0]
    if version > t.SCHEMA_VERSION:
        raise NewerStoreError(
            f"The store's tables are of revision {version}, and this package knows up to {t.SCHEMA_VERSION}: a newer "
            'one has changed them. Type: pip install --upgrade "commons-events-sourcing".'
        )
    if version < t.SCHEMA_VERSION:
        raise OlderStoreError(
            f"The store's tables are of revision {version}, and this package needs {t.SCHEMA_VERSION}. Nothing alters "
            "them by itself: make a backup, then call commons_events.sourcing.upgrade(connection_string)."
        )
    if missing := t.metadata_of(connection.dialect.name).tables.keys() - present:
        raise StoreSchemaError(f"The store lacks the tables {', '.join(sorted(missing))}. Restore them from a backup.")


# --- checkpoints and snapshots ---------------------------------------------------------------------------------


def checkpoint(connection: Connection, name: str) -> int:
    """See `BackendTransaction.checkpoint`."""
    query = select(t.checkpoints.c.position).where(t.checkpoints.c.name == name).with_for_update()
    return connection.execute(query).scalar_one_or_none() or 0


def save_checkpoint(connection: Connection, name: str, position: int, backwards: bool) -> None:
    """See `BackendTransaction.save_checkpoint`."""
    c = t.checkpoints.c
    insert = _insert(connection, t.checkpoints).values(name=name, position=position)
    saved = insert.on_conflict_do_update(
        index_elements=[c.name],
        set_={"position": position, "updated_at": func.now()},
        where=None if backwards else c.position < position,
    ).returning(c.position)
    if connection.execute(saved).scalar_one_or_none() is None:
        raise not_ahead(name, position, checkpoint(connection, name))
    if position == 0 and not backwards:  # a row that was not there before is at 0 to whoever asks
        raise not_ahead(name, 0, 0)


def delete_checkpoint(connection: Connection, name: str) -> None:
    """See `Backend.delete_checkpoint`."""
    connection.execute(delete(t.checkpoints).where(t.checkpoints.c.name == name))


def save_snapshot(connection: Connection, snapshot: StoredSnapshot) -> None:
    """See `BackendTransaction.save_snapshot`."""
    c = t.snapshots.c
    values = {
        "version": snapshot.version,
        "schema_version": snapshot.schema_version,
        "data": snapshot.data,
        "taken_at": snapshot.taken_at.astimezone(UTC),
    }
    key = {"id": snapshot.stream.id, "category": snapshot.stream.category, "kind": snapshot.kind}
    insert = _insert(connection, t.snapshots).values(**key, **values)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=[c.id, c.category, c.kind], set_=values, where=c.version <= snapshot.version
        )
    )


def snapshot(connection: Connection, stream: StreamId, kind: str, at_most: int) -> StoredSnapshot | None:
    """See `Backend.snapshot`."""
    c = t.snapshots.c
    query = select(c.version, c.schema_version, c.data, c.taken_at).where(
        c.id == stream.id, c.category == stream.category, c.kind == kind, c.version <= at_most
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return StoredSnapshot(
        stream=stream,
        version=row[0],
        kind=kind,
        schema_version=row[1],
        data=row[2],
        taken_at=as_utc(row[3]),
    )


def as_utc(value: datetime) -> datetime:
    """SQLite gives times back without their zone, which is UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def delete_snapshots(connection: Connection, stream: StreamId) -> None:
    """See `Backend.delete_snapshots`."""
    c = t.snapshots.c
    connection.execute(delete(t.snapshots).where(c.id == stream.id, c.category == stream.category))


# --- streams ---------------------------------------------------------------------------------------------------


def delete_stream(connection: Connection, stream: StreamId, expected: int | None) -> None:
    """See `Backend.delete_stream`."""
    on_sqlite = connection.dialect.name == "sqlite"
    streams: Any = t.streams_on_sqlite if on_sqlite else t.streams
    events: Any = t.events_on_sqlite if on_sqlite else t.events
    c, e = streams.c, events.c
    version = select(func.coalesce(func.max(e.version), 0)).where(e.stream_id == c.stream_id).scalar_subquery()
    query = (
        select(c.stream_id, (version if on_sqlite else c.version).label("version"), c.deleted_at)
        .where(c.id == stream.id, c.category == stream.category)
        .with_for_update()
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise not_found(stream)
    if row.deleted_at is not None:
        raise deleted(stream)
    if expected is not None and row.version != expected:
        raise VersionConflictError(str(stream), expected, row.version)
    noted: dict[str, Any] = {"deleted_at": current_runtime().now()}
    if on_sqlite:  # where nothing else remembers which positions were given
        noted["deleted_position"] = text(HEAD)
        connection.execute(text(UNTAG), {"stream_id": row.stream_id})
    connection.execute(update(streams).where(c.stream_id == row.stream_id).values(noted))
    connection.execute(delete(events).where(e.stream_id == row.stream_id))
    delete_snapshots(connection, stream)


# --- leases ----------------------------------------------------------------------------------------------------


def _clock(connection: Connection) -> float:
    """The database's clock; SQLite's is this machine's."""
    if connection.dialect.name == "postgresql":
        return float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
    return current_runtime().now().timestamp()


def lease(
    connection: Connection, group: str, partitions: int, owner: str, seconds: float, release: Sequence[int]
) -> list[Lease]:
    """See `Backend.lease`."""
    if connection.dialect.name == "postgresql":  # one worker of a group at a time
        lock = text("SELECT pg_advisory_xact_lock(hashtextextended('commons_events_lease ' || :name, 0))")
        connection.execute(lock, {"name": group})
    c, w = t.leases.c, t.workers.c
    now = _clock(connection)
    mine = (c.group_name == group) & (c.owner == owner)
    if release:
        connection.execute(update(t.leases).where(mine, c.partition.in_(release)).values(owner="", expires_at=0.0))
    connection.execute(delete(t.workers).where(w.group_name == group, (w.expires_at <= now) | (w.worker == owner)))
    if seconds <= 0:
        return []
    connection.execute(t.workers.insert().values(group_name=group, worker=owner, expires_at=now + seconds))
    alive = connection.execute(select(w.worker).where(w.group_name == group).order_by(w.worker)).scalars().all()
    query = select(c.partition, c.owner, c.epoch, c.expires_at).where(c.group_name == group).order_by(c.partition)
    rows = {row.partition: row for row in connection.execute(query)}
    if rows and len(rows) != partitions:  # the first worker of all has entered each
        raise repartitioned(group, len(rows), partitions)
    held: dict[int, str] = {}
    free: list[int] = []
    for partition in range(partitions):
        row = rows.get(partition)
        if row is not None and row.owner and (row.expires_at > now or row.owner == owner):
            held[partition] = row.owner
        else:
            free.append(partition)
    take, give = plan(held, free, alive, owner, partitions)
    for partition in take:
        values = {"owner": owner, "epoch": (rows[partition].epoch if partition in rows else 0) + 1, "expires_at": 0.0}
        insert = _insert(connection, t.leases).values(group_name=group, partition=partition, **values)
        connection.execute(insert.on_conflict_do_update(index_elements=[c.group_name, c.partition], set_=values))
    if give:
        connection.execute(update(t.leases).where(mine, c.partition.in_(give)).values(owner="", expires_at=0.0))
    renewed = update(t.leases).where(mine).values(expires_at=now + seconds).returning(c.partition, c.epoch)
    return sorted(Lease(group, row.partition, owner, row.epoch) for row in connection.execute(renewed))


def check_lease(connection: Connection, held: Lease) -> None:
    """See `BackendTransaction.check_lease`; the row stays locked, so that nobody takes over before the commit."""
    c = t.leases.c
    query = (
        select(c.epoch)
        .where(c.group_name == held.group, c.partition == held.partition, c.owner == held.owner)
        .with_for_update()
    )
    if connection.execute(query).scalar_one_or_none() != held.epoch:
        raise lost(held)
