"""Reading bytes that are of another version or type than the class that was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from commons_events.errors import DeserializationError
from commons_events.event._registry import registry

if TYPE_CHECKING:
    from commons_events.event._event import Event

__all__ = ["read_other"]


def read_other(
    event_class: type[Event],
    event_type: str,
    version: str | None,
    *,
    exact: Callable[[type[Event]], Event],
    resolve: Callable[[type[Event]], Event],
) -> Event:
    """An ``event_class`` from bytes that are of another type or version than its own: what every codec calls for them.

    Args:
        event_class: what was asked for.
        event_type: as the bytes state it.
        version: as the bytes state it, or None.
        exact: reads the bytes as a class that is just what they state.
        resolve: reads them, by the format's own rules, as a class of another version of the same major.

    Raises:
        DeserializationError: there is no way; the message says what the bytes are and what is missing.
    """

    def read(cls: type[Event]) -> Event:
        same = cls.event_type == event_type and cls.schema_info().version == version
        return exact(cls) if same else resolve(cls)

    other_type = event_type != event_class.event_type
    if other_type:
        sub = registry.get(event_type, version)
        if sub is not None and sub is not event_class and issubclass(sub, event_class):
            return read(sub)
    route = None if version is None else registry.migrations.route(event_class, event_type, version)
    if route is not None:
        event = read(route.start)
        for step in route.steps:
            event = step(event)
        return event
    own = event_class.schema_info().version
    if other_type:
        raise DeserializationError(
            f"{event_class.__qualname__}: the bytes are an event of type {event_type!r}, not "
            f"{event_class.event_type!r}."
        )
    raise DeserializationError(
        f"{event_class.__qualname__} is version {own} of {event_type!r}, and the bytes are version {version}: another "
        "major version may mean something else by the same fields, and no migration leads here. Register one "
        f"(@migration(from_=…, to={event_class.__qualname__})), or read them with that version's class."
    )
