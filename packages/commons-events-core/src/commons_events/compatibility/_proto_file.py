"""A .proto text as messages, fields and enums: the `proto-schema-parser` library's syntax tree, checked and flattened.

Kept is what decides which bytes can be read. Comments, options of no consequence, services and extensions are not.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from commons_events.compatibility._text import check_text
from commons_events.errors import InvalidSchemaError, MissingDistributionError

if TYPE_CHECKING:
    from proto_schema_parser import ast

__all__ = ["SCALARS", "Field", "File", "Message", "parse"]

SCALARS = frozenset(
    {
        *("double", "float", "bool", "string", "bytes"),
        *("int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32", "sfixed64"),
    }
)
_MAX_NUMBER = (1 << 29) - 1
_RESERVED_NUMBERS = range(19_000, 20_000)
_LITERALS = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|(?P<word>[\w.]+)""", re.DOTALL)
_OTHER_BASE = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]+")
_parsing = threading.Lock()
"""The parser's runtime keeps its prediction tables for the whole process."""


@dataclass(slots=True)
class Field:
    """A field, of a oneof or not."""

    name: str
    number: int
    type: str
    """As written; a map's value's."""
    label: str | None = None
    """``optional``, ``required`` or ``repeated``, where it is written."""
    oneof: str | None = None
    key: str | None = None
    """A map's key's type."""
    is_group: bool = False
    """Delimited by tags instead of its length."""


@dataclass(slots=True)
class Message:
    """A message with those inside it."""

    name: str
    fields: dict[int, Field] = field(default_factory=dict)
    oneofs: dict[str, list[int]] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    enums: set[str] = field(default_factory=set)
    is_group: bool = False
    """It comes with a field, and goes with it."""
    is_entry: bool = False
    """The same, for a map that is written as what it is on the wire."""


@dataclass(slots=True)
class File:
    """The outermost scope of a text."""

    package: str = ""
    imports: list[str] = field(default_factory=list)
    root: Message = field(default_factory=lambda: Message(""))
    """Holds the messages and enums of the file, and no fields."""


@lru_cache(maxsize=16)
def parse(text: str, name: str = "") -> File:
    """The definitions in a text, which nobody changes: the last ones are remembered.

    Args:
        text: of proto2, proto3 or an edition.
        name: the file's, for messages, where it is an imported one.

    Raises:
        InvalidSchemaError: it is no .proto text; the message has the place and the reason.
        MissingDistributionError: the parser is not installed.
    """
    where = f"Protobuf schema {name}" if name else "Protobuf schema"
    check_text(text, where, is_proto=True)
    return _Reader(where, _tree(text, where)).file


# --- the syntax tree -------------------------------------------------------------------------------------------


def _tree(text: str, where: str) -> ast.File:
    try:
        make = _parser_maker()
    except ImportError as error:
        raise MissingDistributionError(
            'Protobuf schemas need a parser. Type: pip install "commons-events-core[protobuf]"',
            name="proto_schema_parser",
        ) from error
    try:
        with _parsing:
            tree: ast.File = make(where).parse(_LITERALS.sub(_decimal, text.removeprefix("\ufeff")))
    except InvalidSchemaError:
        raise
    except (AttributeError, TypeError, ValueError) as error:  # its syntax is right, and the library can't make a tree
        raise InvalidSchemaError(f"{where}: the parser can't read it: {error}.") from error
    except RecursionError as error:
        raise InvalidSchemaError(f"{where}: nested too deeply for the stack that is left. Flatten it.") from error
    return tree


def _decimal(found: re.Match[str]) -> str:
    """The library reads decimal numbers alone; those of base 16 and 8 are as long or longer."""
    word = found["word"]
    if word is None or not _OTHER_BASE.fullmatch(word):
        return found[0]
    number = int(word, 16) if word[1] in "xX" else int(word, 8)
    return str(number).ljust(len(word))


@cache
def _parser_maker() -> Any:
    """A function that makes a parser whose syntax errors are raised; by itself it prints them and goes on."""
    from antlr4.error.ErrorListener import ErrorListener  # type: ignore[import-untyped]
    from proto_schema_parser.parser import Parser

    class Raise(ErrorListener):  # type: ignore[misc]  # the runtime has no types
        def __init__(self, where: str) -> None:
            super().__init__()
            self.where = where

        def syntaxError(self, recognizer, symbol, line, column, message, error):  # type: ignore[no-untyped-def]  # noqa: N802
            reason = re.sub(r", expecting \{.*|expecting \{.*", "", message, flags=re.DOTALL).strip()
            raise InvalidSchemaError(f"{self.where}: line {line}, column {column + 1}: {reason or message}.")

    def make(where: str) -> Parser:
        def listen(recognizer: Any) -> None:
            recognizer.removeErrorListeners()
            recognizer.addErrorListener(Raise(where))

        return Parser(setup_lexer=listen, setup_parser=listen)

    return make


