"""What the codec's parts ask of a shape."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, NamedTuple

from commons_events.shapes import Map, Scalar, Shape

__all__ = ["ANY", "EXTRA", "NAME", "Entry", "Wrapped", "enum_symbols", "kind_of"]

ANY = "commons_events.Value"
"""The record that ``Any`` is."""
EXTRA = "_extra"
"""The field for what a class with ``extra="allow"`` has besides its own fields; no field of pydantic's begins so."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Entry(NamedTuple):
    """A key and its value: a record, for dicts whose keys are no str."""

    shape: Map


class Wrapped(NamedTuple):
    """A member of a union that Avro would not tell from another one: a record around it."""

    shape: Shape


def kind_of(shape: Any) -> str | None:
    """A scalar's kind; None for all else."""
    return shape.kind if isinstance(shape, Scalar) else None


def enum_symbols(cls: type[Enum]) -> dict[str, Enum] | None:
    """The members by their symbols: the values where all are names in Avro's sense, else the members' own names.

    None where neither are.
    """
    members = list(cls)
    by_value = {member.value: member for member in members if isinstance(member.value, str)}
    if members and len(by_value) == len(members) and all(NAME.fullmatch(value) for value in by_value):
        return by_value
    by_name = {member.name: member for member in members}
    return by_name if by_name and all(NAME.fullmatch(name) for name in by_name) else None
