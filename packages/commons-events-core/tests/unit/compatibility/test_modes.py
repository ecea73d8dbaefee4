"""Directions, histories, formats: what is compared with what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from commons_events import Event, EventSchema
from commons_events.compatibility import CompatibilityMode, Direction, SchemaText, compatibility
from commons_events.compatibility._formats import format_of
from commons_events.errors import ConfigurationError, InvalidSchemaError
from commons_events.plugins import SERIALIZERS, names

pytest.importorskip("avro", reason="the extra [avro] is not installed")
pytest.importorskip("proto_schema_parser", reason="the extra [protobuf] is not installed")


def user(*fields: Any) -> str:
    return json.dumps({"type": "record", "name": "User", "fields": [{"name": "id", "type": "string"}, *fields]})


PLAIN = user()
WITH_AGE = user({"name": "age", "type": "int"})
WITH_AGE_OR_NOT = user({"name": "age", "type": "int", "default": 0})


@pytest.mark.parametrize(
    ("mode", "old", "new", "expected"),
    [
        ("NONE", PLAIN, WITH_AGE, []),
        ("NONE", [WITH_AGE], '"int"', []),
        ("BACKWARD", PLAIN, WITH_AGE, [(0, "BACKWARD")]),
        ("BACKWARD", WITH_AGE, PLAIN, []),
        ("FORWARD", PLAIN, WITH_AGE, []),
        ("FORWARD", WITH_AGE, PLAIN, [(0, "FORWARD")]),
        ("FULL", PLAIN, WITH_AGE, [(0, "BACKWARD")]),
        ("FULL", WITH_AGE, PLAIN, [(0, "FORWARD")]),
        ("FULL", PLAIN, WITH_AGE_OR_NOT, []),
        ("FULL", PLAIN, '"int"', [(0, "BACKWARD"), (0, "FORWARD")]),
        ("BACKWARD", [PLAIN, WITH_AGE_OR_NOT], WITH_AGE, []),
        ("BACKWARD_TRANSITIVE", [PLAIN, WITH_AGE_OR_NOT], WITH_AGE, [(0, "BACKWARD")]),
        ("FORWARD", [WITH_AGE, WITH_AGE_OR_NOT], PLAIN, []),
        ("FORWARD_TRANSITIVE", [WITH_AGE, WITH_AGE_OR_NOT], PLAIN, [(0, "FORWARD")]),
        ("FULL", [WITH_AGE, PLAIN], WITH_AGE_OR_NOT, []),
        ("FULL_TRANSITIVE", [WITH_AGE, WITH_AGE_OR_NOT, PLAIN], PLAIN, [(0, "FORWARD")]),
        ("FULL_TRANSITIVE", ['"int"', PLAIN, '"long"'], PLAIN,
         [(2, "BACKWARD"), (2, "FORWARD"), (0, "BACKWARD"), (0, "FORWARD")]),
        ("FULL_TRANSITIVE", [], PLAIN, []),
    ],
)  # fmt: skip
def test_who_has_to_read_whom(mode: str, old: Any, new: str, expected: list[tuple[int, str]]) -> None:
    result = compatibility(old, new, mode, schema_type="avro")

    assert [(violation.older, violation.direction) for violation in result.violations] == expected
    assert bool(result) is result.is_compatible is not expected
    assert (result.mode, result.schema_type) == (CompatibilityMode(mode), "avro")


def test_backward_is_what_is_asked_by_default() -> None:
    assert compatibility(PLAIN, PLAIN).mode is CompatibilityMode.BACKWARD


@pytest.mark.parametrize("mode", ["full_transitive", "Full_Transitive", CompatibilityMode.FULL_TRANSITIVE])
def test_a_mode_in_any_case(mode: str) -> None:
    assert compatibility(PLAIN, PLAIN, mode).mode is CompatibilityMode.FULL_TRANSITIVE


def test_a_mode_that_there_is_not() -> None:
    with pytest.raises(ConfigurationError, match="'SIDEWAYS'.*BACKWARD_TRANSITIVE"):
        compatibility(PLAIN, PLAIN, "SIDEWAYS")


def test_what_it_says_in_words() -> None:
    assert str(compatibility(PLAIN, PLAIN, "full")) == "compatible (FULL, avro)"
    result = compatibility(PLAIN, WITH_AGE)
    assert str(result) == str(result.violations[0])
    assert "#/fields/1" in str(result)
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in str(result)
    assert result.violations[0].direction is Direction.BACKWARD


@pytest.mark.parametrize(("old", "new", "name"), [(PLAIN, "[", "the new schema"), ("[", PLAIN, "the older schema 0")])
def test_an_error_says_which_schema_it_is_about(old: str, new: str, name: str) -> None:
    for mode in ("BACKWARD", "FORWARD", "FULL"):
        with pytest.raises(InvalidSchemaError, match=name):
            compatibility(old, new, mode, schema_type="avro")


@pytest.mark.parametrize("mode", ["NONE", "BACKWARD"])
def test_a_first_schema_has_to_be_one_too(mode: str) -> None:
    with pytest.raises(InvalidSchemaError, match="the new schema"):
        compatibility([], '{"type": "record"}', mode)


# --- formats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"int"', "avro"),
        ('["null", "int"]', "avro"),
        ('{"type": "record", "name": "R", "fields": []}', "avro"),
        ('{"type": "map", "values": "int"}', "avro"),
        ('{"type": "array", "items": "string"}', "avro"),
        ('{"type": "array", "items": {"type": "array", "items": ["null"]}}', "avro"),
        ('{"type": "object"}', "json"),
        ('{"type": ["object", "null"]}', "json"),
        ('{"$schema": "https://json-schema.org/draft/2020-12/schema"}', "json"),
        ('{"type": "string", "enum": ["a"], "properties": {}}', "json"),
        ('{"enum": ["a"]}', "json"),
        ('{"type": "array", "items": {"type": "integer"}}', "json"),
        ("true", "json"),
        ('syntax = "proto3";', "protobuf"),
        ("// c\n\nmessage A {}", "protobuf"),
        ("package a.b;", "protobuf"),
        ('import public "x.proto";', "protobuf"),
        ('{"type": "string"}', None),
        ('{"type": "array", "items": {"type": "null"}}', None),
        ("{}", None),
        ("{", None),
        ("", None),
        ("hello", None),
    ],
)
def test_a_text_shows_its_format(text: str, expected: str | None) -> None:
    assert format_of(text) == expected


def test_one_that_shows_it_is_enough() -> None:
    assert compatibility('{"type": "string"}', '"bytes"').schema_type == "avro"


def test_texts_that_do_not_show_it() -> None:
    with pytest.raises(ConfigurationError, match="State schema_type="):
        compatibility('{"type": "string"}', '{"type": "string"}')
    assert compatibility('{"type": "string"}', '{"type": "string"}', schema_type="AVRO")


def test_texts_of_different_formats() -> None:
    with pytest.raises(ConfigurationError, match="avro, protobuf"):
        compatibility(PLAIN, "message A {}")


def test_a_format_that_there_is_not() -> None:
    with pytest.raises(ConfigurationError, match="'thrift'.*avro, json or protobuf"):
        compatibility(PLAIN, PLAIN, schema_type="thrift")


@pytest.mark.parametrize("schema", [b'"int"', 3, None, dict])
def test_what_is_no_schema_at_all(schema: Any) -> None:
    for kind in (None, "avro"):
        with pytest.raises(TypeError, match="an event class, a str or a SchemaText"):
            compatibility(PLAIN, schema, schema_type=kind)


# --- event classes ---------------------------------------------------------------------------------------------


def needs_codec(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(name not in names(SERIALIZERS), reason=f"the {name} serializer is not installed")


@pytest.mark.parametrize("name", [pytest.param("avro", marks=needs_codec("avro")),
                                  pytest.param("protobuf", marks=needs_codec("protobuf"))])  # fmt: skip
def test_event_classes_in_the_format_that_is_named(name: str) -> None:
    @EventSchema(name="user.seen", version="1.0.0")
    class Seen(Event):
        user_id: str

    @EventSchema(name="user.seen", version="2.0.0")
    class SeenAgain(Event):
        user_id: int

    assert compatibility(Seen, Seen, "FULL", schema_type=name).schema_type == name
    assert not compatibility(Seen, SeenAgain, "FULL", schema_type=name)


def test_event_classes_and_json_schemas() -> None:
    pytest.importorskip("commons_events.compatibility._json_schema", reason="JSON Schema's rules are not in this tree")

    @EventSchema(name="user.seen", version="1.0.0")
    class Seen(Event):
        user_id: str

    result = compatibility(Seen, Seen, "FULL")
    assert result
    assert result.schema_type == "json"
    assert not compatibility(Seen.schema, '{"type": "array"}')
    with pytest.raises(ConfigurationError, match=r"\$defs"):
        compatibility(Seen, SchemaText(Seen.schema, {"other": "{}"}))


@pytest.mark.parametrize("old", [b"{}", bytearray(b"{}"), None, 5])
def test_what_is_no_schema_is_called_by_its_type(old: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(old).__name__}"):
        compatibility(old, PLAIN)


class Address(BaseModel):
    city: str


class LongAddress(BaseModel):
    city: str
    country: str


@pytest.mark.parametrize(
    ("annotations", "paths"),
    [
        ({"a": int, "b": str | None}, []),
        ({"a": int, "b": list[int]}, []),
        ({"a": int, "b": int}, ["#/UnitGrows/2"]),
    ],
)
def test_protobuf_classes_may_insist_on_what_a_schema_cannot(annotations: dict[str, Any], paths: list[str]) -> None:
    old, new = grows("1.0.0", "protobuf", {"a": int}), grows("1.1.0", "protobuf", annotations)
    for mode in ("BACKWARD", "FULL"):
        found = compatibility(old, new, mode).violations
        assert [(one.rule, one.path, one.direction) for one in found] == [
            ("REQUIRED_FIELD_ADDED", path, "BACKWARD") for path in paths
        ]
    assert compatibility(old, new, "FORWARD")
    assert compatibility(old.schema, new, "BACKWARD")  # a text insists on nothing


def test_protobuf_classes_are_looked_through() -> None:
    old = grows("1.0.0", "protobuf", {"places": dict[str, Address]})
    new = grows("1.1.0", "protobuf", {"places": dict[str, LongAddress]})
    assert "#/LongAddress/2" in [one.path for one in compatibility(old, new).violations]


@pytest.mark.parametrize("schema_type", ["json", "jsonschema"])
def test_the_lenient_policy_lets_an_optional_field_come(schema_type: str) -> None:
    old = grows("1.0.0", schema_type, {"a": int})
    optional = grows("1.1.0", schema_type, {"a": int, "b": str | None}, b=None)
    required = grows("1.2.0", schema_type, {"a": int, "b": str})
    (strict,) = compatibility(old, optional, "FULL").violations
    assert "--lenient" in strict.advice
    assert compatibility(old, optional, "FULL", lenient=True)
    assert not compatibility(old, required, "FULL", lenient=True)


def grows(version: str, schema_type: str, annotations: dict[str, Any], **defaults: Any) -> type[Event]:
    space = {"__annotations__": annotations, "__module__": __name__, "__qualname__": "Grows", **defaults}
    return EventSchema(name="unit.grows", version=version, schema_type=schema_type)(
        type(Event)("Grows", (Event,), space)
    )
