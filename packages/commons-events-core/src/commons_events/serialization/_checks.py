"""Checking parsed JSON against a JSON Schema of draft 2020-12.

fastjsonschema compiles a schema into a Python function, and knows the drafts up to 7. So a schema is translated, and
what has no equal there is checked by the `jsonschema` library, which knows 2020-12 and takes fifty times as long.

| keyword of 2020-12 | checked by |
|---|---|
| ``type``, ``enum``, ``const``, ``required``, all limits of numbers, strings, arrays and objects, ``multipleOf`` | \
fastjsonschema |
| ``properties``, ``patternProperties``, ``additionalProperties``, ``propertyNames``, ``contains``, ``uniqueItems`` | \
fastjsonschema |
| ``allOf``, ``anyOf``, ``oneOf``, ``not``, ``if``/``then``/``else`` | fastjsonschema |
| ``prefixItems`` and ``items`` | fastjsonschema, as ``items`` and ``additionalItems`` |
| ``dependentRequired``, ``dependentSchemas`` | fastjsonschema, as ``dependencies`` |
| ``$defs`` and ``$ref`` into it, with what stands beside it | fastjsonschema, as an ``allOf`` |
| ``pattern`` | fastjsonschema, with pydantic's engine for regular expressions, which takes linear time |
| ``unevaluatedProperties``, ``unevaluatedItems``, ``minContains``, ``maxContains`` | jsonschema |
| ``$id``, ``$anchor``, ``$dynamicRef``, ``$dynamicAnchor``, any other ``$ref`` | jsonschema |
| ``format``, ``contentEncoding``, ``contentMediaType``, ``contentSchema`` | nobody: they are annotations in 2020-12. \
The event class reads dates, UUIDs and base64 itself |

One thing is asked that the standard does not ask: an integer is written without a fraction. To the standard 1.0 is an
integer; to an event, whose round trip is exact, it is a float.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NoReturn

import fastjsonschema
import jsonschema
from pydantic_core import SchemaError, SchemaValidator, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable

__all__ = ["Mismatch", "Unusable", "compile_check", "parse"]

Schema = dict[str, Any]


class Mismatch(Exception):  # noqa: N818  # it never reaches a user: the serializer says which class and bytes
    """Bytes or a value that do not fit; the text says where and why."""


class Unusable(Exception):  # noqa: N818  # as above
    """A schema that is none, or none that can be checked with."""


# --- parsing ---------------------------------------------------------------------------------------------------


class _Real(float):
    """A number that was written with a fraction or an exponent, and so is no integer, whatever its value."""

    __slots__ = ()

    def is_integer(self) -> bool:
        return False


def _real(text: str) -> _Real:
    value = _Real(text)
    if math.isinf(value):
        raise Mismatch(f"the number {text[:20]} is beyond the range of a float")
    return value


def _constant(name: str) -> NoReturn:
    raise Mismatch(f"{name} is no JSON (RFC 8259, section 6)")


def _members(pairs: list[tuple[str, Any]]) -> Schema:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Mismatch(f"an object has the member {twice[:40]!r} twice, and which one counts is not defined")
    return members


_decode = json.JSONDecoder(object_pairs_hook=_members, parse_float=_real, parse_constant=_constant).decode


def parse(data: bytes) -> Any:
    """The value in JSON bytes (RFC 8259).

    Raises:
        Mismatch: they are no JSON, nest too deeply, or hold what readers understand differently: NaN, a number beyond
            the range, an object with the same member twice.
    """
    try:
        return _decode(data.decode())
    except ValueError as error:
        raise Mismatch(f"not JSON: {error}") from error
    except RecursionError as error:
        raise Mismatch("not read: it nests too deeply") from error


# --- checking --------------------------------------------------------------------------------------------------


def compile_check(schema: Schema) -> Callable[[Any], None]:
    """What raises `Mismatch` where a value of `parse` does not fit ``schema``, which is an object's.

    Raises:
        Unusable: the schema is none, or refers to what is not in it.
    """
    try:
        jsonschema.Draft202012Validator.check_schema(_without_patterns(schema))
        for pattern in _patterns(schema):
            _Pattern(pattern)
        return _compile(schema)
    except jsonschema.SchemaError as error:
        raise Unusable(f"{error.json_path}: {error.message}") from error
    except (fastjsonschema.JsonSchemaDefinitionException, re.error) as error:
        raise Unusable(str(error)) from error


def _compile(schema: Schema) -> Callable[[Any], None]:
    definitions = schema.get("$defs", {})
    beyond = _beyond(definitions)
    properties = schema.get("properties", {})
    outside = {name: node for name, node in properties.items() if _needs_more(node, beyond)}
    if _needs_more({key: value for key, value in schema.items() if key not in ("properties", "$defs")}, beyond):
        return _slow(schema)
    usable = {name: node for name, node in definitions.items() if name not in beyond}
    fast = _fast({**schema, "$defs": usable, "properties": {**properties, **dict.fromkeys(outside, True)}})
    if not outside:
        return fast
    slow = _slow({**schema, "properties": outside})

    def check(value: Any) -> None:
        fast(value)
        slow(value)

    return check


def _fast(schema: Schema) -> Callable[[Any], None]:
    translated = {**_translate(schema), "$schema": "http://json-schema.org/draft-07/schema#"}
    validate = fastjsonschema.compile(translated, use_default=False, use_formats=False)
    patterns = validate.__globals__["REGEX_PATTERNS"]  # by their texts; Python's own engine may take for ever
    for pattern in patterns:
        patterns[pattern] = _Pattern(pattern)

    def check(value: Any) -> None:
        try:
            validate(value)
        except fastjsonschema.JsonSchemaValueException as error:
            name = error.name or ""
            path = name.removeprefix("data").lstrip(".")
            reason = error.message.removeprefix(name).lstrip()
            raise Mismatch(f"{path}: {reason}" if path else reason) from error
        except RecursionError as error:
            raise Mismatch("it nests too deeply") from error
        except ArithmeticError as error:  # a number so large that it can't be divided
            raise Mismatch(f"a number can't be checked: {error}") from error

    return check


def _slow(schema: Schema) -> Callable[[Any], None]:
    validator = _Exact({**schema, "$schema": "https://json-schema.org/draft/2020-12/schema"}, registry=Registry())

    def check(value: Any) -> None:
        try:
            error = next(validator.iter_errors(value), None)
        except RecursionError as caught:
            raise Mismatch("it nests too deeply") from caught
        except Unresolvable as caught:
            raise Unusable(f"{caught.ref} leads to nothing in the schema; other documents are not fetched") from caught
        except re.error as caught:  # the library has no other engine for unevaluatedProperties
            raise Unusable(f"{caught.pattern!r} is no regular expression to Python: {caught}") from caught
        if error is not None:
            path = ".".join(map(str, error.absolute_path))
            raise Mismatch(f"{path}: {error.message}" if path else error.message)

    return check


# --- translating -----------------------------------------------------------------------------------------------

_PLAIN = frozenset(
    {
        "type", "enum", "const", "required", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
        "multipleOf", "minLength", "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "minProperties",
        "maxProperties",
    }
)  # fmt: skip
_ONE = frozenset({"additionalProperties", "propertyNames", "contains", "not", "if", "then", "else", "items"})
_MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs"})
_BEYOND = frozenset(
    {
        "unevaluatedProperties", "unevaluatedItems", "minContains", "maxContains", "$id", "$anchor", "$dynamicRef",
        "$dynamicAnchor",
    }
)  # fmt: skip
_DEFINITIONS = "#/$defs/"


def _translate(node: Any) -> Any:
    """A schema of 2020-12 as one of draft 7 that asks for the same, in as few words as may be."""
    if not isinstance(node, dict):
        return node
    made: Schema = {key: value for key, value in node.items() if key in _PLAIN}
    for key in node.keys() & _ONE:
        made[key] = _translate(node[key])
    for key in node.keys() & _MANY:
        made[key] = [_translate(child) for child in node[key]]
    for key in node.keys() & _NAMED:
        made[key] = {name: _translate(child) for name, child in node[key].items()}
    if "prefixItems" in made:
        if "items" in made:
            made["additionalItems"] = made["items"]
        made["items"] = made.pop("prefixItems")
    dependencies = made.pop("dependentSchemas", {})
    for name, needed in node.get("dependentRequired", {}).items():
        beside = {"required": needed}
        dependencies[name] = {"allOf": [dependencies[name], beside]} if name in dependencies else beside
    if dependencies:
        made["dependencies"] = dependencies
    if "$ref" in node:
        reference = {"$ref": node["$ref"]}
        if not made:
            return reference
        made["allOf"] = [*made.get("allOf", []), reference]
    return _shorter(made)


def _shorter(node: Schema) -> Schema:
    """Without what asks for nothing, and without a trial for each member of ``str | None``."""
    for key in ("items", "additionalProperties"):
        if node.get(key) in (True, {}):
            del node[key]
    if "additionalProperties" not in node and "properties" in node:
        node["properties"] = {name: child for name, child in node["properties"].items() if child not in (True, {})}
    values = node.get("enum", [node["const"]] if "const" in node else None)
    if node.get("type") == "string" and values and all(isinstance(value, str) for value in values):
        del node["type"]
    union = node.get("anyOf", ())
    if union and "type" not in node and all(isinstance(m, dict) and m.keys() == {"type"} for m in union):
        types = [m["type"] if isinstance(m["type"], list) else [m["type"]] for m in union]
        node["type"] = sorted({name for several in types for name in several})
        del node["anyOf"]
    return node


def _beyond(definitions: Schema) -> set[str]:
    """The definitions that need more than draft 7, by themselves or by what they refer to."""
    beyond: set[str] = set()
    while True:
        found = {name for name, node in definitions.items() if _needs_more(node, beyond)}
        if found == beyond:
            return beyond
        beyond = found


def _needs_more(node: Any, beyond: set[str]) -> bool:
    if not isinstance(node, dict):
        return False
    if not node.keys().isdisjoint(_BEYOND):
        return True
    reference = node.get("$ref")
    if reference is not None:
        name = str(reference).removeprefix(_DEFINITIONS)
        if reference == name or name in beyond or not _NAME.fullmatch(name):
            return True
    if not all(map(_python_knows, _own_patterns(node))):
        return True
    return any(_needs_more(child, beyond) for child in _children(node))


_NAME = re.compile(r"[\w.-]+")
"""A name in ``$defs`` that stands for itself in a JSON pointer and in an address."""


def _children(node: Schema) -> Iterator[Any]:
    for key, value in node.items():
        if key in _ONE:
            yield value
        elif key in _MANY:
            yield from value
        elif key in _NAMED:
            yield from value.values()


def _own_patterns(node: Schema) -> list[str]:
    return [*node.get("patternProperties", ()), *([node["pattern"]] if "pattern" in node else [])]


def _patterns(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from _own_patterns(node)
        for child in _children(node):
            yield from _patterns(child)


# --- patterns and multiples ------------------------------------------------------------------------------------


class _Pattern:
    """A regular expression that is searched for in linear time, wherever Rust's engine knows its syntax."""

    __slots__ = ("search",)

    search: Callable[[str], object]

    def __init__(self, pattern: str) -> None:
        try:
            rust = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
        except SchemaError:  # look-around or a reference back
            self.search = re.compile(pattern).search
        else:
            self.search = rust.isinstance_python


