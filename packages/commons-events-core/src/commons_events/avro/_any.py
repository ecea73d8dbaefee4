"""``Any`` in Avro: values of the record ``commons_events.Value``."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from commons_events.avro._wire import (
    BIT_63,
    BOOLEANS,
    LENGTHS,
    SMALL_LONGS,
    Lengths,
    NotAvroError,
    int_of,
    join,
    read_count,
    read_length,
    read_long,
    read_rest,
    signed,
    to_long,
    to_whole,
)
from commons_events.event._values import MAX_DEPTH, MAX_DIGITS

__all__ = ["read_any", "read_any_map", "to_any", "to_any_map"]

_pack_double: Callable[[float], bytes] = Struct("<d").pack
_unpack_double = Struct("<d").unpack_from
_TEXT, _ITEMS = Lengths(b"\x08"), Lengths(b"\x0c")
_ANY_CONSTANTS: dict[Any, bytes] = {None: b"\0", False: b"\2\0", True: b"\2\1"}
_MOST_BYTES = len(signed(10**MAX_DIGITS))
_to_long_int = to_whole(MAX_DIGITS)


def to_any(value: Any) -> bytes:
    """A ``commons_events.Value``: the branch of its union, then the value."""
    kind = type(value)
    if kind is str:
        data: bytes = value.encode()
        return _TEXT[len(data)] + data
    if kind is int:
        if -BIT_63 <= value < BIT_63:
            return b"\4" + (SMALL_LONGS.get(value) or to_long(value))
        return b"\x0a" + _to_long_int(value)
    if kind is float:
        return b"\6" + _pack_double(value)
    if value is None or kind is bool:
        return _ANY_CONSTANTS[value]
    if kind is dict:
        return b"\x0e" + to_any_map(value)
    if kind is list:
        return _ITEMS[len(value)] + join(map(to_any, value)) + b"\0" if value else b"\x0c\0"
    raise NotAvroError(f"a {kind.__qualname__}, which Any does not hold exactly")


def to_any_map(values: dict[str, Any]) -> bytes:
    """A map of ``commons_events.Value``."""
    if not values:
        return b"\0"
    parts = [LENGTHS[len(values)]]
    for key, value in values.items():
        name = key.encode()
        if type(value) is str:
            data = value.encode()
            parts += (LENGTHS[len(name)], name, _TEXT[len(data)], data)
        else:
            parts += (LENGTHS[len(name)], name, to_any(value))
    parts.append(b"\0")
    return join(parts)


def read_any(data: bytes, pos: int, depth: int = 0) -> tuple[Any, int]:
    """A ``commons_events.Value``."""
    branch = data[pos]
    pos += 1
    if branch > 127:
        branch, pos = read_rest(data, pos, branch)
    if branch == 8:
        length = data[pos]
        if length & 129:
            length, pos = read_length(data, pos)
        else:
            length >>= 1
            pos += 1
        end = pos + length
        return data[pos:end].decode(), end
    if branch == 4:
        return read_long(data, pos)
    if branch == 6:
        return _unpack_double(data, pos)[0], pos + 8
    if branch == 2:
        return BOOLEANS[data[pos]], pos + 1
    if branch == 0:
        return None, pos
    if branch == 14:
        return read_any_map(data, pos, depth + 1)
    if branch == 12:
        return _read_any_list(data, pos, depth + 1)
    if branch == 10:
        length, pos = read_length(data, pos)
        if length > _MOST_BYTES:
            raise NotAvroError(f"an int of more than {MAX_DIGITS} digits")
        return int_of(data[pos : pos + length], MAX_DIGITS), pos + length
    raise NotAvroError(f"branch {branch >> 1 ^ -(branch & 1)} of a union of 8")


_TOO_DEEP = f"lists and dicts nested deeper than {MAX_DEPTH} levels"


def read_any_map(data: bytes, pos: int, depth: int = 1) -> tuple[dict[str, Any], int]:
    """A map of ``commons_events.Value``."""
    if depth > MAX_DEPTH:
        raise NotAvroError(_TOO_DEEP)
    values: dict[str, Any] = {}
    while True:
        count = data[pos]
        if count & 129:
            count, pos = read_count(data, pos, 2)
        else:
            count >>= 1
            pos += 1
        if not count:
            return values, pos
        for _ in range(count):
            length = data[pos]
            if length & 129:
                length, pos = read_length(data, pos)
                end = pos + length
            else:
                pos += 1
                end = pos + (length >> 1)
            key = data[pos:end].decode()
            branch = data[end]
            if branch == 8 and not (length := data[end + 1]) & 129:  # a short text
                end += 2
                pos = end + (length >> 1)
                values[key] = data[end:pos].decode()
            elif branch == 4 and (number := data[end + 1]) < 128:  # a small int
                values[key] = number >> 1 ^ -(number & 1)
                pos = end + 2
            elif branch == 2:
                values[key] = BOOLEANS[data[end + 1]]
                pos = end + 2
            else:
                values[key], pos = read_any(data, end, depth)


def _read_any_list(data: bytes, pos: int, depth: int) -> tuple[list[Any], int]:
    if depth > MAX_DEPTH:
        raise NotAvroError(_TOO_DEEP)
    values: list[Any] = []
    while True:
        count, pos = read_count(data, pos, 1)
        if not count:
            return values, pos
        for _ in range(count):
            value, pos = read_any(data, pos, depth)
            values.append(value)
