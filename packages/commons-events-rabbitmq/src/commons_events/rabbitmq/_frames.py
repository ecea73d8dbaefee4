"""Messages as AMQP 0-9-1 has them on the wire (sections 2.3.5 and 4.2).

A message is written as one piece of bytes: pika makes objects of every method, header and body frame, which takes
several times as long.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from commons_events.message import Message
from commons_events.rabbitmq._errors import InvalidHeaderError, RoutingKeyError

__all__ = [
    "ATTEMPTS",
    "KEY",
    "OF_BROKER",
    "STAMP",
    "TOMBSTONE",
    "Properties",
    "check_routing_key",
    "content",
    "encode_properties",
    "header_size",
    "publish_method",
    "short",
]

KEY = "x-key"
"""The header that holds a message's key."""
TOMBSTONE = "x-tombstone"
"""The header of a message without a value, which AMQP itself does not know."""
STAMP = "timestamp_in_ms"
"""Milliseconds since 1970, as RabbitMQ's own message timestamps have them: AMQP's property counts whole seconds."""
ATTEMPTS = "x-attempts"
"""The header that counts what a retry queue has held back."""
_RESERVED = {
    KEY: "it holds the message's key",
    TOMBSTONE: "it marks a message without a value",
    STAMP: "it holds the message's timestamp",
    ATTEMPTS: "it counts attempts",
    "CC": "RabbitMQ routes by it (sender-selected distribution)",
    "BCC": "RabbitMQ routes by it (sender-selected distribution)",
}
OF_BROKER = ("x-delivery-count", "x-acquired-count", "x-death", "x-first-death-", "x-last-death-", "x-stream-offset")
"""Headers that RabbitMQ adds, which say nothing of the message."""

_METHOD = struct.Struct(">BHIIH")
_HEADER = struct.Struct(">BHIHHQH")
_FRAME = struct.Struct(">BHI")
_LONG = struct.Struct(">I")
_NUMBER = struct.Struct(">q")
_END = b"\xce"
_PUBLISH = (60 << 16) | 40
_CONTENT_TYPE, _HEADERS, _DELIVERY_MODE, _PRIORITY = 1 << 15, 1 << 13, 1 << 12, 1 << 11
_EXPIRATION, _MESSAGE_ID, _TIMESTAMP = 1 << 8, 1 << 7, 1 << 6
_names: dict[str, bytes] = {}
_MOST_NAMES = 1024


class Properties(NamedTuple):
    """What AMQP carries beside a message's body, apart from headers."""

    persistent: bool = True
    priority: int | None = None
    expiration: int | None = None
    """Milliseconds that a queue keeps the message."""


def short(text: str) -> bytes:
    """A short string (section 4.2.5.3): at most 255 bytes."""
    raw = text.encode()
    return bytes((len(raw),)) + raw


