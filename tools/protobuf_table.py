"""Writes the table of field types into docs/protobuf.md, from the code itself; `--check` only tells of drift."""

from __future__ import annotations

import re
import sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, SecretStr

from commons_events import Event
from commons_events.event import registry
from commons_events.protobuf import ProtobufSerializer
from tools.tables import Table
from tools.workspace import ROOT


class Color(Enum):
    RED = "red"


class Line(BaseModel):
    sku: str


ROWS: tuple[tuple[str, Any, str], ...] = (
    ("`str`", str, ""),
    ("`int`", int, "64 bits; a longer one is refused by `serialize()`. Inside `Any` an int may have any size"),
    (
        "`int` with limits past 64 bits",
        Annotated[int, Field(ge=0, lt=2**128)],
        "decimal text: `Field(ge=0, lt=2**128)`",
    ),
    ("`float`", float, "NaN, the infinities and -0.0 too"),
    ("`bool`", bool, ""),
    ("`bytes`", bytes, ""),
    ("`datetime`", datetime, "the instant, to the microsecond; its offset is not kept (the datetime is equal)"),
    ("`timedelta`", timedelta, "beyond ±10,000 years other libraries may refuse it"),
    ("`date`", date, "ISO 8601 text: `2024-02-29`"),
    ("`time`", time, "ISO 8601 text, with its offset if it has one"),
    ("`Decimal`", Decimal, "decimal text, with all of its digits"),
    ("`UUID`", UUID, "text (RFC 9562)"),
    ("`Enum`", Color, "members are numbered in their order; zero is no member's"),
    ("`Literal` of texts, ints, bools", Literal["a", "b"], "the type of the constants"),
    ("`Literal` of several types", Literal["a", 1], ""),
    ("`Optional[X]`", str | None, "absent is None, unless the default is another: see `blank_fields`"),
    ("a model, dataclass or typed dict", Line, "a message of its own"),
    ("`list`, `set`, `frozenset`, `tuple[X, …]`", list[int], ""),
    ("`list[Optional[X]]`, `list[list[X]]`", list[list[int]], "what cannot repeat is in a message around it"),
    ("`Optional[list[X]]`", list[int] | None, "so that None is not empty"),
    ("`tuple[X, Y]`", tuple[int, str], "fields `item_1`, `item_2` …"),
    ("`dict` with keys that are texts, ints or bools", dict[str, int], "in the dict's order"),
    ("`dict` with keys that are written as text", dict[UUID, int], ""),
    ("`dict` with other keys", dict[Color, int], "entries of `key` and `value`"),
    ("`Union[X, Y]`", int | str, "a message with a `oneof`: numbers of its own, so that members can be added"),
    ("`Any`", Any, "a message of the file: exact, where `google.protobuf.Value` has doubles"),
    ("`SecretStr`, `SecretBytes`, `Secret[X]`", SecretStr, "the secret's JSON text, in clear: see JSON"),
    ("another type of pydantic's", IPv4Address, "its JSON text"),
)


def table() -> str:
    lines = ["| Python | Protobuf | |", "| --- | --- | --- |"]
    with registry.isolated():
        for python, annotation, note in ROWS:
            cls = type("Shown", (Event,), {"__annotations__": {"field": annotation}, "__module__": __name__})
            text = ProtobufSerializer().schema(cls)
            found = re.search(r"^  (.*) field = 1;$", text, re.MULTILINE)
            assert found is not None, text
            lines.append(f"| {python} | `{found[1]}` | {note} |")
    return "\n".join(lines) + "\n"


TABLE = Table(ROOT / "docs" / "protobuf.md", "tools.protobuf_table", table)

if __name__ == "__main__":
    sys.exit(TABLE.run())
