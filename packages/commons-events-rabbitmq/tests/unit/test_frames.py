"""Messages on the wire are what pika itself would write, and come back as they were."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec

from commons_events.message import Message
from commons_events.rabbitmq._frames import Properties, content, encode_properties, publish_method
from commons_events.rabbitmq._received import to_message
from commons_events.rabbitmq._topology import retry_queue

names = st.text(st.characters(categories=["L", "N"], include_characters="-_."), min_size=1, max_size=20).filter(
    lambda name: not name.startswith("x-") and name not in ("CC", "BCC", "timestamp_in_ms", "content-type")
)
headers = st.dictionaries(names, st.binary(max_size=50), max_size=8)


def decoded(data: bytes) -> list[frame.Frame]:
    """All frames of some bytes, as pika reads them."""
    found = []
    while data:
        length, one = frame.decode_frame(data)
        assert one is not None
        found.append(one)
        data = data[length:]
    return found


@given(
    value=st.none() | st.binary(max_size=300),
    key=st.none() | st.binary(max_size=30),
    table=headers,
    kind=st.none() | st.sampled_from([b"application/json", b"avro/binary"]),
    time=st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    most=st.integers(1, 200),
)
def test_a_message_comes_back_as_it_was(
    value: bytes | None,
    key: bytes | None,
    table: dict[str, bytes],
    kind: bytes | None,
    time: datetime | None,
    most: int,
) -> None:
    first = (("content-type", kind),) if kind is not None else ()
    time = time and time.replace(microsecond=time.microsecond // 1000 * 1000)
    message = Message("topic", value, key, (*first, *table.items()), time)
    head, *bodies = decoded(content(3, encode_properties(message, Properties(), "id"), value or b"", most))
    assert isinstance(head, frame.Header)
    assert head.body_size == len(value or b"")
    assert all(isinstance(body, frame.Body) and len(body.fragment) <= most for body in bodies)
    body = b"".join(body.fragment for body in bodies)  # type: ignore[attr-defined]
    assert to_message("topic", head.properties, body) == message


@given(
    persistent=st.booleans(),
    priority=st.none() | st.integers(0, 255),
    expiration=st.none() | st.integers(0, 1 << 31),
    table=st.dictionaries(names, st.text(max_size=20), max_size=5),
)
def test_properties_are_written_as_pika_writes_them(
    persistent: bool, priority: int | None, expiration: int | None, table: dict[str, str]
) -> None:
    fields = tuple((name, value.encode()) for name, value in table.items())
    given = Properties(persistent, priority, expiration)
    ours = content(1, encode_properties(Message("t", b"v", headers=fields), given, "an-id"), b"v", 99)
    properties = spec.BasicProperties(
        headers=table or None,
        delivery_mode=2 if persistent else 1,
        priority=priority,
        expiration=None if expiration is None else str(expiration),
        message_id="an-id",
    )
    assert ours == frame.Header(1, 1, properties).marshal() + frame.Body(1, b"v").marshal()


@given(exchange=names, key=st.text(max_size=60), mandatory=st.booleans())
def test_publishing_is_written_as_pika_writes_it(exchange: str, key: str, mandatory: bool) -> None:
    method = spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
    assert publish_method(7, exchange, key, mandatory) == frame.Method(7, method).marshal()


def test_what_other_systems_put_into_headers_is_read() -> None:
    properties = spec.BasicProperties(
        content_type="text/plain",
        timestamp=1_700_000_000,
        headers={"number": 7, "flag": True, "list": [1, "a"], "none": None, "x-death": [{"count": 1}], "CC": ["a"]},
    )
    message = to_message("t", properties, b"body")
    assert message.headers == (
        ("content-type", b"text/plain"),
        ("number", b"7"),
        ("flag", b"true"),
        ("list", b'[1, "a"]'),
        ("none", b""),
        ("CC", b'["a"]'),
    )
    assert message.timestamp == datetime.fromtimestamp(1_700_000_000, UTC)


@given(st.floats(0, 100_000))
def test_a_retry_queue_holds_back_no_less_than_asked_and_little_more(delay: float) -> None:
    name, milliseconds = retry_queue("queue", delay)
    assert name == f"queue.retry.{milliseconds}"
    assert delay * 1000 <= milliseconds <= delay * 1250 + 2
