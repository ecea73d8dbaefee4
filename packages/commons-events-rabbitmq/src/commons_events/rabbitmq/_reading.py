"""pika's connection with a short way for what comes by the thousand: deliveries and confirmations.

pika makes four objects of a delivery, decodes all its headers, and copies the rest of what was read for each frame.
Here a delivery that was read as a whole is handed over as it lies there, and decoded where somebody looks at it. All
other frames go pika's way, and so does a delivery that came in parts.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from pika import SelectConnection
from pika.spec import BasicProperties

__all__ = ["Arrived", "FastConnection", "Taker"]

_RECEIVED = 128 * 1024
"""Bytes that are read from the socket at once; pika reads 4,096."""
_WHOLE = 64 * 1024
"""Bytes of a body up to which the whole message is waited for; pika puts larger ones together."""
_METHOD = struct.Struct(">BHIIB").unpack_from
"""Of a method frame: type, channel, size, class and method; and the size of a delivery's first field."""
_DELIVERED = struct.Struct(">QB").unpack_from
_HEADER = struct.Struct(">BHIHHQ").unpack_from
_BODY = struct.Struct(">BHI").unpack_from
_DELIVER, _ACK, _NACK = (60 << 16) | 60, (60 << 16) | 80, (60 << 16) | 120
_CONFIRMS = (_ACK, _NACK)
_END = 0xCE
_tuple = tuple.__new__  # half the time that a NamedTuple's own constructor takes


class Arrived(NamedTuple):
    """A message as it was read."""

    source: int
    """The place of its queue in the subscription."""
    tag: int
    redelivered: bool
    route: bytes
    """Exchange and routing key, two short strings (AMQP 0-9-1, section 4.2.5.3)."""
    properties: bytes | BasicProperties
    """Flags and values (section 2.3.5.2); or as pika has decoded them."""
    body: bytes


class Taker(NamedTuple):
    """Who gets the deliveries of a channel."""

    places: dict[bytes, int]
    """The place of each consumer, by its tag."""
    arrived: deque[Any]
    """Where `Arrived` goes."""
    tell: Callable[[], object]
    """Called after some have been put there."""


class FastConnection(SelectConnection):
    """See the module. Everything here belongs to the I/O thread."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.takers: dict[int, Taker] = {}
        """By the number of the channel."""
        self.confirmed: dict[int, Callable[[int, bool, bool], object]] = {}
        """Whom a channel's confirmations are told: the tag, whether all up to it are meant, whether it was taken."""
        super().__init__(*arguments, **settings)

    def _on_connection_workflow_done(self, conn_or_exc: Any) -> None:
        """Take what pika says where it was closed before it was open: a class, which its own method asserts is none."""
        made = conn_or_exc() if isinstance(conn_or_exc, type) else conn_or_exc
        super()._on_connection_workflow_done(made)  # type: ignore[no-untyped-call,unused-ignore]

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = _RECEIVED
        super()._proto_connection_made(transport)  # type: ignore[no-untyped-call,unused-ignore]

    def _on_data_available(self, data: bytes) -> None:
        """Take apart what was read; what is not whole yet waits for more."""
        takers, confirmed = self.takers, self.confirmed
        buffer: bytes = self._frame_buffer + data if self._frame_buffer else data
        size, at = len(buffer), 0
        told: Taker | None = None
        while True:
            if size - at > 12:
                kind, channel, length, method, first = _METHOD(buffer, at)
                if kind == 1 and method == _DELIVER and channel in takers:
                    end = at + length + 8
                    if end + 19 > size:
                        break
                    kind, _, length, _, _, body_size = _HEADER(buffer, end)
                    head = end + length + 8
                    if head > size:
                        break
                    if body_size == 0:
                        whole, body, framed = head, b"", True
                    else:
                        whole = head + body_size + 8
                        if whole > size:
                            if body_size <= _WHOLE:
                                break
                            framed = False
                        else:
                            one, _, length = _BODY(buffer, head)
                            framed = one == 3 and length == body_size
                            body = buffer[head + 7 : whole - 1]
                    if (
                        framed
                        and kind == 2
                        and buffer[end - 1] == buffer[head - 1] == buffer[whole - 1] == _END
                        and (place := takers[channel].places.get(buffer[at + 12 : at + 12 + first])) is not None
                    ):
                        tag, redelivered = _DELIVERED(buffer, at + 12 + first)
                        taker = takers[channel]
                        taker.arrived.append(
                            _tuple(
                                Arrived,
                                (
                                    place,
                                    tag,
                                    redelivered & 1 == 1,
                                    buffer[at + 21 + first : end - 1],
                                    buffer[end + 19 : head - 1],
                                    body,
                                ),
                            )
                        )
                        if told is not taker:
                            if told is not None:
                                told.tell()
                            told = taker
                        at = whole
                        continue
                elif kind == 1 and method in _CONFIRMS and length == 13 and channel in confirmed:
                    if at + 21 > size:
                        break
                    tag, bits = _DELIVERED(buffer, at + 11)
                    if buffer[at + 20] == _END:
                        confirmed[channel](tag, bits & 1 == 1, method == _ACK)
                        at += 21
                        continue
            # pika's way.
            self._frame_buffer = buffer[at:]
            self.bytes_received += at
            at = 0
            consumed, frame = self._read_frame()
            if not frame:
                buffer = self._frame_buffer
                break
            self._trim_frame_buffer(consumed)
            self._process_frame(frame)
            buffer = self._frame_buffer
            size = len(buffer)
            if not size:
                break
        self.bytes_received += at
        self._frame_buffer = buffer[at:] if at else buffer
        if told is not None:
            told.tell()
