"""``given(…).when(…).then(…)``: what an aggregate decides, said by events alone."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from commons_events.event import Event

__all__ = ["Decided", "Given", "given"]

P = ParamSpec("P")


class _Aggregate(Protocol):
    """As much of ``commons_events.sourcing.AggregateRoot`` as is needed here: this package does not import it."""

    @property
    def id(self) -> str: ...

    @property
    def pending_events(self) -> tuple[Any, ...]: ...

    def replay(self, events: Iterable[Any], /) -> None: ...


A = TypeVar("A", bound=_Aggregate)

_ONLY_IF_STATED = ("event_id", "source", "correlation_id", "causation_id", "metadata", "aggregate_version")
_NEVER = ("timestamp",)


def given(aggregate_class: Callable[[str], A], id: str, *events: Event) -> Given[A]:
    """An aggregate to which this has happened; without events, a new one.

    Args:
        aggregate_class: the class.
        id: the aggregate's.
        events: its `DomainEvent` s, in order. They are copied, so that several tests may share them.

    Raises:
        TypeError: one is no event.
        ForeignEventError: one is no `DomainEvent`, or of another aggregate.
    """
    _check_events("given", events)
    aggregate = aggregate_class(id)
    placed: list[Any] = []
    for version, event in enumerate(events, 1):
        copy: Any = event.model_copy()
        placed.append(copy.placed(version) if hasattr(copy, "placed") else copy)
    aggregate.replay(placed)
    return Given(aggregate)


class Given(Generic[A]):
    """An aggregate with a past. `given` makes it."""

    def __init__(self, aggregate: A) -> None:
        self.aggregate = aggregate
        """The aggregate itself, for assertions on its state."""

    def when(
        self, command: Callable[Concatenate[A, P], object], *arguments: P.args, **keywords: P.kwargs
    ) -> Decided[A]:
        """Carry out a command; what it raises is kept for `Decided.then_raises`.

        A second command finds the aggregate as the first has left it, and its events are its own alone.

        Args:
            command: is called with the aggregate and the other arguments: ``UserAggregate.activate``, or a lambda.
            arguments: passed on.
            keywords: passed on.

        Raises:
            TypeError: the command can't be called, is async (an aggregate's commands await nothing), or is a
                generator, of which nothing has run.
        """
        __tracebackhide__ = True
        if not callable(command):
            raise TypeError(
                f"when() takes a command and what that takes: when(Door.open, 'Ann'). {command!r:.100} can't be called."
            )
        before, error = len(self.aggregate.pending_events), None
        try:
            result = command(self.aggregate, *arguments, **keywords)
        except Exception as raised:  # noqa: BLE001  # whatever it is, the test says whether it was to come
            error = raised
        else:
            _check_run(result)
        return Decided(self.aggregate, error, self.aggregate.pending_events[before:])


class Decided(Generic[A]):
    """What came of a command. `Given.when` makes it; each assertion returns it again."""

    def __init__(self, aggregate: A, error: Exception | None, events: Sequence[Any]) -> None:
        self.aggregate = aggregate
        """The aggregate, after the command."""
        self.error = error
        """What the command raised, or None."""
        self.events = events
        """The events that the command applied."""

    def then(self, *expected: Event) -> Decided[A]:
        """Assert that just these events happened, in this order.

        The classes and all data have to be equal. The time is not compared; the rest of the envelope, and
        ``aggregate_version``, only where the expected event was given one.

        Raises:
            AssertionError: the message shows both lists, and each field that differs.
            TypeError: what was expected is no event.
        """
        __tracebackhide__ = True
        _check_events("then", expected)
        self._refuse_error()
        happened = self.events
        problems = [
            f"event {place}: {problem}"
            for place, (wanted, found) in enumerate(zip(expected, happened, strict=False), 1)
            for problem in _differences(wanted, found)
        ]
        if len(happened) != len(expected):
            problems.insert(0, f"{len(expected)} were expected, and {len(happened)} happened")
        if problems:
            raise AssertionError(
                "Other events happened than expected:\n  "
                + "\n  ".join(problems)
                + f"\nexpected: {_list(expected)}\nhappened: {_list(happened)}"
            )
        return self

    def then_nothing(self) -> Decided[A]:
        """Assert that no event happened, and nothing was raised.

        Raises:
            AssertionError: something did.
        """
        __tracebackhide__ = True
        return self.then()

    def then_raises(
        self, error_class: type[Exception] | tuple[type[Exception], ...], match: str | None = None
    ) -> Decided[A]:
        """Assert that the command was refused, and that no event happened.

        Args:
            error_class: what it raised is of this class, or of one of these.
            match: a regular expression that is found in the error's message.

        Raises:
            AssertionError: it raised something else or nothing, or an event happened before; what it raised is the
                cause.
            TypeError: no class of errors was expected.
        """
        __tracebackhide__ = True
        classes: tuple[Any, ...] = error_class if isinstance(error_class, tuple) else (error_class,)
        if not classes:
            raise TypeError("then_raises() takes a class of exceptions or a tuple of them, and no empty one.")
        for given_class in classes:
            if not (isinstance(given_class, type) and issubclass(given_class, BaseException)):
                raise TypeError(
                    f"then_raises() takes a class of exceptions or a tuple of them, and no {given_class!r:.100}. What "
                    "the message says is another argument: then_raises(ValueError, match=…)."
                )
        name = " or ".join(one.__name__ for one in classes)
        if self.error is None:
            raise AssertionError(f"{name} was expected, and the command did: {_list(self.events)}")
        if not isinstance(self.error, classes):
            raise AssertionError(f"{name} was expected, and it raised {self.error!r}") from self.error
        if match is not None and re.search(match, str(self.error)) is None:
            raise AssertionError(f"{match!r} is not found in {str(self.error)!r}") from self.error
        if self.events:
            raise AssertionError(f"it raised {self.error!r}, and events had happened already: {_list(self.events)}")
        return self

    def then_state(self, **attributes: object) -> Decided[A]:
        """Assert what the aggregate's attributes are now.

        Raises:
            AssertionError: one is another; the message names all that differ.
        """
        __tracebackhide__ = True
        self._refuse_error()
        missing = object()
        problems = [
            f"{name}: {wanted!r} was expected, and it is {'not there' if found is missing else repr(found)}"
            for name, wanted in attributes.items()
            if (found := getattr(self.aggregate, name, missing)) is missing or found != wanted
        ]
        if problems:
            raise AssertionError("The state is another one:\n  " + "\n  ".join(problems))
        return self

    def _refuse_error(self) -> None:
        __tracebackhide__ = True
        if self.error is not None:
            raise AssertionError(f"the command raised {self.error!r}") from self.error


def _check_run(result: object) -> None:
    __tracebackhide__ = True
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("when() takes a command that awaits nothing; await before it, and pass what came of it.")
    if inspect.isasyncgen(result) or (
        inspect.isgenerator(result) and inspect.getgeneratorstate(result) == inspect.GEN_CREATED
    ):
        raise TypeError(
            f"when() takes a command that does its work when it is called; of {result!r:.100} nothing has run. Write a "
            "lambda that takes it to its end, such as: lambda door: list(door.open_all())."
        )


def _check_events(where: str, events: Sequence[object]) -> None:
    __tracebackhide__ = True
    for event in events:
        if not isinstance(event, Event):
            hint = (
                f"Make one: {event.__name__}(…)." if isinstance(event, type) else "Write *events for those of a list."
            )
            raise TypeError(f"{where}() takes events, each by itself, and {event!r:.100} is none. {hint}")


def _differences(wanted: Event, found: Event) -> list[str]:
    if type(wanted) is not type(found):
        return [f"{type(wanted).__qualname__} was expected, and it is a {type(found).__qualname__}"]
    stated, is_there = wanted.model_fields_set, _data(found)
    return [
        f"{name}: {value!r} was expected, and it is {is_there[name]!r}"
        for name, value in _data(wanted).items()
        if name not in _NEVER and (name not in _ONLY_IF_STATED or name in stated) and is_there[name] != value
    ]


def _data(event: Event) -> dict[str, Any]:
    """Its fields alone: a cached property that was read lies beside them."""
    return {name: value for name, value in vars(event).items() if name in type(event).model_fields}


def _list(events: Sequence[Event]) -> str:
    return "[" + ", ".join(f"{type(event).__qualname__}({_fields(event)})" for event in events) + "]"


def _fields(event: Event) -> str:
    skipped = {*_ONLY_IF_STATED, *_NEVER, "event_type", "version"}
    return ", ".join(f"{name}={value!r}" for name, value in _data(event).items() if name not in skipped)
