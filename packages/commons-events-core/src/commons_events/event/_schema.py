"""`EventSchema`: name, version and format of an event class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from threading import local
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from commons_events.errors import EventDefinitionError
from commons_events.event._registry import registry

if TYPE_CHECKING:
    from commons_events.event._event import Event

__all__ = ["EventSchema", "SchemaInfo", "check_event_type", "check_version"]

E = TypeVar("E", bound="type[Event]")

_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaInfo:
    """What an event class says of its schema."""

    version: str = "1.0.0"
    """Semantic version (semver.org 2.0.0)."""
    schema_type: str = "json"
    """The format of ``serialize()``: the name of a serializer plugin."""
    description: str | None = None
    """For whoever reads the schema."""


class EventSchema:
    """Class decorator that states an event's name, version and format, and registers the class.

    Returns the same class, so that zero-argument ``super()`` works in its methods.

    Args:
        name: the event type (CloudEvents' ``type``); by default the class's ``event_type``.
        version: semantic version of the schema.
        schema_type: the format of ``serialize()``: ``json``, ``avro``, ``protobuf``, or a plugin's name.
        description: for whoever reads the schema; by default the class's docstring.

    Raises:
        EventDefinitionError: an argument does not fit, or the class states another event type in its body.
        DuplicateEventTypeError: another class has this type and version.
    """

    def __init__(
        self,
        name: str | None = None,
        version: str = "1.0.0",
        schema_type: str = "json",
        description: str | None = None,
    ) -> None:
        where = f"@EventSchema(name={name!r}, version={version!r})"
        if name is not None:
            check_event_type(name, where)
        check_version(version, where)
        if not schema_type:
            raise EventDefinitionError(f"{where}: schema_type is empty; give the name of a format, such as 'json'.")
        self.name = name
        self.info = SchemaInfo(version=version, schema_type=schema_type, description=description)
        _unapplied().add(self)

    def __call__(self, event_class: E) -> E:
        from commons_events.event._event import Event

        _unapplied().discard(self)
        decorated: object = event_class
        if not isinstance(decorated, type) or not issubclass(decorated, Event) or decorated is Event:
            raise EventDefinitionError(
                f"@EventSchema: {event_class!r} is no event class. Let it be a subclass of commons_events.Event."
            )
        registry.unregister(event_class)
        event_class.restate(self.name or event_class.event_type, self.info)
        registry.register(event_class)
        if not decorator_is_pending():
            registry.end_contest()
        return event_class


class _Unapplied(local):
    """Decorators of this thread that were made and not applied yet: those above a class whose body is running."""

    def __init__(self) -> None:
        self.decorators: WeakSet[EventSchema] = WeakSet()


_thread = _Unapplied()


def _unapplied() -> WeakSet[EventSchema]:
    return _thread.decorators


def decorator_is_pending() -> bool:
    """Whether a class that is created now may yet get another type or version from its decorator.

    Python makes a decorator before it runs the body of the class below it, so a clash of the undecorated class with
    another one need not be one.
    """
    return bool(_unapplied())


def check_event_type(name: object, where: str) -> None:
    """Raise `EventDefinitionError` where ``name`` cannot be an event type."""
    if not isinstance(name, str) or not name or not name.isprintable() or name != name.strip():
        raise EventDefinitionError(
            f"{where}: the event type is a non-empty printable str, such as 'user.registered', not {name!r}."
        )


def check_version(version: object, where: str) -> None:
    """Raise `EventDefinitionError` where ``version`` is no semantic version."""
    if not isinstance(version, str) or _VERSION.fullmatch(version) is None:
        raise EventDefinitionError(
            f"{where}: the version is a semantic version, MAJOR.MINOR.PATCH, such as '1.2.0', not {version!r}."
        )
