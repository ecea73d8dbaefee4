"""Generated event classes: whatever can be made equals its own round trip (reading notes 6 and 7)."""

from __future__ import annotations

import copy
import enum
import itertools
import math
import pickle
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, Optional
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

from commons_events import Event
from commons_events.event import registry

Case = tuple[object, st.SearchStrategy[Any]]
"""A type annotation and values for it."""

_numbers = itertools.count()


class Shade(enum.Enum):
    LIGHT = "light"
    DARK = "dark"


class Word(str, enum.Enum):
    YES = "yes"
    NO = "no"


class Size(enum.IntEnum):
    S = 1
    L = 2


class Mode(enum.StrEnum):
    ON = "on"
    OFF = "off"


class Right(enum.IntFlag):
    READ = 1
    WRITE = 2


class Inner(Event):
    event_type = "unit.round-trip.inner"
    n: int = 0
    when: datetime | None = None


offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
exact = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
finite = st.floats(allow_nan=False, allow_infinity=False)
inner_events = st.builds(
    Inner, n=st.integers(), when=st.none() | st.datetimes(), correlation_id=st.none() | st.text(max_size=3)
)

SCALARS: dict[str, Case] = {
    "str": (str, st.text()),
    "int": (int, st.integers()),
    "big int": (int, st.integers(min_value=2**64)),
    "float": (float, finite),
    "bool": (bool, st.booleans()),
    "Decimal": (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    "UUID": (UUID, st.uuids()),
    "Enum": (Shade, st.sampled_from(Shade)),
    "str Enum": (Word, st.sampled_from(Word)),
    "IntEnum": (Size, st.sampled_from(Size)),
    "StrEnum": (Mode, st.sampled_from(Mode)),
    "IntFlag": (Right, st.sampled_from([Right.READ, Right.WRITE, Right.READ | Right.WRITE])),
    "date": (date, st.dates()),
    "naive datetime": (datetime, st.datetimes()),
    "aware datetime": (datetime, st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=offsets)),
    "zoned datetime": (datetime, st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.timezones())),
    "time": (time, st.times()),
    "aware time": (time, st.times(timezones=offsets)),
    "timedelta": (timedelta, st.timedeltas()),
    "bytes": (bytes, st.binary()),
    "Literal": (Literal["a", "b", 3, None], st.sampled_from(["a", "b", 3, None])),
    "Any": (Any, exact),
    "dict[str, Any]": (dict[str, Any], st.dictionaries(st.text(max_size=4), exact, max_size=3)),
    "list[Any]": (list[Any], st.lists(exact, max_size=3)),
    "Event": (Inner, inner_events),
}


def model_of(field: Case) -> Case:
    """A pydantic model with one field of that type."""
    annotation, values = field
    model: type[BaseModel] = create_model(f"Model{next(_numbers)}", inside=(annotation, ...), tail=(int, 0))
    as_dict = st.builds(lambda value: {"inside": value, "tail": 1}, values)
    return model, as_dict | as_dict.map(lambda given: model(**given))


def hashable(field: Case) -> bool:
    return field[0] in (str, int, bool, UUID, date, timedelta, Decimal, bytes, float)


@st.composite
def fields(draw: st.DrawFn, depth: int = 2) -> Case:
    """A field type with values."""
    if depth == 0 or draw(st.booleans()):
        return SCALARS[draw(st.sampled_from(sorted(SCALARS)))]
    annotation, values = inner = draw(fields(depth=depth - 1))
    kind = draw(st.sampled_from(["optional", "list", "dict", "tuple", "tuple of many", "set", "model", "union"]))
    if kind == "optional" and annotation is not Any:
        return Optional[annotation], st.none() | values  # noqa: UP045  # the annotation is a variable
    if kind == "list":
        return list[annotation], st.lists(values, max_size=3)  # type: ignore[valid-type]
    if kind == "dict":
        return dict[str, annotation], st.dictionaries(st.text(max_size=3), values, max_size=3)  # type: ignore[valid-type]
    if kind == "tuple":
        return tuple[annotation, int], st.tuples(values, st.integers())  # type: ignore[valid-type]
    if kind == "tuple of many":
        return tuple[annotation, ...], st.lists(values, max_size=3).map(tuple)  # type: ignore[valid-type]
    if kind == "set" and hashable(inner):
        return set[annotation], st.sets(values, max_size=3)  # type: ignore[valid-type]
    if kind == "union" and annotation in (datetime, UUID, date, bytes, Decimal):
        return annotation | bool, values | st.booleans()  # type: ignore[operator]
    return model_of(inner)


