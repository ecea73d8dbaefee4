"""CloudEvents over HTTP (HTTP protocol binding 1.0.2): for web hooks, and functions that are called with events."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from pydantic_core import from_json, to_json

from commons_events.binding._binding import BinaryBinding, StructuredBinding
from commons_events.binding._reading import to_event
from commons_events.errors import DeserializationError
from commons_events.event import Event
from commons_events.media_types import media_type
from commons_events.message import Message

__all__ = ["HttpRequest", "batch_from_http", "batch_to_http", "from_http", "to_http"]

E = TypeVar("E", bound=Event)

BATCH = "application/cloudevents-batch+json"
_PREFIX = "ce-"
_BINARY, _STRUCTURED = BinaryBinding(_PREFIX, outside=True), StructuredBinding(_PREFIX, outside=True)
_TOPIC = "http"
_ENCODED = re.compile(rb'[^\x21-\x7e]|["%]')
"""What a header's value has to spell as %XX: section 3.1.3.2."""
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")


class HttpRequest(NamedTuple):
    """The part of an HTTP request or response that carries events."""

    headers: dict[str, str]
    body: bytes


def to_http(event: Event, mode: Literal["binary", "structured"] = "binary") -> HttpRequest:
    """Headers and body that carry an event (sections 3.1 and 3.2).

    Args:
        event: with a ``source``: `Event.with_source` states one.
        mode: ``binary`` has the attributes in ``ce-`` headers, ``structured`` all in a JSON document.

    Raises:
        SerializationError: the event holds a value that its format cannot carry, or has no id or source.
    """
    binding = _BINARY if mode == "binary" else _STRUCTURED
    message = binding.to_message(event, _TOPIC)
    headers = {
        name: _ENCODED.sub(_percent, value).decode() if name.startswith(_PREFIX) else value.decode()
        for name, value in message.headers
    }
    return HttpRequest(headers, message.value or b"")


def from_http(headers: Mapping[str, str], body: bytes, event_class: type[E] = Event) -> E:  # type: ignore[assignment]
    """The event that a request or response carries, in either mode.

    Args:
        headers: by name, in any case of letters.
        body: as it came.
        event_class: the class to read it as; `Event` itself takes the class that the headers or the body name.

    Raises:
        DeserializationError: (a ValueError) it is no such event, or a batch: see `batch_from_http`.
        UnknownEventTypeError: no class is known for the type.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    if media_type(lower.get("content-type", "")) == BATCH:
        raise DeserializationError(f"A body of type {BATCH} holds several events: read it by batch_from_http.")
    if not body and f"{_PREFIX}type" in lower:
        body = b"{}"  # an event without data, which CloudEvents allows
    encoded = tuple(
        (name, _decoded(value) if name.startswith(_PREFIX) else value.encode("utf-8", "surrogateescape"))
        for name, value in lower.items()
    )
    return to_event(Message(_TOPIC, body, headers=encoded), event_class, prefix=_PREFIX)


def batch_to_http(events: Sequence[Event]) -> HttpRequest:
    """Headers and body that carry several events (section 3.3; JSON format, section 4).

    Raises:
        SerializationError: an event holds a value that its format cannot carry, or has no id or source.
    """
    documents = [_STRUCTURED.to_message(event, _TOPIC).value or b"" for event in events]
    return HttpRequest({"content-type": f"{BATCH}; charset=UTF-8"}, b"[" + b",".join(documents) + b"]")


def batch_from_http(headers: Mapping[str, str], body: bytes, event_class: type[E] = Event) -> list[E]:  # type: ignore[assignment]
    """The events of a batch, each read as by `from_http`.

    Raises:
        DeserializationError: it is no batch of such events; the message says which one is at fault.
    """
    content_type = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
    if media_type(content_type) != BATCH:
        raise DeserializationError(f"A batch has the content type {BATCH}, not {content_type!r}.")
    try:
        documents = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise DeserializationError(f"Not a CloudEvents JSON batch: {error}.") from error
    if not isinstance(documents, list):
        raise DeserializationError(f"A CloudEvents batch is a JSON array, not {type(documents).__name__}.")
    events: list[E] = []
    structured = (("content-type", b"application/cloudevents+json"),)
    for index, document in enumerate(documents):
        try:
            events.append(to_event(Message(_TOPIC, to_json(document), headers=structured), event_class))
        except DeserializationError as error:
            raise type(error)(f"Event {index} of the batch: {error}") from error
    return events


def _decoded(value: str) -> bytes:
    """An attribute's value as section 3.1.3.2 has it: out of quotation marks, as older senders put it, then of %XX.

    Servers hand over a byte that is no text as a lone surrogate; it becomes that byte again, and is refused as one.
    """
    if '"' in value:
        value = _QUOTED.sub(lambda quoted: _ESCAPE.sub(r"\1", quoted[1]), value)
    return unquote_to_bytes(value.encode("utf-8", "surrogateescape"))


def _percent(match: re.Match[bytes]) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in match[0])
