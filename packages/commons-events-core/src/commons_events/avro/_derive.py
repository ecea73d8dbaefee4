"""The Avro schema of an event class: its shape, walked once.

What maps to what is said in `mapping`, which the documentation prints.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, Flag
from functools import lru_cache
from typing import Any

from commons_events import shapes
from commons_events.avro._defaults import default_json, holds
from commons_events.avro._names import Names, avro_name
from commons_events.avro._schema import NO_DEFAULT, SchemaField, SchemaNode
from commons_events.avro._shapes import ANY, EXTRA, NAME, Entry, Wrapped, enum_symbols
from commons_events.errors import EventDefinitionError
from commons_events.event import Event
from commons_events.event._envelope import ENVELOPE
from commons_events.event._values import MAX_DIGITS
from commons_events.shapes import (
    Array,
    Enumeration,
    Field,
    Literals,
    Map,
    Other,
    Record,
    Scalar,
    Shape,
    Tuple,
    Union,
    shape_of,
)

__all__ = ["any_node", "derive"]

_KIND = "commons_events.kind"
"""A property that says what a string or decimal stands for, where no logical type of Avro's does."""


def derive(event_class: type[Event]) -> SchemaNode:
    """The schema of an event class.

    Raises:
        EventDefinitionError: a field has a name or type that Avro cannot hold; the message says what to do.
    """
    return _Deriver(event_class).derive()


@lru_cache(maxsize=1)
def any_node() -> SchemaNode:
    """``commons_events.Value``: what ``Any`` is."""
    whole = SchemaNode("bytes", logical="decimal", precision=MAX_DIGITS, shape=Scalar("int", {"big": True}))
    items, members = SchemaNode("array", shape=Array(Scalar("any"))), SchemaNode("map")
    members.shape = Map(Scalar("str"), Scalar("any"))
    kinds = ("null", "boolean", "long", "double", "string")
    null, boolean, long, double, string = (SchemaNode(kind) for kind in kinds)
    union = SchemaNode("union", branches=(null, boolean, long, double, string, whole, items, members))
    record = SchemaNode("record", ANY, (SchemaField("value", union),), shape=Scalar("any"))
    record.doc = "A value of any kind that JSON has; an int past 64 bits is a decimal."
    items.items = members.items = record
    return record


_PLAIN: dict[str, Callable[[], SchemaNode]] = {
    "null": lambda: SchemaNode("null"),
    "bool": lambda: SchemaNode("boolean"),
    "bytes": lambda: SchemaNode("bytes"),
    "date": lambda: SchemaNode("int", logical="date"),
    "datetime": lambda: SchemaNode("long", logical="timestamp-micros"),
    "float": lambda: SchemaNode("double"),
    "str": lambda: SchemaNode("string"),
    "time": lambda: SchemaNode("long", logical="time-micros"),
    "timedelta": lambda: SchemaNode(
        "bytes", logical="decimal", precision=20, scale=6, properties={_KIND: "timedelta, in seconds"}
    ),
    "uuid": lambda: SchemaNode("string", logical="uuid"),
}


_OF_PYDANTIC = {"microseconds_precision": "truncate"}
"""What pydantic states of datetimes of its own accord."""
_SHARED: dict[str, SchemaNode] = {}
"""By their kinds: types without parts or limits, which are the same in every schema."""
_FIELDS: dict[str, tuple[Field, SchemaField]] = {}
"""By their names: fields of the envelope, which are read once for nearly all events (see `shapes`)."""


