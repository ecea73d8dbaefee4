"""The contract of a serializer, for JSON that is checked against its schema."""

from __future__ import annotations

from commons_events.serialization import JsonSchemaSerializer, Serializer
from commons_events.testing.contracts import SerializerContract


class TestJsonSchema(SerializerContract):
    def make_serializer(self) -> Serializer:
        return JsonSchemaSerializer()
