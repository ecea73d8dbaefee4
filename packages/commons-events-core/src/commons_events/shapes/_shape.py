"""The parts that a shape has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from commons_events.event._values import MAX_DIGITS
from commons_events.shapes._making import checked_maker, event_completer, event_maker, itself, model_maker

__all__ = [
    "NO_DEFAULT",
    "Array",
    "Enumeration",
    "Field",
    "FieldNumber",
    "Kind",
    "Literals",
    "Map",
    "Other",
    "Record",
    "Scalar",
    "Shape",
    "Tuple",
    "Union",
]

Kind = Literal[
    "any", "bool", "bytes", "date", "datetime", "decimal", "float", "int", "null", "str", "time", "timedelta", "uuid"
]
"""What a `Scalar` is. ``any`` is a value of None, bool, int, float, str, list and dict with str keys, nested."""

NO_DEFAULT: Any = object()
"""Stands for "this field has no default that a schema can state"."""


@dataclass(frozen=True, slots=True)
class FieldNumber:
    """The number of a field in Protobuf: ``user_id: Annotated[str, FieldNumber(3)]``."""

    number: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value without parts. ``limits`` are pydantic's constraints by their names: ``ge``, ``max_digits`` …"""

    kind: Kind
    limits: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digits_past_64_bits(self) -> int | None:
        """The digits of an int whose stated limits go past 64 bits, with its sign; None of all else."""
        if self.kind != "int":
            return None
        low, high = self.limits.get("ge"), self.limits.get("le")
        if low is None and "gt" in self.limits:
            low = self.limits["gt"] + 1
        if high is None and "lt" in self.limits:
            high = self.limits["lt"] - 1
        stated = [int(limit) for limit in (low, high) if limit is not None]
        if all(-(2**63) <= limit < 2**63 for limit in stated):
            return None
        return max(len(str(abs(limit))) for limit in stated) if len(stated) == 2 else MAX_DIGITS


@dataclass(frozen=True, slots=True)
class Enumeration:
    """A member of an `enum.Enum`, which JSON holds by its value."""

    cls: type[Enum]


@dataclass(frozen=True, slots=True)
class Literals:
    """One of some constants."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Array:
    """Any number of items, in a ``container``: list, set, frozenset or tuple."""

    item: Shape
    container: type[Any] = list


@dataclass(frozen=True, slots=True)
class Tuple:
    """A tuple with a type for each place."""

    items: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Map:
    """A dict."""

    key: Shape
    value: Shape


@dataclass(frozen=True, slots=True)
class Union:
    """One of several types. A nullable type has ``Scalar("null")`` as its first member."""

    members: tuple[Shape, ...]
    discriminator: str | None = None
    """The name of the field that tells records apart, where the class states one."""

    @property
    def optional(self) -> Shape | None:
        """The other member where this is just a nullable type, else None."""
        return self.members[1] if len(self.members) == 2 and self.members[0] == Scalar("null") else None


@dataclass(frozen=True, slots=True)
class Other:
    """A type that has no shape here (a URL, an IP address, a named tuple …): it is carried as its JSON text."""

    name: str
    to_json: Callable[[Any], bytes]
    from_json: Callable[[bytes], Any]
    """Both raise a ValueError: pydantic's ValidationError, or its serializer's error."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a `Record`."""

    name: str
    shape: Shape
    required: bool = True
    default: Any = NO_DEFAULT
    """The default as a value of the field's type, or `NO_DEFAULT`. Not to be changed."""
    doc: str | None = None
    aliases: tuple[str, ...] = ()
    """Other names that readers take it by: what it was called before."""
    number: int | None = None
    """See `FieldNumber`."""
    checked: bool = False
    """Whether the class has constraints or validators here, beyond what the shape says."""


@dataclass(eq=False, slots=True)
class Record:
    """A class with fields: an event, a model, a dataclass or a typed dict. Compared by identity, since it may recur."""

    name: str
    cls: type[Any]
    kind: Literal["event", "model", "dataclass", "typed-dict"]
    fields: tuple[Field, ...] = ()
    doc: str | None = None
    checked: bool = False
    """Whether making one takes pydantic: it has constraints, validators, private attributes or the like."""
    keeps_extra: bool = False
    """Whether fields that the class does not know are kept (``extra="allow"``)."""

    def values(self) -> Callable[[Any], Mapping[str, Any]]:
        """A function from an instance to its fields' values by name."""
        if self.kind == "typed-dict":
            return itself
        if self.kind == "dataclass" and not self.cls.__dictoffset__:  # it has slots alone
            names = tuple(f.name for f in self.fields)
            return lambda instance: {name: getattr(instance, name) for name in names}
        return vars

    def maker(self) -> Callable[..., Any]:
        """A function from fields' values, complete and of the right types, to an instance; it keeps the dict.

        Where the class ``keeps_extra``, a second dict may hold what it does not know. The function validates only
        what is ``checked``; an event's ``__post_init__`` runs in any case.

        The function raises DeserializationError: the class refuses the values; the cause is chained.
        """
        if self.kind == "event":
            return event_maker(self)
        if self.kind == "typed-dict" and not self.checked:
            return itself
        if self.kind == "model" and not self.checked:
            return model_maker(self.cls)
        return checked_maker(self)

    def completer(self) -> Callable[[dict[str, Any]], Any]:
        """As `maker`, for values of which some are missing: the class's own defaults stand in, or it refuses."""
        return event_completer(self) if self.kind == "event" else checked_maker(self)


Shape = Scalar | Enumeration | Literals | Array | Tuple | Map | Union | Record | Other
