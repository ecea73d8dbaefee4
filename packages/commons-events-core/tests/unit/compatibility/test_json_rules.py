"""Confluent's rules for JSON Schema, one by one: what may become what, and not the other way round."""

from __future__ import annotations

import json
from typing import Any

import pytest

from commons_events.compatibility import compatibility

pytest.importorskip("fastjsonschema", reason="the extra [jsonschema] is not installed")

S, INT, N, B = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
NULL = {"type": "null"}
LATEST = "https://json-schema.org/draft/2020-12/schema"


def obj(closed: bool = False, required: list[str] | None = None, more: Any = None, **properties: Any) -> dict[str, Any]:
    """An object's schema; ``more`` are its additionalProperties."""
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if closed or more is not None:
        schema["additionalProperties"] = False if closed else more
    if required:
        schema["required"] = required
    return schema


def arr(**more: Any) -> dict[str, Any]:
    return {"type": "array", **more}


def new(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"$schema": LATEST, **schema, **more}


X = {"^x": S}
ONE_WAY: dict[str, tuple[Any, Any]] = {
    # an open content model allows what is not named, so that naming it forbids something
    "a property comes where all were allowed": (obj(a=S, b=S), obj(a=S)),
    "a property of false comes where all were allowed": (obj(a=S, b=False), obj(a=S)),
    "a property comes where none was allowed": (obj(closed=True, a=S), obj(closed=True, a=S, b=S)),
    "a required one with a default comes where none was allowed": (
        obj(closed=True, a=S),
        obj(closed=True, a=S, b={**S, "default": "x"}, required=["b"]),
    ),
    "closed becomes open": (obj(closed=True, a=S), obj(a=S)),
    "others become wider": (obj(more=INT, a=S), obj(more=N, a=S)),
    "others of a type become any": (obj(more=N, a=S), obj(more=True, a=S)),
    "no others become some": (obj(closed=True, a=S), obj(more=N, a=S)),
    "a property of another type than its pattern's": (
        {**obj(closed=True, x1=INT), "patternProperties": X},
        {**obj(closed=True), "patternProperties": {"^x": {"type": ["string", "integer"]}}},
    ),
    "a property inside a property": (obj(a=obj(x=INT)), obj(a=obj(x=N))),
    "required is dropped": (obj(a=S, required=["a"]), obj(a=S)),
    "dependencies are dropped": ({**obj(a=S, b=S), "dependencies": {"a": ["b"]}}, obj(a=S, b=S)),
    "dependencies are fewer": (
        {**obj(a=S, b=S, c=S), "dependencies": {"a": ["b", "c"]}},
        {**obj(a=S, b=S, c=S), "dependencies": {"a": ["b"]}},
    ),
    "a schema that depends": ({**obj(a=S), "dependencies": {"a": obj(b=S, required=["b"])}}, obj(a=S)),
    "maxProperties": ({**obj(), "maxProperties": 3}, {**obj(), "maxProperties": 4}),
    "minProperties": ({**obj(), "minProperties": 3}, {**obj(), "minProperties": 1}),
    # types and values
    "a second type": (S, {"type": ["string", "integer"]}),
    "null as well": (S, {"type": ["string", "null"]}),
    "integers are numbers": (INT, N),
    "integers are numbers, or null": (INT, {"type": ["number", "null"]}),
    "anything": (S, {}),
    "anything, by true": (S, True),
    "nothing, by false": (False, S),
    "enum": ({"enum": ["a"]}, {"enum": ["a", "b"]}),
    "enum of a type": ({**S, "enum": ["a"]}, {**S, "enum": ["a", "b"]}),
    "enum is dropped": ({**S, "enum": ["a"]}, S),
    "maxLength": ({**S, "maxLength": 3}, {**S, "maxLength": 5}),
    "maxLength is dropped": ({**S, "maxLength": 3}, S),
    "minLength": ({**S, "minLength": 3}, {**S, "minLength": 2}),
    "pattern is dropped": ({**S, "pattern": "a"}, S),
    "multipleOf": ({**N, "multipleOf": 10}, {**N, "multipleOf": 5}),
    "multipleOf is dropped": ({**N, "multipleOf": 10}, N),
    "minimum": ({**N, "minimum": 1}, {**N, "minimum": 0}),
    "maximum is dropped": ({**N, "maximum": 1}, N),
    "exclusiveMinimum": ({**N, "exclusiveMinimum": 1}, {**N, "exclusiveMinimum": 0}),
    "exclusiveMaximum": ({**N, "exclusiveMaximum": 0}, {**N, "exclusiveMaximum": 1}),
    # arrays
    "items": (arr(items=INT), arr(items=N)),
    "uniqueItems is dropped": (arr(items=S, uniqueItems=True), arr(items=S)),
    "maxItems is dropped": (arr(maxItems=3), arr()),
    "minItems": (arr(minItems=3), arr(minItems=2)),
    "a place more where none was allowed": (
        arr(items=[S], additionalItems=False),
        arr(items=[S, INT], additionalItems=False),
    ),
    "a place less where all are allowed": (arr(items=[S, INT]), arr(items=[S])),
    "a place more where none was allowed, 2020-12": (
        new(arr(prefixItems=[S], items=False)),
        new(arr(prefixItems=[S, INT], items=False)),
    ),
    "a place less where all are allowed, 2020-12": (new(arr(prefixItems=[S, INT])), new(arr(prefixItems=[S]))),
    # several schemas
    "oneOf": ({"oneOf": [S, INT]}, {"oneOf": [S, INT, B]}),
    "anyOf": ({"anyOf": [S, INT]}, {"anyOf": [S, INT, B]}),
    "allOf": ({"allOf": [S, {"maxLength": 3}]}, {"allOf": [S]}),
    "a member becomes wider": ({"oneOf": [S, INT]}, {"oneOf": [S, N]}),
    "one becomes any": ({"oneOf": [S, INT]}, {"anyOf": [S, INT]}),
    "all become any": ({"allOf": [obj(a=S), obj(b=INT)]}, {"anyOf": [obj(a=S), obj(b=INT)]}),
    "a type becomes one of several": (S, {"oneOf": [S, INT]}),
    "not": ({"not": N}, {"not": INT}),
    "if and then are dropped": (
        new(obj(a=S), **{"if": {"required": ["a"]}, "then": {"required": ["b"]}}),
        new(obj(a=S)),
    ),
    "beside a $ref": (
        new(obj(a={"$ref": "#/$defs/x", "maxLength": 3}), **{"$defs": {"x": S}}),
        new(obj(a={"$ref": "#/$defs/x"}), **{"$defs": {"x": S}}),
    ),
    "a schema that holds itself": (
        new(obj(closed=True, a={"$ref": "#"})),
        new(obj(closed=True, a={"$ref": "#"}, b=S)),
    ),
}
NEITHER: dict[str, tuple[Any, Any]] = {
    "another type": (S, INT),
    "another pattern": ({**S, "pattern": "a"}, {**S, "pattern": "b"}),
    "another const": ({"const": "a"}, {"const": "b"}),
    "another enum": ({"enum": ["a", "b"]}, {"enum": ["a", "c"]}),
    "another multiple": ({**N, "multipleOf": 10}, {**N, "multipleOf": 3}),
    "a property that those allowed do not cover": (obj(more=S, a=S), obj(more=S, a=S, b=INT)),
    "a member of neither": (S, {"oneOf": [B, INT]}),
}
EITHER: dict[str, tuple[Any, Any]] = {
    "words for people": (
        {**S, "title": "a", "description": "x", "default": "q"},
        {**S, "title": "b", "description": "y", "default": "z"},
    ),
    "format": ({**S, "format": "date"}, {**S, "format": "email"}),
    "the order of an enum": ({"enum": ["a", "b"]}, {"enum": ["b", "a"]}),
    "the order of members": ({"anyOf": [S, INT]}, {"anyOf": [INT, S]}),
    "one member alone": (S, {"oneOf": [S]}),
    "types and members": ({"type": ["string", "null"]}, {"anyOf": [S, NULL]}),
    "an empty property": (obj(a=S), obj(a=S, b={})),
    "a property that those allowed cover": (obj(more=S, a=S), obj(more=S, a=S, b=S)),
    "a property that a pattern covers": (
        {**obj(closed=True), "patternProperties": X},
        {**obj(closed=True, x1=S), "patternProperties": X},
    ),
    "an empty place": (arr(items=[S]), arr(items=[S, {}])),
    "a $ref by another name": (
        new(obj(a={"$ref": "#/$defs/x"}), **{"$defs": {"x": S}}),
        new(obj(a={"$ref": "#/$defs/y"}), **{"$defs": {"y": S}}),
    ),
    "a $ref and what it is": (new(obj(a={"$ref": "#/$defs/x"}), **{"$defs": {"x": S}}), new(obj(a=S))),
    "an $anchor": (new(obj(a={"$ref": "#q"}), **{"$defs": {"x": {"$anchor": "q", **S}}}), new(obj(a=S))),
}


