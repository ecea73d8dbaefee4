"""The names that the envelope takes, and what an event class may do with them."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import AliasChoices, AliasPath

from commons_events.errors import EventDefinitionError
from commons_events.event._exact import INEXACT

if TYPE_CHECKING:
    from commons_events.event._event import Event

__all__ = ["ENVELOPE", "accepted_names", "check_envelope", "check_names"]

ENVELOPE: dict[str, tuple[type, bool]] = {
    "version": (str, False),
    "event_id": (str, False),
    "source": (str, True),
    "timestamp": (datetime, False),
    "correlation_id": (str, True),
    "causation_id": (str, True),
    "metadata": (dict, False),
}
"""Each envelope field's type, and whether it may be None."""
_fitting: dict[str, Any] = {}
"""By the fields' names: annotations that fit, as nearly all classes have them from `Event`."""


def check_envelope(event_class: type[Event]) -> None:
    """Raise `EventDefinitionError` where a class redeclares an envelope field with a type that does not fit."""
    for name, (type_, optional) in ENVELOPE.items():
        annotation = event_class.__pydantic_fields__[name].annotation
        if _fitting.get(name) is annotation:
            continue
        if not all(_fits(member, type_) for member in _members(annotation, optional)):
            wanted = f"{type_.__name__} | None" if optional else type_.__name__
            raise EventDefinitionError(
                f"{event_class.__qualname__}.{name}: the envelope has this name, with the type {wanted}; it cannot be "
                f"redeclared as {annotation!r}. Choose another name for the field."
            )
        _fitting.setdefault(name, annotation)
    if (config := event_class.model_config).get("frozen") or config.get("ser_json_inf_nan") != "constants":
        raise EventDefinitionError(
            f"{event_class.__qualname__}.model_config: an event freezes after __post_init__ and refuses NaN by itself; "
            "leave frozen and ser_json_inf_nan out."
        )
    inexact = sorted(name for name in INEXACT if config.get(name, "iso8601") != "iso8601")
    if inexact:
        raise EventDefinitionError(
            f"{event_class.__qualname__}.model_config: numbers do not hold times exactly; leave {inexact[0]} out."
        )


def check_names(event_class: type[Event], names: Iterable[str], taken: Collection[str]) -> None:
    """Raise `EventDefinitionError` where a field has the name of a method that every event has."""
    for name in names:
        if name in taken:
            raise EventDefinitionError(
                f"{event_class.__qualname__}.{name}: every event has a method of this name. Call the field "
                f"otherwise; bytes may keep the name: Field(validation_alias={name!r})."
            )


def _members(annotation: Any, optional: bool) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        yield from (member for member in get_args(annotation) if not (optional and member is type(None)))
    else:
        yield annotation


def _fits(annotation: Any, type_: type) -> bool:
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        return all(isinstance(value, type_) for value in get_args(annotation))
    return origin is type_ or (type_ is dict and origin is Mapping)


def accepted_names(event_class: type[Event]) -> frozenset[str]:
    """What a constructor takes: the fields by their names and aliases, and ``event_type``."""
    names = {"event_type"}
    for name, field in event_class.__pydantic_fields__.items():
        names.add(name)
        for alias in (field.alias, field.validation_alias):
            choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
            for choice in choices:
                first = choice.path[0] if isinstance(choice, AliasPath) else choice
                if isinstance(first, str):
                    names.add(first)
    return frozenset(names)
