"""Whether JSON that pydantic writes for a type is read back as the same value: found out when a class is created."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from pydantic import EncodedBytes, EncodedStr
from pydantic_core import PydanticSerializationError, SchemaSerializer, SchemaValidator, core_schema

__all__ = ["unreadable"]

Schema = dict[str, Any]
_PLAIN = frozenset({str, int, bool, type(None)})
"""Types of constants that JSON has itself."""
_INSIDE = frozenset({"function-after", "function-before", "function-wrap", "nullable", "default"})


def unreadable(node: Schema) -> tuple[str, str] | None:
    """What is wrong with a type and what to use in its place; None where its JSON can be read.

    Args:
        node: the type's core schema, as pydantic made it. Only the type itself is looked at, and a dict's keys.
    """
    check = _CHECKS.get(node["type"])
    return None if check is None else check(node)


def _constants(node: Schema) -> tuple[str, str] | None:
    """An enum or literal: its members are few, so each is written and read."""
    is_enum = node["type"] == "enum"
    members = node["members"] if is_enum else node["expected"]
    if all(type(member.value if is_enum else member) in _PLAIN for member in members):
        return None
    for member in members:
        if not _comes_back(node, member):
            if is_enum:
                return (
                    f"is the enum {node['cls'].__qualname__}, whose {member!r} JSON cannot hold so that it can be read",
                    "Give the members values that are str or int, or the enum a _missing_ that finds them",
                )
            return f"has the literal {member!r}, which is not read from JSON", "Use an enum, or constants of str or int"
    return None


def _keys(node: Schema) -> tuple[str, str] | None:
    """A dict: JSON's keys are text, which must not be some other key's."""
    advice = "Use keys of str, or a list of pairs"
    keys = node.get("keys_schema")
    inner = keys
    while inner is not None and inner["type"] in _INSIDE:
        if inner["type"] == "nullable":
            return "is a dict with the key None, which JSON writes as the text 'None'", advice
        inner = inner["schema"]
    kind = None if inner is None else inner["type"]
    if kind in ("none", "tuple", "list", "frozenset", "model", "dataclass", "call"):
        return f"is a dict whose keys are of the type {kind}, which JSON's keys, text, cannot hold", advice
    if kind == "union" and any(_bare_type(choice) != "str" for choice in cast(Schema, inner)["choices"]):
        return "is a dict with keys of several types, and JSON's keys, text, do not say which", advice
    if kind in ("enum", "literal"):
        constants = cast(Schema, inner)
        for key in constants["members"] if kind == "enum" else constants["expected"]:
            if not _comes_back({"type": "dict", "keys_schema": keys}, {key: None}):
                return f"is a dict with the key {key!r}, which is not read from JSON", advice
    return None


def _bare_type(choice: Any) -> str:
    node = choice[0] if isinstance(choice, tuple) else choice
    return "str" if node["type"] == "literal" and all(type(v) is str for v in node["expected"]) else str(node["type"])


def _comes_back(node: Schema, value: Any) -> bool:
    schema = cast(core_schema.CoreSchema, {key: item for key, item in node.items() if key != "ref"})
    try:
        found = SchemaValidator(schema).validate_json(SchemaSerializer(schema).to_json(value))
    except (PydanticSerializationError, ValueError):
        return False
    return type(found) is type(value) and bool(found == value)


def _naive(node: Schema) -> tuple[str, str] | None:
    if node.get("tz_constraint") != "naive":
        return None
    return "is a NaiveDatetime, and an event's datetimes are aware", "Use datetime: a naive one is taken as UTC"


def _json_text(node: Schema) -> tuple[str, str]:
    return "is pydantic's Json, which is written otherwise than it is read", "Use the type inside it, or str"


def _generator(node: Schema) -> tuple[str, str]:
    return "is an Iterable, which can be read only once and equals none", "Use list"


def _encoded(node: Schema) -> tuple[str, str] | None:
    encoder = getattr(node["function"].get("function"), "__self__", None)
    if not isinstance(encoder, EncodedBytes | EncodedStr):
        return None
    type_, plain = ("EncodedStr", "str") if isinstance(encoder, EncodedStr) else ("EncodedBytes", "bytes")
    return (
        f"is pydantic's {type_} ({encoder.encoder.__name__}), which decodes its own values another time whenever it "
        "validates them",
        f"Use {plain}" + (", which is base64 in JSON" if plain == "bytes" else ""),
    )


def _code(node: Schema) -> tuple[str, str]:
    return "is a class or a function, which bytes cannot hold", "Use a str that names it"


_CHECKS: dict[str, Callable[[Schema], tuple[str, str] | None]] = {
    "enum": _constants,
    "literal": _constants,
    "dict": _keys,
    "datetime": _naive,
    "json": _json_text,
    "generator": _generator,
    "function-after": _encoded,
    "callable": _code,
    "is-subclass": _code,
}
