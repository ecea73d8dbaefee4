"""Whether two versions of an event mean the same fields by the same numbers: by them alone is one read as the other."""

from __future__ import annotations

from commons_events.protobuf._numbers import ENVELOPE_NUMBERS
from commons_events.protobuf._plan import File, Message
from commons_events.shapes import Field

__all__ = ["disagreement"]


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
