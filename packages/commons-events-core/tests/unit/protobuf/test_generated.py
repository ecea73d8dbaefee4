"""Events of any class: generated types of all kinds, nested, and values for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address
from typing import Any, Literal
from uuid import UUID

from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from commons_events import Event
from commons_events.event import registry
from commons_events.protobuf import ProtobufSerializer, message_class

codec = ProtobufSerializer()
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
whole = st.integers(-(2**63), 2**63 - 1)
real = st.floats(allow_nan=False)


class Level(IntEnum):
    LOW = 0
    HIGH = 7


class Word(str, Enum):
    EMPTY = ""
    a_b = "x"


class Money(BaseModel):
    amount: Decimal
    note: str | None = "none"
    parts: list[int] = [1]


class Tree(BaseModel):
    name: str = ""
    children: list[Tree] = []
    left: Tree | None = None


@dataclass
class Size:
    width: int
    height: float = 0.5


class Place(TypedDict):
    lat: float
    names: list[str]


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | real | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
money = st.builds(
    Money,
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    note=st.none() | text,
    parts=st.lists(whole, max_size=3),
)
trees = st.recursive(
    st.builds(Tree, name=text),
    lambda inner: st.builds(Tree, name=text, children=st.lists(inner, max_size=2), left=st.none() | inner),
    max_leaves=4,
)

zoned = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.timezones())
"""Those that are in range in UTC, too."""

Typed = tuple[Any, st.SearchStrategy[Any]]
SIMPLE: list[Typed] = [
    (str, text), (int, whole), (float, real), (bool, st.booleans()), (bytes, st.binary(max_size=5)), (date, st.dates()),
    (datetime, st.datetimes() | zoned), (time, st.times()), (timedelta, st.timedeltas()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)), (UUID, st.uuids()), (Level, st.sampled_from(Level)),
    (Word, st.sampled_from(Word)), (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Literal[1, 2], st.sampled_from([1, 2])), (Literal["a", 1, None], st.sampled_from(["a", 1, None])),
    (Any, anything), (IPv4Address, st.ip_addresses(v=4)), (None, st.none()),
]  # fmt: skip
RECORDS: list[Typed] = [
    (Money, money),
    (Tree, trees),
    (Size, st.builds(Size, whole, real)),
    (Place, st.fixed_dictionaries({"lat": real, "names": st.lists(text, max_size=2)})),
]
UNIONS: list[Typed] = [
    (int | str, whole | text),
    (float | str | None, st.none() | real | text),
    (bool | str, st.booleans() | text),
    (int | float, whole | real),
    (Money | int | list[str], money | whole | st.lists(text, max_size=2)),
    (dict[str, int] | str | None, st.none() | st.dictionaries(text, whole, max_size=2) | text),
    (Level | str, st.sampled_from(Level) | text),
]
hashable: list[Typed] = [
    (str, text),
    (int, whole),
    (UUID, st.uuids()),
    (date, st.dates()),
    (Word, st.sampled_from(Word)),
]


def containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def optional(typed: Typed) -> Typed:
        return (typed[0] | None, st.none() | typed[1]) if typed[0] not in (Any, None) else typed

    def list_of(typed: Typed) -> Typed:
        return list[typed[0]], st.lists(typed[1], max_size=3)  # type: ignore[valid-type]

    def map_of(key: Typed, typed: Typed) -> Typed:
        return dict[key[0], typed[0]], st.dictionaries(key[1], typed[1], max_size=3)  # type: ignore[valid-type]

    def pair(one: Typed, other: Typed) -> Typed:
        return tuple[one[0], other[0]], st.tuples(one[1], other[1])  # type: ignore[valid-type]

    def set_of(typed: Typed) -> Typed:
        return set[typed[0]], st.sets(typed[1], max_size=3)  # type: ignore[valid-type]

    return st.one_of(
        inner.map(optional),
        inner.map(list_of),
        st.builds(map_of, st.sampled_from(hashable), inner),
        st.builds(pair, inner, inner),
        st.sampled_from(hashable).map(set_of),
    )


types: st.SearchStrategy[Typed] = st.recursive(st.sampled_from([*SIMPLE, *RECORDS, *UNIONS]), containers, max_leaves=3)
numbers = itertools.count()


@st.composite
def events(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Event:
    fields = draw(st.lists(st.tuples(types, st.booleans()), min_size=1, max_size=5))
    annotations: dict[str, Any] = {}
    values: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for place, ((annotation, strategy), has_default) in enumerate(fields):
        name = f"field_{place}"
        annotations[name] = annotation
        values[name] = draw(strategy)
        if has_default:
            defaults[name] = Field(default=draw(strategy))
    cls = type(
        f"Generated{next(numbers)}", (Event,), {"__annotations__": annotations, "__module__": __name__, **defaults}
    )
    try:
        return cls(**values)
    finally:
        registry.unregister(cls)


@given(events())
def test_every_event_holds(event: Event) -> None:
    data = codec.encode(event)
    read = codec.decode(data, type(event))
    assert read == event
    assert codec.identify(data) == (event.event_type, "1.0.0")


@given(events())
def test_google_s_own_classes_read_and_write_the_same(event: Event) -> None:
    reader = message_class(type(event))
    message = reader.FromString(codec.encode(event))
    assert message.event_id == event.event_id
    assert not UnknownFieldSet(message)
    assert codec.decode(message.SerializeToString(), type(event)) == event
    assert codec.decode(message.SerializeToString(deterministic=True), type(event)) == event