def event_class(annotations: dict[str, object]) -> type[Event]:
    name = f"Generated{next(_numbers)}"
    made: type[Event] = type(Event)(
        name, (Event,), {"__module__": __name__, "__qualname__": name, "__annotations__": annotations}
    )
    return made


def kinds(value: Any) -> Any:
    """The types in a value, all the way down; those of numbers count, since 1 == True == 1.0."""
    if isinstance(value, BaseModel):
        return type(value), {name: kinds(item) for name, item in value.__dict__.items()}
    if isinstance(value, dict):
        return dict, {key: kinds(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [kinds(item) for item in value]
    if isinstance(value, set):
        return set, len(value)
    if isinstance(value, float):
        return float, math.copysign(1, value)
    if isinstance(value, Decimal):
        return Decimal, value.as_tuple()
    if isinstance(value, datetime | time):
        return type(value), value.utcoffset()
    return type(value)


def holds(event: Event) -> None:
    data = event.to_json()
    again = type(event).from_json(data)
    assert again == event
    assert kinds(again) == kinds(event)
    assert sorted(again.to_json()) == sorted(data)  # a set has no order that it would keep
    assert Event.from_json(data) == event


@pytest.mark.parametrize("name", SCALARS)
@settings(max_examples=20)
@given(data=st.data())
def test_each_kind_of_field_round_trips(name: str, data: st.DataObject) -> None:
    annotation, values = SCALARS[name]
    with registry.isolated():
        cls = event_class({"value": annotation, "more": list[annotation]})  # type: ignore[valid-type]
        holds(cls(value=data.draw(values), more=data.draw(st.lists(values, max_size=2))))


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_generated_classes_round_trip(data: st.DataObject) -> None:
    cases = data.draw(st.lists(fields(), min_size=1, max_size=3))
    with registry.isolated():
        cls = event_class({f"f{index}": annotation for index, (annotation, _) in enumerate(cases)})
        values = {f"f{index}": data.draw(values) for index, (_, values) in enumerate(cases)}
        event = cls(
            **values,
            metadata=data.draw(st.dictionaries(st.text(max_size=3), exact, max_size=2)),
            source=data.draw(st.none() | st.text(max_size=5)),
            correlation_id=data.draw(st.none() | st.text(max_size=5)),
            timestamp=data.draw(st.datetimes()),
        )
        holds(event)


@settings(max_examples=30)
@given(data=st.data())
def test_what_was_read_can_be_copied_and_written_again(data: st.DataObject) -> None:
    annotation, values = data.draw(fields())
    with registry.isolated():
        cls = event_class({"value": annotation})
        read = cls.from_json(cls(value=data.draw(values)).to_json())
        assert copy.deepcopy(read) == copy.copy(read) == read
        holds(read)


class Fixed(Event):
    event_type = "unit.round-trip.fixed"
    when: datetime
    amount: Decimal
    raw: bytes
    anything: Any = None
    inner: Inner | None = None


@settings(max_examples=40)
@given(
    st.builds(
        Fixed,
        when=st.datetimes(timezones=st.none() | offsets, min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)),
        amount=st.decimals(allow_nan=False, allow_infinity=False),
        raw=st.binary(),
        anything=exact,
        inner=st.none() | inner_events,
    )
)
def test_pickling_and_json_agree(event: Fixed) -> None:
    assert pickle.loads(pickle.dumps(event)) == event == Fixed.from_json(event.to_json())


def test_registry_isolation_leaves_no_generated_class_behind() -> None:
    assert not [name for name, _ in registry.classes() if name.startswith("Generated")]
