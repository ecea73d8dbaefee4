"""The tables of projections; until now projectors made them when they first ran, so that they may be there already."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make them where they are missing; where they are there, give their columns the comments that they lack."""
    number, name, word, time = sa.BigInteger(), sa.String(100), sa.String(255), sa.DateTime(timezone=True)

    def column(name: str, kind: Any, comment: str, **more: Any) -> Any:
        return sa.Column(name, kind, comment=comment, **{"nullable": False, **more})

    tables = {
        "commons_events_projections": (
            "Projections: what their workers and operators agree on. How far they have come is in the checkpoints.",
            [
                column("name", name, "As the program calls it.", primary_key=True),
                column("version", sa.Integer(), "Of the handlers and tables that are live."),
                column("paused", sa.Boolean(), "Set by an operator: workers leave it alone."),
                column(
                    "rebuild_version",
                    sa.Integer(),
                    "Of the handlers and tables being filled; NULL for no rebuild.",
                    nullable=True,
                ),
                column("rebuild_position", number, "The last position that the rebuild has handled.", nullable=True),
                column("error", sa.Text(), "Why the last try failed; NULL while all is well.", nullable=True),
                column("error_position", number, "Where it failed.", nullable=True),
                column("changed_at", time, "When this row was last written."),
            ],
        ),
        "commons_events_parked": (
            "Events that a projection could not handle, and those behind them in their streams.",
            [
                column("projection", name, "Whose.", primary_key=True),
                column(
                    "rebuild", sa.Boolean(), "Parked by a rebuild, whose tables are not live yet.", primary_key=True
                ),
                column("position", number, "The event's place in the store.", primary_key=True, autoincrement=False),
                column("stream_category", word, "Its stream's category."),
                column("stream_id", word, "Its stream's id."),
                column("aggregate_version", number, "Its place in its stream."),
                column("event_id", word, "The event's own id."),
                column("event_type", word, "The event's type."),
                column(
                    "behind",
                    number,
                    "The position of its own stream that it waits for; NULL where it failed.",
                    nullable=True,
                ),
                column("error_type", word, "The class of the error; NULL where it waits for another.", nullable=True),
                column("reason", sa.Text(), "Why it is here, for who has to decide."),
                column("attempts", sa.Integer(), "How often it was tried."),
                column("parked_at", time, "When it was put aside."),
            ],
        ),
    }
    present = set(sa.inspect(op.get_bind()).get_table_names())
    for table, (comment, columns) in tables.items():
        if table not in present:
            op.create_table(table, *columns, comment=comment)
        elif op.get_bind().dialect.supports_comments:
            op.create_table_comment(table, comment)
            for one in columns:
                op.alter_column(table, one.name, comment=one.comment)
