"""What a format implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeVar

from commons_events.event import Event

__all__ = ["Serializer"]

E = TypeVar("E", bound=Event)


class Serializer(ABC):
    """The whole event, envelope included, to bytes and back. Made without arguments; used from any thread.

    ``decode(encode(event), type(event)) == event`` for every event that can be made; what the format cannot hold
    exactly is refused by ``encode``, or when the class is created. ``__post_init__`` runs for every event that is
    read: see `Event.being_made`.
    """

    name: ClassVar[str]
    """The ``schema_type`` and the entry point's name."""
    content_type: ClassVar[str]
    """The media type of the bytes (RFC 6838): CloudEvents' ``datacontenttype``."""

    def check(self, event_class: type[Event]) -> None:  # noqa: B027  # a format that holds everything has no say
        """Called when an event class that names this format is created, and complete.

        Raises:
            EventDefinitionError: a field is of a type that the format cannot hold exactly.
        """

    def leaving(self, event_class: type[Event]) -> None:  # noqa: B027  # most formats have nothing to add
        """Called before an event of this class is first sent to another process: for advice that a program needs then.

        It is called once a class and sender, and must not fail.
        """

    @abstractmethod
    def encode(self, event: Event) -> bytes:
        """The bytes of an event.

        Raises:
            SerializationError: it holds a value that the format cannot carry exactly; the message says where.
        """

    @abstractmethod
    def decode(self, data: bytes, event_class: type[E]) -> E:
        """The event in ``data``; on `Event` itself, by the bytes' own identity.

        Bytes that state another type or version than the class's own are for `read_other`.

        Raises:
            DeserializationError: the bytes are not such an event, whatever they are; quickly, in bounded memory.
            UnknownEventTypeError: no class is known for the type that the bytes name.
        """

    def encoder(self, event_class: type[E], *, source: str | None = None) -> Callable[[E], bytes]:
        """What `encode` does, for the events of one class: whoever writes many asks for it once.

        Override it only where that is quicker. It need not last beyond a change of the class, see
        `EventRegistry.changes`, or of the plugins.

        Args:
            event_class: the class.
            source: what the bytes state in the place of the event's own, which is None or empty.
        """
        encode = self.encode
        return encode if source is None else lambda event: encode(event.with_source(source))

    def decoder(self, event_class: type[E]) -> Callable[[bytes], E]:
        """What `decode` does, for one class; as `encoder`."""
        decode = self.decode
        return lambda data: decode(data, event_class)

    @abstractmethod
    def schema(self, event_class: type[Event]) -> str:
        """The schema of a class, as text in the form that a schema registry takes."""

    @abstractmethod
    def identify(self, data: bytes) -> tuple[str, str | None] | None:
        """The event type and version that ``data`` itself states, or None where it states no type.

        Raises:
            UnknownSchemaError: the bytes are of this format, and name a writer's schema that is not known.
        """

    def fingerprint(self, schema: str) -> bytes:
        """What the format's bytes carry in the place of their writer's schema, where they carry such a thing.

        Raises:
            ValueError: the text is no schema of this format.
        """
        raise NotImplementedError(f"The bytes of {self.name} have no schema's fingerprint in them.")
