"""The envelope's fields, which every event class has: collected and given a core schema once, not once a class.

Pydantic derives all that a class inherits anew, and the envelope is half of a usual event. So `Event` hides its
annotations from pydantic, and the fields are put in their place before pydantic makes a core schema of the class.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any, cast

from pydantic import ConfigDict, GetCoreSchemaHandler, create_model
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from commons_events.event._envelope import ENVELOPE

if TYPE_CHECKING:
    from commons_events.event._event import Event

__all__ = ["Inheriting"]

_GENERATORS = frozenset({"alias_generator", "field_title_generator"})
"""Settings by which pydantic changes a field that is inherited."""


class Inheriting:
    """What the subclasses of an event class have from it.

    Args:
        base: `Event`. Its annotations of the envelope are taken from it.
    """

    def __init__(self, base: type[Event]) -> None:
        self._base = base
        self._fields: dict[str, FieldInfo] = base.__pydantic_fields__
        self._schemas = _model_fields(base.__pydantic_core_schema__)["fields"]
        self._copies = {name: _copier(info) for name, info in self._fields.items()}
        self._being_made: set[type[Event]] = set()
        """Classes whose core schema pydantic is making; they may be inside themselves."""
        for name in ENVELOPE:
            del base.__annotations__[name]

    def complete(self, event_class: type[Event]) -> None:
        """Put in the fields that pydantic did not see, before those of the class's own."""
        own = event_class.__pydantic_fields__
        if not self._fields.keys() <= own.keys():
            copies = {name: own.get(name) or copied() for name, copied in self._copies.items()}
            if not _GENERATORS.isdisjoint(event_class.model_config) or self._assigns(event_class):
                copies |= self._changed(event_class, [name for name in copies if name not in own])
            event_class.__pydantic_fields__ = copies | own

    def _assigns(self, event_class: type[Event]) -> bool:
        """Whether some class beside `Event` has a value for a field, which is its default then."""
        before = event_class.__mro__[: event_class.__mro__.index(self._base)]
        return any(not self._fields.keys().isdisjoint(cls.__dict__) for cls in before)

    def _changed(self, event_class: type[Event], names: list[str]) -> dict[str, FieldInfo]:
        """The fields as the class's own settings and values make them: what pydantic does to a model that has them."""
        settings = {name: value for name, value in event_class.model_config.items() if name in _GENERATORS}
        before = event_class.__mro__[: event_class.__mro__.index(self._base)]
        definitions: dict[str, Any] = {}
        for name in names:
            values = (cls.__dict__[name] for cls in before if name in cls.__dict__)
            definitions[name] = self._fields[name].annotation, next(values, copy(self._fields[name]))
        model = create_model(event_class.__name__, __config__=cast(ConfigDict, settings), **definitions)
        return dict(model.__pydantic_fields__)

    def core_schema(self, event_class: type[Event], handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """What ``handler`` makes of a class; it is not asked for what it has made of the envelope before.

        Args:
            event_class: the class.
            handler: as pydantic gives it to ``__get_pydantic_core_schema__``.
        """
        own = event_class.__dict__.get("__pydantic_fields__")
        if own is None or event_class is self._base or event_class in self._being_made:
            return handler(event_class)
        self.complete(event_class)
        fields = event_class.__pydantic_fields__
        if fields is own or self._is_special(event_class):
            return handler(event_class)
        self._being_made.add(event_class)
        event_class.__pydantic_fields__ = own
        try:
            schema = handler(event_class)
        finally:
            event_class.__pydantic_fields__ = fields
            self._being_made.discard(event_class)
        node = _model_fields(schema)
        made = node["fields"]
        node["fields"] = {name: made[name] if name in own else self._schemas[name] for name in fields}
        return schema

    def _is_special(self, event_class: type[Event]) -> bool:
        """Whether a class may make something of its own of what it inherits."""
        decorators = event_class.__pydantic_decorators__
        return bool(
            decorators.field_validators
            or decorators.field_serializers
            or decorators.validators
            or "json_encoders" in event_class.model_config
            or not _GENERATORS.isdisjoint(event_class.model_config)
            or self._assigns(event_class)
        )


def _copier(info: FieldInfo) -> Callable[[], FieldInfo]:
    """What makes copies of a field. Pydantic's own are not public, and `copy` takes as long as to make one anew."""
    slots = [getattr(FieldInfo, name) for name in getattr(FieldInfo, "__slots__", ())]
    if not slots or "__dict__" in dir(info):
        return lambda: copy(info)
    values = [(slot.__set__, slot.__get__(info)) for slot in slots]

    def make() -> FieldInfo:
        made = FieldInfo.__new__(FieldInfo)
        for assign, value in values:
            assign(made, value)
        return made

    return make


def _model_fields(schema: core_schema.CoreSchema) -> dict[str, Any]:
    node = cast("dict[str, Any]", schema)
    while node["type"] != "model-fields":
        node = node["schema"]
    return node
