"""`AggregateRoot`: state that changes by events alone."""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Iterable
from copy import copy, deepcopy
from typing import Any, ClassVar, TypeVar, cast

from commons_events.errors import (
    AggregateDefinitionError,
    EventOrderError,
    ForeignEventError,
    InvalidAggregateIdError,
    MissingHandlerError,
)
from commons_events.event import Event
from commons_events.sourcing._domain_event import DomainEvent, changeable_fields
from commons_events.sourcing._snapshots import SnapshotPolicy

__all__ = [
    "MAX_ID_LENGTH",
    "A",
    "AggregateRoot",
    "check_aggregate_class",
    "check_aggregate_id",
    "fresh",
    "handler_name",
    "replay",
]

A = TypeVar("A", bound="AggregateRoot")

MAX_ID_LENGTH = 255
"""Characters of an aggregate's id."""
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_UNPRINTABLE = frozenset({"Cc", "Cs", "Cn"})
"""Unicode's control characters, lone surrogates, and code points that are no characters; joiners are part of words."""


class _Handlers(dict[type[Event], tuple[str, tuple[str, ...]]]):
    """The names of an aggregate class's handlers by event class, with the event's `changeable_fields`.

    Each is looked for once. The handler itself is what the class has at the time, and may be a test's in its place.
    """

    def __init__(self, aggregate_class: type[AggregateRoot]) -> None:
        super().__init__()
        self._aggregate_class = aggregate_class

    def __missing__(self, event_class: type[Event]) -> tuple[str, tuple[str, ...]]:
        name = _find_handler(self._aggregate_class, event_class)
        found = self[event_class] = name, changeable_fields(event_class)
        return found


class _Record:
    """What the framework keeps of an aggregate, beside its state."""

    __slots__ = ("handling", "id", "origin", "pending", "snapshot", "version")

    def __init__(
        self,
        id: str,
        version: int = 0,
        pending: Iterable[DomainEvent] = (),
        snapshot: Any = None,
        origin: object = None,
    ) -> None:
        self.id = id
        self.version = version
        self.pending = list(pending)
        self.handling = False
        """Whether a handler runs."""
        self.snapshot = snapshot
        """What is known of the newest snapshot."""
        self.origin = origin
        """The store that it was loaded from or saved to."""

    def __copy__(self) -> _Record:
        return _Record(self.id, self.version, self.pending, self.snapshot, self.origin)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Record:
        return _Record(self.id, self.version, deepcopy(self.pending, memo), self.snapshot, self.origin)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Record, (self.id, self.version, self.pending, self.snapshot)  # a store is of its process


