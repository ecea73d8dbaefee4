"""CloudEvents 1.0 content modes.

The value holds the whole event, so the attributes in the headers repeat it for routers and other systems. Where the
two differ the bytes win; what the bytes lack (an event of another system) the headers fill in.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import repeat
from typing import ClassVar, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from pydantic_core import SchemaSerializer, core_schema, to_json

from commons_events.binding._names import EXTENSIONS, SPEC_VERSION, class_headers, own_headers
from commons_events.errors import ConfigurationError, SerializationError
from commons_events.event import Event, registry
from commons_events.media_types import is_json
from commons_events.message import Headers, Message, Messages, header_bytes
from commons_events.plugins import serializer
from commons_events.serialization import Serializer

__all__ = ["BinaryBinding", "Binding", "StructuredBinding"]

_NO_KEYS: Iterable[None] = repeat(None)


class _ClassPart(NamedTuple):
    """What is the same in every message of one class."""

    changes: int
    """As in `_Route`."""
    headers: Headers
    encode: Callable[[Event], bytes]
    encode_stating: Callable[[Event], bytes]
    """For events without a source: states the binding's."""


_NO_PART = _ClassPart(-1, (), Event.to_json, Event.to_json)


class Binding(ABC):
    """How an event becomes a `Message` on one broker.

    Args:
        prefix: what stands before an attribute's name in a header: ``ce_`` for Kafka (Kafka binding, section
            3.2.3), ``cloudEvents_`` for AMQP (AMQP binding, section 3.1.3.1), ``ce-`` for Pub/Sub and HTTP.
        outside: whether the messages go to other processes: see `Serializer.leaving`.
        source: what events state that have no ``source``, in the bytes and the headers; None to refuse them.
    """

    mode: ClassVar[str]

    def __init__(self, prefix: str = "ce_", *, outside: bool = False, source: str | None = None) -> None:
        self.prefix = prefix
        self.outside = outside
        self.source = source
        self._own_headers = own_headers(prefix)
        self._left: WeakSet[type[Event]] = WeakSet()

    def check_headers(self, headers: Headers) -> None:
        """Check headers that are to be added to a message's own.

        Raises:
            ConfigurationError: one has a name that the event itself fills.
        """
        for name, _ in headers:
            if name in self._own_headers:
                raise ConfigurationError(
                    f"headers: {name!r} says what the event says by itself, and readers would not know which to "
                    "believe; set it on the event, or choose another name."
                )

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
        """The message for an event.

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

    def to_messages(
        self,
        events: Iterable[Event],
        topic: str,
        *,
        keys: Iterable[bytes | None] = _NO_KEYS,
        headers: Headers = (),
        timestamp: datetime | None = None,
        partition: int | None = None,
    ) -> Messages | list[Message | SerializationError]:
        """`to_message` for each event, with its key: `Messages`; or a list with errors in the places of some.

        Override it only where many can be made in a shorter way than one by one.
        """
        made: list[Message | SerializationError] = []
        for event, key in zip(events, keys, strict=False):
            try:
                message = self.to_message(
                    event, topic, key=key, headers=headers, timestamp=timestamp, partition=partition
                )
            except SerializationError as error:
                made.append(error)
            else:
                made.append(message)
        return made


class BinaryBinding(Binding):
    """Binary mode: the value is the event's bytes, the attributes stand in headers."""

    mode = "binary"

    def __init__(self, prefix: str = "ce_", *, outside: bool = False, source: str | None = None) -> None:
        super().__init__(prefix, outside=outside, source=source)
        self._classes: WeakKeyDictionary[type[Event], _ClassPart] = WeakKeyDictionary()
        self._latest: tuple[type[Event] | None, _ClassPart] = None, _NO_PART
        """The latest event's class and its part."""
        self._latest_source: tuple[str | None, tuple[str, bytes]] = None, ("", b"")
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
        _, class_headers, encode, encode_stating = self._part_of(type(event))
        fields = event.__dict__  # as in `to_messages`
        id, source = fields["event_id"], fields["source"]
        if source and id:
            value = encode(event)
        elif self.source and id:
            source, value = self.source, encode_stating(event)
        else:
            raise _incomplete(event)
        latest = self._latest_source  # looked at once: another thread may bind, too
        if latest[0] is not source:
            latest = self._latest_source = source, (self._source, source.encode())
        all_headers: Headers = (
            *class_headers,
            (self._id, id.encode()),
            latest[1],
            (self._time, _time_text(fields["timestamp"])),
            *self._cause(fields["correlation_id"], fields["causation_id"]),
            *headers,
        )
        return _tuple(Message, (topic, value, key, all_headers, timestamp, partition))

    def to_messages(
        self,
        events: Iterable[Event],
        topic: str,
        *,
        keys: Iterable[bytes | None] = _NO_KEYS,
        headers: Headers = (),
        timestamp: datetime | None = None,
        partition: int | None = None,
    ) -> Messages | list[Message | SerializationError]:
        """See `Binding.to_messages`; what events of one class have in common is looked up once."""
        made: list[Message] = []
        errors: list[tuple[int, SerializationError]] = []
        latest: type[Event] | None = None
        latest_source, source_header = self._latest_source
        id_name, time_name, own_source = self._id, self._time, self.source
        _, class_headers, encode, encode_stating = _NO_PART
        longest_class, longest_id, longest_source, longest_more = 0, 0, len(source_header[1]), 0
        for event, key in zip(events, keys, strict=False):
            if type(event) is not latest:
                latest = type(event)
                _, class_headers, encode, encode_stating = self._part_of(latest)
                longest_class = max(longest_class, header_bytes(class_headers))
            fields = event.__dict__  # a model's attributes cost three times as much, one by one
            id, source = fields["event_id"], fields["source"]
            try:
                if source and id:
                    value = encode(event)
                elif own_source and id:
                    source, value = own_source, encode_stating(event)
                else:
                    raise _incomplete(event)
            except SerializationError as error:
                errors.append((len(made) + len(errors), error))
                continue
            if source is not latest_source:
                latest_source, source_header = self._latest_source = source, (self._source, source.encode())
                longest_source = max(longest_source, len(source_header[1]))
            id_bytes = id.encode()
            if len(id_bytes) > longest_id:
                longest_id = len(id_bytes)
            all_headers: Headers = (
                *class_headers,
                (id_name, id_bytes),
                source_header,
                (time_name, _time_text(fields["timestamp"])),
            )
            correlation, causation = fields["correlation_id"], fields["causation_id"]
            if correlation is not None or causation is not None:
                more = self._cause(correlation, causation)
                all_headers += more
                longest_more = max(longest_more, header_bytes(more))
            if headers:
                all_headers += headers
            made.append(_tuple(Message, (topic, value, key, all_headers, timestamp, partition)))
        if errors:
            results: list[Message | SerializationError] = [*made]
            for place, refusal in errors:
                results.insert(place, refusal)
            return results
        longest = longest_class + longest_id + longest_source + longest_more
        names = len(id_name) + len(self._source) + len(time_name)
        return Messages(made, most_header_bytes=longest + names + _LONGEST_TIME + header_bytes(headers))

    def _cause(self, correlation: str | None, causation: str | None) -> Headers:
        caused: Headers = () if causation is None else ((self._causation, causation.encode()),)
        return caused if correlation is None else ((self._correlation, correlation.encode()), *caused)

    def _part_of(self, event_class: type[Event]) -> _ClassPart:
        changes = registry.changes  # before anything is asked: what changes meanwhile is found out next time
        latest, part = self._latest
        if latest is event_class and part.changes == changes:
            return part
        self._latest = event_class, part = event_class, self._known_part(event_class, changes)
        return part

    def _known_part(self, event_class: type[Event], changes: int) -> _ClassPart:
        part = self._classes.get(event_class)
        if part is not None and part.changes == changes:
            return part
        codec, version = self._codec(event_class), event_class.schema_info().version
        headers = class_headers(self.prefix, codec.content_type, event_class.event_type, version)
        encode = codec.encoder(event_class)
        stating = encode if self.source is None else codec.encoder(event_class, source=self.source)
        part = self._classes[event_class] = _ClassPart(changes, headers, encode, stating)
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
        if not event.source and self.source:
            event = event.with_source(self.source)
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


_LONGEST_TIME = len("2026-11-28T16:01:11.123456+00:00")
_tuple = tuple.__new__  # half the time that a NamedTuple's own constructor takes
_Z = ord("Z")
_write_time = SchemaSerializer(core_schema.datetime_schema()).to_json


def _time_text(time: datetime) -> bytes:
    """``time.isoformat()``, in UTF-8 and half the time."""
    text = _write_time(time)
    return text[1:-2] + b"+00:00" if text[-2] == _Z else text[1:-1]
