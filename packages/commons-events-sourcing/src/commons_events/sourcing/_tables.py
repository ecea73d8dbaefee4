"""The store's tables, as SQLAlchemy knows them: the same on PostgreSQL and SQLite but for a few types and the events.

SQLite writes whole pages to its log, so that each table and index that an append touches costs it a page. There, what
many events have in common stands in ``commons_events_kinds``, and which parts of the log have events of a kind in
``commons_events_blocks``, a row for many events, where PostgreSQL has two indexes; and a stream's version is that of
its last event.

Events are partition-ready: no foreign key points at them or from them, and one writer at a time moves a stream on (on
PostgreSQL it locks the stream's row, on SQLite there is one writer), which is what keeps versions unique; the unique
index only says so once more.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    func,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import DateTime, TypeEngine

__all__ = [
    "BLOCK",
    "NAMES",
    "POSITIONS",
    "SCHEMA_VERSION",
    "blocks",
    "checkpoints",
    "events",
    "events_on_sqlite",
    "kinds",
    "leases",
    "metadata",
    "metadata_of",
    "parked",
    "projections",
    "snapshots",
    "sqlite_metadata",
    "streams",
    "streams_on_sqlite",
    "tags",
    "versions",
    "workers",
]

SCHEMA_VERSION = "0004"
"""Of the tables as they stand here: the newest revision among the migrations."""

metadata = MetaData()

POSITIONS = "commons_events_events_position_seq"
"""The sequence behind the positions on PostgreSQL."""


def _word() -> TypeEngine[Any]:
    """Text that is compared by its bytes: quicker than by a language's rules, and the same on every server."""
    return Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def _number() -> TypeEngine[Any]:
    return BigInteger().with_variant(Integer(), "sqlite")


_TIME = DateTime(timezone=True)

BLOCK = 32
"""Positions in a row of ``commons_events_blocks``."""


def _name_columns() -> list[Column[Any]]:
    """Of a stream, on both databases."""
    return [
        Column("stream_id", _number(), primary_key=True, comment="Stands for the stream in commons_events_events."),
        Column("id", _word(), nullable=False, comment="The stream's id, such as an aggregate's."),
        Column(
            "category", _word(), nullable=False, comment="What the stream belongs to, such as an aggregate's class."
        ),
    ]


def _deleted_at() -> Column[Any]:
    return Column("deleted_at", _TIME, comment="When it was deleted; it takes no events any more.")


def _place_columns() -> list[Column[Any]]:
    """Of an event: where it is, on both databases."""
    return [
        Column("position", _number(), primary_key=True, comment="The event's place in the whole store."),
        Column("stream_id", _number(), nullable=False, comment="Its stream, in commons_events_streams."),
        Column("version", _number(), nullable=False, comment="Its place in its stream, from 1: the aggregate_version."),
    ]


def _event_id() -> Column[Any]:
    return Column("event_id", _word(), nullable=False, comment="The event's own id (CloudEvents: id).")


def _content_columns(read: str, tags: str) -> list[SchemaItem]:
    """Of an event: what it says and how it is found, on both databases.

    Args:
        read: how its JSON is read.
        tags: what they are kept as.
    """
    return [
        Column(
            "data",
            Text().with_variant(postgresql.JSON(), "postgresql"),
            comment=f"The whole event, where its format is JSON: byte by byte as it was written; read it as {read}.",
        ),
        Column("data_bytes", LargeBinary(), comment="The whole event, where its format is another one."),
        Column(
            "tags",
            Text().with_variant(postgresql.ARRAY(Text()), "postgresql"),
            comment=f"Words to find the event by{tags}; NULL where it has none.",
        ),
        Column("timestamp", _TIME, nullable=False, comment="The event's own time (CloudEvents: time)."),
        Column("recorded_at", _TIME, nullable=False, server_default=func.now(), comment="When the store took it."),
        UniqueConstraint("stream_id", "version", name="commons_events_events_stream"),
        Index("commons_events_events_id", "event_id"),
    ]


_EVENTS = "Every event, as it was written. Rows are only added."

streams = Table(
    "commons_events_streams",
    metadata,
    *_name_columns(),
    Column("version", _number(), nullable=False, comment="The aggregate_version of the stream's last event."),
    _deleted_at(),
    UniqueConstraint("id", "category", name="commons_events_streams_name"),
    comment="Streams of events: one row each, which writers lock to move its version on.",
)


