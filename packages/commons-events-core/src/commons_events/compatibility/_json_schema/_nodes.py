"""What a JSON Schema says, one kind of node for each kind of statement.

Confluent's rules compare kinds with kinds. So a schema that states several things at once becomes an ``allOf`` of them:
``{"type": "string", "enum": ["a"]}`` is a `Text` and an `Enumeration`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

__all__ = [
    "Anything",
    "Array",
    "Boolean",
    "Combined",
    "Conditional",
    "Constant",
    "Criterion",
    "Enumeration",
    "Link",
    "Node",
    "Not",
    "Nothing",
    "Null",
    "Number",
    "Object",
    "Reference",
    "Text",
    "as_text",
    "canonical",
    "describe",
    "shown",
]

Criterion = Literal["allOf", "anyOf", "oneOf"]


@dataclass(slots=True, eq=False)
class Link:
    """A place where a schema stands: its node is known once the document is loaded."""

    raw: Any
    node: Node | None = None
    default: str | None = None
    """The default that stands right here, a reference's own included."""
    key: str = ""
    """The same for two schemas that say the same; empty for one that nobody wrote."""

    @property
    def target(self) -> Node:
        """The node, references followed."""
        node = self.node
        while isinstance(node, Reference):
            node = node.link.node
        assert node is not None
        return node


@dataclass(slots=True, eq=False, kw_only=True)
class Node:
    """One statement about values, with what stands beside it."""

    raw: Any = None
    """The schema as it was written: a dict or a bool."""
    id: str | None = None
    title: str | None = None
    description: str | None = None
    default: str | None = None
    """The default in canonical form."""


class Anything(Node):
    """``true``, ``{}``, or nothing that a rule knows."""


class Nothing(Node):
    """``false``."""


class Boolean(Node):
    """``type: boolean``."""


class Null(Node):
    """``type: null``."""


@dataclass(slots=True, eq=False, kw_only=True)
class Text(Node):
    """``type: string``, or the keywords of strings alone."""

    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Number(Node):
    """``type: number`` or ``integer``, or the keywords of numbers alone."""

    integer: bool = False
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    exclusive_minimum: Decimal | bool | None = None
    exclusive_maximum: Decimal | bool | None = None
    """A number; in draft 4 whether ``maximum`` itself is excluded."""
    multiple_of: Decimal | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Object(Node):
    """``type: object``, or the keywords of objects alone."""

    properties: dict[str, Link] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    min_properties: int | None = None
    max_properties: int | None = None
    patterns: dict[str, Link] = field(default_factory=dict)
    additional: Link | bool = True
    unevaluated: Link | None = None
    dependent_required: dict[str, frozenset[str]] = field(default_factory=dict)
    dependent_schemas: dict[str, Link] = field(default_factory=dict)


@dataclass(slots=True, eq=False, kw_only=True)
class Array(Node):
    """``type: array``, or the keywords of arrays alone."""

    every: Link | None = None
    """The schema of all items, where there is no tuple."""
    tuple: list[Link] = field(default_factory=list)
    additional: Link | bool = True
    unevaluated: Link | None = None
    min_items: int | None = None
    max_items: int | None = None
    unique: bool = False
    min_contains: int | None = None
    max_contains: int | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class Constant(Node):
    """``const``."""

    value: str
    """In canonical form."""


@dataclass(slots=True, eq=False, kw_only=True)
class Enumeration(Node):
    """``enum``."""

    values: frozenset[str]
    """In canonical form."""


@dataclass(slots=True, eq=False, kw_only=True)
class Not(Node):
    """``not``."""

    link: Link


@dataclass(slots=True, eq=False, kw_only=True)
class Combined(Node):
    """``allOf``, ``anyOf``, ``oneOf``, a list of types, or several statements at once."""

    criterion: Criterion
    members: list[Link]


@dataclass(slots=True, eq=False, kw_only=True)
class Conditional(Node):
    """``if``, ``then``, ``else``: Confluent's rules don't look into it."""


@dataclass(slots=True, eq=False, kw_only=True)
class Reference(Node):
    """``$ref`` and its like."""

    link: Link


# --- in words --------------------------------------------------------------------------------------------------


def as_text(schema: dict[str, Any]) -> str:
    """A text that two schemas share where they say the same."""
    return json.dumps(schema, sort_keys=True, default=repr)


def canonical(value: Any) -> str:
    """A text that two values share just where they are equal in JSON Schema's sense: 1.0 is 1, and true is not."""
    return json.dumps(_exact(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _exact(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        sign, digits, exponent = Decimal(value).as_tuple()
        text = "".join(map(str, digits))
        stripped = text.rstrip("0")
        if not stripped:
            return [_NUMBER]
        return [_NUMBER, sign, stripped, int(exponent) + len(text) - len(stripped)]
    return value


_NUMBER = "\0number"
"""No JSON text of a schema in use has it."""


def shown(value: Any) -> str:
    """A value as it stands in a message: JSON, cut short."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


_MOST_SHOWN = 80


def describe(node: Node) -> str:
    """What a node is, in two or three words."""
    match node:
        case Number():
            return "integer" if node.integer else "number"
        case Enumeration():
            return f"enum {shown(node.raw['enum'])}"
        case Constant():
            return f"const {shown(node.raw['const'])}"
        case Combined():
            return f"{node.criterion} of {len(node.members)} schemas"
        case Not():
            return "not"
    return _WORDS[type(node)]


_WORDS: dict[type[Node], str] = {
    Anything: "any value",
    Nothing: "no value (false)",
    Boolean: "boolean",
    Null: "null",
    Text: "string",
    Object: "object",
    Array: "array",
    Conditional: "if/then/else",
}
