"""Events to messages and back, by CloudEvents 1.0: binary mode (the default) or structured mode; HTTP included."""

from commons_events.binding._binding import BinaryBinding, Binding, StructuredBinding
from commons_events.binding._http import HttpRequest, batch_from_http, batch_to_http, from_http, to_http
from commons_events.binding._reading import to_event

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
