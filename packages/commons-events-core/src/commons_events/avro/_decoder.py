"""Decoders: one function a pair of writer's and reader's schema, by the rules of Schema Resolution.

The rules are applied when the function is made. What is left of them in it is what depends on the bytes: the branch
of a union, the symbol of an enum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from decimal import Decimal
from struct import Struct
from typing import Any

from commons_events.avro import _wire
from commons_events.avro._any import read_any, read_any_map
from commons_events.avro._defaults import default_bytes
from commons_events.avro._encoder import Encoder
from commons_events.avro._resolve import best_branch, describe, is_recursive, least_bytes, mismatch, pairs, same_schema
from commons_events.avro._schema import NO_DEFAULT, SchemaField, SchemaNode
from commons_events.avro._shapes import EXTRA, Entry, Wrapped, enum_symbols, kind_of
from commons_events.avro._source import Choices, Source
from commons_events.avro._wire import MAX_ITEMS_WITHOUT_BYTES
from commons_events.shapes import Array, Enumeration, Literals, Map, Other, Record, Scalar, Tuple

__all__ = ["MAX_RECORDS", "Decoder"]

MAX_RECORDS = 255
"""How deep records of recursive types may lie in each other; pydantic itself makes no deeper ones."""

_FLOAT = Struct("<f")
_NAMES = {
    name: getattr(_wire, name)
    for name in (
        "NotAvroError", "date_of", "datetime_of", "decimal_of", "finite_decimal", "int_of", "read_count",
        "read_datetime", "read_length", "read_long", "read_rest", "read_text", "time_of",
        "timedelta_of", "uuid_of",
    )
} | {
    "read_any": read_any,
    "read_any_map": read_any_map,
    "BOOLEANS": Choices(_wire.BOOLEANS, "a boolean's byte, 0 or 1"),
    "Decimal": Decimal,
    "read_double": Struct("<d").unpack_from,
    "read_float": Struct("<f").unpack_from,
    "as_float": lambda number: _FLOAT.unpack(_FLOAT.pack(number))[0],
}  # fmt: skip


class Decoder:
    """What reads one writer's bytes as one reader's values.

    Args:
        writer: the schema that the bytes were written with.
        reader: the schema that is wanted; where it was derived from an event class, its objects come out.
        title: what it is called in a traceback.
        constants: the class's event type and version, which stand in for the writer's.
        start: bytes of a constant head (event type and version) that the caller has compared already.
    """

    def __init__(
        self, writer: SchemaNode, reader: SchemaNode, title: str, *, constants: bool = False, start: int | None = None
    ) -> None:
        self.source = Source(f"decoder of {title}", _NAMES)
        self._functions: dict[tuple[int, int | None], str] = {}
        self._pending: list[Callable[[], None]] = []
        self._nodes: list[SchemaNode | None] = []  # keeps ids alive
        self._loops = 0
        self._uses_state = False
        self._exact = writer is reader
        self._main(writer, reader, constants, start)
        while self._pending:
            self._pending.pop()()
        state = "[0, 0]" if self._uses_state else "None"
        self.source.replace(1, f"    state = {state}")
        self.decode: Callable[..., Any] = self.source.function("decode")
        """``decode(data, pos)``: the value that starts there and ends with the bytes. Raises what `FAILURES` names."""

    def _main(self, writer: SchemaNode, reader: SchemaNode, constants: bool, start: int | None) -> None:
        source = self.source
        with source.block("def decode(data, pos):"):
            source.line("state = None")
            if isinstance(reader.shape, Record) and writer.kind == "record":
                self._record(writer, reader, constants=constants, compared=start is not None, end=True)
            else:
                value = self._value(writer, reader)
                self._end()
                source.line(f"return {value}")

    def _end(self) -> None:
        self.source.line("if pos != len(data): raise NotAvroError(ending(data, pos))")
        self.source.names["ending"] = _ending

    # --- any type --------------------------------------------------------------------------------------------

    def _value(self, writer: SchemaNode, reader: SchemaNode) -> str:
        """Add lines that read one value; returns the expression that it is in then."""
        if writer.kind == "union":
            return self._union(writer, reader)
        if reader.kind == "union":
            branch = best_branch(writer, reader.branches)
            return self._mismatch(writer, reader) if branch is None else self._value(writer, branch)
        if mismatch(writer, reader):
            return self._mismatch(writer, reader)
        if reader.kind == "record":
            if kind_of(reader.shape) == "any" and same_schema(writer, reader):
                return self._call("read_any(data, pos)")
            return self._call(f"{self._function(writer, reader)}(data, pos, state)")
        if reader.kind in ("array", "map"):
            if reader.shape == Map(Scalar("str"), Scalar("any")) and same_schema(writer.item, reader.item):
                return self._call("read_any_map(data, pos)")
            if self._loops:
                return self._call(f"{self._function(writer, reader)}(data, pos, state)")
            return self._collection(writer, reader)
        if reader.kind == "enum":
            return self._enum(writer, reader)
        return self._scalar(writer, reader)

    def _call(self, call: str) -> str:
        value = self.source.new()
        self.source.line(f"{value}, pos = {call}")
        return value

    def _mismatch(self, writer: SchemaNode, reader: SchemaNode) -> str:
        self.source.line(f"raise NotAvroError({f'written as {describe(writer)}, which is not {describe(reader)}'!r})")
        return "None"

    def _unsigned(self) -> str:
        """A number as it stands in the bytes, zig-zag."""
        number = self.source.new("n")
        self.source.line(f"{number} = data[pos]; pos += 1")
        self.source.line(f"if {number} > 127: {number}, pos = read_rest(data, pos, {number})")
        return number

    def _union(self, writer: SchemaNode, reader: SchemaNode) -> str:
        source, value = self.source, self.source.new()
        number = self._unsigned()
        same_union = same_schema(writer, reader)
        for index, branch in enumerate(writer.branches):
            same = reader.branches[index] if same_union else reader
            with source.block(f"{'el' if index else ''}if {number} == {2 * index}:"):
                source.line(f"{value} = {self._value(branch, same)}")
        wrong = f'f"branch {{{number} >> 1 ^ -({number} & 1)}} of a union of {len(writer.branches)}"'
        source.line(f"else: raise NotAvroError({wrong})" if writer.branches else f"raise NotAvroError({wrong})")
        return value

    def _enum(self, writer: SchemaNode, reader: SchemaNode) -> str:
        objects: dict[str, Any] = {symbol: symbol for symbol in reader.symbols}
        if isinstance(reader.shape, Enumeration):
            objects = dict(enum_symbols(reader.shape.cls) or {})
        elif isinstance(reader.shape, Literals):
            symbols = enum_symbols(type(reader.shape.values[0])) or {}
            objects = {symbol: member for symbol, member in symbols.items() if member in reader.shape.values}
        if reader.default is not None:
            objects = dict.fromkeys(writer.symbols, objects[reader.default]) | objects
        known = {2 * i: objects[symbol] for i, symbol in enumerate(writer.symbols) if symbol in objects}
        choices = self.source.constant(_Symbols(known, writer, reader), "SYMBOLS")
        return f"{choices}[{self._unsigned()}]"

    # --- scalars ---------------------------------------------------------------------------------------------

    def _scalar(self, writer: SchemaNode, reader: SchemaNode) -> str:
        shape, source = reader.shape, self.source
        if isinstance(shape, Other):
            return f"{source.constant(shape.from_json, 'from_json')}({self._raw(writer, 'bytes')})"
        if shape is None:
            shape = generic_shape(reader)
        if kind_of(shape) == "datetime" and writer.logical != "timestamp-millis":
            return self._call("read_datetime(data, pos)")
        raw = self._raw(writer, reader.kind)
        match shape:
            case Literals(values):
                return f"{source.constant(Choices({v: v for v in values}, f'one of {values!r}'), 'LITERALS')}[{raw}]"
            case Enumeration(cls) if reader.kind == "long":
                return f"{source.constant(cls, 'Flag')}({raw})"
            case Enumeration(cls):
                members = Choices({member.name: member for member in cls}, f"a {cls.__name__}")
                return f"{source.constant(members, 'MEMBERS')}[{raw}]"
            case Scalar("decimal", limits) if reader.kind == "string":
                return f"{'Decimal' if limits.get('allow_inf_nan') else 'finite_decimal'}({raw})"
            case Scalar("decimal"):
                stated = writer if writer.logical == "decimal" else reader
                return f"decimal_of({raw}, {stated.precision}, {stated.scale})"
            case Scalar("int") if reader.kind == "bytes":
                return f"int_of({raw}, {reader.precision})"
            case Scalar("uuid" | "date" | "time" | "timedelta" | "datetime" as kind):
                return f"{kind}_of({_scaled(raw, writer, reader)})"
        return _scaled(raw, writer, reader)

    def _raw(self, writer: SchemaNode, wanted: str) -> str:
        """Add lines that read a primitive value, promoted to the wanted kind."""
        source = self.source
        if writer.kind == "null":
            return "None"
        if writer.kind == "boolean":
            source.line("pos += 1")
            return self._kept("BOOLEANS[data[pos - 1]]")
        if writer.kind in ("int", "long"):
            number = self._unsigned()
            value = f"({number} >> 1 ^ -({number} & 1))"
            if writer.kind == "int":
                source.line(f"if {number} > 0xFFFFFFFF: raise NotAvroError('an int of more than 32 bits')")
            return value if wanted in ("int", "long") else f"{'as_float' if wanted == 'float' else 'float'}({value})"
        if writer.kind in ("float", "double"):
            source.line(f"pos += {4 if writer.kind == 'float' else 8}")
            size = 4 if writer.kind == "float" else 8
            return self._kept(f"read_{writer.kind}(data, pos - {size})[0]")
        if writer.kind == "fixed":
            source.line(f"if len(data) - pos < {writer.size}: raise NotAvroError('too few bytes for a fixed')")
            source.line(f"pos += {writer.size}")
            return self._kept(f"data[pos - {writer.size}:pos]")
        length, start = source.new("n"), source.new("s")
        source.line(f"{length} = data[pos]")
        source.line(f"if {length} & 129: {length}, {start} = read_length(data, pos); pos = {start} + {length}")
        source.line(f"else: {start} = pos + 1; pos = {start} + ({length} >> 1)")
        return self._kept(f"data[{start}:pos]" + (".decode()" if wanted == "string" else ""))

    def _kept(self, expression: str) -> str:
        """The value of an expression in a variable, since what comes next moves the position."""
        value = self.source.new()
        self.source.line(f"{value} = {expression}")
        return value

    # --- collections -----------------------------------------------------------------------------------------

    def _collection(self, writer: SchemaNode, reader: SchemaNode) -> str:
        source, shape = self.source, reader.shape
        values, count = source.new(), source.new("n")
        entries = isinstance(reader.item.shape, Entry)
        is_dict = reader.kind == "map" or entries
        source.line(f"{values} = {'{}' if is_dict else '[]'}")
        with source.block("while True:"), source.at(f"{source.place}[]"):
            self._count(count, writer)
            source.line(f"if not {count}: break")
            self._loops += 1
            with source.block(f"for _ in range({count}):"):
                if reader.kind == "map":
                    key = self._raw(SchemaNode("string"), "string")
                    source.line(f"{values}[{key}] = {self._value(writer.item, reader.item)}")
                elif entries:
                    key, value = source.new(), source.new()
                    source.line(f"{key}, {value} = {self._value(writer.item, reader.item)}")
                    source.line(f"{values}[{key}] = {value}")
                else:
                    source.line(f"{values}.append({self._value(writer.item, reader.item)})")
            self._loops -= 1
        if isinstance(shape, Array) and shape.container is not list:
            return f"{shape.container.__name__}({values})"
        return values

    def _count(self, count: str, writer: SchemaNode) -> None:
        least = least_bytes(writer.item) + (writer.kind == "map")
        self.source.line(f"{count} = data[pos]")
        self.source.line(f"if {count} & 129: {count}, pos = read_count(data, pos, {least})")
        self.source.line(f"else: {count} >>= 1; pos += 1")
        if not least:
            self._uses_state = True
            self.source.line(f"state[1] += {count}")
            self.source.line(
                f"if state[1] > {MAX_ITEMS_WITHOUT_BYTES}: raise NotAvroError('more than {MAX_ITEMS_WITHOUT_BYTES:,} "
                "items that take no bytes')"
            )

    # --- records ---------------------------------------------------------------------------------------------

    def _function(self, writer: SchemaNode, reader: SchemaNode | None) -> str:
        """The name of a function that reads, or without a reader skips, values of a type."""
        key = (id(writer), None if reader is None else id(reader))
        name = self._functions.get(key)
        if name is None:
            self._nodes += (writer, reader)
            name = self._functions[key] = self.source.new("skip" if reader is None else "read")
            self._pending.append(lambda: self._define(name, writer, reader))
        return name

    def _define(self, name: str, writer: SchemaNode, reader: SchemaNode | None) -> None:
        source, self._loops = self.source, 0
        with source.at(""), source.block(f"def {name}(data, pos, state):"):
            recursive = is_recursive(writer)
            if recursive:
                self._uses_state = True
                source.line("state[0] += 1")
                source.line(
                    f"if state[0] > {MAX_RECORDS}: raise NotAvroError('nested deeper than {MAX_RECORDS} records')"
                )
            if reader is None:
                self._skip(writer, inside=True)
                result = "pos"
            elif reader.kind == "record":
                self._record(writer, reader, leave="state[0] -= 1" if recursive else None)
                return
            else:
                result = f"{self._collection(writer, reader)}, pos"
            if recursive:
                source.line("state[0] -= 1")
            source.line(f"return {result}")

    def _record(
        self,
        writer: SchemaNode,
        reader: SchemaNode,
        *,
        constants: bool = False,
        compared: bool = False,
        end: bool = False,
        leave: str | None = None,
    ) -> None:
        """Add lines that read a record and return it."""
        source, shape = self.source, reader.shape
        is_event = isinstance(shape, Record) and shape.kind == "event"
        fixed = {"event_type", "version"} if constants else set[str]()
        if is_event and not constants and not self._exact:
            fixed = {"version"}  # of an event inside one: an older writer's, which this class reads
        values = {name: repr(reader.field(name).default) for name in fixed}  # type: ignore[union-attr]
        wanted, missing = pairs(writer, [f for f in reader.fields if f.name not in fixed])
        for item in writer.fields:
            with source.at(item.name):
                target = wanted.pop(item.name, None)
                if compared and item.name in fixed:
                    continue
                if target is None:
                    self._skip(item.type)
                else:
                    value = self._value(item.type, target.type)
                    values[target.name] = value if value.isidentifier() else self._kept(value)
        if end:
            self._end()
        for target in missing:
            with source.at(target.name):
                values[target.name] = self._default(reader, target, values)
        if leave:
            source.line(leave)
        made = self._made(shape, {f.name: values[f.name] for f in reader.fields})
        source.line(f"return {made}" if end else f"return {made}, pos")

    def _default(self, reader: SchemaNode, target: Any, values: dict[str, str]) -> str:
        """The value of a field that the writer does not have."""
        default = field_default(reader, target)
        if default is None:
            problem = f"the writer has no field {target.name!r}, and the reader has no default for it"
            self.source.line(f"raise NotAvroError({problem!r})")
            return "None"
        return self._kept(f"{self.source.constant(default, 'default')}({_dict(values)})")

    def _made(self, shape: Any, values: dict[str, str]) -> str:
        """The expression for the object that a record's fields make."""
        match shape:
            case Entry():
                return f"({values['key']}, {values['value']})"
            case Wrapped() | Scalar():
                return values["value"]
            case Tuple():
                return f"({''.join(f'{value}, ' for value in values.values())})"
            case Record():
                make = self.source.constant(shape.maker(), "make")
                extra = values.pop(EXTRA, None)
                return f"{make}({_dict(values)}{f', {extra}' if extra else ''})"
            case _:
                return _dict(values)

    # --- skipping --------------------------------------------------------------------------------------------

    def _skip(self, writer: SchemaNode, *, inside: bool = False) -> None:
        """Add lines that pass over one value of the writer's; of a record from inside its own function."""
        source = self.source
        if writer.kind == "union":
            number = self._unsigned()
            for index, branch in enumerate(writer.branches):
                with source.block(f"{'el' if index else ''}if {number} == {2 * index}:"):
                    source.line("pass")
                    self._skip(branch)
            source.line(f"else: raise NotAvroError(f'branch of a union: {{{number}}}')")
        elif writer.kind == "record":
            if not inside:
                source.line(f"pos = {self._function(writer, None)}(data, pos, state)")
                return
            for item in writer.fields:
                with source.at(item.name):
                    self._skip(item.type)
        elif writer.kind in ("array", "map"):
            if self._loops:
                source.line(f"pos = {self._function(writer, None)}(data, pos, state)")
                return
            count = source.new("n")
            with source.block("while True:"):
                self._count(count, writer)
                source.line(f"if not {count}: break")
                self._loops += 1
                with source.block(f"for _ in range({count}):"):
                    if writer.kind == "map":
                        self._raw(SchemaNode("string"), "string")
                    source.line("pass")
                    self._skip(writer.item)
                self._loops -= 1
        elif writer.kind == "enum":
            source.line(f"if {self._unsigned()} >= {2 * len(writer.symbols)}: raise NotAvroError('no such symbol')")
        else:
            self._raw(writer, writer.kind)


