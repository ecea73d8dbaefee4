"""Avro schemas (specification 1.12): parsed into nodes with their names resolved, canonical form and fingerprint."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from commons_events.errors import MissingDistributionError

try:
    from avro.errors import AvroException, IgnoredLogicalType
    from avro.schema import parse as avro_parse
except ImportError as error:
    raise MissingDistributionError(
        'The Avro codec needs the package avro. Type: pip install "commons-events-core[avro]"', name="avro"
    ) from error

__all__ = [
    "NO_DEFAULT",
    "SchemaField",
    "SchemaNode",
    "canonical_form",
    "canonical_text",
    "crc64",
    "fingerprint",
    "parse",
]

NO_DEFAULT: Any = object()
"""Stands for "this field has no default"."""
PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED = frozenset({"record", "error", "enum", "fixed"})
MAX_NESTING = 100
"""Levels of types inside types in a schema's text."""


@dataclass(eq=False, slots=True)
class SchemaField:
    """A field of a record."""

    name: str
    type: SchemaNode
    default: Any = NO_DEFAULT
    """As in the schema's JSON, or `NO_DEFAULT`."""
    doc: str | None = None
    aliases: tuple[str, ...] = ()
    required: bool = True
    """Whether a reader has no value for it where the writer lacks it."""


@dataclass(eq=False, slots=True)
class SchemaNode:
    """One type of a schema. A named type that recurs is the same node, so nodes are compared by identity."""

    kind: str
    """``record``, ``enum``, ``array``, ``map``, ``union``, ``fixed``, or the name of a primitive type."""
    name: str = ""
    """Full name of a named type."""
    fields: tuple[SchemaField, ...] = ()
    symbols: tuple[str, ...] = ()
    default: str | None = None
    """An enum's default symbol."""
    items: SchemaNode | None = None
    """What an array's items or a map's values are."""
    branches: tuple[SchemaNode, ...] = ()
    size: int = 0
    logical: str | None = None
    precision: int = 0
    scale: int = 0
    doc: str | None = None
    aliases: tuple[str, ...] = ()
    """Full names."""
    properties: Mapping[str, Any] = field(default_factory=dict)
    """What else the schema's JSON says: no rule of Avro's looks at it."""
    shape: Any = None
    """What the value is in Python, in a schema that was derived from an event class; None for generic data."""

    @property
    def short(self) -> str:
        """The name without its namespace."""
        return self.name.rpartition(".")[2]

    @property
    def item(self) -> SchemaNode:
        """What an array's items or a map's values are."""
        assert self.items is not None  # of arrays and maps alone
        return self.items

    def field(self, name: str) -> SchemaField | None:
        """The field of this name."""
        return next((f for f in self.fields if f.name == name), None)


