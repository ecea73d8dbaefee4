"""Snapshots: an aggregate's state at some version, so that a long stream need not be read from its start.

A snapshot is a shortcut and never a source of truth. It counts only if it has the fingerprint of the class as the
class is now, and can be read as that class's attributes; else the events are read, and a new one is made.
"""

from __future__ import annotations

import hashlib
import json
import sys
import types
import typing
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pydantic import (
    BaseModel,
    ConfigDict,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticSerializationError
from typing_extensions import TypedDict

from commons_events.errors import ConfigurationError, SnapshotError
from commons_events.event import Event
from commons_events.sourcing._types import check_count

if TYPE_CHECKING:
    from commons_events.sourcing._aggregate import AggregateRoot

__all__ = ["SnapshotPolicy", "StateCodec", "state_codec"]

_CONSTANTS = (bool, int, float, str, bytes, type(None))
_PLAIN = frozenset(_CONSTANTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPolicy:
    """When an aggregate's state is kept beside its events: after it was saved, or loaded, and either bound is reached.

    Raises:
        ConfigurationError: a bound does not fit, or there is none.
    """

    every: int | None = 100
    """Events since the last snapshot, or since the start; None for no such bound."""
    max_age: timedelta | None = None
    """How old the last snapshot may be once there are newer events; None for no such bound."""

    def __post_init__(self) -> None:
        if self.every is not None:
            check_count(self.every, "SnapshotPolicy: every")
        age: Any = self.max_age
        if age is not None and not (isinstance(age, timedelta) and age > timedelta(0)):
            raise ConfigurationError(f"SnapshotPolicy: max_age is {age!r}; it is a timedelta, more than 0.")
        if self.every is None and self.max_age is None:
            raise ConfigurationError("SnapshotPolicy: give every= or max_age=; an aggregate without a policy has none.")

    def is_due(self, events: int, taken_at: datetime | None, now: datetime) -> bool:
        """Whether a snapshot is to be made.

        Args:
            events: how many there are since the last snapshot, or since the start.
            taken_at: when the last one that fits was made; None where there is none.
            now: aware, as ``taken_at``.
        """
        if events < 1:
            return False
        if self.every is not None and events >= self.every:
            return True
        return self.max_age is not None and taken_at is not None and now - taken_at >= self.max_age


class StateCodec:
    """An aggregate class's state as JSON and back.

    The state is all that ``vars(aggregate)`` has. Attributes that are annotated in the class's body are written and
    read by their types, as pydantic does it; others hold what JSON has: None, bool, int, float, str, and lists and
    dicts of them.

    Raises:
        SnapshotError: an annotation cannot be looked up, or is no type that pydantic knows.
    """

    def __init__(self, aggregate_class: type[AggregateRoot]) -> None:
        self._name = aggregate_class.__qualname__
        try:
            hints = typing.get_type_hints(aggregate_class, include_extras=True)
        except NameError as error:
            raise SnapshotError(
                f"{self._name} has an annotation that cannot be looked up, so there is no snapshot of it: {error}."
            ) from error
        attributes = {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}
        make: Any = TypedDict  # a checker cannot know fields that are found at run time
        state: Any = make(f"{aggregate_class.__name__}State", attributes, total=False)
        state.__pydantic_config__ = ConfigDict(
            extra="allow", ser_json_inf_nan="constants", arbitrary_types_allowed=False
        )
        try:
            self._adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(state)
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise SnapshotError(
                f"{self._name} has an annotation that pydantic cannot write, so there is no snapshot of it: {error}"
            ) from error
        self.fingerprint = _fingerprint(aggregate_class, attributes, self._adapter)
        """What the class made of its events when a snapshot was made; another one does not fit any more."""

    def dump(self, aggregate: AggregateRoot) -> bytes:
        """The state as JSON, which was read back and found to be the same.

        Raises:
            SnapshotError: an attribute would not come back as it is, or an object that can change is held twice, and
                would come back as two.
        """
        state = dict(vars(aggregate))
        try:
            data = self._adapter.dump_json(state, warnings="error")
            restored = self._adapter.validate_json(data)
        except (PydanticSerializationError, ValidationError, RecursionError) as error:
            raise SnapshotError(self._complaint(aggregate, self._culprit(state), str(error))) from error
        if not _same(state, restored):
            raise SnapshotError(
                self._complaint(aggregate, self._culprit(state), "it would come back as something else")
            )
        if (shared := _held_twice(state)) is not None:
            first, second, value = shared
            raise SnapshotError(
                f"{self._name} {aggregate.id!r}: a snapshot cannot keep the attribute {second!r}: the "
                f"{type(value).__qualname__} in it, {value!r:.100}, is in {first!r} already, and would come back as "
                "two, of which a handler then changes one. Hold it once, and elsewhere what it is found by; or make it "
                "something that does not change, such as a tuple or a frozen dataclass."
            )
        return data

    def load(self, data: bytes) -> dict[str, Any] | None:
        """The attributes in ``data``; None where they are none of this class's."""
        try:
            return self._adapter.validate_json(data)
        except ValidationError:
            return None

    def _culprit(self, state: dict[str, Any]) -> str:
        for name, value in state.items():
            try:
                if not _same({name: value}, self._adapter.validate_json(self._adapter.dump_json({name: value}))):
                    return name
            except (PydanticSerializationError, ValidationError, RecursionError):
                return name
        return next(iter(state), "?")

    def _complaint(self, aggregate: AggregateRoot, attribute: str, reason: str) -> str:
        value = vars(aggregate).get(attribute)
        return (
            f"{self._name} {aggregate.id!r}: a snapshot cannot keep the attribute {attribute!r}, {value!r:.100}: "
            f"{reason}. Say its type in the class's body, such as `{attribute}: dict[int, str]`; or hold what JSON "
            "has: text, numbers, bool, None, lists, and dicts with str keys."
        )


_codecs: WeakKeyDictionary[type[AggregateRoot], StateCodec] = WeakKeyDictionary()


def state_codec(aggregate_class: type[AggregateRoot]) -> StateCodec:
    """The codec of a class, made once."""
    codec = _codecs.get(aggregate_class)
    if codec is None:
        codec = _codecs[aggregate_class] = StateCodec(aggregate_class)
    return codec


def _same(one: object, other: object) -> bool:
    """Equal, and of the same types all the way down where JSON might have changed them."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return (
            one.keys() == other.keys()
            and all(_same(value, other[key]) for key, value in one.items())
            and all(type(mine) is type(theirs) for mine, theirs in zip(one, other, strict=True))
        )
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _held_twice(state: dict[str, Any]) -> tuple[str, str, object] | None:
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


# --- the fingerprint -------------------------------------------------------------------------------------------


def _fingerprint(
    aggregate_class: type[AggregateRoot], attributes: dict[str, Any], adapter: TypeAdapter[dict[str, Any]]
) -> str:
    parts: list[str] = [
        sys.implementation.cache_tag or "",
        f"{aggregate_class.__module__}.{aggregate_class.__qualname__}",
    ]
    parts += [repr(aggregate_class.snapshot_version), repr(sorted((name, repr(t)) for name, t in attributes.items()))]
    with suppress(PydanticUserError):  # a type of the user's own without a JSON schema; its annotation stands above
        parts.append(json.dumps(adapter.json_schema(mode="serialization"), sort_keys=True, default=repr))
    parts += _code(aggregate_class)
    return hashlib.sha256("\0".join(parts).encode(errors="backslashreplace")).hexdigest()[:32]


def _code(aggregate_class: type[AggregateRoot]) -> Iterator[str]:
    """The code that makes the state: ``__init__``, the handlers, and what they use of the class and its module."""
    from commons_events.sourcing._aggregate import AggregateRoot

    own = [cls for cls in aggregate_class.__mro__ if cls not in (object, AggregateRoot)]
    waiting = sorted({name for cls in own for name in vars(cls) if name == "__init__" or name.startswith("handle_")})
    seen = set(waiting)
    while waiting:
        name = waiting.pop(0)
        for cls in own:
            if name not in vars(cls):
                continue
            for function in _functions(vars(cls)[name]):
                yield f"{cls.__qualname__}.{name}"
                yield _text(function.__code__)
                used = sorted(_names(function.__code__) - seen)
                seen.update(used)
                waiting += [other for other in used if any(other in vars(c) for c in own)]
                yield from _globals(function, used)
            if isinstance(vars(cls)[name], _CONSTANTS):
                yield f"{name}={vars(cls)[name]!r}"


def _globals(function: types.FunctionType, used: list[str]) -> Iterator[str]:
    for name in used:
        value = function.__globals__.get(name)
        if isinstance(value, types.FunctionType) and value.__module__ == function.__module__:
            yield f"{name}: {_text(value.__code__)}"
        elif name in function.__globals__ and isinstance(value, _CONSTANTS):
            yield f"{name}={value!r}"


def _functions(member: object) -> Iterator[types.FunctionType]:
    if isinstance(member, property):
        candidates: list[object] = [member.fget, member.fset]
    else:
        candidates = [getattr(member, "__func__", member)]
    for candidate in candidates:
        if isinstance(candidate, types.FunctionType):
            yield candidate


def _names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _text(code: types.CodeType) -> str:
    """What a function does, without where it stands."""
    constants = [
        _text(c)
        if isinstance(c, types.CodeType)
        else repr(sorted(map(repr, c)))
        if isinstance(c, frozenset)
        else repr(c)
        for c in code.co_consts
    ]
    return repr((code.co_code.hex(), code.co_names, code.co_varnames, code.co_freevars, constants))
