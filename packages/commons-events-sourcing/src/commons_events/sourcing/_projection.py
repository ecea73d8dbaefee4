"""`Projection`: a read model that typed handlers make of stored events."""

from __future__ import annotations

import asyncio
import inspect
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from sqlalchemy import Connection, FromClause, Table
from sqlalchemy import inspect as mapper_of
from sqlalchemy.orm import Session

from commons_events.errors import HandlerCancelledError, MissingHandlerError, ProjectionDefinitionError
from commons_events.event import Event
from commons_events.sourcing._decoding import stored_types
from commons_events.sourcing._store_transaction import StoreTransaction
from commons_events.sourcing._types import StoredEvent, check_name

__all__ = ["Projection"]

F = TypeVar("F", bound=Callable[..., Any])

_LONGEST_NAME = 100
_EVENT, _STORED, _TRANSACTION, _CONNECTION, _SESSION = "event", "stored", "transaction", "connection", "session"
_WHAT: dict[Any, str] = {
    StoredEvent: _STORED,
    StoreTransaction: _TRANSACTION,
    Connection: _CONNECTION,
    Session: _SESSION,
}


@dataclass(frozen=True, slots=True)
class _Handler:
    function: Callable[..., Any]
    classes: tuple[type[Event], ...]
    parameters: tuple[tuple[str, str], ...]
    """The names, and what each is for."""
    needs_connection: bool

    async def __call__(self, event: Event, stored: StoredEvent, transaction: StoreTransaction) -> None:
        try:
            await self._call(event, stored, transaction)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise HandlerCancelledError(
                f"The handler {_name(self.function)} raised CancelledError by itself: {error!r}."
            ) from error

    async def _call(self, event: Event, stored: StoredEvent, transaction: StoreTransaction) -> None:
        if self.needs_connection:
            await transaction.run_sync(lambda connection: self._with_connection(event, stored, connection))
            return
        values = {_EVENT: event, _STORED: stored, _TRANSACTION: transaction}
        result = self.function(**{name: values[what] for name, what in self.parameters})
        if inspect.isawaitable(result):
            await result
        elif any(what == _TRANSACTION for _, what in self.parameters):
            raise ProjectionDefinitionError(
                f"The handler {_name(self.function)} takes a StoreTransaction and gave nothing to await, so what it "
                "called on it was not done. Make it async and await its calls, or let it take a Connection or Session."
            )

    def _with_connection(self, event: Event, stored: StoredEvent, connection: Connection) -> None:
        values: dict[str, Any] = {_EVENT: event, _STORED: stored, _CONNECTION: connection}
        # its commit() and rollback() are about the handler's own work: the transaction is not the handler's to end
        with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
            values[_SESSION] = session
            self.function(**{name: values[what] for name, what in self.parameters})
            session.commit()


