"""`EventMetadata`: what a user put beside the facts, with a look at the envelope."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from commons_events.event._event import Event

__all__ = ["EventMetadata", "MetadataField"]


class EventMetadata(Mapping[str, Any]):
    """A read-only mapping of what the user put in an event's ``metadata``; ``len`` counts just that.

    The envelope's attributes can be read from it too, and are the event's own: ``event.metadata.correlation_id``
    is ``event.correlation_id``. One that was made by hand has None there.
    """

    __slots__ = ("_event", "_values")

    def __init__(self, values: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        self._values: Mapping[str, Any] = {**(values or {}), **more}
        self._event: Event | None = None

    @classmethod
    def of(cls, event: Event) -> EventMetadata:
        """The metadata of ``event``."""
        view = cls.__new__(cls)
        view._values = event.__dict__["metadata"]
        view._event = event
        return view

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"EventMetadata({dict(self._values)!r})"

    @property
    def event_type(self) -> str | None:
        """The event's type."""
        return None if self._event is None else self._event.event_type

    @property
    def version(self) -> str | None:
        """The event's version."""
        return None if self._event is None else self._event.version

    @property
    def event_id(self) -> str | None:
        """The event's id."""
        return None if self._event is None else self._event.event_id

    @property
    def source(self) -> str | None:
        """The event's source."""
        return None if self._event is None else self._event.source

    @property
    def timestamp(self) -> datetime | None:
        """The event's timestamp."""
        return None if self._event is None else self._event.timestamp

    @property
    def correlation_id(self) -> str | None:
        """The event's correlation id."""
        return None if self._event is None else self._event.correlation_id

    @property
    def causation_id(self) -> str | None:
        """The event's causation id."""
        return None if self._event is None else self._event.causation_id


class MetadataField:
    """Lets ``event.metadata`` be an `EventMetadata`, also where a subclass declares the field as a plain dict.

    The event itself keeps the plain dict, so that serialisation and comparison see nothing else.
    """

    @overload
    def __get__(self, event: None, owner: type[Event]) -> MetadataField: ...

    @overload
    def __get__(self, event: Event, owner: type[Event]) -> EventMetadata: ...

    def __get__(self, event: Event | None, owner: type[Event]) -> EventMetadata | MetadataField:
        if event is None:  # pydantic asks the class, and must not take this for a default
            raise AttributeError("metadata")
        return EventMetadata.of(event)

    def __set__(self, event: Event, value: Mapping[str, Any]) -> None:
        vars(event)["metadata"] = value  # reached by way of Event.__setattr__ alone
