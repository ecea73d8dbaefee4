"""Generated event classes: every event equals its own round trip, and the reference libraries read its bytes."""

from __future__ import annotations

import enum
import io
import itertools
import json
import math
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import avro.io
import avro.schema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, create_model

from commons_events import Event
from commons_events.avro import AvroSerializer, canonical_form, fingerprint, read, write
from commons_events.avro._codec import codec_of
from commons_events.errors import SerializationError
from commons_events.event import registry

fastavro = pytest.importorskip("fastavro", reason="fastavro is not installed: pip install fastavro")

codec = AvroSerializer()
_numbers = itertools.count()


class Shade(enum.Enum):
    LIGHT = "light"
    DARK = "dark"


class Grade(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Phrase(enum.Enum):
    HELLO = "hello, world"
    BYE = "good bye"


class Umlaut(enum.Enum):
    GRÖSSE = "größe"
    MASS = "maß"


class Right(enum.IntFlag):
    READ = 1
    WRITE = 2


class Point(BaseModel):
    x: int
    y: float = 0.5


class Tree(BaseModel):
    name: str
    under: list[Tree] = []


class Inner(Event):
    event_type = "unit.avro.round-trip.inner"
    n: int = 0


long = st.integers(-(2**63), 2**63 - 1)
finite = st.floats(allow_nan=False)
text = st.text(max_size=8)
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
exact = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
trees = st.recursive(
    st.builds(Tree, name=text), lambda inner: st.builds(Tree, name=text, under=st.lists(inner, max_size=2))
)
money = Annotated[Decimal, Field(max_digits=12, decimal_places=3)]
wide = Annotated[int, Field(ge=0, le=2**128)]

Case = tuple[Any, st.SearchStrategy[Any]]
SCALARS: dict[str, Case] = {
    "str": (str, text),
    "int": (int, long),
    "int with wide limits": (wide, st.integers(0, 2**128)),
    "int from 2**64": (Annotated[int, Field(ge=2**64)], st.integers(2**64, 2**200)),
    "float": (float, finite),
    "bool": (bool, st.booleans()),
    "Decimal": (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    "Decimal of stated digits": (money, st.decimals(-999_999_999, 999_999_999, places=3)),
    "UUID": (UUID, st.uuids()),
    "Enum": (Shade, st.sampled_from(Shade)),
    "IntEnum": (Grade, st.sampled_from(Grade)),
    "Enum of phrases": (Phrase, st.sampled_from(Phrase)),
    "Enum of other letters": (Umlaut, st.sampled_from(Umlaut)),
    "IntFlag": (Right, st.sampled_from([Right.READ, Right.WRITE, Right.READ | Right.WRITE])),
    "date": (date, st.dates()),
    "naive datetime": (datetime, st.datetimes()),
    "aware datetime": (datetime, st.datetimes(timezones=offsets)),
    "time": (time, st.times()),
    "timedelta": (timedelta, st.timedeltas()),
    "bytes": (bytes, st.binary(max_size=200)),
    "Literal": (Literal["a", "b", 3, None], st.sampled_from(["a", "b", 3, None])),
    "Literal of Enum": (Literal[Shade.DARK], st.just(Shade.DARK)),
    "Any": (Any, exact),
    "dict[str, Any]": (dict[str, Any], st.dictionaries(text, exact, max_size=3)),
    "dict[int, str]": (dict[int, str], st.dictionaries(long, text, max_size=3)),
    "dict[date, list]": (dict[date, list[int]], st.dictionaries(st.dates(), st.lists(long, max_size=2), max_size=2)),
    "model": (Point, st.builds(Point, x=long, y=finite)),
    "recursive model": (Tree, trees),
    "event": (Inner, st.builds(Inner, n=long, correlation_id=st.none() | text)),
    "address": (IPv4Address, st.ip_addresses(v=4)),
    "int | str": (int | str, long | text),
    "int | float | None": (int | float | None, st.none() | long | finite),
    "list[int] | list[str]": (list[int] | list[str], st.lists(long, min_size=1) | st.lists(text, min_size=1)),
    "datetime | int": (datetime | int, st.datetimes(timezones=offsets) | long),
    "Shade | Point": (Grade | Point, st.sampled_from(Grade) | st.builds(Point, x=long)),
}  # fmt: skip


@st.composite
def fields(draw: st.DrawFn, depth: int = 2) -> Case:
    """A field type with values."""
    if depth == 0 or draw(st.booleans()):
        return SCALARS[draw(st.sampled_from(sorted(SCALARS)))]
    annotation, values = draw(fields(depth=depth - 1))
    kind = draw(st.sampled_from(["optional", "list", "dict", "tuple", "tuple of many", "model"]))
    match kind:
        case "optional" if annotation is not Any:
            return Optional[annotation], st.none() | values  # noqa: UP045  # the annotation is a variable
        case "list":
            return list[annotation], st.lists(values, max_size=3)  # type: ignore[valid-type]
        case "dict":
            return dict[str, annotation], st.dictionaries(text, values, max_size=3)  # type: ignore[valid-type]
        case "tuple":
            return tuple[annotation, int], st.tuples(values, long)  # type: ignore[valid-type]
        case "tuple of many":
            return tuple[annotation, ...], st.lists(values, max_size=3).map(tuple)  # type: ignore[valid-type]
    model: Any = create_model(f"Model{next(_numbers)}", inside=(annotation, ...), tail=(int, 0))
    return model, st.builds(lambda value: model(inside=value, tail=1), values)


def event_class(annotations: dict[str, Any]) -> type[Event]:
    name = f"Generated{next(_numbers)}"
    space = {"__module__": __name__, "__qualname__": name, "__annotations__": annotations}
    made: type[Event] = type(Event)(name, (Event,), space)
    return made


def kinds(value: Any) -> Any:
    """The types in a value, all the way down."""
    if isinstance(value, BaseModel):
        return type(value), {name: kinds(item) for name, item in value.__dict__.items()}
    if isinstance(value, dict):
        return dict, [(kinds(key), kinds(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [kinds(item) for item in value]
    return (float, math.copysign(1, value)) if isinstance(value, float) else type(value)


def holds(event: Event) -> None:
    cls = type(event)
    data = codec.encode(event)
    again = codec.decode(data, cls)
    assert again == event
    assert kinds(again) == kinds(event)
    assert codec.decode(data, Event) == event
    assert codec.identify(data) == (cls.event_type, event.version)
    # the reference library takes the schema, reads all of the bytes, and agrees on the fingerprint
    schema = codec.schema(cls)
    parsed = avro.schema.parse(schema)
    assert data[2:10] == fingerprint(schema)
    buffer = io.BytesIO(data[10:])
    seen = avro.io.DatumReader(parsed).read(avro.io.BinaryDecoder(buffer))
    assert not buffer.read()
    assert seen["event_id"] == event.event_id


@pytest.mark.filterwarnings("ignore::avro.errors.IgnoredLogicalType")
@pytest.mark.parametrize("name", SCALARS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_each_kind_of_field_round_trips(name: str, data: st.DataObject) -> None:
    annotation, values = SCALARS[name]
    with registry.isolated():
        cls = event_class({"value": annotation, "more": list[annotation]})
        holds(cls(value=data.draw(values), more=data.draw(st.lists(values, max_size=2))))


@pytest.mark.filterwarnings("ignore::avro.errors.IgnoredLogicalType")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_generated_classes_round_trip(data: st.DataObject) -> None:
    drawn = data.draw(st.lists(fields(), min_size=1, max_size=3))
    with registry.isolated():
        cls = event_class({f"f{index}": annotation for index, (annotation, _) in enumerate(drawn)})
        values = {f"f{index}": data.draw(values) for index, (_, values) in enumerate(drawn)}
        event = cls(
            **values,
            metadata=data.draw(st.dictionaries(st.text(max_size=3), exact, max_size=2)),
            source=data.draw(st.none() | text),
            timestamp=data.draw(st.datetimes(timezones=offsets)),
        )
        holds(event)


@settings(max_examples=30, deadline=None)
@given(value=exact)
def test_any_holds_exactly_also_what_json_has_not(value: Any) -> None:
    with registry.isolated():
        cls = event_class({"value": Any})
        again = codec.decode(codec.encode(cls(value=[value, math.nan, math.inf, -0.0])), cls)
        assert again.value[0] == value
        assert kinds(again.value[0]) == kinds(value)
        assert math.isnan(again.value[1])
        assert again.value[2] == math.inf
        assert math.copysign(1, again.value[3]) == -1


def test_fastavro_and_the_reference_library_read_ours_and_we_read_theirs() -> None:
    class Mixed(Event):
        at: datetime
        amount: money
        shade: Shade
        point: Point
        maybe: int | str | None = None
        span: timedelta = timedelta(0)

    event = Mixed(at=datetime(2024, 2, 29), amount=Decimal("1.250"), shade=Shade.DARK, point=Point(x=1), maybe="x")
    schema = json.loads(codec.schema(Mixed))
    data = codec.encode(event)
    seen: Any = fastavro.schemaless_reader(io.BytesIO(data[10:]), schema, None)
    assert (seen["amount"], seen["shade"], seen["point"]) == (Decimal("1.250"), "dark", {"x": 1, "y": 0.5})
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, seen)
    assert codec.decode(data[:10] + buffer.getvalue(), Mixed) == event
    parsed, buffer = avro.schema.parse(codec.schema(Mixed)), io.BytesIO()
    seen = avro.io.DatumReader(parsed).read(avro.io.BinaryDecoder(io.BytesIO(data[10:])))
    avro.io.DatumWriter(parsed).write(seen, avro.io.BinaryEncoder(buffer))
    assert codec.decode(data[:10] + buffer.getvalue(), Mixed) == event


def test_a_span_is_read_as_seconds() -> None:
    class Timed(Event):
        span: timedelta

    data = codec.encode(Timed(span=timedelta(days=-1, microseconds=1)))
    assert read(data[10:], codec.schema(Timed))["span"] == Decimal("-86399.999999")


def test_what_avro_cannot_hold_is_refused_with_the_place() -> None:
    class Narrow(Event):
        numbers: list[int] = []
        at: time = time(0)
        point: Point = Point(x=1)

    with pytest.raises(SerializationError, match=r"Narrow .*numbers\[\]: an int of 64 bits.*ge and le"):
        codec.encode(Narrow(numbers=[1, 2**63]))
    with pytest.raises(SerializationError, match="at: a time with an offset"):
        codec.encode(Narrow(at=time(1, tzinfo=timezone(timedelta(hours=1)))))
    with pytest.raises(SerializationError, match=r"point\.x"):
        codec.encode(Narrow(point=Point(x=-(2**63) - 1)))
    with pytest.raises(SerializationError, match=r"numbers"):
        codec.encode(Narrow.model_construct(numbers=["text"]))


def test_extra_fields_are_kept_where_the_class_says_so() -> None:
    class Open(Event):
        model_config = {"extra": "allow"}
        known: int = 0

    event = codec.decode(codec.encode(Open.from_json(b'{"known": 1, "more": {"a": [1, null]}}')), Open)
    assert event.known == 1
    assert event.__pydantic_extra__ == {"more": {"a": [1, None]}}
    plain = codec.decode(codec.encode(Open()), Open)
    assert plain.__pydantic_extra__ == {}


@settings(max_examples=100, deadline=None)
@given(st.datetimes(timezones=offsets))
def test_every_moment_holds_at_the_ends_of_time_too(moment: datetime) -> None:
    with registry.isolated():
        cls = event_class({"at": datetime})
        for at in (moment, moment.replace(year=1, month=1, day=1), moment.replace(year=9999, month=12, day=31)):
            assert codec.decode(codec.encode(cls(at=at)), cls).at == at


def test_a_generic_value_that_is_not_of_its_schema_is_refused() -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "n", "type": {"type": "array", "items": "int"}}]}
    with pytest.raises(SerializationError, match=r"n\[1\]: 'x' is no int"):
        write({"n": [1, "x"]}, schema)
    with pytest.raises(ValueError, match="not an Avro schema"):
        canonical_form({"type": "recard"})


def test_the_codec_is_made_once_a_class() -> None:
    assert codec_of(Inner) is codec_of(Inner)
    assert TypeAdapter(Inner).validate_python(Inner(n=1)).n == 1
