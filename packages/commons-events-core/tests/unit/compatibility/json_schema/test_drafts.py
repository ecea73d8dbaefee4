"""What the same keywords say in different drafts, and what references lead to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from commons_events.compatibility._json_schema import violations
from commons_events.errors import InvalidSchemaError

DRAFTS = {
    4: "http://json-schema.org/draft-04/schema#",
    6: "http://json-schema.org/draft-06/schema#",
    7: "https://json-schema.org/draft-07/schema",
    2019: "https://json-schema.org/draft/2019-09/schema",
    2020: "https://json-schema.org/draft/2020-12/schema#",
}
S, N = {"type": "string"}, {"type": "number"}


def rules(draft: int, reader: dict[str, Any], writer: dict[str, Any]) -> list[str]:
    both = [json.dumps({"$schema": DRAFTS[draft], **schema}) for schema in (reader, writer)]
    return [violation.rule for violation in violations(*both)]


def test_const_is_nothing_in_draft_4() -> None:
    assert rules(4, {"const": 1}, {"const": 2}) == []
    assert rules(6, {"const": 1}, {"const": 2}) == ["ENUM_ARRAY_CHANGED"]


def test_exclusive_limits_are_flags_in_draft_4() -> None:
    limited = {"type": "number", "maximum": 5}
    assert rules(4, {**limited, "exclusiveMaximum": True}, limited) == ["EXCLUSIVE_MAXIMUM_ADDED"]
    assert rules(4, limited, {**limited, "exclusiveMaximum": True}) == []
    assert rules(4, {**limited, "exclusiveMaximum": False}, limited) == []
    with pytest.raises(InvalidSchemaError, match="a number is needed, not true"):
        rules(7, {**limited, "exclusiveMaximum": True}, limited)


def test_conditions_count_from_draft_7_on() -> None:
    condition = {"type": "string", "if": S, "then": S}
    assert rules(6, condition, S) == []
    assert rules(7, condition, S) == ["TYPE_CHANGED"]
    assert rules(2020, condition, S) == ["TYPE_CHANGED"]


def test_tuples_have_two_spellings() -> None:
    assert rules(2019, {"items": [S, S]}, {"items": [S, N]}) == ["TYPE_CHANGED"]
    assert rules(2020, {"prefixItems": [S, S]}, {"prefixItems": [S, N]}) == ["TYPE_CHANGED"]
    with pytest.raises(InvalidSchemaError, match="#/items: a schema is an object or a boolean"):
        rules(2020, {"items": [S]}, {})


def test_what_stands_beside_a_reference_counts_from_2019_on() -> None:
    beside = {"$ref": "#/definitions/s", "maxLength": 3, "definitions": {"s": S}}
    assert rules(7, beside, S) == []
    assert rules(2019, beside, S) == ["TYPE_CHANGED"]


def test_dependencies_were_split_in_2019() -> None:
    assert rules(7, {"dependencies": {"a": ["b"]}}, {"type": "object"}) == ["DEPENDENCY_ARRAY_ADDED"]
    assert rules(2019, {"dependentRequired": {"a": ["b"]}}, {"type": "object"}) == ["DEPENDENCY_ARRAY_ADDED"]
    assert rules(7, {"type": "object", "dependentRequired": {"a": ["b"]}}, {"type": "object"}) == []


@pytest.mark.parametrize(
    ("draft", "schema"),
    [
        (
            4,
            {"id": "http://x.test/root", "$ref": "other#/definitions/s", "o": {"id": "other", "definitions": {"s": S}}},
        ),
        (7, {"$ref": "#/definitions/s", "definitions": {"s": S}}),
        (7, {"$ref": "#/$defs/s", "definitions": {"s": S}}),
        (7, {"$ref": "#name", "definitions": {"s": {"$id": "#name", **S}}}),
        (7, {"$id": "http://x.test/root", "$ref": "s.json", "definitions": {"s": {"$id": "s.json", **S}}}),
        (7, {"$id": "urn:uuid:1", "$ref": "#/definitions/s", "definitions": {"s": S}}),
        (7, {"$ref": "#/definitions/a", "definitions": {"a": {"$ref": "#/definitions/b"}, "b": S}}),
        (7, {"$ref": "#/definitions/a~1%62", "definitions": {"a/b": S}}),
        (7, {"$ref": "#/definitions/list/items/0", "definitions": {"list": {"items": [S]}}}),
        (2019, {"$ref": "#name", "$defs": {"s": {"$anchor": "name", **S}}}),
        (2020, {"$ref": "#/definitions/s", "$defs": {"s": S}}),
        (2020, {"$ref": "#/$defs/s", "definitions": {"s": S}}),
        (2020, {"$dynamicRef": "#name", "$defs": {"s": {"$dynamicAnchor": "name", **S}}}),
        (2020, {"$ref": "/a#s", "$defs": {"s": {"$id": "/a", "$defs": {"t": {"$anchor": "s", **S}}}}}),
    ],
)
def test_references_lead_to_what_they_name(draft: int, schema: dict[str, Any]) -> None:
    assert rules(draft, S, schema) == []
    assert rules(draft, schema, S) == []
    assert rules(draft, N, schema) == ["TYPE_CHANGED"]


def test_what_looks_like_an_identifier_in_data_names_nothing() -> None:
    trap = {"enum": [{"$id": "#name", "type": "number"}]}
    assert rules(7, {"$ref": "#name", "definitions": {"a": trap, "b": {"$id": "#name", **S}}}, S) == []


def test_a_default_beside_a_reference_is_the_propertys() -> None:
    def schema(**place: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {"a": place}, "definitions": {"s": S}}

    required = {**schema(**{"$ref": "#/definitions/s", "default": ""}), "required": ["a"]}
    assert rules(7, required, schema(**S)) == []


def test_both_schemas_may_be_of_different_drafts() -> None:
    old = {"$schema": DRAFTS[7], "type": "array", "items": [S], "additionalItems": False}
    new = {"$schema": DRAFTS[2020], "type": "array", "prefixItems": [S], "items": False}
    assert violations(json.dumps(new), json.dumps(old)) == []


def test_bytes_of_kafka_connect_are_bytes_in_either_form() -> None:
    assert rules(7, {**N, "connect.type": "bytes"}, {**S, "connect.type": "bytes"}) == []
    assert rules(7, {**N, "connect.type": "bytes"}, {**S, "connect.type": "int32"}) == ["TYPE_CHANGED"]
