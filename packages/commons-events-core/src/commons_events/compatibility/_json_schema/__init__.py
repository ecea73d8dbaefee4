"""Compatibility of JSON Schemas, by the rules of Confluent's registry."""

from commons_events.compatibility._json_schema._violations import differences, violations

__all__ = ["differences", "violations"]