class AggregateRoot:
    """The root of an aggregate (DDD): it decides by commands, and changes by events alone.

    A command is a method that checks what it must and calls ``self.apply(SomethingHappened(aggregate_id=self.id, …))``.
    A handler ``handle_something_happened(self, event)`` changes the state; it is found by the name of the event's
    class, or of the nearest class that it derives from. Handlers run again whenever the aggregate is loaded, so they
    only change attributes of ``self``: they refuse nothing, and apply no events.

    A subclass's ``__init__`` takes the id as its only required argument, calls ``super().__init__(id)`` and sets the
    attributes that a new aggregate has.

    Args:
        id: what tells the aggregate from all others of the store, of whatever class; 1 to 255 characters.

    Class attributes:
        category: of the aggregates' streams; by default the class's name. State it before the class is renamed.
        snapshot_policy: when a snapshot is kept; by default never.
        snapshot_version: count it up when older snapshots no longer hold, for a reason that is not in the program's
            code; changes of what ``__init__`` and the handlers use are noticed by themselves.

    Raises:
        InvalidAggregateIdError: the id is empty, too long or no text.
    """

    # All of the framework's own is in a slot, so that vars(aggregate) is the state and nothing else; and under names
    # that no subclass takes for something of its own.
    __slots__ = ("_commons_events",)

    category: ClassVar[str] = ""
    snapshot_policy: ClassVar[SnapshotPolicy | None] = None
    snapshot_version: ClassVar[int] = 1
    _commons_events_handlers: ClassVar[_Handlers]

    def __init__(self, id: str) -> None:
        self._commons_events = _Record(check_aggregate_id(id, type(self).__qualname__))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._commons_events_handlers = _Handlers(cls)
        policy: Any = cls.snapshot_policy
        if policy is not None and not isinstance(policy, SnapshotPolicy):
            raise AggregateDefinitionError(
                f"{cls.__qualname__}.snapshot_policy is {policy!r:.100}; it is a SnapshotPolicy, such as "
                "SnapshotPolicy(every=100), or None."
            )
        for name, member in vars(cls).items():
            if name.startswith("handle_") and (
                inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
            ):
                raise AggregateDefinitionError(
                    f"{cls.__qualname__}.{name} is async, and a handler only changes the aggregate's attributes. Do "
                    "what has to be awaited before the event is applied, or in a projection."
                )

    @property
    def id(self) -> str:
        """What tells the aggregate from all others of the store."""
        try:
            return self._commons_events.id
        except AttributeError:
            raise _not_initialized(self) from None

    @property
    def version(self) -> int:
        """How many events it has applied: the version of the last one, those included that are not saved yet."""
        return self._commons_events.version

    @property
    def saved_version(self) -> int:
        """The version of the last event that is stored; 0 for a new aggregate."""
        record = self._commons_events
        return record.version - len(record.pending)

    @property
    def pending_events(self) -> tuple[DomainEvent, ...]:
        """The events that were applied and are not saved yet, in order; as they were then, whatever a handler kept."""
        return tuple(self._commons_events.pending)

    def apply(self, event: DomainEvent) -> None:
        """Let an event happen: its handler changes the state, and the event waits to be saved.

        What a handler raises reaches the caller, and the event then did not happen.

        Args:
            event: of this aggregate. Its ``aggregate_version`` is set here.

        Raises:
            ForeignEventError: it is another aggregate's, or no `DomainEvent`.
            MissingHandlerError: the aggregate has no handler for it.
            EventOrderError: it was applied before, or a handler applies it.
        """
        try:
            record = self._commons_events
        except AttributeError:
            raise _not_initialized(self) from None
        handlers = self._commons_events_handlers
        if type(event) not in handlers and not isinstance(event, DomainEvent):  # what has a handler is one
            raise ForeignEventError(
                f"{_name(self)} cannot apply {event!r:.100}: it is no DomainEvent. Derive its class from "
                "commons_events.sourcing.DomainEvent."
            )
        if event.aggregate_id != record.id:
            raise _foreign(self, event)
        if event.aggregate_version:
            raise EventOrderError(
                f"{_name(self)} cannot apply {type(event).__qualname__} {event.event_id!r}: it was applied before, as "
                f"version {event.aggregate_version}. Make a new event for what happens again."
            )
        if record.handling:
            raise _handled(self, f"apply {type(event).__qualname__} {event.event_id!r}")
        handler, changeable = handlers[type(event)]
        version = record.version + 1
        record.handling = True
        try:
            # A handler may make what the event holds a part of the state, which changes, and the fact does not.
            fact = event._happened(version, changeable)
            getattr(type(self), handler)(self, event)
        except BaseException:
            vars(event)["aggregate_version"] = 0
            raise
        finally:
            record.handling = False
        record.version = version
        record.pending.append(fact)

    def replay(self, events: Iterable[Event]) -> None:
        """Bring the aggregate on by events that are stored; they are not to be saved again.

        Args:
            events: `DomainEvent` s, those that follow its ``version``, in order and with their versions.

        Raises:
            ForeignEventError: one is another aggregate's.
            MissingHandlerError: the aggregate has no handler for one.
            EventOrderError: one is not the next, events wait to be saved, or a handler calls it.
        """
        handlers, stored = self._commons_events_handlers, cast("Iterable[DomainEvent]", events)
        with_fields = ((event, handlers[type(event)][1]) for event in stored)
        replay(self, (event._apart(changeable) for event, changeable in with_fields))  # the caller keeps them

    def __getstate__(self) -> tuple[Any, dict[str, Any]]:
        """For copies, which belong to the same store, and pickles, which belong to none; both go on by themselves."""
        record = copy(self._commons_events)
        given: Any = super().__getstate__()
        state, slots = given
        return state, {**slots, "_commons_events": record}

    def __repr__(self) -> str:
        try:
            return f"<{type(self).__qualname__} {self._commons_events.id!r} at version {self.version}>"
        except AttributeError:
            return f"<{type(self).__qualname__}, not initialized>"


AggregateRoot._commons_events_handlers = _Handlers(AggregateRoot)


def replay(aggregate: AggregateRoot, events: Iterable[Event]) -> None:
    """As `AggregateRoot.replay`, of events that are nobody else's: their values may become part of the state."""
    record = aggregate._commons_events
    if record.handling:
        raise _handled(aggregate, "replay events")
    if record.pending:
        raise EventOrderError(
            f"{_name(aggregate)} has {len(record.pending)} events that are not saved; stored events come before them. "
            "Save it first, or load it anew."
        )
    aggregate_class, handlers = type(aggregate), aggregate._commons_events_handlers
    id, version = record.id, record.version
    event: Any  # a DomainEvent: else it has no handler
    record.handling = True
    try:
        for event in events:
            handler, _ = handlers[type(event)]
            if event.aggregate_id != id:
                raise _foreign(aggregate, event)
            if event.aggregate_version != version + 1:
                raise EventOrderError(
                    f"{_name(aggregate)} is at version {version}, and the next event that it is given, "
                    f"{type(event).__qualname__} {event.event_id!r}, has version {event.aggregate_version}. Give "
                    "it all events of its stream, in order."
                )
            getattr(aggregate_class, handler)(aggregate, event)
            version += 1
    finally:
        record.version, record.handling = version, False


