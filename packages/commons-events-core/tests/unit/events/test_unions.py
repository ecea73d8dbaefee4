"""Members of a union that look alike in JSON are refused when the class is created, others hold (note 7)."""

from __future__ import annotations

import enum
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, PlainSerializer, RootModel, SecretStr
from pydantic_core import core_schema

from commons_events import Event
from commons_events.errors import EventDefinitionError


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


class Word(enum.Enum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


class Inner(Event):
    event_type = "unit.unions.inner"
    n: int = 0


class Inner2(Event):
    event_type = "unit.unions.inner2"
    n: int = 0


class Pair(NamedTuple):
    a: int
    b: str = ""


class Items(RootModel[list[int]]):
    pass


class Tree(BaseModel):
    n: int = 0
    inner: Tree | None = None


class Celsius:
    """A type that pydantic does not know, as its documentation shows how to make it known."""

    def __init__(self, degrees: int) -> None:
        self.degrees = degrees

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Celsius) and other.degrees == self.degrees

    def __hash__(self) -> int:
        return hash(self.degrees)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        made = core_schema.chain_schema(
            [core_schema.int_schema(), core_schema.no_info_plain_validator_function(lambda value: cls(value))]
        )
        return core_schema.json_or_python_schema(
            json_schema=made,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), made]),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.degrees),
        )


Name = Annotated[Decimal, PlainSerializer(str)]
"""What is written by a function that would write anything."""


def define(annotation: object) -> type[Event]:
    made: type[Event] = type(Event)(
        "Union_",
        (Event,),
        {"__module__": __name__, "__qualname__": "Union_", "__annotations__": {"value": annotation}},
    )
    return made


ALIKE = [
    datetime | str,
    str | datetime,
    date | datetime,
    date | str,
    time | str,
    timedelta | str,
    UUID | str,
    Decimal | str,
    bytes | str,
    UUID | bytes,
    Decimal | UUID,
    Word | str,
    Number | int,
    Union[int, bool, datetime, str],  # noqa: UP007  # as users write it
    Optional[datetime | str],  # noqa: UP045
    Cat | Dog,
    Cat | dict[str, Any],
    dict[str, int] | Cat,
    Inner | Inner2,
    Inner | Cat,
    list[int] | set[int],
    list[int] | tuple[int, ...],
    set[int] | frozenset[int],
    list[datetime] | list[str],
    dict[str, datetime] | dict[str, str],
    Any | int,
    int | Any,
    int | float,
    Decimal | int,
    Decimal | float,
    datetime | int,
    timedelta | float,
    PurePosixPath | str,
    PurePosixPath | Decimal,
    IPv4Address | str,
    IPv4Address | IPv6Address,
    SecretStr | str,
    SecretStr | Decimal,
    SecretStr | datetime,
    Pair | dict[str, int],
    Pair | Cat,
    Pair | list[int],
    Items | list[int],
    Tree | Cat,
    Celsius | int,
    Annotated[Cat | Dog, Field(discriminator="kind")] | dict[str, Any],
    Annotated[datetime, PlainSerializer(lambda moment: moment.year, return_type=int)] | int,
]


