"""Bytes that are wrong, or mean harm: refused with the place and the reason, and nothing else."""

from __future__ import annotations

import tracemalloc
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from commons_events import Event
from commons_events.errors import DeserializationError
from commons_events.event import registry
from commons_events.protobuf import ProtobufSerializer
from commons_events.protobuf._wire import FIXED32, FIXED64, LENGTH, VARINT, tag, varint

codec = ProtobufSerializer()


class Color(Enum):
    RED = "red"
    GREEN = "green"


class Node(BaseModel):
    name: str
    inner: Node | None = None


class Hostile(Event):
    event_type = "hostile"
    text: str
    number: int = 0
    color: Color = Color.RED
    either: int | str = 0
    node: Node | None = None
    anything: Any = None
    numbers: list[int] = []
    table: dict[str, Any] = {}
    day: float = 0.0
    pair: tuple[int, str] = (1, "x")


TEXT, NUMBER, COLOR, EITHER, NODE, ANYTHING, NUMBERS, TABLE, DAY, PAIR = range(1, 11)


@pytest.fixture(autouse=True)
def registered(own_registry: None) -> None:
    registry.register(Hostile)


def field(number: int, body: bytes) -> bytes:
    return tag(number, LENGTH) + varint(len(body)) + body


def integer(number: int, value: int) -> bytes:
    return tag(number, VARINT) + varint(value)


IDENTITY = field(2040, b"hostile") + field(2041, b"1.0.0")
GOOD = IDENTITY + field(2042, b"id") + field(TEXT, b"t") + field(2044, integer(1, 1))


def nested_value(depth: int, wrap: int) -> bytes:
    """A Value of so many lists, or maps, in each other; the last one is empty."""
    body = b""
    for _ in range(depth):
        inner = field(1, field(2, field(wrap, body))) if wrap == 8 else field(1, field(wrap, body))
        body = inner
    return field(wrap, body)


def nested_nodes(depth: int) -> bytes:
    body = field(1, b"x")
    for _ in range(depth):
        body = field(1, b"x") + field(2, body)
    return body


CASES: list[tuple[bytes, str]] = [
    (GOOD[:-3], r"bytes end|claims"),
    (GOOD + b"\x0a", r"the bytes end inside the field that starts at byte \d+"),
    (
        GOOD + tag(TEXT, LENGTH) + varint(2**31 - 1),
        r"the field 1 at byte \d+ claims 2,147,483,647 bytes, and 0 are left",
    ),
    (GOOD + tag(TEXT, LENGTH) + varint(2**40) + b"x", r"claims 1,099,511,627,776 bytes, and 1 are left"),
    (GOOD + field(TEXT, b"\xff"), r"text: the text is not UTF-8"),
    (GOOD + integer(TEXT, 5), r"text: it is a varint on the wire, and has to be length-delimited"),
    (GOOD + field(NUMBER, b"12345"), r"number: it is length-delimited on the wire, and has to be a varint"),
    (GOOD + tag(NUMBER, FIXED64) + bytes(8), r"number: it is eight bytes on the wire"),
    (GOOD + tag(DAY, FIXED32) + bytes(4), r"day: it is four bytes on the wire, and has to be eight bytes"),
    (GOOD + tag(TEXT, 3) + tag(TEXT, 4), r"the field 1 at byte \d+ is a group|text"),
    (GOOD + tag(77, 3), r"group|end"),
    (GOOD + tag(TEXT, 4), r"the end of a group"),
    (GOOD + b"\x0f", r"wire type 7|not exist"),
    (GOOD + b"\x02\x00", r"the number 0"),
    (GOOD + tag(NUMBER, VARINT) + b"\xff" * 10 + b"\x01", r"more than ten bytes"),
    (GOOD + integer(COLOR, 99), r"color: 99 is none of its values"),
    (GOOD + integer(COLOR, 2**64 - 1), r"color: -1 is none of its values"),
    (GOOD + field(EITHER, b""), r"either: the union has none of the members"),
    (GOOD + field(EITHER, field(9, b"")), r"either: the union has none of the members"),
    (GOOD + field(NODE, b""), r"node\.name: it is missing, and has no default"),
    (GOOD + field(NODE, field(2, field(1, b"\xff"))), r"node\.inner\.name: the text is not UTF-8|node.*missing"),
    (GOOD + field(NODE, nested_nodes(10_000)), r"nested deeper than 100 levels"),
    (GOOD + field(ANYTHING, b""), r"anything: a Value has none of the members"),
    (GOOD + field(ANYTHING, nested_value(10_000, 7)), r"anything: lists and maps are nested deeper than 100 levels"),
    (GOOD + field(ANYTHING, nested_value(10_000, 8)), r"anything: lists and maps are nested deeper than 100 levels"),
    (GOOD + field(ANYTHING, tag(6, LENGTH) + varint(2**40)), r"anything: a Value"),
    (GOOD + field(ANYTHING, field(6, b"\xff")), r"anything: a text inside a Value is not UTF-8"),
    (GOOD + field(ANYTHING, field(4, b"9" * 5000)), r"anything: big_int_value is up to 4,300 decimal digits"),
    (GOOD + field(ANYTHING, field(4, b"1e5")), r"anything: big_int_value"),
    (GOOD + field(ANYTHING, field(3, b"1")), r"anything: the field 3 of a Value has the wire type 2"),
    (GOOD + field(ANYTHING, tag(5, FIXED64) + b"1234"), r"anything: a Value ends early"),
    (GOOD + field(ANYTHING, tag(7, 3) * 10_000), r"anything: the field 7 .* a group"),
    (GOOD + field(TABLE, b""), r"table: the entry '' of a map has no value"),
    (GOOD + field(TABLE, field(1, b"k") + field(2, b"")), r"table: a Value has none"),
    (GOOD + field(TABLE, field(1, b"\xff") + field(2, integer(2, 1))), r"table: a text inside a Value is not UTF-8"),
    (GOOD + field(TABLE, b"\n\x7fk"), r"table: an entry of a map claims 127 bytes"),
    (GOOD + field(NUMBERS, b"\xff"), r"numbers: the packed values end inside a varint"),
    (GOOD + field(PAIR, integer(1, 1)), r"pair\.item_2: it is missing"),
    (GOOD + field(2044, integer(1, 2**63 - 1)), r"timestamp: a Timestamp of .* is outside of the years 1 to 9999"),
    (GOOD + field(2044, integer(2, 2**32)), r"timestamp|hostile"),
    (IDENTITY, r"text: it is missing, and has no default"),
    (field(2040, b"other") + field(2041, b"1.0.0"), r"the bytes are an event of type 'other', not 'hostile'"),
    (field(2040, b"hostile") + field(2041, b"2.0.0"), r"the bytes are version 2.0.0"),
    (field(2040, b"\xff"), r"event_type: the text is not UTF-8"),
    (b"", r"no bytes"),
]


