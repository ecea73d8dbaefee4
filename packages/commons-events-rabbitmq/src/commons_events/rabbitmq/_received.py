"""Messages as AMQP 0-9-1 brings them (section 2.3.5.2), as messages of ours: decoded where somebody looks at them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pika.spec import BasicProperties

from commons_events.message import Message
from commons_events.rabbitmq._frames import ATTEMPTS, KEY, OF_BROKER, STAMP, TOMBSTONE

__all__ = ["decoded", "read_attempts", "read_delivery_count", "read_offset", "short_strings", "to_message"]

_OURS = frozenset({KEY, TOMBSTONE, STAMP, ATTEMPTS})
_OFFSET = "x-stream-offset"
_OFFSET_NAME = bytes((len(_OFFSET),)) + _OFFSET.encode()
_LONG = struct.Struct(">I").unpack_from
_NUMBER = struct.Struct(">q").unpack_from
_names: dict[bytes, tuple[str, int]] = {}
_MOST_NAMES = 1024
_PLAIN, _SPECIAL, _BROKERS = range(3)


def decoded(properties: bytes | BasicProperties) -> BasicProperties:
    """Properties as pika decodes them."""
    if not isinstance(properties, bytes):
        return properties
    made = BasicProperties()  # type: ignore[no-untyped-call]
    made.decode(properties)  # type: ignore[no-untyped-call]
    return made


def short_strings(data: bytes) -> tuple[str, str]:
    """Two short strings, one behind the other (section 4.2.5.3)."""
    first = 1 + data[0]
    return data[1:first].decode(errors="replace"), data[first + 1 :].decode(errors="replace")


def to_message(topic: str, properties: bytes | BasicProperties, body: bytes) -> Message:
    """What was read, as a message of ours."""
    if isinstance(properties, bytes):
        message = _short_way(topic, properties, body)
        if message is not None:
            return message
        properties = decoded(properties)
    table: Mapping[str, Any] = properties.headers or {}
    headers: list[tuple[str, bytes]] = []
    key: bytes | None = None
    value: bytes | None = body
    stamp: datetime | None = None
    kind = properties.content_type
    if kind is not None and "content-type" not in table:
        headers.append(("content-type", _bytes(kind)))
    for name, given in table.items():
        if name in _OURS:
            if name == KEY:
                key = _bytes(given)
            elif name == TOMBSTONE:
                value = None
            elif name == STAMP and isinstance(given, int):
                stamp = _time(given / 1000)
        elif not name.startswith(OF_BROKER):
            headers.append((name, given.encode() if type(given) is str else _bytes(given)))
    if stamp is None and isinstance(properties.timestamp, int):
        stamp = _time(properties.timestamp)
    return Message(topic, value, key, tuple(headers), stamp)


def _short_way(topic: str, data: bytes, body: bytes) -> Message | None:
    """As pika would decode it, where every header is a text, bytes, a number of 64 bits or true; None elsewhere."""
    flags, at = data[0] << 8 | data[1], 2
    if flags & 1:
        return None
    headers: list[tuple[str, bytes]] = []
    key: bytes | None = None
    value: bytes | None = body
    stamp: datetime | None = None
    kind: bytes | None = None
    if flags & 0x8000:  # content-type
        end = at + 1 + data[at]
        kind = data[at + 1 : end]
        at = end
    if flags & 0x4000:  # content-encoding
        at += 1 + data[at]
    if flags & 0x2000:  # headers
        (size,) = _LONG(data, at)
        at += 4
        end_of_table = at + size
        while at < end_of_table:
            begin = at + 1
            at = begin + data[at]
            raw = data[begin:at]
            name, meaning = _names.get(raw) or _name(raw)
            type_ = data[at]
            at += 1
            if type_ == 83 or type_ == 120:  # S, x
                (size,) = _LONG(data, at)
                at += 4 + size
                given = data[at - size : at]
                if meaning == _PLAIN:
                    if name == "content-type":
                        kind = None
                    headers.append((name, given))
                elif meaning == _SPECIAL:
                    if name == KEY:
                        key = given
                    elif name == TOMBSTONE:
                        value = None
            elif meaning == _PLAIN:
                return None
            elif type_ == 108:  # l
                if name == STAMP:
                    stamp = _time(_NUMBER(data, at)[0] / 1000)
                elif name in (KEY, TOMBSTONE):
                    return None
                at += 8
            elif type_ == 116 and name == TOMBSTONE:  # t
                value = None
                at += 1
            else:
                return None
    if kind is not None:
        headers.insert(0, ("content-type", kind))
    if stamp is None and flags & 0x40:  # timestamp, behind six others
        at += (flags >> 12 & 1) + (flags >> 11 & 1)
        for flag in (0x400, 0x200, 0x100, 0x80):
            if flags & flag:
                at += 1 + data[at]
        stamp = _time(_NUMBER(data, at)[0])
    return Message(topic, value, key, tuple(headers), stamp)


def _name(raw: bytes) -> tuple[str, int]:
    """A header's name, and what it means; remembered, since the same ones come again and again."""
    name = raw.decode(errors="replace")
    meaning = _SPECIAL if name in _OURS else _BROKERS if name.startswith(OF_BROKER) else _PLAIN
    if len(_names) >= _MOST_NAMES:
        _names.clear()
    _names[raw] = name, meaning
    return name, meaning


def read_attempts(properties: bytes | BasicProperties) -> int:
    """How often retry queues have held a message back, as far as its headers tell."""
    if isinstance(properties, bytes) and b"x-attempts" not in properties:
        return 0
    return _count(properties, ATTEMPTS)


def read_delivery_count(properties: bytes | BasicProperties) -> int:
    """How often a quorum queue has delivered a message before, also to who never looked at it."""
    return _count(properties, "x-delivery-count")


def _count(properties: bytes | BasicProperties, name: str) -> int:
    found = (decoded(properties).headers or {}).get(name, 0)
    return int(found) if isinstance(found, int) else 0  # pika's own int is shown with an L


def read_offset(properties: bytes | BasicProperties) -> int | None:
    """The place in a stream; None for a queue, which has none."""
    if isinstance(properties, bytes):
        at = properties.find(_OFFSET_NAME)
        if at < 0:
            return None
        end = at + len(_OFFSET_NAME)
        if properties[end] == 108 and properties.find(_OFFSET_NAME, end) < 0:  # l; and not in some value, too
            return int(_NUMBER(properties, end + 1)[0])
    found = (decoded(properties).headers or {}).get(_OFFSET)
    return int(found) if isinstance(found, int) else None


def _time(seconds: float) -> datetime | None:
    """A time since 1970; None where another system has written one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _bytes(value: Any) -> bytes:
    """A value of another system's header as bytes: texts and bytes as they are, the rest as it is read."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if value is None:
        return b""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, datetime):
        return value.isoformat().encode()
    if isinstance(value, (dict, list)):
        return json.dumps(value, default=str).encode()
    return str(value).encode()
