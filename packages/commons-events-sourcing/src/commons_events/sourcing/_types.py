"""What goes into an event store and what comes out: streams, expected versions, stored events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, runtime_checkable

from commons_events.errors import ConfigurationError, InvalidStreamError, InvalidVersionError
from commons_events.event import Event
from commons_events.sourcing._decoding import decode

__all__ = [
    "ANY",
    "MAX_NAME",
    "NO_STREAM",
    "STREAM_EXISTS",
    "Append",
    "AppendResult",
    "Expected",
    "ExpectedState",
    "NewEvent",
    "PreparedAppend",
    "PreparedEvent",
    "StoredEvent",
    "StoredSnapshot",
    "StreamId",
    "Tagged",
    "check_count",
    "check_interval",
    "check_name",
    "check_position",
    "check_several",
    "check_stream",
    "checked_snapshot",
]

MAX_NAME = 255
"""The most characters of a stream's id, a category, an event's id and a tag."""


class StreamId(NamedTuple):
    """A stream's name: its id, and the category (such as the aggregate's class) that it belongs to.

    Two categories may use the same id. A plain ``str`` stands for a stream of the category ``""``.
    """

    id: str
    category: str = ""

    def __str__(self) -> str:
        return f"{self.category}/{self.id}" if self.category else self.id


class ExpectedState(StrEnum):
    """What a writer may expect of a stream beside an exact version."""

    ANY = "any"
    NO_STREAM = "no stream"
    STREAM_EXISTS = "stream exists"


ANY = ExpectedState.ANY
"""Append whatever the stream's version is."""
NO_STREAM = ExpectedState.NO_STREAM
"""The stream does not exist yet; the same as version 0."""
STREAM_EXISTS = ExpectedState.STREAM_EXISTS
"""The stream has at least one event."""
Expected = int | ExpectedState
"""An exact version (the number of events that the stream has; 0: it does not exist), or one of the states."""


@runtime_checkable
class Tagged(Protocol):
    """An event that says by itself which tags it is stored with."""

    def event_tags(self) -> Iterable[str]:
        """Words to find the event by, such as ``customer:42``."""
        ...


class NewEvent(NamedTuple):
    """An event that is to be stored, with tags to find it by."""

    event: Event
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Append:
    """Events for one stream. Several of these go into one transaction by `EventStore.append_many`."""

    stream: StreamId | str
    events: Sequence[Event | NewEvent]
    expected: Expected = ExpectedState.ANY


class AppendResult(NamedTuple):
    """What became of an append.

    ``stored`` is False where these very events were there already, by their ids: nothing was written, and the
    versions and positions are those that they have. Without events ``first_version`` is one past ``version``, and both
    positions are 0.
    """

    stream: StreamId
    version: int
    """The stream's version after it: the last event's ``aggregate_version``."""
    first_version: int
    first_position: int
    last_position: int
    stored: bool = True


class StoredEvent(NamedTuple):
    """An event as it lies in the store: where, and its bytes, which nothing changes."""

    position: int
    """Its place in the whole store. Positions rise; one that was given to a transaction that failed stays unused."""
    stream: StreamId
    aggregate_version: int
    """Its place in its stream, from 1."""
    event_id: str
    event_type: str
    schema_version: str
    """The version of the event's class that wrote it."""
    format: str
    """The class's ``schema_type``: ``json``, ``avro``, ``protobuf`` …"""
    data: bytes
    """The whole event, envelope included, as `commons_events.Event.serialize` wrote it."""
    tags: tuple[str, ...] = ()
    timestamp: datetime | None = None
    """The event's own, in UTC."""
    recorded_at: datetime | None = None
    """When the store took it, by the store's clock."""

    def event(self) -> Event:
        """The event, of the newest class that reads it; older ones come through their migrations.

        A `DomainEvent` has the ``aggregate_version`` that it is stored at, whatever its bytes say.

        Raises:
            UnknownEventTypeError: no class is known for its type.
            UndecodableEventError: the bytes do not decode; the message says where they are stored.
        """
        return decode(self)


class PreparedEvent(NamedTuple):
    """A new event in the form in which a backend takes it: encoded and checked."""

    event_id: str
    event_type: str
    schema_version: str
    format: str
    data: bytes
    tags: tuple[str, ...]
    timestamp: datetime
    """In UTC."""


