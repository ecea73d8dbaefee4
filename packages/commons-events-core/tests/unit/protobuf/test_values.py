"""What holds, to the edge of its range; what does not, and how that is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from math import copysign, inf, isnan, nan
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

from commons_events import Event
from commons_events.errors import DeserializationError, SerializationError
from commons_events.event import registry
from commons_events.protobuf import ProtobufSerializer, message_class
from commons_events.protobuf._scalars import from_duration, from_timestamp, to_duration, to_timestamp
from commons_events.protobuf._value import (
    read_member,
    read_members,
    read_value,
    write_member,
    write_members,
    write_value,
)

codec = ProtobufSerializer()


class Holder(Event):
    event_type = "holder"
    value: Any = None
    number: int = 0
    real: float = 0.0
    text: str = ""
    at: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    span: timedelta = timedelta()


@pytest.fixture(autouse=True)
def registered(own_registry: None) -> None:
    registry.register(Holder)


def again(**fields: Any) -> Holder:
    return codec.decode(codec.encode(Holder(**fields)), Holder)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 0, -1, 64, -65, 8191, 8192])
def test_ints_of_64_bits_hold(number: int) -> None:
    read = again(number=number, value=number)
    assert (read.number, read.value) == (number, number)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**100])
def test_longer_ints_hold_in_any_and_are_refused_in_a_typed_field(number: int) -> None:
    assert again(value=[number, {"a": -number}]).value == [number, {"a": -number}]
    with pytest.raises(SerializationError, match=r"Holder '.*' cannot be written as Protobuf: number: "):
        codec.encode(Holder(number=number))


def test_floats_hold_all_of_them() -> None:
    for number in (inf, -inf, 5e-324, 1.7976931348623157e308):
        assert (again(real=number).real, again(value=number).value) == (number, number)
    assert isnan(again(real=nan).real)
    assert isnan(again(value=[nan]).value[0])
    assert copysign(1, again(real=-0.0).real) == -1
    assert copysign(1, again(value={"z": -0.0}).value["z"]) == -1


def test_the_depth_of_any_and_the_order_of_its_keys() -> None:
    deep: Any = 1
    for _ in range(50):
        deep = [{"a": deep}]
    assert again(value=deep).value == deep
    assert list(again(value={"z": 1, "a": 2, "m": 3}).value) == ["z", "a", "m"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats(allow_nan=False) | st.text(max_size=200),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=150), inner, max_size=5),
        max_leaves=20,
    )
)
def test_any_value_holds_and_so_does_its_type(value: Any) -> None:
    try:
        read = read_value(write_value(value))
        member = read_member(write_member("key", value))
        members = read_members(write_members({"k": value, "": 1}))
    except UnicodeEncodeError:
        return  # a lone surrogate, which an event refuses
    assert repr(read) == repr(value)
    assert repr(member) == repr(("key", value))
    assert repr(members) == repr({"k": value, "": 1})


def test_google_s_moments_are_ours() -> None:
    for moment in (
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        datetime.max.replace(tzinfo=UTC),
    ):
        google = Timestamp()
        google.FromDatetime(moment)
        assert to_timestamp(moment) == (google.seconds, google.nanos)
        assert from_timestamp(google.seconds, google.nanos + 999) == moment
    for span in (
        timedelta(0),
        timedelta(microseconds=-1),
        timedelta(days=-3, seconds=5, microseconds=7),
        timedelta(days=3650000),
    ):
        duration = Duration()
        duration.FromTimedelta(span)
        assert to_duration(span) == (duration.seconds, duration.nanos)
        assert from_duration(duration.seconds, duration.nanos) == span


def test_moments_beyond_google_s_range_hold_all_the_same() -> None:
    east, west = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
    first, last = datetime(1, 1, 1, tzinfo=east), datetime.max.replace(tzinfo=west)
    assert (again(at=first).at, again(at=last).at) == (first, last)
    assert (again(span=timedelta.max).span, again(span=timedelta.min).span) == (timedelta.max, timedelta.min)


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(2**62, 0), (-(2**62), 0), (-62135596800 - 86400, 0), (0, -1), (0, 10**9), (253402300800 + 86400, 0)],
)
def test_moments_that_are_none_are_refused(seconds: int, nanos: int) -> None:
    message = message_class(Holder)(event_type="holder", version="1.0.0")
    message.at.seconds, message.at.nanos = seconds, nanos
    with pytest.raises(DeserializationError, match="at: a Timestamp"):
        codec.decode(message.SerializeToString(), Holder)


def test_decimals_that_are_no_numbers_are_refused() -> None:
    class Priced(Event):
        price: Decimal

    message = message_class(Priced)(event_type="Priced", version="1.0.0", price="1.10")
    read = codec.decode(message.SerializeToString(), Priced)
    assert str(read.price) == "1.10"
    for text in ("NaN", "Infinity", "one", ""):
        message.price = text
        with pytest.raises(DeserializationError, match="price: "):
            codec.decode(message.SerializeToString(), Priced)


def test_a_text_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(SerializationError, match=r"text: (UnicodeEncode|Value)Error"):
        codec.encode(Holder.model_construct(text="\ud800"))


class Checked(BaseModel):
    size: int

    @field_validator("size")
    @classmethod
    def _small(cls, size: int) -> int:
        if size > 3:
            raise ValueError("too large")
        return size


def test_the_user_s_validators_run_and_post_init_too() -> None:
    class Guarded(Event):
        inside: list[Checked]
        word: str

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.word == "bad":
                raise ValueError("a bad word")

    event = Guarded(inside=[Checked(size=3)], word="good")
    data = codec.encode(event)
    assert codec.decode(data, Guarded) == event
    with pytest.raises(DeserializationError, match=r"inside: Checked refuses what was read: size.*too large"):
        codec.decode(data.replace(b"\x08\x06", b"\x08\x08"), Guarded)
    with pytest.raises(DeserializationError, match="a bad word") as caught:
        codec.decode(data.replace(b"\x04good", b"\x03bad"), Guarded)
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(caught.value.__cause__) == "a bad word"


def test_a_model_that_holds_itself_too_deeply_is_refused_when_it_is_written() -> None:
    class Chain(BaseModel):
        inner: Chain | None = None

    class Chained(Event):
        chain: Chain

    chain = Chain()
    for _ in range(150):
        chain = Chain(inner=chain)
    with pytest.raises(SerializationError, match="nested deeper than 100 levels"):
        codec.encode(Chained.model_construct(chain=chain))
