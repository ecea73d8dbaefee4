"""What is inside ``Any`` when an event is written: containers may have been changed since the event was made.

Pydantic writes whatever it finds there: a tuple as a list, the key ``1`` as ``"1"``. Such an event would not equal its
own round trip, so it is refused, as it is when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from pydantic_core import core_schema

from commons_events.event._values import MAX_DEPTH, exact_value

__all__ = ["contents_check", "holds_itself"]

Node = dict[str, Any]
Check = Callable[[Any, str], None]
"""Of a value, and the path to it. Raises a PydanticCustomError."""

_SCALARS = frozenset({str, int, float, bool, type(None)})
_all_scalars = _SCALARS.issuperset


def contents_check(schema: core_schema.CoreSchema, event_class: type) -> Callable[[dict[str, Any]], None]:
    """What looks through the ``Any`` values of an event, which are given as a dict of its fields.

    Fields with validators or serializers of the user's are left out: what these hold in Python is the user's affair.

    Args:
        schema: of the class, as pydantic made it.
        event_class: the class.
    """
    fields = _Builder(cast(Node, schema)).fields_of(event_class)
    maps = tuple(name for name, check in fields if check is _check_map)
    others = tuple((name, check) for name, check in fields if check is not _check_map)

    def check_maps(values: dict[str, Any]) -> None:
        for name in maps:
            found = values[name]
            if found:
                if None in found:  # other keys that are no text pydantic complains of
                    _check_keys(found, name)
                for value in found.values():
                    if type(value) is not str and type(value) not in _SCALARS:
                        _check_map(found, name)
                        break

    def check_all(values: dict[str, Any]) -> None:
        check_maps(values)
        for name, check in others:
            check(values[name], name)

    return check_all if others else check_maps


def _check_any(value: Any, path: str, depth: int = 0) -> None:
    kind = type(value)
    if kind is dict:
        _check_map(value, path, depth)
    elif kind is list:
        if not _all_scalars(map(type, value)):
            _below(((f"{path}[{index}]", item) for index, item in enumerate(value)), depth)
    elif kind not in _SCALARS:
        exact_value(value, path)


def _check_map(values: dict[Any, Any], path: str, depth: int = 0) -> None:
    _check_keys(values, path)
    if not _all_scalars(map(type, values.values())):
        _below(((f"{path}.{key}", value) for key, value in values.items()), depth)


def _below(items: Iterable[tuple[str, Any]], depth: int) -> None:
    for path, value in items:
        if depth >= MAX_DEPTH:
            exact_value([], path, depth)  # raises
        _check_any(value, path, depth + 1)


def _check_keys(values: Iterable[Any], path: str) -> None:
    for key in values:
        if type(key) is not str:
            exact_value({key: None}, path)


def _keyed(check: Check | None) -> Check:
    """Of a dict whose keys may be anything as far as pydantic knows."""

    def each(value: dict[Any, Any], path: str) -> None:
        _check_keys(value, path)
        if check is not None:
            for key, item in value.items():
                check(item, f"{path}.{key}")

    return each


class _Builder:
    def __init__(self, schema: Node) -> None:
        self._definitions: dict[str, Node] = {}
        if schema["type"] == "definitions":
            self._definitions = {definition["ref"]: definition for definition in schema["definitions"]}
            schema = schema["schema"]
        self._root = self._resolved(schema)
        self._checks: dict[str, Check | None] = {}

    def fields_of(self, event_class: type) -> list[tuple[str, Check]]:
        """The fields of the event itself that have something to check."""
        node = self._root
        while node["type"] != "model-fields":
            node = self._resolved(node["schema"])
        checks = ((name, self._check(field["schema"])) for name, field in node["fields"].items())
        return [(name, check) for name, check in checks if check is not None]

    def _resolved(self, node: Node) -> Node:
        return self._definitions[node["schema_ref"]] if node["type"] == "definition-ref" else node

    def _check(self, node: Node) -> Check | None:
        if node["type"] == "definition-ref":
            return self._referred(node["schema_ref"])
        build = None if "serialization" in node else _BUILDERS.get(node["type"])
        return None if build is None else build(self, node)

    def _referred(self, ref: str) -> Check | None:
        if ref not in self._checks:
            self._checks[ref] = lambda value, path: (check := self._checks[ref]) and check(value, path)
            self._checks[ref] = self._check(self._definitions[ref]) if self._has_any(ref, set()) else None
        return self._checks[ref]

    def _has_any(self, ref: str, seen: set[str]) -> bool:
        """Whether there is something to check at all in a type that may lie in itself."""
        waiting: list[Any] = [self._definitions[ref]]
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict):
                if node.get("type") == "any":
                    return True
                if node.get("type") == "definition-ref" and node["schema_ref"] not in seen:
                    seen.add(node["schema_ref"])
                    waiting.append(self._definitions[node["schema_ref"]])
                waiting += [child for key, child in node.items() if key not in ("metadata", "default", "serialization")]
            elif isinstance(node, list | tuple):
                waiting += node
        return False

    # --- types -----------------------------------------------------------------------------------------------

    def _inside(self, node: Node) -> Check | None:
        return self._check(node["schema"])

    def _nullable(self, node: Node) -> Check | None:
        check = self._check(node["schema"])
        return None if check is None else lambda value, path: None if value is None else check(value, path)

    def _map(self, node: Node) -> Check | None:
        keys, values = node.get("keys_schema"), node.get("values_schema") or {"type": "any"}
        if values["type"] == "any" and keys is not None and keys["type"] == "str":
            return _check_map
        check = _check_any if values["type"] == "any" else self._check(values)
        if keys is None or keys["type"] == "any":
            return _keyed(check)
        if check is None:
            return None

        def each(value: dict[Any, Any], path: str) -> None:
            for key, item in value.items():
                check(item, f"{path}.{key}")

        return each

    def _items(self, node: Node) -> Check | None:
        items = node.get("items_schema") or {"type": "any"}
        check = _check_any if items["type"] == "any" else self._check(items)
        if check is None:
            return None

        def each(value: Iterable[Any], path: str) -> None:
            for index, item in enumerate(value):
                check(item, f"{path}[{index}]")

        return each

    def _tuple(self, node: Node) -> Check | None:
        checks = [self._check(item) for item in node["items_schema"]]
        if "variadic_item_index" in node:
            return self._items({"items_schema": node["items_schema"][0]}) if len(checks) == 1 else None
        if not any(checks):
            return None

        def each(value: tuple[Any, ...], path: str) -> None:
            for index, (check, item) in enumerate(zip(checks, value, strict=False)):
                if check is not None:
                    check(item, f"{path}[{index}]")

        return each

    def _model(self, node: Node) -> Check | None:
        inner = node["schema"]
        if inner["type"] != "model-fields" or node.get("root_model"):
            return None  # a validator of the whole model may make anything of it
        checks = ((name, self._check(field["schema"])) for name, field in inner["fields"].items())
        held = [(name, check) for name, check in checks if check is not None]
        if not held:
            return None

        def each(value: Any, path: str) -> None:
            fields = vars(value)
            for name, check in held:
                check(fields[name], f"{path}.{name}")

        return each

    def _union(self, node: Node) -> Check | None:
        """A member is known by its Python type, where no other member has that."""
        choices = node["choices"]
        choices = [*choices.values()] if isinstance(choices, dict) else choices
        checks: dict[type, Check | None] = {}
        for choice in choices:
            member = self._resolved(choice[0] if isinstance(choice, tuple) else choice)
            type_ = member.get("cls") or _TYPES.get(member["type"])
            if type_ is not None:
                checks[type_] = None if type_ in checks else self._check(member)
        if not any(checks.values()):
            return None

        def one(value: Any, path: str) -> None:
            check = checks.get(type(value))
            if check is not None:
                check(value, path)

        return one


_TYPES: dict[str, type] = {
    "dict": dict,
    "frozenset": frozenset,
    "list": list,
    "set": set,
    "tuple": tuple,
    "typed-dict": dict,
}
_BUILDERS: dict[str, Callable[[_Builder, Node], Check | None]] = {
    "any": lambda builder, node: _check_any,
    "default": _Builder._inside,
    "dict": _Builder._map,
    "frozenset": _Builder._items,
    "list": _Builder._items,
    "model": _Builder._model,
    "nullable": _Builder._nullable,
    "set": _Builder._items,
    "tagged-union": _Builder._union,
    "tuple": _Builder._tuple,
    "union": _Builder._union,
}


def holds_itself(schema: core_schema.CoreSchema) -> bool:
    """Whether some type in a class's schema lies in itself, so that its values may be of any depth."""
    node = cast(Node, schema)
    if node["type"] != "definitions":
        return False
    below = {definition["ref"]: _refs(definition) for definition in node["definitions"]}
    for ref, found in below.items():
        reached = waiting = set(found)
        while waiting:
            waiting = {far for near in waiting for far in below.get(near, ())} - reached
            reached = reached | waiting
        if ref in reached:
            return True
    return False


def _refs(node: Any) -> set[str]:
    """The definitions that a schema refers to."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if part.get("type") == "definition-ref":
                found.add(part["schema_ref"])
            waiting += [child for key, child in part.items() if key not in ("metadata", "default", "serialization")]
        elif isinstance(part, list | tuple):
            waiting += part
    return found
