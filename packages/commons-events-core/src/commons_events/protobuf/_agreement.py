"""Whether two versions of an event mean the same fields by the same numbers: by them alone is one read as the other."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from commons_events.errors import EventDefinitionError
from commons_events.event import Event, registry
from commons_events.event._versions import same_major
from commons_events.protobuf._numbers import ENVELOPE_NUMBERS
from commons_events.protobuf._plan import File, Message, plan_of
from commons_events.shapes import Field

__all__ = ["advice", "check_versions", "disagreement", "unsettled"]

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
                f"writes as Protobuf: {problem}. {advice(cls)}"
            )


def advice(event_class: type[Event]) -> str:
    """What to do about it."""
    return (
        f"Write the lock file with `commons-events schema lock {event_class.__module__}`, or state FieldNumber(…); "
        "where the field was renamed, give it its old name as an alias."
    )


def disagreement(writer: File, reader: File) -> str | None:
    """What a number means to the writer and to the reader, where that is not the same; None where they agree."""
    written = {message.key(writer.root): message for message in writer.all_messages() if message.record is not None}
    for message in reader.all_messages():
        other = written.get(message.key(reader.root))
        if message.record is None or other is None:
            continue
        theirs = _fields(other)
        numbers = {field.name: number for number, field in theirs.items()}
        for number, field in _fields(message).items():
            before = theirs.get(number)
            if before is not None and not _is_same(before, field):
                return f"the number {number} of {message.name} is {before.name!r} there, and {field.name!r} here"
            if numbers.get(field.name, number) != number:
                return f"{field.name!r} of {message.name} has the number {numbers[field.name]} there, and {number} here"
    return None


def _fields(message: Message) -> dict[int, Field]:
    return {
        slot.number: slot.field
        for slot in message.slots
        if slot.field is not None and slot.number not in ENVELOPE_NUMBERS.values()
    }


def _is_same(one: Field, other: Field) -> bool:
    return one.name == other.name or one.name in other.aliases or other.name in one.aliases
