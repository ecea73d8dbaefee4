"""Writes the table of field types into docs/json.md, from the code itself; `--check` only tells of drift."""

from __future__ import annotations

import json
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, SecretStr, TypeAdapter, create_model

from commons_events import Event
from commons_events.event import registry
from commons_events.plugins import serializer
from tools.avro_table import Color, Money
from tools.tables import Table
from tools.workspace import ROOT

ROWS: list[tuple[str, Any, Any]] = [
    ("`str`", str, "Ada"),
    ("`int`", int, 2**70),
    ("`float`", float, 1.5),
    ("`bool`", bool, True),
    ("`None`", None, None),
    ("`bytes`", bytes, b"\xff\x00"),
    ("`Decimal`", Decimal, Decimal("1.50")),
    ("`datetime`", datetime, datetime(2024, 2, 29, 12)),
    ("`date`", date, date(2024, 2, 29)),
    ("`time`", time, time(12, 30)),
    ("`timedelta`", timedelta, timedelta(days=1, seconds=1.5)),
    ("`UUID`", UUID, UUID(int=1)),
    ("`Enum`", Color, Color.RED),
    ('`Literal["a", "b"]`', Literal["a", "b"], "a"),
    ("`Literal[Color.RED]`", Literal[Color.RED], Color.RED),
    ("a model, a dataclass, a typed dict", Money, Money(amount=1)),
    ("`list[int]`, `Sequence[int]`, `tuple[int, ...]`", list[int], [1, 2]),
    ("`set[int]`, `frozenset[int]`", set[int], {1}),
    ("`tuple[int, str]`", tuple[int, str], (1, "a")),
    ("`dict[str, int]`", dict[str, int], {"a": 1}),
    ("`dict[int, str]`", dict[int, str], {1: "a"}),
    ("`int \\| None`", int | None, None),
    ("`int \\| str`", int | str, "a"),
    ("`Annotated[int, Field(ge=0)]`", Annotated[int, Field(ge=0)], 1),
    ("`SecretStr`, `SecretBytes`, `Secret[X]`", SecretStr, SecretStr("hush")),
    ("`Any`", Any, {"a": [1, 2.0, None]}),
]


def table() -> str:
    """The table in Markdown."""
    lines = ["| in Python | a value of it in JSON | in JSON Schema |", "| --- | --- | --- |"]
    codec = serializer("jsonschema")
    for name, annotation, value in ROWS:
        with registry.isolated():
            fields: dict[str, Any] = {"field": (annotation, ...)}
            cls = create_model("Example", __base__=Event, __module__=__name__, **fields)
            written = TypeAdapter(dict[str, Any]).validate_json(cls(field=value).to_json())["field"]
            node = json.loads(codec.schema(cls))["properties"]["field"]
        node.pop("title", None)
        cells = (f"`{json.dumps(written)}`", f"`{json.dumps(node)}`")
        lines.append(f"| {name} | " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


TABLE = Table(ROOT / "docs" / "json.md", "tools.json_table", table)

if __name__ == "__main__":
    sys.exit(TABLE.run())
