"""What makes an event equal to its own round trip: pydantic's core schema, made exact.

Pydantic builds the core schema of an event class; `exact_schema` returns a copy of it in which

- ``Any`` takes just what every format can hold exactly,
- a naive datetime becomes aware, in UTC,
- bytes are base64 (RFC 4648, section 4) in JSON,
- the envelope's ``event_type`` and ``version`` have the class's values and no other,
- a secret is masked everywhere but in the event's bytes,
- a default is a value of its field's type, as its validators make it,
- an event that was made, by whatever way, is sealed.

Members of a union that JSON cannot tell apart are refused here, and what would not come back from bytes.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from enum import Enum
from itertools import combinations
from typing import Any, NoReturn, cast

from pydantic_core import core_schema

from commons_events.errors import EventDefinitionError
from commons_events.event._alike import alike, word
from commons_events.event._defaults import has_function, sound_default
from commons_events.event._readable import unreadable
from commons_events.event._secrets import is_secret, unmasked
from commons_events.event._values import (
    aware,
    decode_base64,
    encode_base64,
    exact_items,
    exact_keys_and_values,
    exact_sequence,
    exact_value,
    exact_values,
    whole_minutes,
)

__all__ = ["INEXACT", "exact_part", "exact_schema", "unsealed"]

Schema = dict[str, Any]
_MARK = "commons_events"
_SKIPPED = frozenset(
    {"metadata", "config", "default", "default_factory", "serialization", "cls", "function", "expected"}
)
_EXACT_ALREADY = frozenset({"bool", "date", "decimal", "int", "none", "str", "timedelta", "uuid"})
_PLAIN_KEYS = frozenset(
    {"type", "ge", "gt", "le", "lt", "max_length", "min_length", "pattern", "microseconds_precision", "max_digits",
     "decimal_places"}
)  # fmt: skip
_CONTAINERS = (dict, list, tuple)
"""What can have a schema below it."""


def exact_schema(
    schema: core_schema.CoreSchema,
    event_class: type,
    *,
    event_type: str,
    version: str,
    seal: Callable[[Any], Any],
    trusted_factories: frozenset[object],
) -> core_schema.CoreSchema:
    """A copy of an event class's core schema that keeps the promises of this module.

    Args:
        schema: as pydantic made it, complete.
        event_class: the class it belongs to.
        event_type: the class's event type.
        version: the class's version.
        seal: called with every event of this class that validation has made.
        trusted_factories: default factories whose values need no validation.

    Raises:
        EventDefinitionError: a field's type cannot hold exactly.
    """
    rewriter = _Rewriter(event_class, event_type, version, seal, trusted_factories)
    return cast(core_schema.CoreSchema, rewriter.rewrite(cast(Schema, schema), ""))


def exact_part(schema: core_schema.CoreSchema, event_class: type) -> core_schema.CoreSchema:
    """As `exact_schema`, for a part of an event class that is none of its own instances."""
    rewriter = _Rewriter(event_class, "", "", lambda event: event, frozenset())
    return cast(core_schema.CoreSchema, rewriter.rewrite(cast(Schema, schema), ""))


def unsealed(schema: core_schema.CoreSchema) -> core_schema.CoreSchema:
    """An exact schema whose outermost event is left for the caller to finish; those inside it are sealed."""
    node = cast(Schema, schema)
    if node["type"] != "definitions":
        return cast(core_schema.CoreSchema, node["schema"])
    root = node["schema"]
    if root["type"] == "definition-ref":
        root = next(d for d in node["definitions"] if d["ref"] == root["schema_ref"])
    return cast(core_schema.CoreSchema, {**node, "schema": root["schema"]})


def shared_fields(schema: core_schema.CoreSchema) -> list[Schema]:
    """Of an exact schema, the fields of the envelope that it shares with other classes: the same objects."""
    node = cast(Schema, schema)
    model = _model(node)
    if model is None:
        return []
    fields = _fields(model)
    known = (_ENVELOPE_FIELDS.get(name) for name in _ENVELOPE_NAMES)
    shared = {id(exact): exact for _, exact in filter(None, known)}
    return [field for field in fields.values() if id(field) in shared]


class _Rewriter:
    def __init__(
        self,
        event_class: type,
        event_type: str,
        version: str,
        seal: Callable[[Any], Any],
        trusted_factories: frozenset[object],
    ) -> None:
        self._class = event_class
        self._envelope = {"event_type": event_type, "version": version}
        self._seal = seal
        self._trusted = trusted_factories
        self._config: Schema = {}
        """Of the model that is being rewritten."""
        self._converted = 0
        """How many validators around this node may make what JSON has into something else."""
        self._not_json = 0
        """How many schemas around this node JSON is not read by, or only by a type of pydantic's own."""
        self._definitions: dict[str, Schema] = {}

    def rewrite(self, node: Schema, path: str) -> Schema:
        if node["type"] == "definitions":
            self._definitions = {definition["ref"]: definition for definition in node["definitions"]}
        if node["type"] in _FIELDS:
            return self.field(node, path)
        if node["type"] in _EXACT_ALREADY and node.keys() <= _PLAIN_KEYS:
            return node
        mark = (node.get("metadata") or {}).get(_MARK)
        if mark == "event" and _model(node)["cls"] is not self._class:
            return _strict_where_made(node)
        if mark is not None:
            return node
        model = _model(node)
        if model is not None and model["cls"] is self._class:
            return self._event(node, model)
        members = _as_enum(node)
        problem = (
            None if "serialization" in node and node["type"] not in _CHECKED_ANYHOW else unreadable(members or node)
        )
        if problem is not None:
            self._refuse(path, *problem)
        if members is not None:
            return _either(members, node)
        if is_secret(node):
            node = {**node, "serialization": unmasked()}
        handler = _REWRITES.get(node["type"])
        if handler is not None:
            return handler(self, node, path)
        return self.children(node, path)

    def _refuse(self, path: str, problem: str, advice: str) -> NoReturn:
        field = f"field {path!r}" if path else "a field"  # of a type that stands in the class more than once
        raise EventDefinitionError(f"{self._class.__qualname__}: {field} {problem}. {advice}.")

    def children(self, node: Schema, path: str) -> Schema:
        """The node with every schema below it rewritten: a copy, unless that leaves it as it is."""
        copy = node
        for key, value in node.items():
            if isinstance(value, _CONTAINERS) and key not in _SKIPPED:
                below = self._below(value, path)
                if below is not value:
                    copy = node.copy() if copy is node else copy
                    copy[key] = below
        return copy

    def _below(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            if isinstance(value.get("type"), str):
                return self.rewrite(value, path)
            return {key: self._below(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._below(item, path) for item in value]
        if isinstance(value, tuple):  # a union's choice with its label
            return tuple(self._below(item, path) for item in value)
        return value

    def _event(self, node: Schema, model: Schema) -> Schema:
        outer, self._config = self._config, model.get("config") or {}
        sealed = {**self.children(node, "")}
        self._config = outer
        fields = _fields(_model(sealed))
        envelope = {
            name: core_schema.model_field(
                core_schema.with_default_schema(core_schema.literal_schema([value]), default=value)
            )
            for name, value in self._envelope.items()
        }
        rest = {name: field for name, field in fields.items() if name not in envelope}
        fields.clear()
        fields.update(envelope | rest)
        ref = sealed.pop("ref", None)
        return cast(
            Schema,
            core_schema.no_info_after_validator_function(
                self._seal, cast(core_schema.CoreSchema, sealed), ref=ref, metadata={_MARK: "event"}
            ),
        )

    def any(self, node: Schema, path: str) -> Schema:
        return _either(node, _plain(exact_value))

    def dict(self, node: Schema, path: str) -> Schema:
        if not _is_any(node.get("values_schema")):
            keys = node.get("keys_schema")
            if _is_any(keys):
                node = {**node, "keys_schema": {"type": "str", "strict": True}}
            elif keys is not None and keys["type"] == "float":  # JSON would have it as a text, and not read it
                node = {**node, "keys_schema": {**keys, "allow_inf_nan": False}}
            return self.children(node, path)
        if _is_any(node.get("keys_schema")):
            return _either(node, _after(exact_keys_and_values, node))
        inner = {**node, "keys_schema": self.rewrite(node["keys_schema"], path)}
        return _either(inner, _after(exact_values, inner))

    def list(self, node: Schema, path: str) -> Schema:
        if not _is_any(node.get("items_schema")):
            return self.children(node, path)
        return _either(node, _after(exact_items, node))

    def json_or_python(self, node: Schema, path: str) -> Schema:
        """``Sequence``, which is a list when it is read, so it is one when it is made.

        Of ``Sequence[Any]`` pydantic looks at nothing but the outside.
        """
        exact = {**node, "json_schema": self.rewrite(node["json_schema"], path)}
        with self._in_python():
            self._not_json += 1
            exact["python_schema"] = self.rewrite(node["python_schema"], path)
            self._not_json -= 1
        python = node["python_schema"]
        if node["json_schema"]["type"] != "list":
            return exact
        if python["type"] == "is-instance":
            exact["python_schema"] = _after(exact_sequence, python)
        elif python["type"] == "chain" and python["steps"][0].get("cls") in (Sequence, typing.Sequence):
            exact["python_schema"] = _after(list, exact["python_schema"])
        return exact

    def datetime(self, node: Schema, path: str) -> Schema:
        return _AWARE if node == _DATETIME else _after(aware, node)

    def float(self, node: Schema, path: str) -> Schema:
        """A program may hold NaN; JSON has none, not even by a number beyond the range."""
        return _FINITE if node == _FLOAT else _finite(node)

    def time(self, node: Schema, path: str) -> Schema:
        return _after(whole_minutes, node)

    def bytes(self, node: Schema, path: str) -> Schema:
        text = core_schema.no_info_wrap_validator_function(decode_base64, core_schema.str_schema())
        plain = {key: value for key, value in node.items() if key != "ref"}
        return {
            **core_schema.json_or_python_schema(
                core_schema.chain_schema([text, cast(core_schema.CoreSchema, plain)]),
                cast(core_schema.CoreSchema, plain),
                serialization=core_schema.plain_serializer_function_ser_schema(
                    encode_base64, return_schema=core_schema.str_schema(), when_used="json"
                ),
                metadata={_MARK: True, "pydantic_js_updates": {"type": "string", "contentEncoding": "base64"}},
            )
        }

    def model(self, node: Schema, path: str) -> Schema:
        """A model inside an event, which is as exact: NaN must not become null, and instances are looked through."""
        from commons_events.event._event import Event

        cls = node["cls"]
        if cls is Event and not cast(type[Event], self._class).__pydantic_generic_metadata__["parameters"]:
            self._refuse(
                path,
                "is any Event, whose own fields neither a schema nor bytes could have",
                "Name the class; or a union of classes, with Field(discriminator='event_type')",
            )
        exact = {**self._with_config(node, path)}
        config = {key: value for key, value in (node.get("config") or {}).items() if key not in INEXACT}
        exact["config"] = {**config, "ser_json_inf_nan": "constants"}
        exact["revalidate_instances"] = "always"
        exact = _by_name_too(exact)
        # Event itself bounds a type variable here; another event's class was not complete yet when it was named
        return _of_just(exact, cls) if issubclass(cls, Event) else exact

    def reference(self, node: Schema, path: str) -> Schema:
        """The class itself, where it is inside itself."""
        model = _model(self._definitions.get(node["schema_ref"]))
        return _of_just(node, self._class) if path and model is not None and model["cls"] is self._class else node

    def dataclass(self, node: Schema, path: str) -> Schema:
        return _by_name_too({**self._with_config(node, path), "revalidate_instances": "always"})

    def _with_config(self, node: Schema, path: str) -> Schema:
        outer, self._config = self._config, node.get("config") or {}
        exact = self.children(node, path)
        self._config = outer
        return exact

    def field(self, node: Schema, path: str) -> Schema:
        if node.get("serialization_exclude") or "serialization_exclude_if" in node:
            self._refuse(
                f"{path}.{node['name']}" if "name" in node else path,
                "is excluded from the bytes, so that an event would not equal its own round trip",
                "Make it a private attribute (pydantic's PrivateAttr), or leave exclude out",
            )
        inner = node["schema"]
        if inner["type"] in _EXACT_ALREADY and inner.keys() <= _PLAIN_KEYS:
            return node
        if path not in _ENVELOPE_NAMES or self._converted or inner.get("default") is not None:
            return self.children(node, path)
        known = _ENVELOPE_FIELDS.get(path)
        if known is None or (known[0] is not node and known[0] != node):
            known = node, self.children(node, path)
            _ENVELOPE_FIELDS.setdefault(path, known)
        return known[1]

    def converter(self, node: Schema, path: str) -> Schema:
        """A validator that may make what JSON has into what the type below it takes."""
        with self._in_python():
            return self.children(node, path)

    @contextmanager
    def _in_python(self) -> Generator[None]:
        self._converted += 1
        yield
        self._converted -= 1

    def instance(self, node: Schema, path: str) -> Schema:
        if not self._converted:
            self._refuse(
                path,
                f"is any {word(node)}, which cannot be read from bytes",
                "Use a type that pydantic knows, or give it a validator and a serializer (BeforeValidator and "
                "PlainSerializer)",
            )
        return self.children(node, path)

    def default(self, node: Schema, path: str) -> Schema:
        """Values that come from a default are as exact as others: they are validated where that could change them."""
        exact = {**self.children(node, path)}
        changed = exact["schema"] != node["schema"] or node["schema"]["type"] == "definition-ref"
        if has_function(node["schema"]):
            exact["validate_default"] = True
        elif "default" not in node:
            if node.get("default_factory") not in self._trusted:
                exact["validate_default"] = True
        else:
            try:
                exact["default"] = sound_default(node, lambda: exact["schema"], self._config)
            except ValueError as error:
                self._refuse(
                    path,
                    f"has the default {node['default']!r}, which is none of its values: {error}",
                    "Give it another default" + (", or let its type be … | None" if node["default"] is None else ""),
                )
            if changed and node["default"] not in ({}, [], None):
                exact["validate_default"] = True
        return exact

    def lax_or_strict(self, node: Schema, path: str) -> Schema:
        """A type of pydantic's own, such as a path: what its union tells apart is the same value."""
        self._not_json += 1
        exact = self.children(node, path)
        self._not_json -= 1
        return exact

    def union(self, node: Schema, path: str) -> Schema:
        if not self._not_json and not (node.get("metadata") or {}).get("pydantic_internal_union_discriminator"):
            choices = [choice[0] if isinstance(choice, tuple) else choice for choice in node["choices"]]
            for one, other in combinations(choices, 2):
                if alike(one, other, self._definitions):
                    info = getattr(self._class, "__pydantic_fields__", {}).get(path)
                    self._refuse(
                        path,
                        f"{f'({info.annotation}) ' if info else ''}is a union of {word(one, self._definitions)} and "
                        f"{word(other, self._definitions)}, which look alike in JSON, so that reading would have to "
                        "guess",
                        "Give the union a discriminator (pydantic's Field(discriminator=…)), or use one of the types",
                    )
        exact = self.children(node, path)
        by_function = list(map(_is_written_by_function, exact["choices"]))
        if node.get("mode") == "left_to_right" or by_function == sorted(by_function):
            return exact
        # pydantic writes a value by the first member that does not refuse it, which a function may never do
        return {**exact, "choices": sorted(exact["choices"], key=_is_written_by_function)}


_REWRITES: dict[str, Callable[[_Rewriter, Schema, str], Schema]] = {
    "any": _Rewriter.any,
    "dict": _Rewriter.dict,
    "list": _Rewriter.list,
    "json-or-python": _Rewriter.json_or_python,
    "datetime": _Rewriter.datetime,
    "time": _Rewriter.time,
    "float": _Rewriter.float,
    "bytes": _Rewriter.bytes,
    "model": _Rewriter.model,
    "dataclass": _Rewriter.dataclass,
    "default": _Rewriter.default,
    "union": _Rewriter.union,
    "function-before": _Rewriter.converter,
    "function-wrap": _Rewriter.converter,
    "chain": _Rewriter.converter,
    "is-instance": _Rewriter.instance,
    "lax-or-strict": _Rewriter.lax_or_strict,
    "definition-ref": _Rewriter.reference,
}
_FIELDS = frozenset({"model-field", "dataclass-field"})
_ENVELOPE_NAMES = frozenset({"event_id", "source", "timestamp", "correlation_id", "causation_id", "metadata"})
_ENVELOPE_FIELDS: dict[str, tuple[Schema, Schema]] = {}
"""By their names: fields that nearly all events have alike, as pydantic made them, and made exact."""
_CHECKED_ANYHOW = frozenset({"enum", "function-after"})
"""Types whose serializer is pydantic's own."""
INEXACT = frozenset({"ser_json_temporal", "ser_json_timedelta"})
"""Settings by which times are written as numbers, which lose digits."""


def _is_written_by_function(choice: Any) -> bool:
    node = choice[0] if isinstance(choice, tuple) else choice
    return (node.get("serialization") or {}).get("type") == "function-plain"


def _model(node: Schema | None) -> Any:
    """The model that a node validates, below validators around it; None where it is something else."""
    while node is not None and node["type"] in ("function-after", "function-before", "function-wrap"):
        node = node.get("schema")
    return node if node is not None and node["type"] == "model" else None


def _fields(model: Schema) -> dict[str, Any]:
    node = model["schema"]
    while node["type"] != "model-fields":
        node = node["schema"]
    return cast(dict[str, Any], node["fields"])


def _strict_where_made(node: Schema) -> Schema:
    """An event inside another one: unknown fields are refused where a program gives them, not where bytes do.

    So is an instance of a subclass, whose bytes would be those of an event that the field does not take.
    """
    lenient = {key: value for key, value in node.items() if key != "ref"}
    return cast(
        Schema,
        core_schema.json_or_python_schema(
            cast(core_schema.CoreSchema, lenient),
            cast(core_schema.CoreSchema, _of_just(_forbid_extra(lenient), _model(node)["cls"])),
            ref=node.get("ref"),
            metadata={_MARK: True},
        ),
    )


def _of_just(node: Schema, cls: type) -> Schema:
    """An event, but for instances of subclasses of the class that is declared."""

    def exact_class(value: Any) -> Any:
        if type(value) is not cls and isinstance(value, cls):
            raise ValueError(
                f"this is a {type(value).__qualname__}, which the field's type {cls.__qualname__} does not hold whole: "
                "declare that class, or a union of the classes, with Field(discriminator='event_type')"
            )
        return value

    inner = cast(core_schema.CoreSchema, {key: value for key, value in node.items() if key != "ref"})
    return cast(Schema, core_schema.no_info_before_validator_function(exact_class, inner, ref=node.get("ref")))


def _as_enum(node: Schema) -> Schema | None:
    """A literal of members of one enum, which pydantic writes by their values and reads by nothing, as an enum."""
    if node["type"] != "literal":
        return None
    cls, *others = {type(value) for value in node["expected"]}
    if others or not issubclass(cls, Enum) or issubclass(cls, str | int):
        return None
    return cast(Schema, core_schema.enum_schema(cls, node["expected"]))


def _by_name_too(node: Schema) -> Schema:
    """A class with aliases: its instances are looked through, and written, by the fields' own names."""
    config = node.get("config") or {}
    if config.get("validate_by_name") or config.get("populate_by_name") or not _has_alias(node["schema"]):
        return node
    return {**node, "config": {**config, "validate_by_name": True}}


def _has_alias(node: Schema) -> bool:
    while node["type"] not in ("model-fields", "dataclass-args"):
        if "schema" not in node:
            return False
        node = node["schema"]
    fields = node["fields"]
    return any("validation_alias" in field for field in (fields.values() if isinstance(fields, dict) else fields))


def _forbid_extra(node: Schema) -> Schema:
    if node["type"] == "model-fields":
        return {**node, "extra_behavior": "forbid"}
    copy = {**node, "schema": _forbid_extra(node["schema"])}
    copy.pop("ref", None)
    return copy


def _is_any(node: Schema | None) -> bool:
    return node is None or node["type"] == "any"


def _plain(function: Callable[[Any], Any]) -> Schema:
    return cast(Schema, core_schema.no_info_plain_validator_function(function))


def _after(function: Callable[[Any], Any], node: Schema) -> Schema:
    inner = {key: value for key, value in node.items() if key != "ref"}
    return cast(
        Schema,
        core_schema.no_info_after_validator_function(
            function, cast(core_schema.CoreSchema, inner), ref=node.get("ref"), metadata={_MARK: True}
        ),
    )


def _either(json: Schema, python: Schema) -> Schema:
    """Bytes need no check that a program's values need: JSON holds nothing but what is exact already."""
    inner = {key: value for key, value in json.items() if key != "ref"}
    return cast(
        Schema,
        core_schema.json_or_python_schema(
            cast(core_schema.CoreSchema, inner),
            cast(core_schema.CoreSchema, {k: v for k, v in python.items() if k != "ref"}),
            ref=json.get("ref"),
            metadata={_MARK: True, **(json.get("metadata") or {})},
        ),
    )


def _finite(node: Schema) -> Schema:
    return _either({**node, "allow_inf_nan": False}, node)


_DATETIME, _FLOAT = cast(Schema, core_schema.datetime_schema()), cast(Schema, core_schema.float_schema())
_AWARE, _FINITE = _after(aware, _DATETIME), _finite(_FLOAT)
"""Once for all fields without constraints."""
