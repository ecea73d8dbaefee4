"""JSON: RFC 8259 for the bytes, JSON Schema draft 2020-12 for the schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import ClassVar, TypeVar

from commons_events.event import Event, _json, registry
from commons_events.plugins import serializer_for
from commons_events.serialization._published import published_schema
from commons_events.serialization._serializer import Serializer

__all__ = ["JsonSerializer"]

E = TypeVar("E", bound=Event)


class JsonSerializer(Serializer):
    """``to_json`` and ``from_json`` as a format."""

    name: ClassVar[str] = "json"
    content_type: ClassVar[str] = "application/json"

    def encode(self, event: Event) -> bytes:
        """See `Event.to_json`."""
        return event._write_json()

    def decode(self, data: bytes, event_class: type[E]) -> E:
        """See `Event.from_json`. On a base class, by the format of the class that is found, if that is JSON, too."""
        if event_class is Event:
            identity = _json.identify(data)
            found = registry.get(*identity) if identity is not None else None
            codec = serializer_for(self.content_type, found.schema_info().schema_type) if found is not None else self
            if codec is not None and type(codec) is not type(self):
                return codec.decode(data, event_class)
        event: E = event_class._read_json(data)  # what from_json calls
        return event

    def encoder(self, event_class: type[E], *, source: str | None = None) -> Callable[[E], bytes]:
        """What `Event.to_json` calls, by itself."""
        if type(self).encode is not JsonSerializer.encode:
            return super().encoder(event_class, source=source)
        event_class.complete()
        write = event_class._write_json
        return write if source is None else _json.stating(event_class, write, source)

    def decoder(self, event_class: type[E]) -> Callable[[bytes], E]:
        """What `Event.from_json` calls, by itself."""
        if type(self).decode is not JsonSerializer.decode or "event_type" not in event_class.__dict__:
            return super().decoder(event_class)
        event_class.complete()
        return event_class._read_json

    def schema(self, event_class: type[Event]) -> str:
        """The class's JSON Schema, draft 2020-12."""
        return json.dumps(published_schema(event_class))

    def identify(self, data: bytes) -> tuple[str, str | None] | None:
        """The ``event_type`` and ``version`` members of the object."""
        return _json.identify(data)
