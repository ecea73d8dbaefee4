"""What holds for any schema: a reader reads what it wrote, and what is demanded less is read, not what more."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from commons_events.compatibility._json_schema import differences, violations
from commons_events.compatibility._json_schema._matching import matching

Schema = dict[str, Any] | bool
DRAFTS = [
    None,
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
]
names = st.sampled_from(["a", "b", "c/d", "~e", "x-f", "ö", ""])
counts = st.integers(0, 5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
    max_leaves=4,
)


def _keywords(inner: st.SearchStrategy[Schema], draft: str | None) -> st.SearchStrategy[Schema]:
    some = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(names, inner, max_size=3)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": st.sampled_from(["string", "number", "integer", "object", "array", "null", "boolean"])
        | st.just(["string", "null"]),
        "title": names,
        "default": values,
        "enum": st.lists(values, min_size=1, max_size=3),
        "const": values,
        "minLength": counts,
        "maxLength": counts,
        "pattern": st.sampled_from(["^a", "b+", "(?=c)"]),
        "minimum": counts,
        "maximum": st.floats(0, 9),
        "multipleOf": st.sampled_from([1, 0.1, 2.5]),
        "properties": named,
        "required": st.lists(names, max_size=2, unique=True),
        "additionalProperties": inner,
        "patternProperties": st.dictionaries(st.sampled_from(["^x-", "a"]), inner, max_size=2),
        "minProperties": counts,
        "dependencies": st.dictionaries(names, inner | st.lists(names, max_size=2), max_size=2),
        "dependentRequired": st.dictionaries(names, st.lists(names, max_size=2), max_size=2),
        "unevaluatedProperties": inner,
        "items": inner if draft == DRAFTS[-1] else inner | some,
        "prefixItems": some,
        "additionalItems": inner,
        "unevaluatedItems": inner,
        "contains": inner,
        "maxItems": counts,
        "uniqueItems": st.booleans(),
        "allOf": some,
        "anyOf": some,
        "oneOf": some,
        "not": inner,
        "if": inner,
        "$ref": st.just("#/definitions/shared"),
    }
    return st.lists(st.sampled_from(sorted(keywords)), max_size=4, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({keyword: keywords[keyword] for keyword in chosen})
    )


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    draft = draw(st.sampled_from(DRAFTS))
    inner: st.SearchStrategy[Schema] = st.recursive(
        st.booleans() | st.just({}), lambda inner: _keywords(inner, draft), max_leaves=8
    )
    shared = {"type": "array", "items": {"$ref": "#/definitions/shared"}}
    root = {"type": "object", "properties": draw(st.dictionaries(names, inner, max_size=3))}
    return {**root, "definitions": {"shared": shared}, **({} if draft is None else {"$schema": draft})}


@given(schemas())
def test_a_schema_reads_what_it_wrote(schema: dict[str, Any]) -> None:
    text = json.dumps(schema)
    assert violations(text, text) == []
    assert violations(text, text, lenient=True) == []


@given(schemas(), schemas())
def test_two_schemas_have_an_answer(one: dict[str, Any], other: dict[str, Any]) -> None:
    reader, writer = json.dumps(one), json.dumps(other)
    strict, lenient = violations(reader, writer), violations(reader, writer, lenient=True)
    assert {(found.rule, found.path) for found in strict} <= set(differences(reader, writer))
    if lenient:
        assert strict
    for found in strict:
        assert found.path.startswith("#")
        assert found.message
        assert found.advice


# A schema, and one that demands more.
TIGHTENED: list[tuple[Schema, Schema]] = [
    ({"type": "string"}, {"type": "string", "maxLength": 3}),
    ({"type": "string", "minLength": 1}, {"type": "string", "minLength": 2}),
    ({"type": "string"}, {"type": "string", "pattern": "^a"}),
    ({"type": "number"}, {"type": "integer"}),
    ({"type": "integer", "maximum": 5}, {"type": "integer", "maximum": 4}),
    ({"type": "number", "multipleOf": 0.5}, {"type": "number", "multipleOf": 1.5}),
    ({"enum": [1, 2]}, {"enum": [1]}),
    ({"type": ["string", "null"]}, {"type": "string"}),
    ({"oneOf": [{"type": "string"}, {"type": "null"}]}, {"oneOf": [{"type": "null"}]}),
    ({"type": "array"}, {"type": "array", "minItems": 1}),
    ({"type": "array"}, {"type": "array", "items": {"type": "string"}}),
    ({"type": "object"}, {"type": "object", "additionalProperties": False}),
    (
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    ),
    ({}, {"type": "null"}),
    ({"type": "boolean"}, False),
]

# Whatever stands around a schema, the same holds; inside `not`, the other way round.
_around: list[Callable[[Schema], Schema]] = [
    lambda schema: {"type": "object", "properties": {"a": schema, "b": {"type": "null"}}},
    lambda schema: {"type": "object", "additionalProperties": {"allOf": [schema]}},
    lambda schema: {"type": "array", "items": schema},
    lambda schema: {"type": "array", "items": [{"type": "null"}, schema]},
    lambda schema: {"allOf": [schema, {"minProperties": 1}]},
    lambda schema: {"anyOf": [schema, {"type": "object", "required": ["zz"], "minProperties": 7}]},
    lambda schema: {"dependencies": {"a": schema}},
]


@given(
    st.sampled_from(TIGHTENED),
    st.lists(st.sampled_from(_around) | st.just(None), max_size=5),
)
def test_less_is_read_and_more_is_not(
    pair: tuple[Schema, Schema], around: list[Callable[[Schema], Schema] | None]
) -> None:
    wide, narrow = pair
    for wrap in around:
        if wrap is None:
            wide, narrow = {"not": narrow}, {"not": wide}
        else:
            wide, narrow = wrap(wide), wrap(narrow)
    assert violations(json.dumps(wide), json.dumps(narrow)) == []
    assert violations(json.dumps(narrow), json.dumps(wide)) != []


@given(st.integers(0, 6), st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_a_matching_is_as_large_as_can_be(left: int, pairs: set[tuple[int, int]]) -> None:
    edges = sorted((one, other) for one, other in pairs if one < left)
    found = matching(left, edges)
    assert set(found) <= set(edges)
    assert len({one for one, _ in found}) == len({other for _, other in found}) == len(found)

    def largest(vertex: int, taken: frozenset[int]) -> int:
        if vertex == left:
            return 0
        ways = [other for one, other in edges if one == vertex and other not in taken]
        return max([largest(vertex + 1, taken), *(1 + largest(vertex + 1, taken | {other}) for other in ways)])

    assert len(found) == largest(0, frozenset())
