"""An aggregate's state as attributes: taken, given back, compared, and looked through for what is held twice."""

from __future__ import annotations

import copyreg
import types
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import TzInfo

from commons_events.event import Event

if TYPE_CHECKING:
    from commons_events.sourcing._aggregate import AggregateRoot

__all__ = ["held_twice", "is_same", "reduced", "set_state", "state_of"]

_PLAIN = frozenset({bool, int, float, str, bytes, type(None), Decimal, UUID, date, timedelta})
"""What has no parts."""
_FIXED = (type(None), timezone, TzInfo)
"""Time zones that JSON keeps: none, and those that are at all times as far from UTC."""


def state_of(aggregate: AggregateRoot) -> dict[str, Any]:
    """All that the aggregate's classes keep in it, by attribute."""
    state = dict(getattr(aggregate, "__dict__", {}))
    for name in _slots(type(aggregate)):
        if hasattr(aggregate, name):
            state[name] = getattr(aggregate, name)
    return state


def set_state(aggregate: AggregateRoot, state: dict[str, Any]) -> None:
    """Give an aggregate these attributes, and no others."""
    slots = _slots(type(aggregate))
    for name in slots:
        if name in state:
            object.__setattr__(aggregate, name, state[name])
        elif hasattr(aggregate, name):
            object.__delattr__(aggregate, name)
    if (attributes := getattr(aggregate, "__dict__", None)) is not None:
        attributes.clear()
        attributes.update({name: value for name, value in state.items() if name not in slots} if slots else state)


def _slots(aggregate_class: type[AggregateRoot]) -> list[str]:
    """The slots of the aggregate's classes, and none of the framework's own."""
    from commons_events.sourcing._aggregate import AggregateRoot

    return [
        name
        for cls in aggregate_class.__mro__
        if cls is not AggregateRoot
        for name, member in vars(cls).items()
        if type(member) is types.MemberDescriptorType
    ]


def is_same(one: Any, other: Any) -> bool:
    """Whether nothing tells them apart: they are equal and of one type, and so is all that they hold."""
    kind: Any = type(one)
    if kind is not type(other):
        return False
    if kind in _PLAIN:  # -0.0 is no 0.0, and Decimal("1.0") no Decimal("1.00")
        return bool(one == other) and ((kind is not float and kind is not Decimal) or str(one) == str(other))
    if kind is dict:
        if len(one) != len(other):
            return False
        if not all(map(is_same, one, other)):  # in another order, maybe, as a TypedDict's
            keys = {key: key for key in other}
            return all(key in keys and is_same(key, keys[key]) and is_same(one[key], other[key]) for key in one)
        return all(map(is_same, one.values(), other.values()))
    if kind is list or kind is tuple:
        return len(one) == len(other) and all(map(is_same, one, other))
    if kind is set or kind is frozenset:
        return is_same(dict.fromkeys(one), dict.fromkeys(other))
    if issubclass(kind, datetime | time):
        return (
            isinstance(one.tzinfo, _FIXED)
            and one.utcoffset() == other.utcoffset()
            and (one.replace(tzinfo=None), one.fold) == (other.replace(tzinfo=None), other.fold)
        )
    if issubclass(kind, type | types.FunctionType | types.BuiltinFunctionType | Event):
        return bool(one == other)
    mine, theirs = _taken_apart(one, kind), _taken_apart(other, kind)
    return bool(one == other) if mine is None or theirs is None else is_same(mine, theirs)


def _taken_apart(value: Any, kind: Any) -> list[Any] | None:
    """What it is made of, by Python's own way of copying it; None where it has none."""
    if isinstance(value, BaseModel):  # which fields were given by name is not compared
        state = {name: vars(value).get(name) for name in kind.model_fields} | (value.model_extra or {})
        return [state, value.__pydantic_private__]
    try:
        function, arguments, state, *items = reduced(value)
    except (TypeError, ValueError):
        return None
    if type(state) is dict:
        unsaid = {name for name in state if isinstance(getattr(kind, name, None), cached_property)} | {"__orig_class__"}
        state = {name: part for name, part in state.items() if name not in unsaid}
        if is_dataclass(value):  # what pydantic has not set is the class's
            state |= {field.name: getattr(value, field.name, None) for field in fields(value)}
    return [function, arguments, state or None, *items]


def reduced(value: Any) -> list[Any]:
    """How Python makes a copy: a function, its arguments, attributes, and the items of a list's or dict's subclass.

    Raises:
        TypeError: Python does not copy it. Others may come from the value's own code.
    """
    reduce = copyreg.dispatch_table.get(type(value))
    made = value.__reduce_ex__(4) if reduce is None else reduce(value)
    if isinstance(made, str):
        return [made, None, None]
    parts = [list(part) if isinstance(part, Iterator) else part for part in made]
    return parts + [None] * (3 - len(parts))


def held_twice(state: dict[str, Any]) -> tuple[str, str, object] | None:
    """An object that can change and is met twice, after the attributes in which it is; None where there is none."""
    met: dict[int, tuple[str, object]] = {}  # with the object, so that no other one gets its id meanwhile
    for attribute, root in state.items():
        waiting: list[Any] = [root]
        while waiting:
            value = waiting.pop()
            if _can_change(value):
                if id(value) in met:
                    return met[id(value)][0], attribute, value
                met[id(value)] = attribute, value
            waiting += [part for part in _parts(value) if type(part) not in _PLAIN]
    return None


def _can_change(value: Any) -> bool:
    kind: Any = type(value)
    if kind is dict or kind is list:
        return True
    if isinstance(value, BaseModel):
        return not (kind.model_config.get("frozen") or isinstance(value, Event))
    if (dataclass_params := getattr(kind, "__dataclass_params__", None)) is not None:
        return not dataclass_params.frozen
    return kind.__hash__ is None  # Python's own rule: what can be hashed keeps its value


def _parts(value: Any) -> Iterable[Any]:
    """What it holds, as far as a snapshot has that; of a model or dataclass its fields, and no cached property."""
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset | deque):
        return value
    if isinstance(value, Event):  # a fact, with all that is in it
        return ()
    if isinstance(value, BaseModel):
        extra = value.model_extra or {}
        return [*(getattr(value, name, None) for name in type(value).model_fields), *extra.values()]
    if is_dataclass(value):
        return [getattr(value, field.name, None) for field in fields(value)]
    return ()
