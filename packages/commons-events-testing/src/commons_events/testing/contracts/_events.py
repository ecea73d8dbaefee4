"""The events that the contracts send: ordinary ones, and one with every kind of field that has to hold."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from commons_events.event import Event
from commons_events.producers import EventProducer
from commons_events.transport import Transport

__all__ = ["ODD_EVENTS", "Color", "ContractEvent", "Money", "OddEvent", "mark_end"]


class ContractEvent(Event):
    """A small event, for what is not about fields."""

    event_type = "commons-events.contract.small"
    number: int
    name: str = ""


class Color(Enum):
    """An Enum whose values are text."""

    RED = "red"
    GREEN = "green"


class Money(BaseModel):
    """A model inside an event."""

    amount: Decimal
    currency: Literal["EUR", "JPY"] = "EUR"


class OddEvent(Event):
    """Every kind of field that a format has to carry exactly."""

    event_type = "commons-events.contract.odd"
    text: str = ""
    integer: int = 0
    real: float = 0.0
    truth: bool = False
    decimal: Decimal = Decimal(0)
    uuid: UUID = UUID(int=0)
    color: Color = Color.RED
    day: date = date(2000, 1, 1)
    moment: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    clock: time = time(0)
    span: timedelta = timedelta(0)
    raw: bytes = b""
    money: Money = Field(default_factory=lambda: Money(amount=Decimal(1)))
    maybe: str | None = None
    either: int | str = 0
    literal: Literal["a", "b"] = "a"
    numbers: list[int] = Field(default_factory=list[int])
    nested: list[Money] = Field(default_factory=list[Money])
    table: dict[str, int] = Field(default_factory=dict)
    anything: Any = None


def _odd(number: int, **fields: Any) -> OddEvent:
    return OddEvent(event_id=f"odd-{number}", timestamp=datetime(2024, 2, 29, 12, tzinfo=UTC), **fields)


_FIELDS: list[dict[str, Any]] = [
    {},
    {"text": 'ünïcödé 🎈\0\n"\\ \u2028'},
    {"integer": -(2**63), "real": -0.0},
    {"integer": 2**63 - 1, "real": 5e-324},
    {"real": 1.7976931348623157e308, "truth": True},
    {"decimal": Decimal("0.1000")},
    {"decimal": Decimal("-12345678901234567890.123456789")},
    {"uuid": UUID("ffffffff-ffff-ffff-ffff-ffffffffffff"), "color": Color.GREEN},
    {"day": date(1, 1, 1), "moment": datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)},
    {"day": date(9999, 12, 31), "clock": time(23, 59, 59, 999999)},
    {"span": timedelta(days=-1, microseconds=1)},
    {"span": timedelta(days=365, seconds=1, microseconds=999999)},
    {"raw": bytes(range(256))},
    {"raw": b"text", "maybe": ""},
    {"maybe": "null", "either": "0"},
    {"either": 0, "literal": "b"},
    {"numbers": [0, -1, 2**53 + 1], "table": {"": 0, "ü": 1}},
    {"nested": [Money(amount=Decimal("1.10")), Money(amount=Decimal("-1"), currency="JPY")]},
    {"anything": {"big": 10**40, "list": [None, True, 1, 1.5, "x", {}], "empty": []}},
    {"anything": [1.0, 1, True, "1"]},
    {"source": "urn:somewhere", "correlation_id": "c", "causation_id": "d", "metadata": {"user": [1, "x"]}},
]

ODD_EVENTS: tuple[OddEvent, ...] = tuple(_odd(number, **fields) for number, fields in enumerate(_FIELDS))
"""Odd values, picked by hand. Subclasses of `SerializerContract` leave out what their format refuses by statement."""


async def mark_end(transport: Transport, topic: str, keys: int = 20) -> set[int]:
    """Send a `ContractEvent` behind all others of each of ``key-0``, ``key-1`` …, and return their numbers.

    Whoever has received them all has received what lay before them, however long joining a group took.
    """
    marks = range(1_000_000, 1_000_000 + keys)
    async with EventProducer(transport=transport) as producer:
        sending = [producer.send(topic, ContractEvent(number=number), key=f"key-{number % keys}") for number in marks]
        for sent in sending:
            await sent
    return set(marks)