@pytest.mark.parametrize("annotation", ALIKE, ids=lambda annotation: re.sub(" at 0x[0-9a-f]+", "", str(annotation)))
def test_members_that_look_alike_are_refused_or_hold_all_the_same(annotation: object) -> None:
    """Where a class is made at all, each value that the union takes has to come back as it was."""
    try:
        cls = define(annotation)
    except EventDefinitionError as error:
        assert "'value'" in str(error)
        assert "discriminator" in str(error)
        return
    samples: list[Any] = [
        1, 0, -1, 1.0, 1.5, 0.0, True, False, "1", "a", "2024-01-01", "PT1S", Decimal(1), Decimal("1.0"),
        Decimal("1.5"), datetime(2024, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        timedelta(seconds=1), b"1",
    ]  # fmt: skip
    for sample in samples:
        try:
            event = cls(value=sample)
        except ValueError:
            continue
        read = cls.from_json(event.to_json())
        assert read == event, sample
        assert type(read.value) is type(event.value), sample  # type: ignore[attr-defined]


@pytest.mark.parametrize("annotation", [datetime | str, UUID | str, bytes | str, Cat | Dog, date | datetime], ids=str)
def test_the_refusal_says_which_field_why_and_what_to_do(annotation: object) -> None:
    with pytest.raises(EventDefinitionError, match=r"Union_: field 'value'.*look alike in JSON.*discriminator"):
        define(annotation)


@pytest.mark.parametrize(
    "annotation",
    [list[datetime | str], dict[str, datetime | str], tuple[int, datetime | str], Optional[list[UUID | str]]],  # noqa: UP045
    ids=str,
)
def test_a_union_is_refused_wherever_it_stands_in_the_type(annotation: object) -> None:
    with pytest.raises(EventDefinitionError, match="value"):
        define(annotation)


def test_a_union_inside_a_model_inside_an_event_is_refused() -> None:
    class Vague(BaseModel):
        when: datetime | str = "x"

    with pytest.raises(EventDefinitionError, match="look alike"):
        define(Vague)


HOLDING: list[tuple[object, list[Any]]] = [
    (int | str, [1, "1", "a", 0, ""]),
    (str | int, [1, "1"]),
    (int | None, [1, None]),
    (bool | str, [True, False, "true"]),
    (bool | int, [True, 1, False, 0]),
    (datetime | None, [datetime(2024, 1, 1, tzinfo=UTC), None]),
    (datetime | bool, [datetime(2024, 1, 1, tzinfo=UTC), True]),
    (str | list[int], ["a", [1], []]),
    (int | list[int] | dict[str, int] | None, [1, [1], {"a": 1}, None]),
    (Cat | str, [Cat(), "cat"]),
    (Cat | list[Cat], [Cat(lives=2), [Cat(), Cat()]]),
    (Literal["a"] | int, ["a", 1]),
    (Literal["a"] | Literal["b"], ["a", "b"]),
    (Literal["a"] | str, ["a", "b"]),
    (float | str, [1.5, "1.5", 0.0]),
    (list[int] | list[str], [[1], ["a"]]),
    (PurePosixPath | int, [PurePosixPath("/a"), 1]),
    (SecretStr | int | None, [SecretStr("a"), 1, None]),
    (Pair | str, [Pair(1), "a"]),
    (Literal["a", 1] | str, ["a", 1, "b"]),
    (Name | list[int], [Decimal("1.5"), [1]]),
    (Name | Cat | None, [Decimal("1.5"), Cat(lives=2), None]),
]


@pytest.mark.parametrize(("annotation", "values"), HOLDING, ids=[str(annotation) for annotation, _ in HOLDING])
def test_members_that_json_tells_apart_hold(annotation: object, values: list[Any]) -> None:
    cls = define(annotation)
    for value in values:
        event = cls(value=value)
        assert event.value == value  # type: ignore[attr-defined]
        assert type(event.value) is type(value)  # type: ignore[attr-defined]
        read = cls.from_json(event.to_json())
        assert read == event
        assert type(read.value) is type(value)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("annotation", "members"),
    [(PurePosixPath | str, "PurePosixPath and str"), (Tree | Cat, "Tree and Cat"), (SecretStr | str, "SecretStr and")],
    ids=str,
)
def test_the_refusal_has_the_annotation_and_the_members_names(annotation: object, members: str) -> None:
    with pytest.raises(EventDefinitionError) as caught:
        define(annotation)
    assert f"({annotation}) is a union of {members}" in str(caught.value)


def test_a_type_that_is_made_known_to_pydantic_as_its_documentation_says_holds() -> None:
    for annotation, value in ((Celsius, Celsius(3)), (Celsius | str, Celsius(3)), (Celsius | None, None)):
        cls = define(annotation)
        event = cls(value=value)
        assert cls.from_json(event.to_json()) == event


def test_a_union_with_a_discriminator_holds() -> None:
    cls = define(Annotated[Cat | Dog, Field(discriminator="kind")])
    for value in (Cat(lives=3), Dog(lives=3)):
        event = cls(value=value)
        read = cls.from_json(event.to_json())
        assert read == event
        assert type(read.value) is type(value)  # type: ignore[attr-defined]


def test_a_list_of_a_union_with_a_discriminator_holds() -> None:
    cls = define(list[Annotated[Cat | Dog, Field(discriminator="kind")]])
    event = cls(value=[Cat(), Dog(), {"kind": "cat", "lives": 1}])
    assert cls.from_json(event.to_json()) == event


def test_events_are_told_apart_by_their_event_type_as_discriminator() -> None:
    cls = define(Annotated[Inner | Inner2, Field(discriminator="event_type")])
    for value in (Inner(n=1), Inner2(n=2)):
        event = cls(value=value)
        read = cls.from_json(event.to_json())
        assert read == event
        assert type(read.value) is type(value)  # type: ignore[attr-defined]
