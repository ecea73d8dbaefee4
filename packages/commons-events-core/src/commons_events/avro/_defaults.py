"""Defaults: as a schema states them, and as a reader fills them in."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from struct import pack
from typing import Any
from uuid import UUID

from commons_events.avro import _wire
from commons_events.avro._schema import NO_DEFAULT, SchemaNode
from commons_events.avro._shapes import EXTRA, Wrapped, enum_symbols, kind_of
from commons_events.shapes import Array, Enumeration, Literals, Map, Other, Record, Tuple

__all__ = ["default_bytes", "default_json", "holds"]

TYPES: dict[str, type[Any]] = {
    "bool": bool, "bytes": bytes, "date": date, "datetime": datetime, "decimal": Decimal, "float": float, "int": int,
    "null": type(None), "str": str, "time": time, "timedelta": timedelta, "uuid": UUID,
}  # fmt: skip


def holds(node: SchemaNode, value: Any) -> bool:
    """Whether a value is of the type that a derived schema's node stands for."""
    if node.kind == "union":
        return any(holds(branch, value) for branch in node.branches)
    match node.shape:
        case Enumeration(cls):
            return isinstance(value, cls)
        case Literals(values):
            return any(type(value) is type(one) and value == one for one in values)
        case Array(_, container):
            return type(value) is container and all(holds(node.item, item) for item in value)
        case Map():
            if type(value) is not dict:
                return False
            if node.kind == "array":
                key, item = (field.type for field in node.item.fields)
                return all(holds(key, one) and holds(item, other) for one, other in value.items())
            return all(type(key) is str and holds(node.item, item) for key, item in value.items())
        case Tuple(items):
            types = [field.type for field in node.fields]
            return type(value) is tuple and len(value) == len(items) and all(map(holds, types, value))
        case Record(kind="typed-dict"):
            return type(value) is dict and value.keys() == {field.name for field in node.fields}
        case Record(cls=cls):
            return isinstance(value, cls)
        case Wrapped():
            return holds(node.fields[0].type, value)
        case Other():
            try:
                node.shape.to_json(value)
            except ValueError:
                return False
            return True
    kind = kind_of(node.shape)
    return kind == "any" or type(value) is TYPES[kind or "null"]


class NotJsonError(ValueError):
    """A value that a schema cannot state as a default."""


def default_json(node: SchemaNode, value: Any) -> Any:
    """A value of a derived type as a schema states it, or `NO_DEFAULT` where none can.

    Of a union, that is the first branch which the value is of (specification 1.12; before, it was the first branch).
    """
    try:
        return _json(node, value) if holds(node, value) else NO_DEFAULT
    except NotJsonError:
        return NO_DEFAULT


def _json(node: SchemaNode, value: Any) -> Any:
    if node.kind == "union":
        return _json(next(branch for branch in node.branches if holds(branch, value)), value)
    match node.shape:
        case Enumeration() | Literals() if isinstance(value, Enum):
            symbols = enum_symbols(type(value)) or {}
            named = next((symbol for symbol, member in symbols.items() if member is value), value.name)
            return int(value.value) if node.kind == "long" else named
        case Array():
            return [_json(node.item, item) for item in value]
        case Map() if node.kind == "array":
            key, item = (field.type for field in node.item.fields)
            return [{"key": _json(key, one), "value": _json(item, other)} for one, other in value.items()]
        case Map():
            return {key: _json(node.item, item) for key, item in value.items()}
        case Tuple():
            return {field.name: _json(field.type, item) for field, item in zip(node.fields, value, strict=True)}
        case Record():
            values = node.shape.values()(value)
            return {
                field.name: _json(field.type, values[field.name]) if field.name != EXTRA else {}
                for field in node.fields
            }
        case Wrapped():
            return {"value": _json(node.fields[0].type, value)}
        case Other():
            return node.shape.to_json(value).decode()
    kind = kind_of(node.shape)
    return {"value": _any_json(value)} if kind == "any" else _scalar_json(node, kind, value)


