"""Other implementations' compatibility cases, where COMMONS_EVENTS_CONFORMANCE names the folder that holds them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from commons_events.compatibility import Compatibility, SchemaText, compatibility
from commons_events.errors import InvalidSchemaError

pytest.importorskip("avro", reason="the extra [avro] is not installed")
pytest.importorskip("proto_schema_parser", reason="the extra [protobuf] is not installed")

VARIABLE = "COMMONS_EVENTS_CONFORMANCE"
FOLDER = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None

pytestmark = pytest.mark.skipif(
    FOLDER is None, reason=f"{VARIABLE} does not name the folder with the schema compatibility cases"
)

OTHER_RULES = {
    # Karapace sees that a field of this name had another number. To Confluent's registry one field goes, one comes.
    "karapace-protobuf-004": True,
    "karapace-protobuf-016": True,
    # Karapace lets the package change. Confluent's registry does not: it names all types in it.
    "karapace-protobuf-008": False,
}
"""Cases of another registry than Confluent's that contradict its rules, and what those say."""
CHANGES_THAT_DO_NO_HARM = {
    "ENUM_ADDED",
    "ENUM_CONST_ADDED",
    "ENUM_CONST_CHANGED",
    "ENUM_CONST_REMOVED",
    "ENUM_REMOVED",
    "FIELD_ADDED",
    "FIELD_NAME_CHANGED",
    "FIELD_REMOVED",
    "FIELD_STRING_OR_BYTES_LABEL_CHANGED",
    "MESSAGE_ADDED",
    "MESSAGE_MOVED",
    "ONEOF_ADDED",
    "ONEOF_FIELD_ADDED",
    "ONEOF_FIELD_MOVED_TO_TOP_LEVEL",
    "ONEOF_REMOVED",
}


def shown(case: object) -> str:
    """A case's own id; pytest asks for one also where there is no case."""
    return str(case["id"]) if isinstance(case, dict) else "none"


def document(name: str) -> dict[str, Any]:
    if FOLDER is None:
        return {"cases": []}
    read: dict[str, Any] = json.loads((FOLDER / name).read_text("utf-8"))
    return read


def cases(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document(name)["cases"]
    return found


def avro(old: object, new: object) -> Compatibility:
    return compatibility(json.dumps(old), json.dumps(new), schema_type="avro")


# --- Avro ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("avro/schema_compatibility.json"), ids=shown)
def test_avro_s_own_suites(case: dict[str, Any]) -> None:
    """Where they differ from each other, Java's answer is the one that a registry gives."""
    result = avro(case["writer"], case["reader"])

    assert bool(result) is (case["java_oracle"] == "COMPATIBLE" if case["disputed"] else case["compatible"])
    said = {one["type"] for one in case.get("java_oracle_incompatibilities", [])}
    assert {violation.rule for violation in result.violations} == said


@pytest.mark.parametrize("case", cases("schema_registry_compat/karapace_avro.json"), ids=shown)
def test_karapace_s_avro_cases(case: dict[str, Any]) -> None:
    try:
        verdict = bool(avro(case["old_writer"], case["new_reader"]))
    except InvalidSchemaError:
        assert case["java_oracle"] not in ("COMPATIBLE", "INCOMPATIBLE"), "Java takes these schemas"
    else:
        assert verdict is case["compatible"]


@pytest.mark.parametrize("case", cases("avro/schema_validity.json"), ids=shown)
def test_avro_schemas_that_are_valid_and_those_that_are_not(case: dict[str, Any]) -> None:
    try:
        compatibility([], case["schema_text"], schema_type="avro")
    except InvalidSchemaError:
        assert not case["valid"]
    else:
        assert case["valid"]


@pytest.mark.parametrize("name", ["avro/validator_strategies.json", "schema_registry_compat/avro_levels.json"])
def test_modes(name: str) -> None:
    schemas = document(name)["schemas"]
    for case in cases(name):
        history = [_text(schemas[previous]) for previous in case["previous"]]
        result = compatibility(history, _text(schemas[case["candidate"]]), case["level"], schema_type="avro")
        assert bool(result) is case["compatible"], case["id"]


def _text(schema: object) -> str:
    return schema if isinstance(schema, str) and schema.lstrip()[:1] in ("{", "[") else json.dumps(schema)


# --- Protobuf --------------------------------------------------------------------------------------------------


def proto(case: dict[str, Any], side: str) -> SchemaText:
    files = case.get(f"{side}_dependencies", [])
    # what is not a text here is one of the files that every implementation has
    return SchemaText(case[side], {file["name"]: file["schema"] for file in files if isinstance(file["schema"], str)})


@pytest.mark.parametrize("case", cases("schema_registry_compat/confluent_protobuf.json"), ids=shown)
def test_confluent_s_protobuf_cases(case: dict[str, Any]) -> None:
    result = compatibility(proto(case, "old"), proto(case, "new"), schema_type="protobuf")

    if case["backward_compatible"] is not None:
        assert bool(result) is case["backward_compatible"]
    found = {f"{violation.rule} {violation.path}" for violation in result.violations}
    stated = {one for one in case.get("changes", []) if one.split()[0] not in CHANGES_THAT_DO_NO_HARM}
    some = {one for one in case.get("changes_contains", []) if one.split()[0] not in CHANGES_THAT_DO_NO_HARM}
    assert found == stated if "changes" in case else found >= some


@pytest.mark.parametrize("case", cases("schema_registry_compat/karapace_protobuf.json"), ids=shown)
def test_karapace_s_protobuf_cases(case: dict[str, Any]) -> None:
    result = compatibility(case["old_writer"], case["new_reader"], schema_type="protobuf")

    assert bool(result) is OTHER_RULES.get(case["id"], case["compatible"])
