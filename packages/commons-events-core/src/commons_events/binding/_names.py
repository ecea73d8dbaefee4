"""What CloudEvents and its bindings call things."""

from __future__ import annotations

from commons_events.message import Headers

__all__ = [
    "AMQP",
    "AMQP_COLON",
    "ATTRIBUTES",
    "EXTENSIONS",
    "SPEC_VERSION",
    "STRUCTURED",
    "class_headers",
    "own_headers",
]

SPEC_VERSION = "1.0"
STRUCTURED = "application/cloudevents"
AMQP, AMQP_COLON = "cloudEvents_", "cloudEvents:"
"""A sender should use the first, and a receiver understands both (AMQP binding, section 3.1.3.1)."""

EXTENSIONS = {"correlation_id": "correlationid", "causation_id": "causationid"}
ATTRIBUTES = {"event_type": "type", "event_id": "id", "source": "source", "timestamp": "time", **EXTENSIONS}
"""Which CloudEvents attribute fills an envelope field that the bytes lack."""


def own_headers(prefix: str) -> frozenset[str]:
    """The names of all headers that a binding writes."""
    return frozenset(
        {"content-type", *(f"{prefix}{name}" for name in (*ATTRIBUTES.values(), "specversion", "eventversion"))}
    )


def class_headers(prefix: str, content_type: str, event_type: str, version: str) -> Headers:
    """What stands first in the headers, and is the same for all messages of a class."""
    return (
        ("content-type", content_type.encode()),
        (f"{prefix}specversion", SPEC_VERSION.encode()),
        (f"{prefix}type", event_type.encode()),
        (f"{prefix}eventversion", version.encode()),
    )
