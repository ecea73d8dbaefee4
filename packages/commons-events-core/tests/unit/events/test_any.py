"""Inside `Any` a value holds exactly, or is refused when the event is made (reading note 7)."""

from __future__ import annotations

import enum
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from commons_events import Event
from commons_events.errors import EventDefinitionError, SerializationError


class Free(BaseModel):
    anything: Any = None


class Loose(Event):
    event_type = "unit.loose"
    anything: Any = None
    row: list[Any] = []
    rows: list[list[Any]] = []
    bare_list: list = []  # type: ignore[type-arg]
    table: dict[str, Any] = {}
    bare_dict: dict = {}  # type: ignore[type-arg]
    deep: dict[str, dict[str, list[Any]]] = {}
    maybe: dict[str, Any] | None = None
    pair: tuple[Any, int] | None = None
    mapping: Mapping[str, Any] = {}
    sequence: Sequence[Any] = []
    inner: Free | None = None


PLACES = {
    "anything": lambda value: {"anything": value},
    "anything deep": lambda value: {"anything": {"a": [{"b": value}]}},
    "row": lambda value: {"row": [1, value]},
    "row deep": lambda value: {"row": [[{"a": value}]]},
    "rows": lambda value: {"rows": [[value]]},
    "bare_list": lambda value: {"bare_list": [value]},
    "table": lambda value: {"table": {"k": value}},
    "table deep": lambda value: {"table": {"k": {"l": [value]}}},
    "bare_dict": lambda value: {"bare_dict": {"k": value}},
    "deep": lambda value: {"deep": {"a": {"b": [value]}}},
    "maybe": lambda value: {"maybe": {"k": value}},
    "pair": lambda value: {"pair": (value, 1)},
    "mapping": lambda value: {"mapping": {"k": value}},
    "sequence": lambda value: {"sequence": [value]},
    "inner": lambda value: {"inner": {"anything": value}},
    "inner, made before": lambda value: {"inner": Free(anything=value)},
    "metadata": lambda value: {"metadata": {"k": value}},
}


class Word(str):
    __slots__ = ()


class Number(int):
    pass


