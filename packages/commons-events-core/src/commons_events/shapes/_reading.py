"""A shape from pydantic's core schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from inspect import cleandoc
from typing import Any, Literal, cast, get_origin

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, SchemaSerializer, SchemaValidator, core_schema

from commons_events.errors import EventDefinitionError
from commons_events.event import Event
from commons_events.event._defaults import has_function, sound_default
from commons_events.event._envelope import ENVELOPE
from commons_events.event._exact import exact_part
from commons_events.event._secrets import IN_BYTES, holds_secret
from commons_events.shapes._shape import (
    NO_DEFAULT,
    Array,
    Enumeration,
    Field,
    FieldNumber,
    Kind,
    Literals,
    Map,
    Other,
    Record,
    Scalar,
    Shape,
    Tuple,
    Union,
)

__all__ = ["shape_of"]


def shape_of(event_class: type[Event]) -> Record:
    """The shape of an event class, envelope included: ``event_type`` and ``version`` first, then the other fields.

    Raises:
        EventDefinitionError: a name in the class's annotations is not known yet.
    """
    if "_pydantic_schema" not in event_class.__dict__:
        event_class.complete()
    return _Reader(event_class).read()


_Node = dict[str, Any]
_KINDS: dict[str, Kind] = {
    "any": "any",
    "bool": "bool",
    "bytes": "bytes",
    "date": "date",
    "datetime": "datetime",
    "decimal": "decimal",
    "float": "float",
    "int": "int",
    "none": "null",
    "str": "str",
    "time": "time",
    "timedelta": "timedelta",
    "uuid": "uuid",
}
_BARE = {type_: Scalar(kind) for type_, kind in _KINDS.items()}
"""Without limits, a scalar is the same everywhere: classes are many, and made in a row."""
_MOMENT = Scalar("datetime", {"microseconds_precision": "truncate"})
_MOMENT_NODE = cast("dict[str, Any]", core_schema.datetime_schema())
"""As pydantic states it of its own accord."""
_CLASSES = frozenset({"model", "dataclass", "typed-dict"})
_NO_SCHEMA = frozenset({"metadata", "config", "default", "serialization", "cls", "expected", "members"})
_ARRAYS: dict[str, type[Any]] = {"list": list, "set": set, "frozenset": frozenset, "tuple": tuple}
_CONSTRAINTS = frozenset(
    {
        "allow_inf_nan", "decimal_places", "fail_fast", "ge", "gt", "le", "lt", "max_digits", "max_length",
        "microseconds_precision", "min_length", "multiple_of", "now_op", "now_utc_offset", "pattern", "strict",
        "strip_whitespace", "to_lower", "to_upper", "tz_constraint", "version",
    }
)  # fmt: skip
_HARMLESS: dict[str, Any] = {"microseconds_precision": "truncate", "strict": False}
"""What pydantic states of its own accord."""
_EXACT = core_schema.CoreConfig(ser_json_inf_nan="constants")


class _Reader:
    def __init__(self, event_class: type[Event]) -> None:
        self._event_class = event_class
        schema = cast(_Node, event_class._pydantic_schema)
        self._definitions: dict[str, _Node] = {}
        if schema["type"] == "definitions":
            self._definitions = {definition["ref"]: definition for definition in schema["definitions"]}
            schema = schema["schema"]
        self._schema = schema
        self._records: dict[type[Any], Record] = {}
        self._config: dict[str, Any] = {}
        """Of the model whose fields are being read."""
        self._checks: list[bool] = [False]
        """Whether something is checked, of the field that is being read and of those around it."""

    def read(self) -> Record:
        root = self._schema
        if root["type"] == "definition-ref":
            root = self._definitions[root["schema_ref"]]
        return cast(Record, self._shape(_without_serializer(root)))  # which is for JSON alone

    def _shape(self, node: _Node) -> Shape:
        type_ = node["type"]
        if len(node) == 1 and type_ in _BARE:
            return _BARE[type_]
        if type_ == "datetime" and node == _MOMENT_NODE:
            return _MOMENT
        if type_ == "definition-ref":
            return self._referred(node["schema_ref"])
        if node.get("serialization", {}).get("is_field_serializer"):
            return self._serialized(node)
        if type_ in ("function-after", "function-before", "function-wrap"):
            return self._validated(node)
        if "serialization" in node and type_ != "json-or-python":
            return self._other(node)
        self._checks[-1] |= any(_HARMLESS.get(name, _CONSTRAINTS) != node[name] for name in _CONSTRAINTS & node.keys())
        if type_ in _KINDS:
            return Scalar(_KINDS[type_], {name: node[name] for name in _CONSTRAINTS & node.keys()})
        read = _READERS.get(type_)
        return self._other(node) if read is None else read(self, node)

    def _referred(self, ref: str) -> Shape:
        """A type that stands in the event more than once, or inside itself; in that case it is a class, or JSON."""
        node = self._definitions[ref]
        if self._recurs(ref, node, set()):
            return self._other({"type": "definition-ref", "schema_ref": ref})
        return self._shape(node)

    def _recurs(self, ref: str, node: Any, seen: set[str]) -> bool:
        """Whether a type is inside itself without a class between, as an alias may be: `int | list[Numbers]`."""
        if isinstance(node, list | tuple):
            return any(self._recurs(ref, child, seen) for child in node)
        if not isinstance(node, dict) or node.get("type") in _CLASSES:
            return False
        if node.get("type") == "definition-ref":
            other = node["schema_ref"]
            if other == ref:
                return True
            if other in seen:
                return False
            seen.add(other)
            return self._recurs(ref, self._definitions[other], seen)
        return any(self._recurs(ref, child, seen) for key, child in node.items() if key not in _NO_SCHEMA)

    def _serialized(self, node: _Node) -> Shape:
        """A field that a method of its class writes in JSON; formats with types of their own hold the value itself."""
        shape = self._shape(_without_serializer(node))
        if isinstance(shape, Other):
            raise EventDefinitionError(
                f"{self._event_class.__qualname__}: a field of the type {shape.name} has a field_serializer, which "
                "writes it in JSON alone. Give the type itself a serializer: Annotated[…, PlainSerializer(…)]."
            )
        return shape

    def _validated(self, node: _Node) -> Shape:
        """A type with a validator of the user's, or one of pydantic's own for a type that has no shape here."""
        if "serialization" in node:
            return self._other(node)
        inner = self._shape(node["schema"])
        self._checks[-1] = True
        if isinstance(inner, Record):
            inner.checked = True
        return inner

    def _other(self, node: _Node) -> Other:
        schema = cast(core_schema.CoreSchema, node)
        if self._definitions:
            inlined = cast("list[core_schema.CoreSchema]", list(self._definitions.values()))
            schema = core_schema.definitions_schema(schema, inlined)
        schema = exact_part(schema, self._event_class)
        validator, serializer = SchemaValidator(schema), SchemaSerializer(schema, _EXACT)

        def to_json(value: Any) -> bytes:
            data = serializer.to_json(value, warnings="error", context=IN_BYTES)
            if b"N" in data or b"I" in data:  # NaN, or just a word: what cannot be read must not be written
                validator.validate_json(data)
            return data

        return Other(node["type"], to_json, validator.validate_json)

    def _default(self, node: _Node) -> Shape:
        return self._shape(node["schema"])

    def _nullable(self, node: _Node) -> Shape:
        return self._union_of([{"type": "none"}, node["schema"]])

    def _union(self, node: _Node) -> Shape:
        choices = [choice[0] if isinstance(choice, tuple) else choice for choice in node["choices"]]
        return self._union_of(choices)

    def _tagged_union(self, node: _Node) -> Shape:
        discriminator = node["discriminator"]
        return self._union_of(list(node["choices"].values()), discriminator if isinstance(discriminator, str) else None)

    def _union_of(self, choices: list[_Node], discriminator: str | None = None) -> Shape:
        members: list[Shape] = []
        for shape in (self._shape(choice) for choice in choices):
            if isinstance(shape, Union):
                discriminator = discriminator or shape.discriminator
            for member in shape.members if isinstance(shape, Union) else (shape,):
                if member not in members:
                    members.append(member)
        if len(members) == 1:
            return members[0]
        null = Scalar("null")
        if null in members:
            members.remove(null)
            members.insert(0, null)
        return Union(tuple(members), discriminator)

    def _array(self, node: _Node) -> Shape:
        return Array(self._shape(node.get("items_schema") or {"type": "any"}), _ARRAYS[node["type"]])

    def _tuple(self, node: _Node) -> Shape:
        items = node["items_schema"]
        if "variadic_item_index" not in node:
            return Tuple(tuple(self._shape(item) for item in items))
        return Array(self._shape(items[0]), tuple) if len(items) == 1 else self._other(node)

    def _map(self, node: _Node) -> Shape:
        key = node.get("keys_schema") or {"type": "any"}
        return Map(
            Scalar("str") if key["type"] == "any" else self._shape(key),
            self._shape(node.get("values_schema") or {"type": "any"}),
        )

    def _literal(self, node: _Node) -> Shape:
        return Literals(tuple(node["expected"]))

    def _enum(self, node: _Node) -> Shape:
        self._checks[-1] |= "missing" in node  # a class that makes members of other values
        return Enumeration(node["cls"])

    def _json_or_python(self, node: _Node) -> Shape:
        """A sequence, which is a list once it is validated, or else a type of its own."""
        inner = node["json_schema"]
        if inner["type"] == "list" and node["python_schema"]["type"] in ("chain", "is-instance"):
            return self._shape(inner)
        return self._other(node)

    def _model(self, node: _Node) -> Shape:
        cls = node["cls"]
        if node.get("root_model"):
            return self._other(node)
        record = self._records.get(cls)
        if record is None:
            is_event = issubclass(cls, Event) and cls is not Event  # which bounds a type variable, and has no type
            kind: Literal["event", "model"] = "event" if is_event else "model"
            record = self._records[cls] = Record(cls.__name__, cls, kind, doc=_class_doc(cls))
            config = {**cls.model_config, **(node.get("config") or {})}
            record.keeps_extra = config.get("extra") == "allow" or config.get("extra_fields_behavior") == "allow"
            record.checked = bool(node.get("custom_init") or node.get("post_init") or record.keeps_extra)
            inner = node["schema"]
            while inner["type"] != "model-fields":  # validators of the whole model
                record.checked = True
                inner = inner["schema"]
            infos = cls.__pydantic_fields__
            outer, self._config = self._config, node.get("config") or {}
            read = {
                name: self._envelope_field if kind == "event" and name in ENVELOPE else self._field for name in infos
            }
            fields = [read[name](name, inner["fields"][name]["schema"], infos[name]) for name in infos]
            self._config = outer
            if kind == "event":
                constants = {"event_type": cls.event_type, "version": cls.schema_info().version}
                fields = [_constant(*item) for item in constants.items()] + [f for f in fields if f.name != "version"]
            record.fields = tuple(fields)
            record.checked |= any(f.checked for f in fields)
        return record

    def _dataclass(self, node: _Node) -> Shape:
        cls = node["cls"]
        record = self._records.get(cls)
        if record is None:
            record = self._records[cls] = Record(cls.__name__, cls, "dataclass", doc=_class_doc(cls), checked=True)
            inner = node["schema"]
            while inner["type"] != "dataclass-args":
                inner = inner["schema"]
            infos: Mapping[str, FieldInfo] = getattr(cls, "__pydantic_fields__", {})
            record.fields = tuple(self._field(f["name"], f["schema"], infos.get(f["name"])) for f in inner["fields"])
        return record

    def _typed_dict(self, node: _Node) -> Shape:
        cls = node["cls"]
        if any(not f.get("required", True) for f in node["fields"].values()):
            return self._other(node)  # a key that is not there is neither None nor a default
        record = self._records.get(cls)
        if record is None:
            record = self._records[cls] = Record(cls.__name__, cls, "typed-dict", doc=_class_doc(cls))
            record.fields = tuple(self._field(name, f["schema"], None) for name, f in node["fields"].items())
            record.checked = any(f.checked for f in record.fields)
        return record

    def _envelope_field(self, name: str, node: _Node, info: FieldInfo) -> Field:
        """A field that nearly all events have alike: what is known of it from another class holds for this one."""
        if info.description or info.metadata or info.alias or info.validation_alias:
            return self._field(name, node, info)
        known = _ENVELOPE_FIELDS.get(name)
        if known is None or (known[0] is not node and known[0] != node):
            known = node, self._field(name, node, info)
            _ENVELOPE_FIELDS.setdefault(name, known)
        return known[1]

    def _field(self, name: str, node: _Node, info: FieldInfo | None) -> Field:
        plain = info is not None and not (info.metadata or info.alias or info.validation_alias)
        if plain and len(node) == 1 and node["type"] in _BARE:
            return Field(name, _BARE[node["type"]], doc=info.description if info else None)
        self._checks.append(False)
        shape = self._shape(node)
        checked = self._checks.pop()
        number = next((item.number for item in info.metadata if isinstance(item, FieldNumber)), None) if info else None
        return Field(
            name,
            shape,
            required=node["type"] != "default",
            default=self._default_of(node),
            doc=info.description if info else None,
            aliases=tuple(_aliases(name, info)) if info else (),
            number=number,
            checked=checked,
        )

    def _exact(self, node: _Node) -> _Node:
        return cast(_Node, exact_part(cast(core_schema.CoreSchema, node), self._event_class))

    def _default_of(self, node: _Node) -> Any:
        """As a value of the field's type; where a validator of the user's decides what that is, as it is stated."""
        if node["type"] != "default":
            return NO_DEFAULT
        if "default" in node and node["default"] is not PydanticUndefined:
            if holds_secret(node["schema"]):
                return NO_DEFAULT  # schemas are shown to anybody
            if self._definitions or has_function(node["schema"]):
                return node["default"]
            return sound_default(node, lambda: self._exact(node["schema"]), self._config)
        factory = node.get("default_factory")
        kind = get_origin(factory) or factory
        return kind() if kind in _EMPTY else NO_DEFAULT


_READERS: dict[str, Callable[[_Reader, _Node], Shape]] = {
    "dataclass": _Reader._dataclass,
    "default": _Reader._default,
    "dict": _Reader._map,
    "enum": _Reader._enum,
    "frozenset": _Reader._array,
    "json-or-python": _Reader._json_or_python,
    "list": _Reader._array,
    "literal": _Reader._literal,
    "model": _Reader._model,
    "nullable": _Reader._nullable,
    "set": _Reader._array,
    "tagged-union": _Reader._tagged_union,
    "tuple": _Reader._tuple,
    "typed-dict": _Reader._typed_dict,
    "union": _Reader._union,
}


_ENVELOPE_FIELDS: dict[str, tuple[_Node, Field]] = {}
"""By their names: pydantic's schema of a field, and what it was read as."""


def _without_serializer(node: _Node) -> _Node:
    return {key: value for key, value in node.items() if key != "serialization"}


def _constant(name: str, value: str) -> Field:
    """The event's type and version stand in its bytes, and are the class's own."""
    return Field(name, Literals((value,)), required=False, default=value)


_EMPTY = (dict, list, set, frozenset, tuple)
"""Factories of an empty container, ``list[int]`` as well as ``list``."""


def _aliases(name: str, info: FieldInfo) -> Iterator[str]:
    """Names a reader takes the field by, besides its own."""
    stated = info.validation_alias if info.validation_alias is not None else info.alias
    for alias in stated.choices if isinstance(stated, AliasChoices) else [stated]:
        if isinstance(alias, str) and alias != name:
            yield alias


def _class_doc(cls: type[Any]) -> str | None:
    doc = cls.__dict__.get("__doc__")
    return cleandoc(doc) if doc else None
