"""Instances of a record from its fields' values, validated no more than the class needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter

from commons_events.errors import DeserializationError
from commons_events.event import Event, describe

if TYPE_CHECKING:
    from commons_events.shapes._shape import Record

__all__ = ["checked_maker", "event_completer", "event_maker", "itself", "model_maker"]


def itself(values: Any) -> Any:
    return values


_set_fields: Callable[[Any, set[str]], None] = BaseModel.__pydantic_fields_set__.__set__  # type: ignore[attr-defined]
_set_extra: Callable[[Any, Any], None] = BaseModel.__pydantic_extra__.__set__  # type: ignore[union-attr]
_set_private: Callable[[Any, Any], None] = BaseModel.__pydantic_private__.__set__  # type: ignore[union-attr]
_set_dict = object.__setattr__


def model_maker(cls: type[BaseModel]) -> Callable[..., Any]:
    new = cls.__new__

    def make(values: dict[str, Any]) -> Any:
        instance = new(cls)
        _set_dict(instance, "__dict__", values)
        _set_fields(instance, set(values))
        _set_extra(instance, None)
        _set_private(instance, None)
        return instance

    return make


def event_maker(record: Record) -> Callable[..., Any]:
    if record.checked:
        return event_completer(record)
    cls: type[Event] = record.cls
    new = cls.__new__
    names = {f.name for f in record.fields}

    def make(values: dict[str, Any], extra: dict[str, Any] | None = None) -> Any:
        event = new(cls).being_made()
        _set_dict(event, "__dict__", values)
        _set_fields(event, {*values, *extra} if extra else names.copy())
        _set_extra(event, (extra or {}) if record.keeps_extra else None)
        _set_private(event, None)
        return event.finished()

    return make


def event_completer(record: Record) -> Callable[..., Any]:
    cls: type[Event] = record.cls
    cls.complete()
    new, filler = cls.__new__, cls.filler

    def complete(values: dict[str, Any], extra: dict[str, Any] | None = None) -> Any:
        event = new(cls).being_made()
        try:
            given = {**extra, **values} if extra else values
            filler.validate_python(given, self_instance=event, by_alias=False, by_name=True)
        except Exception as error:  # a user's validators, and whatever they raise refuses these bytes
            raise _refusal(record, error) from error
        return event.finished()

    return complete


def checked_maker(record: Record) -> Callable[..., Any]:
    validator: Any = TypeAdapter(record.cls).validator

    def make(values: dict[str, Any], extra: dict[str, Any] | None = None) -> Any:
        try:
            return validator.validate_python({**extra, **values} if extra else values, by_alias=False, by_name=True)
        except Exception as error:  # a user's validators, and whatever they raise refuses these bytes
            raise _refusal(record, error) from error

    return make


def _refusal(record: Record, error: Exception) -> DeserializationError:
    return DeserializationError(f"{record.cls.__qualname__} refuses what was read: {describe(error)}.")
