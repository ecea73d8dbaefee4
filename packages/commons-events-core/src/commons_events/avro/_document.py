"""A schema as JSON text, and values as the defaults that it states."""

from __future__ import annotations

import json
from typing import Any

from commons_events.avro._schema import NO_DEFAULT, SchemaNode

__all__ = ["schema_text"]
_PLAIN = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def schema_text(node: SchemaNode) -> str:
    """The schema's JSON text, with docs, defaults, aliases and logical types."""
    return _to_text(document(node, set(), ""))


_to_text = json.JSONEncoder(ensure_ascii=False).encode


def document(node: SchemaNode, seen: set[str], namespace: str) -> Any:
    """What `json.dumps` makes the schema's text of."""
    if node.kind in _PLAIN and not node.logical and not node.properties:
        return node.kind
    if node.name in seen:
        return node.name
    if node.kind == "union":
        return [document(branch, seen, namespace) for branch in node.branches]
    result: dict[str, Any] = {"type": node.kind}
    if node.name:
        seen.add(node.name)
        space, _, result["name"] = node.name.rpartition(".")
        if space != namespace:
            result["namespace"] = namespace = space
        if node.doc:
            result["doc"] = node.doc
        if node.aliases:
            result["aliases"] = list(node.aliases)
    if node.kind in ("array", "map"):
        result["items" if node.kind == "array" else "values"] = document(node.item, seen, namespace)
    elif node.kind == "enum":
        result["symbols"] = list(node.symbols)
        if node.default is not None:
            result["default"] = node.default
    elif node.kind == "fixed":
        result["size"] = node.size
    if node.logical:
        result["logicalType"] = node.logical
    if node.logical == "decimal":
        result |= {"precision": node.precision, "scale": node.scale}
    result |= node.properties
    if node.kind == "record":
        result["fields"] = [_field(item, seen, namespace) for item in node.fields]
    return node.kind if len(result) == 1 and node.kind in _PLAIN else result


def _field(item: Any, seen: set[str], namespace: str) -> dict[str, Any]:
    result: dict[str, Any] = {"name": item.name, "type": document(item.type, seen, namespace)}
    if item.default is not NO_DEFAULT:
        result["default"] = item.default
    if item.doc:
        result["doc"] = item.doc
    if item.aliases:
        result["aliases"] = list(item.aliases)
    return result