def parse(schema: str | Mapping[str, Any] | list[Any]) -> SchemaNode:
    """The schema in a JSON text, or in what `json.loads` makes of one.

    The reference library judges whether it is one; a logical type that it does not know is passed over.

    Raises:
        ValueError: it is no Avro schema; the message says why.
    """
    text = schema if isinstance(schema, str) and not schema.isidentifier() else json.dumps(schema)
    try:
        document = json.loads(text)
        _check_nesting(document)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IgnoredLogicalType)
            avro_parse(text)
    except (AvroException, ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        # the library meets some documents with errors that are not its own
        raise ValueError(f"not an Avro schema: {type(error).__name__}: {error}") from error
    return _Parser().node(document, "")


def _check_nesting(value: Any, depth: int = 0) -> None:
    if depth > 3 * MAX_NESTING:
        raise ValueError(f"nested deeper than {MAX_NESTING} types")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_nesting(inner, depth + 1)


_RESERVED = frozenset(
    {"type", "name", "namespace", "fields", "symbols", "default", "items", "values", "size", "logicalType",
     "precision", "scale", "doc", "aliases", "order"}
)  # fmt: skip


class _Parser:
    """Names follow the specification's section Names: a full name, a namespace beside it, or the enclosing one."""

    def __init__(self) -> None:
        self._named: dict[str, SchemaNode] = {}

    def node(self, value: Any, namespace: str) -> SchemaNode:
        if isinstance(value, str):
            if value in PRIMITIVES:
                return SchemaNode(value)
            found = self._named.get(_full(value, namespace)) or self._named.get(value)
            if found is None:
                raise ValueError(f"not an Avro schema: {value!r} is not the name of a type")
            return found
        if isinstance(value, list):
            return SchemaNode("union", branches=tuple(self.node(branch, namespace) for branch in value))
        kind = value["type"]
        if not isinstance(kind, str) or (kind not in PRIMITIVES | NAMED and kind not in ("array", "map")):
            return self.node(kind, namespace)
        properties = {name: item for name, item in value.items() if name not in _RESERVED}
        node = SchemaNode("record" if kind == "error" else kind, doc=value.get("doc"), properties=properties)
        self._logical(node, value)
        if kind in NAMED:
            self._name(node, value, namespace)
        elif kind in ("array", "map"):
            node.items = self.node(value["items" if kind == "array" else "values"], namespace)
        return node

    def _name(self, node: SchemaNode, value: Mapping[str, Any], namespace: str) -> None:
        stated = value.get("namespace")
        node.name = _full(value["name"], namespace if stated is None else stated)
        inside = node.name.rpartition(".")[0]
        node.aliases = tuple(_full(alias, inside) for alias in value.get("aliases") or ())
        self._named[node.name] = node
        if node.kind == "fixed":
            node.size = value["size"]
        elif node.kind == "enum":
            node.symbols, node.default = tuple(value["symbols"]), value.get("default")
            if node.default is not None and node.default not in node.symbols:
                raise ValueError(f"not an Avro schema: {node.name}'s default {node.default!r} is none of its symbols")
        else:
            node.fields = tuple(
                SchemaField(
                    item["name"],
                    self.node(item["type"], inside),
                    item.get("default", NO_DEFAULT),
                    item.get("doc"),
                    tuple(item.get("aliases") or ()),
                    "default" not in item,
                )
                for item in value["fields"]
            )

    @staticmethod
    def _logical(node: SchemaNode, value: Mapping[str, Any]) -> None:
        logical = value.get("logicalType")
        if logical == "decimal" and node.kind in ("bytes", "fixed"):
            precision: Any = value.get("precision")
            scale: Any = value.get("scale", 0)
            most = _digits(value["size"]) if node.kind == "fixed" else None
            if _whole(precision) and _whole(scale) and 0 <= scale <= precision and 0 < precision <= (most or precision):
                node.logical, node.precision, node.scale = logical, precision, scale
        elif _LOGICAL.get(logical if isinstance(logical, str) else "") == node.kind:
            node.logical = logical


_LOGICAL = {
    "date": "int",
    "time-millis": "int",
    "time-micros": "long",
    "timestamp-millis": "long",
    "timestamp-micros": "long",
    "uuid": "string",
}
"""Which base type a logical type stands on; on another it is ignored, as the specification says."""


def _whole(number: object) -> bool:
    return type(number) is int


def _digits(size: int) -> int:
    """Decimal digits that a two's complement number of so many bytes holds."""
    return len(str((1 << (8 * min(size, 10_000) - 1)) - 1)) - 1 if size > 0 else 0


def _full(name: str, namespace: str) -> str:
    return name.removeprefix(".") if "." in name or not namespace else f"{namespace}.{name}"


# --- canonical form and fingerprint ----------------------------------------------------------------------------


def canonical_form(schema: str | Mapping[str, Any] | list[Any]) -> str:
    """The Parsing Canonical Form of a schema (Avro specification, section Parsing Canonical Form for Schemas).

    Args:
        schema: a JSON text, or what `json.loads` makes of one.

    Raises:
        ValueError: it is no Avro schema.
    """
    return canonical_text(parse(schema))


def fingerprint(schema: str | Mapping[str, Any] | list[Any]) -> bytes:
    """The CRC-64-AVRO fingerprint of a schema: 8 bytes, little-endian, as single-object encoding has them.

    Raises:
        ValueError: it is no Avro schema.
    """
    return crc64(canonical_form(schema).encode())


def canonical_text(node: SchemaNode) -> str:
    """The Parsing Canonical Form of a schema that is parsed already."""
    return "".join(_canonical(node, set()))


def _canonical(node: SchemaNode, seen: set[str]) -> Iterator[str]:
    if node.kind in PRIMITIVES:
        yield f'"{node.kind}"'
    elif node.kind == "union":
        yield "["
        yield from _separated(lambda branch: _canonical(branch, seen), node.branches)
        yield "]"
    elif node.kind in ("array", "map"):
        yield f'{{"type":"{node.kind}","{"items" if node.kind == "array" else "values"}":'
        yield from _canonical(node.item, seen)
        yield "}"
    elif node.name in seen:
        yield f'"{node.name}"'
    else:
        seen.add(node.name)
        yield f'{{"name":"{node.name}","type":"{node.kind}",'
        if node.kind == "record":
            yield '"fields":['
            yield from _separated(lambda f: _canonical_field(f, seen), node.fields)
            yield "]}"
        elif node.kind == "enum":
            yield '"symbols":[' + ",".join(f'"{symbol}"' for symbol in node.symbols) + "]}"
        else:
            yield f'"size":{node.size}}}'


def _canonical_field(item: SchemaField, seen: set[str]) -> Iterator[str]:
    yield f'{{"name":"{item.name}","type":'
    yield from _canonical(item.type, seen)
    yield "}"


def _separated(text: Callable[[Any], Iterator[str]], items: tuple[Any, ...]) -> Iterator[str]:
    for number, item in enumerate(items):
        if number:
            yield ","
        yield from text(item)


_EMPTY = 0xC15D213AA4D7A795


@lru_cache(maxsize=1)
def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_EMPTY & -(value & 1))
        table.append(value)
    return tuple(table)


def crc64(data: bytes) -> bytes:
    """The CRC-64-AVRO of some bytes, little-endian (Avro specification, section Schema Fingerprints)."""
    table, value = _crc_table(), _EMPTY
    for byte in data:
        value = (value >> 8) ^ table[(value ^ byte) & 255]
    return value.to_bytes(8, "little")
