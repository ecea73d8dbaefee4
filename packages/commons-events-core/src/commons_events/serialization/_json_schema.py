"""JSON that is checked against the class's own schema before it becomes an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn, TypeVar
from weakref import WeakKeyDictionary

from commons_events.errors import DeserializationError, EventDefinitionError, MissingDistributionError
from commons_events.event import Event, registry
from commons_events.event._versions import same_major
from commons_events.plugins import SERIALIZERS, install_hint
from commons_events.serialization._json import JsonSerializer
from commons_events.serialization._published import published_schema

__all__ = ["JsonSchemaSerializer"]

E = TypeVar("E", bound=Event)
Check = Callable[[Any], None]

_MOST_SHOWN = 500
"""Of a reason, which quotes bytes that anybody may have written."""


class JsonSchemaSerializer(JsonSerializer):
    """JSON, checked against the class's own JSON Schema (draft 2020-12) on the way in.

    The bytes and the schema are those of `JsonSerializer`. What that reads leniently, ``"1"`` for an int, is refused
    here, and so is all else that ``SomeEvent.schema`` forbids. Unknown members stay allowed where the schema does not
    forbid them.

    The way out is not checked: what an event holds was checked when it was made. `validate` checks bytes alone.

    Raises:
        MissingDistributionError: (an ImportError) core's extra ``jsonschema`` is not installed.
    """

    name: ClassVar[str] = "jsonschema"

    def __init__(self) -> None:
        try:
            from commons_events.serialization import _checks
        except ModuleNotFoundError as error:
            raise MissingDistributionError(
                f"The format 'jsonschema' needs {error.name}, which is not installed. "
                f"{install_hint(SERIALIZERS, self.name)}",
                name=error.name,
            ) from error
        self._compile = _checks.compile_check
        self._parse = _checks.parse
        self._mismatch, self._unusable = _checks.Mismatch, _checks.Unusable
        self._made: WeakKeyDictionary[type[Event], tuple[object, Check]] = WeakKeyDictionary()

    def decode(self, data: bytes, event_class: type[E]) -> E:
        """The event in ``data``, which fits its class's schema; on a base class, by the type in the bytes.

        The schema is that of the class that the bytes' own type and version name. Where just this version has none,
        and the class reads it all the same, it is the class's own.

        Raises:
            DeserializationError: (a ValueError) the bytes do not fit; the message says where and why.
            UnknownEventTypeError: no class is known for the type that the bytes name.
        """
        fields = self._read(data, event_class)
        judge = self._judge(fields, event_class)
        if judge is not None:  # else they are none of its kind, and the class says why
            self._check(fields, judge)
        return event_class.from_json(data)

    def validate(self, data: bytes, event_class: type[Event]) -> None:
        """Raise `DeserializationError` where ``data`` is not what the class's schema allows; make no event."""
        self._check(self._read(data, event_class), event_class)

    def _read(self, data: bytes, event_class: type[Event]) -> Any:
        try:
            return self._parse(data)
        except self._mismatch as error:
            self._refuse(event_class, error)

    def _judge(self, fields: Any, event_class: type[Event]) -> type[Event] | None:
        """The class whose schema the bytes have to fit: the one that their own type and version name.

        Where just this version has no class, another one of the same major version reads it as its own.
        """
        own = event_class.__dict__.get("event_type")
        if not isinstance(fields, dict):
            return event_class if own is not None else None
        event_type, version = fields.get("event_type", own), fields.get("version")
        stated = event_class.schema_info().version
        if event_type == own and own is not None and (version == stated or not isinstance(version, str)):
            return event_class
        if not isinstance(event_type, str):
            return event_class if own is not None else None
        found: type[Event] | None = registry.get(event_type, version if isinstance(version, str) else None)
        if found is None or (own is not None and event_type != own and not issubclass(found, event_class)):
            return None
        if isinstance(version, str) and version != found.schema_info().version:
            if event_type == own and same_major(version, stated):
                found = event_class
            fields["version"] = found.schema_info().version
        return found

    def _check(self, fields: Any, event_class: type[Event]) -> None:
        made = self._made.get(event_class)
        try:
            if (
                made is None or made[0] is not event_class.__pydantic_serializer__
            ):  # it was decorated or completed since
                check = self._compile(published_schema(event_class))
                made = self._made[event_class] = event_class.__pydantic_serializer__, check
            made[1](fields)
        except self._mismatch as error:
            self._refuse(event_class, error)
        except self._unusable as error:
            raise EventDefinitionError(
                f"{event_class.__qualname__}: its JSON Schema cannot be checked with: {error}. See what its fields add "
                "to it (json_schema_extra, WithJsonSchema)."
            ) from error

    def _refuse(self, event_class: type[Event], error: Exception) -> NoReturn:
        reason = str(error)
        shown = reason if len(reason) <= _MOST_SHOWN else f"{reason[:_MOST_SHOWN]}…"
        raise DeserializationError(
            f"{event_class.__qualname__}: the bytes do not fit its JSON Schema: {shown}."
        ) from error