def check_aggregate_id(id: object, where: str) -> str:
    """The id, if it is one.

    Raises:
        InvalidAggregateIdError: it is empty, too long or no text that a database can hold.
    """
    if not isinstance(id, str):
        raise InvalidAggregateIdError(f"{where}: an aggregate's id is a str, not {id!r:.100}.")
    if not id or (not id.isprintable() and not _UNPRINTABLE.isdisjoint(map(unicodedata.category, id))):
        raise InvalidAggregateIdError(
            f"{where}: an aggregate's id is text without control characters, such as 'user_123', not {id!r:.100}."
        )
    if len(id) > MAX_ID_LENGTH:
        raise InvalidAggregateIdError(
            f"{where}: the id {id[:20]!r}… has {len(id):,} characters, and an aggregate's id has at most "
            f"{MAX_ID_LENGTH}. Use a shorter name, or a UUID."
        )
    return id


def handler_name(event_class: type[Event]) -> str:
    """``handle_user_created`` for ``UserCreated``; a class of a generic one or in a function by its own name."""
    return "handle_" + _WORDS.sub("_", event_class.__name__.partition("[")[0]).lower()


def check_aggregate_class(given: object) -> None:
    """Raise `AggregateDefinitionError` where it is no class of aggregates."""
    if not isinstance(given, type) or not issubclass(given, AggregateRoot):
        raise AggregateDefinitionError(f"{given!r:.100} is no class that derives from AggregateRoot.")


def fresh(aggregate_class: type[A], id: str) -> A:
    """A new aggregate of this class and id, as its ``__init__`` makes it.

    Raises:
        AggregateDefinitionError: it cannot be made from its id alone.
    """
    check_aggregate_class(aggregate_class)
    try:
        aggregate = aggregate_class(id)
    except TypeError as error:
        try:
            inspect.signature(aggregate_class).bind(id)
        except TypeError as problem:
            raise AggregateDefinitionError(
                f"{aggregate_class.__qualname__}({id!r}) cannot be called: {problem}. An aggregate is made from its id "
                "alone, and gets all else from its events; give the other parameters of __init__ defaults."
            ) from error
        raise
    if aggregate.id != id:
        raise AggregateDefinitionError(
            f"{aggregate_class.__qualname__}({id!r}) has the id {aggregate.id!r}: __init__ has to pass "
            "the id on as it is."
        )
    if aggregate.version:
        raise AggregateDefinitionError(
            f"{aggregate_class.__qualname__}.__init__ applies events, which would happen again whenever it is loaded. "
            "Apply them in a method, such as create()."
        )
    return aggregate


def _find_handler(aggregate_class: type[AggregateRoot], event_class: type[Event]) -> str:
    candidates = [cls for cls in event_class.__mro__ if issubclass(cls, DomainEvent)]
    for name in map(handler_name, candidates):
        if getattr(aggregate_class, name, None) is not None:
            return name
    if not candidates:
        raise ForeignEventError(
            f"{aggregate_class.__qualname__} cannot apply {event_class.__qualname__}: it is no DomainEvent. Derive it "
            "from commons_events.sourcing.DomainEvent."
        )
    there = sorted(name for name in dir(aggregate_class) if name.startswith("handle_")) or ["none"]
    raise MissingHandlerError(
        f"{aggregate_class.__qualname__} has no handler for {event_class.__qualname__} ({event_class.event_type!r}). "
        f"Define {handler_name(event_class)}(self, event: {event_class.__name__}) in it. Its handlers: "
        f"{', '.join(there)}."
    )


def _foreign(aggregate: AggregateRoot, event: Any) -> ForeignEventError:
    return ForeignEventError(
        f"{_name(aggregate)} cannot apply {type(event).__qualname__} {event.event_id!r}: it is of the aggregate "
        f"{event.aggregate_id!r}. Make it with aggregate_id=self.id."
    )


def _handled(aggregate: AggregateRoot, what: str) -> EventOrderError:
    return EventOrderError(
        f"{_name(aggregate)} cannot {what} while a handler runs: handlers only change attributes, and run again "
        "whenever the aggregate is loaded. Apply it in the command, after the event that it follows from."
    )


def _not_initialized(aggregate: AggregateRoot) -> AggregateDefinitionError:
    name = type(aggregate).__qualname__
    return AggregateDefinitionError(f"{name}.__init__ has not called super().__init__(id), which has to come first.")


def _name(aggregate: AggregateRoot) -> str:
    return f"{type(aggregate).__qualname__} {aggregate.id!r}"
