"""What the schema of an event class says."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from enum import Enum
from types import ModuleType
from typing import Any

import avro.io
import avro.schema
import pytest
from pydantic import AliasChoices, BaseModel, Field

from commons_events import Event, EventSchema
from commons_events.errors import EventDefinitionError
from commons_events.event import registry
from commons_events.plugins import serializer

codec = serializer("avro")


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with registry.isolated():
        yield


def schema(cls: type[Event]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(codec.schema(cls))
    return found


def field(cls: type[Event], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in schema(cls)["fields"] if item["name"] == name)
    return found


def test_the_record_is_named_after_the_event_type_and_says_what_it_is() -> None:
    @EventSchema(name="shop.order-placed.v", version="1.2.0", description="An order.")
    class Placed(Event):
        """Not this text."""

    class Plain(Event):
        """Somebody did something."""

    made = schema(Placed)
    assert (made["namespace"], made["name"], made["doc"]) == ("shop.order_placed", "v", "An order.")
    assert (made["eventType"], made["eventVersion"]) == ("shop.order-placed.v", "1.2.0")
    assert made["fields"][:2] == [
        {"name": "event_type", "type": "string", "default": "shop.order-placed.v"},
        {"name": "version", "type": "string", "default": "1.2.0"},
    ]
    assert (schema(Plain)["namespace"], schema(Plain)["name"]) == ("events", "Plain")
    assert schema(Plain)["doc"] == "Somebody did something."


def test_no_type_is_called_as_a_primitive_one() -> None:
    """The specification's "Names"; the reference library would read the record as the primitive."""
    string = type("string", (BaseModel,), {"__module__": __name__, "__annotations__": {"text": str}})

    @EventSchema(name="file.bytes", version="1.0.0", schema_type="avro")
    class Bytes(Event):
        data: bytes
        note: string  # type: ignore[valid-type]

    made = schema(Bytes)
    assert (made["namespace"], made["name"]) == ("file", "bytes_")
    assert field(Bytes, "note")["type"]["name"] == "string_"
    event = Bytes(data=b"\xff", note=string(text="x"))
    data = event.serialize()
    assert Bytes.deserialize(data) == event
    reader = avro.io.DatumReader(avro.schema.parse(Bytes.schema))
    value = reader.read(avro.io.BinaryDecoder(io.BytesIO(data[10:])))
    assert isinstance(value, dict)
    assert (value["data"], value["note"]) == (b"\xff", {"text": "x"})


def test_docs_aliases_and_defaults_are_carried_over() -> None:
    class Told(Event):
        name: str = Field(
            "x", description="What it is called.", validation_alias=AliasChoices("name", "title", "größe")
        )
        maybe: int | None = None
        counted: int | None = 3
        either: int | str = "text"
        table: dict[str, Any] = {"a": [1, None], "b": True}
        needed: str | None

    assert field(Told, "name") == {
        "name": "name", "type": "string", "default": "x", "doc": "What it is called.", "aliases": ["title"],
    }  # fmt: skip
    assert field(Told, "maybe") == {"name": "maybe", "type": ["null", "long"], "default": None}
    assert field(Told, "counted") == {"name": "counted", "type": ["long", "null"], "default": 3}
    assert field(Told, "either") == {"name": "either", "type": ["string", "long"], "default": "text"}
    assert field(Told, "table")["default"] == {
        "a": {"value": [{"value": 1}, {"value": None}]},
        "b": {"value": True},
    }
    assert field(Told, "needed") == {"name": "needed", "type": ["null", "string"]}


def test_classes_of_one_name_get_told_apart() -> None:
    def one() -> type[BaseModel]:
        class Part(BaseModel):
            a: int

        return Part

    def other() -> type[BaseModel]:
        class Part(BaseModel):
            b: str

        return Part

    space = {"__module__": __name__, "__annotations__": {"x": one(), "y": other(), "z": list[one()]}}  # type: ignore[misc]
    cls: type[Event] = type(Event)("Both", (Event,), space)
    names = [item["type"]["name"] for item in schema(cls)["fields"] if item["name"] in ("x", "y")]
    assert names[0] == "Part"
    assert names[1] != "Part"
    assert schema(cls) == schema(cls)


def test_an_event_whose_fields_hold_itself_is_named_once() -> None:
    class Reply(Event):
        text: str
        to: Reply | None = None

    sys.modules.setdefault(__name__, ModuleType(__name__)).__dict__["Reply"] = Reply
    event = Reply(text="b", to=Reply(text="a"))
    assert codec.decode(codec.encode(event), Reply) == event
    assert field(Reply, "to")["type"] == ["null", "events.Reply"]


def test_a_name_that_avro_cannot_hold_is_refused_when_the_class_is_created() -> None:
    with pytest.raises(EventDefinitionError, match=r"Measured: field 'größe' has a name.*ASCII.*Rename it"):

        @EventSchema(name="unit.measured", schema_type="avro")
        class Measured(Event):
            größe: int


def test_enums_are_symbols_by_value_or_by_name() -> None:
    class Color(Enum):
        """Of a car."""

        RED = "red"

    class Mood(Enum):
        GOOD = "very good"

    class Painted(Event):
        color: Color = Color.RED
        mood: Mood = Mood.GOOD

    assert field(Painted, "color")["type"]["symbols"] == ["red"]
    assert field(Painted, "color")["type"]["doc"] == "Of a car."
    assert (field(Painted, "mood")["type"]["symbols"], field(Painted, "mood")["default"]) == (["GOOD"], "GOOD")
