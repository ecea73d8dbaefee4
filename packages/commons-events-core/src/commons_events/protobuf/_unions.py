"""Which member of a union a value is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from commons_events.protobuf._wire import WireError
from commons_events.shapes import Array, Enumeration, Literals, Map, Other, Record, Scalar, Shape, Tuple, Union

__all__ = ["picker"]

_TYPES: dict[str, type[Any]] = {
    "bool": bool,
    "bytes": bytes,
    "date": date,
    "datetime": datetime,
    "decimal": Decimal,
    "float": float,
    "int": int,
    "null": type(None),
    "str": str,
    "time": time,
    "timedelta": timedelta,
    "uuid": UUID,
}


def picker(shapes: Sequence[Shape]) -> Callable[[Any], int]:
    """A function that says which of the shapes a value has; it raises a `WireError` where it has none."""
    by_type: dict[type[Any], int | None] = {}
    for index, shape in enumerate(shapes):
        for cls in _classes(shape):
            by_type[cls] = index if cls not in by_type else None  # None: a look at the type is not enough
    if any(isinstance(shape, Other) or shape == Scalar("any") for shape in shapes):
        by_type = {}

    def pick(value: Any) -> int:
        index = by_type.get(type(value))
        if index is not None:
            return index
        for exact in (True, False):
            for index, shape in enumerate(shapes):
                if _fits(shape, value, exact=exact):
                    return index
        raise WireError(f"a {type(value).__qualname__} is no member of the union")

    return pick


def _classes(shape: Shape) -> tuple[type[Any], ...]:
    if isinstance(shape, Scalar):
        return (_TYPES[shape.kind],) if shape.kind in _TYPES else ()
    if isinstance(shape, Enumeration):
        return (shape.cls,)
    if isinstance(shape, Literals):
        return tuple({type(value) for value in shape.values})
    if isinstance(shape, Array):
        return (shape.container,)
    if isinstance(shape, Tuple):
        return (tuple,)
    if isinstance(shape, Map):
        return (dict,)
    if isinstance(shape, Record):
        return (dict,) if shape.kind == "typed-dict" else (shape.cls,)
    return ()


def _fits(shape: Shape, value: Any, *, exact: bool) -> bool:
    """Whether a value has a shape; ``exact`` takes no subclass of its type."""
    if isinstance(shape, Scalar) and shape.kind == "any":
        return not exact
    if isinstance(shape, Other):
        return not exact and _has_json(shape, value)
    if isinstance(shape, Union):
        return any(_fits(member, value, exact=exact) for member in shape.members)
    if isinstance(shape, Literals):
        return any(type(known) is type(value) and known == value for known in shape.values)
    classes = _classes(shape)
    if type(value) not in classes and (exact or not isinstance(value, classes)):
        return False
    if isinstance(shape, Array):
        return all(_fits(shape.item, item, exact=exact) for item in value)
    if isinstance(shape, Tuple):
        return len(value) == len(shape.items) and all(
            _fits(item, part, exact=exact) for item, part in zip(shape.items, value, strict=True)
        )
    if isinstance(shape, Map):
        return all(
            _fits(shape.key, key, exact=exact) and _fits(shape.value, item, exact=exact) for key, item in value.items()
        )
    if isinstance(shape, Record) and shape.kind == "typed-dict":
        return isinstance(value, Mapping) and value.keys() == {f.name for f in shape.fields}
    return True


def _has_json(shape: Other, value: Any) -> bool:
    try:
        shape.to_json(value)
    except ValueError:
        return False
    return True
