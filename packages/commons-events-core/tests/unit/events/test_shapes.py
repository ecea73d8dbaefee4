"""The types of an event class's fields, as formats see them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from pydantic import AliasChoices, BaseModel, Field, PrivateAttr, field_validator
from pydantic_core import PydanticSerializationError

from commons_events import Event
from commons_events.errors import DeserializationError
from commons_events.shapes import (
    NO_DEFAULT,
    Array,
    Enumeration,
    FieldNumber,
    Literals,
    Map,
    Other,
    Record,
    Scalar,
    Tuple,
    Union,
    shape_of,
)


class Color(Enum):
    RED = "red"


class Money(BaseModel):
    """An amount."""

    amount: Decimal = Field(max_digits=10, decimal_places=2)
    currency: str = "EUR"


class Node(BaseModel):
    children: list[Node] = []


class Point(NamedTuple):
    x: int
    y: float


@dataclass
class Size:
    width: int = 3


def fields(record: Record) -> dict[str, Any]:
    return {field.name: field for field in record.fields}


def test_the_envelope_comes_first_with_its_constants() -> None:
    class Placed(Event):
        event_type = "sale.placed"
        order_id: str

    record = shape_of(Placed)
    assert [f.name for f in record.fields] == [
        "event_type", "version", "event_id", "source", "timestamp", "correlation_id", "causation_id", "metadata",
        "order_id",
    ]  # fmt: skip
    found = fields(record)
    assert found["event_type"].shape == Literals(("sale.placed",))
    assert found["version"].shape == Literals(("1.0.0",))
    assert found["source"].shape == Union((Scalar("null"), Scalar("str")))
    assert found["metadata"].shape == Map(Scalar("str"), Scalar("any"))
    assert found["order_id"].required
    assert found["order_id"].default is NO_DEFAULT
    assert not record.checked


def test_every_kind_of_type() -> None:
    class Odd(Event):
        numbers: list[int]
        several: set[str]
        any_number: tuple[int, ...]
        pair: tuple[int, str]
        table: dict[str, float]
        by_number: dict[int, str]
        color: Color = Color.RED
        either: int | str | None = None
        word: Literal["a", "b"] = "a"
        money: Money
        size: Size
        at: datetime
        anything: Any = None

    found = fields(shape_of(Odd))
    assert found["numbers"].shape == Array(Scalar("int"))
    assert found["several"].shape == Array(Scalar("str"), set)
    assert found["any_number"].shape == Array(Scalar("int"), tuple)
    assert found["pair"].shape == Tuple((Scalar("int"), Scalar("str")))
    assert found["table"].shape == Map(Scalar("str"), Scalar("float"))
    assert found["by_number"].shape == Map(Scalar("int"), Scalar("str"))
    assert found["color"].shape == Enumeration(Color)
    assert found["color"].default is Color.RED
    assert found["either"].shape == Union((Scalar("null"), Scalar("int"), Scalar("str")))
    assert found["word"].shape == Literals(("a", "b"))
    assert found["at"].shape.kind == "datetime"
    assert found["anything"].shape == Scalar("any")
    money = found["money"].shape
    assert (money.kind, money.name, money.doc) == ("model", "Money", "An amount.")
    amount = fields(money)["amount"]
    assert amount.shape.limits["max_digits"] == 10
    assert amount.checked
    assert money.checked
    assert not found["money"].checked  # what is inside is for the record inside to check
    assert found["size"].shape.kind == "dataclass"


def test_a_class_may_hold_itself() -> None:
    class Grown(Event):
        root: Node

    node = fields(shape_of(Grown))["root"].shape
    assert fields(node)["children"].shape.item is node


def test_what_pydantic_has_to_check_is_marked() -> None:
    class Checked(Event):
        plain: int
        small: Annotated[int, Field(le=9)]
        text: str

        @field_validator("text")
        @classmethod
        def _upper(cls, text: str) -> str:
            return text.upper()

    class Hidden(Event):
        plain: int
        _secret: int = PrivateAttr(default=1)

    record = shape_of(Checked)
    assert [f.name for f in record.fields if f.checked] == ["small", "text"]
    assert record.checked
    assert shape_of(Hidden).checked


def test_numbers_descriptions_and_former_names() -> None:
    class Renamed(Event):
        name: Annotated[str, FieldNumber(7)] = Field(
            validation_alias=AliasChoices("name", "title"), description="What it is called."
        )

    field = fields(shape_of(Renamed))["name"]
    assert (field.number, field.doc, field.aliases) == (7, "What it is called.", ("title",))


def test_other_types_are_their_json_text() -> None:
    class Foreign(Event):
        address: IPv4Address
        point: Point

    found = fields(shape_of(Foreign))
    address, point = found["address"].shape, found["point"].shape
    assert isinstance(address, Other)
    assert address.from_json(address.to_json(IPv4Address("10.0.0.1"))) == IPv4Address("10.0.0.1")
    assert point.from_json(point.to_json(Point(1, 2.5))) == Point(1, 2.5)
    with pytest.raises((ValueError, PydanticSerializationError)):
        point.to_json(Point(1, float("nan")))


def test_making_one_from_values() -> None:
    class Made(Event):
        count: Annotated[int, Field(ge=0)]
        money: Money

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.count == 7:
                raise ValueError("not seven")

    record = shape_of(Made)
    event = Made(count=1, money=Money(amount=Decimal("1.50")))
    make, values = record.maker(), record.values()
    copy = make(dict(values(event)))
    assert copy == event
    assert type(copy) is Made
    with pytest.raises(AttributeError, match="fact"):
        copy.count = 2
    with pytest.raises(DeserializationError, match="greater than or equal"):
        make({**values(event), "count": -1})
    with pytest.raises(DeserializationError, match="not seven"):
        make({**values(event), "count": 7})


def test_making_one_without_checks_does_not_validate() -> None:
    class Free(Event):
        money: Node
        count: int

    event = Free(money=Node(children=[Node()]), count=3)
    record = shape_of(Free)
    assert record.maker()(dict(record.values()(event))) == event
    node = fields(record)["money"].shape
    assert node.maker()({"children": []}) == Node()
