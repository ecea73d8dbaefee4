"""A class's encoder and decoder: Python generated from its messages, once, around `google.protobuf`'s parser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from weakref import WeakSet

from google.protobuf.message import DecodeError

from commons_events.errors import DeserializationError
from commons_events.event import Event
from commons_events.protobuf._descriptor import codec_classes
from commons_events.protobuf._generate import Generator
from commons_events.protobuf._numbers import BLANK
from commons_events.protobuf._plan import Enum, File, Message, Slot
from commons_events.protobuf._wire import (
    FIXED64,
    LENGTH,
    VARINT,
    WireError,
    check,
    tag,
    varint,
)

__all__ = ["ClassCodec"]

E = TypeVar("E", bound=Event)
_GROUP = 3
"""A wire type that proto3 does not have, and the parser passes over."""


class ClassCodec:
    """The functions of one event class.

    Args:
        file: its messages.
    """

    FAILURES = (WireError, DecodeError, UnicodeDecodeError)
    """What parsing and filling raise; the last is of `google.protobuf`'s version in Python alone."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._messages = list(file.all_messages())
        self._numbers = [
            {*(slot.number for slot in message.slots), *((BLANK,) if message.blanks else ())}
            for message in self._messages
        ]
        self._index = {message: index for index, message in enumerate(self._messages)}
        classes = codec_classes(self._messages)
        self._parse: list[Callable[[bytes], Any]] = [cls.FromString for cls in classes]
        cls = file.event_class
        info = cls.schema_info()
        self.info, self.filler = info, cls.filler
        self.parse = self._parse[0]
        self.event_type, self.version = cls.event_type, info.version
        functions = Generator(
            self._messages,
            self._index,
            classes,
            title=cls.__qualname__,
            misfit=self.misfit,
            strange=self.strange,
        ).compile()
        self.encode: Callable[[Any, int], bytes] = functions["E0"]
        self.fill: Callable[[Any, bytes, int, list[int]], Any] = functions["R0"]
        """The event of a parsed message, whoever it says it is."""
        self.agrees: WeakSet[type[Event]] = WeakSet()
        """Classes of other versions that mean the same by their numbers."""
        self.keeps = False
        """Whether there are events with fields of newer writers."""

    # --- what goes wrong -------------------------------------------------------------------------------------

    def misfit(self, error: Exception, index: int, data: bytes | None, places: dict[int, str]) -> WireError:
        """Why a message could not be written or read, from where it failed."""
        line = error.__traceback__.tb_lineno if error.__traceback__ is not None else 0
        place = places.get(line, "")
        if isinstance(error, WireError):
            return error.below(place) if place else error
        if isinstance(error, DecodeError | UnicodeDecodeError) and not place:
            if data is not None:
                try:
                    self.check(index, data)
                except WireError as problem:
                    return problem
            return WireError(f"the bytes are no such message: {error}")
        if isinstance(error, KeyError):
            reason = f"{error.args[0]!r} is none of its values"
        elif isinstance(error, DeserializationError):
            reason = str(error)
        elif isinstance(error, RecursionError):
            reason = "it is nested too deeply"
        else:
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, AttributeError) and error.name == "encode":
                reason = f"a {type(error.obj).__qualname__}, where a str is needed"
        return WireError(reason, place) if place else WireError(reason)

    def check(self, index: int, data: bytes) -> None:
        """Raise a `WireError` for what is wrong with a message on the wire."""
        message = self._messages[index]
        wires = {slot.number: _wires(slot) for slot in message.slots}
        names = {slot.number: slot.label for slot in message.slots}
        texts = {slot.number for slot in message.slots if slot.form == "string"}
        if message.blanks:
            wires[BLANK], names[BLANK] = (VARINT, LENGTH), "blank_fields"
        check(data, wires, names, texts)

    def strange(self, index: int, unknown: Iterable[Any], data: bytes, found: list[int]) -> None:
        """Note that a message has fields that the class does not know; raise where it knows them as something else."""
        known = self._numbers[index]
        if any(field.field_number in known or field.wire_type == _GROUP for field in unknown):
            self.check(index, data)
        found.append(index)

    # --- fields of newer writers -------------------------------------------------------------------------------

    def keep(self, event: E, data: bytes) -> E:
        """The event, with what its class does not know of the bytes."""
        unread = self.unread(data)
        if unread:
            self.keeps = True
            event.keep_unread("protobuf", unread)
        return event

    def unread(self, data: bytes) -> bytes:
        """The fields that the class does not know, as a message that merges with one of those that it knows.

        Those inside of repeated messages and maps have no place there.
        """
        return self._unread(0, data)

    def _unread(self, index: int, data: bytes) -> bytes:
        message, parsed = self._messages[index], self._parse[index](data)
        inside: list[bytes] = []
        for slot in message.slots:
            if slot.many == "one" and isinstance(slot.form, Message):
                values = getattr(parsed, f"f{slot.number}")
                for value in [values] if message.role == "union" else values:
                    inner = self._unread(self._index[slot.form], value)
                    if inner:
                        inside += (tag(slot.number, LENGTH), varint(len(inner)), inner)
        for number in self._numbers[index]:
            parsed.ClearField(f"f{number}")
        return b"".join((parsed.SerializeToString(), *inside))


def _wires(slot: Slot) -> tuple[int, ...]:
    if isinstance(slot.form, Enum):
        wire = VARINT
    else:
        wire = {"bool": VARINT, "sint64": VARINT, "double": FIXED64}.get(
            slot.form if isinstance(slot.form, str) else "", LENGTH
        )
    return (wire, LENGTH) if slot.many != "one" and wire != LENGTH else (wire,)
