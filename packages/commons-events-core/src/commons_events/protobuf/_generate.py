"""Writes the Python that reads and writes a class's messages.

Each message has two functions, ``E3(value, depth)`` to bytes and ``D3(data, depth, strange)`` back, of which ``R3`` is
the part behind the parser. They name no fields while all is well: where something fails, the line that it failed in
tells the field.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from google.protobuf.message import DecodeError, EncodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from commons_events.event import Event
from commons_events.event._values import MAX_DEPTH
from commons_events.protobuf._numbers import BLANK, ENVELOPE_NUMBERS, EXTRA
from commons_events.protobuf._plan import Enum, Message, Slot, blankable
from commons_events.protobuf._scalars import (
    from_duration,
    from_text,
    from_timestamp,
    to_duration,
    to_text,
    to_timestamp,
)
from commons_events.protobuf._unions import picker
from commons_events.protobuf._value import read_members, read_value, write_members, write_value
from commons_events.protobuf._wire import LENGTH, LENGTHS, WireError, spans, tag, varint
from commons_events.shapes import Literals, Map, Other, Scalar

__all__ = ["Generator"]

CAUGHT = (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, RecursionError, DecodeError, EncodeError)
"""What a value that does not fit raises, out of the libraries that look at it. A validator's errors are among them."""
_ABSENT: Any = object()
_MOMENTS = {"google.protobuf.Timestamp": (to_timestamp, from_timestamp), "google.protobuf.Duration": (
    to_duration, from_duration,
)}  # fmt: skip
_PLAIN = ("bool", "bytes", "double", "sint64", "string")
_FALSY: dict[str, Any] = {"bool": False, "bytes": b"", "double": 0.0, "sint64": 0, "string": ""}


