"""Avro without event classes: dicts, lists and plain values by a schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from struct import pack
from typing import Any
from uuid import UUID

from commons_events.avro import _wire
from commons_events.avro._codec import FAILURES, explain
from commons_events.avro._decoder import Decoder
from commons_events.avro._defaults import default_bytes
from commons_events.avro._schema import NO_DEFAULT, SchemaNode, parse
from commons_events.avro._wire import NotAvroError
from commons_events.errors import DeserializationError, SerializationError

__all__ = ["Schema", "read", "write"]

Schema = str | Mapping[str, Any] | list[Any]
"""A schema's JSON text, or what `json.loads` makes of one."""


def read(data: bytes, writer: Schema, reader: Schema | None = None) -> Any:
    """The value in Avro's binary encoding, without a header.

    Logical types come as Python's own: dates, times, datetimes (in UTC) and decimals. An enum's symbol is a str, as is
    a uuid; a union's value comes without its branch.

    Args:
        data: one value, and nothing behind it.
        writer: the schema that it was written with.
        reader: the schema that it is read as, by the rules of Schema Resolution; by default the writer's.

    Raises:
        DeserializationError: (a ValueError) the bytes are no such value, or cannot be read as one of the reader's.
        ValueError: one of the schemas is none.
    """
    writer_text = _text(writer)
    decoder = _decoder(writer_text, writer_text if reader is None else _text(reader))
    try:
        return decoder.decode(data, 0)
    except DeserializationError:
        raise
    except FAILURES as error:
        explain(error, decoder.source, "This Avro value cannot be read", data)


def write(value: Any, schema: Schema) -> bytes:
    """A value in Avro's binary encoding, without a header.

    Args:
        value: as `read` returns it. Of a union the first branch counts that the value is of.
        schema: its type.

    Raises:
        SerializationError: (a ValueError) the value is not of the schema's type; the message says where.
        ValueError: the schema is none.
    """
    node = _node(_text(schema))
    try:
        return _written(node, value, "")
    except SerializationError:
        raise
    except FAILURES as error:
        raise SerializationError(f"This value cannot be written as Avro: {type(error).__name__}: {error}.") from error


def _text(schema: Schema) -> str:
    return schema if isinstance(schema, str) else json.dumps(schema)


@lru_cache(maxsize=128)
def _node(text: str) -> SchemaNode:
    return parse(text)


@lru_cache(maxsize=128)
def _decoder(writer: str, reader: str) -> Decoder:
    node = _node(writer)
    return Decoder(node, node if reader == writer else _node(reader), f"{node.name or node.kind}")


# --- writing ---------------------------------------------------------------------------------------------------


def _written(node: SchemaNode, value: Any, place: str) -> bytes:
    if node.kind == "union":
        index = next((index for index, branch in enumerate(node.branches) if _is(branch, value)), None)
        if index is None:
            raise _wrong(node, value, place)
        return _wire.to_long(index) + _written(node.branches[index], value, place)
    if not _is(node, value):
        raise _wrong(node, value, place)
    match node.kind:
        case "record":
            fields = {field.name: field for field in node.fields}
            return b"".join(
                _written(field.type, value[name], f"{place}.{name}")
                if name in value
                else default_bytes(field.type, field.default)
                for name, field in fields.items()
            )
        case "array":
            body = b"".join(_written(node.item, item, f"{place}[{i}]") for i, item in enumerate(value))
        case "map":
            body = b"".join(
                _wire.to_text(key) + _written(node.item, item, f"{place}.{key}") for key, item in value.items()
            )
        case _:
            return _scalar(node, value)
    return _wire.to_long(len(value)) + body + b"\0" if value else b"\0"


def _wrong(node: SchemaNode, value: Any, place: str) -> SerializationError:
    where = f"{place.lstrip('.')}: " if place else ""
    return SerializationError(
        f"This value cannot be written as Avro: {where}{value!r:.100} is no {node.logical or node.name or node.kind}."
    )


_MILLIS = {"time-millis": 1000, "timestamp-millis": 1000}


def _scalar(node: SchemaNode, value: Any) -> bytes:
    match value:
        case Decimal():
            raw = _wire.signed(_wire.unscaled(value, node.precision, node.scale))
            if node.kind == "bytes":
                return _wire.to_bytes(raw)
            if len(raw) > node.size:
                raise NotAvroError(f"{value} takes more than {node.size} bytes")
            return raw.rjust(node.size, b"\xff" if raw[0] & 128 else b"\0")
        case datetime():
            return _wire.to_long(_wire.micros_of(value) // _MILLIS.get(node.logical or "", 1))
        case date():
            return _wire.to_date(value)
        case time():
            return _wire.to_long(_wire.time_micros_of(value) // _MILLIS.get(node.logical or "", 1))
        case UUID():
            return _wire.to_text(str(value))
        case bytes():
            return value if node.kind == "fixed" else _wire.to_bytes(value)
        case str():
            return _wire.to_long(node.symbols.index(value)) if node.kind == "enum" else _wire.to_text(value)
        case None | bool():
            return b"" if value is None else _wire.BOOLEAN_BYTES[value]
    if node.kind in ("float", "double"):
        return pack("<f" if node.kind == "float" else "<d", value)
    return _wire.to_long(value)


_LOGICAL: dict[str, tuple[type[Any], ...]] = {
    "decimal": (Decimal,), "date": (date,), "time-millis": (time,), "time-micros": (time,),
    "timestamp-millis": (datetime,), "timestamp-micros": (datetime,), "uuid": (str, UUID),
}  # fmt: skip
_KINDS: dict[str, tuple[type[Any], ...]] = {
    "null": (type(None),), "boolean": (bool,), "float": (float, int), "double": (float, int), "bytes": (bytes,),
    "string": (str,),
}  # fmt: skip


def _is(node: SchemaNode, value: Any) -> bool:
    """Whether a value is of a type, on the outside; a record's fields are looked at, to choose among records."""
    kind = type(value)
    if node.logical:
        return kind in _LOGICAL[node.logical]
    match node.kind:
        case "int" | "long":
            bits = 31 if node.kind == "int" else 63
            return kind is int and -(1 << bits) <= value < 1 << bits
        case "fixed":
            return kind is bytes and len(value) == node.size
        case "enum":
            return kind is str and value in node.symbols
        case "array":
            return kind is list
        case "map":
            return kind is dict and all(type(key) is str for key in value)
        case "union":
            return any(_is(branch, value) for branch in node.branches)
        case "record":
            return kind is dict and all(
                _is(field.type, value[field.name]) if field.name in value else field.default is not NO_DEFAULT
                for field in node.fields
            )
    return kind in _KINDS[node.kind]
