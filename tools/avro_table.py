"""Writes the table of what maps to what into docs/avro.md, from the code itself; `--check` only tells of drift."""

from __future__ import annotations

import json
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, SecretStr, create_model

from commons_events import Event
from commons_events.event import registry
from commons_events.plugins import serializer
from tools.tables import Table
from tools.workspace import ROOT


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Grade(IntEnum):
    LOW = 1
    HIGH = 2


class Right(Flag):
    READ = 1
    WRITE = 2


class Money(BaseModel):
    amount: int


ROWS: list[tuple[str, Any, str]] = [
    ("`str`", str, ""),
    ("`int`", int, "past 64 bits refused when written"),
    ("`int` with limits past 64 bits", Annotated[int, Field(ge=0, le=2**128)], "`Field(ge=0, le=2**128)`"),
    ("`float`", float, "NaN and infinity too"),
    ("`bool`", bool, ""),
    ("`None`", None, ""),
    ("`bytes`", bytes, ""),
    ("`Decimal`", Decimal, "its text: every digit and exponent holds"),
    (
        "`Decimal` of stated digits",
        Annotated[Decimal, Field(max_digits=10, decimal_places=2)],
        "`Field(max_digits=10, decimal_places=2)`; comes back with two places, and zero without a sign",
    ),
    ("`datetime`", datetime, "comes back in UTC: the same moment"),
    ("`date`", date, ""),
    ("`time`", time, "without an offset; with one it is refused when written"),
    ("`timedelta`", timedelta, "seconds with microseconds: a `long` of microseconds is too short for `timedelta.max`"),
    ("`UUID`", UUID, ""),
    ("`Enum`, values are Avro names", Color, "symbols are the values"),
    ("`Enum`, other values", Grade, "symbols are the members' names"),
    ("`Flag`", Right, "combinations have no symbol"),
    ('`Literal["a", "b"]`', Literal["a", "b"], "others are refused when read"),
    ("`list[int]`, `set`, `frozenset`, `tuple[int, ...]`", list[int], ""),
    ("`tuple[int, str]`", tuple[int, str], ""),
    ("`dict[str, int]`", dict[str, int], ""),
    ("`dict[int, str]`", dict[int, str], "other keys than `str`"),
    ("`int | None = None`", (int | None, None), "`null` first where the default is None or there is none"),
    ("`int | None = 0`", (int | None, 0), "else the default's type first"),
    ("`int | str`", int | str, ""),
    ("`list[int] | list[str]`", list[int] | list[str], "Avro has one array a union: the second is in a record"),
    ("a model, a dataclass, a typed dict", Money, "once; later by its name"),
    ("`SecretStr`, `SecretBytes`, `Secret[X]`", SecretStr, "the secret's JSON text, in clear: see JSON"),
    ("another type (`IPv4Address`, a URL …)", IPv4Address, "its JSON text"),
    ("`Any`", Any, "`commons_events.Value`, below"),
]


def table() -> str:
    """The table in Markdown."""
    lines = ["| in Python | in Avro | |", "| --- | --- | --- |"]
    codec = serializer("avro")
    for name, annotation, remark in ROWS:
        field = annotation if isinstance(annotation, tuple) else (annotation, ...)
        with registry.isolated():
            fields: dict[str, Any] = {"field": field}
            cls = create_model("Example", __base__=Event, __module__=__name__, **fields)
            schema = json.loads(codec.schema(cls))
        type_ = next(item["type"] for item in schema["fields"] if item["name"] == "field")
        cells = (name, f"`{json.dumps(_shortened(type_))}`", remark)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _shortened(type_: Any) -> Any:
    if isinstance(type_, list):
        return [_shortened(item) for item in type_]
    if isinstance(type_, dict):
        return {name: _shortened(item) for name, item in type_.items() if name not in ("namespace", "doc")}
    return type_


TABLE = Table(ROOT / "docs" / "avro.md", "tools.avro_table", table)

if __name__ == "__main__":
    sys.exit(TABLE.run())
