"""CloudEvents 1.0 content modes.

The value holds the whole event, so the attributes in the headers repeat it for routers and other systems. Where the
two differ the bytes win; what the bytes lack (an event of another system) the headers fill in.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from pydantic_core import from_json, to_json

from commons_events.errors import DeserializationError, SerializationError
from commons_events.event import Event, SchemaInfo, registry
from commons_events.media_types import is_json
from commons_events.message import Headers, Message
from commons_events.plugins import serializer, serializer_for, serializer_of

__all__ = ["BinaryBinding", "Binding", "StructuredBinding", "to_event"]

E = TypeVar("E", bound=Event)

SPEC_VERSION = "1.0"
STRUCTURED = "application/cloudevents"
_AMQP, _AMQP_COLON = "cloudEvents_", "cloudEvents:"
"""A sender should use the first, and a receiver understands both (AMQP binding, section 3.1.3.1)."""

_EXTENSIONS = {"correlation_id": "correlationid", "causation_id": "causationid"}
_ATTRIBUTES = {"event_type": "type", "event_id": "id", "source": "source", "timestamp": "time", **_EXTENSIONS}
"""Which CloudEvents attribute fills an envelope field that the bytes lack."""


class _ClassPart(NamedTuple):
    """What is the same in every message of one class."""

    info: SchemaInfo
    headers: Headers
    encode: Callable[[Event], bytes]


class Binding(ABC):
    """How an event becomes a `Message` on one broker.

    Args:
        prefix: what stands before an attribute's name in a header: ``ce_`` for Kafka (Kafka binding, section
            3.2.3), ``cloudEvents_`` for AMQP (AMQP binding, section 3.1.3.1), ``ce-`` for Pub/Sub and HTTP.
    """

    mode: ClassVar[str]

    def __init__(self, prefix: str = "ce_") -> None:
        self.prefix = prefix

    @abstractmethod
    def to_message(
        self,
        event: Event,
        topic: str,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp: datetime | None = None,
        partition: int | None = None,
    ) -> Message:
        """The message for an event whose ``source`` is set.

        Args:
            event: the event.
            topic: where it goes.
            key: decides partition and order.
            headers: more headers, behind those of CloudEvents.
            timestamp: aware; None lets the broker stamp it.
            partition: asks for one partition.

        Raises:
            SerializationError: the event holds a value that its format cannot carry, or has no id or source.
        """


class BinaryBinding(Binding):
    """Binary mode: the value is the event's bytes, the attributes stand in headers."""

    mode = "binary"

    def __init__(self, prefix: str = "ce_") -> None:
        super().__init__(prefix)
        self._classes: WeakKeyDictionary[type[Event], _ClassPart] = WeakKeyDictionary()
        self._id, self._source, self._time = f"{prefix}id", f"{prefix}source", f"{prefix}time"
        self._correlation, self._causation = f"{prefix}correlationid", f"{prefix}causationid"

    def to_message(
        self,
        event: Event,
        topic: str,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp: datetime | None = None,
        partition: int | None = None,
    ) -> Message:
        """See `Binding.to_message`."""
        part = self._classes.get(type(event))
        if part is None or part.info is not event.schema_info():
            part = self._class_part(type(event))
        id, source = _identity(event)
        attributes: Headers = (
            (self._id, id.encode()),
            (self._source, source.encode()),
            (self._time, event.timestamp.isoformat().encode()),
        )
        if event.correlation_id is not None:
            attributes += ((self._correlation, event.correlation_id.encode()),)
        if event.causation_id is not None:
            attributes += ((self._causation, event.causation_id.encode()),)
        return Message(topic, part.encode(event), key, part.headers + attributes + headers, timestamp, partition)

    def _class_part(self, event_class: type[Event]) -> _ClassPart:
        info = event_class.schema_info()
        codec = serializer(info.schema_type)
        part = self._classes[event_class] = _ClassPart(
            info,
            (
                ("content-type", codec.content_type.encode()),
                (f"{self.prefix}specversion", SPEC_VERSION.encode()),
                (f"{self.prefix}type", event_class.event_type.encode()),
                (f"{self.prefix}eventversion", info.version.encode()),
            ),
            codec.encode,
        )
        return part


