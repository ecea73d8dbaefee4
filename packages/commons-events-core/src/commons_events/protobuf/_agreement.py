"""Whether two versions of an event mean the same fields by the same numbers: by them alone is one read as the other."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from commons_events.errors import EventDefinitionError
from commons_events.event import Event, registry
from commons_events.event._versions import same_major
from commons_events.protobuf._plan import Enum, File, Message, Slot, plan_of
from commons_events.shapes import Field, Other

__all__ = ["check_versions", "disagreement", "newly_required", "unsettled"]

_unsettled = ContextVar("_unsettled", default=False)


@contextmanager
def unsettled() -> Generator[None]:
    """Let versions whose numbers clash be defined: for what gives them other ones, by a lock file."""
    token = _unsettled.set(True)
    try:
        yield
    finally:
        _unsettled.reset(token)


def check_versions(file: File) -> None:
    """Raise `EventDefinitionError` where another version of the class, within its major one, has other numbers."""
    if _unsettled.get():
        return
    cls = file.event_class
    own = cls.schema_info().version
    for (event_type, version), other in registry.classes().items():
        if event_type != cls.event_type or version == own or not same_major(version, own) or other is cls:
            continue
        if other.schema_info().schema_type != "protobuf" or not other.__pydantic_complete__:
            continue
        problem = disagreement(plan_of(other), file)
        if problem is not None:
            raise EventDefinitionError(
                f"{cls.__qualname__} {cls.event_type!r} {own} could not read what {other.__qualname__} {version} "
                f"writes as Protobuf: {problem}"
            )


def disagreement(writer: File, reader: File) -> str | None:
    """What a number means to the writer and to the reader, where that is not the same, and what to do about it.

    None where they agree.
    """
    for theirs, ours in _pairs(writer, reader):
        clash = _clash(theirs, ours) or _enum_clash(theirs, ours)
        if clash is not None:
            return f"{clash}. {_advice(reader.event_class)}"
        for before, slot in _both(theirs, ours):
            if _kind(before).replace("bytes", "string") != _kind(slot).replace("bytes", "string"):  # alike on the wire
                return (
                    f"{slot.label!r} of {ours.name} is {_kind(before)} there, and {_kind(slot)} here. Give what has "
                    "another type a new field, or the event a new major version."
                )
    return None


def newly_required(writer: File, reader: File) -> list[tuple[Message, Slot]]:
    """What the reader refuses to be without, and the writer does not have."""
    return [
        (ours, slot)
        for theirs, ours in _pairs(writer, reader)
        for slot in ours.slots
        if slot.field is not None and slot.field.required and slot.many == "one" and not slot.nullable
        if slot.number not in {other.number for other in theirs.slots}
    ]


def _pairs(writer: File, reader: File) -> Iterator[tuple[Message, Message]]:
    """The messages that are read as each other, from the outside inwards."""
    met: set[tuple[Message, Message]] = set()
    waiting = [(writer.root, reader.root)]
    while waiting:
        pair = waiting.pop()
        if pair not in met:
            met.add(pair)
            yield pair
            waiting += (
                (before.form, slot.form)
                for before, slot in _both(*pair)
                if isinstance(before.form, Message) and isinstance(slot.form, Message)
            )


def _both(theirs: Message, ours: Message) -> Iterator[tuple[Slot, Slot]]:
    before = {slot.number: slot for slot in theirs.slots}
    return ((before[slot.number], slot) for slot in ours.slots if slot.number in before)


def _advice(event_class: type[Event]) -> str:
    return (
        f"Write the lock file with `commons-events schema lock {event_class.__module__}`, or state FieldNumber(…); "
        "where the field was renamed, give it its old name as an alias."
    )


def _clash(theirs: Message, ours: Message) -> str | None:
    """A number that two messages have for other fields, or members of a union."""
    written = _named(theirs)
    numbers = {slot.label: number for number, slot in written.items()}
    for number, slot in _named(ours).items():
        before = written.get(number)
        if before is not None and ours.record is not None and not _is_same(before.field, slot.field):
            return f"the number {number} of {ours.name} is {before.label!r} there, and {slot.label!r} here"
        if numbers.get(slot.label, number) != number:
            return f"{slot.label!r} of {ours.name} has the number {numbers[slot.label]} there, and {number} here"
    return None


def _enum_clash(theirs: Message, ours: Message) -> str | None:
    for before, slot in _both(theirs, ours):
        if isinstance(before.form, Enum) and isinstance(slot.form, Enum):
            for name, number in slot.form.values.items():
                if (moved := before.form.values.get(name, number)) != number:
                    return f"{name!r} of the enum {slot.form.name} has the number {moved} there, and {number} here"
    return None


def _named(message: Message) -> dict[int, Slot]:
    return {slot.number: slot for slot in message.slots if slot.locked}


def _is_same(one: Field | None, other: Field | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.name == other.name or one.name in other.aliases or other.name in one.aliases


def _kind(slot: Slot) -> str:
    """What is in a field, as far as it is written in another way than others."""
    if isinstance(slot.form, Message):
        role = slot.form.role
        kind = {"box": "a message around it", "tuple": "a tuple", "union": "a union"}.get(role, "a message")
    elif isinstance(slot.form, Enum):
        kind = "an enum"
    else:
        kind = "JSON text" if isinstance(slot.shape, Other) else slot.form
    return kind if slot.many == "one" else f"repeated {kind.removeprefix('a ').removeprefix('an ')}"
