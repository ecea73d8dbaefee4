"""Classes whose annotations name what is defined later."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from commons_events import Event
from commons_events.errors import EventDefinitionError


class Early(Event):
    part: Part


class EarlyRead(Event):
    part: Part


class Never(Event):
    part: Missing  # noqa: F821  # nowhere


class Part(BaseModel):
    size: int


def test_a_class_is_completed_when_it_is_first_made() -> None:
    event = Early(part={"size": 1})
    assert event.part == Part(size=1)
    assert Early.from_json(event.to_json()) == event


def test_a_class_is_completed_when_it_is_first_read() -> None:
    assert EarlyRead.from_json(b'{"part": {"size": 2}}').part.size == 2


def test_a_name_that_is_nowhere_is_said_so() -> None:
    with pytest.raises(EventDefinitionError, match="Never is not fully defined"):
        Never(part=1)
    with pytest.raises(EventDefinitionError, match="Never is not fully defined"):
        Never.from_json(b"{}")
