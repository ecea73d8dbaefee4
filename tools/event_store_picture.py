"""The event store's tables as a picture, ``docs/event-store-tables.svg``: made from the tables as the code has them.

``python -m tools.event_store_picture`` writes it; with ``--check`` it only says whether it is up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

PICTURE = Path(__file__).parent.parent / "docs" / "event-store-tables.svg"

COLUMNS = (
    ("streams", "snapshots", "version"),
    ("events", "leases", "workers"),
    ("checkpoints", "projections", "parked"),
    ("streams on SQLite", "events on SQLite", "kinds", "blocks", "tags"),
)
"""Which tables stand below each other; their names without what all begin with."""
LINKS = (
    ("events", "stream_id", "streams", "stream_id"),
    ("snapshots", "id", "streams", "id"),
    ("parked", "position", "events", "position"),
    ("parked", "projection", "projections", "name"),
    ("projections", "name", "checkpoints", "name"),
    ("leases", "group_name", "workers", "group_name"),
    ("events on SQLite", "stream_id", "streams on SQLite", "stream_id"),
    ("events on SQLite", "kind_id", "kinds", "kind_id"),
    ("blocks", "kind_id", "kinds", "kind_id"),
    ("tags", "position", "events on SQLite", "position"),
)
"""Columns that hold the same values. None is a foreign key."""
PREFIX = "commons_events_"

CHARACTER, LINE, HEAD, PAD, GAP_X, GAP_Y = 7.3, 18, 26, 8, 56, 24


class Box(NamedTuple):
    """A table's place."""

    table: Any
    rows: list[tuple[str, str, str]]
    x: float
    y: float
    width: float

    @property
    def height(self) -> float:
        return HEAD + LINE * len(self.rows) + PAD

    def middle(self, column: str) -> float:
        """The height of a column's line."""
        number = [name for name, _, _ in self.rows].index(column)
        return self.y + HEAD + LINE * number + LINE / 2


def rows_of(table: Any) -> list[tuple[str, str, str]]:
    """Each column's name, type on PostgreSQL (of SQLite's own tables on SQLite), and what it is found by."""
    from sqlalchemy import UniqueConstraint
    from sqlalchemy.dialects import postgresql, sqlite

    from commons_events.sourcing._tables import sqlite_metadata

    on_sqlite = table.metadata is sqlite_metadata
    dialect: Any = sqlite.dialect() if on_sqlite else postgresql.dialect()  # type: ignore[no-untyped-call]
    unique = [constraint for constraint in table.constraints if isinstance(constraint, UniqueConstraint)]
    found = []
    for column in table.columns:
        kind = column.type.compile(dialect=dialect).lower().removesuffix(' collate "c"')
        kind = kind.replace("timestamp with time zone", "timestamptz") + ("" if not column.nullable else " null")
        marks = ["primary key"] if column.primary_key else []
        for constraint in unique:
            names = [one.name for one in constraint.columns]
            if column.name == names[0]:
                marks.append("unique" + (f" with {', '.join(names[1:])}" if names[1:] else ""))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            names = [one.name for one in index.columns]
            if column.name == names[0]:
                how = index.dialect_options["postgresql"]["using"]
                marks.append((f"{how} " if how else "") + "index" + (f" with {names[1]}" if names[1:] else ""))
        found.append((column.name, kind, ", ".join(marks)))
    return found


def boxes() -> dict[str, Box]:
    """Each table's place, by its short name."""
    from commons_events.sourcing import _tables

    tables = {name.removeprefix(PREFIX): table for name, table in _tables.metadata.tables.items()}
    tables |= {"events on SQLite": _tables.events_on_sqlite, "streams on SQLite": _tables.streams_on_sqlite}
    tables |= {"kinds": _tables.kinds, "blocks": _tables.blocks, "tags": _tables.tags}
    drawn = [name for column in COLUMNS for name in column]
    if sorted(drawn) != sorted(tables):
        raise SystemExit(f"tools/event_store_picture.py: COLUMNS has {sorted(drawn)}, the store {sorted(tables)}.")
    placed: dict[str, Box] = {}
    x = float(PAD)
    for column in COLUMNS:
        rows = {name: rows_of(tables[name]) for name in column}
        length = max(max([len(PREFIX + name), *(sum(map(len, row)) + 4 for row in rows[name])]) for name in column)
        width, y = length * CHARACTER + 2 * PAD, float(PAD)
        for name in column:
            placed[name] = Box(tables[name], rows[name], x, y, width)
            y += placed[name].height + GAP_Y
        x += width + GAP_X
    return placed


def link(one: Box, column: str, other: Box, target: str) -> str:
    """A line between two columns, outside the boxes."""
    start, end = one.middle(column), other.middle(target)
    if one.x == other.x:  # below each other: around at the left
        turn = one.x - GAP_X / 3
        path = f"M{one.x:g} {start:g}H{turn:g}V{end:g}H{other.x:g}"
    else:
        left, right = (one, other) if one.x < other.x else (other, one)
        first, last = (start, end) if left is one else (end, start)
        turn = right.x - GAP_X / 2
        path = f"M{left.x + left.width:g} {first:g}H{turn:g}V{last:g}H{right.x:g}"
    return f'<path class="link" d="{path}"/>'


def lines() -> Iterator[str]:
    """The picture, line by line."""
    placed = boxes()
    left = GAP_X / 3
    width = max(box.x + box.width for box in placed.values()) + PAD + left
    height = max(box.y + box.height for box in placed.values()) + PAD
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-left:g} 0 {width:g} {height:g}" role="img">'
    yield "<title>The tables of the event store</title>"
    yield "<style>"
    yield "text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1f2328}"
    yield ".name{font-weight:bold}.type{fill:#59636e}.mark{fill:#0550ae}"
    yield ".box{fill:#fff;stroke:#8c959f}.head{fill:#eaeef2;stroke:#8c959f}.link{fill:none;stroke:#0550ae}"
    yield "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.type{fill:#9198a1}.mark{fill:#79c0ff}"
    yield ".box{fill:#0d1117;stroke:#656c76}.head{fill:#212830;stroke:#656c76}.link{stroke:#79c0ff}}"
    yield "</style>"
    for short, box in placed.items():
        yield f"<g><title>{escape(str(box.table.comment))}</title>"
        yield f'<rect class="box" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}"/>'
        yield f'<rect class="head" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{HEAD - 4}"/>'
        yield f'<text class="name" x="{box.x + PAD:g}" y="{box.y + 16:g}">{PREFIX + short}</text>'
        for name, kind, mark in box.rows:
            y = box.middle(name) + 4
            x = box.x + PAD
            yield f'<text x="{x:g}" y="{y:g}">{name}</text>'
            x += (len(name) + 1) * CHARACTER
            yield f'<text class="type" x="{x:g}" y="{y:g}">{escape(kind)}</text>'
            if mark:
                x += (len(kind) + 1) * CHARACTER
                yield f'<text class="mark" x="{x:g}" y="{y:g}">{escape(mark)}</text>'
        yield "</g>"
    for one, column, other, target in LINKS:
        yield link(placed[one], column, placed[other], target)
    yield "</svg>"


def picture() -> str:
    """The picture's text."""
    return "\n".join(lines()) + "\n"


def main() -> int:
    """Write the picture, or check it."""
    made = picture()
    if "--check" in sys.argv[1:]:
        if PICTURE.is_file() and PICTURE.read_text("utf-8") == made:
            return 0
        sys.stderr.write(f"{PICTURE.name} is not what the tables are now; run: python -m tools.event_store_picture\n")
        return 1
    PICTURE.write_text(made, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
