"""Stored bytes to events: the newest class of the type that reads them, found once a type, version and format."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from commons_events.errors import DeserializationError, UndecodableEventError, UnknownEventTypeError
from commons_events.event import Event, registry
from commons_events.plugins import serializer

if TYPE_CHECKING:
    from commons_events.sourcing._types import StoredEvent

__all__ = ["decode", "place_of", "reader_of"]

Reader = Callable[[bytes], Event]

_readers: dict[tuple[str, str, str], Reader] = {}
_seen = -1
_MOST = 10_000


def reader_of(event_type: str, schema_version: str, format: str) -> Reader:
    """What makes events of bytes of this type, version and format.

    Raises:
        UnknownEventTypeError: no class is known for the type and version.
        MissingDistributionError: the format's package is not installed.
    """
    global _seen
    if _seen != registry.changes:
        _readers.clear()
        _seen = registry.changes
    key = (event_type, schema_version, format)
    found = _readers.get(key)
    if found is None:
        if len(_readers) >= _MOST:
            _readers.clear()
        found = _readers[key] = _find(*key)
    return found


def _find(event_type: str, schema_version: str, format: str) -> Reader:
    target = registry.find(event_type)
    if (
        target.schema_info().version != schema_version
        and registry.migrations.route(target, event_type, schema_version) is None
    ):
        target = registry.find(event_type, schema_version)  # no migration leads to the newest: its own class
    codec = serializer(format)
    if format == "json":
        return target.from_json
    return lambda data: codec.decode(data, target)


def decode(stored: StoredEvent) -> Event:
    """See `StoredEvent.event`."""
    try:
        return reader_of(stored[4], stored[5], stored[6])(stored[7])
    except UnknownEventTypeError as error:
        raise UnknownEventTypeError(f"{place_of(stored)}: {error}") from error
    except DeserializationError as error:
        raise UndecodableEventError(f"{place_of(stored)} cannot be read: {error}") from error


def place_of(stored: StoredEvent) -> str:
    """Which event it is and where it lies, as the beginning of a sentence."""
    return (
        f"The event {stored.event_id!r} ({stored.event_type!r} {stored.schema_version}, {stored.format}) at position "
        f"{stored.position}, version {stored.aggregate_version} of stream {str(stored.stream)!r},"
    )
