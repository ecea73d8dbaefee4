"""Reading events from messages, in either of CloudEvents' content modes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic_core import from_json, to_json

from commons_events.binding._names import AMQP, AMQP_COLON, ATTRIBUTES, SPEC_VERSION, STRUCTURED, class_headers
from commons_events.errors import DeserializationError
from commons_events.event import Event, registry
from commons_events.media_types import is_json
from commons_events.message import Headers, Message
from commons_events.plugins import serializer, serializer_for, serializer_of, when_changed
from commons_events.serialization import Serializer

__all__ = ["NOTHING_KNOWN", "ROUTING", "KnownReading", "known_reading", "to_event"]

E = TypeVar("E", bound=Event)


def to_event(message: Message, event_class: type[E], *, prefix: str = "ce_") -> E:
    """The event that a message carries, in either mode.

    Args:
        message: as it was received.
        event_class: the class to read it as; `Event` itself, or another base, takes the class that the headers or
            bytes name.
        prefix: as in `Binding`.

    Raises:
        DeserializationError: (a ValueError) the message is not such an event; the reason is in its text.
        UnknownEventTypeError: no class is known for the type.
    """
    value = message.value
    if value is None:
        raise DeserializationError(f"{_place(message)}: a tombstone (a message without a value) is not an event.")
    first = message.headers[:ROUTING]
    latest_class, latest_prefix, latest_first, route = _latest
    if (
        latest_first != first  # equal ones are told so in a fraction of the time that hashing them takes
        or latest_class is not event_class
        or latest_prefix != prefix
        or route is None
        or route.changes != registry.changes
    ):
        route = _routes.get((event_class, prefix, first))
        if route is None or route.changes != registry.changes:
            route = _route(message, event_class, prefix)
        if (event_class, prefix, first) in _routes:  # else headers further behind decide, too
            _set_latest(event_class, prefix, first, route)
    whole = value.startswith(route.head)
    if whole and route.decode is not None:
        read: E = route.decode(value)
        return read
    if route.structured:
        return _from_structured(message, value, event_class)
    found: type[E] = route.event_class
    codec = route.codec or _codec(found, route.content_type, value)
    if whole or b'"event_id"' in value:  # one of ours: the bytes have the envelope
        event: E = codec.decode(value, found)
        if whole or "event_id" in event.__pydantic_fields_set__:
            return event
    headers = _headers(message, prefix)
    attributes = {name: _header(message, headers, f"{prefix}{name}") for name in ATTRIBUTES.values()}
    if f"{prefix}specversion" in headers and (missing := [name for name in _REQUIRED if not attributes[name]]):
        raise DeserializationError(
            f"{_place(message)}: a CloudEvent in binary mode, without {', '.join(prefix + name for name in missing)}; "
            "CloudEvents requires each (section 3, Required Attributes)."
        )
    return codec.decode(_filled(value, attributes, route.content_type), found)


class _Route(NamedTuple):
    """How messages of one class are read."""

    event_class: type[Any]
    content_type: str | None
    codec: Serializer | None
    """What reads them, or None where that depends on the bytes."""
    decode: Callable[[bytes], Any] | None
    """What ``codec`` reads those with that have the envelope; None as there."""
    structured: bool
    head: bytes
    """How bytes begin that have the envelope for certain; all do where the format is not JSON."""
    changes: int
    """The registry's, when it was asked for the class."""


_REQUIRED = ("id", "source", "type")
_SPEC_VERSION_BEFORE = "0.3"
"""In headers it has all that is read here by the same names."""
ROUTING = 4
"""Headers that decide the route, where they are the ones that `BinaryBinding` puts first: those behind them do not
count then. They are the same for all messages of a class, so that the route is found by them at once."""
_MOST_ROUTES = 256
_routes: dict[tuple[type[Event], str, Headers], _Route] = {}
_latest: tuple[type[Event], str, Headers, _Route | None] = (Event, "", (("", b""),), None)
"""How the latest message was read: those of one class mostly come together."""
when_changed(registry.changed)  # a route names its serializer, and so does a class's part


def _set_latest(event_class: type[Event], prefix: str, first: Headers, route: _Route) -> None:
    global _latest  # one tuple, set at once: threads may differ about it, and none sees a part of it
    _latest = event_class, prefix, first, route


class KnownReading(NamedTuple):
    """How to read messages that begin alike, without another look at their headers: see `known_reading`."""

    first: Headers
    """Their first headers."""
    head: bytes
    """How their values begin."""
    decode: Callable[[bytes], Any]
    changes: int
    """It holds as long as the registry's are the same."""


def _nothing(data: bytes) -> Event:
    raise AssertionError("nothing begins so")


NOTHING_KNOWN = KnownReading((("", b""),), b"", _nothing, -1)
"""Fits no message."""


def known_reading(headers: Headers, event_class: type[Event], *, prefix: str = "ce_") -> KnownReading | None:
    """How `to_event` has read a message with these headers, if all that count stand first and are of `BinaryBinding`.

    A message whose first headers are the same, and whose value begins so, is then read as the same class: its bytes
    have the envelope. None where nothing is known, or where it depends on more than that.
    """
    first = headers[:ROUTING]
    route = _routes.get((event_class, prefix, first))
    if route is None or route.decode is None or route.structured:
        return None
    return KnownReading(first, route.head, route.decode, route.changes)