def _python_knows(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _without_patterns(node: Any) -> Any:
    """A copy for the metaschema's check, whose ``format: regex`` means Python's expressions alone."""
    if isinstance(node, dict):
        return {
            key: _without_patterns(value)
            for key, value in node.items()
            if key not in ("pattern", "patternProperties") or not isinstance(value, str | dict)
        }
    return [_without_patterns(item) for item in node] if isinstance(node, list) else node


Errors = Iterator[jsonschema.ValidationError]


def _pattern(_: Any, pattern: str, value: Any, schema: Any) -> Errors:
    if isinstance(value, str) and not _Pattern(pattern).search(value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Schema, value: Any, schema: Any) -> Errors:
    for pattern, child in patterns.items() if isinstance(value, dict) else ():
        search = _Pattern(pattern).search
        for name, member in value.items():
            if search(name):
                yield from validator.descend(member, child, path=name, schema_path=pattern)


def _additional_properties(validator: Any, rest: Any, value: Any, schema: Any) -> Errors:
    searches = [_Pattern(pattern).search for pattern in schema.get("patternProperties", ())]
    for name, member in value.items() if isinstance(value, dict) else ():
        if name not in schema.get("properties", ()) and not any(search(name) for search in searches):
            yield from validator.descend(member, rest, path=name)


def _multiple_of(_: Any, divisor: Any, value: Any, schema: Any) -> Errors:
    """As decimals, since 0.3 is a multiple of 0.1, whatever floats say."""
    if isinstance(value, int | float) and not isinstance(value, bool) and Decimal(repr(value)) % Decimal(repr(divisor)):
        yield jsonschema.ValidationError(f"{value!r} is not a multiple of {divisor!r}")


_Exact = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "multipleOf": _multiple_of,
    },
)