@event.listens_for(streams, "after_create")
def _leave_room(_table: Table, connection: Connection, **_: Any) -> None:
    """Room beside the rows, so that a new version needs no new entry in an index; SQLAlchemy 2.0 has no word for it."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("ALTER TABLE commons_events_streams SET (fillfactor = 80)"))


events = Table(
    "commons_events_events",
    metadata,
    *_place_columns(),
    Column("category", _word(), nullable=False, comment="Its stream's category."),
    _event_id(),
    Column("event_type", _word(), nullable=False, comment="The event's type (CloudEvents: type)."),
    Column("schema_version", _word(), nullable=False, comment="The version of the class that wrote it."),
    Column("format", _word(), nullable=False, comment="How it was written: json, avro, protobuf …"),
    *_content_columns("data::jsonb", ""),
    Index("commons_events_events_category", "category", "position"),
    Index("commons_events_events_type", "event_type", "position"),
    Index(
        "commons_events_events_tags",
        "tags",
        postgresql_using="gin",
        postgresql_where=text("tags IS NOT NULL"),
    ),
    comment=_EVENTS,
)

checkpoints = Table(
    "commons_events_checkpoints",
    metadata,
    Column("name", _word(), primary_key=True, comment="The reader's name."),
    Column("position", _number(), nullable=False, comment="The last position that it has handled."),
    Column("updated_at", _TIME, nullable=False, server_default=func.now(), comment="When it was saved."),
    comment="How far readers have come, saved with what they wrote.",
)

snapshots = Table(
    "commons_events_snapshots",
    metadata,
    Column("id", _word(), nullable=False, comment="The stream's id."),
    Column("category", _word(), nullable=False, comment="The stream's category."),
    Column("kind", _word(), nullable=False, comment="What it is a state of."),
    Column("version", _number(), nullable=False, comment="The aggregate_version of the last event in it."),
    Column("schema_version", _word(), nullable=False, comment="The version of the state's form."),
    Column("data", LargeBinary(), nullable=False, comment="The state."),
    Column("taken_at", _TIME, nullable=False, comment="When it was taken."),
    PrimaryKeyConstraint("id", "category", "kind", name="commons_events_snapshots_pkey"),
    comment="States of streams, to load them sooner. A cache: its rows may be deleted at any time.",
)

leases = Table(
    "commons_events_leases",
    metadata,
    Column("group_name", _word(), nullable=False, comment="The group."),
    Column("partition", Integer(), nullable=False, comment="The partition, from 0."),
    Column("owner", _word(), nullable=False, comment="The worker that has it; empty where none has."),
    Column("epoch", _number(), nullable=False, comment="Counts up with every owner."),
    Column("expires_at", Double(), nullable=False, comment="When it is free, unless renewed: Unix time in seconds."),
    PrimaryKeyConstraint("group_name", "partition", name="commons_events_leases_pkey"),
    comment="Which worker of a group has which partition of the streams.",
)

workers = Table(
    "commons_events_workers",
    metadata,
    Column("group_name", _word(), nullable=False, comment="The group."),
    Column("worker", _word(), nullable=False, comment="The worker."),
    Column("expires_at", Double(), nullable=False, comment="When it counts as gone, unless renewed: Unix time."),
    PrimaryKeyConstraint("group_name", "worker", name="commons_events_workers_pkey"),
    comment="The workers of each group that were heard of.",
)

projections = Table(
    "commons_events_projections",
    metadata,
    Column("name", String(100), primary_key=True, comment="As the program calls it."),
    Column("version", Integer, nullable=False, comment="Of the handlers and tables that are live."),
    Column("paused", Boolean, nullable=False, comment="Set by an operator: workers leave it alone."),
    Column("rebuild_version", Integer, comment="Of the handlers and tables being filled; NULL for no rebuild."),
    Column("rebuild_position", BigInteger, comment="The last position that the rebuild has handled."),
    Column("error", Text, comment="Why the last try failed; NULL while all is well."),
    Column("error_position", BigInteger, comment="Where it failed."),
    Column("changed_at", _TIME, nullable=False, comment="When this row was last written."),
    comment="Projections: what their workers and operators agree on. How far they have come is in the checkpoints.",
)

parked = Table(
    "commons_events_parked",
    metadata,
    Column("projection", String(100), primary_key=True, comment="Whose."),
    Column("rebuild", Boolean, primary_key=True, comment="Parked by a rebuild, whose tables are not live yet."),
    Column("position", BigInteger, primary_key=True, autoincrement=False, comment="The event's place in the store."),
    Column("stream_category", String(255), nullable=False, comment="Its stream's category."),
    Column("stream_id", String(255), nullable=False, comment="Its stream's id."),
    Column("aggregate_version", BigInteger, nullable=False, comment="Its place in its stream."),
    Column("event_id", String(255), nullable=False, comment="The event's own id."),
    Column("event_type", String(255), nullable=False, comment="The event's type."),
    Column("behind", BigInteger, comment="The position of its own stream that it waits for; NULL where it failed."),
    Column("error_type", String(255), comment="The class of the error; NULL where it waits for another."),
    Column("reason", Text, nullable=False, comment="Why it is here, for who has to decide."),
    Column("attempts", Integer, nullable=False, comment="How often it was tried."),
    Column("parked_at", _TIME, nullable=False, comment="When it was put aside."),
    comment="Events that a projection could not handle, and those behind them in their streams.",
)

versions = Table(
    "commons_events_version",
    metadata,
    Column("version_num", _word(), primary_key=True, comment="The revision of these tables."),
    comment="The revision of the commons_events_ tables.",
)

# --- on SQLite -------------------------------------------------------------------------------------------------

sqlite_metadata = MetaData()
for _table in metadata.tables.values():
    if _table not in (streams, events):
        _table.to_metadata(sqlite_metadata)

kinds = Table(
    "commons_events_kinds",
    sqlite_metadata,
    Column("kind_id", Integer(), primary_key=True, comment="Stands for the kind in commons_events_events."),
    Column("category", Text(), nullable=False, comment="The category of the events' streams."),
    Column("event_type", Text(), nullable=False, comment="The events' type (CloudEvents: type)."),
    Column("schema_version", Text(), nullable=False, comment="The version of the class that wrote them."),
    Column("format", Text(), nullable=False, comment="How they were written: json, avro, protobuf …"),
    UniqueConstraint("category", "event_type", "schema_version", "format", name="commons_events_kinds_words"),
    comment="What many events have in common. Rows are only added.",
)

blocks = Table(
    "commons_events_blocks",
    sqlite_metadata,
    Column("kind_id", Integer(), nullable=False, comment="The kind."),
    Column("block", Integer(), nullable=False, comment=f"Positions divided by {BLOCK}, without the remainder."),
    PrimaryKeyConstraint("kind_id", "block", name="commons_events_blocks_pkey"),
    comment="Where to look for events of a kind. Rows are only added.",
    sqlite_with_rowid=False,
)

streams_on_sqlite = Table(
    "commons_events_streams",
    sqlite_metadata,
    *_name_columns(),
    _deleted_at(),
    Column(
        "deleted_position",
        Integer(),
        comment="The store's last position when it was deleted: no position up to it is given again.",
    ),
    UniqueConstraint("id", "category", name="commons_events_streams_name"),
    Index("commons_events_streams_deleted", "deleted_position", sqlite_where=text("deleted_position IS NOT NULL")),
    comment="Streams of events: one row each. A stream's version is that of its last event.",
)

events_on_sqlite = Table(
    "commons_events_events",
    sqlite_metadata,
    *_place_columns(),
    Column("kind_id", Integer(), nullable=False, comment="Its category, type and format, in commons_events_kinds."),
    _event_id(),
    *_content_columns("data ->> '$.field'", ", a list in JSON"),
    comment=_EVENTS,
)

tags = Table(
    "commons_events_tags",
    sqlite_metadata,
    Column("tag", Text(), nullable=False, comment="A word to find events by."),
    Column("position", Integer(), nullable=False, comment="An event that has it, in commons_events_events."),
    PrimaryKeyConstraint("tag", "position", name="commons_events_tags_pkey"),
    comment="Which events have a tag: an index of the lists in commons_events_events.",
    sqlite_with_rowid=False,
)


def metadata_of(dialect: str) -> MetaData:
    """The tables on this database, by SQLAlchemy's name for it."""
    return sqlite_metadata if dialect == "sqlite" else metadata


NAMES = frozenset(metadata.tables) | frozenset(sqlite_metadata.tables)
"""Of all tables, on whichever database."""
