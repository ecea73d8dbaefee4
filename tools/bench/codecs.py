"""Events to bytes and back in every format, and what programs write by hand to do the same.

A format takes part by one `Contender` a table: see `contenders`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from time import perf_counter
from typing import Any, TypeVar, cast

from pydantic import BaseModel, create_model

from commons_events import Event
from commons_events.event import registry
from commons_events.plugins import serializer
from tools.bench.measure import Effort, LeftOutError, Table, Target, at_most, microseconds
from tools.bench.model import (
    OrderPlaced,
    PlainEnvelope,
    PlainOrderPlaced,
    PlainUserRegistered,
    UserRegisteredEvent,
    order_fields,
    user_fields,
)

LIBRARIES = (
    "pydantic", "pydantic-core", "avro", "fastavro", "confluent-kafka", "dataclasses-avroschema",
)  # fmt: skip
COUNT = 2000
METRICS = ("encode µs", "decode µs")
T = TypeVar("T")


@dataclass(frozen=True)
class Codec:
    """Two functions, and what they work on."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    value: Any


@dataclass(frozen=True)
class Subject:
    """An event, and a plain pydantic model with the same fields and checks."""

    key: str
    title: str
    event: Event
    model: BaseModel


# --- the events ------------------------------------------------------------------------------------------------


def _wide() -> tuple[Event, BaseModel]:
    types: list[tuple[Any, Any]] = [
        (str, "some text"), (int, 123_456), (float, 0.25), (bool, True), (str | None, None), (list[str], ["a", "b"]),
        (datetime, datetime(2025, 3, 4, 5, tzinfo=UTC)), (dict[str, int], {"one": 1}), (str, "ünïcödé"), (int, -7),
    ]  # fmt: skip
    fields: dict[str, Any] = {f"field_{number}": (types[number % 10][0], ...) for number in range(60)}
    values = {f"field_{number}": types[number % 10][1] for number in range(60)}
    event_class = create_model("BenchWide", __base__=Event, __module__=__name__, **fields)
    plain = create_model("PlainWide", __base__=PlainEnvelope, __module__=__name__, **fields)
    event = event_class(**values)
    return event, plain(event_type="BenchWide", version="1.0.0", **values, **_same(event))


def _same(event: Event) -> dict[str, Any]:
    return {"event_id": event.event_id, "timestamp": event.timestamp}


def subjects() -> list[Subject]:
    user, order = UserRegisteredEvent(**user_fields()), OrderPlaced(**(order := order_fields(1)))
    wide, plain_wide = _wide()
    plain_user = PlainUserRegistered(**{**user.model_dump(), **_same(user)})
    plain_order = PlainOrderPlaced(**order.model_dump())
    return [
        Subject(
            "user",
            "UserRegisteredEvent of the product's page (13 fields, the envelope, two Any maps)",
            user,
            plain_user,
        ),
        Subject("order", "an event with 5 fields (and a UUID)", order, plain_order),
        Subject("wide", "an event with 60 fields", wide, plain_wide),
    ]


# --- contenders: each makes a codec for one subject ------------------------------------------------------------


def ours(name: str) -> Callable[[Subject], Codec]:
    def make(subject: Subject) -> Codec:
        codec, event_class = serializer(name), type(subject.event)
        return Codec(codec.encode, lambda data: codec.decode(data, event_class), subject.event)

    return make


def pydantic_json(subject: Subject) -> Codec:
    model = type(subject.model)
    return Codec(lambda value: value.model_dump_json().encode(), model.model_validate_json, subject.model)


def plain_schema(subject: Subject) -> tuple[Any, list[str]]:
    """The event's Avro schema with each ``dict[str, Any]`` as JSON text, as one does by hand; and which those are."""
    schema = json.loads(serializer("avro").schema(type(subject.event)))
    texts = []
    for field in schema["fields"]:
        type_ = field["type"]
        field.pop("default", None)
        if isinstance(type_, dict) and type_.get("type") == "map" and "Value" in json.dumps(type_["values"]):
            field["type"] = "string"
            texts.append(field["name"])
    return schema, texts


def by_hand(subject: Subject) -> tuple[Any, Callable[[Any], dict[str, Any]], Callable[[dict[str, Any]], Any]]:
    """A schema, and a pydantic model to and from what an Avro library takes and gives."""
    schema, texts = plain_schema(subject)
    model = type(subject.model)

    def to_dict(value: Any) -> dict[str, Any]:
        fields = cast("dict[str, Any]", value.model_dump())
        for name in texts:
            fields[name] = json.dumps(fields[name])
        return fields

    def from_dict(fields: dict[str, Any]) -> Any:
        for name in texts:
            fields[name] = json.loads(fields[name])
        return model.model_validate(fields)

    return schema, to_dict, from_dict


def hand_fastavro(subject: Subject) -> Codec:
    try:
        import fastavro
    except ImportError as error:
        raise LeftOutError("pip install fastavro") from error
    schema, to_dict, from_dict = by_hand(subject)
    parsed = fastavro.parse_schema(schema)

    def encode(value: Any) -> bytes:
        out = BytesIO()
        fastavro.schemaless_writer(out, parsed, to_dict(value))
        return out.getvalue()

    def decode(data: bytes) -> Any:
        return from_dict(cast("dict[str, Any]", fastavro.schemaless_reader(BytesIO(data), parsed, None)))

    return Codec(encode, decode, subject.model)


