"""Migrations: functions from an event of one version to the same fact in another one, and the chains they make."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

from commons_events.errors import (
    AmbiguousMigrationError,
    CommonsEventsError,
    EventDefinitionError,
    MigrationError,
    MissingMigrationError,
)
from commons_events.event._versions import same_major, version_order
from commons_events.plugins import serializer

if TYPE_CHECKING:
    from commons_events.event._event import Event
    from commons_events.event._registry import EventRegistry

__all__ = ["Migrations", "Route"]

Identity = tuple[str, str]
"""An event type and a version of it."""
F = TypeVar("F", bound=Callable[..., Any])

_ENVELOPE = ("event_id", "source", "timestamp", "correlation_id", "causation_id", "metadata")
_MOST_ROUTES = 1_000
"""Routes that are remembered: a version is whatever foreign bytes say."""


class _Step(NamedTuple):
    function: Callable[[Any], Any]
    to: type[Event]

    def __call__(self, event: Event) -> Event:
        name = _name(self.function)
        try:
            migrated = self.function(event)
        except Exception as error:  # a user's code, and whatever it raises means that these bytes cannot be read
            raise MigrationError(
                f"The migration {name} of {_known(event)} failed for {event.event_id!r}: {type(error).__name__}: "
                f"{error}"
            ) from error
        if type(migrated) is not self.to:
            raise MigrationError(
                f"The migration {name} of {_known(event)} returned a {type(migrated).__qualname__}, not a "
                f"{self.to.__qualname__}."
            )
        return _with_envelope_of(event, migrated)


class _Hop(NamedTuple):
    """From one version to another of the same major, by the rules of the format: written, and read as the other."""

    to: type[Event]

    def __call__(self, event: Event) -> Event:
        try:
            codec = serializer(type(event).schema_info().schema_type)
            return codec.decode(codec.encode(event), self.to)
        except CommonsEventsError as error:
            raise MigrationError(
                f"The {_known(event)} that a migration made cannot be read as {_words(_identity(self.to))}: {error}"
            ) from error


class Route(NamedTuple):
    """How bytes of some version become an event of the class that was asked for."""

    start: type[Event]
    """What the bytes are read as; by the format's own rules where they are of another version."""
    steps: Sequence[_Step | _Hop]
    """What is then called, in order."""