def reads(reader: Any, writer: Any) -> bool:
    return bool(compatibility(json.dumps(writer), json.dumps(reader), "BACKWARD", schema_type="json"))


@pytest.mark.parametrize(("narrow", "wide"), ONE_WAY.values(), ids=ONE_WAY)
def test_the_wider_one_reads_the_narrower_and_not_the_other_way_round(narrow: Any, wide: Any) -> None:
    assert reads(wide, narrow)
    assert not reads(narrow, wide)


@pytest.mark.parametrize(("one", "other"), NEITHER.values(), ids=NEITHER)
def test_neither_reads_the_other(one: Any, other: Any) -> None:
    assert not reads(one, other)
    assert not reads(other, one)


@pytest.mark.parametrize(("one", "other"), EITHER.values(), ids=EITHER)
def test_either_reads_the_other(one: Any, other: Any) -> None:
    assert reads(one, other)
    assert reads(other, one)


def test_a_required_property_without_a_default_is_read_by_no_older_bytes() -> None:
    assert not reads(obj(closed=True, a=S, b=S, required=["b"]), obj(closed=True, a=S))
    assert not reads(obj(a=S, required=["a"]), obj(a=S))
    assert reads(obj(a={**S, "default": "x"}, required=["a"]), obj(a={**S, "default": "x"}))
