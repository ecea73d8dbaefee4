"""A JSON Schema as text, read with care, and what its references name."""

from __future__ import annotations

import json
from decimal import Decimal
from enum import IntEnum
from typing import Any, Literal, NoReturn
from urllib.parse import unquote, urldefrag, urljoin

from commons_events.errors import InvalidSchemaError

__all__ = ["Document", "Draft", "invalid"]

_MAX_DEPTH = 256
"""Levels of nested arrays and objects; references may lead deeper."""


class Draft(IntEnum):
    """A version of JSON Schema; one without ``$schema`` is draft 7, as in Confluent's registry."""

    DRAFT_4 = 4
    DRAFT_6 = 6
    DRAFT_7 = 7
    DRAFT_2019_09 = 2019
    DRAFT_2020_12 = 2020


_DRAFTS = {
    "json-schema.org/schema": Draft.DRAFT_4,
    "json-schema.org/draft-04/schema": Draft.DRAFT_4,
    "json-schema.org/draft-06/schema": Draft.DRAFT_6,
    "json-schema.org/draft-07/schema": Draft.DRAFT_7,
    "json-schema.org/draft/2019-09/schema": Draft.DRAFT_2019_09,
    "json-schema.org/draft/2020-12/schema": Draft.DRAFT_2020_12,
}

_DATA = frozenset({"enum", "const", "default", "examples"})
"""Keywords whose values are data: an ``$id`` in them names nothing."""
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"})
"""Keywords whose values are schemas by name."""
_Role = Literal["schema", "map", "data"]


def invalid(role: str, path: str, problem: str) -> NoReturn:
    """Raise an `InvalidSchemaError` that says which schema, where and what."""
    raise InvalidSchemaError(f"The {role}'s schema is not a JSON Schema: {path}: {problem}.")


class Document:
    """A schema's text, parsed, with its identifiers.

    Args:
        text: the schema.
        role: ``reader`` or ``writer``, for messages.

    Raises:
        InvalidSchemaError: the text is no JSON, nests too deeply, or is neither an object nor a boolean.
    """

    def __init__(self, text: str, role: str) -> None:
        self.role = role
        try:
            self.root = json.loads(text, parse_float=Decimal, parse_constant=self._constant)
        except RecursionError as error:
            raise InvalidSchemaError(f"The {role}'s schema nests more than {_MAX_DEPTH} levels deep.") from error
        except ValueError as error:
            raise InvalidSchemaError(f"The {role}'s schema is not JSON: {error}.") from error
        if not isinstance(self.root, dict | bool):
            invalid(role, "#", f"an object or a boolean is needed, not {type(self.root).__name__}")
        self.draft = self._draft()
        self._base: dict[int, str] = {}
        self._named: dict[str, Any] = {"": self.root}
        self._index()

    def find(self, reference: str, where: Any, path: str) -> Any:
        """The schema that a ``$ref`` in the object ``where`` names (RFC 3986, section 5; RFC 6901).

        Raises:
            InvalidSchemaError: it names none in this document. Other documents are not fetched.
        """
        absolute = self._join(self.base(where), reference)
        if absolute.rstrip("#") in self._named:
            return self._named[absolute.rstrip("#")]
        url, fragment = urldefrag(absolute)
        # A pointer starts at the resource that it stands in; registries also take one that starts at the document.
        for root in (self._named.get(url), self.root if reference.startswith("#") else None):
            found = self._follow(root, unquote(fragment))
            if isinstance(found, dict | bool):
                return found
        invalid(
            self.role,
            path,
            f"the reference {reference!r} leads to no schema in this document (other documents are not fetched: "
            "put what it names under $defs)",
        )

    def base(self, schema: dict[str, Any]) -> str:
        """The address that references in a schema are relative to."""
        return self._base.get(id(schema), "")

    def _follow(self, root: Any, pointer: str) -> Any:
        if pointer and not pointer.startswith("/"):
            return None
        steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
        found = self._walk(root, steps)
        if found is None and steps[:1] in (["$defs"], ["definitions"]):  # each is found under the other's name, too
            found = self._walk(root, ["definitions" if steps[0] == "$defs" else "$defs", *steps[1:]])
        return found

    @staticmethod
    def _walk(value: Any, steps: list[str]) -> Any:
        for step in steps:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and step.isdecimal() and len(step) < 10 and int(step) < len(value):
                value = value[int(step)]
            else:
                return None
        return value

    def _constant(self, name: str) -> NoReturn:
        raise InvalidSchemaError(f"The {self.role}'s schema is not JSON: {name} is no number there (RFC 8259).")

    def _draft(self) -> Draft:
        url = self.root.get("$schema") if isinstance(self.root, dict) else None
        if url is None:
            return Draft.DRAFT_7
        if not isinstance(url, str):
            invalid(self.role, "#/$schema", "the draft's address is a string")
        return _DRAFTS.get(url.rstrip("#").removeprefix("https://").removeprefix("http://"), Draft.DRAFT_7)

    def _index(self) -> None:
        """Note the base address of every object, and what has a name."""
        keyword = "id" if self.draft is Draft.DRAFT_4 else "$id"
        if isinstance(self.root, bool):
            return
        waiting: list[tuple[Any, str, int, _Role]] = [(self.root, "", 1, "schema")]
        while waiting:
            value, base, depth, role = waiting.pop()
            if depth > _MAX_DEPTH:
                raise InvalidSchemaError(f"The {self.role}'s schema nests more than {_MAX_DEPTH} levels deep.")
            if isinstance(value, dict):
                if role == "schema":
                    base = self._base[id(value)] = self._name(value, keyword, base)
                children = [(child, _role(key, role)) for key, child in value.items()]
            else:
                children = [(child, role) for child in value]
            waiting += ((child, base, depth + 1, inner) for child, inner in children if isinstance(child, dict | list))

    def _name(self, value: dict[str, Any], keyword: str, base: str) -> str:
        name = value.get(keyword)
        if isinstance(name, str):
            absolute = self._join(base, name)
            self._named.setdefault(absolute.rstrip("#"), value)
            if not name.startswith("#"):  # up to draft 7, "#name" is an anchor
                base = absolute
        for anchor in ("$anchor", "$dynamicAnchor") if self.draft >= Draft.DRAFT_2019_09 else ():
            if isinstance(value.get(anchor), str):
                self._named.setdefault(f"{urldefrag(base).url}#{value[anchor]}", value)
        return base

    def _join(self, base: str, reference: str) -> str:
        if reference.startswith("#"):
            return f"{urldefrag(base).url}{reference}"
        try:
            return urljoin(base, reference)
        except ValueError:
            invalid(self.role, "#", f"{reference!r} is no address (RFC 3986)")


def _role(key: str, role: _Role) -> _Role:
    """What stands under a key of an object in this role."""
    if role != "schema":
        return "schema" if role == "map" else "data"
    return "map" if key in _MAPS else "data" if key in _DATA else "schema"