class Migrations:
    """The migrations between event classes. The process's own are those of `registry`."""

    def __init__(self, events: EventRegistry) -> None:
        self._events = events
        self._functions: dict[Identity, dict[Identity, Callable[[Any], Any]]] = {}
        self._routes: dict[tuple[type[Event], Identity], Route | None] = {}
        self._lock = RLock()

    @overload
    def migration(self, function: F, /) -> F: ...

    @overload
    def migration(self, /, *, from_: type[Event] | None = None, to: type[Event] | None = None) -> Callable[[F], F]: ...

    def migration(
        self, function: F | None = None, /, *, from_: type[Event] | None = None, to: type[Event] | None = None
    ) -> F | Callable[[F], F]:
        """Decorator of a function that takes an event of one class and returns the same fact as another class.

        Readers that ask for ``to`` then get it from bytes of ``from_``, and through chains of migrations from what
        comes before. The shortest chain counts. What the function leaves out of the envelope (event id, timestamp,
        source, correlation, causation, metadata) is that of the event it was given. The function stays callable.

        Args:
            function: the function, where the decorator is used without arguments.
            from_: the class it takes; by default as the function's first parameter is annotated.
            to: the class it returns; by default as annotated.

        Raises:
            EventDefinitionError: the classes are not stated, or are one and the same; or another function does this
                already.
            AmbiguousMigrationError: there would be two shortest chains between two classes.
        """

        def register(function: F) -> F:
            self._register(function, *_ends(function, from_, to))
            return function

        return register if function is None else register(function)

    def _register(self, function: Callable[[Any], Any], from_: type[Event], to: type[Event]) -> None:
        start, end = _identity(from_), _identity(to)
        with self._lock:
            onward = self._functions.setdefault(start, {})
            present = onward.get(end)
            if present is not None and _place(present) != _place(function):
                raise EventDefinitionError(
                    f"{_name(function)} migrates {_words(start)} to {_words(end)}, which {_name(present)} does "
                    "already. Remove one of them."
                )
            onward[end] = function
            try:
                self._refuse_ambiguity()
            except AmbiguousMigrationError:
                del onward[end]
                raise
            self._events.changed()

    def check(self, *event_classes: type[Event]) -> None:
        """Raise at start-up what would otherwise be found out when the first old bytes come.

        Args:
            event_classes: what is going to be read, each from every version that is registered before it; by default
                the newest class of every event type.

        Raises:
            MissingMigrationError: some version cannot be read as such a class; the message names all of them.
        """
        for target in event_classes:
            if not isinstance(target, type):
                raise TypeError(f"check_migrations takes event classes, each by itself, not {target!r:.100}.")
        classes = self._events.classes()
        missing = [
            f"{_words(identity)} as {_words(_identity(target))}"
            for target in event_classes or self._events.newest()
            for identity in sorted(classes, key=lambda known: version_order(known[1]))
            if identity[0] == target.event_type
            and version_order(identity[1]) < version_order(target.schema_info().version)
            and self.route(target, *identity) is None
        ]
        if missing:
            raise MissingMigrationError(
                f"No migration reads {'; nor '.join(missing)}. Register one: @migration(from_=…, to=…)."
            )

    def route(self, event_class: type[Event], event_type: str, version: str) -> Route | None:
        """How bytes of this type and version become an ``event_class``; None where there is no way.

        First come migrations from just this version; then the format's own rules, within a major version; then both:
        the bytes are read as the closest version of the same major, and migrated from there. Where that does not lead
        here, what a migration makes is written, and read as the closest version of its major that leads on.
        """
        key = (event_class, (event_type, version))
        try:
            return self._routes[key]
        except KeyError:
            with self._lock:
                if len(self._routes) >= _MOST_ROUTES:
                    self._routes.clear()
                route = self._routes[key] = self._find(event_class, (event_type, version))
                return route

    def renamed(self) -> dict[str, str]:
        """The event types that became another one: the only one that migrations lead to from there, and not back."""
        onward: dict[str, set[str]] = {}
        with self._lock:
            for start, ends in self._functions.items():
                onward.setdefault(start[0], set()).update(end[0] for end in ends)

        def leads(start: str, end: str) -> bool:
            seen, waiting = set[str](), [start]
            while waiting:
                seen.add(node := waiting.pop())
                waiting += onward.get(node, set()) - seen
            return end in seen

        others = {start: [end for end in ends if not leads(end, start)] for start, ends in onward.items()}
        return {start: ends[0] for start, ends in others.items() if len(ends) == 1}

    def forget_routes(self) -> None:
        """Called when event classes come or go."""
        self._routes.clear()

    def snapshot(self) -> Callable[[], None]:
        """A function that takes the migrations back to what they are now."""
        functions = {start: dict(onward) for start, onward in self._functions.items()}

        def restore() -> None:
            self._functions = functions
            self._routes.clear()

        return restore

    def _find(self, target: type[Event], identity: Identity) -> Route | None:
        classes = self._events.classes()
        end = _identity(target)
        exact = target if identity == end else classes.get(identity)
        if exact is not None and (steps := self._steps(identity, end, target)) is not None:
            return Route(exact, steps)
        event_type, version = identity
        if event_type == end[0] and same_major(version, end[1]):
            return Route(target, ())
        near = self._near(identity)
        for known in near:
            steps = self._steps(known, end, target)
            if steps is not None:
                return Route(classes[known], steps)
        return self._joined([identity, *near] if exact is not None else near, end, target)

    def _near(self, identity: Identity) -> list[Identity]:
        """The versions of the same type and major that have a class, the closest one first."""
        event_type, version = identity
        order = version_order(version)
        near = [k for k in self._events.classes() if k[0] == event_type and same_major(k[1], version) and k != identity]
        near.sort(key=lambda known: version_order(known[1]))
        newer = [known for known in near if version_order(known[1]) >= order]
        return newer + [known for known in reversed(near) if version_order(known[1]) < order]

    def _joined(self, starts: Sequence[Identity], end: Identity, target: type[Event]) -> Route | None:
        """The route with the fewest hops by the format behind migrations, of those with the fewest migrations."""
        classes = {**self._events.classes(), end: target}
        came_from: dict[Identity, tuple[Identity, Callable[[Any], Any] | None]] = {}
        reached = list(starts)
        while reached and end not in came_from:
            for node in reached:  # it grows
                for onward, function in self._functions.get(node, {}).items():
                    if onward in classes and onward not in came_from and onward not in starts:
                        came_from[onward] = node, function
                        reached.append(onward)
            hops: list[Identity] = []
            for node in reached if end not in came_from else ():
                direct = [end] if node[0] == end[0] and same_major(node[1], end[1]) else []
                for other in (*direct, *self._near(node)):
                    if other not in came_from and other not in starts:
                        came_from[other] = node, None
                        hops.append(other)
            reached = hops
        if end not in came_from:
            return None
        steps: list[_Step | _Hop] = []
        node = end
        while node in came_from:
            before, by = came_from[node]
            steps.append(_Hop(classes[node]) if by is None else _Step(by, classes[node]))
            node = before
        return Route(classes[node], steps[::-1])

    def _steps(self, start: Identity, end: Identity, target: type[Event]) -> Sequence[_Step] | None:
        """The shortest chain, or None."""
        if start == end:
            return ()
        came_from: dict[Identity, Identity] = {start: start}
        frontier = [start]
        while frontier and end not in came_from:
            following: list[Identity] = []
            for node in frontier:
                for next_node in self._functions.get(node, ()):
                    if next_node not in came_from:
                        came_from[next_node] = node
                        following.append(next_node)
            frontier = following
        if end not in came_from:
            return None
        classes = self._events.classes()
        steps: list[_Step] = []
        node = end
        while node != start:
            before = came_from[node]
            to = target if node == end else classes.get(node)
            if to is None:
                return None  # its class was taken out of the registry
            steps.append(_Step(self._functions[before][node], to))
            node = before
        return steps[::-1]

    def _refuse_ambiguity(self) -> None:
        """Raise where two different shortest chains lead from one class to another."""
        for start in self._functions:
            chains: dict[Identity, list[Identity]] = {start: [start]}
            frontier = [start]
            while frontier:
                following: dict[Identity, list[Identity]] = {}
                for node in frontier:
                    for next_node in self._functions.get(node, ()):
                        if next_node in chains:
                            continue
                        chain = [*chains[node], next_node]
                        other = following.setdefault(next_node, chain)
                        if other != chain:
                            raise AmbiguousMigrationError(
                                f"Two chains of migrations lead from {_words(start)} to {_words(next_node)}: "
                                f"{_arrows(other)} and {_arrows(chain)}. Remove one migration of them, or register "
                                "a direct one before."
                            )
                chains |= following
                frontier = list(following)


