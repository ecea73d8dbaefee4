"""A JSON Schema's text to nodes: which keywords state what, in each draft."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NoReturn

from commons_events.compatibility._json_schema._document import Document, Draft, invalid
from commons_events.compatibility._json_schema._nodes import (
    Anything,
    Array,
    Boolean,
    Combined,
    Conditional,
    Constant,
    Criterion,
    Enumeration,
    Link,
    Node,
    Not,
    Nothing,
    Null,
    Number,
    Object,
    Reference,
    Text,
    as_text,
    canonical,
    shown,
)
from commons_events.compatibility._json_schema._patterns import searcher

__all__ = ["load"]

_NUMBER = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_TEXT = ("minLength", "maxLength", "pattern")
_ARRAY = ("items", "minItems", "maxItems", "uniqueItems")
_OBJECT = ("properties", "required", "minProperties", "maxProperties", "patternProperties", "additionalProperties")
_CRITERIA: tuple[Criterion, ...] = ("allOf", "anyOf", "oneOf")


def load(text: str, role: str) -> Link:
    """The root of a schema, with every schema below it loaded.

    Args:
        text: the schema.
        role: ``reader`` or ``writer``, for messages.

    Raises:
        InvalidSchemaError: it is no JSON Schema; the message says where and why.
    """
    return _Loader(Document(text, role)).load()


class _Loader:
    """Loads one document, level by level: however deep references lead, Python's stack doesn't."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._draft = draft = document.draft
        self._links: dict[tuple[str, str], Link] = {}
        self._waiting: list[tuple[Link, str]] = []
        modern = draft >= Draft.DRAFT_2019_09
        arrays = {
            Draft.DRAFT_4: ("additionalItems",),
            Draft.DRAFT_2019_09: ("additionalItems", "contains", "minContains", "maxContains", "unevaluatedItems"),
            Draft.DRAFT_2020_12: ("prefixItems", "contains", "minContains", "maxContains", "unevaluatedItems"),
        }.get(draft, ("additionalItems", "contains"))
        objects = ("dependentRequired", "dependentSchemas", "unevaluatedProperties") if modern else ("dependencies",)
        self._conditions = ("if",) if modern else ("if", "then", "else") if draft is Draft.DRAFT_7 else ()
        self._kinds: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any], str], Node]]] = {
            "array": ((*_ARRAY, *arrays), self._array),
            "object": ((*_OBJECT, *objects, *(("propertyNames",) if draft > Draft.DRAFT_4 else ())), self._object),
            "number": (_NUMBER, self._number),
            # up to draft 7, a format alone is a statement about strings; later it is an annotation
            "string": ((*_TEXT, *(() if modern else ("format",))), self._text),
        }

    def load(self) -> Link:
        root = self._link(self._document.root, "#")
        while self._waiting:
            link, path = self._waiting.pop()
            link.node = self._node(link.raw, path)
            link.default = link.node.default
        self._refuse_loops()
        return root

    def _refuse_loops(self) -> None:
        """Raise where references lead to nothing but references."""
        for link in self._links.values():
            way: dict[int, Link] = {}
            while isinstance(link.node, Reference):
                if id(link) in way:
                    invalid(self._document.role, "$ref", f"{shown(link.raw)} leads back to itself")
                way[id(link)] = link
                link = link.node.link
            for shortened in way.values():
                shortened.node = link.node

    def _link(self, raw: Any, path: str) -> Link:
        if not isinstance(raw, dict | bool):
            self._wrong(path, "a schema is an object or a boolean", raw)
        if isinstance(raw, bool):
            return Link(raw, Anything(raw=raw) if raw else Nothing(raw=raw), key=str(raw))
        # What says the same in the same place is one schema, so that it is compared once.
        key = self._document.base(raw), as_text(raw)
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = Link(raw, key=key[1])
            self._waiting.append((link, path))
        return link

    # --- one schema ------------------------------------------------------------------------------------------

    def _node(self, raw: dict[str, Any], path: str) -> Node:
        old = self._draft <= Draft.DRAFT_7
        # up to draft 7, no statement beside a reference counts
        parts = [self._reference(raw, "$ref", path)] if old and "$ref" in raw else list(self._parts(raw, path))
        if not parts:
            node: Node = Anything()
        elif len(parts) == 1:
            node = parts[0]
        else:
            node = Combined(criterion="allOf", members=[Link(None, part) for part in parts])
        for part in parts:
            part.raw = raw
        node.raw = raw
        if old:  # Confluent's reader of the later drafts doesn't pass it on
            node.id = self._words(raw, "id" if self._draft is Draft.DRAFT_4 else "$id", path)
        node.title = self._words(raw, "title", path)
        node.description = self._words(raw, "description", path)
        # to Confluent's reader of the later drafts, null is no default
        if "default" in raw and (old or raw["default"] is not None):
            node.default = canonical(raw["default"])
        return node

    def _parts(self, raw: dict[str, Any], path: str) -> Iterator[Node]:
        if "enum" in raw:
            yield Enumeration(values=frozenset(map(canonical, self._list(raw, "enum", path))))
        for criterion in _CRITERIA:
            if criterion in raw:
                yield self._combined(raw, criterion, path)
        if "not" in raw:
            yield Not(link=self._link(raw["not"], f"{path}/not"))
        if "const" in raw and self._draft > Draft.DRAFT_4:
            yield Constant(value=canonical(raw["const"]))
        stated: list[str] = []
        if "type" in raw:
            stated = [raw["type"]] if isinstance(raw["type"], str) else self._strings(raw, "type", path)
            nodes = [self._typed(name, raw, path) for name in stated]
            if isinstance(raw["type"], str):
                yield nodes[0]
            else:
                links = [Link(name, node, key=name) for name, node in zip(stated, nodes, strict=True)]
                yield Combined(criterion="anyOf", members=links)
                for node in nodes:
                    node.raw = raw
        covered = {"number" if name == "integer" else name for name in stated}
        for kind, (keywords, make) in self._kinds.items():
            if kind not in covered and any(k in raw and self._says_something(k, raw[k]) for k in keywords):
                yield make(raw, path)
        if self._conditions and not raw.keys().isdisjoint(self._conditions):
            for keyword in ("if", "then", "else"):
                if keyword in raw:
                    self._link(raw[keyword], f"{path}/{keyword}")
            yield Conditional()
        if self._draft > Draft.DRAFT_7:
            for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
                if keyword in raw:
                    yield self._reference(raw, keyword, path)

    def _says_something(self, keyword: str, value: object) -> bool:
        """To Confluent's reader of the later drafts, ``properties: {}`` says nothing, not even of objects."""
        return self._draft <= Draft.DRAFT_7 or value != {} or keyword not in ("properties", "patternProperties")

    def _reference(self, raw: dict[str, Any], keyword: str, path: str) -> Reference:
        reference = raw[keyword]
        if not isinstance(reference, str):
            self._wrong(f"{path}/{keyword}", "a reference is a string", reference)
        path = f"{path}/{keyword}"
        found = self._document.find(reference, raw, path)
        return Reference(raw=raw, link=self._link(found, reference if reference.startswith("#") else path))

    def _combined(self, raw: dict[str, Any], criterion: Criterion, path: str) -> Combined:
        members = self._list(raw, criterion, path)
        return Combined(
            criterion=criterion,
            members=[self._link(member, f"{path}/{criterion}/{i}") for i, member in enumerate(members)],
        )

    # --- one kind --------------------------------------------------------------------------------------------

    def _typed(self, name: str, raw: dict[str, Any], path: str) -> Node:
        if name == "boolean":
            return Boolean()
        if name == "null":
            return Null()
        if name in ("integer", "number"):
            number = self._number(raw, path)
            number.integer = name == "integer"
            return number
        if name not in self._kinds:
            self._wrong(f"{path}/type", "a type is array, boolean, integer, null, number, object or string", name)
        return self._kinds[name][1](raw, path)

    def _text(self, raw: dict[str, Any], path: str) -> Text:
        pattern = self._words(raw, "pattern", path)
        if pattern is not None:
            self._check_pattern(pattern, f"{path}/pattern")
        return Text(
            min_length=self._count(raw, "minLength", path),
            max_length=self._count(raw, "maxLength", path),
            pattern=pattern,
        )

    def _number(self, raw: dict[str, Any], path: str) -> Number:
        multiple = self._decimal(raw, "multipleOf", path)
        if multiple is not None and multiple <= 0:
            self._wrong(f"{path}/multipleOf", "multipleOf is more than 0", raw["multipleOf"])
        limit = self._flag if self._draft is Draft.DRAFT_4 else self._decimal
        return Number(
            minimum=self._decimal(raw, "minimum", path),
            maximum=self._decimal(raw, "maximum", path),
            exclusive_minimum=limit(raw, "exclusiveMinimum", path),
            exclusive_maximum=limit(raw, "exclusiveMaximum", path),
            multiple_of=multiple,
        )

    def _object(self, raw: dict[str, Any], path: str) -> Object:
        node = Object(
            properties=self._schemas(raw, "properties", path),
            required=frozenset(self._strings(raw, "required", path)),
            min_properties=self._count(raw, "minProperties", path),
            max_properties=self._count(raw, "maxProperties", path),
            patterns=self._schemas(raw, "patternProperties", path),
            additional=self._rest(raw, "additionalProperties", path),
        )
        for pattern in node.patterns:
            self._check_pattern(pattern, f"{path}/patternProperties")
        if "propertyNames" in raw and self._draft > Draft.DRAFT_4:
            self._link(raw["propertyNames"], f"{path}/propertyNames")
        if self._draft <= Draft.DRAFT_7:
            for name, needed in self._map(raw, "dependencies", path).items():
                if isinstance(needed, list):
                    node.dependent_required[name] = frozenset(self._strings({name: needed}, name, path))
                else:
                    node.dependent_schemas[name] = self._link(needed, f"{path}/dependencies/{name}")
        else:
            for name in (names := self._map(raw, "dependentRequired", path)):
                node.dependent_required[name] = frozenset(self._strings(names, name, f"{path}/dependentRequired"))
            node.dependent_schemas = self._schemas(raw, "dependentSchemas", path)
            if "unevaluatedProperties" in raw:
                node.unevaluated = self._link(raw["unevaluatedProperties"], f"{path}/unevaluatedProperties")
        return node

    def _array(self, raw: dict[str, Any], path: str) -> Array:
        node = Array(
            min_items=self._count(raw, "minItems", path),
            max_items=self._count(raw, "maxItems", path),
            unique=self._flag(raw, "uniqueItems", path) or False,
        )
        contains = "contains" in raw and self._draft > Draft.DRAFT_4
        if contains:
            self._link(raw["contains"], f"{path}/contains")
        if self._draft > Draft.DRAFT_7:
            if contains:  # Confluent's reader of the later drafts states the one that is meant
                node.min_contains = 1 if "minContains" not in raw else self._count(raw, "minContains", path)
                node.max_contains = self._count(raw, "maxContains", path)
            if "unevaluatedItems" in raw:
                node.unevaluated = self._link(raw["unevaluatedItems"], f"{path}/unevaluatedItems")
        if self._draft is Draft.DRAFT_2020_12:
            node.tuple = self._tuple(raw, "prefixItems", path)
            if node.tuple or isinstance(raw.get("items"), bool):
                node.additional = self._rest(raw, "items", path)
            elif "items" in raw:
                node.every = self._link(raw["items"], f"{path}/items")
        else:
            node.additional = self._rest(raw, "additionalItems", path)
            if isinstance(raw.get("items"), list):
                node.tuple = self._tuple(raw, "items", path)
            elif "items" in raw:
                node.every = self._link(raw["items"], f"{path}/items")
        return node

    # --- one keyword -----------------------------------------------------------------------------------------

    def _rest(self, raw: dict[str, Any], keyword: str, path: str) -> Link | bool:
        """What is allowed beside the named properties or the tuple: all, nothing, or what a schema says."""
        value = raw.get(keyword, True)
        return value if isinstance(value, bool) else self._link(value, f"{path}/{keyword}")

    def _schemas(self, raw: dict[str, Any], keyword: str, path: str) -> dict[str, Link]:
        return {n: self._link(s, f"{path}/{keyword}/{n}") for n, s in self._map(raw, keyword, path).items()}

    def _tuple(self, raw: dict[str, Any], keyword: str, path: str) -> list[Link]:
        if keyword not in raw:
            return []
        return [self._link(s, f"{path}/{keyword}/{i}") for i, s in enumerate(self._list(raw, keyword, path))]

    def _map(self, raw: dict[str, Any], keyword: str, path: str) -> dict[str, Any]:
        value = raw.get(keyword, {})
        if not isinstance(value, dict):
            self._wrong(f"{path}/{keyword}", "an object is needed", value)
        return value

    def _list(self, raw: dict[str, Any], keyword: str, path: str) -> list[Any]:
        value = raw[keyword]
        if not isinstance(value, list):
            self._wrong(f"{path}/{keyword}", "an array is needed", value)
        return value

    def _strings(self, raw: dict[str, Any], keyword: str, path: str) -> list[str]:
        values = self._list(raw, keyword, path) if keyword in raw else []
        for value in values:
            if not isinstance(value, str):
                self._wrong(f"{path}/{keyword}", "an array of strings is needed", value)
        return values

    def _words(self, raw: dict[str, Any], keyword: str, path: str) -> str | None:
        value = raw.get(keyword)
        if value is not None and not isinstance(value, str):
            self._wrong(f"{path}/{keyword}", "a string is needed", value)
        return value

    def _flag(self, raw: dict[str, Any], keyword: str, path: str) -> bool | None:
        value = raw.get(keyword)
        if value is not None and not isinstance(value, bool):
            self._wrong(f"{path}/{keyword}", "true or false is needed", value)
        return value

    def _decimal(self, raw: dict[str, Any], keyword: str, path: str) -> Decimal | None:
        value = raw.get(keyword)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            self._wrong(f"{path}/{keyword}", "a number is needed", value)
        return Decimal(value)

    def _count(self, raw: dict[str, Any], keyword: str, path: str) -> int | None:
        value = self._decimal(raw, keyword, path)
        if value is None:
            return None
        if value < 0 or value >= 2**63 or value != int(value):
            self._wrong(f"{path}/{keyword}", "a whole number from 0 is needed", raw[keyword])
        return int(value)

    def _check_pattern(self, pattern: str, path: str) -> None:
        try:
            searcher(pattern)
        except re.error as error:
            invalid(self._document.role, path, f"{pattern!r} is no regular expression: {error}")

    def _wrong(self, path: str, needed: str, value: object) -> NoReturn:
        invalid(self._document.role, path, f"{needed}, not {shown(value)}")