@pytest.mark.parametrize(("data", "reason"), CASES, ids=range(len(CASES)))
def test_a_refusal_says_where_and_why(data: bytes, reason: str) -> None:
    if reason == r"timestamp|hostile":  # nanos are an int32: what is longer is cut, as everywhere in Protobuf
        assert codec.decode(data, Hostile).text == "t"
        return
    with pytest.raises(DeserializationError, match=reason) as caught:
        codec.decode(data, Hostile)
    assert "Hostile" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_good_ones_are_read() -> None:
    assert codec.decode(GOOD, Hostile).text == "t"
    reordered = field(TEXT, b"t") + field(2042, b"id") + field(2041, b"1.0.0") + field(2040, b"hostile")
    assert codec.decode(reordered, Hostile).event_id == "id"
    assert codec.identify(reordered) == ("hostile", "1.0.0")
    assert type(codec.decode(reordered, Event)) is Hostile


def test_of_several_members_the_last_one_counts() -> None:
    twice = GOOD + field(EITHER, integer(1, 2) + field(2, b"last"))
    assert codec.decode(twice, Hostile).either == "last"
    value = field(ANYTHING, integer(3, 2) + field(6, b"first") + integer(2, 1))
    assert codec.decode(GOOD + value, Hostile).anything is True
    merged = field(7, field(1, integer(3, 2))) * 2
    assert codec.decode(GOOD + field(ANYTHING, merged), Hostile).anything == [1, 1]


def test_messages_that_come_twice_are_merged_or_replaced() -> None:
    data = GOOD + field(TEXT, b"later") + field(NUMBERS, b"\x02") + tag(NUMBERS, VARINT) + b"\x04"
    event = codec.decode(data, Hostile)
    assert (event.text, event.numbers) == ("later", [1, 2])


def test_an_empty_list_and_an_unspecified_enum_are_as_if_they_were_absent() -> None:
    event = codec.decode(GOOD + field(NUMBERS, b"") + integer(COLOR, 0), Hostile)
    assert (event.numbers, event.color) == ([], Color.RED)


def test_large_claims_take_no_memory() -> None:
    bombs = [
        GOOD + tag(number, LENGTH) + varint(size) + b"x" * 100
        for number in (TEXT, NODE, ANYTHING, NUMBERS, TABLE)
        for size in (2**28, 2**31 - 1, 2**62)
    ]
    tracemalloc.start()
    try:
        for bomb in bombs:
            with pytest.raises(DeserializationError):
                codec.decode(bomb, Hostile)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


sample = codec.encode(
    Hostile(
        event_id="id", text="ü", number=-5, either="x", node=Node(name="n", inner=Node(name="m")), numbers=[1, 300],
        anything={"a": [1, 2.5, None, {"b": 10**30}]}, table={"k": "v", "l": True},
    )
)  # fmt: skip


@given(st.integers(0, len(sample) - 1), st.integers(0, 255), st.integers(0, len(sample)))
def test_damage_raises_nothing_else(place: int, byte: int, cut: int) -> None:
    for data in (sample[:place] + bytes([byte]) + sample[place + 1 :], sample[:cut], sample[cut:], sample[:place] * 2):
        try:
            event = codec.decode(data, Hostile)
        except DeserializationError:
            continue
        assert codec.decode(codec.encode(event), Hostile).text == event.text


pieces = st.one_of(
    st.builds(integer, st.integers(1, 12) | st.integers(2038, 2048), st.integers(0, 2**64 - 1)),
    st.builds(field, st.integers(1, 12) | st.integers(2038, 2048), st.binary(max_size=12)),
    st.binary(max_size=4),
)
deeper = st.recursive(
    st.lists(pieces, max_size=4).map(b"".join),
    lambda inner: st.lists(st.builds(field, st.integers(1, 12), inner), max_size=3).map(b"".join),
    max_leaves=12,
)


@given(deeper)
def test_messages_of_any_make_raise_nothing_else(body: bytes) -> None:
    for data in (GOOD + body, body, IDENTITY + body):
        codec.identify(data)
        for cls in (Hostile, Event):
            try:
                event = codec.decode(data, cls)
            except DeserializationError:
                continue
            assert codec.decode(codec.encode(event), Hostile)
