"""Each of Confluent's rules, in both directions: what breaks a reader, and that the way back does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from commons_events.compatibility._json_schema import differences, violations

S, N, I, B = {"type": "string"}, {"type": "number"}, {"type": "integer"}, {"type": "boolean"}  # noqa: E741
LATE = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def broken(reader: Any, writer: Any, *, lenient: bool = False) -> list[str]:
    """The rules that are broken, each with its path."""
    found = violations(json.dumps(reader), json.dumps(writer), lenient=lenient)
    assert all(violation.message and violation.advice for violation in found)
    return [f"{violation.rule} {violation.path}" for violation in found]


def obj(properties: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties or {}, **more}


def closed(properties: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return obj(properties, additionalProperties=False, **more)


def tup(*items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": list(items), **more}


# What a writer has, what a reader has, the rules that this breaks, and those that the way back breaks.
RULES: list[tuple[Any, Any, list[str], list[str]]] = [
    # kinds
    (S, N, ["TYPE_CHANGED #"], ["TYPE_CHANGED #"]),
    (N, I, ["TYPE_NARROWED #"], []),
    ({}, S, ["TYPE_CHANGED #"], []),
    (True, S, ["TYPE_CHANGED #"], []),
    (S, False, ["TYPE_CHANGED #"], []),
    # strings
    (S, {**S, "maxLength": 5}, ["MAX_LENGTH_ADDED #/maxLength"], []),
    ({**S, "maxLength": 5}, {**S, "maxLength": 4}, ["MAX_LENGTH_DECREASED #/maxLength"], []),
    (S, {**S, "minLength": 5}, ["MIN_LENGTH_ADDED #/minLength"], []),
    ({**S, "minLength": 5}, {**S, "minLength": 6}, ["MIN_LENGTH_INCREASED #/minLength"], []),
    (S, {**S, "pattern": "a"}, ["PATTERN_ADDED #/pattern"], []),
    (
        {**S, "pattern": "a"},
        {**S, "pattern": "b"},
        ["PATTERN_CHANGED #/pattern"],
        ["PATTERN_CHANGED #/pattern"],
    ),
    # numbers
    (N, {**N, "maximum": 5}, ["MAXIMUM_ADDED #/maximum"], []),
    ({**N, "maximum": 5}, {**N, "maximum": 4.5}, ["MAXIMUM_DECREASED #/maximum"], []),
    (N, {**N, "minimum": 5}, ["MINIMUM_ADDED #/minimum"], []),
    ({**N, "minimum": 5}, {**N, "minimum": 5.5}, ["MINIMUM_INCREASED #/minimum"], []),
    (N, {**N, "exclusiveMaximum": 5}, ["EXCLUSIVE_MAXIMUM_ADDED #/exclusiveMaximum"], []),
    (
        {**N, "exclusiveMaximum": 5},
        {**N, "exclusiveMaximum": 4},
        ["EXCLUSIVE_MAXIMUM_DECREASED #/exclusiveMaximum"],
        [],
    ),
    (N, {**N, "exclusiveMinimum": 5}, ["EXCLUSIVE_MINIMUM_ADDED #/exclusiveMinimum"], []),
    (
        {**N, "exclusiveMinimum": 5},
        {**N, "exclusiveMinimum": 6},
        ["EXCLUSIVE_MINIMUM_INCREASED #/exclusiveMinimum"],
        [],
    ),
    (N, {**N, "multipleOf": 3}, ["MULTIPLE_OF_ADDED #/multipleOf"], []),
    ({**N, "multipleOf": 0.1}, {**N, "multipleOf": 0.3}, ["MULTIPLE_OF_EXPANDED #/multipleOf"], []),
    (
        {**N, "multipleOf": 4},
        {**N, "multipleOf": 6},
        ["MULTIPLE_OF_CHANGED #/multipleOf"],
        ["MULTIPLE_OF_CHANGED #/multipleOf"],
    ),
    # constants and enumerations
    ({"const": 1}, {"const": 2}, ["ENUM_ARRAY_CHANGED #/const"], ["ENUM_ARRAY_CHANGED #/const"]),
    ({"const": 1}, {"const": True}, ["ENUM_ARRAY_CHANGED #/const"], ["ENUM_ARRAY_CHANGED #/const"]),
    ({"enum": ["a", "b"]}, {"enum": ["b"]}, ["ENUM_ARRAY_NARROWED #/enum"], []),
    ({"enum": ["a", "b"]}, {"enum": ["b", "c"]}, ["ENUM_ARRAY_CHANGED #/enum"], ["ENUM_ARRAY_CHANGED #/enum"]),
    # required and counted properties
    (obj({"a": S}), obj({"a": S}, required=["a"]), ["REQUIRED_ATTRIBUTE_ADDED #/required/a"], []),
    (obj(), obj(maxProperties=3), ["MAX_PROPERTIES_ADDED #/maxProperties"], []),
    (obj(maxProperties=4), obj(maxProperties=3), ["MAX_PROPERTIES_DECREASED #/maxProperties"], []),
    (obj(), obj(minProperties=3), ["MIN_PROPERTIES_ADDED #/minProperties"], []),
    (obj(minProperties=2), obj(minProperties=3), ["MIN_PROPERTIES_INCREASED #/minProperties"], []),
    # an open content model
    (obj(), obj({"a": S}), ["OPTIONAL_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL #/properties/a"], []),
    (
        obj(),
        obj({"a": S}, required=["a"]),
        ["REQUIRED_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL #/properties/a"],
        [],
    ),
    (
        obj(),
        obj({"a": {**S, "default": ""}}, required=["a"]),
        ["REQUIRED_PROPERTY_WITH_DEFAULT_ADDED_TO_OPEN_CONTENT_MODEL #/properties/a"],
        [],
    ),
    # a closed one
    (
        closed({"a": S}),
        closed(),
        ["PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL #/properties/a"],
        [],
    ),
    (
        closed(),
        closed({"a": S}, required=["a"]),
        ["REQUIRED_PROPERTY_ADDED_TO_UNOPEN_CONTENT_MODEL #/properties/a"],
        ["PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL #/properties/a"],
    ),
    (closed({"a": False}), closed(), [], []),
    (obj(), closed(), ["ADDITIONAL_PROPERTIES_REMOVED #/additionalProperties"], []),
    (obj(), obj(additionalProperties=S), ["ADDITIONAL_PROPERTIES_NARROWED #/additionalProperties"], []),
    (closed(), obj(additionalProperties=S), [], ["ADDITIONAL_PROPERTIES_REMOVED #/additionalProperties"]),
    (obj(additionalProperties=N), obj(additionalProperties=I), ["TYPE_NARROWED #/additionalProperties"], []),
    # a partially open one
    (
        obj(additionalProperties=S),
        obj({"a": N}, additionalProperties=S),
        [
            "TYPE_CHANGED #/properties/a",
            "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL #/properties/a",
        ],
        [
            "TYPE_CHANGED #/properties/a",
            "PROPERTY_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL #/properties/a",
        ],
    ),
    (obj(additionalProperties=N), obj({"a": N}, additionalProperties=N), [], []),
    (
        obj(patternProperties={"^x-": I}, additionalProperties=S),
        obj({"x-a": I}, patternProperties={"^x-": I}, additionalProperties=S),
        [],
        [],
    ),
    (
        closed(patternProperties={"^x-": N}),
        closed({"x-a": I}, patternProperties={"^x-": N}),
        [
            "TYPE_NARROWED #/properties/x-a",
            "PROPERTY_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL #/properties/x-a",
        ],
        [],
    ),
    (closed(patternProperties={"^(?!x-)": S}), closed({"a": S}, patternProperties={"^(?!x-)": S}), [], []),
    # dependencies
    (obj(), obj(dependencies={"a": ["b"]}), ["DEPENDENCY_ARRAY_ADDED #/dependencies/a"], []),
    (
        obj(dependencies={"a": ["b"]}),
        obj(dependencies={"a": ["b", "c"]}),
        ["DEPENDENCY_ARRAY_EXTENDED #/dependencies/a"],
        [],
    ),
    (
        obj(dependencies={"a": ["b"]}),
        obj(dependencies={"a": ["c"]}),
        ["DEPENDENCY_ARRAY_CHANGED #/dependencies/a"],
        ["DEPENDENCY_ARRAY_CHANGED #/dependencies/a"],
    ),
    (obj(), obj(dependencies={"a": S}), ["DEPENDENCY_SCHEMA_ADDED #/dependencies/a"], []),
    (obj(dependencies={"a": N}), obj(dependencies={"a": I}), ["TYPE_NARROWED #/dependencies/a"], []),
    (
        {**LATE, **obj(dependentRequired={"a": ["b"]})},
        {**LATE, **obj(dependentRequired={"a": ["b", "c"]}, dependentSchemas={"d": S})},
        ["DEPENDENCY_ARRAY_EXTENDED #/dependencies/a", "DEPENDENCY_SCHEMA_ADDED #/dependencies/d"],
        [],
    ),
    # arrays
    ({"type": "array"}, {"type": "array", "items": S}, ["SCHEMA_ADDED #/items"], []),
    ({"type": "array", "items": N}, {"type": "array", "items": I}, ["TYPE_NARROWED #/items"], []),
    (tup(), tup(maxItems=3), ["MAX_ITEMS_ADDED #/maxItems"], []),
    (tup(maxItems=4), tup(maxItems=3), ["MAX_ITEMS_DECREASED #/maxItems"], []),
    (tup(), tup(minItems=3), ["MIN_ITEMS_ADDED #/minItems"], []),
    (tup(minItems=2), tup(minItems=3), ["MIN_ITEMS_INCREASED #/minItems"], []),
    (tup(), tup(uniqueItems=True), ["UNIQUE_ITEMS_ADDED #/uniqueItems"], []),
    (tup(S), tup(S, N), ["ITEM_ADDED_TO_OPEN_CONTENT_MODEL #/items/1"], []),
    (tup(S), tup(S, True), [], []),
    (
        tup(S, additionalItems=False),
        tup(S, N, additionalItems=False),
        [],
        ["ITEM_REMOVED_FROM_CLOSED_CONTENT_MODEL #/items/1"],
    ),
    (tup(S, False, additionalItems=False), tup(S, additionalItems=False), [], []),
    (
        tup(S, additionalItems=N),
        tup(S, I, additionalItems=N),
        ["TYPE_NARROWED #/items/1", "ITEM_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL #/items/1"],
        [],
    ),
    (
        tup(S, S, additionalItems=N),
        tup(S, additionalItems=N),
        ["TYPE_CHANGED #/items/1", "ITEM_REMOVED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL #/items/1"],
        ["TYPE_CHANGED #/items/1", "ITEM_ADDED_NOT_COVERED_BY_PARTIALLY_OPEN_CONTENT_MODEL #/items/1"],
    ),
    (tup(S), tup(S, additionalItems=False), ["ADDITIONAL_ITEMS_REMOVED #/additionalItems"], []),
    (tup(S), tup(S, additionalItems=S), ["ADDITIONAL_ITEMS_NARROWED #/additionalItems"], []),
    # unions and the like
    ({"oneOf": [S, N]}, {"oneOf": [S]}, ["SUM_TYPE_NARROWED #"], []),
    ({"oneOf": [S, N]}, S, ["TYPE_CHANGED #"], []),
    ({"type": ["string", "null"]}, {"type": ["string"]}, ["SUM_TYPE_NARROWED #"], []),
    ({"oneOf": [N, S]}, {"oneOf": [S, I]}, ["COMBINED_TYPE_SUBSCHEMAS_CHANGED #"], []),
    ({"allOf": [S]}, {"allOf": [S, {"enum": ["a"]}]}, ["PRODUCT_TYPE_EXTENDED #"], []),
    ({"anyOf": [S, N]}, {"allOf": [S, N]}, ["COMBINED_TYPE_CHANGED #"], []),
    ({"anyOf": [S, N]}, {"oneOf": [S, N]}, ["COMBINED_TYPE_CHANGED #"], []),
    (S, {"allOf": [S, N]}, ["TYPE_CHANGED #"], []),
    ({"not": I}, {"not": N}, ["NOT_TYPE_EXTENDED #/not"], []),
    ({**S, "enum": ["a", "b"]}, {**S, "enum": ["a"]}, ["COMBINED_TYPE_SUBSCHEMAS_CHANGED #"], []),
    # the later drafts
    (
        {**LATE, **obj()},
        {**LATE, **obj(unevaluatedProperties=False)},
        ["UNEVALUATED_PROPERTIES_REMOVED #/unevaluatedProperties"],
        [],
    ),
    (
        {**LATE, **obj(unevaluatedProperties=True)},
        {**LATE, **obj(unevaluatedProperties=S)},
        ["UNEVALUATED_PROPERTIES_NARROWED #/unevaluatedProperties"],
        [],
    ),
    (
        {**LATE, "type": "array"},
        {**LATE, "type": "array", "unevaluatedItems": False},
        ["UNEVALUATED_ITEMS_REMOVED #/unevaluatedItems"],
        [],
    ),
    (
        {**LATE, "type": "array", "contains": S, "maxContains": 3},
        {**LATE, "type": "array", "contains": S, "maxContains": 2, "minContains": 2},
        ["MAX_CONTAINS_DECREASED #/maxContains", "MIN_CONTAINS_INCREASED #/minContains"],
        [],
    ),
    (
        {**LATE, "type": "array", "prefixItems": [S], "items": False},
        {**LATE, "type": "array", "prefixItems": [S, N], "items": False},
        [],
        ["ITEM_REMOVED_FROM_CLOSED_CONTENT_MODEL #/items/1"],
    ),
    (
        {**LATE, "type": "array"},
        {**LATE, "type": "array", "items": False},
        ["ADDITIONAL_ITEMS_REMOVED #/additionalItems"],
        [],
    ),
]


@pytest.mark.parametrize(("writer", "reader", "forth", "back"), RULES)
def test_a_rule_names_what_breaks(writer: Any, reader: Any, forth: list[str], back: list[str]) -> None:
    assert broken(reader, writer) == forth
    assert broken(writer, reader) == back


@pytest.mark.parametrize(("writer", "reader", "forth", "back"), RULES)
def test_a_rule_holds_at_any_depth(writer: Any, reader: Any, forth: list[str], back: list[str]) -> None:
    late = [isinstance(s, dict) and "$schema" in s for s in (writer, reader)]

    def deep(schema: Any) -> dict[str, Any]:
        return {**(LATE if all(late) else {}), **obj({"x": {"$ref": "#/$defs/X"}}), "$defs": {"X": schema}}

    places = [rule.replace("#", "#/properties/x", 1) for rule in forth]
    assert broken(deep(reader), deep(writer)) == places


@pytest.mark.parametrize(("writer", "reader", "forth", "back"), RULES)
def test_what_breaks_one_member_breaks_the_union(writer: Any, reader: Any, forth: list[str], back: list[str]) -> None:
    late = LATE if isinstance(writer, dict) and "$schema" in writer else {}
    found = broken({**late, "oneOf": [B, reader]}, {**late, "oneOf": [B, writer]})
    assert bool(found) == bool(forth)


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (obj(), obj({"a": S})),
        (obj(), obj({"a": {**S, "default": ""}}, required=["a"])),
        (obj(), closed()),
        (closed({"a": S}), closed()),
        (obj(), obj(additionalProperties=S)),
    ],
)
def test_lenient_mode_trusts_that_nobody_wrote_what_is_not_named(writer: Any, reader: Any) -> None:
    assert broken(reader, writer)
    assert broken(reader, writer, lenient=True) == []


def test_lenient_mode_is_no_blank_cheque() -> None:
    assert broken(obj({"a": S}, required=["a"]), obj(), lenient=True) == [
        "REQUIRED_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL #/properties/a"
    ]
    assert broken(obj(additionalProperties=N), obj({"a": S}), lenient=True)
    assert broken(tup(S), tup(), lenient=True)


@pytest.mark.parametrize(
    ("writer", "reader", "rules"),
    [
        (S, {"oneOf": [S, N]}, ["SUM_TYPE_EXTENDED"]),
        (S, {"type": ["null", "string"]}, ["SUM_TYPE_EXTENDED"]),
        (S, {"anyOf": [S]}, []),
        ({"allOf": [S, {"enum": ["a"]}]}, S, ["PRODUCT_TYPE_NARROWED"]),
        ({"oneOf": [S]}, S, []),
        ({"oneOf": [S, N]}, {"anyOf": [S, N]}, ["COMBINED_TYPE_EXTENDED"]),
        ({"allOf": [S, S]}, {"allOf": [S]}, []),
        (obj({"a": S}), obj(), ["PROPERTY_REMOVED_FROM_OPEN_CONTENT_MODEL"]),
        ({"not": N}, {"not": I}, ["NOT_TYPE_NARROWED"]),
        ({**S, "title": "a", "description": "b"}, S, ["TITLE_CHANGED", "DESCRIPTION_CHANGED"]),
        ({**S, "default": 1}, {**S, "default": 1.0}, []),
        ({**N, "multipleOf": 0.5}, {**N, "multipleOf": 0.50}, []),
        ({"enum": [1]}, {"enum": [1.0]}, []),
        (obj({"a": S}), obj({"a": {**S, "default": ""}}, required=["a"]), None),
    ],
)
def test_harmless_differences_are_named_too(writer: Any, reader: Any, rules: list[str] | None) -> None:
    assert broken(reader, writer) == []
    found = [rule for rule, _ in differences(json.dumps(reader), json.dumps(writer))]
    assert found == (["REQUIRED_ATTRIBUTE_WITH_DEFAULT_ADDED", "DEFAULT_CHANGED"] if rules is None else rules)


def test_members_are_matched_as_many_as_possible() -> None:
    """Taking the first that fits would give the number's place to the integer and leave the number none."""
    assert broken({"oneOf": [N, {**I, "minimum": 0}]}, {"oneOf": [{**I, "minimum": 0}, N]}) == []
    wide = [{**S, "maxLength": n} for n in range(1, 30)]
    assert broken({"anyOf": wide}, {"anyOf": wide[::-1]}) == []
    assert broken({"anyOf": [*wide[1:], {**S, "maxLength": 0}]}, {"anyOf": wide}) == [
        "COMBINED_TYPE_SUBSCHEMAS_CHANGED #"
    ]


def test_a_message_names_both_sides() -> None:
    (found,) = violations(json.dumps({**S, "maxLength": 3}), json.dumps({**S, "maxLength": 5}))
    assert (found.path, found.rule) == ("#/maxLength", "MAX_LENGTH_DECREASED")
    assert str(found) == (
        "#/maxLength: the writer has maxLength 5, the reader 3 (MAX_LENGTH_DECREASED). Keep maxLength at 5 or raise it."
    )


def test_a_path_is_a_json_pointer() -> None:
    (found,) = broken(obj({"a/b~c": N}), obj({"a/b~c": S}))
    assert found == "TYPE_CHANGED #/properties/a~1b~0c"
