"""The tables of the first release."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables; the one of versions is Alembic's to make."""
    word: Any = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    number: Any = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    time = sa.DateTime(timezone=True)
    tags: Any = sa.Text().with_variant(postgresql.ARRAY(sa.Text()), "postgresql")
    json: Any = sa.Text().with_variant(postgresql.JSON(), "postgresql")

    def column(name: str, kind: Any, comment: str, **more: Any) -> Any:
        return sa.Column(name, kind, comment=comment, **{"nullable": False, **more})

    op.create_table(
        "commons_events_streams",
        column("stream_id", number, "Stands for the stream in commons_events_events.", primary_key=True),
        column("id", word, "The stream's id, such as an aggregate's."),
        column("category", word, "What the stream belongs to, such as an aggregate's class."),
        column("version", number, "The aggregate_version of the stream's last event."),
        column("deleted_at", time, "When it was deleted; it takes no events any more.", nullable=True),
        sa.UniqueConstraint("id", "category", name="commons_events_streams_name"),
        comment="Streams of events: one row each, which writers lock to move its version on.",
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE commons_events_streams SET (fillfactor = 80)")
    op.create_table(
        "commons_events_events",
        column("position", number, "The event's place in the whole store.", primary_key=True),
        column("stream_id", number, "Its stream, in commons_events_streams."),
        column("version", number, "Its place in its stream, from 1: the aggregate_version."),
        column("category", word, "Its stream's category."),
        column("event_id", word, "The event's own id (CloudEvents: id)."),
        column("event_type", word, "The event's type (CloudEvents: type)."),
        column("schema_version", word, "The version of the class that wrote it."),
        column("format", word, "How it was written: json, avro, protobuf …"),
        column(
            "data",
            json,
            "The whole event, where its format is JSON: byte by byte as it was written; read it as data::jsonb.",
            nullable=True,
        ),
        column("data_bytes", sa.LargeBinary(), "The whole event, where its format is another one.", nullable=True),
        column("tags", tags, "Words to find the event by; NULL where it has none.", nullable=True),
        column("timestamp", time, "The event's own time (CloudEvents: time)."),
        column("recorded_at", time, "When the store took it.", server_default=sa.func.now()),
        sa.UniqueConstraint("stream_id", "version", name="commons_events_events_stream"),
        comment="Every event, as it was written. Rows are only added.",
        sqlite_autoincrement=True,
    )
    op.create_index("commons_events_events_id", "commons_events_events", ["event_id"])
    op.create_index("commons_events_events_category", "commons_events_events", ["category", "position"])
    op.create_index("commons_events_events_type", "commons_events_events", ["event_type", "position"])
    op.create_index(
        "commons_events_events_tags",
        "commons_events_events",
        ["tags"],
        postgresql_using="gin",
        postgresql_where=sa.text("tags IS NOT NULL"),
        sqlite_where=sa.text("tags IS NOT NULL"),
    )
    op.create_table(
        "commons_events_checkpoints",
        column("name", word, "The reader's name.", primary_key=True),
        column("position", number, "The last position that it has handled."),
        column("updated_at", time, "When it was saved.", server_default=sa.func.now()),
        comment="How far readers have come, saved with what they wrote.",
    )
    op.create_table(
        "commons_events_snapshots",
        column("id", word, "The stream's id."),
        column("category", word, "The stream's category."),
        column("kind", word, "What it is a state of."),
        column("version", number, "The aggregate_version of the last event in it."),
        column("schema_version", word, "The version of the state's form."),
        column("data", sa.LargeBinary(), "The state."),
        column("taken_at", time, "When it was taken."),
        sa.PrimaryKeyConstraint("id", "category", "kind", name="commons_events_snapshots_pkey"),
        comment="States of streams, to load them sooner. A cache: its rows may be deleted at any time.",
    )
    op.create_table(
        "commons_events_leases",
        column("group_name", word, "The group."),
        column("partition", sa.Integer(), "The partition, from 0."),
        column("owner", word, "The worker that has it; empty where none has."),
        column("epoch", number, "Counts up with every owner."),
        column("expires_at", sa.Double(), "When it is free, unless renewed: Unix time in seconds."),
        sa.PrimaryKeyConstraint("group_name", "partition", name="commons_events_leases_pkey"),
        comment="Which worker of a group has which partition of the streams.",
    )
    op.create_table(
        "commons_events_workers",
        column("group_name", word, "The group."),
        column("worker", word, "The worker."),
        column("expires_at", sa.Double(), "When it counts as gone, unless renewed: Unix time."),
        sa.PrimaryKeyConstraint("group_name", "worker", name="commons_events_workers_pkey"),
        comment="The workers of each group that were heard of.",
    )
