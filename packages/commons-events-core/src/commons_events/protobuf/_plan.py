"""The messages of an event class: its shape in Protobuf's words, with names and numbers. Needs no protobuf package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum as PyEnum
from enum import Flag
from typing import Any, Literal, NoReturn

from commons_events.errors import EventDefinitionError
from commons_events.event import Event
from commons_events.protobuf._lock import LockedMessage, LockedTypes, locked_types
from commons_events.protobuf._names import (
    camel,
    entry_name,
    enum_doc,
    field_names,
    folded,
    identifier,
    member_label,
    snake,
    unique,
    unique_as,
    word,
)
from commons_events.protobuf._numbers import ENVELOPE_NUMBERS, EXTRA, Wanted, assign
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

__all__ = ["SCALARS", "Enum", "File", "Message", "Slot", "message_name_of", "package_of", "plan_of"]

SCALARS: dict[str, str] = {
    "bool": "bool",
    "bytes": "bytes",
    "date": "string",
    "datetime": "google.protobuf.Timestamp",
    "decimal": "string",
    "float": "double",
    "int": "sint64",
    "str": "string",
    "time": "string",
    "timedelta": "google.protobuf.Duration",
    "uuid": "string",
    "any": "Value",
    "null": "Null",
}
"""What a `Scalar`'s kind is in Protobuf."""
_KEYS = ("string", "sint64", "bool")
"""What may be the key of a map, of the types that are written here."""

Role = Literal["record", "union", "tuple", "box", "entry"]


@dataclass(eq=False, slots=True)
class Enum:
    """A Python enum, by name: the zero value is nobody's."""

    name: str
    cls: type[PyEnum]
    values: dict[str, int]
    """Each member's number, by the member's name."""
    names: dict[str, str]
    """What each member is called: Protobuf's style guide wants the enum's name in front."""
    prefix: str
    reserved: dict[str, int] = field(default_factory=dict)
    doc: str | None = None

    @property
    def unspecified(self) -> str:
        """The name of the zero value, which stands for no member."""
        return f"{self.prefix}_UNSPECIFIED"


@dataclass(eq=False, slots=True)
class Slot:
    """A field of a message."""

    name: str
    number: int
    form: str | Message | Enum
    """A scalar or well-known type by name, ``Value``, ``Null``, or a type of the file."""
    shape: Shape
    """What one value (an item, of several) is in Python."""
    many: Literal["one", "repeated", "map"] = "one"
    nullable: bool = False
    container: type[Any] = list
    field: Field | None = None
    """What it is in the class; None where the message is none of the user's."""

    locked: bool = False
    """Whether the number is one that a lock file keeps; others are fixed."""

    @property
    def merges(self) -> bool:
        """Whether it is one message, of which all that stand there are parts, where other fields' last value counts."""
        return self.many == "one" and (isinstance(self.form, Message) or self.form == "Value")

    @property
    def lock_name(self) -> str | None:
        """What the lock file calls it."""
        return self.label if self.locked else None

    @property
    def label(self) -> str:
        """What an error calls it."""
        return self.field.name if self.field is not None else self.name


@dataclass(eq=False, slots=True)
class Message:
    """A message: a record of the user's, or what Protobuf needs one for (a union, a tuple, a list in a list …)."""

    name: str
    role: Role
    parent: Message | None = None
    slots: list[Slot] = field(default_factory=list)
    nested: list[Message] = field(default_factory=list)
    record: Record | None = None
    shape: Shape | None = None
    reserved: dict[str, int] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)

    @property
    def path(self) -> str:
        """The name, with those of the messages around it."""
        return self.name if self.parent is None else f"{self.parent.path}.{self.name}"

    def key(self, root: Message) -> str:
        """The path, where the event's own message is called ``event`` in whatever version of its class."""
        if self is root:
            return "event"
        return self.name if self.parent is None else f"{self.parent.key(root)}.{self.name}"

    @property
    def blanks(self) -> bool:
        """Whether a field may be None or empty although its default is neither, which only `BLANK` can tell."""
        return any(map(blankable, self.slots))


def blankable(slot: Slot) -> bool:
    """Whether the field's absence alone cannot say what it is: its default is not what absence means."""
    if slot.field is None or slot.field.required:
        return False
    default = slot.field.default
    if slot.nullable:
        return default is not None
    return slot.many != "one" and not (isinstance(default, slot.container | dict) and not default)


@dataclass(eq=False, slots=True)
class File:
    """All messages of an event class."""

    package: str
    event_class: type[Event]
    root: Message
    messages: list[Message]
    """Those at the top, the event first."""
    enums: list[Enum]
    uses_value: bool
    uses_null: bool
    unlocked: tuple[str, ...]
    """Fields whose number comes from their order alone."""

    def all_messages(self) -> Iterator[Message]:
        """Those at the top and those inside them."""
        waiting = list(self.messages)
        while waiting:
            message = waiting.pop(0)
            yield message
            waiting[:0] = message.nested


