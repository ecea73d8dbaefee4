"""`to_json` and `from_json`: what they give and take, and the exact kinds of values (reading note 7)."""

from __future__ import annotations

import enum
import json
import math
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel

from commons_events import Event
from commons_events.errors import DeserializationError, SerializationError


class Colour(enum.Enum):
    RED = "red"
    NUMBER = 7


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Money(BaseModel):
    amount: Decimal
    raw: bytes = b""
    rate: float = 0.0


class Kinds(Event):
    event_type = "unit.kinds"
    number: int = 0
    real: float = 0.0
    decimal: Decimal = Decimal(0)
    uuid: UUID | None = None
    raw: bytes = b""
    colour: Colour = Colour.RED
    level: Level = Level.LOW
    literal: Literal["a", 1, True, None] = "a"
    money: Money | None = None
    reals: list[float] = []
    named: dict[str, float] = {}
    text: str = ""


def again(event: Kinds) -> Kinds:
    return Kinds.from_json(event.to_json())


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: data.decode()], ids=["bytes", "bytearray", "str"])
def test_from_json_takes_bytes_bytearray_and_str(kind: Any) -> None:
    event = Kinds(text="üñ🎉", number=5)
    data = event.to_json()
    assert Kinds.from_json(kind(data)) == event
    assert Event.from_json(kind(data)) == event


@pytest.mark.parametrize("data", [None, 5, {}, [], memoryview(b"{}"), object()])
def test_from_json_takes_nothing_else(data: Any) -> None:
    with pytest.raises(TypeError, match="bytes, bytearray or str"):
        Kinds.from_json(data)


def test_to_json_gives_utf_8_bytes_that_are_not_escaped_needlessly() -> None:
    data = Kinds(text="üñ🎉").to_json()
    assert type(data) is bytes
    assert "üñ🎉".encode() in data


def test_white_space_around_and_inside_is_fine() -> None:
    event = Kinds(number=3)
    padded = b" \n\t" + json.dumps(json.loads(event.to_json()), indent=4).encode() + b"\r\n "
    assert Kinds.from_json(padded) == event


def test_the_order_of_members_does_not_matter() -> None:
    event = Kinds(number=3, text="x")
    fields = json.loads(event.to_json())
    assert Kinds.from_json(json.dumps(dict(reversed(fields.items())))) == event


@pytest.mark.parametrize(
    "number", [0, -1, 2**53 + 1, 2**63, -(2**64) - 1, 10**100, 10**4300 - 1], ids=lambda n: f"{n.bit_length()} bits"
)
def test_an_int_holds_whatever_its_size(number: int) -> None:
    assert again(Kinds(number=number)).number == number


@pytest.mark.parametrize("number", [10**4300, -(10**4300), 10**6000], ids=["4301", "-4301", "6001"])
def test_an_int_that_readers_refuse_is_refused_when_made_or_written(number: int) -> None:
    with pytest.raises(ValueError, match="4300 digits"):
        Kinds(number=number).to_json()


@pytest.mark.parametrize("real", [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e16, 123456789.123456789, 1.0])
def test_a_float_holds_to_the_last_bit(real: float) -> None:
    read = again(Kinds(real=real, reals=[real], named={"r": real}))
    for value in (read.real, read.reals[0], read.named["r"]):
        assert math.copysign(1, value) == math.copysign(1, real)
        assert value == real
        assert type(value) is float


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize(
    ("place", "make"),
    [
        ("real", lambda v: {"real": v}),
        (r"reals\[1\]", lambda v: {"reals": [0.0, v]}),
        (r"named\.k", lambda v: {"named": {"k": v}}),
        (r"money\.rate", lambda v: {"money": {"amount": 1, "rate": v}}),
        (r"money\.rate", lambda v: {"money": Money(amount=Decimal(1), rate=v)}),
    ],
)
def test_nan_and_infinity_in_a_float_are_refused_where_json_is_written(place: str, make: Any, value: float) -> None:
    event = Kinds(**make(value))
    with pytest.raises(SerializationError, match=rf"{place} is (NaN|-?Infinity)"):
        event.to_json()


