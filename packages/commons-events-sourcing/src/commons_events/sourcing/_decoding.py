"""Stored bytes to events: the newest class that they lead to, found once a type, version and format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from commons_events.errors import DeserializationError, UndecodableEventError, UnknownEventTypeError
from commons_events.event import Event, registry
from commons_events.plugins import serializer
from commons_events.sourcing._domain_event import DomainEvent

if TYPE_CHECKING:
    from commons_events.sourcing._types import StoredEvent

__all__ = ["decode", "place_of", "readers", "stored_types"]

Reader = Callable[[bytes], Any]

_MOST = 10_000


class Readers(dict[tuple[str, str, str], tuple[Reader, bool]]):
    """By type, version and format of bytes: what makes events of them, and whether these are `DomainEvent` s.

    Raises:
        UnknownEventTypeError: no class is known for the type and version.
        MissingDistributionError: the format's package is not installed.
    """

    def __missing__(self, key: tuple[str, str, str]) -> tuple[Reader, bool]:
        if len(self) >= _MOST:
            self.clear()
        found = self[key] = _find(*key)
        return found


_readers = Readers()
_seen = -1


def readers() -> Readers:
    """Those of the classes that there are now; each is looked for once."""
    global _seen
    if _seen != registry.changes:
        _readers.clear()
        _seen = registry.changes
    return _readers


def _find(event_type: str, schema_version: str, format: str) -> tuple[Reader, bool]:
    for target in reversed(_names(event_type, registry.migrations.renamed())):
        if registry.migrations.route(target, event_type, schema_version) is not None:
            break
    else:
        target = registry.find(event_type, schema_version)  # no migration leads to a newest one: its own class
    codec = serializer(format)
    read: Reader = target.from_json if format == "json" else lambda data: codec.decode(data, target)
    return read, issubclass(target, DomainEvent)


def _names(event_type: str, renamed: Mapping[str, str]) -> list[type[Event]]:
    """The newest class of the type, and those of the types that it was renamed to, one after the other.

    What an aggregate's event became for the outside, and is no `DomainEvent`, is none of them.
    """
    name = event_type
    found: list[type[Event]] = []
    while (newest := registry.get(name)) is not None:
        if found and issubclass(found[0], DomainEvent) and not issubclass(newest, DomainEvent):
            break
        found.append(newest)
        if name not in renamed:
            break
        name = renamed[name]
    return found


def stored_types(event_class: type[Event]) -> set[str]:
    """Under which types events lie that are read as this class: its own, and those that were renamed to it."""
    event_type = event_class.event_type
    renamed = registry.migrations.renamed()
    return {event_type} | {t for t in renamed if any(cls.event_type == event_type for cls in _names(t, renamed))}


def decode(stored: StoredEvent) -> Event:
    """See `StoredEvent.event`."""
    if _seen != registry.changes:
        readers()
    try:
        read, of_aggregate = _readers[stored[4:7]]
        event = read(stored[7])
    except UnknownEventTypeError as error:
        raise UnknownEventTypeError(f"{place_of(stored)}: {error}") from error
    except DeserializationError as error:
        raise UndecodableEventError(f"{place_of(stored)} cannot be read: {error}") from error
    if of_aggregate and event.aggregate_version != stored[2]:  # it was appended directly, or copied from elsewhere
        event.placed(stored[2])
    return event  # type: ignore[no-any-return]


def place_of(stored: StoredEvent) -> str:
    """Which event it is and where it lies, as the beginning of a sentence."""
    return (
        f"The event {stored.event_id!r} ({stored.event_type!r} {stored.schema_version}, {stored.format}) at position "
        f"{stored.position}, version {stored.aggregate_version} of stream {str(stored.stream)!r}"
    )
