"""Events to bytes and back: one `Serializer` a format, each a plugin of the ``commons_events.serializers`` group."""

from commons_events.serialization._json import JsonSerializer
from commons_events.serialization._json_schema import JsonSchemaSerializer
from commons_events.serialization._schema_store import SchemaSource, SchemaStore, schemas
from commons_events.serialization._serializer import Serializer

__all__ = ["JsonSchemaSerializer", "JsonSerializer", "SchemaSource", "SchemaStore", "Serializer", "schemas"]
