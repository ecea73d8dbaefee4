"""Typed events: a pydantic model with CloudEvents' attributes, registered by type and version, frozen once made."""

from commons_events.event._event import Event
from commons_events.event._json import describe
from commons_events.event._metadata import EventMetadata
from commons_events.event._migrations import Migrations
from commons_events.event._reading import read_other
from commons_events.event._registry import EventRegistry, registry
from commons_events.event._schema import EventSchema, SchemaInfo

migration = registry.migrations.migration
check_migrations = registry.migrations.check

__all__ = [
    "Event",
    "EventMetadata",
    "EventRegistry",
    "EventSchema",
    "Migrations",
    "SchemaInfo",
    "check_migrations",
    "describe",
    "migration",
    "read_other",
    "registry",
]
