"""What is fuzzed: every decoder, from bytes that begin as valid ones do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, SecretStr

from commons_events import Event, Message
from commons_events.binding import StructuredBinding, to_event
from commons_events.compatibility import compatibility
from commons_events.errors import CommonsEventsError, DeserializationError, InvalidSchemaError
from commons_events.plugins import SERIALIZERS, names, serializer


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Branch(BaseModel):
    name: str
    under: list[Branch] = []


class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    radius: float


class Square(BaseModel):
    kind: Literal["square"] = "square"
    side: int = 1


class Fuzzed(Event):
    """Every kind of field."""

    event_type = "tools.fuzzed"
    text: str = "text"
    number: int = -1
    real: float = 0.5
    flag: bool = True
    amount: Decimal = Decimal("1.50")
    uuid: UUID = UUID(int=7)
    color: Color = Color.RED
    day: date = date(2024, 2, 29)
    clock: time = time(1, 2, 3)
    span: timedelta = timedelta(seconds=1)
    raw: bytes = b"\0\xff"
    maybe: str | None = "there"
    either: int | str = 3
    numbers: list[int] = [1, 2]  # noqa: RUF012
    by_number: dict[int, str] = {1: "one"}  # noqa: RUF012
    pair: tuple[int, str] = (1, "x")
    tree: Branch | None = None
    anything: Any = None
    wide: Annotated[int, Field(ge=0, lt=2**128)] = 2**100
    word: Literal["a", "b", 3, None] = "a"
    secret: SecretStr | None = SecretStr("hush")
    shapes: list[Annotated[Circle | Square, Field(discriminator="kind")]] = []  # noqa: RUF012
    several: list[int | None] | dict[str, bool] | None = None
    money: Annotated[Decimal, Field(max_digits=10, decimal_places=2)] = Decimal("1.00")
    unique: frozenset[UUID] = frozenset({UUID(int=1)})


EVENT = Fuzzed(
    event_id="id",
    timestamp=datetime(2024, 1, 1, tzinfo=UTC),
    metadata={"k": [1, 1.5, None, True, "x", 10**30]},
    tree=Branch(name="root", under=[Branch(name="leaf")]),
    anything={"deep": [[[{"a": -1}]]]},
    shapes=[Circle(radius=1.5), Square()],
    several={"k": True},
    source="/fuzz",
)


@dataclass(frozen=True)
class Target:
    """A decoder, and bytes that it reads."""

    name: str
    seed: bytes
    head: int
    """Bytes in front that stay as they are, since nothing behind them is looked at otherwise."""
    decode: Callable[[bytes], object]

    def __call__(self, data: bytes) -> None:
        """Raise where the decoder raises what it must not, or reads what it cannot write again."""
        try:
            self.decode(data)
        except CommonsEventsError as error:
            if not isinstance(error, DeserializationError | InvalidSchemaError):
                raise


def _format(name: str) -> Target:
    codec = serializer(name)
    seed = codec.encode(EVENT)
    head = 10 if seed.startswith(b"\xc3\x01") else 0

    def decode(data: bytes) -> None:
        event = codec.decode(data, Fuzzed)
        codec.decode(data, Event)
        codec.identify(data)
        _check(event)
        again = codec.decode(codec.encode(event), Fuzzed)
        if again != event and repr(again) != repr(event):  # NaN equals nothing, but looks like NaN
            raise AssertionError(f"{event!r} was written, and read as {again!r}")

    return Target(name, seed, head, decode)


def _check(event: object) -> None:
    if not isinstance(event, Fuzzed):
        raise AssertionError(f"{event!r} is no Fuzzed")


def _structured() -> Target:
    message = StructuredBinding().to_message(EVENT, "fuzz")

    def decode(data: bytes) -> None:
        damaged = Message("fuzz", data, headers=message.headers)
        _check(to_event(damaged, Fuzzed))
        to_event(damaged, Event)

    return Target("structured", message.value or b"", 0, decode)


def _schema(schema_type: str) -> Target:
    """The texts of schemas, which come from registries and files."""
    text = serializer("jsonschema" if schema_type == "json" else schema_type).schema(Fuzzed)

    def decode(data: bytes) -> None:
        compatibility(text, data.decode("utf-8", "replace"), "FULL", schema_type=schema_type)

    return Target(f"schema-{schema_type}", text.encode(), 0, decode)


def _avro_resolution() -> Target:
    from commons_events.avro import AvroSerializer, read, write
    from commons_events.serialization import SchemaStore

    own = json.loads(serializer("avro").schema(Fuzzed))
    odd = [
        {"name": "nothings", "type": {"type": "array", "items": "null"}},
        {"name": "odd", "type": ["null", {"type": "map", "values": ["long", "bytes"]}]},
    ]
    schema = {**own, "fields": [*odd, *own["fields"][2:], *own["fields"][:2]]}
    store = SchemaStore()
    head = b"\xc3\x01" + store.add_text("avro", json.dumps(schema))
    value = read(serializer("avro").encode(EVENT)[len(head) :], own)
    seed = head + write({**value, "nothings": [None], "odd": {"k": 1}}, schema)
    codec = AvroSerializer(store)
    return Target("avro-resolution", seed, len(head), lambda data: codec.decode(data, Fuzzed))


def targets() -> dict[str, Target]:
    """Those of the installed formats, by name."""
    found = {name: _format(name) for name in names(SERIALIZERS)}
    if "avro" in found:
        found["avro-resolution"] = _avro_resolution()
    for target in (_structured(), *(_schema(name) for name in ("avro", "json", "protobuf") if name in found)):
        found[target.name] = target
    return found
