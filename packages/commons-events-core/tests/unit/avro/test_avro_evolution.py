"""Other versions' bytes: by Avro's Schema Resolution within a major version, by migrations beyond; schema files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AliasChoices, BaseModel, Field

from commons_events import Event, EventSchema
from commons_events.avro import AvroSerializer, read, write
from commons_events.errors import ConfigurationError, DeserializationError, SerializationError, UnknownSchemaError
from commons_events.event import migration, registry
from commons_events.serialization import SchemaStore

codec = AvroSerializer()


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with registry.isolated():
        yield


class Size(Enum):
    S = "S"
    L = "L"


class NewSize(Enum):
    S = "S"
    M = "M"
    L = "L"


NewSize.__name__ = NewSize.__qualname__ = "Size"  # the same enum, one version later


class Address(BaseModel):
    city: str
    street: str = ""


class NewAddress(BaseModel):
    city: str
    country: str = "DE"


NewAddress.__name__ = "Address"


def versions() -> tuple[type[Event], type[Event]]:
    """An event, and its next minor version."""

    @EventSchema(name="unit.moved", version="1.0.0", schema_type="avro")
    class MovedV1(Event):
        user: str
        count: int
        amount: Annotated[Decimal, Field(max_digits=8, decimal_places=2)]
        size: Size
        old: list[int] = []
        address: Address
        maybe: str | None = None

    @EventSchema(name="unit.moved", version="1.1.0", schema_type="avro")
    class MovedV2(Event):
        added: dict[str, Any] = {"a": 1}
        made: list[str] = Field(default_factory=lambda: ["made"])
        who: str = Field(validation_alias=AliasChoices("who", "user"))
        count: float
        amount: Annotated[Decimal, Field(max_digits=10, decimal_places=3)]
        size: NewSize
        address: NewAddress
        maybe: str | int | None = None

    return MovedV1, MovedV2


def old_event(cls: Any) -> Any:
    return cls(
        user="u", count=3, amount=Decimal("1.25"), size=Size.L, old=[1, 2], address=Address(city="Ulm", street="s"),
        maybe="m", event_id="e", source="urn:s", metadata={"k": [1, None]}, timestamp=datetime(2024, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def test_a_newer_class_reads_an_older_writer() -> None:
    old, new = versions()
    event: Any = codec.decode(codec.encode(old_event(old)), new)
    assert type(event) is new
    assert (event.version, event.event_id, event.source, dict(event.metadata)) == (
        "1.1.0",
        "e",
        "urn:s",
        {"k": [1, None]},
    )
    assert (event.who, event.count, event.amount, event.size) == ("u", 3.0, Decimal("1.25"), NewSize.L)
    assert type(event.count) is float
    assert (event.address, event.maybe, event.added, event.made) == (NewAddress(city="Ulm"), "m", {"a": 1}, ["made"])
    assert event.added is not codec.decode(codec.encode(old_event(old)), new).added  # type: ignore[attr-defined]


def test_an_older_class_reads_a_newer_writer_as_far_as_it_can() -> None:
    old, new = versions()
    event = codec.decode(codec.encode(old_event(old)), new)
    with pytest.raises(DeserializationError, match=r"MovedV1.*(user|count)"):
        codec.decode(codec.encode(event), old)  # a double is no long, and an alias reads one way


def test_the_base_class_finds_the_class_by_the_bytes() -> None:
    old, _ = versions()
    event = old_event(old)
    assert type(Event.deserialize(event.serialize())) is old
    assert old.deserialize(event.serialize()) == event


def test_migrations_lead_beyond_a_major_version_and_through_resolution() -> None:
    old, new = versions()

    @EventSchema(name="unit.moved", version="2.0.0", schema_type="avro")
    class MovedV3(Event):
        name: str

    data = codec.encode(old_event(old))
    with pytest.raises(DeserializationError, match="no migration leads here"):
        codec.decode(data, MovedV3)

    @migration(from_=new, to=MovedV3)
    def migrate(event: Any) -> Any:
        return MovedV3(name=event.who)

    registry.unregister(old)
    event = codec.decode(data, MovedV3)
    assert (event.name, event.event_id, event.version) == ("u", "e", "2.0.0")


def test_a_timedelta_is_read_across_minor_versions() -> None:
    @EventSchema(name="unit.done", version="1.0.0", schema_type="avro")
    class DoneV1(Event):
        took: timedelta
        spans: list[timedelta] = []

    @EventSchema(name="unit.done", version="1.1.0", schema_type="avro")
    class DoneV2(Event):
        took: timedelta
        spans: list[timedelta] = []
        host: str = "?"

    span = timedelta(days=-1, microseconds=7)
    for writer, reader in [(DoneV1, DoneV2), (DoneV2, DoneV1)]:
        read_again: Any = codec.decode(codec.encode(writer(took=span, spans=[span])), reader)
        assert (read_again.took, read_again.spans) == (span, [span])


def priced(version: str, places: int) -> Any:
    class Paid(Event):
        amount: Annotated[Decimal, Field(max_digits=12, decimal_places=places)]

    return EventSchema(name="unit.paid", version=version, schema_type="avro")(Paid)


def test_versions_whose_schemas_differ_in_scale_alone_are_told_apart() -> None:
    old, new = priced("1.0.0", 2), priced("1.1.0", 4)
    old_data, new_data = codec.encode(old(amount="12.34")), codec.encode(new(amount="12.3400"))
    assert old_data[:10] == new_data[:10]  # the fingerprint leaves the scale out
    for data in (old_data, new_data):
        for reader in (old, new):
            assert codec.decode(data, reader).amount == Decimal("12.34")
        assert codec.decode(data, Event).amount == Decimal("12.34")  # type: ignore[attr-defined]


def test_a_scale_is_not_guessed_from_another_version(tmp_path: Path) -> None:
    old, new = priced("1.0.0", 2), priced("1.1.0", 4)
    data = codec.encode(old(amount="12.34"))
    store = SchemaStore(classes=lambda: [new])
    with pytest.raises(UnknownSchemaError, match=r"scale of decimals.*'unit.paid' 1\.0\.0"):
        AvroSerializer(store).decode(data, new)
    (tmp_path / "paid-1.0.0.avsc").write_text(codec.schema(old), encoding="utf-8")
    store.add_files(tmp_path)
    assert AvroSerializer(store).decode(data, new).amount == Decimal("12.34")


def test_a_source_is_asked_for_the_scale_that_classes_do_not_state() -> None:
    old, new = priced("1.0.0", 2), priced("1.1.0", 4)

    class Registry:
        def schema(self, format: str, fingerprint: bytes) -> str | None:
            return codec.schema(old)

    store = SchemaStore(classes=lambda: [new])
    store.add(Registry())
    assert AvroSerializer(store).decode(codec.encode(old(amount="12.34")), new).amount == Decimal("12.34")


def test_a_version_without_decimals_is_read_by_the_schema_of_another_one_with_the_same_fields() -> None:
    def moved(version: str) -> Any:
        class Moved(Event):
            city: str

        return EventSchema(name="unit.moved", version=version, schema_type="avro")(Moved)

    old, new = moved("1.0.0"), moved("1.1.0")
    store = SchemaStore(classes=lambda: [new])
    assert AvroSerializer(store).decode(codec.encode(old(city="Ulm")), new).city == "Ulm"


def test_another_type_is_refused() -> None:
    old, _ = versions()

    class Other(Event):
        event_type = "unit.other"

    with pytest.raises(DeserializationError, match=r"Other: the bytes are an event of type 'unit.moved'"):
        codec.decode(codec.encode(old_event(old)), Other)


def test_a_class_that_changed_without_a_new_version_reads_what_it_wrote_before() -> None:
    def define(with_more: bool) -> Any:
        space: dict[str, Any] = {"__module__": __name__, "__qualname__": "Draft", "__annotations__": {"a": int}}
        if with_more:
            space["__annotations__"] = {"a": int, "more": str}
            space["more"] = "new"
        return type(Event)("Draft", (Event,), space)

    first = define(False)
    data = codec.encode(first(a=1))
    assert codec.decode(data, Event) == first(**codec.decode(data, first).model_dump())
    second = define(True)
    again: Any = codec.decode(data, second)
    assert (again.a, again.more) == (1, "new")


def test_required_fields_without_a_value_are_refused_with_their_name() -> None:
    class Needy(Event):
        event_type = "unit.needy"
        a: int
        b: str

    schema = json.loads(codec.schema(Needy))
    schema["fields"] = [field for field in schema["fields"] if field["name"] != "b"]
    store = SchemaStore()
    head = b"\xc3\x01" + store.add_text("avro", json.dumps(schema))
    body = codec.encode(Needy(a=1, b=""))[10:-1]
    with pytest.raises(DeserializationError, match="no field 'b', and the reader has no default"):
        AvroSerializer(store).decode(head + body, Needy)


# --- the store -------------------------------------------------------------------------------------------------


def test_schemas_of_past_versions_come_from_files(tmp_path: Path) -> None:
    old, new = versions()
    data, text = codec.encode(old_event(old)), codec.schema(old)
    (tmp_path / "moved-1.0.0.avsc").write_text(text, encoding="utf-8")
    (tmp_path / "README").write_text("no schema", encoding="utf-8")
    store = SchemaStore(classes=lambda: [])
    with pytest.raises(UnknownSchemaError, match="registered event classes"):
        AvroSerializer(store).decode(data, new)
    assert store.add_files(tmp_path) == 1
    assert AvroSerializer(store).decode(data, new).event_id == "e"
    with pytest.raises(UnknownSchemaError, match=tmp_path.name):
        store.find("avro", b"12345678")


def test_a_place_without_schemas_is_a_mistake(tmp_path: Path) -> None:
    store = SchemaStore()
    with pytest.raises(ConfigurationError, match=r"no \.avsc file"):
        store.add_files(tmp_path)
    with pytest.raises(ConfigurationError, match="neither a directory nor an importable package"):
        store.add_files("no.such.package")
    with pytest.raises(ConfigurationError, match="not for 'xml'"):
        store.add_files(tmp_path, "xml")
    (tmp_path / "bad.avsc").write_text('{"type": "recard"}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"bad\.avsc: not an Avro schema"):
        store.add_files(tmp_path)


def test_another_source_is_asked_last_and_once() -> None:
    old, new = versions()
    asked: list[bytes] = []

    class Registry:
        def schema(self, format: str, fingerprint: bytes) -> str | None:
            asked.append(fingerprint)
            return codec.schema(old) if fingerprint == data[2:10] else None

        def __str__(self) -> str:
            return "the registry at example"

    data = codec.encode(old_event(old))
    store = SchemaStore(classes=lambda: [])
    store.add(Registry())
    other = AvroSerializer(store)
    for _ in range(3):
        assert other.decode(data, new).event_id == "e"
    assert asked == [data[2:10]]
    with pytest.raises(UnknownSchemaError, match="the registry at example"):
        store.find("avro", b"12345678")


# --- generic resolution, beyond what the public suites ask --------------------------------------------------------


def record(*fields: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": list(fields), **more}


@pytest.mark.parametrize(
    ("writer", "value", "reader", "expected"),
    [
        ({"type": "long", "logicalType": "timestamp-millis"}, datetime(2024, 1, 1, tzinfo=UTC),
         {"type": "long", "logicalType": "timestamp-micros"}, datetime(2024, 1, 1, tzinfo=UTC)),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, Decimal("1.25"),
         {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 4}, Decimal("1.25")),
        ("long", 2**53 + 1, ["string", "double"], float(2**53)),
        (["null", "int"], 7, ["null", "long"], 7),
        (record({"name": "a", "type": "int"}, {"name": "b", "type": "int"}), {"a": 1, "b": 2},
         record({"name": "b", "type": "int"}, {"name": "a", "type": "int"}), {"b": 2, "a": 1}),
        (record({"name": "a", "type": "int"}), {"a": 1},
         record({"name": "z", "type": "int", "aliases": ["a"]}, name="S", aliases=["R"]), {"z": 1}),
        ({"type": "array", "items": ["int", {"type": "array", "items": {"type": "map", "values": "int"}}]},
         [1, [{"a": 2}]], {"type": "array", "items": ["long", {"type": "array", "items": {
             "type": "map", "values": "long"}}]}, [1, [{"a": 2}]]),
    ],
)  # fmt: skip
def test_generic_values_resolve(writer: Any, value: Any, reader: Any, expected: Any) -> None:
    assert read(write(value, writer), writer, reader) == expected


@pytest.mark.parametrize(
    ("writer", "value", "reader"),
    [
        ({"type": "int", "logicalType": "date"}, datetime(2024, 1, 1, tzinfo=UTC).date(),
         {"type": "long", "logicalType": "timestamp-micros"}),
        (record(), {}, record(name="Q")),
        ({"type": "fixed", "name": "F", "size": 2}, b"ab", {"type": "fixed", "name": "F", "size": 3}),
        ("boolean", True, "int"),
        ("string", "1.25", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("0.65"), "string"),
        ("string", "1.25", ["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}]),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", {"type": "enum", "name": "E", "symbols": ["A"]}),
    ],
)  # fmt: skip
def test_what_does_not_resolve_is_refused(writer: Any, value: Any, reader: Any) -> None:
    with pytest.raises(DeserializationError):
        read(write(value, writer), writer, reader)


def test_a_value_of_no_branch_is_refused() -> None:
    with pytest.raises(SerializationError, match="is no union"):
        write(1.5, ["null", "string"])
