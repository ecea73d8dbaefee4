"""``Any``: the message ``Value``, which holds exactly what `google.protobuf.Struct` cannot (its numbers are doubles).

    message Value {
      oneof kind {
        NullValue null_value = 1;
        bool bool_value = 2;
        sint64 int_value = 3;
        string big_int_value = 4;   // decimal digits, beyond 64 bits
        double double_value = 5;
        string string_value = 6;
        ValueList list_value = 7;   // repeated Value items = 1
        ValueMap map_value = 8;     // map<string, Value> entries = 1
      }
    }

Written and read here, since Python sees each of these values anyway: a message object for each costs twice the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from struct import Struct
from typing import Any

from commons_events.event._values import MAX_DEPTH, MAX_DIGITS
from commons_events.protobuf._wire import LENGTHS, WireError, long_varint, spans, varint

__all__ = ["read_member", "read_members", "read_value", "write_member", "write_members", "write_value"]

_NULL, _BOOL, _INT, _BIG, _DOUBLE, _TEXT, _LIST, _MAP = 8, 16, 24, 34, 41, 50, 58, 66
"""The tags: number times eight, and the wire type. Those of list items and of keys are 10, of entries' values 18."""
_NONE, _TRUE, _FALSE = b"\x08\0", b"\x10\x01", b"\x10\0"
_double = Struct("<d")
_pack_double: Callable[[float], bytes] = _double.pack
_WIRES = {1: 0, 2: 0, 3: 0, 4: 2, 5: 1, 6: 2, 7: 2, 8: 2}
_NOTHING: Any = object()
_CONSTANT_VALUES: dict[bytes, Any] = {_NONE: None, _TRUE: True, _FALSE: False} | {
    b"\x18%c" % coded: ~(coded >> 1) if coded & 1 else coded >> 1 for coded in range(128)
}


def _length(number: int) -> bytes:
    return LENGTHS[number] if number < 16384 else varint(number)


# --- writing ---------------------------------------------------------------------------------------------------


def write_value(value: Any) -> bytes:
    """The bytes of a ``Value``."""
    kind = type(value)
    if kind is str:
        text: bytes = value.encode()
        size = len(text)
        return b"2" + (LENGTHS[size] if size < 16384 else varint(size)) + text
    if value is None:
        return _NONE
    if kind is bool:
        return _TRUE if value else _FALSE
    if kind is int:
        coded: int = value << 1 if value >= 0 else ~(value << 1)
        if coded < 16384:
            return b"\x18" + LENGTHS[coded]
        if coded < 1 << 64:
            return b"\x18" + varint(coded)
        digits: bytes = str(value).encode()
        return b'"' + _length(len(digits)) + digits
    if kind is float:
        return b")" + _pack_double(value)
    if kind is list:
        parts: list[bytes] = []
        for item in value:
            coded_item = write_value(item)
            parts += (b"\n", _length(len(coded_item)), coded_item)
        body = b"".join(parts)
        return b":" + _length(len(body)) + body
    if kind is dict:
        parts = []
        for key, item in value.items():
            entry = write_member(key, item)
            parts += (b"\n", _length(len(entry)), entry)
        body = b"".join(parts)
        return b"B" + _length(len(body)) + body
    raise WireError(f"a {kind.__qualname__} does not fit into Any")


def write_member(key: str, value: Any) -> bytes:
    """The bytes of an entry of ``map<string, Value>``."""
    name = key.encode()
    coded = write_value(value)
    size, length = len(name), len(coded)
    if size < 128 and length < 128:
        return b"\n%c%b\x12%c%b" % (size, name, length, coded)
    return b"\n%b%b\x12%b%b" % (_length(size), name, _length(length), coded)


def write_members(values: Mapping[str, Any]) -> list[bytes]:
    """The entries of a ``map<string, Value>``."""
    return [write_member(key, value) for key, value in values.items()]


# --- reading ---------------------------------------------------------------------------------------------------


def read_value(data: bytes) -> Any:
    """The value in a ``Value``.

    Raises:
        WireError: the bytes are no ``Value``, state none, or nest deeper than `MAX_DEPTH`.
    """
    try:
        return _value(data, 0, len(data), 0)
    except IndexError:
        raise WireError("a Value ends early") from None
    except UnicodeDecodeError as error:
        raise WireError(f"a text inside a Value is not UTF-8: {error}") from error


def read_member(data: bytes) -> tuple[str, Any]:
    """The key and value of an entry of ``map<string, Value>``; raises as `read_value`."""
    try:
        return _member(data, 0, len(data), 0)
    except IndexError:
        raise WireError("an entry of a map ends early") from None
    except UnicodeDecodeError as error:
        raise WireError(f"a text inside a Value is not UTF-8: {error}") from error


