"""The JSON Schema that an event class publishes: draft 2020-12, and true of all that ``to_json`` writes."""

from __future__ import annotations

import enum
import json
from typing import TYPE_CHECKING, Any

from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import CoreSchema, core_schema, to_json

from commons_events.errors import EventDefinitionError
from commons_events.event._exact import shared_fields
from commons_events.event._values import encode_base64

if TYPE_CHECKING:
    from commons_events.event import Event

__all__ = ["published_schema"]


def published_schema(event_class: type[Event]) -> dict[str, Any]:
    """The schema of what a class's events are written as; a reader's schema asks for no more than that.

    The version is no constant of it: by the rules of registries, which compare constants, none could follow another.

    Raises:
        EventDefinitionError: a field is of a type whose JSON is not known.
    """
    _share_envelope(event_class)
    try:
        schema = event_class.model_json_schema(mode="serialization", schema_generator=_Generator)
    except PydanticInvalidForJsonSchema as error:
        raise EventDefinitionError(
            f"{event_class.__qualname__} has no JSON Schema: {error.message}. Say what the type's serializer returns "
            "(PlainSerializer(…, return_type=str)), or give it WithJsonSchema."
        ) from error
    for node in (schema, *schema.get("$defs", {}).values()):
        version = node.get("properties", {}).get("version", {})
        if "event_type" in node.get("properties", {}):  # an event, which itself refuses another version
            version.pop("const", None)
    return {"$schema": _Generator.schema_dialect, **schema}


class _Generator(GenerateJsonSchema):
    """Pydantic's, where that says something else than what is written, or takes long for what is usual."""

    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        if len(schema) == 1 and schema["type"] in _PLAIN:
            return {"type": _PLAIN[schema["type"]]}
        shared = _shared.get(id(schema))
        if shared is not None:
            if not shared[1]:
                shared[1].update(super().generate_inner(schema))
            return _copied(shared[1])  # type: ignore[no-any-return]
        return super().generate_inner(schema)

    def encode_default(self, dft: Any) -> Any:
        return dft if type(dft) in _TYPES else super().encode_default(_with_base64(dft))

    def generate(self, schema: CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        made = super().generate(schema, mode)
        _mend_names(made, made.get("$defs", {}))
        return made

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Without the pattern of pydantic before 2.14, which knows no exponents: a decimal may be written with one."""
        made = super().decimal_schema(schema)
        for part in (made, *made.get("anyOf", ())):
            part.pop("pattern", None)
        return made

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        """Flags may be combined, so that their members are not all the values that there are."""
        made = super().enum_schema(schema)
        if issubclass(schema["cls"], enum.Flag):
            made = {key: value for key, value in made.items() if key not in ("enum", "const")}
        return made

    # Text (ISO 8601), whatever a model's own configuration says: numbers would lose digits.

    def date_schema(self, schema: core_schema.DateSchema) -> JsonSchemaValue:
        return {"type": "string", "format": "date"}

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        return {"type": "string", "format": "time"}

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        return {"type": "string", "format": "date-time"}

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        return {"type": "string", "format": "duration"}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Members have the fields' names, unless the model's own configuration writes aliases."""
        outer = self.by_alias
        self.by_alias = _writes_aliases(schema)
        try:
            return super().model_schema(schema)
        finally:
            self.by_alias = outer

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """As for models."""
        outer = self.by_alias
        self.by_alias = _writes_aliases(schema)
        try:
            return super().dataclass_schema(schema)
        finally:
            self.by_alias = outer


_PLAIN = {"bool": "boolean", "int": "integer", "none": "null", "str": "string"}
"""By their core schemas: types that JSON Schema has a word for."""
_TYPES = frozenset({bool, int, str, type(None)})


def _with_base64(value: Any) -> Any:
    """A default with its bytes as they are written; pydantic takes those in collections for UTF-8."""
    if isinstance(value, bytes):
        return encode_base64(value)
    if isinstance(value, dict):
        return {_with_base64(key): _with_base64(item) for key, item in value.items()}
    return list(map(_with_base64, value)) if isinstance(value, list | tuple | set | frozenset) else value


_shared: dict[int, tuple[Any, dict[str, Any]]] = {}
"""By the identities of their core schemas, which stand beside: the envelope's fields, that most classes share."""


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _share_envelope(event_class: type[Event]) -> None:
    """Let what is made of the envelope's fields be kept, where they are those that `Event` itself declares."""
    for node in shared_fields(event_class.__pydantic_core_schema__):
        _shared.setdefault(id(node), (node, {}))


def _writes_aliases(schema: core_schema.ModelSchema | core_schema.DataclassSchema) -> bool:
    return bool((schema.get("config") or {}).get("serialize_by_alias"))


def _mend_names(node: Any, definitions: dict[str, Any]) -> None:
    """The names of an object's members are text, whatever type the keys of a dict have."""
    if isinstance(node, dict):
        names = node.get("propertyNames")
        if isinstance(names, dict):
            named = definitions.get(str(names.get("$ref", "")).rpartition("/")[2], names)
            if named.get("type", "string") != "string":
                values = named.get("enum", [named["const"]] if "const" in named else None)
                if values is None:
                    del node["propertyNames"]
                else:
                    node["propertyNames"] = {"enum": [_as_name(value) for value in values]}
        for key, child in node.items():
            if key not in _DATA:
                _mend_names(child, definitions)
    elif isinstance(node, list):
        for child in node:
            _mend_names(child, definitions)


_DATA = frozenset({"default", "enum", "const", "examples"})


def _as_name(value: Any) -> str:
    (name,) = json.loads(to_json({value: None}))
    return str(name)
