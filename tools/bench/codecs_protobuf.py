"""Protobuf: events to bytes and back, beside a pydantic model and a protobuf class that one writes by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from pydantic import BaseModel, create_model

from commons_events import Event
from commons_events.event import registry
from commons_events.protobuf import ProtobufSerializer, file_descriptor
from tools.bench.measure import Effort, Table, at_most, microseconds
from tools.bench.model import PlainEnvelope, PlainUserRegistered, UserRegisteredEvent, user_fields

LIBRARIES = ("pydantic", "protobuf")
COUNT = 2000
HAND = "pydantic + protobuf class by hand"
TARGET = at_most(1.0, HAND, name="by hand")

codec = ProtobufSerializer()


def event_class(count: int) -> tuple[type[Event], type[BaseModel], dict[str, Any]]:
    """An event of so many fields, its plain twin, and values: text, numbers, flags and lists in turns."""
    kinds: tuple[tuple[Any, Any], ...] = ((str, "a text of some length"), (int, 12345), (float, 1.5), (bool, True))
    fields = {f"field_{n}": kinds[n % 4][0] for n in range(count - 1)} | {"tags": list[str]}
    values = {f"field_{n}": kinds[n % 4][1] for n in range(count - 1)} | {"tags": ["one", "two"]}
    required: dict[str, Any] = {name: (type_, ...) for name, type_ in fields.items()}
    event = type(f"Wide{count}", (Event,), {"__annotations__": fields, "__module__": __name__})
    stated: dict[str, Any] = {"event_type": (str, f"Wide{count}"), "version": (str, "1.0.0")}
    return event, create_model(f"PlainWide{count}", __base__=PlainEnvelope, **stated, **required), values


def by_hand(cls: type[Event], model: type[BaseModel]) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """What one writes: model_dump into a message; and fields out of the message into model_validate.

    The message is that of the event, but for its two kinds of fields that a protobuf class makes slow: values of Any
    are JSON texts, and role is a text.
    """
    file = file_descriptor(cls)
    field_type = descriptor_pb2.FieldDescriptorProto
    message = file.message_type[0]
    texts: list[str] = []
    moments: list[str] = []
    lists: list[str] = []
    plain: list[str] = []
    optional: list[str] = []
    for field in message.field:
        if field.type_name.endswith("Entry"):
            field.type, field.label = field_type.TYPE_STRING, field_type.LABEL_OPTIONAL
            field.ClearField("type_name")
            texts.append(field.name)
        elif field.type == field_type.TYPE_ENUM:
            field.type = field_type.TYPE_STRING
            field.ClearField("type_name")
            plain.append(field.name)
        elif field.type == field_type.TYPE_MESSAGE:
            moments.append(field.name)
        elif field.label == field_type.LABEL_REPEATED:
            lists.append(field.name)
        elif model.model_fields[field.name].default is None:
            optional.append(field.name)
        else:
            plain.append(field.name)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{message.name}"))

    def encode(instance: Any) -> bytes:
        values = instance.model_dump()
        for name in texts:
            values[name] = json.dumps(values[name])
        if "role" in values:
            values["role"] = values["role"].value
        return made(**values).SerializeToString()

    def decode(data: bytes) -> Any:
        read = made.FromString(data)
        values: dict[str, Any] = {name: getattr(read, name) for name in plain}
        for name in optional:
            values[name] = getattr(read, name) if read.HasField(name) else None
        for name in texts:
            values[name] = json.loads(getattr(read, name))
        for name in moments:
            values[name] = getattr(read, name).ToDatetime(UTC)
        for name in lists:
            values[name] = list(getattr(read, name))
        return model.model_validate(values)

    return encode, decode


def tables(
    key: str, what: str, cls: type[Event], model: type[BaseModel], fields: dict[str, Any]
) -> tuple[Table, Table]:
    event = cls(**fields, source="bench", correlation_id="request-1")
    plain = model(
        **fields, event_id=event.event_id, timestamp=event.timestamp, source="bench", correlation_id="request-1"
    )
    write, read = by_hand(cls, model)
    data, hand_data = codec.encode(event), write(plain)
    assert codec.decode(data, cls) == event
    assert read(hand_data) == plain
    note = (
        "Same work: a BaseModel of the same fields and checks; model_dump into a protobuf class and back, Any as JSON\n"
        f"text ({len(data)} bytes; by hand {len(hand_data)})."
    )
    writing = Table(f"protobuf {key} serialize", f"{what} to bytes (Protobuf)", note, "µs")
    reading = Table(f"protobuf {key} deserialize", f"Bytes (Protobuf) to {what}", note, "µs")

    @writing.contender(HAND)
    def hand_written(effort: Effort) -> float:
        return microseconds(lambda: write(plain), effort.count(COUNT))

    @writing.contender("ProtobufSerializer.encode", TARGET)
    def written(effort: Effort) -> float:
        return microseconds(lambda: codec.encode(event), effort.count(COUNT))

    @reading.contender(HAND)
    def hand_read(effort: Effort) -> float:
        return microseconds(lambda: read(hand_data), effort.count(COUNT))

    @reading.contender("ProtobufSerializer.decode", TARGET)
    def was_read(effort: Effort) -> float:
        return microseconds(lambda: codec.decode(data, cls), effort.count(COUNT))

    return writing, reading


with registry.isolated():
    SMALL, WIDE = event_class(5), event_class(60)

TABLES = (
    *tables(
        "page", "UserRegisteredEvent of the product's page", UserRegisteredEvent, PlainUserRegistered, user_fields()
    ),
    *tables("small", "an event of 5 fields", *SMALL),
    *tables("wide", "an event of 60 fields", *WIDE),
)
