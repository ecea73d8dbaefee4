"""Public conformance suites' cases, from the folder that COMMONS_EVENTS_CONFORMANCE names."""

from __future__ import annotations

import json
import os
import time
from datetime import date, datetime
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from commons_events.avro import canonical_form, fingerprint, read, write
from commons_events.errors import DeserializationError

FOLDER = Path(os.environ.get("COMMONS_EVENTS_CONFORMANCE", "/nonexistent")) / "avro"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="COMMONS_EVENTS_CONFORMANCE names no folder with conformance cases of Avro"
)


def cases(name: str, **having: str) -> list[Any]:
    """The cases of a file; of schema resolution those in binary alone, since Avro's JSON is no format of ours."""
    path = FOLDER / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.exists() else []
    return [pytest.param(case, id=case["id"]) for case in found if having.items() <= case.items()]


def of_json(value: Any) -> Any:
    """A datum as the cases write it."""
    if isinstance(value, dict):
        if "$decimal" in value:
            return Decimal(value["$decimal"])
        if "$time" in value:
            return clock.fromisoformat(value["$time"])
        if "$date" in value:
            return date.fromisoformat(value["$date"])
        if "$datetime" in value:
            return datetime.fromisoformat(value["$datetime"])
        if "$bytes" in value or "$hex" in value:
            return bytes.fromhex(value.get("$hex", value.get("$bytes")))
        return {name: of_json(item) for name, item in value.items()}
    return [of_json(item) for item in value] if isinstance(value, list) else value


def unwrapped(value: Any, schema: Any, names: dict[str, Any]) -> Any:
    """Avro's JSON encoding as plain values: unions without their branch, bytes as bytes."""
    if isinstance(schema, str):
        schema = names.get(schema, {"type": schema})
    if isinstance(schema, list):
        if value is None:
            return None
        ((branch, inner),) = value.items()
        found = next(s for s in schema if s == branch or (isinstance(s, dict) and branch in (s["type"], s.get("name"))))
        return unwrapped(inner, found, names)
    match schema["type"]:
        case "record":
            names[schema["name"]] = schema
            fields = {field["name"]: field["type"] for field in schema["fields"]}
            return {name: unwrapped(item, fields[name], names) for name, item in value.items()}
        case "array":
            return [unwrapped(item, schema["items"], names) for item in value]
        case "map":
            return {key: unwrapped(item, schema["values"], names) for key, item in value.items()}
        case "bytes" | "fixed":
            return value.encode("latin-1")
        case "string" | "enum" | "int" | "long" | "float" | "double" | "boolean" | "null":
            return value
    return unwrapped(value, schema["type"], names)


@pytest.mark.parametrize("case", cases("parsing_canonical_form"))
def test_parsing_canonical_form(case: Any) -> None:
    assert canonical_form(case["input_text"]) == case["canonical"]
    if "crc64_signed" in case:
        assert int.from_bytes(fingerprint(case["input_text"]), "little", signed=True) == case["crc64_signed"]


@pytest.mark.parametrize("case", cases("fingerprints"))
def test_fingerprints(case: Any) -> None:
    assert fingerprint(case["schema"]).hex() == case["crc64_avro_le_hex"]


@pytest.mark.parametrize("case", cases("datum_roundtrip"))
def test_round_trips(case: Any) -> None:
    datum = of_json(case["datum"])
    assert write(datum, case["schema"]).hex() == case["binary_hex"] or isinstance(datum, dict)
    assert read(bytes.fromhex(case["binary_hex"]), case["schema"]) == datum


@pytest.mark.parametrize("case", cases("varint"))
def test_varints(case: Any) -> None:
    assert write(case["value"], case["type"]).hex() == case["hex"]
    assert read(bytes.fromhex(case["hex"]), case["type"]) == case["value"]


@pytest.mark.parametrize("case", cases("schema_resolution", encoding="BINARY"))
def test_resolution(case: Any) -> None:
    data = bytes.fromhex(case["encoded_hex"])
    if "expect_error" in case:
        with pytest.raises(DeserializationError):
            read(data, case["writer"], case["reader"])
        return
    expected = unwrapped(case["expect_avro_json"], case["reader"], {})
    found = read(data, case["writer"], case["reader"])
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("case", cases("reader_defaults"))
def test_reader_defaults(case: Any) -> None:
    found = read(bytes.fromhex(case["writer_hex"]), case["writer"], case["reader"])
    assert (
        found == case["expect"]
        or {name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in found.items()}
        == case["expect"]
    )


@pytest.mark.parametrize("case", cases("malformed_binary"))
def test_malformed_bytes(case: Any) -> None:
    start = time.thread_time()
    data = bytes.fromhex(case["hex"])
    schema: Any = case["schema"]
    if case["op"] == "skip":
        writer = {"type": "record", "name": "Outer", "fields": [{"name": "skipped", "type": schema}]}
        schemas: tuple[Any, ...] = (writer, {"type": "record", "name": "Outer", "fields": []})
    else:
        schemas = (schema,)
    if case["expect"] == "accept":
        read(data, *schemas)
    elif case["env_max_items"] is None:
        with pytest.raises(DeserializationError):
            read(data, *schemas)
    else:
        pytest.skip("judged by a limit of the suite's own library")
    assert time.thread_time() - start < 10


@pytest.mark.parametrize("case", cases("logical_times"))
def test_logical_times(case: Any) -> None:
    kind = "int" if case["logicalType"] in ("date", "time-millis") else "long"
    schema = {"type": kind, "logicalType": case["logicalType"]}
    data = write(case["underlying"], kind)
    found: Any = read(data, schema)
    if case["logicalType"].endswith("nanos"):
        assert found == case["underlying"]  # Python's own types have no nanoseconds: it stays the number that it is
        return
    types: dict[str, Any] = {"date": date, "time": clock, "timestamp": datetime}
    expected = types[case["logicalType"].split("-")[0]].fromisoformat(case["value"].replace("Z", "+00:00"))
    assert found == expected
    assert write(expected, schema) == data


@pytest.mark.parametrize("case", cases("schema_validity"))
def test_schema_validity(case: Any) -> None:
    if case["valid"]:
        assert canonical_form(case["schema_text"])
    else:
        with pytest.raises(ValueError, match="not an Avro schema"):
            canonical_form(case["schema_text"])