class Projection:
    """A read model, and the handlers that keep it.

    A handler's writes and the position that they belong to are one transaction: each event has its effect once, also
    when the process is killed. `Projector` runs it.

    Args:
        name: unique in the store; its position is saved under it.
        tables: the SQLAlchemy tables that it writes, or classes that are mapped to them; they are made at the first
            start. A rebuild fills new ones beside them and swaps them in; so a projection that is to be rebuilt writes
            to no other table.
        version: count it up when handlers or tables change; the read model is then to be rebuilt.
        parking: what is parked when an event cannot be handled. ``"stream"``: the event, and behind it those that
            follow in its stream, so that their order holds when they are tried again. ``"event"``: the event alone.

    Raises:
        ProjectionDefinitionError: the name, a table or the version does not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        tables: Iterable[FromClause | type[Any]] = (),
        version: int = 1,
        parking: Literal["stream", "event"] = "stream",
    ) -> None:
        check_name(name, "projection's name")
        if len(name) > _LONGEST_NAME:
            raise ProjectionDefinitionError(
                f"Projection {name[:20]!r}…: a name has at most {_LONGEST_NAME} characters."
            )
        given: Any = version
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise ProjectionDefinitionError(f"Projection {name!r}: version={version!r} has to be a number from 1 on.")
        if parking not in ("stream", "event"):
            raise ProjectionDefinitionError(f"Projection {name!r}: parking is 'stream' or 'event', not {parking!r}.")
        several: Any = tables
        if isinstance(several, str | FromClause) or not isinstance(several, Iterable):
            raise ProjectionDefinitionError(
                f"Projection {name!r}: tables is {several!r:.100}; it is a list of tables and mapped classes, such as "
                "[table] or metadata.sorted_tables."
            )
        found = [table for one in several for table in _tables_of(name, one)]
        for table in found:
            if table.schema is not None:
                raise ProjectionDefinitionError(
                    f"Projection {name!r}: the table {table.fullname!r} names its schema, so a rebuild could not fill "
                    "another one beside it. Leave schema= out, and set the connection's search_path."
                )
        self.name = name
        self.tables = tuple(dict.fromkeys(found))
        self.version = version
        self.parking = parking
        self._handlers: list[_Handler] = []
        self._found: dict[type[Event], _Handler | None] = {}

    def __repr__(self) -> str:
        return f"Projection({self.name!r}, version={self.version})"

    def handler(self, function: F) -> F:
        """Decorator of a function that handles the events of one class, a union of classes, or `Event` for all others.

        Its parameters are found by their annotations: an event class; `StoreTransaction`, whose ``execute`` and
        ``run_sync`` are in the transaction; `StoredEvent` for position and stream. A function that is not ``async`` may
        take a ``sqlalchemy.Connection`` or a ``sqlalchemy.orm.Session`` in the transaction's place, and then runs where
        it may block. It does not end the transaction: a session's ``commit()`` and ``rollback()`` are about the
        handler's own work, a connection refuses them. The function stays callable.

        Raises:
            ProjectionDefinitionError: a parameter has neither an annotation that is known nor a default; or another
                handler has its event.
        """
        handler = self._read(function)
        for other in self._handlers:
            both = set(other.classes) & set(handler.classes)
            if both:
                raise ProjectionDefinitionError(
                    f"{self!r}: {_name(function)} and {_name(other.function)} both handle "
                    f"{', '.join(sorted(cls.__qualname__ for cls in both))}. Let one of them do it."
                )
        self._handlers.append(handler)
        self._found.clear()
        return function

    @property
    def event_types(self) -> tuple[str, ...]:
        """The types that its handlers take; none of them where one takes all.

        Raises:
            ProjectionDefinitionError: it has no handler.
        """
        if not self._handlers:
            raise ProjectionDefinitionError(f"{self!r} has no handler; decorate a function with @projection.handler.")
        classes = [cls for handler in self._handlers for cls in handler.classes]
        if any(cls is Event for cls in classes):
            return ()
        found = set[str]()
        waiting = list(classes)
        while waiting:
            found |= stored_types(cls := waiting.pop())
            waiting += cls.__subclasses__()
        return tuple(sorted(found))

    async def handle(self, event: Event, stored: StoredEvent, transaction: StoreTransaction) -> None:
        """Call the handler of the event's class, or of the nearest class that it derives from.

        Raises:
            MissingHandlerError: there is none, as for another version of the type that a handler takes.
            HandlerCancelledError: it raised ``CancelledError`` though nobody had cancelled this task.
            ProjectionDefinitionError: it takes a `StoreTransaction` and gave nothing to await.
        """
        event_class = type(event)
        if event_class not in self._found:
            by_class = {cls: handler for handler in self._handlers for cls in handler.classes}
            self._found[event_class] = next((by_class[cls] for cls in event_class.__mro__ if cls in by_class), None)
        handler = self._found[event_class]
        if handler is None:
            takes = ", ".join(sorted(cls.__qualname__ for other in self._handlers for cls in other.classes))
            raise MissingHandlerError(
                f"{self!r} has no handler for {event_class.__qualname__} ({event_class.event_type!r}, version "
                f"{event_class.schema_info().version}). Annotate one with this class; its handlers take: {takes}."
            )
        await handler(event, stored, transaction)
        transaction._backend.check()

    def _read(self, function: Callable[..., Any]) -> _Handler:
        where = f"{self!r}: the handler {_name(function)}"
        given: Any = function
        if isinstance(given, type) or not callable(given):
            raise ProjectionDefinitionError(
                f"{where} is no function. Write @projection.handler above one, without arguments; it takes events of "
                "the class that its parameter is annotated with: `event: UserCreated`."
            )
        try:
            hints = typing.get_type_hints(_annotated(function))
            parameters = inspect.signature(function).parameters.values()
        except (NameError, TypeError, ValueError) as error:
            raise ProjectionDefinitionError(f"{where} has an annotation that cannot be looked up: {error}.") from error
        found: list[tuple[str, str]] = []
        classes: tuple[type[Event], ...] = ()
        for parameter in parameters:
            name, hint = parameter.name, hints.get(parameter.name)
            members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
            if all(isinstance(member, type) and issubclass(member, Event) for member in members):
                if classes:
                    raise ProjectionDefinitionError(f"{where} has two event parameters; a handler takes one event.")
                classes = tuple(members)
                found.append((name, _EVENT))
            elif hint in _WHAT:
                found.append((name, _WHAT[hint]))
            elif parameter.default is parameter.empty or any(member in _WHAT for member in members):
                raise ProjectionDefinitionError(
                    f"{where}: nobody fills {name!r}, whose annotation is {hint!r}. Annotate it with an event class, "
                    "StoreTransaction, StoredEvent, or, in a function that is not async, sqlalchemy's Connection or "
                    "Session."
                )
            if parameter.kind is parameter.POSITIONAL_ONLY:
                raise ProjectionDefinitionError(f"{where} takes {name!r} by its place alone; leave out the `/`.")
        if not classes:
            raise ProjectionDefinitionError(f"{where} has no event parameter. Annotate one: `event: UserCreated`.")
        kinds = {what for _, what in found}
        needs_connection = bool(kinds & {_CONNECTION, _SESSION})
        if needs_connection and (inspect.iscoroutinefunction(_annotated(function)) or _TRANSACTION in kinds):
            raise ProjectionDefinitionError(
                f"{where}: a Connection or Session is for a function that is not async and takes no StoreTransaction; "
                "an async one takes the StoreTransaction and awaits its execute()."
            )
        return _Handler(function, classes, tuple(found), needs_connection)


def _tables_of(name: str, given: Any) -> Iterable[Table]:
    """The table itself, or those that a class is mapped to."""
    if isinstance(given, Table):
        return (given,)
    mapper = mapper_of(given, raiseerr=False) if isinstance(given, type) else None
    tables = getattr(mapper, "tables", ())
    if not tables:
        raise ProjectionDefinitionError(
            f"Projection {name!r}: {given!r:.100} is no sqlalchemy.Table, nor a class that is mapped to one."
        )
    return [table for table in tables if isinstance(table, Table)]


def _annotated(function: Any) -> Any:
    """The function whose annotations say what is to be filled."""
    if isinstance(function, partial):
        return _annotated(function.func)
    return function if inspect.isroutine(function) else type(function).__call__


def _name(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)}"
