"""Schemas of event classes: what a new field does, by how open the class is."""

from __future__ import annotations

from types import new_class
from typing import Any

import pytest

from commons_events import Event
from commons_events.compatibility._json_schema import violations


def schema(extra: str, annotations: dict[str, Any], **defaults: Any) -> str:
    body = {"__module__": __name__, "event_type": "unit.grows", "model_config": {"extra": extra}, **defaults}
    made: type[Event] = new_class(
        "Grows", (Event,), {}, lambda namespace: namespace.update(body, __annotations__=dict(annotations))
    )
    return made.schema


@pytest.mark.parametrize(
    ("extra", "rules"), [("ignore", ["OPTIONAL_PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL"]), ("forbid", [])]
)
def test_a_new_optional_field(extra: str, rules: list[str]) -> None:
    old, new = schema(extra, {"a": int}), schema(extra, {"a": int, "b": str | None}, b=None)
    assert [found.rule for found in violations(new, old)] == rules
    assert violations(new, old, lenient=True) == []


@pytest.mark.parametrize("extra", ["ignore", "forbid"])
def test_a_new_required_field_breaks_even_a_lenient_reader(extra: str) -> None:
    old, new = schema(extra, {"a": int}), schema(extra, {"a": int, "b": str})
    assert violations(new, old, lenient=True)


def test_a_field_that_goes() -> None:
    both, one = ({"a": int, "b": int}), {"a": int}
    assert violations(schema("ignore", one), schema("ignore", both)) == []
    assert [found.rule for found in violations(schema("forbid", one), schema("forbid", both))] == [
        "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL"
    ]
