"""What no client of ours sends, and another one's may: written to a broker in Kafka's own protocol."""

from __future__ import annotations

import socket
import struct
import time

__all__ = ["produce"]

_PRODUCE, _VERSION = 0, 3
_CASTAGNOLI = 0x82F63B78


def produce(server: str, topic: str, value: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Write one message to partition 0, whose leader ``server`` is; names of headers are any bytes."""
    batch = _batch(value, headers)
    # No transactional id, all replicas, 30 seconds; one topic with one partition.
    body = struct.pack(">hhii", -1, -1, 30_000, 1) + _text(topic) + struct.pack(">iii", 1, 0, len(batch)) + batch
    request = struct.pack(">hhi", _PRODUCE, _VERSION, 1) + _text("foreign") + body
    host, _, port = server.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answers = connection.makefile("rb")
        (size,) = struct.unpack(">i", answers.read(4))
        answer = answers.read(size)
    # Which request, how many topics, the topic, how many partitions, the partition, and what became of it.
    (error,) = struct.unpack_from(">h", answer, 4 + 4 + len(_text(topic)) + 4 + 4)
    assert error == 0, error


def _batch(value: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """A batch of one record without a key (magic 2)."""
    record = b"\0" + _number(0) + _number(0) + _number(-1) + _sized(value) + _number(len(headers))
    record += b"".join(_sized(name) + _sized(content) for name, content in headers)
    now = int(time.time() * 1000)
    # Attributes, the last offset, both times, no producer, one record.
    counted = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + _sized(record)
    checked = struct.pack(">ibI", 0, 2, _crc(counted)) + counted
    return struct.pack(">qi", 0, len(checked)) + checked


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _sized(content: bytes) -> bytes:
    return _number(len(content)) + content


def _number(number: int) -> bytes:
    """Of variable length, with the sign in the lowest bit."""
    left, found = (number << 1) ^ (number >> 63), bytearray()
    while left > 0x7F:
        found.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*found, left])


def _crc(content: bytes) -> int:
    """CRC-32C."""
    found = 0xFFFF_FFFF
    for byte in content:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (_CASTAGNOLI if found & 1 else 0)
    return found ^ 0xFFFF_FFFF