class _Symbols(dict[int, Any]):
    """What a reader has for the writer's symbols, by their zig-zag numbers."""

    def __init__(self, objects: Mapping[int, Any], writer: SchemaNode, reader: SchemaNode) -> None:
        super().__init__(objects)
        self._writer, self._reader = writer, reader

    def __missing__(self, number: int) -> Any:
        index, symbols = number >> 1 ^ -(number & 1), self._writer.symbols
        if 0 <= index < len(symbols):
            raise ValueError(f"the symbol {symbols[index]!r} is unknown to the reader's enum {self._reader.name}")
        raise ValueError(f"symbol {index} of an enum of {len(symbols)}")


def _ending(data: bytes, pos: int) -> str:
    left = len(data) - pos
    if left < 0:
        return f"the bytes end early: a length points {-left:,} bytes past their end"
    return f"{left:,} bytes are left over behind the value"


def _dict(values: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name!r}: {value}" for name, value in values.items()) + "}"


def _scaled(raw: str, writer: SchemaNode, reader: SchemaNode) -> str:
    """A time or timestamp in the reader's unit."""
    wanted = "micros" if reader.shape is None and kind_of(generic_shape(reader)) else (reader.logical or "")[-6:]
    if (writer.logical or "").endswith("millis") and wanted == "micros":
        return f"({raw} * 1000)"
    return f"({raw} // 1000)" if (writer.logical or "").endswith("micros") and wanted == "millis" else raw


