"""The .proto text: what protoc accepts, and the same as our own descriptor."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel, Field

from commons_events import Event, EventSchema
from commons_events.errors import EventDefinitionError
from commons_events.protobuf import FieldNumber, ProtobufSerializer, file_descriptor
from commons_events.testing.contracts._events import ODD_EVENTS, OddEvent

from ._protoc import class_of, compiled, without_order
from .test_generated import events

codec = ProtobufSerializer()


def assert_same(cls: type[Event], folder: Path) -> Any:
    ours = file_descriptor(cls)
    theirs = compiled(codec.schema(cls), ours.name, folder)
    assert without_order(ours) == without_order(theirs)
    return class_of(theirs)


def test_protoc_reads_the_text_as_our_descriptor(tmp_path: Path) -> None:
    made = assert_same(OddEvent, tmp_path)
    for event in ODD_EVENTS:
        message = made.FromString(codec.encode(event))
        assert codec.decode(message.SerializeToString(), OddEvent) == event


@given(events())
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_protoc_reads_the_text_of_any_class(tmp_path: Path, event: Event) -> None:
    made = assert_same(type(event), tmp_path)
    assert codec.decode(made.FromString(codec.encode(event)).SerializeToString(), type(event)) == event


def test_names_that_protobuf_cannot_have_or_has_already(tmp_path: Path) -> None:
    class Value(BaseModel):
        value: Any = None

    class message(BaseModel):  # noqa: N801
        repeated: list[int] = []

    class Taken(Enum):
        UNSPECIFIED_ = 1
        straße = 2

    @EventSchema(name="google.order-v2.3d", version="12.0.0")
    class Odd(Event):
        user_id: str = ""
        userId: int = 0  # noqa: N815
        user__id: str = "another"
        größe: float = 0.0
        message: message
        option: Value
        Odd: int | str = 1
        oneof: tuple[int, int] = (1, 2)
        DESCRIPTOR: str = ""
        kind: Taken = Taken.straße
        CopyFrom: dict[str, int] = {}

    made = assert_same(Odd, tmp_path)
    assert file_descriptor(Odd).package == "google.order_v2.x3d.v12"
    event = Odd(message=message(repeated=[1]), option=Value(value=[1]), userId=3, user_id="a", größe=1.5)
    assert codec.decode(made.FromString(codec.encode(event)).SerializeToString(), Odd) == event


def test_comments_are_the_class_s_words() -> None:
    @EventSchema(name="talked", description="Somebody talked.\nTwice.", schema_type="protobuf")
    class Talked(Event):
        words: Annotated[str, FieldNumber(4)] = Field(description="What was said.")

    assert "// Somebody talked.\n// Twice.\nmessage Talked {" in Talked.schema
    assert "  // What was said.\n  optional string words = 4;" in Talked.schema


class Beta(Enum):
    A = 1


def test_the_first_fifteen_tags_have_one_byte() -> None:
    class Many(Event):
        a: int
        b: str
        c: list[int] = []

    assert [field.number for field in file_descriptor(Many).message_type[0].field if field.number < 2032] == [1, 2, 3]
    data = codec.encode(Many(a=1, b="x", event_id="i"))
    assert data.startswith(b"\xc2\x7f\x04Many\xca\x7f\x051.0.0\x08\x02\x12\x01x")


def test_a_flag_is_refused_with_what_to_do() -> None:
    from enum import Flag

    class Rights(Flag):
        READ = 1
        WRITE = 2

    with pytest.raises(EventDefinitionError, match=r"field 'Allowed.rights'.*Flag.*Use an int"):

        @EventSchema(schema_type="protobuf")
        class Allowed(Event):
            rights: Rights
