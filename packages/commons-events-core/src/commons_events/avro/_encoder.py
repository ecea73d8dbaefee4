"""Encoders: one function a derived schema, from an object of the class straight to bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from struct import Struct
from typing import Any

from commons_events.avro import _wire
from commons_events.avro._any import to_any, to_any_map
from commons_events.avro._defaults import TYPES, holds
from commons_events.avro._schema import SchemaNode
from commons_events.avro._shapes import EXTRA, Entry, Wrapped, enum_symbols, kind_of
from commons_events.avro._source import Choices, Source
from commons_events.shapes import Array, Enumeration, Literals, Map, Other, Record, Scalar, Tuple

__all__ = ["Encoder"]

_NAMES = {
    "LENGTHS": _wire.LENGTHS,
    "SMALL": _wire.SMALL_LONGS,
    "BOOLEANS": Choices(_wire.BOOLEAN_BYTES, "a bool"),
    "double": Struct("<d").pack,
    "join": b"".join,
    "to_any": to_any,
    "to_any_map": to_any_map,
    **{name: getattr(_wire, name) for name in dir(_wire) if name.startswith("to_")},
}


class Encoder:
    """What writes values of one derived type.

    Args:
        node: the type.
        title: what it is called in a traceback.
        head: bytes that stand in front, with an event's type and version in them.
    """

    def __init__(self, node: SchemaNode, title: str, *, head: bytes | None = None) -> None:
        self.source = Source(f"encoder of {title}", _NAMES)
        self._functions: dict[int, str] = {}
        self._pending: list[Callable[[], None]] = []
        with self.source.block("def encode(value):"):
            if head is None:
                self.source.line(f"return {self._joined(self._parts(node, 'value'))}")
            else:
                self._record(node, head)
        while self._pending:
            self._pending.pop()()
        self.encode: Callable[[Any], bytes] = self.source.function("encode")
        """The bytes of a value. Raises what `FAILURES` names."""

    def _named(self, value: str, stem: str) -> tuple[str, str]:
        """A name for the value of an expression, and what stands where that is first asked for."""
        if value.isidentifier():
            return value, value
        name = self.source.new(stem)
        return name, f"{name} := {value}"

    @staticmethod
    def _joined(parts: list[str]) -> str:
        return parts[0] if len(parts) == 1 else f"join(({', '.join(parts)}))"

    # --- any type: expressions whose bytes follow one another ---------------------------------------------------

    def _parts(self, node: SchemaNode, value: str) -> list[str]:
        if node.kind == "union":
            return [self._union(node, value)]
        shape = node.shape
        match shape:
            case Literals(values):
                return [f"{self._choices(node, values)}[{value}]"]
            case Enumeration():
                return [self._enum(node, shape, value)]
            case Other():
                return [f"to_bytes({self.source.constant(shape.to_json, 'to_json')}({value}))"]
            case Scalar(kind) if kind != "any":
                return self._scalar(node, kind, value)
        return [f"{self._writer(node)}({value})"]

    def _writer(self, node: SchemaNode) -> str:
        """The name of a function of one value."""
        kind = kind_of(node.shape)
        if kind == "any":
            return "to_any"
        if node.kind == "map" and kind_of(node.item.shape) == "any":
            return "to_any_map"
        if kind in _FUNCTIONS and node.kind != "union" and not (node.kind == "bytes" and kind in ("int", "decimal")):
            return _FUNCTIONS[kind]
        name = self._functions.get(id(node))
        if name is None:
            name = self._functions[id(node)] = self.source.new("write")
            self._pending.append(lambda: self._define(name, node))
        return name

    def _define(self, name: str, node: SchemaNode) -> None:
        with self.source.at(""), self.source.block(f"def {name}(value):"):
            if node.kind == "union":
                self._union_function(node)
            elif node.kind == "array":
                self._array(node)
            elif node.kind == "map":
                self._map(node)
            elif node.kind == "record":
                self._record(node, b"")
            else:
                self.source.line(f"return {self._joined(self._parts(node, 'value'))}")

    def _scalar(self, node: SchemaNode, kind: str, value: str) -> list[str]:
        match kind:
            case "null":
                return ["b''"]
            case "bool":
                return [f"BOOLEANS[{value}]"]
            case "str" | "bytes":
                data = self.source.new("b")
                return [f"LENGTHS[len({data} := {value}{'.encode()' if kind == 'str' else ''})]", data]
            case "int" if node.kind == "bytes":
                digits = self.source.constant(_wire.to_whole(node.precision), "to_whole")
                return [f"{digits}({value})"]
            case "int":
                number, stated = self._named(value, "n")
                return [f"SMALL.get({stated}) or to_long({number})"]
            case "float":
                return [f"double({value})"]
            case "decimal" if node.kind == "bytes":
                return [f"{self.source.constant(_wire.to_decimal(node.precision, node.scale), 'to_decimal')}({value})"]
            case "decimal":
                return [f"to_text(str({value}))"]
        return [f"{_FUNCTIONS[kind]}({value})"]

    def _choices(self, node: SchemaNode, values: tuple[Any, ...]) -> str:
        encoded = {}
        symbols: dict[int, str] = {}
        if node.kind == "enum":
            symbols = {id(member): symbol for symbol, member in (enum_symbols(type(values[0])) or {}).items()}
        for one in values:
            match node.kind:
                case "enum":
                    encoded[one] = _wire.to_long(node.symbols.index(symbols[id(one)]))
                case "string":
                    encoded[one] = _wire.to_text(getattr(one, "name", one))
                case "long":
                    encoded[one] = _wire.to_long(int(getattr(one, "value", one)))
                case "boolean":
                    encoded[one] = _wire.BOOLEAN_BYTES[one]
                case "double":
                    encoded[one] = Struct("<d").pack(one)
                case "bytes":
                    encoded[one] = _wire.to_bytes(one)
                case _:
                    encoded[one] = b""
        return self.source.constant(Choices(encoded, f"one of {values!r}"), "LITERALS")

    def _enum(self, node: SchemaNode, shape: Enumeration, value: str) -> str:
        if node.kind == "long":
            return f"to_long(int({value}.value))"
        if node.kind == "string":
            return f"to_text({value}._name_)"
        symbols = enum_symbols(shape.cls) or {}
        encoded = {member.name: _wire.to_long(node.symbols.index(symbol)) for symbol, member in symbols.items()}
        return f"{self.source.constant(Choices(encoded, f'a {shape.cls.__name__}'), 'SYMBOLS')}[{value}._name_]"

    # --- unions ----------------------------------------------------------------------------------------------

    def _union(self, node: SchemaNode, value: str) -> str:
        """Of a nullable type an expression, else the call of a function."""
        if len(node.branches) == 2 and {"null"} < {branch.kind for branch in node.branches}:
            null = next(index for index, branch in enumerate(node.branches) if branch.kind == "null")
            other = node.branches[1 - null]
            if not isinstance(other.shape, Wrapped):
                there, stated = self._named(value, "o")
                parts = [repr(_wire.to_long(1 - null)), *self._parts(other, there)]
                return f"{_wire.to_long(null)!r} if ({stated}) is None else {' + '.join(map(_grouped, parts))}"
        return f"{self._writer(node)}({value})"

    def _union_function(self, node: SchemaNode) -> None:
        """A branch is chosen by the value's type alone where that suffices, else by what is in it."""
        source = self.source
        by_type: dict[type[Any], list[int]] = {}
        for index, branch in enumerate(node.branches):
            for type_ in _python_types(branch):
                by_type.setdefault(type_, []).append(index)
        sure = {type_: indices[0] for type_, indices in by_type.items() if len(indices) == 1}
        tests = [partial(holds, branch) for branch in node.branches]

        def chosen(value: Any) -> int:
            index = sure.get(type(value))
            if index is not None:
                return index
            for index, test in enumerate(tests):
                if test(value):
                    return index
            raise ValueError(f"a {type(value).__qualname__} is of no branch of the union")

        source.line(f"branch = {source.constant(chosen, 'chosen')}(value)")
        for index, branch in enumerate(node.branches):
            with source.block(f"if branch == {index}:"):
                inner, parts = branch, [repr(_wire.to_long(index))]
                if isinstance(branch.shape, Wrapped):
                    inner = branch.fields[0].type
                source.line(f"return {self._joined([*parts, *self._parts(inner, 'value')])}")

    # --- collections -----------------------------------------------------------------------------------------

    def _array(self, node: SchemaNode) -> None:
        if isinstance(node.item.shape, Entry):
            key, value = (field.type for field in node.item.fields)
            self._items("k, v", "value.items()", lambda: [*self._parts(key, "k"), *self._parts(value, "v")])
        else:
            self._items("v", "value", lambda: self._parts(node.item, "v"))

    def _map(self, node: SchemaNode) -> None:
        key = SchemaNode("string", shape=Scalar("str"))
        self._items("k, v", "value.items()", lambda: [*self._parts(key, "k"), *self._parts(node.item, "v")])

    def _items(self, names: str, items: str, parts: Callable[[], list[str]]) -> None:
        """Add lines that return a block of all items. A comprehension is quicker only where an item has one part."""
        source = self.source
        with source.at(f"{source.place}[]"):
            each = parts()
            source.line("if not value: return b'\\0'")
            if len(each) == 1:
                block = f"*[{each[0]} for {names} in {items}]"
                source.line(f"return join((LENGTHS[len(value)], {block}, b'\\0'))")
                return
            source.line("parts = [LENGTHS[len(value)]]")
            source.line(f"for {names} in {items}: parts += ({', '.join(each)})")
            source.line("parts.append(b'\\0')")
            source.line("return join(parts)")

    # --- records ---------------------------------------------------------------------------------------------

    def _record(self, node: SchemaNode, head: bytes) -> None:
        """Add lines that return a record's bytes: each field on a line of its own."""
        source, shape = self.source, node.shape
        fields = node.fields
        if isinstance(shape, Tuple):
            values = {field.name: f"value[{number}]" for number, field in enumerate(fields)}
        elif isinstance(shape, Record):
            source.line(f"d = {self._values(shape)}")
            values = {field.name: f"d[{field.name!r}]" for field in fields}
            values[EXTRA] = "value.__pydantic_extra__ or {}"
        else:
            values = {"value": "value"}
        if head:
            fields = tuple(field for field in fields if field.name not in ("event_type", "version"))
        source.line("return join((")
        source.line(f"    {source.constant(head, 'HEAD')},")
        for field in fields:
            with source.at(field.name):
                source.line(f"    {', '.join(self._parts(field.type, _grouped(values[field.name])))},")
        source.line("))")

    def _values(self, shape: Record) -> str:
        if shape.kind == "typed-dict":
            return "value"
        if hasattr(shape.cls, "__dict__") and shape.kind != "dataclass":
            return "value.__dict__"
        return f"{self.source.constant(shape.values(), 'values')}(value)"


_FUNCTIONS = {
    "bytes": "to_bytes", "date": "to_date", "datetime": "to_datetime", "float": "double", "int": "to_long",
    "str": "to_text", "time": "to_time", "timedelta": "to_timedelta", "uuid": "to_uuid",
}  # fmt: skip


def _grouped(expression: str) -> str:
    return f"({expression})" if " " in expression else expression


def _python_types(node: SchemaNode) -> list[type[Any]]:
    """The types whose values are of a branch; empty where only a look at the value tells."""
    match node.shape:
        case Enumeration(cls) | Record(cls=cls) if getattr(node.shape, "kind", "") != "typed-dict":
            return [cls]
        case Literals(values):
            return [*dict.fromkeys(map(type, values))]
        case Array(_, container):
            return [container]
        case Map() | Record():
            return [dict]
        case Tuple():
            return [tuple]
        case Scalar(kind) if kind != "any":
            return [TYPES[kind]]
        case Wrapped():
            return _python_types(node.fields[0].type)
        case None if node.kind == "null":
            return [type(None)]
    return []
