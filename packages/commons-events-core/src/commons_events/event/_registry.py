"""Which class stands for which event type and version."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING

from commons_events.errors import DuplicateEventTypeError, UnknownEventTypeError
from commons_events.event._migrations import Migrations
from commons_events.event._versions import same_major, version_order

if TYPE_CHECKING:
    from commons_events.event._event import Event

__all__ = ["EventRegistry", "registry"]


class EventRegistry:
    """Event classes by (type, version). Every concrete `Event` subclass enters the process's `registry` by itself."""

    def __init__(self) -> None:
        self._classes: dict[tuple[str, str], type[Event]] = {}
        self._contested: dict[tuple[str, str], type[Event]] = {}
        """Classes that want a place which another one has, and whose decorator may yet give them their own."""
        self._alike: dict[tuple[str, str], type[Event]] = {}
        """Of generic events, those whose types are called as another one's."""
        self._formats: tuple[int, frozenset[str]] = -1, frozenset()
        self._lock = RLock()
        self.migrations = Migrations(self)
        """From one version of an event to another."""
        self.changes = 0
        """Counted up with every change: whoever remembers an answer of `find`, or what
        follows from it, knows by it whether that still holds."""

    def register(self, event_class: type[Event], *, provisional: bool = False) -> None:
        """Let ``event_class`` stand for its type and version.

        The same module and qualified name again (a rerun cell, a reload) replaces the class from before.

        Args:
            event_class: the class.
            provisional: a decorator may yet give it another type or version, so that a clash need not be one.

        Raises:
            DuplicateEventTypeError: another class has this type and version.
        """
        key = (event_class.event_type, event_class.schema_info().version)
        with self._lock:
            self.changed()
            present = self._classes.get(key)
            if present is None or _identity(present) == _identity(event_class):
                self._classes[key] = event_class
            elif provisional:
                self._contested[key] = event_class
            else:
                raise _clash(event_class, present)

    def register_made(self, event_class: type[Event]) -> None:
        """Let a generic event with its types, ``Changed[int]``, stand for its type and version, as far as it is alone.

        Its type has the names of classes in it, and two may be called alike: then neither is found by it.
        """
        key = (event_class.event_type, event_class.schema_info().version)
        with self._lock:
            self.changed()
            present = self._classes.get(key)
            if present is None or _arguments(present) == _arguments(event_class):
                self._classes[key] = event_class
            else:
                self._alike[key] = event_class

    def recall_made(self, event_class: type[Event]) -> None:
        """As `register_made`, where the class is not known any more: pydantic makes each once, and then recalls it.

        A block that was `isolated` may have ended since.
        """
        key = (event_class.event_type, event_class.schema_info().version)
        with self._lock:
            present = self._classes.get(key)
            if self._alike.get(key) is not event_class and (
                present is None or _arguments(present) != _arguments(event_class)
            ):
                self.register_made(event_class)

    def refuse_contested(self) -> None:
        """Raise `DuplicateEventTypeError` where a provisional clash has turned out to be one."""
        with self._lock:
            for key, event_class in self._contested.items():
                raise _clash(event_class, self._classes[key])

    def end_contest(self) -> None:
        """As `refuse_contested`, after which the classes that came too late are forgotten."""
        with self._lock:
            self.changed()
            try:
                self.refuse_contested()
            finally:
                self._contested.clear()

    def unregister(self, event_class: type[Event]) -> None:
        """Take ``event_class`` out again."""
        key = (event_class.event_type, event_class.schema_info().version)
        with self._lock:
            self.changed()
            for classes in (self._classes, self._contested):
                if classes.get(key) is event_class:
                    del classes[key]

    def changed(self) -> None:
        """Let nobody count on an answer from before: for changes outside of the registry that matter to it, too."""
        with self._lock:
            self.changes += 1
            self.migrations.forget_routes()

    def get(self, event_type: str, version: str | None = None) -> type[Event] | None:
        """As `find`, but None where there is no class."""
        try:
            return self.find(event_type, version)
        except UnknownEventTypeError:
            return None

    def find(self, event_type: str, version: str | None = None) -> type[Event]:
        """The class for an event type.

        Args:
            event_type: CloudEvents' ``type``.
            version: as the bytes or headers state it; None for the latest. Where just this version has no class,
                the latest one of the same major version reads it.

        Raises:
            UnknownEventTypeError: there is none; the message says which there are.
        """
        if self._contested:
            self.refuse_contested()
        if version is not None:
            exact = self._classes.get((event_type, version))
            if exact is not None:
                if self._alike and (other := self._alike.get((event_type, version))):
                    raise UnknownEventTypeError(
                        f"Several classes are called {event_type!r} (such as {_name(exact)} and {_name(other)}, of "
                        "other classes with the same name). Make a subclass of each, with an event_type."
                    )
                return exact
        with self._lock:
            versions = {known: cls for (type_, known), cls in self._classes.items() if type_ == event_type}
        if not versions:
            raise UnknownEventTypeError(
                f"No event class is known for the type {event_type!r}. Import the module that defines it, or define "
                f"one with event_type = {event_type!r}."
            )
        fitting = [known for known in versions if version is None or same_major(known, version)]
        if not fitting:
            raise UnknownEventTypeError(
                f"No class is known for version {version!r} of {event_type!r}; there are: "
                f"{', '.join(sorted(versions))}. Another major version may mean something else by the same fields; "
                "define a class for this one."
            )
        return versions[max(fitting, key=version_order)]

    def newest(self) -> list[type[Event]]:
        """The class of the highest version of every event type."""
        newest: dict[str, tuple[str, type[Event]]] = {}
        for (event_type, version), event_class in self.classes().items():
            if event_type not in newest or version_order(version) > version_order(newest[event_type][0]):
                newest[event_type] = version, event_class
        return [event_class for _, event_class in newest.values()]

    def classes(self) -> dict[tuple[str, str], type[Event]]:
        """All classes by (type, version)."""
        with self._lock:
            return dict(self._classes)

    def formats(self) -> frozenset[str]:
        """The ``schema_type`` of each class."""
        with self._lock:
            if self._formats[0] != self.changes:
                found = frozenset(event_class.schema_info().schema_type for event_class in self._classes.values())
                self._formats = self.changes, found
            return self._formats[1]

    @contextmanager
    def isolated(self) -> Generator[None]:
        """Forget, at the end of the block, the classes and migrations that came inside it: for tests."""
        with self._lock:
            before = dict(self._classes), dict(self._contested), dict(self._alike)
        take_back_migrations = self.migrations.snapshot()
        try:
            yield
        finally:
            with self._lock:
                self.changed()
                self._classes, self._contested, self._alike = before
                take_back_migrations()


def _clash(event_class: type[Event], present: type[Event]) -> DuplicateEventTypeError:
    return DuplicateEventTypeError(
        f"{_name(event_class)} has the event type {event_class.event_type!r} and version "
        f"{event_class.schema_info().version!r}, which {_name(present)} has already. Give one of them another type "
        "(event_type = …, or @EventSchema(name=…)) or another version (@EventSchema(version=…))."
    )


def _arguments(event_class: type[Event]) -> tuple[object, ...]:
    """What a generic event was made of: a class that a reload has made anew is the same."""
    made = event_class.__pydantic_generic_metadata__
    arguments = tuple((getattr(a, "__module__", ""), getattr(a, "__qualname__", repr(a))) for a in made["args"])
    return (*_identity(event_class), *arguments)


def _identity(event_class: type[Event]) -> tuple[str, str]:
    return event_class.__module__, event_class.__qualname__


def _name(event_class: type[Event]) -> str:
    return f"{event_class.__module__}.{event_class.__qualname__}"


registry = EventRegistry()
"""The process's event classes."""