class _Deriver:
    def __init__(self, event_class: type[Event]) -> None:
        self._class = event_class
        self._names = Names(avro_name(event_class.event_type))
        self._records: dict[type[Any], SchemaNode] = {}
        self._enums: dict[type[Enum], SchemaNode] = {}

    def derive(self) -> SchemaNode:
        info = self._class.schema_info()
        record = shape_of(self._class)
        node = self._record(record, self._names.event)
        node.doc = info.description or record.doc
        node.properties = {"eventType": self._class.event_type, "eventVersion": info.version}
        return node

    def _refuse(self, path: str, problem: str, advice: str) -> EventDefinitionError:
        return EventDefinitionError(
            f"{self._class.__qualname__}: field {path!r} {problem}, which Avro cannot hold. {advice}"
        )

    # --- records ---------------------------------------------------------------------------------------------

    def _record(self, record: Record, name: str) -> SchemaNode:
        node = self._records[record.cls] = SchemaNode("record", name, doc=record.doc, shape=record)
        fields = [self._field(item, node) for item in record.fields]
        if record.keeps_extra:
            extra = SchemaNode("map", items=any_node(), shape=Map(Scalar("str"), Scalar("any")))
            fields.append(
                SchemaField(EXTRA, extra, {}, "Fields that the class keeps without knowing them.", required=False)
            )
        node.fields = tuple(fields)
        return node

    def _field(self, item: Field, record: SchemaNode) -> SchemaField:
        known = _FIELDS.get(item.name)
        if known is not None and known[0] is item:
            return known[1]
        made = self._made_field(item, record)
        if item.name in ENVELOPE:
            _FIELDS[item.name] = item, made
        return made

    def _made_field(self, item: Field, record: SchemaNode) -> SchemaField:
        path = f"{record.short}.{item.name}"
        if NAME.fullmatch(item.name) is None:
            raise self._refuse(
                item.name,
                "has a name with other than ASCII letters, digits and _",
                "Rename it; JSON may keep an alias.",
            )
        node = self._node(item.shape, path)
        default = NO_DEFAULT if item.default is shapes.NO_DEFAULT else item.default
        if node.kind == "union" and default is not NO_DEFAULT:
            self._order(node, default)
        stated = NO_DEFAULT if default is NO_DEFAULT else default_json(node, default)
        aliases = tuple(alias for alias in item.aliases if NAME.fullmatch(alias))
        return SchemaField(item.name, node, stated, item.doc, aliases, item.required)

    @staticmethod
    def _order(node: SchemaNode, default: Any) -> None:
        """The default's branch comes first, as the specification wants; where there is none, null does."""
        first = next((branch for branch in node.branches if holds(branch, default)), None)
        if first is not None:
            node.branches = (first, *(branch for branch in node.branches if branch is not first))

    # --- types -----------------------------------------------------------------------------------------------

    def _node(self, shape: Shape, path: str) -> SchemaNode:
        match shape:
            case Scalar():
                return self._scalar(shape)
            case Enumeration(cls):
                return self._enum(cls)
            case Literals(values):
                return self._literals(values, shape, path)
            case Array(item):
                return SchemaNode("array", items=self._node(item, path), shape=shape)
            case Map(Scalar("str"), value):
                return SchemaNode("map", items=self._node(value, path), shape=shape)
            case Map(key, value):
                pair = (SchemaField("key", self._node(key, path)), SchemaField("value", self._node(value, path)))
                name = self._names.made(path, "Entry")
                return SchemaNode("array", items=SchemaNode("record", name, pair, shape=Entry(shape)), shape=shape)
            case Tuple(items):
                name = self._names.made(path, "Tuple")
                fields = tuple(
                    SchemaField(f"item{number}", self._node(item, path)) for number, item in enumerate(items)
                )
                return SchemaNode("record", name, fields, shape=shape)
            case Union(members):
                return self._union(members, shape, path)
            case Record():
                known = self._records.get(shape.cls)
                return known or self._record(shape, self._names.of(shape.cls))
            case Other():
                return SchemaNode("string", shape=shape, properties={_KIND: "JSON text"})

    @staticmethod
    def _scalar(shape: Scalar) -> SchemaNode:
        limits = shape.limits
        if shape.kind == "any":
            return any_node()
        if shape.kind == "int":
            digits = shape.digits_past_64_bits if limits else None
            if digits is None:
                return SchemaNode("long", shape=shape)
            return SchemaNode("bytes", logical="decimal", precision=digits, shape=Scalar("int", {"big": True}))
        if shape.kind == "decimal":
            if limits.get("max_digits") is not None and limits.get("decimal_places") is not None:
                precision, scale = limits["max_digits"], limits["decimal_places"]
                if precision > 0 and scale <= precision and not limits.get("allow_inf_nan"):
                    return SchemaNode("bytes", logical="decimal", precision=precision, scale=scale, shape=shape)
            return SchemaNode("string", shape=shape, properties={_KIND: "decimal"})
        known = _SHARED.get(shape.kind)
        if known is not None and known.shape is shape:
            return known
        node = _PLAIN[shape.kind]()
        node.shape = shape
        if not limits or limits == _OF_PYDANTIC:
            _SHARED[shape.kind] = node
        return node

    def _enum(self, cls: type[Enum]) -> SchemaNode:
        if issubclass(cls, Flag):  # combinations are no members
            return SchemaNode("long", shape=Enumeration(cls))
        symbols = enum_symbols(cls)
        if symbols is None:
            return SchemaNode("string", shape=Enumeration(cls), properties={_KIND: f"name of a {cls.__name__}"})
        node = self._enums.get(cls)
        if node is None:
            node = SchemaNode("enum", self._names.of(cls), symbols=tuple(symbols), shape=Enumeration(cls))
            own = cls.__dict__.get("__doc__")
            node.doc = own if isinstance(own, str) and own != "An enumeration." else None
            self._enums[cls] = node
        return node

    def _literals(self, values: tuple[Any, ...], shape: Literals, path: str) -> SchemaNode:
        kinds: dict[str, tuple[Any, ...]] = {}
        for value in values:
            kind = _LITERALS.get(type(value)) or ("enum" if isinstance(value, Enum) else None)
            if kind == "long" and not -(2**63) <= value < 2**63:
                kind = None
            if kind is None:
                raise self._refuse(path, f"has the literal {value!r}", "Use an Enum.")
            kinds[kind] = (*kinds.get(kind, ()), value)
        nodes = [
            self._enum(type(some[0])) if kind == "enum" else SchemaNode(kind, shape=Literals(some))
            for kind, some in kinds.items()
        ]
        nodes.sort(key=lambda node: node.kind != "null")
        return nodes[0] if len(nodes) == 1 else SchemaNode("union", branches=tuple(nodes), shape=shape)

    def _union(self, members: tuple[Shape, ...], shape: Union, path: str) -> SchemaNode:
        branches: list[SchemaNode] = []
        taken: set[str] = set()
        for number, member in enumerate(members):
            node = self._node(member, path)
            for branch in node.branches if node.kind == "union" else (node,):
                key = branch.name or branch.kind
                if key in taken and branch.name:
                    continue  # the same enum or record a second time
                if key in taken:
                    inner = branch
                    name = self._names.made(path, f"Member{number}")
                    branch = SchemaNode("record", name, (SchemaField("value", inner),), shape=Wrapped(member))
                    key = name
                taken.add(key)
                branches.append(branch)
        return SchemaNode("union", branches=tuple(branches), shape=shape)


_LITERALS: dict[type[Any], str] = {
    str: "string", int: "long", bool: "boolean", bytes: "bytes", type(None): "null", float: "double",
}  # fmt: skip