def _ends(
    function: Callable[..., Any], from_: type[Event] | None, to: type[Event] | None
) -> tuple[type[Event], type[Event]]:
    from commons_events.event._event import Event

    if inspect.iscoroutinefunction(function):
        raise EventDefinitionError(
            f"@migration: {_name(function)} is a coroutine function, and events are read without waiting. Make it an "
            "ordinary function."
        )
    stated: dict[str, Any] = {}
    if from_ is None or to is None:
        try:
            hints = typing.get_type_hints(function)
        except NameError as error:  # a class of the function around it, in a module with postponed annotations
            raise EventDefinitionError(
                f"@migration: {_name(function)} has an annotation that cannot be looked up: {error}. State the "
                "classes: @migration(from_=…, to=…)."
            ) from error
        parameters = list(inspect.signature(function).parameters)
        stated = {"from_": hints.get(parameters[0]) if parameters else None, "to": hints.get("return")}
    ends = from_ or stated.get("from_"), to or stated.get("to")
    for name, end in zip(("from_", "to"), ends, strict=True):
        if not isinstance(end, type) or not issubclass(end, Event) or end is Event:
            raise EventDefinitionError(
                f"@migration: {_name(function)} does not say which event class it is {name.rstrip('_')}: {end!r}. "
                f"Annotate the function, or state it: @migration({name}=…)."
            )
    start, end = typing.cast("tuple[type[Event], type[Event]]", ends)
    if _identity(start) == _identity(end):
        raise EventDefinitionError(f"@migration: {_name(function)} leads from {_words(_identity(start))} to itself.")
    return start, end


def _with_envelope_of(event: Event, migrated: Event) -> Event:
    left_out = [name for name in _ENVELOPE if name not in migrated.model_fields_set]
    update = {name: vars(event)[name] for name in left_out if vars(event)[name] != vars(migrated)[name]}
    return migrated.model_copy(update=update) if update else migrated


def _identity(event_class: type[Event]) -> Identity:
    return event_class.event_type, event_class.schema_info().version


def _known(event: Event) -> str:
    return _words(_identity(type(event)))


def _words(identity: Identity) -> str:
    return f"{identity[0]!r} {identity[1]}"


def _arrows(chain: list[Identity]) -> str:
    return " → ".join(version for _, version in chain)


def _place(function: Callable[..., Any]) -> tuple[object, object]:
    return getattr(function, "__module__", None), getattr(function, "__qualname__", function)


def _name(function: Callable[..., Any]) -> str:
    module, name = _place(function)
    return f"{module}.{name}"
