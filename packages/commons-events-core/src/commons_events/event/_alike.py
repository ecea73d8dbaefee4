"""Members of a union that JSON cannot tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["alike", "word"]

Schema = dict[str, Any]
Definitions = Mapping[str, Schema]
_WRAPPERS = frozenset({"function-after", "function-before", "function-wrap", "default", "nullable"})
_TEXT = frozenset(
    {
        "datetime",
        "date",
        "time",
        "timedelta",
        "uuid",
        "decimal",
        "bytes",
        "url",
        "multi-host-url",
        "complex",
        "fraction",
    }
)
_ARRAYS = frozenset({"list", "set", "frozenset", "tuple", "generator", "deque"})
_OBJECTS = frozenset(
    {"dict", "ordered-dict", "counter", "model", "typed-dict", "dataclass", "model-fields", "dataclass-args"}
)
_KINDS = {
    "int": "int", "float": "float", "bool": "bool", "none": "null", "any": "any", "str": "text",
    **dict.fromkeys(_TEXT, "text"), **dict.fromkeys(_ARRAYS, "array"), **dict.fromkeys(_OBJECTS, "object"),
}  # fmt: skip
_VALUE_KINDS: dict[type, str] = {str: "text", int: "int", bool: "bool", float: "float", type(None): "null"}
_PLAIN = frozenset({"str", "int", "float", "bool", "none", "any"})
"""Types whose values are what JSON holds itself."""
_NUMBERS = frozenset({"int", "float", "null"})


def alike(one: Schema, other: Schema, definitions: Definitions) -> bool:
    """Whether some value of one may be read as the other from JSON, and not be equal then."""
    one, other = _bare(one, definitions), _bare(other, definitions)
    ours, theirs = _kinds(one, definitions), _kinds(other, definitions)
    if "any" in ours | theirs:
        return ours != theirs and ours | theirs != {"any", "null"}
    if "unknown" in ours | theirs:
        return not (ours <= _NUMBERS or theirs <= _NUMBERS)
    if not (ours & theirs) - {"null"} or (_is_plain(one) and _is_plain(other)):
        return False
    if one["type"] == other["type"] in ("list", "set", "frozenset", "dict"):
        inner = "values_schema" if one["type"] == "dict" else "items_schema"
        return alike(one.get(inner) or {"type": "any"}, other.get(inner) or {"type": "any"}, definitions)
    return True


def _bare(node: Schema, definitions: Definitions) -> Schema:
    """Without what is around it: validators, a default, what only a program's values pass through."""
    while True:
        if node["type"] in _WRAPPERS and "schema" in node:
            node = node["schema"]
        elif node["type"] == "definition-ref" and node["schema_ref"] in definitions:
            node = definitions[node["schema_ref"]]
        elif node["type"] == "json-or-python" and not _converts(node["json_schema"]):
            node = node["json_schema"]
        else:
            return node


def _converts(node: Schema) -> bool:
    """Whether a type of others is made of what JSON holds."""
    return node["type"] in ("chain", "lax-or-strict") or node["type"].startswith("function-")


def _kinds(node: Schema, definitions: Definitions) -> frozenset[str]:
    """What JSON may hold of it."""

    def inside(*parts: Schema) -> frozenset[str]:
        return frozenset().union(*(_kinds(_bare(part, definitions), definitions) for part in parts))

    written = (node.get("serialization") or {}).get("return_schema")
    if written is not None:
        return inside(written, {key: value for key, value in node.items() if key != "serialization"})
    match node["type"]:
        case "literal" | "enum":
            values = [getattr(value, "value", value) for value in node.get("expected") or node["members"]]
            return frozenset(_VALUE_KINDS.get(type(value), "unknown") for value in values)
        case "union":
            return inside(*(choice[0] if isinstance(choice, tuple) else choice for choice in node["choices"]))
        case "tagged-union":
            return inside(*(choice for choice in node["choices"].values() if isinstance(choice, dict)))
        case "lax-or-strict":
            return inside(node["strict_schema"])
        case "json-or-python":
            return inside(node["json_schema"])
        case "chain":
            return inside(node["steps"][0])
        case "named-tuple" | "call":  # read from both
            return frozenset({"array", "object"})
        case "model" if node.get("root_model"):
            return inside(node["schema"])
        case "definition-ref":  # of a type that is inside itself
            return frozenset({"object"})
        case type_:
            return frozenset({_KINDS.get(type_, "unknown")})


def _is_plain(node: Schema) -> bool:
    if node["type"] == "literal":
        return all(type(value) in _VALUE_KINDS for value in node["expected"])
    return node["type"] in _PLAIN


def word(node: Schema, definitions: Definitions | None = None) -> str:
    """What a member is called in a message."""
    node = _bare(node, definitions or {})
    name = getattr(_class_of(node), "__qualname__", None)
    return str(name or node["type"])


def _class_of(node: Any) -> Any:
    """The class that a type of others makes, where its schema names one."""
    if "cls" in node:
        return node["cls"]
    below: Sequence[Any] = [node.get("strict_schema"), node.get("python_schema"), *node.get("choices", ())]
    return next(filter(None, (_class_of(part) for part in below if isinstance(part, dict))), None)