def _any_json(value: Any) -> Any:
    if isinstance(value, list):
        return [{"value": _any_json(item)} for item in value]
    if isinstance(value, dict):
        return {key: {"value": _any_json(item)} for key, item in value.items()}
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise NotJsonError  # its text would be taken for a string
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise NotJsonError
    return value


def _scalar_json(node: SchemaNode, kind: str | None, value: Any) -> Any:
    match kind:
        case "datetime":
            return _wire.micros_of(value)
        case "date":
            return value.toordinal() - _wire.DATE_EPOCH
        case "time":
            if value.tzinfo is not None:
                raise NotJsonError
            return _wire.time_micros_of(value)
        case "uuid":
            return str(value)
        case "decimal" if node.kind == "string":
            return str(value)
        case "decimal":
            return _wire.signed(_wire.unscaled(value, node.precision, node.scale)).decode("latin-1")
        case "timedelta":
            return _wire.to_timedelta(value)[1:].decode("latin-1")
        case "int" if node.kind == "bytes":
            return _wire.signed(value).decode("latin-1")
    return value.decode("latin-1") if isinstance(value, bytes) else _plain(value)


# --- a stated default, read ------------------------------------------------------------------------------------


def default_bytes(node: SchemaNode, value: Any) -> bytes:
    """The encoding of a default as a schema states it (specification, section Complex Types: Records).

    Raises:
        ValueError: it is no value of the type.
    """
    if node.kind == "union":
        number, branch = next(
            ((i, branch) for i, branch in enumerate(node.branches) if _fits(branch, value)), (-1, node)
        )
        if number < 0:
            raise ValueError(f"the default {value!r:.100} is of no branch of the union")
        return _wire.to_long(number) + default_bytes(branch, value)
    if not _fits(node, value):
        raise ValueError(f"the default {value!r:.100} is not {node.kind}")
    match node.kind:
        case "null":
            return b""
        case "boolean":
            return b"\1" if value else b"\0"
        case "int" | "long":
            return _wire.to_long(int(value))
        case "float" | "double":
            return pack("<f" if node.kind == "float" else "<d", value)
        case "string":
            return _wire.to_text(value)
        case "bytes":
            return _wire.to_bytes(value.encode("latin-1"))
        case "fixed":
            return bytes(value.encode("latin-1"))
        case "enum":
            return _wire.to_long(node.symbols.index(value))
        case "array":
            body = b"".join(default_bytes(node.item, item) for item in value)
        case "map":
            body = b"".join(_wire.to_text(key) + default_bytes(node.item, item) for key, item in value.items())
        case _:
            stated = {field.name: field.default for field in node.fields} | value
            return b"".join(default_bytes(field.type, stated[field.name]) for field in node.fields)
    return _wire.to_long(len(value)) + body + b"\0" if value else b"\0"


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _text(value: Any) -> bool:
    return type(value) is str


_FITS: dict[str, Callable[[SchemaNode, Any], bool]] = {
    "null": lambda node, value: value is None,
    "boolean": lambda node, value: type(value) is bool,
    "int": lambda node, value: type(value) is int and -(2**31) <= value < 2**31,
    "long": lambda node, value: type(value) is int and -(2**63) <= value < 2**63,
    "float": lambda node, value: _number(value),
    "double": lambda node, value: _number(value),
    "string": lambda node, value: _text(value),
    "bytes": lambda node, value: _text(value) and all(ord(char) < 256 for char in value),
    "fixed": lambda node, value: _text(value) and len(value) == node.size and all(ord(char) < 256 for char in value),
    "enum": lambda node, value: value in node.symbols,
    "array": lambda node, value: type(value) is list and all(_fits(node.item, item) for item in value),
    "map": lambda node, value: type(value) is dict and all(_fits(node.item, item) for item in value.values()),
    "record": lambda node, value: (
        type(value) is dict
        and all(
            _fits(field.type, value[field.name]) if field.name in value else field.default is not NO_DEFAULT
            for field in node.fields
        )
    ),
    "union": lambda node, value: any(_fits(branch, value) for branch in node.branches),
}


def _fits(node: SchemaNode, value: Any) -> bool:
    return _FITS[node.kind](node, value)