class Colour(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Quiet(enum.Enum):
    A = 1


Point = namedtuple("Point", "x y")  # an untyped one is what is to be refused

REFUSED = {
    "tuple": (1, 2),
    "set": {1},
    "frozenset": frozenset({1}),
    "bytes": b"x",
    "bytearray": bytearray(b"x"),
    "Decimal": Decimal("1.5"),
    "UUID": UUID(int=0),
    "str subclass": Word("x"),
    "int subclass": Number(1),
    "str enum": Colour.RED,
    "int enum": Level.LOW,
    "enum": Quiet.A,
    "namedtuple": Point(1, 2),
    "OrderedDict": OrderedDict(a=1),
    "defaultdict": defaultdict(list),
    "complex": 1j,
    "object": object(),
    "type": int,
    "model": Free(),
    "ellipsis": ...,
    "range": range(3),
    "int keys": {1: "a"},
    "none key": {None: 1},
    "enum key": {Colour.RED: 1},
    "str subclass key": {Word("k"): 1},
    "bool key": {True: 1},
    "lone surrogate": "\ud800",
    "lone surrogate key": {"\udfff": 1},
    "int of 4301 digits": 10**4300,
    "negative int of 4301 digits": -(10**4300),
}

HELD = {
    "none": None,
    "true": True,
    "zero": 0,
    "minus zero": -0.0,
    "past 64 bits": 2**64,
    "far past 64 bits": -(10**400),
    "4300 digits": 10**4300 - 1,
    "float": 0.1 + 0.2,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "float that is whole": 1.0,
    "float past 2**53": 1e16,
    "empty": "",
    "text": "NaN, Infinity, -Infinity and “ü” 🎉",
    "nul": "a\0b",
    "line separators": "\u2028\u2029\x7f\x85",
    "digits": "9" * 5000,
    "list": [1, [2, [3, {}]], []],
    "dict": {"a": {"b": [None, True]}, "": 1, "ü": 2},
}


def shown(event: Loose) -> str:
    """The values as text, in which equal values of another type, such as 1 and True, differ."""
    return repr(event.model_dump(exclude={"timestamp"}))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_what_does_not_hold_exactly_is_refused_wherever_it_stands(place: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        Loose(**PLACES[place](value))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", HELD.values(), ids=HELD)
def test_what_holds_comes_back_equal_and_of_the_same_type(place: str, value: object) -> None:
    event = Loose(**PLACES[place](value))
    again = Loose.from_json(event.to_json())
    assert again == event
    assert shown(again) == shown(event)


def test_the_refusal_says_what_and_where() -> None:
    with pytest.raises(ValueError, match=r"at a\[1\]\.b is a tuple"):
        Loose(anything={"a": [0, {"b": (1,)}]})
    with pytest.raises(ValueError, match=r"table\n.*at k\.x is a bytes"):
        Loose(table={"k": {"x": b""}})


@pytest.mark.parametrize("depth", [1, 50, 99])
def test_deep_nesting_holds(depth: int) -> None:
    for leaf in ({}, []):
        value: Any = leaf
        for level in range(depth):
            value = [value] if level % 2 else {"k": value}
        event = Loose(anything=value)
        assert Loose.from_json(event.to_json()) == event


@pytest.mark.parametrize("depth", [102, 500, 100_000])
def test_deeper_nesting_than_the_bound_is_refused_at_once(depth: int) -> None:
    value: Any = 0
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    with pytest.raises(ValueError, match="deeper than"):
        Loose(anything=value)
    while value:  # taken apart by hand: the interpreter would recurse
        value = value[0] if isinstance(value, list) else value["k"]


def test_whatever_can_be_made_can_be_written_and_read_however_deep_in_a_typed_field() -> None:
    for depth in range(90, 105):
        value: Any = 0
        for _ in range(depth):
            value = [value]
        for place in PLACES:
            try:
                event = Loose(**PLACES[place](value))
            except ValueError:
                continue
            assert Loose.from_json(event.to_json()) == event, (depth, place)


def test_cycles_are_refused() -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    knot: dict[str, Any] = {}
    knot["again"] = [knot]
    for value in (cyclic, knot):
        with pytest.raises(ValueError, match="deeper than"):
            Loose(anything=value)
        with pytest.raises(ValueError, match="row"):
            Loose(row=[value])
        with pytest.raises(ValueError, match="table"):
            Loose(table={"k": value})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=["nan", "inf", "-inf"])
def test_nan_and_infinity_are_refused_where_json_is_written(place: str, value: float) -> None:
    event = Loose(**PLACES[place](value))
    with pytest.raises(SerializationError, match=r"(NaN|Infinity), which JSON does not have"):
        event.to_json()
    with pytest.raises(SerializationError):
        event.serialize()


def test_the_refusal_of_nan_says_where_it_stands() -> None:
    event = Loose(table={"NaN": "NaN", "a": [{"Infinity": float("-inf")}]})
    with pytest.raises(SerializationError, match=r"table\.a\[0\]\.Infinity is -Infinity"):
        event.to_json()


def test_a_value_put_into_a_list_later_is_refused_when_it_is_written() -> None:
    event = Loose(row=[1], table={"a": 1})
    event.row.append(float("nan"))
    with pytest.raises(SerializationError):
        event.to_json()
    event = Loose(row=[1])
    event.row.append(object())
    with pytest.raises(SerializationError):
        event.to_json()


def test_a_default_inside_any_is_as_exact_as_a_given_value() -> None:
    with pytest.raises(EventDefinitionError, match="tuple"):

        class Wrong(Event):
            anything: Any = (1, 2)

    with pytest.raises(EventDefinitionError, match="at a is a tuple"):

        class WrongToo(Event):
            table: dict[str, Any] = {"a": (1,)}


_EXACT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@given(_EXACT)
def test_any_exact_value_round_trips_with_its_types(value: Any) -> None:
    event = Loose(anything=value, metadata={"v": value}, row=[value], table={"v": value})
    again = Loose.from_json(event.to_json())
    assert again == event
    assert shown(again) == shown(event)