def confluent_avro(subject: Subject) -> Codec:
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient
        from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
        from confluent_kafka.serialization import MessageField, SerializationContext
    except ImportError as error:
        raise LeftOutError('pip install "confluent-kafka[avro,schemaregistry]"') from error
    schema, to_dict, from_dict = by_hand(subject)
    client = SchemaRegistryClient.new_client({"url": "mock://"})
    context = SerializationContext(subject.key, MessageField.VALUE)
    writer = AvroSerializer(client, json.dumps(schema), lambda value, _: to_dict(value))
    reader = AvroDeserializer(client, json.dumps(schema), lambda fields, _: from_dict(fields))
    return Codec(lambda value: writer(value, context), lambda data: reader(data, context), subject.model)


def dataclasses_avroschema(subject: Subject) -> Codec:
    try:
        from dataclasses_avroschema.pydantic import AvroBaseModel
    except ImportError as error:
        raise LeftOutError('pip install "dataclasses-avroschema[pydantic]"') from error
    _, texts = plain_schema(subject)
    plain = type(subject.model)
    fields: dict[str, Any] = {
        name: (str if name in texts else info.annotation, ...) for name, info in plain.model_fields.items()
    }
    model = create_model(f"{plain.__name__}Avro", __base__=AvroBaseModel, **fields)
    values = subject.model.model_dump()
    value = model(**{name: json.dumps(item) if name in texts else item for name, item in values.items()})
    return Codec(lambda value: value.serialize(serialization_type="avro"), model.deserialize, value)


BASE = "pydantic + fastavro, by hand"
CONFLUENT = "confluent AvroSerializer (mock://)"
DATACLASSES = "dataclasses-avroschema"
JSON_BASE = "pydantic JSON"
ENCODE, DECODE = METRICS


def _at_most(limit: float, than: str, name: str) -> list[Target]:
    return [at_most(limit, than, name=name, metric=metric) for metric in METRICS]


def _at_least(limits: tuple[float, float], than: str, name: str) -> list[Target]:
    pairs = zip(METRICS, limits, strict=True)
    return [Target(limit, (than,), name, at_least=True, metric=metric) for metric, limit in pairs]


def contenders() -> dict[str, tuple[Callable[[Subject], Codec], list[Target]]]:
    """Rows of every table; the first one is what the ratios are of."""
    avro = [
        *_at_most(0.8, BASE, "by hand"),
        *_at_least((1.5, 2.5), CONFLUENT, "confluent"),
        *_at_least((3, 3), DATACLASSES, "dataclasses-avroschema"),
    ]
    return {
        BASE: (hand_fastavro, []),
        "commons-events Avro": (ours("avro"), avro),
        CONFLUENT: (confluent_avro, []),
        DATACLASSES: (dataclasses_avroschema, []),
        JSON_BASE: (pydantic_json, []),
        "commons-events JSON": (ours("json"), _at_most(1.2, JSON_BASE, "pydantic JSON")),
    }


def _row(make: Callable[[Subject], Codec], subject: Subject) -> Callable[[Effort], Mapping[str, float]]:
    made: list[Codec] = []

    def run(effort: Effort) -> Mapping[str, float]:
        if not made:
            made.append(make(subject))
        codec, data = made[0], made[0].encode(made[0].value)
        count = effort.count(COUNT)
        return {
            ENCODE: microseconds(lambda: codec.encode(codec.value), count),
            DECODE: microseconds(lambda: codec.decode(data), count),
        }

    return run


def codec_tables() -> list[Table]:
    tables = []
    for subject in subjects():
        note = (
            "Same work by hand: a BaseModel with the same fields and envelope, model_dump and model_validate, the\n"
            "dict[str, Any] fields as JSON text, and the library's bytes. Ours also check type, version and bounds."
        )
        table = Table(f"codecs {subject.key}", f"Codecs: {subject.title}", note, *METRICS)
        for name, (make, targets) in contenders().items():
            table.contender(name, *targets)(_row(make, subject))
        tables.append(table)
    return tables


# --- classes ---------------------------------------------------------------------------------------------------

classes = Table(
    "codecs classes",
    "Creating event classes with 8 fields, and deriving their schemas",
    "Milliseconds a class; whether it grows with their number shows between the rows.",
    "ms",
)


def _classes(count: int, format: str) -> Callable[[Effort], float]:
    def run(effort: Effort) -> float:
        number = effort.count(count)
        fields: dict[str, Any] = {f"field_{i}": (type_, ...) for i, type_ in enumerate((str, int, float, datetime) * 2)}
        codec = serializer(format)
        with registry.isolated():
            start = perf_counter()
            for index in range(number):
                codec.schema(create_model(f"BenchClass{index}", __base__=Event, __module__=__name__, **fields))
            return (perf_counter() - start) / number * 1000

    return run


classes.contender("JSON Schema, 100 classes")(_classes(100, "json"))
classes.contender("JSON Schema, 1,000 classes", at_most(2))(_classes(1000, "json"))
classes.contender("Avro, 100 classes")(_classes(100, "avro"))
classes.contender("Avro, 1,000 classes", at_most(2))(_classes(1000, "avro"))
classes.contender("Avro, 5,000 classes")(_classes(5000, "avro"))
classes.contender("Protobuf, 100 classes")(_classes(100, "protobuf"))
classes.contender("Protobuf, 1,000 classes", at_most(2))(_classes(1000, "protobuf"))

TABLES = (*codec_tables(), classes)
