"""May a new schema read what an old one wrote, and the other way round? By the rules of Confluent's registry."""

from commons_events.compatibility._check import Compatibility, CompatibilityMode, compatibility
from commons_events.compatibility._formats import SchemaText
from commons_events.compatibility._violation import Direction, Violation

__all__ = ["Compatibility", "CompatibilityMode", "Direction", "SchemaText", "Violation", "compatibility"]
