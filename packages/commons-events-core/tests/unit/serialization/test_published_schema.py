"""What ``to_json`` writes fits what ``SomeEvent.schema`` says, by a library that knows draft 2020-12."""

from __future__ import annotations

import enum
import json
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import new_class
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import jsonschema
import pytest
from hypothesis import given, settings
from pydantic import BaseModel, ConfigDict, Field, computed_field

from commons_events import Event
from commons_events.serialization import JsonSchemaSerializer
from commons_events.testing.contracts import SerializerContract

CODEC = JsonSchemaSerializer()


class Shade(enum.Enum):
    LIGHT = "light"
    DARK = "dark"


class Size(enum.IntEnum):
    S = 1
    L = 2


class Right(enum.IntFlag):
    READ = 1
    WRITE = 2


class Side(enum.Flag):
    LEFT = 1
    RIGHT = 2


class Pair(NamedTuple):
    a: int
    b: str = "x"


@dataclass
class Data:
    a: int
    b: bytes = b""


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Tree(BaseModel):
    value: Decimal
    below: list[Tree] = []


class Aliased(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True, validate_by_name=True)
    inner: int = Field(alias="in")


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Doubled(BaseModel):
    a: int

    @computed_field(return_type=int)  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return self.a * 2


class Inner(Event):
    event_type = "unit.published.inner"
    when: datetime | None = None


# A field's type, and values of it.
FIELDS: list[tuple[Any, list[Any]]] = [
    (str, ["", "ü\0"]),
    (int, [0, -(10**40)]),
    (float, [0.0, 1e308, -5e-324]),
    (bool, [True]),
    (None, [None]),
    (Decimal, [Decimal("1.10"), Decimal("-1E+5")]),
    (UUID, [UUID(int=1)]),
    (date, [date(1, 1, 1)]),
    (datetime, [datetime(2024, 2, 29), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)]),
    (time, [time(1, 2, 3, 4), time(1, tzinfo=UTC)]),
    (timedelta, [timedelta(-1, 5, 7), timedelta(0), timedelta(days=400)]),
    (bytes, [b"", b"\xff\0"]),
    (Any, [None, 1, 1.5, "x", [True], {"a": {}}]),
    (object, [1]),
    (Shade, [Shade.DARK]),
    (Size, [Size.L]),
    (Right, [Right.READ | Right.WRITE, Right(0)]),
    (Side, [Side.LEFT | Side.RIGHT]),
    (Literal["a", 1, None, True], ["a", 1, None, True]),
    (bytes | None, [None, b"\xff"]),
    (int | str, [1, "1"]),
    (datetime | bool, [datetime(2024, 2, 29), True]),
    (Annotated[Cat | Dog, Field(discriminator="kind")], [Cat(), Dog(name="d")]),
    (Tree, [Tree(value=Decimal(1), below=[Tree(value=Decimal("2.5"))])]),
    (Inner, [Inner(when=datetime(2024, 2, 29))]),
    (Aliased, [Aliased.model_validate({"in": 1})]),
    (Loose, [Loose.model_validate({"a": 1, "b": [2]})]),
    (Doubled, [Doubled(a=2)]),
    (Pair, [Pair(1)]),
    (Data, [Data(1, b"\xff")]),
    (tuple[()], [()]),
    (tuple[int, str], [(1, "a")]),
    (tuple[int, ...], [(), (1, 2)]),
    (list[bytes], [[b"\xff"]]),
    (Sequence[int], [[1]]),
    (set[int | str], [{1, "1"}]),
    (set[float], [{0.0, 1.0}]),
    (frozenset[bytes], [frozenset({b"a", b"b"})]),
    (set[Decimal], [{Decimal("1.0"), Decimal(2)}]),
    (dict[str, Any], [{"": None}]),
    (Mapping[str, int], [{"a": 1}]),
    (defaultdict[str, list[int]], [{"a": [1]}]),
    (dict[int, int], [{-1: 1}]),
    (dict[UUID, int], [{UUID(int=1): 1}]),
    (dict[date, int], [{date(2024, 2, 29): 1}]),
    (dict[Shade, int], [{Shade.DARK: 1}]),
    (dict[Size, int], [{Size.S: 1, Size.L: 2}]),
    (dict[Literal["a"], int], [{"a": 1}]),
    (dict[Annotated[str, Field(pattern="^a")], int], [{"ab": 1}]),
    (dict[Annotated[str, Field(min_length=1)], int], [{"a": 1}]),
    (Annotated[str, Field(min_length=1, max_length=2, pattern=r"^\d+$")], ["12"]),
    (Annotated[int, Field(ge=0, lt=10, multiple_of=3)], [9]),
    (Annotated[Decimal, Field(ge=0, max_digits=4, decimal_places=2)], [Decimal("1.10")]),
    (Annotated[bytes, Field(min_length=2, max_length=2)], [b"ab"]),
    (Annotated[list[int], Field(min_length=1, max_length=2)], [[1]]),
]


