"""Snapshots: an aggregate's state at some version, so that a long stream need not be read from its start.

A snapshot is a shortcut and never a source of truth. It counts only if it has the fingerprint of the class as the
class is now, and can be read as that class's attributes; else the events are read, and a new one is made.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from commons_events.errors import ConfigurationError, SnapshotError
from commons_events.sourcing._fingerprint import fingerprint
from commons_events.sourcing._state import held_twice, is_same, state_of
from commons_events.sourcing._types import check_count

if TYPE_CHECKING:
    from commons_events.sourcing._aggregate import AggregateRoot

__all__ = ["SnapshotPolicy", "StateCodec", "state_codec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPolicy:
    """When an aggregate's state is kept beside its events: after it was saved, or loaded, and either bound is reached.

    Raises:
        ConfigurationError: a bound does not fit, or there is none.
    """

    every: int | None = 100
    """Events since the last snapshot, or since the start; None for no such bound."""
    max_age: timedelta | None = None
    """How old the last snapshot may be once there are newer events, or the first event where there is none yet; None
    for no such bound."""

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
            taken_at: when the last one that fits was made; without one, when the first event happened. None where
                that is not known.
            now: aware, as ``taken_at``.
        """
        if events < 1:
            return False
        if self.every is not None and events >= self.every:
            return True
        return self.max_age is not None and taken_at is not None and now - taken_at >= self.max_age


class StateCodec:
    """An aggregate class's state as JSON and back.

    The state is all that the aggregate's classes keep in it, in ``vars(aggregate)`` and in slots. Attributes that are
    annotated in the class's body are written and read by their types, as pydantic does it; others hold what JSON has:
    None, bool, int, float, str, and lists and dicts of them.

    Raises:
        SnapshotError: an annotation cannot be looked up, or is no type that pydantic knows; or the class's code cannot
            be looked at.
    """

    def __init__(self, aggregate_class: type[AggregateRoot]) -> None:
        self._name = aggregate_class.__qualname__
        try:
            hints = typing.get_type_hints(aggregate_class, include_extras=True)
        except Exception as error:
            raise SnapshotError(
                f"{self._name} has an annotation that cannot be looked up, so there is no snapshot of it: {error}."
            ) from error
        self._types = _types_of(hints)
        make: Any = TypedDict  # a checker cannot know fields that are found at run time
        typed = make(f"{aggregate_class.__name__}State", self._types, total=False)
        try:
            self._adapter: TypeAdapter[dict[str, dict[str, Any]]] = TypeAdapter(
                make(f"{aggregate_class.__name__}Snapshot", {"typed": typed, "plain": dict[str, Any]})
            )
        except Exception as error:
            raise SnapshotError(
                f"{self._name} has an annotation that pydantic cannot write, so there is no snapshot of it: {error}"
            ) from error
        try:
            self.fingerprint = fingerprint(aggregate_class, self._types)
            """What the class made of its events when a snapshot was made; another one does not fit any more."""
        except Exception as error:
            raise SnapshotError(
                f"{self._name}: what its handlers use cannot be looked at, so there is no snapshot of it: "
                f"{type(error).__name__}: {error}"
            ) from error

    def dump(self, aggregate: AggregateRoot) -> bytes:
        """The state as JSON, which was read back and found to be the same.

        Raises:
            SnapshotError: an attribute would not come back as it is, or an object that can change is held twice, and
                would come back as two.
        """
        state = state_of(aggregate)
        try:
            data = self._written(state)
        except Exception as error:
            raise SnapshotError(self._complaint(aggregate.id, *self._culprit(state, error))) from error
        if (shared := held_twice(state)) is not None:
            first, second, value = shared
            raise SnapshotError(
                f"{self._name} {aggregate.id!r}: a snapshot cannot keep the attribute {second!r}: the "
                f"{type(value).__qualname__} in it, {_shown(value)}, is in {first!r} already, and would come back as "
                "two, of which a handler then changes one. Hold it once, and elsewhere what it is found by; or make it "
                "something that does not change, such as a tuple or a frozen dataclass."
            )
        return data

    def load(self, data: bytes) -> dict[str, Any] | None:
        """The attributes in ``data``; None where they are none of this class's."""
        try:
            read = self._adapter.validate_json(data)
        except Exception:  # noqa: BLE001  # whatever a type's own code makes of bytes that do not fit
            return None
        return read["typed"] | read["plain"]

    def _written(self, state: dict[str, Any]) -> bytes:
        typed = {name: value for name, value in state.items() if name in self._types}
        plain = {name: value for name, value in state.items() if name not in self._types}
        data = self._adapter.dump_json({"typed": typed, "plain": plain}, warnings="error")
        restored = self._adapter.validate_json(data)
        if not (is_same(typed, restored["typed"]) and is_same(plain, restored["plain"])):
            raise ValueError("it would come back as something else")
        return data

    def _culprit(self, state: dict[str, Any], error: Exception) -> tuple[str, object, Exception]:
        for name, value in state.items():
            try:
                self._written({name: value})
            except Exception as its_own:  # noqa: BLE001  # any is what is wrong with it
                return name, value, its_own
        return ", ".join(state), state, error

    def _complaint(self, id: str, attribute: str, value: object, error: Exception) -> str:
        if attribute not in self._types:
            advice = f"Say its type in the class's body, such as `{attribute}: dict[int, str]`"
        elif isinstance(value, datetime):
            advice = "Hold a time in UTC, as value.astimezone(UTC) is"
        else:
            advice = "Its type does not say all of it, as a deque's does not say its maxlen; hold what the type says"
        return (
            f"{self._name} {id!r}: a snapshot cannot keep the attribute {attribute!r}, {_shown(value)}: {error}. "
            f"{advice}; or hold what JSON has: text, numbers, bool, None, lists, and dicts with str keys."
        )


_codecs: WeakKeyDictionary[type[AggregateRoot], StateCodec] = WeakKeyDictionary()


def state_codec(aggregate_class: type[AggregateRoot]) -> StateCodec:
    """The codec of a class, made once."""
    codec = _codecs.get(aggregate_class)
    if codec is None:
        codec = _codecs[aggregate_class] = StateCodec(aggregate_class)
    return codec


def _types_of(hints: dict[str, Any]) -> dict[str, Any]:
    """The types that attributes are written by; what belongs to the class has none, and Final alone says none."""
    found: dict[str, Any] = {}
    for name, hint in hints.items():
        origin = typing.get_origin(hint) or hint
        if origin is not typing.ClassVar and hint is not typing.Final:
            found[name] = typing.get_args(hint)[0] if origin is typing.Final else hint
    return found


def _shown(value: object) -> str:
    try:
        return f"{value!r:.100}"
    except Exception:  # noqa: BLE001  # a number of too many digits; or a program's own __repr__
        return f"of the type {type(value).__qualname__}"
