"""JSON: RFC 8259 for the bytes, JSON Schema draft 2020-12 for the schema."""

from __future__ import annotations

import json
from typing import ClassVar, TypeVar

from commons_events.event import Event, _json
from commons_events.serialization._serializer import Serializer

__all__ = ["JsonSerializer"]

E = TypeVar("E", bound=Event)


class JsonSerializer(Serializer):
    """``to_json`` and ``from_json`` as a format."""

    name: ClassVar[str] = "json"
    content_type: ClassVar[str] = "application/json"

    def encode(self, event: Event) -> bytes:
        """See `Event.to_json`."""
        return _json.write(event)

    def decode(self, data: bytes, event_class: type[E]) -> E:
        """See `Event.from_json`."""
        return event_class.from_json(data)

    def schema(self, event_class: type[Event]) -> str:
        """The class's JSON Schema, draft 2020-12."""
        return json.dumps(
            {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                **event_class.model_json_schema(mode="serialization"),
            }
        )

    def identify(self, data: bytes) -> tuple[str, str | None] | None:
        """The ``event_type`` and ``version`` members of the object."""
        return _json.identify(data)