def read_members(entries: Iterable[bytes]) -> dict[str, Any]:
    """The dict of these entries; of two with the same key the last one counts."""
    members: dict[str, Any] = {}
    for data in entries:
        try:
            # as they are mostly written: tags, lengths of one byte, and a short text or a constant
            size = data[1]
            start = size + 4
            if data[0] == 10 and size < 128 and data[size + 2] == 18 and data[size + 3] == len(data) - start < 128:
                if data[start] == _TEXT and data[start + 1] == len(data) - start - 2:
                    members[data[2 : size + 2].decode()] = data[start + 2 :].decode()
                    continue
                value = _CONSTANT_VALUES.get(data[start:], _NOTHING)
                if value is _NOTHING:
                    value = _value(data, start, len(data), 0)
                members[data[2 : size + 2].decode()] = value
                continue
        except (IndexError, UnicodeDecodeError):
            pass  # what is wrong with it is said below
        key, value = read_member(data)
        members[key] = value
    return members


def _value(data: bytes, position: int, end: int, depth: int) -> Any:
    if position < end and (tag := data[position]) in _DELIMITED:  # the one member that a writer writes
        size = data[position + 1]
        start = position + 2
        if size > 127:
            size, start = long_varint(data, position + 1)
        if start + size == end:
            return _delimited(tag, data, start, end, depth, _NOTHING)
    result, last = _NOTHING, 0
    while position < end:
        tag = data[position]
        position += 1
        if tag in _DELIMITED:
            size, position = long_varint(data, position)
            stop = position + size
            if stop > end:
                raise WireError(f"a Value claims {size:,} bytes, and {end - position:,} are left")
            # a message that stands there twice is merged, other members take the place of those before
            result = _delimited(tag, data, position, stop, depth, result if tag == last else _NOTHING)
            position = stop
        elif tag in (_NULL, _BOOL, _INT):
            number = data[position]
            position += 1
            if number > 127:
                number, position = long_varint(data, position - 1)
            if tag == _INT:
                result = ~(number >> 1) if number & 1 else number >> 1
            else:
                result = None if tag == _NULL else number != 0
        elif tag == _DOUBLE:
            if position + 8 > end:
                raise IndexError
            result = _double.unpack_from(data, position)[0]
            position += 8
        else:
            position = _skip(data, position - 1, end, _WIRES)
            continue
        last = tag
    if position > end:
        raise IndexError
    if result is _NOTHING:
        raise WireError("a Value has none of the members that are known here")
    return result


_DELIMITED = frozenset({_BIG, _TEXT, _LIST, _MAP})


def _delimited(tag: int, data: bytes, position: int, end: int, depth: int, before: Any) -> Any:
    if tag == _TEXT:
        return data[position:end].decode()
    if tag == _BIG:
        return _big_int(data[position:end])
    if depth >= MAX_DEPTH:
        raise WireError(f"lists and maps are nested deeper than {MAX_DEPTH} levels")
    if tag == _LIST:
        items: list[Any] = [] if before is _NOTHING else before
        for start, stop in _inner(data, position, end):
            items.append(_value(data, start, stop, depth + 1))
        return items
    members: dict[str, Any] = {} if before is _NOTHING else before
    for start, stop in _inner(data, position, end):
        key, value = _member(data, start, stop, depth + 1)
        members[key] = value
    return members


def _inner(data: bytes, position: int, end: int) -> list[tuple[int, int]]:
    """Where the items of a list, or the entries of a map, start and end."""
    found: list[tuple[int, int]] = []
    while position < end:
        if data[position] != 10:
            position = _skip(data, position, end, {1: 2})
            continue
        size, start = long_varint(data, position + 1)
        position = start + size
        if position > end:
            raise WireError(f"a Value claims {size:,} bytes, and {end - start:,} are left")
        found.append((start, position))
    return found


def _member(data: bytes, position: int, end: int, depth: int) -> tuple[str, Any]:
    key, bodies = "", []  # a key that is empty need not be there
    while position < end:
        tag = data[position]
        if tag not in (10, 18):
            position = _skip(data, position, end, {1: 2, 2: 2})
            continue
        size = data[position + 1]
        start = position + 2
        if size > 127:
            size, start = long_varint(data, position + 1)
        position = start + size
        if position > end:
            raise WireError(f"an entry of a map claims {size:,} bytes, and {end - start:,} are left")
        if tag == 10:
            key = data[start:position].decode()
        else:
            bodies.append((start, position))
    if not bodies:
        raise WireError(f"the entry {key!r} of a map has no value")
    if len(bodies) > 1:  # they are merged, as they would be side by side
        data = b"".join([data[start:stop] for start, stop in bodies])
        return key, _value(data, 0, len(data), depth)
    return key, _value(data, *bodies[0], depth)


def _big_int(digits: bytes) -> int:
    if not digits.removeprefix(b"-").isdigit() or len(digits.removeprefix(b"-")) > MAX_DIGITS:
        raise WireError(f"big_int_value is up to {MAX_DIGITS:,} decimal digits, not {digits[:40]!r}")
    return int(digits)


def _skip(data: bytes, position: int, end: int, known: dict[int, int]) -> int:
    """Behind a field of a newer writer."""
    span = next(spans(data, position, end))
    if span.number in known:
        raise WireError(f"the field {span.number} of a Value has the wire type {span.wire}, not {known[span.number]}")
    return span.end
