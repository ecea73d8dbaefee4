"""Schemas that refer to themselves, and schemas that were made to hurt."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from commons_events.compatibility._json_schema import _compare, differences, violations
from commons_events.errors import CommonsEventsError, InvalidSchemaError

S, N = {"type": "string"}, {"type": "number"}


def tree(leaf: Any) -> dict[str, Any]:
    return {
        "$ref": "#/definitions/tree",
        "definitions": {
            "tree": {
                "type": "object",
                "properties": {"value": leaf, "children": {"type": "array", "items": {"$ref": "#/definitions/tree"}}},
            }
        },
    }


def rules(reader: Any, writer: Any) -> list[tuple[str, str]]:
    return [(found.path, found.rule) for found in violations(json.dumps(reader), json.dumps(writer))]


def test_a_recursive_schema_ends() -> None:
    assert rules(tree(S), tree(S)) == []
    assert rules(tree(N), tree(S)) == [("#/properties/value", "TYPE_CHANGED")]


def test_recursion_through_the_root() -> None:
    def node(leaf: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {"next": {"$ref": "#"}, "value": leaf}}

    assert rules(node(S), node(S)) == []
    assert rules(node(N), node(S)) == [("#/properties/value", "TYPE_CHANGED")]


def test_what_a_cycle_was_taken_for_is_checked_again() -> None:
    """A and B are unions of each other: which members match depends on what is found broken further down."""

    def schema(leaf: Any) -> dict[str, Any]:
        union = {"oneOf": [{"$ref": "#/definitions/a"}, {"$ref": "#/definitions/b"}]}
        shape = {"type": "object", "additionalProperties": False, "required": ["kind"]}
        return {
            "$ref": "#/definitions/a",
            "definitions": {
                "a": {**shape, "properties": {"kind": {"const": "a"}, "below": union}},
                "b": {**shape, "properties": {"kind": {"const": "b"}, "below": union, "leaf": leaf}},
            },
        }

    assert rules(schema(S), schema(S)) == []
    assert ("#/properties/below", "COMBINED_TYPE_SUBSCHEMAS_CHANGED") in rules(schema(N), schema(S))


def test_many_types_that_refer_to_all_of_each_other() -> None:
    def schema(leaf: Any, count: int) -> dict[str, Any]:
        names = [f"t{i}" for i in range(count)]
        union = {"oneOf": [{"$ref": f"#/definitions/{name}"} for name in names]}
        return {
            **union,
            "definitions": {
                name: {"type": "object", "properties": {name: S, "one": union, "two": union, "leaf": leaf}}
                for name in names
            },
        }

    assert rules(schema(S, 20), schema(S, 20)) == []
    assert rules(schema(N, 20), schema(S, 20))


def test_a_long_chain_of_references_needs_no_stack() -> None:
    def chain(leaf: Any) -> dict[str, Any]:
        links = {f"d{i}": {"type": "array", "items": {"$ref": f"#/definitions/d{i + 1}"}} for i in range(3_000)}
        return {"$ref": "#/definitions/d0", "definitions": {**links, "d3000": leaf}}

    assert rules(chain(S), chain(S)) == []
    ((path, rule),) = rules(chain(N), chain(S))
    assert (path, rule) == ("#" + "/items" * 3_000, "TYPE_CHANGED")


def test_references_to_references_without_end() -> None:
    chained = {f"d{i}": {"$ref": f"#/definitions/d{i + 1}"} for i in range(3_000)}
    schema = {"$ref": "#/definitions/d0", "definitions": {**chained, "d3000": S}}
    assert rules(S, schema) == []


def test_a_small_schema_with_billions_of_paths() -> None:
    def lattice(leaf: Any) -> dict[str, Any]:
        levels = {
            f"l{i}": {
                "type": "object",
                "properties": {side: {"$ref": f"#/definitions/l{i + 1}"} for side in ("left", "right")},
            }
            for i in range(40)
        }
        return {"$ref": "#/definitions/l0", "definitions": {**levels, "l40": leaf}}

    assert rules(lattice(S), lattice(S)) == []
    assert len(rules(lattice(N), lattice(S))) == 1_000
    assert len(differences(json.dumps(lattice(N)), json.dumps(lattice(S)))) == 1_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"type": "string"} x', "not JSON"),
        ('{"maximum": NaN}', "NaN is no number"),
        ("9" * 5_000, "not JSON"),
        ("[]", "#: an object or a boolean is needed, not list"),
        ('"string"', "#: an object or a boolean is needed, not str"),
        ("null", "an object or a boolean is needed"),
        ('{"not": ' * 10_000 + "{}" + "}" * 10_000, "levels deep"),
        ('{"items": ' * 300 + "{}" + "}" * 300, "levels deep"),
        ('{"enum": [' + "[" * 300 + "]" * 300 + "]}", "levels deep"),
        ('{"type": "text"}', '#/type: a type is array, boolean, integer, null, number, object or string, not "text"'),
        ('{"type": 3}', "#/type: an array is needed, not 3"),
        ('{"type": [3]}', "#/type: an array of strings is needed, not 3"),
        ('{"properties": []}', "#/properties: an object is needed"),
        ('{"properties": {"a": 1}}', "#/properties/a: a schema is an object or a boolean, not 1"),
        ('{"required": true}', "#/required: an array is needed, not true"),
        ('{"required": [1]}', "#/required: an array of strings"),
        ('{"oneOf": {}}', "#/oneOf: an array is needed"),
        ('{"oneOf": [3]}', "#/oneOf/0: a schema is"),
        ('{"minLength": -1}', "#/minLength: a whole number from 0"),
        ('{"minLength": 1.5}', "#/minLength: a whole number from 0"),
        ('{"maxItems": 1e400}', "#/maxItems: a whole number from 0"),
        ('{"maxItems": 1e999999999}', "#/maxItems: a whole number from 0"),
        ('{"minimum": "1"}', '#/minimum: a number is needed, not "1"'),
        ('{"multipleOf": 0}', "#/multipleOf: multipleOf is more than 0"),
        ('{"uniqueItems": 1}', "#/uniqueItems: true or false is needed"),
        ('{"title": 1}', "#/title: a string is needed"),
        ('{"pattern": "("}', "#/pattern: '(' is no regular expression"),
        ('{"patternProperties": {"[": true}}', "#/patternProperties: '[' is no regular expression"),
        ('{"$ref": 3}', "#/$ref: a reference is a string, not 3"),
        ('{"$ref": "#/definitions/none"}', "'#/definitions/none' leads to no schema in this document"),
        ('{"$ref": "http://example.test/other.json"}', "other documents are not fetched"),
        ('{"$id": "http://x.test/", "$ref": "http://[::1"}', "is no address"),
        ('{"$ref": "#/required", "required": ["a"]}', "leads to no schema"),
        ('{"$ref": "#"}', "leads back to itself"),
        ('{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}', "back to itself"),
        ('{"$schema": 3}', "#/$schema: the draft's address is a string"),
    ],
)
@pytest.mark.parametrize("role", ["reader", "writer"])
def test_what_is_no_schema_is_refused_with_its_place(text: str, says: str, role: str) -> None:
    texts = (text, "{}") if role == "reader" else ("{}", text)
    with pytest.raises(InvalidSchemaError, match=rf"{role}'s schema .*{re.escape(says)}") as caught:
        violations(*texts)
    assert isinstance(caught.value, CommonsEventsError | ValueError)


def test_more_pairs_than_anybody_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compare, "_MOST_PAIRS", 10_000)
    wide = [{"type": "string", "maxLength": n} for n in range(101)]
    with pytest.raises(InvalidSchemaError, match="Make their unions smaller"):
        violations(json.dumps({"oneOf": wide}), json.dumps({"oneOf": wide[::-1]}))


def test_numbers_out_of_all_proportion() -> None:
    assert rules({"type": "number", "multipleOf": 7}, {"type": "number", "multipleOf": 10}) != []
    huge = '{"type": "number", "multipleOf": 1e999999}'
    tiny = '{"type": "number", "multipleOf": 3e-999999}'
    assert [found.rule for found in violations(huge, tiny)] == ["MULTIPLE_OF_CHANGED"]
    assert violations('{"enum": [1e999999]}', '{"enum": [10e999998]}') == []


def test_a_pattern_that_costs_others_hours() -> None:
    schema = {"type": "object", "patternProperties": {"^(a+)+$": S}, "additionalProperties": False}
    assert rules(schema, {**schema, "properties": {"a" * 60 + "!": S}})
