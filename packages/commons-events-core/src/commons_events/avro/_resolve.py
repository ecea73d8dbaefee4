"""The rules of Schema Resolution (Avro specification 1.12), asked of two types before any bytes are there."""

from __future__ import annotations

from collections.abc import Sequence

from commons_events.avro._schema import SchemaField, SchemaNode, canonical_text
from commons_events.avro._shapes import ANY, kind_of

__all__ = ["best_branch", "describe", "is_recursive", "least_bytes", "mismatch", "pairs", "same_schema", "scales"]

PROMOTIONS = {
    "int": ("long", "float", "double"),
    "long": ("float", "double"),
    "float": ("double",),
    "string": ("bytes",),
    "bytes": ("string",),
}
_FAMILIES = {
    "time-millis": "time", "time-micros": "time", "timestamp-millis": "timestamp", "timestamp-micros": "timestamp",
}  # fmt: skip


def same_schema(one: SchemaNode, other: SchemaNode) -> bool:
    """Whether both have the same Parsing Canonical Form."""
    return one is other or (one.kind == other.kind and canonical_text(one) == canonical_text(other))


def mismatch(writer: SchemaNode, reader: SchemaNode) -> bool:
    """Whether no value of the writer's type can be read as the reader's; neither is a union.

    It looks at the outside alone: what is in records, arrays and maps is resolved by itself.
    """
    if _family(writer) and _family(reader) and _family(writer) != _family(reader):
        return True  # a date is an int too, and yet no number of microseconds
    if kind_of(reader.shape) == "timedelta" and writer.scale != reader.scale:
        return True
    if writer.kind != reader.kind:
        # a decimal's bytes are a number, which a text's are not
        is_decimal = "decimal" in (writer.logical, reader.logical)
        return is_decimal or reader.kind not in PROMOTIONS.get(writer.kind, ())
    if reader.kind == "fixed" and writer.size != reader.size:
        return True
    return reader.kind in ("record", "enum", "fixed") and not _same_name(writer, reader)


def _family(node: SchemaNode) -> str | None:
    return _FAMILIES.get(node.logical or "", node.logical)


def _same_name(writer: SchemaNode, reader: SchemaNode) -> bool:
    """By the names without their namespaces, or by the reader's aliases."""
    return writer.short == reader.short or any(
        writer.name == alias or writer.short == alias.rpartition(".")[2] for alias in reader.aliases
    )


def best_branch(writer: SchemaNode, branches: Sequence[SchemaNode]) -> SchemaNode | None:
    """The branch of the reader's union for a type of the writer's: the same type, else the first that it becomes."""
    for branch in branches:
        if writer.kind == branch.kind and writer.name == branch.name and _readable(writer, branch, same=True):
            return branch
    return next((branch for branch in branches if _readable(writer, branch)), None)


def _readable(
    writer: SchemaNode, reader: SchemaNode, *, same: bool = False, asked: set[tuple[int, int]] | None = None
) -> bool:
    """Whether a type matches another one, so far as it takes to choose a branch."""
    asked = set() if asked is None else asked
    if (id(writer), id(reader)) in asked:
        return True  # of a recursive type, or found already: the first answer counts
    if writer.kind == "union":
        return any(_readable(branch, reader, same=same, asked=asked) for branch in writer.branches)
    if reader.kind == "union":
        return any(_readable(writer, branch, same=same, asked=asked) for branch in reader.branches)
    if mismatch(writer, reader) or (same and writer.kind != reader.kind):
        return False
    asked.add((id(writer), id(reader)))
    if reader.kind in ("array", "map"):
        return _readable(writer.item, reader.item, same=same, asked=asked)
    if reader.kind == "record" and not same:
        found, missing = pairs(writer, reader.fields)
        types = {item.name: item.type for item in writer.fields}
        return not any(item.required for item in missing) and all(
            _readable(types[name], item.type, asked=asked) for name, item in found.items()
        )
    return True


def pairs(writer: SchemaNode, fields: Sequence[SchemaField]) -> tuple[dict[str, SchemaField], list[SchemaField]]:
    """The reader's fields by the names that the writer has them under, and those that it does not have.

    A field is found by its name, else by the first alias that is no other field's name.
    """
    written = {item.name for item in writer.fields}
    found = {item.name: item for item in fields if item.name in written}
    missing = []
    for item in fields:
        if item.name not in written:
            alias = next((alias for alias in item.aliases if alias in written and alias not in found), None)
            if alias is None:
                missing.append(item)
            else:
                found[alias] = item
    return found, missing


def describe(node: SchemaNode) -> str:
    """A type in a few words, for a message."""
    if node.kind == "union":
        return f"a union of {', '.join(branch.name or branch.kind for branch in node.branches)}"
    logical = f"decimal of scale {node.scale}" if node.logical == "decimal" else node.logical
    return f"{node.kind} {node.name}" if node.name else f"{logical} ({node.kind})" if logical else node.kind


def _parts(node: SchemaNode) -> list[SchemaNode]:
    if node.kind == "record":
        return [item.type for item in node.fields]
    return [node.item] if node.kind in ("array", "map") else list(node.branches)


def is_recursive(node: SchemaNode) -> bool:
    """Whether values of a type may hold others of the same type."""
    seen: set[int] = set()
    pending = _parts(node)
    while pending:
        part = pending.pop()
        if part is node:
            return True
        if id(part) not in seen:
            seen.add(id(part))
            pending += _parts(part)
    return False


def scales(node: SchemaNode) -> tuple[int, ...]:
    """The scales of all decimals in a schema, but for those of ``Any`` values, which have one of their own."""
    found: list[int] = []
    seen = {ANY}
    pending = [node]
    while pending:
        part = pending.pop()
        if part.logical == "decimal":
            found.append(part.scale)
        if part.name not in seen:
            seen |= {part.name} if part.name else set()
            pending += _parts(part)
    return tuple(found)


_BYTES = {"null": 0, "float": 4, "double": 8}


def least_bytes(node: SchemaNode) -> int:
    """The least that a value of a type takes, or a few bytes less."""
    return _least(node, {})


def _least(node: SchemaNode, known: dict[int, int]) -> int:
    if node.kind == "fixed":
        return node.size
    if node.kind == "record":
        if id(node) not in known:
            known[id(node)] = 0  # inside itself
            known[id(node)] = min(sum(_least(item.type, known) for item in node.fields), 1 << 30)
        return known[id(node)]
    return _BYTES.get(node.kind, 1)
