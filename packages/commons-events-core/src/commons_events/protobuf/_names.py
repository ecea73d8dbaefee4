"""Names in Protobuf for what has others in Python."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum as PyEnum
from functools import lru_cache

from commons_events.shapes import (
    Array,
    Enumeration,
    Field,
    Literals,
    Map,
    Other,
    Record,
    Scalar,
    Shape,
    Tuple,
)

__all__ = [
    "camel",
    "entry_name",
    "enum_doc",
    "field_names",
    "folded",
    "identifier",
    "member_label",
    "snake",
    "unique",
    "unique_as",
    "word",
]


def field_names(fields: Sequence[Field]) -> dict[str, str]:
    """Each field's name in Protobuf: its own, unless two would be the same in Protobuf's JSON, or it is not ASCII."""
    taken: set[str] = set()
    return {f.name: unique_as(identifier(f.name), taken, _json_name) for f in fields}


@lru_cache(maxsize=1024)
def _json_name(name: str) -> str:
    return re.sub(r"_+(.?)", lambda match: match[1].upper(), name)


def entry_name(name: str) -> str:
    """As protoc makes the name of a map's entry."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


@lru_cache(maxsize=1024)
def identifier(text: str) -> str:
    ascii_only = "".join(c if c.isascii() else f"_u{ord(c):x}" for c in text)
    cleaned = re.sub(r"[^0-9A-Za-z_]", "_", ascii_only)
    return cleaned if cleaned[:1].isalpha() else f"x{cleaned}"


def camel(text: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in identifier(text).split("_"))


@lru_cache(maxsize=1024)
def snake(text: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text).lower()


def unique(name: str, taken: set[str]) -> str:
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}{count}"
    taken.add(found)
    return found


def unique_as(name: str, taken: set[str], compared: Callable[[str], str]) -> str:
    """As `unique`, for names that must differ in what is ``compared``."""
    found, count = name, 1
    while compared(found) in taken:
        count += 1
        found = f"{name}_{count}"
    taken.add(compared(found))
    return found


def folded(name: str) -> str:
    return name.replace("_", "").lower()


def word(shape: Shape) -> str:
    return {Array: "List", Map: "Map"}.get(type(shape), "Box")


def member_label(shape: Shape) -> str:
    """What a member of a union is called."""
    if isinstance(shape, Scalar):
        return f"{shape.kind}_value"
    if isinstance(shape, Record):
        return snake(identifier(shape.name))
    if isinstance(shape, Enumeration):
        return snake(identifier(shape.cls.__name__))
    if isinstance(shape, Other):
        return f"{identifier(shape.name.replace('-', '_'))}_value"
    return {Array: "list_value", Map: "map_value", Tuple: "tuple_value", Literals: "literal_value"}.get(
        type(shape), "other_value"
    )


def enum_doc(cls: type[PyEnum]) -> str | None:
    doc = cls.__dict__.get("__doc__")
    return None if not doc or doc == "An enumeration." else doc.strip()
