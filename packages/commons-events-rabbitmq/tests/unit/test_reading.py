"""What was read is taken apart as pika does it, however it was cut into pieces on its way."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import exceptions, frame, spec

from commons_events.rabbitmq import _reading
from commons_events.rabbitmq._reading import Arrived, FastConnection, Taker
from commons_events.rabbitmq._received import decoded, read_attempts, read_delivery_count, read_offset, to_message

OURS, OTHER = 1, 2
"""Channels: of one we take deliveries and confirmations, the other is pika's."""


class Reader(FastConnection):
    """A connection that nothing is behind; it keeps the frames that go pika's way."""

    def __init__(self) -> None:
        self.arrived: deque[Any] = deque()
        self.told = 0
        self.confirmations: list[tuple[int, bool, bool]] = []
        self.frames: list[bytes] = []
        self.takers = {OURS: Taker({b"first": 0, b"second": 1}, self.arrived, self.tell)}
        self.confirmed = {OURS: lambda *what: self.confirmations.append(what)}
        self._frame_buffer = b""
        self.bytes_received = 0

    def tell(self) -> None:
        self.told += 1

    def _process_frame(self, frame_value: Any) -> None:
        self.frames.append(frame_value.marshal())


tables = st.dictionaries(
    st.sampled_from(
        ["a", "content-type", "x-key", "x-tombstone", "timestamp_in_ms", "x-death", "x-stream-offset", "ü"]
    ),
    st.text(max_size=9) | st.binary(max_size=9) | st.integers(-(1 << 63), (1 << 63) - 1) | st.booleans() | st.none(),
    max_size=5,
)
properties = st.builds(
    spec.BasicProperties,
    content_type=st.none() | st.just("text/plain"),
    content_encoding=st.none() | st.just("gzip"),
    headers=st.none() | tables,
    delivery_mode=st.none() | st.just(2),
    priority=st.none() | st.integers(0, 9),
    correlation_id=st.none() | st.just("c"),
    reply_to=st.none() | st.just("r"),
    expiration=st.none() | st.just("5"),
    message_id=st.none() | st.text(max_size=9),
    timestamp=st.none() | st.integers(0, 1 << 40),
    app_id=st.none() | st.just("app"),
)


@st.composite
def pieces(draw: st.DrawFn) -> tuple[bytes, Arrived | tuple[int, bool, bool] | None]:
    """Frames, and what we have to make of them; None where they are pika's."""
    kind = draw(st.sampled_from(["deliver", "deliver", "deliver", "confirm", "heartbeat", "other"]))
    tag, flag = draw(st.integers(1, 1 << 40)), draw(st.booleans())
    if kind == "heartbeat":
        return frame.Heartbeat().marshal(), None
    channel = OURS if kind != "other" else OTHER
    if kind == "confirm":
        taken = draw(st.booleans())
        method: Any = spec.Basic.Ack(tag, flag) if taken else spec.Basic.Nack(tag, flag, draw(st.booleans()))
        return frame.Method(channel, method).marshal(), (tag, flag, taken)
    consumer = draw(st.sampled_from(["first", "second", "stranger"]))
    names = draw(st.text("ab.ü", max_size=5)), draw(st.text("ab.ü", max_size=5))
    given_properties = draw(properties)
    body = draw(st.binary(max_size=60))
    parts = draw(st.integers(1, 3)) if body else 0
    data = frame.Method(channel, spec.Basic.Deliver(consumer, tag, flag, *names)).marshal()
    data += frame.Header(channel, len(body), given_properties).marshal()
    step = -(-len(body) // parts) if parts else 1
    for start in range(0, len(body), step):
        data += frame.Body(channel, body[start : start + step]).marshal()
    if channel == OTHER or consumer == "stranger" or (body and step < len(body)):
        return data, None
    route = b"".join(bytes((len(name.encode()),)) + name.encode() for name in names)
    encoded = b"".join(given_properties.encode())
    return data, Arrived(("first", "second").index(consumer), tag, flag, route, encoded, body)


@given(st.lists(pieces(), max_size=8), st.lists(st.integers(0, 2000), max_size=12), st.sampled_from([10, 1 << 16]))
def test_every_frame_is_read_once_and_in_its_order(sent: list[tuple[bytes, Any]], cuts: list[int], whole: int) -> None:
    data = b"".join(piece for piece, _ in sent)
    reader = Reader()
    before, _reading._WHOLE = _reading._WHOLE, whole
    try:
        for start, end in pairwise(sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})):
            waiting = len(reader.arrived)
            told = reader.told
            reader._on_data_available(data[start:end])
            assert (reader.told > told) == (len(reader.arrived) > waiting)
    finally:
        _reading._WHOLE = before
    assert reader._frame_buffer == b""
    assert reader.bytes_received == len(data)
    ours = [what for _, what in sent if isinstance(what, Arrived)]
    if whole > 60:
        assert list(reader.arrived) == ours
        assert b"".join(reader.frames) == b"".join(piece for piece, what in sent if what is None)
    else:  # some, which were not there as a whole, have gone pika's way
        assert set(reader.arrived) <= set(ours)
        assert len(b"".join(reader.frames)) == sum(
            len(piece) for piece, what in sent if what is None or (type(what) is Arrived and what not in reader.arrived)
        )
    assert reader.confirmations == [what for _, what in sent if type(what) is tuple]


def test_what_is_no_frame_is_pikas_to_refuse() -> None:
    data = frame.Method(OURS, spec.Basic.Deliver("first", 1, False, "", "")).marshal()
    data += frame.Header(OURS, 0, spec.BasicProperties()).marshal()
    for broken in (data[:-1] + b"\x00", frame.Method(OURS, spec.Basic.Ack(1)).marshal()[:-1] + b"\x00"):
        with pytest.raises(exceptions.InvalidFrameError):
            Reader()._on_data_available(broken)


@given(properties, st.binary(max_size=9))
def test_the_short_way_makes_the_same_message(given_properties: spec.BasicProperties, body: bytes) -> None:
    encoded = b"".join(given_properties.encode())
    assert to_message("t", encoded, body) == to_message("t", decoded(encoded), body)
    for read in (read_attempts, read_delivery_count, read_offset):
        assert read(encoded) == read(decoded(encoded))


def test_counts_and_offsets_are_read() -> None:
    for name, read in (("x-attempts", read_attempts), ("x-delivery-count", read_delivery_count)):
        for count in (3, 1 << 40):
            assert repr(read(b"".join(spec.BasicProperties(headers={name: count}).encode()))) == str(count)
    table = {"x-stream-offset": 1 << 40}
    assert read_offset(b"".join(spec.BasicProperties(headers=table).encode())) == 1 << 40
    fake = b"\x0fx-stream-offsetl" + bytes(8)
    assert read_offset(b"".join(spec.BasicProperties(headers={"a": fake, **table}).encode())) == 1 << 40


def test_a_time_that_no_calendar_has_is_none() -> None:
    for table in ({"timestamp_in_ms": 1 << 62}, {"timestamp_in_ms": -(1 << 62)}):
        message = to_message("t", b"".join(spec.BasicProperties(headers=table).encode()), b"")
        assert message.timestamp is None
    assert to_message(
        "t", b"".join(spec.BasicProperties(headers={"timestamp_in_ms": 1000}).encode()), b""
    ).timestamp == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
