"""Confluent's own cases, and Karapace's, where COMMONS_EVENTS_CONFORMANCE names the folder that holds them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from commons_events.compatibility._json_schema import differences, violations

VARIABLE = "COMMONS_EVENTS_CONFORMANCE"
FOLDER = Path(os.environ.get(VARIABLE, "")) / "schema_registry_compat" if os.environ.get(VARIABLE) else None

pytestmark = pytest.mark.skipif(
    FOLDER is None, reason=f"{VARIABLE} does not name the folder with the registries' compatibility cases"
)


def load(name: str) -> list[dict[str, Any]]:
    if FOLDER is None:
        return []
    cases: list[dict[str, Any]] = json.loads((FOLDER / name).read_text("utf-8"))["cases"]
    return cases


def shown(case: object) -> str:
    """A case's own id; pytest asks for one also where there is no case."""
    return str(case["id"]) if isinstance(case, dict) else "none"


@pytest.mark.parametrize("case", load("confluent_json.json"), ids=shown)
def test_confluent(case: dict[str, Any]) -> None:
    reader, writer = json.dumps(case["new"]), json.dumps(case["old"])
    strict = case["backward_compatible"]
    if strict is not None:
        assert (violations(reader, writer) == []) is strict
        assert (violations(reader, writer, lenient=True) == []) is case.get("backward_compatible_lenient", strict)
    if case["changes"] is not None:  # the registry gives properties in the order of their hashes
        found = [f"{rule} {'#/' if path == '#' else path}" for rule, path in differences(reader, writer)]
        assert sorted(found) == sorted(case["changes"])


def follows_confluent(case: dict[str, Any]) -> str | None:
    """Why Confluent's verdict, and so ours, is not Karapace's; None where they should agree."""
    reader, writer = case["new_reader"], case["old_writer"]
    if reader is True or reader == {}:
        return "a reader that takes anything reads everything; Karapace compares kinds"
    if writer is False:
        return "a writer that can't write leaves nothing unread; Karapace compares kinds"
    if case["id"] in _ONE_BY_ONE:
        return _ONE_BY_ONE[case["id"]]
    return None


_ONE_BY_ONE = {
    "karapace-json-288": "the reader's pattern ^a* is found in every name, so its schema {} covers the property",
    "karapace-json-294": "a new property with the schema {} takes anything that an open writer put there",
}


@pytest.mark.parametrize("case", load("karapace_json.json"), ids=shown)
def test_karapace(case: dict[str, Any]) -> None:
    found = violations(json.dumps(case["new_reader"]), json.dumps(case["old_writer"])) == []
    reason = follows_confluent(case)
    assert case["id"] not in _ONE_BY_ONE or found is not case["compatible"], "argued for nothing"
    if found is not case["compatible"]:
        assert reason is not None, "neither Karapace's verdict nor argued"
        assert found  # wherever the two differ, Confluent lets pass what Karapace refuses
