"""May a new schema read what an old one wrote, and the other way round? By the rules of Confluent's registry."""

from commons_events.compatibility._violation import Violation

__all__ = ["Violation"]