def _json_head(event_class: type[Event]) -> bytes:
    """How the JSON begins that an event of this class writes."""
    identity = {"event_type": getattr(event_class, "event_type", ""), "version": event_class.schema_info().version}
    return to_json(identity)[:-1] + b',"event_id":'


def _route(message: Message, event_class: type[Event], prefix: str) -> _Route:
    changes = registry.changes  # before it is asked: what changes meanwhile is found out next time
    headers = _headers(message, prefix)
    content_type = _header(message, headers, "content-type")
    structured = content_type is not None and content_type.lower().startswith(STRUCTURED)
    event_type = None if structured else _header(message, headers, f"{prefix}type")
    spec_version = None if structured else _header(message, headers, f"{prefix}specversion")
    if spec_version not in (None, SPEC_VERSION, _SPEC_VERSION_BEFORE):
        raise DeserializationError(
            f"{_place(message)}: the header {prefix}specversion is {spec_version!r}; CloudEvents 1.0 is read here."
        )
    found = event_class
    if event_type is not None and not _is_concrete(event_class):
        found = _found(event_class, event_type, _header(message, headers, f"{prefix}eventversion"))
    has_envelope = content_type is not None and not is_json(content_type)
    head = b"" if has_envelope else _json_head(found)
    by_headers = content_type is not None and not structured and _is_concrete(found)
    codec = _codec(found, content_type, message.value or b"") if by_headers else None
    decode = None if codec is None else codec.decoder(found)
    route = _Route(found, content_type, codec, decode, structured, head, changes)
    first = message.headers[:ROUTING]
    if tuple(name for name, _ in first) == tuple(name for name, _ in class_headers(prefix, "", "", "")):
        if len(_routes) >= _MOST_ROUTES:  # foreign headers can name anything
            _routes.clear()
        _routes[event_class, prefix, first] = route
    return route


def _headers(message: Message, prefix: str) -> Mapping[str, bytes]:
    headers = dict(reversed(message.headers))
    if prefix == AMQP:
        colon = {name: value for name, value in headers.items() if name.startswith(AMQP_COLON)}
        headers = {name.replace(AMQP_COLON, AMQP, 1): value for name, value in colon.items()} | headers
    return headers


def _from_structured(message: Message, value: bytes, event_class: type[E]) -> E:
    try:
        document = from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise DeserializationError(f"{_place(message)}: not a CloudEvents JSON document: {error}.") from error
    if not isinstance(document, dict):
        raise DeserializationError(
            f"{_place(message)}: a CloudEvents document is a JSON object, not {type(document).__name__}."
        )
    missing = [
        name for name in ("specversion", *_REQUIRED) if not isinstance(document.get(name), str) or not document[name]
    ]
    if missing or document["specversion"] != SPEC_VERSION:
        problem = f"lacks {', '.join(missing)}" if missing else f"has specversion {document['specversion']!r}"
        raise DeserializationError(f"{_place(message)}: the CloudEvents document {problem}; 1.0 is read here.")
    version = document.get("eventversion")
    found = event_class
    if not _is_concrete(event_class):
        found = _found(event_class, document["type"], version if isinstance(version, str) else None)
    given = document.get("data", {})
    if "data_base64" in document:
        if "data" in document:
            raise DeserializationError(f"{_place(message)}: the document has both data and data_base64.")
        try:
            data = base64.b64decode(document["data_base64"], validate=True)
        except (ValueError, TypeError) as error:
            raise DeserializationError(f"{_place(message)}: data_base64 is not base64: {error}.") from error
    else:
        data = to_json(given)
    # an object in the document is JSON, whatever the type says
    content_type = None if "data" in document and isinstance(given, dict) else document.get("datacontenttype")
    data = _filled(data, document, content_type)
    return _codec(found, content_type, data).decode(data, found)


def _found(event_class: type[E], event_type: str, version: str | None) -> type[E]:
    found = registry.find(event_type, version)
    if not issubclass(found, event_class):
        raise DeserializationError(
            f"The message is an event of type {event_type!r}, whose class is {found.__qualname__}, not a "
            f"{event_class.__qualname__}."
        )
    return found


def _codec(event_class: type[Event], content_type: object, data: bytes) -> Serializer:
    own = event_class.schema_info().schema_type if _is_concrete(event_class) else None
    codec = serializer_for(content_type, own) if isinstance(content_type, str) else None
    if codec is None:
        codec = serializer_of(data) if own is None else serializer(own)
    return codec


def _filled(data: bytes, attributes: Mapping[str, Any], content_type: object) -> bytes:
    """JSON of another system, which holds the data alone, with the envelope that the attributes state."""
    if isinstance(content_type, str) and not is_json(content_type):
        return data  # in a document, for instance
    try:
        fields = from_json(data)
    except ValueError:
        return data  # the decoder says what is wrong with it
    if not isinstance(fields, dict) or "event_id" in fields:
        return data
    given = {
        field: attributes[name]
        for field, name in ATTRIBUTES.items()
        if attributes.get(name) or (name == "time" and attributes.get(name) is not None)  # an empty time is wrong
    }
    return to_json({**given, **fields})


def _is_concrete(event_class: type[Event]) -> bool:
    return "event_type" in event_class.__dict__


def _header(message: Message, headers: Mapping[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DeserializationError(f"{_place(message)}: the header {name!r} is not UTF-8: {error}.") from error


def _place(message: Message) -> str:
    return f"Message on topic {message.topic!r}"
