"""What the type names in a .proto text stand for: its own messages and enums, those of its imports, well-known ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from commons_events.compatibility._proto_file import SCALARS, Field, File, Message, parse
from commons_events.errors import InvalidSchemaError

__all__ = ["Resolved", "Types"]

_WELL_KNOWN = ("google/protobuf/", "google/type/", "google/api/", "google/rpc/", "confluent/")
"""Imports whose content every implementation has, and which do not change."""
_WELL_KNOWN_ENUMS = frozenset(
    {
        "google.protobuf.Field.Cardinality",
        "google.protobuf.Field.Kind",
        "google.protobuf.NullValue",
        "google.protobuf.Syntax",
        "google.rpc.Code",
        "google.type.CalendarPeriod",
        "google.type.DayOfWeek",
        "google.type.Month",
    }
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name stands for."""

    full: str
    """The whole name, without the leading dot."""
    local: str
    """The same without the package of the file that defines it."""
    is_enum: bool = False
    message: Message | None = None
    """None for an enum, and for a well-known type."""
    file: str = ""
    """The imported file that defines it; empty for the text itself."""
    package: str = ""


class Types:
    """The types that a text sees.

    Args:
        text: of the schema.
        imports: the texts of the files that it imports, and those import, by the names in the import statements.

    Raises:
        InvalidSchemaError: the text is none, or has a type that is not defined.
    """

    def __init__(self, text: str, imports: Mapping[str, str]) -> None:
        self.file = parse(text)
        self._types: dict[str, Resolved] = {}
        self._unknown: set[str] = set()
        files = {name: parse(source, name) for name, source in imports.items()}
        for name, file in files.items():
            self._collect(file, name)
        self._collect(self.file, "")
        wanted = {one for file in (*files.values(), self.file) for one in file.imports} - files.keys()
        self._missing = sorted(name for name in wanted if not name.startswith(_WELL_KNOWN))
        self._well_known = any(name.startswith(_WELL_KNOWN) for name in wanted)
        self._check_names()

    def _check_names(self) -> None:
        """Raise an `InvalidSchemaError` where the text has a field of a type that is not defined, compared or not."""
        stack = [(self.file.package, self.file.root)]
        while stack:
            scope, message = stack.pop()
            for field in message.fields.values():
                self.resolve(field.type, scope)
            stack += ((f"{scope}.{name}" if scope else name, inner) for name, inner in message.messages.items())

    def _collect(self, file: File, name: str) -> None:
        stack = [("", file.root)]
        while stack:
            path, message = stack.pop()
            for inner in (*message.messages, *sorted(message.enums)):
                local = f"{path}.{inner}" if path else inner
                full = f"{file.package}.{local}" if file.package else local
                found = message.messages.get(inner)
                self._types[full] = Resolved(full, local, found is None, found, name, file.package)
                if found is not None:
                    stack.append((local, found))

    def resolve(self, name: str, scope: str) -> Resolved | None:
        """The type that ``name`` means inside the message ``scope`` (a full name, or the package); None for a scalar.

        Raises:
            InvalidSchemaError: nothing is called so.
        """
        if name in SCALARS:
            return None
        if name.startswith("."):
            candidates = [name[1:]]
        else:
            parts = scope.split(".") if scope else []
            candidates = [".".join([*parts[:size], name]) for size in range(len(parts), -1, -1)]
        for full in candidates:
            if full in self._types:
                return self._types[full]
        if self._well_known:
            for full in reversed(candidates):
                if full.startswith(tuple(folder.replace("/", ".") for folder in _WELL_KNOWN)):
                    return _well_known(full)
        if self._missing:
            raise InvalidSchemaError(
                f"Protobuf schema: {scope}: {name} is not defined here; it may come from {', '.join(self._missing)}, "
                "which is imported and was not given. Give its text, too: SchemaText(text, imports={name: text}); on "
                "the command line, --import-path says where it is."
            )
        raise InvalidSchemaError(f"Protobuf schema: {scope}: {name} is not defined. Define it, or import its file.")

    def entry_of(self, field: Field, scope: str) -> Field | None:
        """The field as a map, where it is written as what a map is on the wire: its entries, repeated."""
        if field.label != "repeated" or (entry := self.resolve(field.type, scope)) is None:
            return None
        if entry.message is None or not entry.message.is_entry:
            return None
        key, value = entry.message.fields.get(1), entry.message.fields.get(2)
        if key is None or value is None:
            return None
        return Field(field.name, field.number, value.type, oneof=field.oneof, key=key.type)


def _well_known(full: str) -> Resolved:
    """Packages of these are in lower case, and types are not."""
    parts = full.split(".")
    size = next((i for i, part in enumerate(parts) if part[:1].isupper()), len(parts) - 1)
    return Resolved(full, ".".join(parts[size:]), full in _WELL_KNOWN_ENUMS, file=full, package=".".join(parts[:size]))