class PreparedAppend(NamedTuple):
    """An `Append` whose events are encoded and checked."""

    stream: StreamId
    events: Sequence[PreparedEvent]
    expected: Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSnapshot:
    """A stream's state at a version, in bytes that only its writer understands. A cache: never the truth."""

    stream: StreamId
    version: int
    """The ``aggregate_version`` of the last event in it."""
    kind: str
    """What it is a state of, such as the aggregate's class."""
    schema_version: str = "1"
    """The version of that state's form; whoever reads it ignores a form that it does not know."""
    data: bytes = field(repr=False)
    taken_at: datetime


def check_stream(stream: StreamId | str) -> StreamId:
    """The stream's name in full.

    Raises:
        InvalidStreamError: no store takes it as a name.
    """
    if type(stream) is StreamId:
        name = stream
    elif isinstance(stream, str):
        name = StreamId(stream)
    else:
        raise InvalidStreamError(f"A stream is a str or a StreamId, not {type(stream).__name__}: {stream!r}.")
    check_name(name.id, "stream's id")
    if name.category:
        check_name(name.category, "stream's category")
    elif name.category != "":
        raise InvalidStreamError(f"A stream's category is a str, not {name.category!r}.")
    return name


def check_name(text: Any, what: str) -> None:
    """Raise `InvalidStreamError` where ``text`` is not 1 to 255 characters that a database can hold."""
    if type(text) is str and 0 < len(text) <= MAX_NAME and text.isascii() and text.isprintable():
        return  # what nearly all are
    if not isinstance(text, str):
        raise InvalidStreamError(f"A {what} is a str, not {type(text).__name__}: {text!r}.")
    if not text:
        raise InvalidStreamError(f"The {what} is empty; give 1 to {MAX_NAME} characters.")
    if len(text) > MAX_NAME:
        raise InvalidStreamError(
            f"The {what} {text[:40]!r}… has {len(text)} characters; at most {MAX_NAME} are allowed."
        )
    if any(ord(character) < 32 or 0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise InvalidStreamError(f"The {what} {text!r} has control characters or lone surrogates; leave them out.")


def check_position(value: Any, what: str) -> int:
    """Raise `InvalidVersionError` where ``value`` is not an int from 0 to 2⁶³ - 1; else give it back."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidVersionError(f"{what} is an int, not {type(value).__name__}: {value!r}.")
    if not 0 <= value < 2**63:
        raise InvalidVersionError(f"{what} is {value}; it is 0 or more, and below 2⁶³.")
    return value


def check_interval(seconds: float, what: str) -> float:
    """Raise `ConfigurationError` where ``seconds`` is not a number more than 0; else give it back."""
    given: Any = seconds
    if isinstance(given, bool) or not isinstance(given, int | float) or not given > 0:
        raise ConfigurationError(f"{what} is {seconds!r}; it is a number of seconds, more than 0.")
    return seconds


def check_several(events: Iterable[Event | NewEvent]) -> Iterable[Event | NewEvent]:
    """Raise `TypeError` where one event was given in the place of several, which would be taken apart, or nothing."""
    given: Any = events
    if isinstance(given, Event | NewEvent):
        raise TypeError(f"An append takes a list of events, and was given one {type(given).__name__}. Write [event].")
    if not isinstance(given, Iterable):
        raise TypeError(f"An append takes a list of events, not {type(given).__name__}: {given!r:.100}.")
    return events


def check_count(value: Any, what: str, most: int | None = None) -> int:
    """Raise `ConfigurationError` where ``value`` is not an int from 1 to ``most``; else give it back."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most is not None and value > most):
        raise ConfigurationError(
            f"{what} is {value!r}; it is a whole number, 1 or more{f', and at most {most:,}' if most else ''}."
        )
    return value


def checked_snapshot(snapshot: StoredSnapshot) -> StoredSnapshot:
    """The snapshot with its stream's whole name, and its time with a zone; a naive one means UTC.

    Raises:
        InvalidStreamError: the stream's name, or the kind, cannot be stored.
        InvalidVersionError: the version is negative, or no version.
    """
    check_name(snapshot.kind, "snapshot's kind")
    check_position(snapshot.version, "A snapshot's version")
    taken = snapshot.taken_at
    taken = taken.replace(tzinfo=UTC) if taken.tzinfo is None else taken
    return replace(snapshot, stream=check_stream(snapshot.stream), taken_at=taken)
