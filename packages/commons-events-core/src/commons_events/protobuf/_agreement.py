"""Whether two versions of an event mean the same fields by the same numbers: by them alone is one read as the other."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from commons_events.errors import EventDefinitionError
from commons_events.event import Event, registry
from commons_events.event._versions import same_major
from commons_events.protobuf._plan import Enum, File, Message, Slot, plan_of
from commons_events.shapes import Field, Other

__all__ = ["check_versions", "disagreement", "unsettled"]

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
    met: set[tuple[Message, Message]] = set()
    waiting = [(writer.root, reader.root)]
    while waiting:
        theirs, ours = waiting.pop()
        if (theirs, ours) in met:
            continue
        met.add((theirs, ours))
        clash = _clash(theirs, ours)
        if clash is not None:
            return f"{clash}. {_advice(reader.event_class)}"
        before = {slot.number: slot for slot in theirs.slots}
        for slot in ours.slots:
            other = before.get(slot.number)
            if other is None:
                continue
            if _kind(other).replace("bytes", "string") != _kind(slot).replace("bytes", "string"):  # alike on the wire
                return (
                    f"{slot.label!r} of {ours.name} is {_kind(other)} there, and {_kind(slot)} here. Give what has "
                    "another type a new field, or the event a new major version."
                )
            if isinstance(slot.form, Enum) and isinstance(other.form, Enum):
                for name, number in slot.form.values.items():
                    if (moved := other.form.values.get(name, number)) != number:
                        clash = f"{name!r} of the enum {slot.form.name} has the number {moved} there, and {number} here"
                        return f"{clash}. {_advice(reader.event_class)}"
            if isinstance(slot.form, Message) and isinstance(other.form, Message):
                waiting.append((other.form, slot.form))
    return None


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
