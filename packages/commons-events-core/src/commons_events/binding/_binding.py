"""CloudEvents 1.0 content modes.

The value holds the whole event, so the attributes in the headers repeat it for routers and other systems. Where the
two differ the bytes win; what the bytes lack (an event of another system) the headers fill in.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import ClassVar, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from pydantic_core import SchemaSerializer, core_schema, to_json

from commons_events.binding._names import EXTENSIONS, SPEC_VERSION, class_headers
from commons_events.errors import SerializationError
from commons_events.event import Event, registry
from commons_events.media_types import is_json
from commons_events.message import Headers, Message
from commons_events.plugins import serializer
from commons_events.serialization import Serializer

__all__ = ["BinaryBinding", "Binding", "StructuredBinding"]


class _ClassPart(NamedTuple):
    """What is the same in every message of one class."""

    changes: int
    """As in `_Route`."""
    headers: Headers
    encode: Callable[[Event], bytes]


class Binding(ABC):
    """How an event becomes a `Message` on one broker.

    Args:
        prefix: what stands before an attribute's name in a header: ``ce_`` for Kafka (Kafka binding, section
            3.2.3), ``cloudEvents_`` for AMQP (AMQP binding, section 3.1.3.1), ``ce-`` for Pub/Sub and HTTP.
        outside: whether the messages go to other processes: see `Serializer.leaving`.
    """

    mode: ClassVar[str]

    def __init__(self, prefix: str = "ce_", *, outside: bool = False) -> None:
        self.prefix = prefix
        self.outside = outside
        self._left: WeakSet[type[Event]] = WeakSet()

    def _codec(self, event_class: type[Event]) -> Serializer:
        codec = serializer(event_class.schema_info().schema_type)
        if self.outside and event_class not in self._left:
            self._left.add(event_class)
            codec.leaving(event_class)
        return codec

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

    def __init__(self, prefix: str = "ce_", *, outside: bool = False) -> None:
        super().__init__(prefix, outside=outside)
        self._classes: WeakKeyDictionary[type[Event], _ClassPart] = WeakKeyDictionary()
        self._latest: tuple[type[Event], _ClassPart] | None = None
        """The latest event's class and its part: events of one class mostly come together."""
        self._latest_source: tuple[str, tuple[str, bytes]] = "", ("", b"")
        """The latest event's source and the header that states it."""
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
        latest = self._latest
        if latest is None or latest[0] is not type(event) or latest[1].changes != registry.changes:
            latest = self._latest = type(event), self._part_of(type(event))
        _, class_headers, encode = latest[1]
        fields = vars(event)  # a model's attributes cost three times as much, one by one
        id, source = fields["event_id"], fields["source"]
        if not id or not source:
            raise _incomplete(event)
        latest_source = self._latest_source
        if latest_source[0] is not source:
            latest_source = self._latest_source = source, (self._source, source.encode())
        correlation, causation = fields["correlation_id"], fields["causation_id"]
        if causation is not None:
            headers = ((self._causation, causation.encode()), *headers)
        if correlation is not None:
            headers = ((self._correlation, correlation.encode()), *headers)
        all_headers: Headers = (
            *class_headers,
            (self._id, id.encode()),
            latest_source[1],
            (self._time, _time_text(fields["timestamp"])),
            *headers,
        )
        return _tuple(Message, (topic, encode(event), key, all_headers, timestamp, partition))

    def _part_of(self, event_class: type[Event]) -> _ClassPart:
        changes = registry.changes  # before anything is asked: what changes meanwhile is found out next time
        part = self._classes.get(event_class)
        if part is not None and part.changes == changes:
            return part
        codec, version = self._codec(event_class), event_class.schema_info().version
        headers = class_headers(self.prefix, codec.content_type, event_class.event_type, version)
        part = self._classes[event_class] = _ClassPart(changes, headers, codec.encode)
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
        codec = self._codec(type(event))
        id, source = event.event_id, event.source
        if not id or not source:
            raise _incomplete(event)
        attributes: dict[str, str] = {
            "specversion": SPEC_VERSION,
            "id": id,
            "source": source,
            "type": event.event_type,
            "time": _time_text(event.timestamp).decode(),
            "datacontenttype": codec.content_type,
            "eventversion": info.version,
        }
        for field, name in EXTENSIONS.items():
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


def _incomplete(event: Event) -> SerializationError:
    missing = "source" if event.event_id else "event_id"
    return SerializationError(
        f"{type(event).__qualname__} {event.event_id!r} has no {missing}, which CloudEvents requires (section 3, "
        "Required Attributes). Send it through a producer, which states its own source."
    )


_tuple = tuple.__new__  # half the time that a NamedTuple's own constructor takes
_Z = ord("Z")
_write_time = SchemaSerializer(core_schema.datetime_schema()).to_json


def _time_text(time: datetime) -> bytes:
    """``time.isoformat()``, in UTF-8 and half the time."""
    text = _write_time(time)
    return text[1:-2] + b"+00:00" if text[-2] == _Z else text[1:-1]
