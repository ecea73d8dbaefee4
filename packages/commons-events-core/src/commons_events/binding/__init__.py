"""Events to messages and back, by CloudEvents 1.0: binary mode (the default) or structured mode."""

from commons_events.binding._binding import (
    BinaryBinding,
    Binding,
    StructuredBinding,
    to_event,
)

__all__ = ["BinaryBinding", "Binding", "StructuredBinding", "to_event"]