# --- what it says ----------------------------------------------------------------------------------------------


class _Reader:
    """Turns a tree into a `File`; its depth is bounded by that of the text."""

    def __init__(self, where: str, tree: ast.File) -> None:
        from proto_schema_parser import ast

        self._ast = ast
        self._where = where
        if tree.syntax not in (None, "proto2", "proto3"):
            self._refuse("", f"there is no syntax {tree.syntax!r}; write proto3 or proto2")
        self._is_proto3 = tree.syntax == "proto3"
        options = [element for element in tree.file_elements if isinstance(element, ast.Option)]
        self._delimited = _option(options, "features.message_encoding") == "DELIMITED"
        self.file = File()
        for element in tree.file_elements:
            if isinstance(element, ast.Package):
                self.file.package = element.name
            elif isinstance(element, ast.Import):
                self.file.imports.append(element.name)
            else:
                self._type(self.file.root, "", element)

    def _type(self, outer: Message, path: str, element: object) -> None:
        if isinstance(element, self._ast.Message):
            options = [e for e in element.elements if isinstance(e, self._ast.Option)]
            is_entry = _option(options, "map_entry") is True
            self._message(outer, path, element.name, element.elements).is_entry = is_entry
        elif isinstance(element, self._ast.Enum):
            self._new_name(outer, path, element.name)
            outer.enums.add(element.name)

    def _message(self, outer: Message, path: str, name: str, elements: Iterable[object]) -> Message:
        self._new_name(outer, path, name)
        message = outer.messages[name] = Message(name)
        path = f"{path}.{name}" if path else name
        for element in elements:
            if isinstance(element, self._ast.OneOf):
                if element.name in message.oneofs:
                    self._refuse(path, f"there are two oneofs {element.name!r}")
                message.oneofs[element.name] = []
                for member in element.elements:
                    self._field(message, path, member, oneof=element.name)
            else:
                self._field(message, path, element)
                self._type(message, path, element)
        return message

    def _field(self, message: Message, path: str, element: object, oneof: str | None = None) -> None:
        ast = self._ast
        if isinstance(element, ast.MapField):
            made = Field(element.name, element.number, element.value_type, key=element.key_type)
        elif isinstance(element, ast.Group):
            self._message(message, path, element.name, element.elements).is_group = True
            made = Field(element.name.lower(), element.number, element.name, self._label(element), oneof, is_group=True)
        elif isinstance(element, ast.Field):
            made = Field(element.name, element.number, element.type, self._label(element), oneof)
            if _option(element.options, "features.field_presence") == "LEGACY_REQUIRED":
                made.label = "required"
            encoding = _option(element.options, "features.message_encoding")
            made.is_group = self._delimited if encoding is None else encoding == "DELIMITED"
        else:
            return
        self._add(message, path, made)

    def _label(self, element: ast.Field | ast.Group) -> str | None:
        return element.cardinality.value.lower() if element.cardinality is not None else None

    def _add(self, message: Message, path: str, made: Field) -> None:
        place = f"{path}.{made.name}"
        if not 1 <= made.number <= _MAX_NUMBER or made.number in _RESERVED_NUMBERS:
            self._refuse(place, f"a field's number is 1 to {_MAX_NUMBER:,} without 19,000 to 19,999, not {made.number}")
        if (other := message.fields.get(made.number)) is not None:
            self._refuse(place, f"the number {made.number} is {other.name!r}'s already")
        if made.label == "required" and self._is_proto3:
            self._refuse(place, "proto3 has no required fields")
        message.fields[made.number] = made
        if made.oneof is not None:
            message.oneofs[made.oneof].append(made.number)

    def _new_name(self, outer: Message, path: str, name: str) -> None:
        if name in outer.messages or name in outer.enums:
            self._refuse(path, f"the name {name!r} is defined twice")

    def _refuse(self, place: str, reason: str) -> NoReturn:
        raise InvalidSchemaError(f"{self._where}: {place}: {reason}." if place else f"{self._where}: {reason}.")


def _option(options: Sequence[Any], name: str) -> object:
    """The value of an option, also where it is written inside ``features = {…}``; an identifier is its name."""
    for option in options:
        if option.name == name:
            return getattr(option.value, "name", option.value)
        outer, _, inner = name.partition(".")
        if inner and option.name == outer:
            for member in getattr(option.value, "elements", ()):
                if getattr(member, "name", None) == inner:
                    return getattr(member.value, "name", member.value)
    return None