_GENERIC = {"date": "date", "decimal": "decimal"} | dict.fromkeys(("time-millis", "time-micros"), "time")
_GENERIC |= dict.fromkeys(("timestamp-millis", "timestamp-micros"), "datetime")


def generic_shape(node: SchemaNode) -> Scalar | None:
    """What a logical type is in Python where no class says it; a uuid stays the string that it is."""
    kind: Any = _GENERIC.get(node.logical or "")
    return None if kind is None else Scalar(kind)


def field_default(record: SchemaNode, field: SchemaField) -> Callable[[dict[str, Any]], Any] | None:
    """What gives the value of a field that a writer did not have, of the values of those that it had.

    A class's own default, as a program that leaves the field out gets it, counts more than the schema's. It is
    written and read once, so that it is what a round trip makes of it.
    """
    infos = getattr(record.shape.cls, "__pydantic_fields__", {}) if isinstance(record.shape, Record) else {}
    info = infos.get(field.name)
    if info is None or info.is_required():
        if field.default is NO_DEFAULT:
            return None
        decode = Decoder(field.type, field.type, f"default {field.name}").decode
        data = default_bytes(field.type, field.default)
        return lambda values: decode(data, 0)
    encode = Encoder(field.type, f"default {field.name}").encode
    decode = Decoder(field.type, field.type, f"default {field.name}").decode

    def default(values: dict[str, Any]) -> Any:
        value = info.get_default(call_default_factory=True, validated_data=values)
        try:
            return decode(encode(value), 0)
        except (ValueError, TypeError, AttributeError, LookupError):  # a default of another type than the field's
            return deepcopy(value)

    return default