def publish_method(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The frame of ``basic.publish`` (section 1.8.3.7)."""
    payload = short(exchange) + short(routing_key) + (b"\1" if mandatory else b"\0")
    return _METHOD.pack(1, channel, len(payload) + 6, _PUBLISH, 0) + payload + _END


def content(channel: int, properties: tuple[int, bytes], body: bytes, most: int) -> bytes:
    """The frames of a message's header and body.

    Args:
        channel: the channel's number.
        properties: flags and bytes, see `encode_properties`.
        body: the payload.
        most: bytes of the body that one frame carries.
    """
    flags, encoded = properties
    size = len(body)
    head = _HEADER.pack(2, channel, 14 + len(encoded), 60, 0, size, flags) + encoded + _END
    if size <= most:
        return head + _FRAME.pack(3, channel, size) + body + _END if size else head
    parts = [head]
    for start in range(0, size, most):
        part = body[start : start + most]
        parts += (_FRAME.pack(3, channel, len(part)), part, _END)
    return b"".join(parts)


def encode_properties(message: Message, properties: Properties, id: str, attempts: int = 0) -> tuple[int, bytes]:
    """A message's headers and properties: flags and bytes (section 2.3.5.2).

    ``content-type`` becomes the property of that name (CloudEvents AMQP binding, section 3.1.1). A value that is UTF-8
    is a text there, and any other one bytes.

    Args:
        message: the message.
        properties: what else AMQP carries.
        id: the property ``message_id``, which stays the same where the message is sent again.
        attempts: how often it was delivered before.

    Raises:
        InvalidHeaderError: a name comes twice, is too long, or means something else to RabbitMQ.
    """
    headers = message.headers
    flags = 0
    first = b""
    if headers and headers[0][0] == "content-type" and len(headers[0][1]) < 256:
        flags = _CONTENT_TYPE
        kind = headers[0][1]
        first = bytes((len(kind),)) + kind
        headers = headers[1:]
    parts: list[bytes] = []
    seen: set[str] = set()
    for name, value in headers:
        encoded = _names.get(name)
        if encoded is None:
            encoded = _name(name)
        if name in seen:
            raise InvalidHeaderError(
                f"The header {name!r} comes twice, and an AMQP table has a name once. Join its values, or rename one."
            )
        seen.add(name)
        parts += (encoded, _kind_of(value), _LONG.pack(len(value)), value)
    key = message.key
    if key is not None:
        parts += (_KEY_NAME, _kind_of(key), _LONG.pack(len(key)), key)
    if message.value is None:
        parts.append(_TOMBSTONE_FIELD)
    stamp = message.timestamp
    milliseconds = 0
    if stamp is not None:
        milliseconds = round(stamp.timestamp() * 1000)
        parts += (_STAMP_NAME, _NUMBER.pack(milliseconds))
    if attempts:
        parts += (_ATTEMPTS_NAME, _NUMBER.pack(attempts))
    tail = first
    if parts:
        table = b"".join(parts)
        flags |= _HEADERS
        tail += _LONG.pack(len(table)) + table
    flags |= _DELIVERY_MODE
    tail += b"\2" if properties.persistent else b"\1"
    if properties.priority is not None:
        flags |= _PRIORITY
        tail += bytes((properties.priority,))
    if properties.expiration is not None:
        flags |= _EXPIRATION
        tail += short(str(properties.expiration))
    flags |= _MESSAGE_ID
    tail += short(id)
    if stamp is not None and milliseconds >= 0:
        flags |= _TIMESTAMP
        tail += _NUMBER.pack(milliseconds // 1000)
    return flags, tail


def _kind_of(value: bytes) -> bytes:
    if value.isascii():
        return b"S"
    try:
        value.decode()
    except UnicodeDecodeError:
        return b"x"
    return b"S"


def _name(name: str) -> bytes:
    if name in _RESERVED:
        raise InvalidHeaderError(f"The header {name!r} cannot be sent to RabbitMQ: {_RESERVED[name]}. Rename it.")
    if name.startswith(OF_BROKER):
        raise InvalidHeaderError(f"The header {name!r} is one that RabbitMQ sets itself. Rename it.")
    raw = name.encode()
    if not raw or len(raw) > 255:
        raise InvalidHeaderError(f"The header name {name[:40]!r}… has {len(raw)} bytes; AMQP takes from 1 to 255.")
    if len(_names) >= _MOST_NAMES:
        _names.clear()
    encoded = _names[name] = bytes((len(raw),)) + raw
    return encoded


_KEY_NAME = short(KEY)
_TOMBSTONE_FIELD = short(TOMBSTONE) + b"t\1"
_STAMP_NAME = short(STAMP) + b"l"
_ATTEMPTS_NAME = short(ATTEMPTS) + b"l"


def check_routing_key(routing_key: str) -> None:
    """Raise `RoutingKeyError` where AMQP cannot carry ``routing_key``."""
    if not isinstance(routing_key, str):
        raise RoutingKeyError(f"A routing key is a str, not {type(routing_key).__name__}: {routing_key!r}.")
    size = len(routing_key.encode())
    if size > 255:
        raise RoutingKeyError(
            f"The routing key {routing_key[:40]!r}… has {size} bytes; AMQP carries 255. Put the rest into a header."
        )


def header_size(message: Message) -> int:
    """Bytes of the header frame, at most: it cannot be divided."""
    size = 128 + len(message.key or b"")
    for name, value in message.headers:
        size += len(name.encode()) + 6 + len(value)
    return size