class StructuredBinding(Binding):
    """Structured mode: the value is a CloudEvents document (JSON format 1.0, section 3), the event its ``data``."""

    mode = "structured"

    def to_message(
        self,
        event: Event,
        topic: str,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp: datetime | None = None,
        partition: int | None = None,
    ) -> Message:
        """See `Binding.to_message`."""
        info = event.schema_info()
        codec = serializer(info.schema_type)
        id, source = _identity(event)
        attributes: dict[str, str] = {
            "specversion": SPEC_VERSION,
            "id": id,
            "source": source,
            "type": event.event_type,
            "time": event.timestamp.isoformat(),
            "datacontenttype": codec.content_type,
            "eventversion": info.version,
        }
        for field, name in _EXTENSIONS.items():
            value = getattr(event, field)
            if value is not None:
                attributes[name] = value
        data = codec.encode(event)
        if is_json(codec.content_type):
            member = b'"data":' + data
        else:
            member = b'"data_base64":"' + base64.b64encode(data) + b'"'
        value = to_json(attributes)[:-1] + b"," + member + b"}"
        content_type = ("content-type", b"application/cloudevents+json; charset=UTF-8")
        return Message(topic, value, key, (content_type, *headers), timestamp, partition)


def _identity(event: Event) -> tuple[str, str]:
    if not event.event_id or not event.source:
        missing = "source" if event.event_id else "event_id"
        raise SerializationError(
            f"{type(event).__qualname__} {event.event_id!r} has no {missing}, which CloudEvents requires (section 3, "
            "Required Attributes). Send it through a producer, which states its own source."
        )
    return event.event_id, event.source


# --- reading ---------------------------------------------------------------------------------------------------


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
    headers = dict(reversed(message.headers))
    if prefix == _AMQP:
        colon = {name: value for name, value in headers.items() if name.startswith(_AMQP_COLON)}
        headers = {name.replace(_AMQP_COLON, _AMQP, 1): value for name, value in colon.items()} | headers
    content_type = _header(message, headers, "content-type")
    if content_type is not None and content_type.lower().startswith(STRUCTURED):
        return _from_structured(message, value, event_class)
    event_type = _header(message, headers, f"{prefix}type")
    found = event_class
    if event_type is not None and not _is_concrete(event_class):
        found = _found(event_class, event_type, _header(message, headers, f"{prefix}eventversion"))
    if value.find(b'"event_id"') >= 0:  # one of ours: the bytes have the envelope
        event = _decode(value, found, content_type)
        if "event_id" in event.__pydantic_fields_set__:
            return event
    attributes = {name: _header(message, headers, f"{prefix}{name}") for name in _ATTRIBUTES.values()}
    return _decode(_filled(value, attributes, content_type), found, content_type)


def _from_structured(message: Message, value: bytes, event_class: type[E]) -> E:
    try:
        document = from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise DeserializationError(f"{_place(message)}: not a CloudEvents JSON document: {error}.") from error
    if not isinstance(document, dict):
        raise DeserializationError(
            f"{_place(message)}: a CloudEvents document is a JSON object, not {type(document).__name__}."
        )
    required = ("specversion", "id", "source", "type")
    missing = [name for name in required if not isinstance(document.get(name), str) or not document[name]]
    if missing or document["specversion"] != SPEC_VERSION:
        problem = f"lacks {', '.join(missing)}" if missing else f"has specversion {document['specversion']!r}"
        raise DeserializationError(f"{_place(message)}: the CloudEvents document {problem}; 1.0 is read here.")
    version = document.get("eventversion")
    found = event_class
    if not _is_concrete(event_class):
        found = _found(event_class, document["type"], version if isinstance(version, str) else None)
    if "data_base64" in document:
        if "data" in document:
            raise DeserializationError(f"{_place(message)}: the document has both data and data_base64.")
        try:
            data = base64.b64decode(document["data_base64"], validate=True)
        except (ValueError, TypeError) as error:
            raise DeserializationError(f"{_place(message)}: data_base64 is not base64: {error}.") from error
    else:
        data = to_json(document.get("data", {}))
    content_type = document.get("datacontenttype")
    return _decode(_filled(data, document, content_type), found, content_type)


def _found(event_class: type[E], event_type: str, version: str | None) -> type[E]:
    found = registry.find(event_type, version)
    if not issubclass(found, event_class):
        raise DeserializationError(
            f"The message is an event of type {event_type!r}, whose class is {found.__qualname__}, not a "
            f"{event_class.__qualname__}."
        )
    return found


def _decode(data: bytes, event_class: type[E], content_type: object) -> E:
    own = event_class.schema_info().schema_type if _is_concrete(event_class) else None
    codec = serializer_for(content_type, own) if isinstance(content_type, str) else None
    if codec is None:
        codec = serializer_of(data) if own is None else serializer(own)
    return codec.decode(data, event_class)


def _filled(data: bytes, attributes: Mapping[str, Any], content_type: object) -> bytes:
    """JSON of another system, which holds the data alone, with the envelope that the attributes state."""
    if isinstance(content_type, str) and not is_json(content_type):
        return data
    try:
        fields = from_json(data)
    except ValueError:
        return data  # the decoder says what is wrong with it
    if not isinstance(fields, dict) or "event_id" in fields:
        return data
    given = {
        field: attributes[name]
        for field, name in _ATTRIBUTES.items()
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
