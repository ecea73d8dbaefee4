"""Events of scalars alone are written and read in a shorter way: it gives and refuses just what the long one does."""

from __future__ import annotations

import enum
import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal, get_type_hints
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, ConfigDict, Field, computed_field, field_serializer, model_validator

from commons_events import Event
from commons_events.errors import DeserializationError, SerializationError
from commons_events.event import registry


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Scalars:
    id: UUID
    name: str
    count: int = 3
    price: float | None = None
    exact: Decimal = Decimal("1.5")
    at: datetime
    on: date | None = None
    clock: time | None = None
    span: timedelta = timedelta(seconds=1)
    colour: Colour = Colour.RED
    kind: Literal["a", "b"] = "a"


def both_ways() -> tuple[type[Event], type[Event]]:
    """The same event twice, the second time with functions of its own, which bar the short ways."""
    annotations = get_type_hints(Scalars)
    fields: dict[str, Any] = {"__annotations__": annotations, "__module__": __name__, "event_type": "scalars"}
    fields |= {name: value for name, value in vars(Scalars).items() if name in annotations}

    def of_its_own(self: Event) -> None:
        Event.__post_init__(self)

    with registry.isolated():
        short = type("Short", (Event,), dict(fields))
    with registry.isolated():
        own = {"__post_init__": of_its_own, "model_post_init": lambda self, context: None}
        long = type("Short", (Event,), {**fields, **own})
    return short, long


SHORT, LONG = both_ways()
GIVEN = {
    "event_id": "1", "timestamp": "2024-05-06T07:08:09Z", "id": "00000000-0000-0000-0000-000000000001", "name": "n",
    "at": "2024-05-06T07:08:09+02:00",
}  # fmt: skip
texts = st.text(max_size=5)
moments = st.datetimes(timezones=st.none() | st.just(UTC) | st.just(timezone(timedelta(hours=5, minutes=30)))).map(
    datetime.isoformat
)
members = st.fixed_dictionaries(
    {},
    optional={
        "event_type": st.sampled_from(["scalars", "another"]),
        "version": st.sampled_from(["1.0.0", "1.1.0", "2.0.0"]),
        "timestamp": moments,
        "source": texts | st.none(),
        "metadata": st.dictionaries(texts, texts | st.integers() | st.lists(texts, max_size=2), max_size=2),
        "name": texts | st.integers(),
        "count": st.integers() | texts,
        "price": st.none() | st.floats(),
        "exact": st.decimals(allow_nan=False, allow_infinity=False).map(str) | texts,
        "at": moments | texts | st.integers(0, 10**10),
        "on": st.dates().map(date.isoformat) | texts,
        "clock": st.times().map(time.isoformat),
        "colour": st.sampled_from(["red", "green"]),
        "kind": st.sampled_from(["a", "c"]),
        "unknown": texts,
    },
)


def outcome(event_class: type[Event], data: bytes) -> object:
    try:
        event = event_class.from_json(data)
    except DeserializationError as error:
        return str(error)
    return vars(event), event.__pydantic_fields_set__, event.to_json()


@given(members)
def test_both_ways_read_and_refuse_alike(changes: dict[str, Any]) -> None:
    data = json.dumps({**GIVEN, **changes}).encode()
    assert outcome(SHORT, data) == outcome(LONG, data)


def test_what_a_class_does_after_validation_may_assign_and_runs_once() -> None:
    class Doubled(Event):
        number: int
        double: int = 0

        def model_post_init(self, context: Any, /) -> None:
            self.double += 2 * self.number

    event = Doubled(number=3)
    assert event.double == 6
    assert Doubled.from_json(b'{"event_id": "1", "timestamp": "2024-05-06T07:08:09", "number": 4}').double == 8


def test_functions_of_a_class_run_once_for_an_event_whose_time_is_naive() -> None:
    calls: list[int] = []

    def noted(value: int) -> int:
        calls.append(value)
        return value

    def zero() -> int:
        calls.append(0)
        return 0

    class Noted(Event):
        number: Annotated[int, AfterValidator(noted)]
        made: int = Field(default_factory=zero)

    class Made(Event):
        made: int = Field(default_factory=zero)

    Noted.from_json(b'{"timestamp": "2024-05-06T07:08:09", "number": 4}')
    assert calls == [4, 0]
    Made.from_json(b'{"timestamp": "2024-05-06T07:08:09"}')
    assert calls == [4, 0, 0]


@pytest.mark.parametrize("values", [{"count": [1]}, {"name": 5}, {"at": "today"}])
def test_what_model_construct_was_given_is_still_checked_when_it_is_written(values: dict[str, Any]) -> None:
    sound = SHORT.from_json(json.dumps(GIVEN))
    wrong = SHORT.model_construct(**{**vars(sound), **values})
    for event in (wrong, wrong.model_copy(), wrong.with_source("s")):
        with pytest.raises(SerializationError):
            event.to_json()


def not_alone() -> dict[str, dict[str, Any]]:
    """Bodies of classes that have more than scalars."""

    def shows(self: Any) -> list[int]:
        return [1]

    def go_past(self: Any) -> None:
        object.__setattr__(self, "correlation_id", [1])

    return {
        "a list": {"__annotations__": {"count": list[int]}, "count": [1]},
        "a dict": {"__annotations__": {"count": dict[str, int]}, "count": {}},
        "any value": {"__annotations__": {"count": Any}, "count": 1},
        "another event": {"__annotations__": {"count": SHORT | None}, "count": None},
        "a validator of its own": {"__annotations__": {"count": Annotated[int, AfterValidator(str)]}, "count": 1},
        "a serializer": {
            "__annotations__": {"count": int}, "count": 1, "shown": field_serializer("count")(lambda self, one: one),
        },
        "a computed field": {"shown": computed_field(property(shows))},
        "a model validator": {"checked": model_validator(mode="after")(lambda self: self)},
        "extra fields": {"model_config": ConfigDict(extra="allow")},
        "a metadata of its own": {"__annotations__": {"metadata": dict[str, list[int]]}, "metadata": {}},
        "a __post_init__": {"__post_init__": go_past},
    }  # fmt: skip


@pytest.mark.parametrize("body", not_alone().values(), ids=not_alone())
def test_what_came_in_past_validation_is_refused_whatever_the_class_has(body: dict[str, Any]) -> None:
    event = type("Other", (Event,), {**body, "__module__": __name__})()
    vars(event)["correlation_id"] = [1]
    with pytest.raises(SerializationError, match="correlation_id|str"):
        event.to_json()


def test_a_list_that_was_changed_is_refused() -> None:
    class Listed(Event):
        numbers: list[int]

    event = Listed(numbers=[1])
    event.numbers.append("x")  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match="numbers|int"):
        event.to_json()


def test_a_stated_source_leaves_all_else_and_the_event_itself_as_they_were() -> None:
    class Open(Event):
        model_config = ConfigDict(extra="allow")
        name: str
        _own: int = 0

    event = Open.from_json(b'{"event_id": "1", "name": "n", "more": 5}')
    event._own = 7
    stated = event.with_source("s")
    assert (stated.source, event.source) == ("s", None)
    assert stated.__pydantic_fields_set__ == event.__pydantic_fields_set__ | {"source"}
    assert (stated.model_extra, stated._own) == ({"more": 5}, 7)
    assert stated.__pydantic_extra__ is not event.__pydantic_extra__
    assert list(vars(stated)) == list(vars(event))
    read = Open.from_json(stated.to_json())
    read._own = 7
    assert stated == read
