"""Events to what a backend takes: encoded once, before any transaction, and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from commons_events.errors import EventTooLargeError, InvalidStreamError, SerializationError
from commons_events.event import Event
from commons_events.plugins import serializer
from commons_events.sourcing._types import (
    Append,
    Expected,
    ExpectedState,
    NewEvent,
    PreparedAppend,
    PreparedEvent,
    StreamId,
    Tagged,
    check_name,
    check_position,
    check_stream,
)

__all__ = ["prepare", "prepare_event", "prepare_events"]

_ID_LENGTH = 36
"""Of a UUID's text, which nearly every event's id is."""


class _Class(NamedTuple):
    event_type: str
    schema_version: str
    format: str
    encode: Callable[[Event], bytes]
    tagged: bool


_classes: dict[type[Event], _Class] = {}


def _class(cls: type[Event]) -> _Class:
    info = cls.schema_info()
    known = _classes.get(cls)
    if (
        known is not None
        and known.schema_version == info.version
        and known.format == info.schema_type
        and known.event_type == cls.event_type
    ):
        return known
    cls.complete()
    encode = cls.to_json if info.schema_type == "json" else serializer(info.schema_type).encode
    check_name(cls.event_type, "event's type")
    found = _Class(cls.event_type, info.version, info.schema_type, encode, issubclass(cls, Tagged))
    if len(_classes) > 10_000:  # classes that a program makes on and on
        _classes.clear()
    _classes[cls] = found
    return found


def prepare_event(event: Event, tags: Sequence[str], max_bytes: int) -> PreparedEvent:
    """The event's bytes and what is stored beside them.

    Raises:
        SerializationError: its format cannot hold a value of it, or UTC its timestamp.
        EventTooLargeError: it has more than ``max_bytes``.
        InvalidStreamError: its id or a tag is empty, too long, or of characters that cannot be stored.
    """
    return _prepare(event, _class_of(event), tags, max_bytes)


def _class_of(event: Event) -> _Class:
    if not isinstance(event, Event):
        raise TypeError(f"An event store keeps events of commons_events.Event, not {type(event).__name__}: {event!r}.")
    return _class(type(event))


def _prepare(event: Event, known: _Class, tags: Sequence[str], max_bytes: int) -> PreparedEvent:
    event_id = event.event_id
    if not (len(event_id) == _ID_LENGTH and event_id.isascii() and event_id.isprintable()):
        check_name(event_id, "event's id")
    data = known.encode(event)
    if len(data) > max_bytes:
        raise EventTooLargeError(
            f"{type(event).__qualname__} {event_id!r} has {len(data):,} bytes; this store takes {max_bytes:,} "
            "(max_event_bytes). Keep large content elsewhere and store where it is."
        )
    words: tuple[str, ...] = ()
    if tags or known.tagged:
        own: Iterable[str] = event.event_tags() if known.tagged else ()  # type: ignore[attr-defined]
        for given in (tags, own):
            if isinstance(given, str):
                raise InvalidStreamError(f"Tags are a list or tuple of str, not one str: {given!r}. Write [{given!r}].")
        words = tuple(dict.fromkeys((*tags, *own)))
        for word in words:
            check_name(word, "tag")
    timestamp = event.timestamp
    if timestamp.tzinfo is not UTC and timestamp.utcoffset():
        timestamp = _in_utc(event)
    return PreparedEvent(event_id, known[0], known[1], known[2], data, words, timestamp)


def _in_utc(event: Event) -> datetime:
    try:
        return event.timestamp.astimezone(UTC)
    except OverflowError as error:
        raise SerializationError(
            f"{type(event).__qualname__} {event.event_id!r} has the timestamp {event.timestamp}, which in UTC lies "
            "outside the years 1 to 9999, so that no database keeps it. Give it one that does not."
        ) from error


def prepare(append: Append, max_bytes: int) -> PreparedAppend:
    """See `prepare_events`."""
    return prepare_events(append.stream, append.events, append.expected, max_bytes)


def prepare_events(
    stream: StreamId | str, events: Iterable[Event | NewEvent], expected: Expected, max_bytes: int
) -> PreparedAppend:
    """An append with its events encoded and all that it says checked.

    Raises:
        InvalidStreamError: the stream's name.
        InvalidVersionError: the expected version is negative, or no version.
    """
    if type(expected) is not ExpectedState:
        expected = check_position(expected, "The expected version")
    name = check_stream(stream)
    encoded: list[PreparedEvent] = []
    cls: type | None = None
    known: _Class | None = None
    for given in events:
        event, tags = given if type(given) is NewEvent else (given, ())
        if known is None or type(event) is not cls:  # looked up once for all that follow of the same class
            cls, known = type(event), _class_of(event)  # type: ignore[arg-type]  # a NewEvent has gone the other way
        encoded.append(_prepare(event, known, tags, max_bytes))  # type: ignore[arg-type]
    return PreparedAppend(name, encoded, expected)