class Generator:
    """Writes the functions of an event class.

    Args:
        messages: the event's first.
        index: the place of each of them.
        classes: what parses each of them.
        title: what the code is called in tracebacks.
        misfit: makes an error of what was raised, the message's place, its bytes, and the fields by lines.
        strange: is told of a message, by its place and bytes, that has unknown fields.
    """

    def __init__(
        self,
        messages: list[Message],
        index: dict[Message, int],
        classes: list[Any],
        *,
        title: str,
        misfit: Callable[[Exception, int, bytes | None, dict[int, str]], WireError],
        strange: Callable[[int, Any, bytes, list[int]], None],
    ) -> None:
        self._messages = messages
        self._index = index
        self._title = title
        self._lines: list[str] = []
        self._places: dict[int, str] = {}
        self._names: dict[str, Any] = {
            "CAUGHT": CAUGHT, "ABSENT": _ABSENT, "UNKNOWN": UnknownFieldSet, "WireError": WireError,
            "VALUES": read_members, "MEMBERS": write_members, "READ": read_value, "WRITE": write_value,
            "MISFIT": misfit, "STRANGE": strange, "PLACES": self._places, "MERGED": _merged,
        }  # fmt: skip
        for number, cls in enumerate(classes):
            self._names[f"C{number}"] = cls
            self._names[f"P{number}"] = cls.FromString

    def compile(self) -> dict[str, Any]:
        """The functions, by name: ``E0``, ``D0`` and ``R0`` are those of the event itself."""
        for number, message in enumerate(self._messages):
            self._encoder(number, message)
            self._decoder(number, message)
        source = "\n".join(self._lines)
        exec(compile(source, f"<protobuf of {self._title}>", "exec"), self._names)
        return self._names

    def _line(self, text: str, place: str = "") -> None:
        self._lines.append(text)
        if place:
            self._places[len(self._lines)] = place

    def _constant(self, value: Any) -> str:
        name = f"k{len(self._names)}"
        self._names[name] = value
        return name

    # --- writing ---

    def _encoder(self, number: int, message: Message) -> None:
        self._line(f"def E{number}(value, depth):")
        self._line(f"    if depth > {MAX_DEPTH}: raise WireError('it is nested deeper than {MAX_DEPTH} levels')")
        self._line("    try:")
        self._line(f"        m = C{number}()")
        record = message.record
        before = ""
        if message.role == "union":
            self._line(f"        i = {self._constant(picker([slot.shape for slot in message.slots]))}(value)")
            for place, slot in enumerate(message.slots):
                self._line(f"        {'el' if place else ''}if i == {place}:")
                for line in self._put(slot, "value", in_union=True):
                    self._line(f"            {line}", slot.label)
        else:
            if record is not None:
                self._line(f"        v = {self._values(message)}")
            for place, slot in enumerate(message.slots):
                if record is not None and record.kind == "event" and slot.name in ("event_type", "version"):
                    text = str(slot.field.default).encode() if slot.field is not None else b""
                    before += f"{tag(slot.number, LENGTH) + varint(len(text)) + text!r}"
                    continue
                for line in self._set(slot, self._get(message, place, slot)):
                    self._line(f"        {line}", slot.label)
        result = "m.SerializeToString()"
        if before:
            whole = b"".join(
                tag(s.number, LENGTH) + varint(len(t)) + t
                for s in message.slots
                if s.name in ("event_type", "version") and s.field is not None
                for t in (str(s.field.default).encode(),)
            )
            result = f"{self._constant(whole)} + {result}"
        self._line(f"        return {result}")
        self._line("    except CAUGHT as error:")
        self._line(f"        raise MISFIT(error, {number}, None, PLACES) from error")

    def _values(self, message: Message) -> str:
        record = message.record
        assert record is not None
        if record.kind in ("event", "model"):
            return "value.__dict__"
        return f"{self._constant(record.values())}(value)"

    def _get(self, message: Message, place: int, slot: Slot) -> str:
        if slot.number == EXTRA and message.record is not None and slot.field is None:
            return "(value.__pydantic_extra__ or {})"
        if slot.field is not None:
            return f"v[{slot.field.name!r}]"
        return "value" if message.role == "box" else f"value[{place}]"

    def _set(self, slot: Slot, get: str) -> list[str]:
        blank = f"m.f{BLANK}.append({slot.number})"
        if slot.nullable:
            lines = [f"x = {get}", "if x is not None:", *(f"    {line}" for line in self._put(slot, "x"))]
            return [*lines, f"else: {blank}"] if blankable(slot) else lines
        if slot.many != "one" and blankable(slot):
            return [f"x = {get}", *self._put(slot, "x"), f"if not x: {blank}"]
        return self._put(slot, get)

    def _put(self, slot: Slot, get: str, *, in_union: bool = False) -> list[str]:
        merges = slot.merges and not in_union
        target = f"m.f{slot.number}"
        if slot.many == "one":
            if slot.form in _MOMENTS:
                to = self._constant(_MOMENTS[str(slot.form)][0])
                return [f"t = {target}", f"t.seconds, t.nanos = {to}({get})"]
            return [f"{target}.append({self._coded(slot, get)})" if merges else f"{target} = {self._coded(slot, get)}"]
        if _is_any_map(slot):
            return [f"{target}.extend(MEMBERS({get}))"]
        items = f"{get}.items()" if isinstance(slot.shape, Map) and slot.container is dict else get
        if slot.form in _MOMENTS:
            to = self._constant(_MOMENTS[str(slot.form)][0])
            return [f"for i in {items}:", f"    t = {target}.add(); t.seconds, t.nanos = {to}(i)"]
        coded = self._coded(slot, "i")
        return [f"{target}.extend({items})" if coded == "i" else f"{target}.extend([{coded} for i in {items}])"]

    def _coded(self, slot: Slot, get: str) -> str:
        """The expression for one value as the message holds it."""
        if isinstance(slot.form, Message):
            return f"E{self._index[slot.form]}({get}, depth + 1)"
        if isinstance(slot.form, Enum):
            numbers = {member: slot.form.values[member.name] for member in slot.form.cls}
            return f"{self._constant(numbers)}[{get}]"
        if slot.form == "Value":
            return f"WRITE({get})"
        if slot.form == "Null":
            return "b''"
        if isinstance(slot.shape, Other):
            return f"{self._constant(slot.shape.to_json)}({get}).decode()"
        convert = to_text(slot.shape) if isinstance(slot.shape, Scalar) else None
        return get if convert is None else f"{self._constant(convert)}({get})"

    # --- reading ---

    def _decoder(self, number: int, message: Message) -> None:
        self._line(f"def D{number}(data, depth, strange):")
        self._line(f"    if depth > {MAX_DEPTH}: raise WireError('it is nested deeper than {MAX_DEPTH} levels')")
        self._line("    try:")
        self._line(f"        m = P{number}(data)")
        if message.record is not None and message.record.kind == "event":
            cls: type[Event] = message.record.cls
            wrong = f"it is an event of another type or version than {cls.event_type!r} {cls.schema_info().version}"
            self._line(
                f"        if m.f{ENVELOPE_NUMBERS['event_type']} != {cls.event_type!r} or "
                f"m.f{ENVELOPE_NUMBERS['version']} != {cls.schema_info().version!r}: raise WireError({wrong!r})"
            )
        self._line(f"        return R{number}(m, data, depth, strange)")
        self._line("    except CAUGHT as error:")
        self._line(f"        raise MISFIT(error, {number}, data, PLACES) from error")
        self._line(f"def R{number}(m, data, depth, strange):")
        self._line("    try:")
        self._line(f"        if unknown := UNKNOWN(m): STRANGE({number}, unknown, data, strange)")
        if message.role == "union":
            self._union_reader(message)
        else:
            self._reader(message)
        self._line("    except CAUGHT as error:")
        self._line(f"        raise MISFIT(error, {number}, data, PLACES) from error")
        if message.record is not None:
            self._line(f"    return {self._constant(message.record.maker())}(values)")

    def _union_reader(self, message: Message) -> None:
        self._line("        w = m.WhichOneof('kind')")
        for slot in message.slots:
            self._line(f"        if w == 'f{slot.number}':")
            if slot.form in _MOMENTS:
                back = self._constant(_MOMENTS[str(slot.form)][1])
                text = f"t = m.f{slot.number}; return {back}(t.seconds, t.nanos)"
            else:
                numbers = self._constant({other.number for other in message.slots})
                get = (
                    f"MERGED(data, {slot.number}, m.f{slot.number}, {numbers})" if slot.merges else f"m.f{slot.number}"
                )
                text = f"return {self._decoded(slot, get)}"
            self._line(f"            {text}", slot.label)
        self._line("        raise WireError('the union has none of the members that are known here')")

    def _reader(self, message: Message) -> None:
        self._line("        lacks = False")
        names: list[str] = []
        extra = ""
        for place, slot in enumerate(message.slots):
            if (
                slot.field is not None
                and message.record is not None
                and message.record.kind == "event"
                and (slot.name in ("event_type", "version"))
            ):
                names.append(f"{slot.field.name!r}: {slot.field.default!r}")
                continue
            for line in self._take(slot, f"x{place}", message.role):
                self._line(f"        {line}", slot.label)
            if slot.field is not None:
                names.append(f"{slot.field.name!r}: x{place}")
            elif slot.number == EXTRA and message.record is not None:
                extra = f"x{place}"
            else:
                names.append(f"x{place}")
        if message.record is None:
            several = "".join(f"{name}, " for name in names)
            self._line(f"        return {names[0] if message.role == 'box' else f'({several})'}")
            return
        self._line(f"        values = {{{'**' + extra + ', ' if extra else ''}{', '.join(names)}}}")
        complete = self._constant(_completer(message))
        self._line(f"        if lacks: return {complete}(values)")

    def _take(self, slot: Slot, name: str, role: str) -> list[str]:
        """Statements that leave the field's value in ``name``."""
        source = f"m.f{slot.number}"
        if slot.many != "one":
            lines = self._take_many(slot, name, source)
            if blankable(slot):
                lines.append(f"if not {name} and {slot.number} not in m.f{BLANK}: {name} = ABSENT; lacks = True")
            return lines
        present = f"m.HasField('f{slot.number}')"
        absent = self._absent(slot, name, role)
        if slot.form in _MOMENTS:
            back = self._constant(_MOMENTS[str(slot.form)][1])
            return [f"if {present}: t = {source}; {name} = {back}(t.seconds, t.nanos)", f"else: {absent}"]
        if slot.merges:
            decoded = self._decoded(slot, "t[0] if len(t) == 1 else b''.join(t)")
            return [f"t = {source}", f"if t: {name} = {decoded}", f"else: {absent}"]
        if isinstance(slot.form, Enum):
            return [f"n = {source}", f"if n: {name} = {self._decoded(slot, 'n')}", f"else: {absent}"]
        decoded = self._decoded(slot, "t")
        if decoded == "t":
            return [f"{name} = {source}", f"if not {name} and not {present}: {absent}"]
        return [f"t = {source}", f"if t or {present}: {name} = {decoded}", f"else: {absent}"]

    def _absent(self, slot: Slot, name: str, role: str) -> str:
        if slot.field is not None and blankable(slot) and slot.nullable:
            return f"{name} = None if {slot.number} in m.f{BLANK} else ABSENT; lacks = lacks or {name} is ABSENT"
        if slot.nullable:
            return f"{name} = None"
        if slot.field is not None and not slot.field.required:
            return f"{name} = ABSENT; lacks = True"
        if role == "entry" and slot.form in _FALSY:
            return f"{name} = {self._decoded(slot, repr(_FALSY[str(slot.form)]))}"
        if role == "entry" and isinstance(slot.form, Message):
            return f"{name} = {self._decoded(slot, repr(b''))}"
        return "raise WireError('it is missing, and has no default')"

    def _take_many(self, slot: Slot, name: str, source: str) -> list[str]:
        if _is_any_map(slot):
            return [f"{name} = VALUES({source})"]
        if slot.form in _MOMENTS:
            back = self._constant(_MOMENTS[str(slot.form)][1])
            items = f"[{back}(t.seconds, t.nanos) for t in {source}]"
        else:
            decoded = self._decoded(slot, "t")
            items = f"{source}[:]" if decoded == "t" else f"[{decoded} for t in {source}]"
        if slot.container is not list:
            items = f"{slot.container.__name__}({items})"
        return [f"{name} = {items}"]

    def _decoded(self, slot: Slot, get: str) -> str:
        if isinstance(slot.form, Message):
            return f"D{self._index[slot.form]}({get}, depth + 1, strange)"
        if isinstance(slot.form, Enum):
            allowed = set(slot.shape.values) if isinstance(slot.shape, Literals) else set(slot.form.cls)
            members = {slot.form.values[member.name]: member for member in slot.form.cls if member in allowed}
            return f"{self._constant(members)}[{get}]"
        if isinstance(slot.shape, Literals):
            if slot.form == "Value":
                return (
                    f"{self._constant({(type(v), v): v for v in slot.shape.values})}[{self._constant(_typed)}({get})]"
                )
            return f"{self._constant({v: v for v in slot.shape.values})}[{get}]"
        if slot.form == "Value":
            return f"READ({get})"
        if slot.form == "Null":
            return f"{self._constant(_null)}({get})"
        if isinstance(slot.shape, Other):
            return f"{self._constant(slot.shape.from_json)}({get}.encode())"
        convert = from_text(slot.shape) if isinstance(slot.shape, Scalar) else None
        return get if convert is None else f"{self._constant(convert)}({get})"


def _is_any_map(slot: Slot) -> bool:
    shape = slot.shape
    return (
        slot.many == "map"
        and isinstance(shape, Map)
        and shape.key == Scalar("str")
        and (isinstance(shape.value, Scalar) and shape.value.kind == "any")
    )


def _completer(message: Message) -> Callable[[dict[str, Any]], Any]:
    """Where fields are absent pydantic completes the record, so that their defaults are what they are elsewhere."""
    assert message.record is not None
    complete = message.record.completer()
    return lambda values: complete({name: value for name, value in values.items() if value is not _ABSENT})


def _typed(data: bytes) -> tuple[type[Any], Any]:
    value = read_value(data)
    return type(value), value


def _null(data: bytes) -> None:
    return None


def _merged(data: bytes, number: int, last: bytes, members: Collection[int]) -> bytes:
    """A member of a union that is a message, and may stand there several times in a row."""
    size = len(last)
    if len(data) == size + len(tag(number, LENGTH)) + len(LENGTHS[size] if size < 16384 else varint(size)):
        return last  # there is no other
    parts: list[bytes] = []
    for span in spans(data):
        if span.number == number:
            parts.append(data[span.value : span.end])
        elif span.number in members:
            parts.clear()
    return b"".join(parts)
