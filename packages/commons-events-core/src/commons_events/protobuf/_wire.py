"""Protobuf's wire format (protobuf.dev/programming-guides/encoding), as far as the codec looks at it itself.

The messages proper are parsed by `google.protobuf`. Here is what it has no word for: why bytes were refused, which of
them belong to fields that a class does not know, and who an event is without reading all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

__all__ = [
    "FIXED32",
    "FIXED64",
    "LENGTH",
    "LENGTHS",
    "VARINT",
    "Span",
    "WireError",
    "check",
    "long_varint",
    "spans",
    "tag",
    "varint",
]

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_WORDS = {
    VARINT: "a varint", FIXED64: "eight bytes", LENGTH: "length-delimited", 3: "a group", 4: "the end of a group",
    FIXED32: "four bytes",
}  # fmt: skip
_MOST_NUMBER = (1 << 29) - 1
_VARINT_BYTES = 10


class WireError(ValueError):
    """Why bytes do not decode, or an event does not encode; ``path`` grows on the way up."""

    def __init__(self, reason: str, *path: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path

    def below(self, place: str) -> WireError:
        """The same, seen from what is around it."""
        return WireError(self.reason, place, *self.path)

    def __str__(self) -> str:
        place = ".".join(self.path).replace(".[", "[")
        return f"{place}: {self.reason}" if place else self.reason


class Span(NamedTuple):
    """One field on the wire: where it starts, where its value starts and ends, and a varint's value."""

    number: int
    wire: int
    start: int
    value: int
    end: int
    varint: int


def varint(number: int) -> bytes:
    """A non-negative int as a base 128 varint."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


LENGTHS = tuple(varint(length) for length in range(16384))
"""The varints of one and two bytes."""


def tag(number: int, wire: int) -> bytes:
    """What stands before a field's value."""
    return varint(number << 3 | wire)


def long_varint(data: bytes, position: int) -> tuple[int, int]:
    """The varint that starts at ``position``, and the position behind it.

    Raises:
        WireError: it is longer than ten bytes, or than 64 bits.
        IndexError: the bytes end inside it.
    """
    result = shift = 0
    start = position
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if position - start == _VARINT_BYTES:
            raise WireError(f"the varint at byte {start:,} has more than ten bytes")
    if result >> 64:
        raise WireError(f"the varint at byte {start:,} has more than 64 bits")
    return result, position


def spans(data: bytes, position: int = 0, end: int | None = None) -> Iterator[Span]:
    """The fields of a message, as they stand there between ``position`` and ``end``.

    Raises:
        WireError: the bytes are not a message; with the place.
    """
    end = len(data) if end is None else end
    while position < end:
        start = position
        value = 0
        try:
            # most varints have one byte, and there may be as many as half of the bytes that anybody sends
            key = data[position]
            position += 1
            if key > 127:
                key, position = long_varint(data, start)
            number, wire = key >> 3, key & 7
            body = position
            if wire == VARINT:
                value = data[position]
                position += 1
                if value > 127:
                    value, position = long_varint(data, body)
            elif wire == LENGTH:
                length = data[position]
                body = position + 1
                if length > 127:
                    length, body = long_varint(data, position)
                if length > end - body:
                    raise WireError(
                        f"the field {number} at byte {start:,} claims {length:,} bytes, and {end - body:,} are left"
                    )
                position = body + length
            elif wire in (FIXED32, FIXED64):
                position += 4 if wire == FIXED32 else 8
            else:
                word = _WORDS.get(wire, f"of the wire type {wire}, which does not exist")
                raise WireError(f"the field {number} at byte {start:,} is {word}; proto3 has none")
        except IndexError:
            raise WireError(f"the bytes end inside the field that starts at byte {start:,}") from None
        if not 0 < number <= _MOST_NUMBER:
            raise WireError(
                f"the field at byte {start:,} has the number {number}, which is none (1 to {_MOST_NUMBER:,})"
            )
        if position > end:
            raise WireError(f"the bytes end inside the field {number} at byte {start:,}")
        yield Span(number, wire, start, body, position, value)


def check(data: bytes, wires: Mapping[int, Collection[int]], names: Mapping[int, str], texts: Collection[int]) -> None:
    """Raise a `WireError` for the first thing that is wrong with a message, if there is one.

    Args:
        data: the message.
        wires: the wire types that each known field may have.
        names: the known fields' names.
        texts: which of them are UTF-8.
    """
    for span in spans(data):
        allowed = wires.get(span.number)
        if allowed is None:
            continue
        name = names[span.number]
        if span.wire not in allowed:
            wanted = " or ".join(_WORDS[wire] for wire in allowed)
            raise WireError(f"it is {_WORDS[span.wire]} on the wire, and has to be {wanted}", name)
        if span.number in texts:
            try:
                data[span.value : span.end].decode()
            except UnicodeDecodeError as error:
                raise WireError(f"the text is not UTF-8: {error}", name) from error
        elif span.wire == LENGTH and VARINT in allowed:
            _check_packed(data[span.value : span.end], name)


def _check_packed(data: bytes, name: str) -> None:
    position = 0
    try:
        while position < len(data):
            _, position = long_varint(data, position)
    except IndexError:
        raise WireError("the packed values end inside a varint", name) from None
    except WireError as problem:
        raise problem.below(name) from problem
