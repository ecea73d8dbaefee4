"""Members of a union that JSON cannot tell apart."""

from __future__ import annotations

from typing import Any

__all__ = ["alike", "word"]

Schema = dict[str, Any]
_WRAPPERS = frozenset({"function-after", "function-before", "function-wrap", "default", "nullable"})
_TEXT = frozenset(
    {"datetime", "date", "time", "timedelta", "uuid", "decimal", "bytes", "url", "multi-host-url", "complex"}
)
_ARRAYS = frozenset({"list", "set", "frozenset", "tuple", "generator"})
_OBJECTS = frozenset({"dict", "model", "typed-dict", "dataclass", "model-fields", "dataclass-args"})


def alike(one: Schema, other: Schema) -> bool:
    """Whether some value of one may be read as the other from JSON, and not be equal then."""
    one, other = _bare(one), _bare(other)
    kinds = {_kind(one), _kind(other)}
    if len(kinds) > 1:
        return "any" in kinds and kinds != {"any", "null"}
    kind = kinds.pop()
    if kind == "text":
        return not (_plain_text(one) and _plain_text(other))
    if kind == "array":
        if one["type"] != other["type"] or one["type"] == "tuple":
            return True
        return alike(one.get("items_schema") or {"type": "any"}, other.get("items_schema") or {"type": "any"})
    if kind == "object":
        if one["type"] == other["type"] == "dict":
            return alike(one.get("values_schema") or {"type": "any"}, other.get("values_schema") or {"type": "any"})
        return True
    return kind in ("union", "unknown") or "enum" in (one["type"], other["type"])


def _bare(node: Schema) -> Schema:
    while node["type"] in _WRAPPERS and "schema" in node:
        node = node["schema"]
    if node["type"] == "json-or-python":
        return _bare(node["json_schema"])
    return node


def _kind(node: Schema) -> str:
    type_ = node["type"]
    if type_ in ("str", *_TEXT):
        return "text"
    if type_ in ("literal", "enum"):
        values = node["expected"] if type_ == "literal" else [member.value for member in node["members"]]
        types = {type(value) for value in values}
        return _VALUE_KINDS.get(types.pop(), "unknown") if len(types) == 1 else "unknown"
    if type_ in _ARRAYS:
        return "array"
    if type_ in _OBJECTS or type_ == "definition-ref":
        return "object"
    if type_ in ("union", "tagged-union"):
        return "union"
    return {"int": "int", "float": "float", "bool": "bool", "none": "null", "any": "any"}.get(type_, "unknown")


_VALUE_KINDS: dict[type, str] = {str: "text", int: "int", bool: "bool", float: "float", type(None): "null"}


def _plain_text(node: Schema) -> bool:
    """Whether a value is just the str that JSON holds."""
    return node["type"] == "str" or (node["type"] == "literal" and all(type(v) is str for v in node["expected"]))


def word(node: Schema) -> str:
    node = _bare(node)
    name = getattr(node.get("cls"), "__qualname__", None)
    return str(name or node["type"])
