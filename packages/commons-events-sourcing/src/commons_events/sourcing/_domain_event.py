"""`DomainEvent`: something that happened to one aggregate."""

from __future__ import annotations

from copy import deepcopy
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NewType, Self, Union, get_args, get_origin
from uuid import UUID

from commons_events.event import Event, registry

__all__ = ["DomainEvent", "changeable_fields"]

_CONSTANTS = (str, bytes, int, float, Decimal, date, time, timedelta, UUID, Enum, NoneType)
_SCALARS = frozenset({str, int, float, bool, NoneType})


class DomainEvent(Event):
    """An `Event` of one aggregate: subclass it, as any event, and let `AggregateRoot.apply` take it.

    ``aggregate_version`` is its place in the aggregate's stream, from 1 on; it has nothing to do with ``version``,
    which is its schema's. It is 0 until the event was applied.
    """

    aggregate_id: str
    aggregate_version: int = 0

    def placed(self, version: int) -> Self:
        """This event, with its place in its stream, which is set here once: by `AggregateRoot.apply` and the store."""
        vars(self)["aggregate_version"] = version
        self.__pydantic_fields_set__.add("aggregate_version")
        return self

    def _happened(self, version: int, changeable: tuple[str, ...]) -> Self:
        """As `placed`; returns the fact that waits to be stored, `_apart` from this event, which a handler gets."""
        values = vars(self)
        values["aggregate_version"] = version
        self.__pydantic_fields_set__.add("aggregate_version")
        return self._apart(changeable) if changeable or values["metadata"] else self

    def _apart(self, changeable: tuple[str, ...]) -> Self:
        """The same fact, in an object that shares nothing with this one that can change; itself where nothing can.

        Args:
            changeable: what `changeable_fields` says of the class.
        """
        if not changeable and _SCALARS.issuperset(map(type, vars(self)["metadata"].values())):
            return self
        source: Any = self.source
        fact = self.with_source(source)  # a copy for which __post_init__ does not run again
        if "source" not in self.__pydantic_fields_set__:
            fact.__pydantic_fields_set__.remove("source")
        values = vars(fact)
        for name in changeable or ("metadata",):
            values[name] = _copied(values[name])
        if fact.__pydantic_extra__:
            fact.__pydantic_extra__ = deepcopy(fact.__pydantic_extra__)
        return fact


# It says that something happened and not what: nobody makes one, and no bytes are of it.
registry.unregister(DomainEvent)


def changeable_fields(event_class: type[Event]) -> tuple[str, ...]:
    """The fields whose values can change, such as lists; none where there are none besides ``metadata``."""
    fields = event_class.model_fields
    names = [name for name, field in fields.items() if _can_change(field.annotation)]
    return tuple(names) if len(names) > 1 or event_class.model_config.get("extra") == "allow" else ()


def _can_change(annotation: Any) -> bool:
    """Whether a value of this type may change; of a type that is not known here it may."""
    if isinstance(annotation, NewType):
        return _can_change(annotation.__supertype__)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _can_change(get_args(annotation)[0])
    if origin in (Union, UnionType, tuple, frozenset):
        return any(part is not ... and _can_change(part) for part in get_args(annotation))
    return origin is not Literal and not (isinstance(annotation, type) and issubclass(annotation, _CONSTANTS))


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if (kind is list and _SCALARS.issuperset(map(type, value))) or (
        kind is dict and _SCALARS.issuperset(map(type, value.values()))
    ):
        return value.copy()  # several times as quick
    return deepcopy(value)
