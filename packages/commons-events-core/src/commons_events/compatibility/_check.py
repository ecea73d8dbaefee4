"""`compatibility`: a new schema against the older ones, in the directions and as far back as the mode says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias, cast

from commons_events.compatibility._formats import Comparison, SchemaText, comparison, format_named, format_of
from commons_events.compatibility._violation import Direction, Violation
from commons_events.errors import ConfigurationError, InvalidSchemaError
from commons_events.event import Event
from commons_events.plugins import serializer

__all__ = ["AnySchema", "Compatibility", "CompatibilityMode", "compatibility"]

AnySchema: TypeAlias = "type[Event] | str | SchemaText"
"""An event class, a schema's text, or a text with what it imports."""


class CompatibilityMode(StrEnum):
    """Who has to read whom; the names are those of Confluent's registry."""

    NONE = "NONE"
    """Nothing is compared."""
    BACKWARD = "BACKWARD"
    """The new schema reads what was written with the latest one: update the consumers first."""
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    """The new schema reads what was written with any older one: the whole topic can be read again."""
    FORWARD = "FORWARD"
    """The latest schema reads what is written with the new one: update the producers first."""
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    """Every older schema reads what is written with the new one."""
    FULL = "FULL"
    """Both, with the latest schema."""
    FULL_TRANSITIVE = "FULL_TRANSITIVE"
    """Both, with every older one."""

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Which sides have to be able to read."""
        name = self.value.partition("_")[0]
        if name == "NONE":
            return ()
        return tuple(Direction) if name == "FULL" else (Direction(name),)

    @property
    def is_transitive(self) -> bool:
        """Whether all older schemas count, and not the latest alone."""
        return self.value.endswith("_TRANSITIVE")


@dataclass(frozen=True, slots=True)
class Compatibility:
    """What `compatibility` found; true where the schemas are compatible."""

    mode: CompatibilityMode
    schema_type: str
    """``avro``, ``json`` or ``protobuf``."""
    violations: tuple[Violation, ...]
    """All that stands in the way, latest older schema first; each says which one and which direction it is about."""

    @property
    def is_compatible(self) -> bool:
        """Whether there are no violations."""
        return not self.violations

    def __bool__(self) -> bool:
        return self.is_compatible

    def __str__(self) -> str:
        if not self.violations:
            return f"compatible ({self.mode}, {self.schema_type})"
        return "\n".join(map(str, self.violations))


def compatibility(
    old: AnySchema | Sequence[AnySchema],
    new: AnySchema,
    mode: CompatibilityMode | str = CompatibilityMode.BACKWARD,
    *,
    schema_type: str | None = None,
    lenient: bool = False,
) -> Compatibility:
    """May ``new`` follow ``old``? By the rules that Confluent's registry has for the format.

    Args:
        old: what there was: an event class, a schema's text (an .avsc, a JSON Schema or a .proto), a `SchemaText` with
            imports, or a sequence of these, oldest first. A transitive mode counts all of them, another mode the last.
        new: what shall come, in the same forms.
        mode: who has to read whom; a name in any case serves, too.
        schema_type: ``avro``, ``json`` (or ``jsonschema``) or ``protobuf``. By default what the classes state, and what
            a text can only be. An event class gives its schema in the format that is named here.
        lenient: for JSON Schema the registry's lenient policy: a property may be added to an object that is open, since
            writers are taken not to have put something else there, as event classes do not.

    Returns:
        An object that is true where the schemas are compatible, and has the violations.

    Raises:
        InvalidSchemaError: (a ValueError) a text is no schema of the format; the message says which, where and why.
        ConfigurationError: (a ValueError) there is no such mode or format, or the format can't be told.
        MissingDistributionError: (an ImportError) the format's extra is not installed; the message has the line.
    """
    mode = _mode(mode)
    is_several = isinstance(old, Sequence) and not isinstance(old, str | bytes | bytearray)
    older = cast("list[AnySchema]", list(old) if is_several else [old])  # type: ignore[arg-type]
    format_ = _format([*older, new], schema_type)
    compare = comparison(format_, lenient=lenient)
    candidate = _text(new, format_)
    texts = [(place, _text(schema, format_)) for place, schema in enumerate(older)]
    if not mode.is_transitive:
        texts = texts[-1:]
    if not texts or not mode.directions:
        _validate(compare, candidate.name or "the new schema", candidate)
    found: list[Violation] = []
    for place, text in reversed(texts):
        for direction in mode.directions:
            pair = (candidate, text) if direction is Direction.BACKWARD else (text, candidate)
            try:
                violations = compare(*pair)
            except InvalidSchemaError:
                _validate(compare, candidate.name or "the new schema", candidate)
                _validate(compare, text.name or f"the older schema {place}", text)
                raise
            if format_ == "protobuf":
                ends = (new, older[place]) if direction is Direction.BACKWARD else (older[place], new)
                violations += _newly_required(*ends)
            found += (replace(violation, older=place, direction=direction) for violation in violations)
    return Compatibility(mode, format_, tuple(found))


def _mode(mode: CompatibilityMode | str) -> CompatibilityMode:
    try:
        return CompatibilityMode(mode.upper())
    except ValueError as error:
        raise ConfigurationError(
            f"mode {mode!r}: there is no such mode. Write one of {', '.join(CompatibilityMode)}."
        ) from error


def _format(schemas: Sequence[AnySchema], stated: str | None) -> str:
    if stated is not None:
        return format_named(stated)
    found = {format_ for schema in schemas if (format_ := _own_format(schema)) is not None}
    if len(found) == 1:
        return found.pop()
    if found:
        raise ConfigurationError(
            f"The schemas are of different formats: {', '.join(sorted(found))}. Compare those of one format; an event "
            "class gives its schema in the one that schema_type= names."
        )
    raise ConfigurationError(
        "The texts do not show which format they are of. State schema_type='avro', 'json' or 'protobuf'."
    )


def _own_format(schema: AnySchema) -> str | None:
    if isinstance(schema, SchemaText):
        return format_of(schema.text)
    if isinstance(schema, str):
        return format_of(schema)
    return format_named(_event_class(schema).schema_info().schema_type)


def _text(schema: AnySchema, format_: str) -> SchemaText:
    if isinstance(schema, SchemaText):
        return schema
    if isinstance(schema, str):
        return SchemaText(schema, {})
    event_class = _event_class(schema)
    return SchemaText(serializer(format_).schema(event_class), {})


def _newly_required(reader: AnySchema, writer: AnySchema) -> list[Violation]:
    """Of event classes: what a Protobuf schema cannot say, since all of its fields may be absent."""
    if not isinstance(reader, type) or not isinstance(writer, type):
        return []
    from commons_events.protobuf._agreement import newly_required
    from commons_events.protobuf._plan import plan_of

    return [
        Violation(
            path=f"#/{message.path.replace('.', '/')}/{slot.number}",
            rule="REQUIRED_FIELD_ADDED",
            message=f"{reader.__qualname__} insists on field {slot.label} ({slot.number}), which {writer.__qualname__} "
            "does not write",
            advice="Give the field a default; or the event a new major version, and a migration.",
        )
        for message, slot in newly_required(plan_of(writer), plan_of(reader))
    ]


def _event_class(schema: object) -> type[Event]:
    if isinstance(schema, type) and issubclass(schema, Event):
        return schema
    raise TypeError(f"a schema is an event class, a str or a SchemaText, not {type(schema).__name__}: {schema!r:.60}")


def _validate(compare: Comparison, name: str, text: SchemaText) -> None:
    """Parse one schema by itself, so that the error can say which one it is about."""
    try:
        compare(text, text)
    except InvalidSchemaError as error:
        raise InvalidSchemaError(f"{name}: {error}") from error
