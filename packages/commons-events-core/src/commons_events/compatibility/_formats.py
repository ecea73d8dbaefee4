"""The formats whose schemas can be compared: what they are called, how a text shows which one it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from commons_events.compatibility._violation import Violation
from commons_events.errors import ConfigurationError

__all__ = ["FORMATS", "SchemaText", "comparison", "format_named", "format_of"]

FORMATS = ("avro", "json", "protobuf")
_NAMES = {**{name: name for name in FORMATS}, "jsonschema": "json"}

_AVRO_TYPES = frozenset({"record", "error", "enum", "fixed", "map", "int", "long", "float", "double", "bytes"})
_JSON_SCHEMA_TYPES = frozenset({"object", "number", "integer"})
_JSON_SCHEMA_WORDS = frozenset(
    {
        *("$schema", "$id", "$ref", "$defs", "definitions", "anyOf", "oneOf", "allOf", "not", "const", "prefixItems"),
        *("properties", "required", "additionalProperties", "patternProperties"),
    }
)
_PROTO = re.compile(
    r"""^\s*(?:syntax|edition)\s*=|^\s*(?:message|enum|service|extend|package)\s+[\w.]+\s*[{;]|^\s*import\s+.*["']""",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class SchemaText:
    """A schema that refers to others, with their texts."""

    text: str
    imports: Mapping[str, str]
    """For Protobuf, by the names in its import statements, with those that they import in turn. For Avro, by any name,
    the schemas whose types it uses, each after those that it uses itself."""
    name: str | None = None
    """What errors call it, such as the name of its file; by default they say which argument it was."""


def format_named(name: str) -> str:
    """The format of this name, in any case.

    Raises:
        ConfigurationError: there is none.
    """
    found = _NAMES.get(name.lower())
    if found is None:
        raise ConfigurationError(
            f"schema_type {name!r}: schemas of this format can't be compared. Write avro, json or protobuf."
        )
    return found


def format_of(text: str) -> str | None:
    """The format that a text can only be, or None where it may be one or another."""
    start = text.lstrip("\ufeff \t\r\n")[:1]
    if start not in ("{", "[", '"'):
        if text.strip() in ("true", "false"):
            return "json"
        return "protobuf" if _PROTO.search(text) else None
    if start != "{":
        return "avro"  # a union, or the name of a type
    try:
        document = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return None
    return _json_format(document)


def _json_format(document: object) -> str | None:
    while isinstance(document, dict):
        name = document.get("type")
        if isinstance(name, str) and name in _AVRO_TYPES:
            return "avro"
        if name in _JSON_SCHEMA_TYPES if isinstance(name, str) else name is not None:
            return "json"
        if _JSON_SCHEMA_WORDS & document.keys() or (name is None and "enum" in document):
            return "json"
        if name != "array" or "items" not in document:
            return None
        document = document["items"]  # an array's items show it
    return "avro" if isinstance(document, list | str) else "json"


Comparison = Callable[[SchemaText, SchemaText], list[Violation]]
"""Reader and writer to violations."""


def comparison(schema_type: str, *, lenient: bool = False) -> Comparison:
    """The rules of a format; ``lenient`` is a policy of JSON Schema's."""
    if schema_type == "avro":
        from commons_events.compatibility import _avro

        return partial(_with_imports, _avro.violations)
    if schema_type == "protobuf":
        from commons_events.compatibility import _protobuf

        return partial(_with_imports, _protobuf.violations)
    from commons_events.compatibility import _json_schema  # type: ignore[attr-defined,unused-ignore]

    return partial(_self_contained, partial(_json_schema.violations, lenient=lenient))


def _with_imports(
    violations: Callable[..., list[Violation]], reader: SchemaText, writer: SchemaText
) -> list[Violation]:
    return violations(reader.text, writer.text, reader_imports=reader.imports, writer_imports=writer.imports)


def _self_contained(
    violations: Callable[[str, str], list[Violation]], reader: SchemaText, writer: SchemaText
) -> list[Violation]:
    if reader.imports or writer.imports:
        raise ConfigurationError("A JSON Schema has no imports here: put what it refers to into its $defs.")
    return violations(reader.text, writer.text)