def plan_of(event_class: type[Event], locked: LockedTypes | None = None) -> File:
    """The messages of a class.

    Args:
        event_class: the class.
        locked: the numbers that it has; by default those of its lock file.

    Raises:
        EventDefinitionError: Protobuf cannot hold a field exactly, or a number does not fit; with the field.
    """
    package = package_of(event_class)
    if locked is None:
        locked = locked_types(event_class, package)
    return _Planner(event_class, package, locked).plan()


def package_of(event_class: type[Event]) -> str:
    """The package: the event type and the major version, so that what shares a package shares its numbers."""
    segments = [snake(identifier(part)) for part in event_class.event_type.split(".") if part]
    major = event_class.schema_info().version.partition(".")[0]
    return ".".join([*segments, f"v{major}"])


def message_name_of(event_class: type[Event]) -> str:
    """The event's own message, called alike in whatever class a version has: ``OrderPlaced`` of ``order.placed``."""
    return "_".join([part for part in event_class.event_type.split(".") if part][-2:])


class _Planner:
    def __init__(self, event_class: type[Event], package: str, locked: LockedTypes) -> None:
        self._class = event_class
        self._locked = locked
        self._package = package
        self._records: dict[type[Any], Message] = {}
        self._enums: dict[type[PyEnum], Enum] = {}
        self._top: list[Message] = []
        self._taken = {"Value", "ValueList", "ValueMap", "NullValue", "Null", "NULL_VALUE"}
        self._uses: set[str] = set()
        self._unlocked: list[str] = []
        self._place = ""

    def plan(self) -> File:
        root = self._record(shape_of(self._class))
        return File(
            self._package, self._class, root, self._top, list(self._enums.values()), "Value" in self._uses,
            "Null" in self._uses, tuple(self._unlocked),
        )  # fmt: skip

    # --- messages ---

    def _record(self, record: Record) -> Message:
        message = self._records.get(record.cls)
        if message is not None:
            return message
        name = message_name_of(self._class) if record.cls is self._class else record.name
        message = Message(unique(camel(name), self._taken), "record", record=record)
        self._records[record.cls] = message
        self._top.append(message)
        envelope = ENVELOPE_NUMBERS if record.kind == "event" else {}
        own = [f for f in record.fields if f.name not in envelope]
        numbers = self._numbers(message, [Wanted(f.name, f.number, f.aliases) for f in own], warn=True)
        names = field_names(record.fields)
        message.taken |= set(names.values()) | {f"_{name}" for name in names.values()}
        outer = self._place
        for f in record.fields:
            self._place = f"{record.name}.{f.name}"
            number = envelope.get(f.name) or numbers[f.name]
            slot = self._slot(names[f.name], number, f.shape, message, f)
            slot.locked = f.name not in envelope
            message.slots.append(slot)
        self._place = outer
        if record.kind in ("event", "model") and record.keeps_extra:
            self._uses.add("Value")
            extra = Scalar("any")
            entry = self._entry("extra_fields", Scalar("str"), extra, message)
            message.slots.append(Slot("extra_fields", EXTRA, entry, Map(Scalar("str"), extra), "map", container=dict))
        return message

    def _numbers(self, message: Message, wanted: Sequence[Wanted], *, warn: bool = False) -> dict[str, int]:
        locked = self._locked.messages.get(message.key(self._top[0]), LockedMessage())
        where = f"{self._class.__qualname__} (Protobuf message {message.path})"
        numbers, unlocked = assign(wanted, locked.numbers, locked.reserved, where)
        message.reserved = dict(locked.reserved)
        if warn:
            self._unlocked += [f"{message.path}.{name}" for name in unlocked]
        return numbers

    def _inner(self, hint: str, role: Role, parent: Message, shape: Shape) -> Message:
        """A message that Protobuf needs and Python doesn't, inside the one that has the field."""
        message = Message(unique(hint, parent.taken), role, parent, shape=shape)
        parent.nested.append(message)
        return message

    def _entry(self, name: str, key: Shape, value: Shape, parent: Message) -> Message:
        message = self._inner(f"{entry_name(name)}Entry", "entry", parent, Map(key, value))
        for number, (part, shape) in enumerate((("key", key), ("value", value)), 1):
            # what an entry needs stands beside it: in the text there is no message that it could stand in
            message.slots.append(Slot(part, number, self._element(f"{name}_{part}", shape, parent), shape))
        return message

    # --- fields ---

    def _slot(self, name: str, number: int, shape: Shape, parent: Message, f: Field | None = None) -> Slot:
        nullable = False
        if isinstance(shape, Union) and shape.members[0] == Scalar("null"):
            nullable = True
            shape = shape.members[1] if len(shape.members) == 2 else Union(shape.members[1:], shape.discriminator)
        if nullable and isinstance(shape, Array | Map):
            box = self._inner(f"{camel(name)}{word(shape)}", "box", parent, shape)
            return Slot(name, number, self._boxed(box, shape), shape, nullable=True, field=f)
        if isinstance(shape, Array):
            return Slot(
                name, number, self._element(name, shape.item, parent), shape.item, "repeated",
                container=shape.container, field=f,
            )  # fmt: skip
        if isinstance(shape, Map):
            entry = self._entry(name, shape.key, shape.value, parent)
            native = _is_map(entry)
            return Slot(name, number, entry, shape, "map" if native else "repeated", container=dict, field=f)
        return Slot(name, number, self._element(name, shape, parent), shape, nullable=nullable, field=f)

    def _boxed(self, box: Message, shape: Shape) -> Message:
        name = "value" if not isinstance(shape, Array | Map) else "items" if isinstance(shape, Array) else "entries"
        box.slots = [self._slot(name, 1, shape, box)]
        return box

    def _element(self, name: str, shape: Shape, parent: Message) -> str | Message | Enum:
        """The type of one value; where it needs a message of its own, that is made."""
        if isinstance(shape, Scalar):
            form = "string" if shape.digits_past_64_bits else SCALARS[shape.kind]
            self._uses.add(form)
            return form
        if isinstance(shape, Other):
            return "string"
        if isinstance(shape, Enumeration):
            return self._enum(shape.cls)
        if isinstance(shape, Literals):
            return self._literal(shape)
        if isinstance(shape, Record):
            return self._record(shape)
        if isinstance(shape, Tuple):
            message = self._inner(f"{camel(name)}Tuple", "tuple", parent, shape)
            for place, item in enumerate(shape.items, 1):
                message.slots.append(self._slot(f"item_{place}", place, item, message))
            return message
        if isinstance(shape, Union) and shape.members[0] != Scalar("null"):
            return self._union(f"{camel(name)}Union", shape, parent)
        return self._boxed(self._inner(f"{camel(name)}{word(shape)}", "box", parent, shape), shape)

    def _union(self, hint: str, shape: Union, parent: Message) -> Message:
        message = self._inner(hint, "union", parent, shape)
        names: set[str] = set()
        labels = [unique(member_label(member), names) for member in shape.members]
        numbers = self._numbers(message, [Wanted(label, None, ()) for label in labels])
        message.taken |= {*labels, "kind"}
        for label, member in zip(labels, shape.members, strict=True):
            boxed = isinstance(member, Array | Map)
            type_ = (
                self._boxed(self._inner(f"{camel(label)}{word(member)}", "box", message, member), member)
                if boxed
                else self._element(label, member, message)
            )
            message.slots.append(Slot(label, numbers[label], type_, member, locked=True))
        return message

    def _enum(self, cls: type[PyEnum]) -> Enum:
        found = self._enums.get(cls)
        if found is None:
            if issubclass(cls, Flag):
                self._refuse(
                    f"{cls.__name__} is a Flag, whose values combine, and a Protobuf enum's do not. Use an int."
                )
            name = unique(camel(cls.__name__), self._taken)
            members = [member.name for member in cls]
            locked = self._locked.enums.get(name, LockedMessage())
            where = f"{self._class.__qualname__} (Protobuf enum {name})"
            numbers, _ = assign([Wanted(m, None, ()) for m in members], locked.numbers, locked.reserved, where)
            prefix = snake(name).upper()
            known = {"unspecified"}  # protoc passes over case and underscores
            names = {m: f"{prefix}_{unique_as(identifier(m).upper(), known, folded)}" for m in members}
            found = Enum(name, cls, numbers, names, prefix, dict(locked.reserved), enum_doc(cls))
            used = {*names.values(), found.unspecified}
            if self._taken & used:
                self._refuse(
                    f"{', '.join(sorted(self._taken & used))}, of {cls.__name__}, is the name of another type or "
                    "value. Rename one."
                )
            self._taken |= used
            self._enums[cls] = found
        return found

    def _literal(self, shape: Literals) -> str | Enum:
        kinds = {type(value) for value in shape.values}
        if len(kinds) == 1:
            kind = kinds.pop()
            if issubclass(kind, PyEnum):
                return self._enum(kind)
            if kind is int and not all(-(2**63) <= value < 2**63 for value in shape.values):
                self._refuse(f"a Literal of {shape.values!r} has an int past 64 bits. Use an Enum.")
            if kind in _LITERALS:
                return _LITERALS[kind]
        if not all(type(value) in (str, int, bool, type(None)) for value in shape.values):
            self._refuse(f"a Literal of {shape.values!r} mixes types that Protobuf has no one type for. Use an Enum.")
        self._uses.add("Value")
        return "Value"

    def _refuse(self, reason: str) -> NoReturn:
        raise EventDefinitionError(
            f"{self._class.__qualname__}: field {self._place!r} has no form in Protobuf: {reason}"
        )


_LITERALS: dict[type[Any], str] = {str: "string", int: "sint64", bool: "bool", bytes: "bytes"}


def _is_map(entry: Message) -> bool:
    return entry.slots[0].form in _KEYS
