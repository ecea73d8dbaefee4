"""The names of an event's types: the same at every run, and different for different classes."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["Names", "avro_name"]

_OTHER = re.compile(r"[^A-Za-z0-9_]")
_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
"""What no type may be called in any namespace, by the specification ("Names"); libraries take it for the primitive."""


def avro_name(event_type: str) -> str:
    """An event type as a full name: ``order.placed`` as it is, ``OrderPlaced`` in the namespace ``events``.

    What no name may have becomes ``_``, and a name that a primitive type has gets one: ``file.bytes_``.

    Versions of one event share it, so that Avro's rules let the class of one read the bytes of another.
    """
    *space, last = (_part(part) for part in event_type.split("."))
    return ".".join((*(space or ("events",)), _type_name(last)))


def _type_name(part: str) -> str:
    return f"{part}_" if part in _PRIMITIVES else part


def _part(text: str) -> str:
    part = _OTHER.sub("_", text)
    return part if part and not part[0].isdigit() else f"_{part}"


class Names:
    """Names of the types in one event's schema; those inside it lie in a namespace named after the event."""

    def __init__(self, event: str) -> None:
        self.event = event
        """The event's own record."""
        self._classes: dict[str, type[Any]] = {}
        self._made: set[str] = set()

    def of(self, cls: type[Any]) -> str:
        """The name of a model or enum: the class's, or a longer one where another class has that."""
        module = _part(cls.__module__)
        short = _type_name(_part(cls.__name__))
        qualified = _type_name(_part(cls.__qualname__.replace("<locals>.", "")))
        candidates = [short, qualified, f"{module}_{qualified}"]
        candidates += [f"{module}_{qualified}_{number}" for number in range(2, len(self._classes) + 3)]
        name = next(name for name in candidates if name not in self._made and self._classes.get(name, cls) is cls)
        self._classes[name] = cls
        return f"{self.event}.{name}"

    def made(self, path: str, suffix: str) -> str:
        """The name of a record that stands for a part of a field, which no class has."""
        stem = f"{_part(path)}_{suffix}"
        names = [stem, *(f"{stem}{number}" for number in range(2, len(self._made) + 3))]
        name = next(name for name in names if name not in self._made and name not in self._classes)
        self._made.add(name)
        return f"{self.event}.{name}"