@pytest.fixture
def define() -> Callable[..., type[Event]]:
    def make(annotation: Any, name: str = "Defined", **config: Any) -> type[Event]:
        body: dict[str, Any] = {"__module__": __name__, "__qualname__": name, "__annotations__": {"field": annotation}}
        if config:
            body["model_config"] = config
        return new_class(name, (Event,), {}, lambda namespace: namespace.update(body))

    return make


@pytest.mark.parametrize(("annotation", "values"), FIELDS, ids=[str(annotation)[:40] for annotation, _ in FIELDS])
def test_what_is_written_fits_the_schema(
    annotation: Any, values: list[Any], define: Callable[..., type[Event]]
) -> None:
    event_class = define(annotation)
    schema = json.loads(event_class.schema)
    jsonschema.Draft202012Validator.check_schema(schema)
    for value in values:
        event = event_class(field=value)
        data = event.to_json()
        jsonschema.Draft202012Validator(schema).validate(json.loads(data))
        assert CODEC.decode(data, event_class) == event


@settings(deadline=None)
@given(SerializerContract.strategy)
def test_whatever_is_written_fits_the_schema(event: Event) -> None:
    schema = json.loads(type(event).schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(event.to_json()))


def test_aliases_stand_in_the_schema_where_they_are_written(define: Callable[..., type[Event]]) -> None:
    field = Annotated[int, Field(alias="alias")]
    plain, written = define(field), define(field, "Written", serialize_by_alias=True)
    for event_class, name in ((plain, "field"), (written, "alias")):
        assert name in json.loads(event_class.schema)["properties"]
        assert name in json.loads(event_class(field=1).to_json())


def test_unknown_members_are_allowed_unless_the_class_forbids_them(define: Callable[..., type[Event]]) -> None:
    said = [
        json.loads(define(int, f"Of{extra}", extra=extra).schema).get("additionalProperties", "nothing")
        for extra in ("ignore", "allow", "forbid")
    ]
    assert said == ["nothing", True, False]


def test_the_names_of_a_dict_with_number_keys_are_texts(define: Callable[..., type[Event]]) -> None:
    schema = json.loads(define(dict[Size, int]).schema)
    assert schema["properties"]["field"]["propertyNames"] == {"enum": ["1", "2"]}


def test_bytes_in_a_default_are_as_they_are_written() -> None:
    class Kept(Event):
        one: bytes = b"\xff"
        several: list[bytes] = [b"\xff", b"ab"]
        distinct: frozenset[bytes] = frozenset({b"\xff"})
        named: dict[str, bytes] = {"a": b"\xff"}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        properties = json.loads(Kept.schema)["properties"]
    written = json.loads(Kept().to_json())
    for name in ("one", "several", "distinct", "named"):
        assert properties[name]["default"] == written[name]
