"""What holds in every format, or is refused when the class is created: where the parts of several formats meet."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Json, NaiveDatetime, create_model, model_validator

from commons_events import Event, EventSchema, migration
from commons_events.compatibility import compatibility
from commons_events.errors import DeserializationError, EventDefinitionError, UnknownSchemaError
from commons_events.event import registry

FORMATS = ("json", "jsonschema", "avro", "protobuf")


class Day(enum.Enum):
    FIRST = date(2020, 1, 1)


class Pair(enum.Enum):
    ONE = (1, 2)


class Found(enum.Enum):
    """Its values are no JSON, and it finds its members by what JSON has."""

    ONE = (1, 2)

    @classmethod
    def _missing_(cls, value: object) -> Found | None:
        return cls.ONE if value == [1, 2] else None


class Raw(enum.Enum):
    A = b"\xff"


class Color(enum.Enum):
    RED = "red"


class Mixed(enum.Enum):
    A = 1
    B = "1"


class Aliased(BaseModel):
    x: int = Field(alias="ecks")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")

    a: int = 1


@dataclass(frozen=True, slots=True)
class Slotted:
    a: int
    inner: Open | None = None


def event_class(annotation: Any, schema_type: str, default: Any = ...) -> type[Any]:
    fields: dict[str, Any] = {"value": (annotation, default)}
    made = create_model(f"Made{schema_type.title()}", __base__=Event, __module__=__name__, **fields)
    return EventSchema("made.event", schema_type=schema_type)(made)


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize(
    "annotation",
    [
        Day, Pair, Raw, Literal[b"x"], Literal[Day.FIRST], list[Day], dict[Literal[1, 2], int], dict[Mixed, int],
        dict[tuple[int, int], int], dict[None, int], dict[str | None, int], dict[int | str, int], NaiveDatetime,
        Json[list[int]], Iterable[int],
    ],
    ids=str,
)  # fmt: skip
def test_what_json_would_not_read_back_is_refused_with_the_field(annotation: Any, schema_type: str) -> None:
    with pytest.raises(EventDefinitionError, match=r"field 'value' .*(Use|Give) "):
        event_class(annotation, schema_type)


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Found, Found.ONE),
        (Literal[Color.RED], Color.RED),
        (Aliased, Aliased(ecks=1)),
        (list[Aliased], [Aliased(ecks=1)]),
        (Open, Open.model_validate({"a": 1, "more": [1, {"b": 2.0}]})),
        (Slotted, Slotted(1, Open())),
        (tuple[()], ()),
        (list[tuple[()]], [(), ()]),
        (Sequence[int], (1, 2)),
        (dict[Literal["a", "b"], int], {"a": 1}),
        (dict[Any, int], {"1": 2}),
    ],
    ids=str,
)
def test_it_holds(annotation: Any, value: Any, schema_type: str) -> None:
    cls = event_class(annotation, schema_type)
    event = cls(value=value)
    assert cls.deserialize(event.serialize()) == event
    assert Event.deserialize(event.serialize()) == event
    assert cls.from_json(event.to_json()) == event


@pytest.mark.parametrize("schema_type", FORMATS)
def test_a_dict_of_any_keys_takes_no_key_that_json_would_write_as_another(schema_type: str) -> None:
    with pytest.raises(ValueError, match="valid string"):
        event_class(dict[Any, int], schema_type)(value={1: 2})


def test_a_dataclass_with_slots_may_be_a_default_in_avro() -> None:
    cls = event_class(Slotted, "avro", Slotted(7))
    assert '"default": {"a": 7' in cls.schema
    assert cls.deserialize(cls().serialize()).value == Slotted(7)


@pytest.mark.parametrize("newer", FORMATS)
@pytest.mark.parametrize("older", FORMATS)
def test_a_version_in_another_format_is_read_and_migrated(older: str, newer: str) -> None:
    @EventSchema("moved.on", version="1.0.0", schema_type=older)
    class First(Event):
        name: str

    @EventSchema("moved.on", version="1.1.0", schema_type=newer)
    class Second(Event):
        name: str
        country: str = "DE"

    @EventSchema("moved.on", version="2.0.0", schema_type=newer)
    class Third(Event):
        names: list[str]

    @migration(from_=Second, to=Third)
    def split(event: Second) -> Third:
        return Third(names=event.name.split())

    old = First(name="A B")
    data = old.serialize()
    assert Second.deserialize(data).country == "DE"
    assert Third.deserialize(data).names == ["A", "B"]
    assert Third.deserialize(data).event_id == old.event_id
    assert Event.deserialize(data) == old


_VALUES: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=200), int: st.integers(-(2**63), 2**63 - 1), bool: st.booleans(),
    bytes: st.binary(max_size=200), float: st.floats(allow_nan=False, allow_infinity=False), date: st.dates(),
    datetime: st.datetimes(timezones=st.just(UTC)), UUID: st.uuids(),
    timedelta: st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)), Color: st.sampled_from(Color),
    Open: st.builds(Open, a=st.integers(-(2**63), 2**63 - 1)), int | str: st.integers(-9, 9) | st.text(max_size=9),
    list[int]: st.lists(st.integers(-(2**63), 2**63 - 1)), list[str]: st.lists(st.text()),
    list[Open]: st.lists(st.builds(Open)), dict[str, str]: st.dictionaries(st.text(), st.text()),
    str | None: st.none() | st.text(), Any: st.none() | st.text() | st.lists(st.integers()),
}  # fmt: skip


@pytest.mark.parametrize("schema_type", FORMATS)
@given(data=st.data(), before=st.sampled_from([*_VALUES]), after=st.sampled_from([*_VALUES]))
def test_a_migration_gets_the_older_event_whatever_the_newer_class_has_in_its_place(
    schema_type: str, data: st.DataObject, before: Any, after: Any
) -> None:
    with registry.isolated():
        old_class = EventSchema("changed.type", "1.0.0", schema_type)(event_class(before, schema_type))
        new_class = EventSchema("changed.type", "2.0.0", schema_type)(event_class(after, schema_type))
        old, value = old_class(value=data.draw(_VALUES[before])), data.draw(_VALUES[after])
        given_to: list[Event] = []

        def migrate(event: Event) -> Event:
            given_to.append(event)
            return new_class(value=value)

        migration(from_=old_class, to=new_class)(migrate)
        read = new_class.deserialize(old.serialize())
        assert given_to == [old]
        assert read.value == value
        assert read == new_class.from_json(old.to_json())


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize("error", [ValueError, KeyError])
def test_what_the_newer_class_refuses_is_no_matter_for_the_older_event(
    schema_type: str, error: type[Exception]
) -> None:
    class First(Event):
        name: str

    class Second(Event):
        names: list[str]

        @model_validator(mode="before")
        @classmethod
        def check(cls, value: Any) -> Any:
            if "name" in value:
                raise error("an older one")
            return value

    first, second = (EventSchema("checked", f"{n}.0.0", schema_type)(cls) for n, cls in ((1, First), (2, Second)))
    migration(from_=first, to=second)(lambda event: second(names=[event.name]))
    assert second.deserialize(first(name="A").serialize()).names == ["A"]


@pytest.mark.parametrize("schema_type", FORMATS)
@pytest.mark.parametrize("error", [ValueError("no"), KeyError("no"), OSError("no"), TypeError("no")], ids=repr)
def test_whatever_a_validator_raises_refuses_the_bytes(schema_type: str, error: Exception) -> None:
    refuses = False

    def check(value: int) -> int:
        if refuses:
            raise error
        return value

    cls = event_class(Annotated[int, AfterValidator(check)], schema_type)
    data = cls(value=1).serialize()
    refuses = True
    for read in (cls.deserialize, Event.deserialize):
        with pytest.raises(DeserializationError, match="no"):
            read(data)


def test_a_format_that_no_version_is_written_in_is_still_refused() -> None:
    cls = event_class(int, "avro")
    with pytest.raises(DeserializationError, match="single-object"):
        cls.deserialize(cls(value=1).to_json())


def test_an_unknown_avro_schema_is_said_to_be_one_also_without_a_class() -> None:
    with pytest.raises(UnknownSchemaError, match="0102030405060708"):
        Event.deserialize(b"\xc3\x01" + bytes(range(1, 9)) + b"body")


@pytest.mark.parametrize("schema_type", ["json", "jsonschema"])
def test_a_schema_says_of_the_version_no_more_than_another_version_can_follow(schema_type: str) -> None:
    class First(Event):
        name: str

    class Second(Event):
        name: str

    first = EventSchema("told.twice", "1.0.0", schema_type)(First).schema
    second = EventSchema("told.twice", "1.1.0", schema_type)(Second).schema
    assert first != second
    assert compatibility(first, second, "FULL")