@pytest.mark.parametrize("value", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_a_decimal_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        Kinds(decimal=Decimal(value))
    with pytest.raises(ValueError, match="finite"):
        Kinds(money={"amount": Decimal(value)})
    with pytest.raises(DeserializationError):
        Kinds.from_json(json.dumps({"decimal": value}))


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", '"NaN', '\\"NaN', "a: NaN, b: [Infinity]", ":NaN}", "\\"]
)
def test_the_words_nan_and_infinity_in_a_text_are_just_words(text: str) -> None:
    event = Kinds(text=text, named={text: 1.0}, metadata={text: [text]})
    assert again(event) == event


def test_the_words_in_a_text_do_not_hide_a_number() -> None:
    with pytest.raises(SerializationError, match="real is NaN"):
        Kinds(text="Infinity", named={"NaN": 1.0}, real=math.nan).to_json()


@pytest.mark.parametrize(
    "value",
    ["0", "-0", "0.0", "1.10", "1E+400", "1E-400", "-1.5E-7", "123456789012345678901234567890.123456789", "0E+5"],
)
def test_a_decimal_keeps_its_digits_sign_and_exponent(value: str) -> None:
    event = Kinds(decimal=Decimal(value), money={"amount": Decimal(value)})
    read = again(event)
    assert read.decimal.as_tuple() == Decimal(value).as_tuple()
    assert read.money is not None
    assert read.money.amount.as_tuple() == Decimal(value).as_tuple()


def test_a_decimal_stands_as_a_text_so_that_no_reader_rounds_it() -> None:
    assert json.loads(Kinds(decimal=Decimal("0.1")).to_json())["decimal"] == "0.1"


@pytest.mark.parametrize("raw", [b"", b"\0", b"\xff\xfe", bytes(range(256)), b"plain"])
def test_bytes_are_base64_of_the_standard_alphabet(raw: bytes) -> None:
    import base64

    event = Kinds(raw=raw, money={"amount": 1, "raw": raw})
    assert json.loads(event.to_json())["raw"] == base64.b64encode(raw).decode()
    read = again(event)
    assert read == event
    assert read.raw == raw


@pytest.mark.parametrize("text", ["a", "====", "*", "YQ", "YQ==\n", "-_8=", "Y Q=="])
def test_bytes_that_are_not_base64_are_refused(text: str) -> None:
    with pytest.raises(DeserializationError, match="base64"):
        Kinds.from_json(json.dumps({"raw": text}))


def test_a_str_given_for_bytes_by_a_program_is_its_utf_8() -> None:
    assert Kinds(raw="ü").raw == "ü".encode()


def test_enums_hold_by_their_values() -> None:
    event = Kinds(colour=Colour.NUMBER, level=Level.HIGH)
    read = again(event)
    assert read.colour is Colour.NUMBER
    assert read.level is Level.HIGH
    assert json.loads(event.to_json())["colour"] == 7


@pytest.mark.parametrize("literal", ["a", 1, True, None])
def test_a_literal_holds_with_its_type(literal: Any) -> None:
    read = again(Kinds(literal=literal))
    assert read.literal == literal
    assert type(read.literal) is type(literal)


def test_a_lone_surrogate_in_a_text_is_refused_when_made_or_written() -> None:
    with pytest.raises(ValueError, match="surrogate|utf-8|unicode|UTF-8"):
        Kinds(text="\ud800").to_json()


def test_what_a_typed_list_cannot_hold_is_refused_when_it_is_written() -> None:
    event = Kinds(reals=[1.0])
    event.reals.append("x")  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match="Kinds"):
        event.to_json()


def test_the_json_schema_fits_the_bytes() -> None:
    properties = json.loads(Kinds.schema)["properties"]
    fields = json.loads(Kinds(uuid=UUID(int=1)).to_json())
    assert set(fields) <= set(properties)
    assert properties["timestamp"]["format"] == "date-time"
