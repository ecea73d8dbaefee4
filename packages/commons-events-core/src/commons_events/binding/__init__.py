"""Events to messages and back, by CloudEvents 1.0: binary mode (the default) or structured mode; HTTP included."""

from commons_events.binding._binding import (
    BinaryBinding,
    Binding,
    StructuredBinding,
    to_event,
)
from commons_events.binding._http import HttpRequest, batch_from_http, batch_to_http, from_http, to_http

__all__ = [
    "BinaryBinding",
    "Binding",
    "HttpRequest",
    "StructuredBinding",
    "batch_from_http",
    "batch_to_http",
    "from_http",
    "to_event",
    "to_http",
]
