"""What every schema text has to be, before a parser sees it: some text, not too much of it, not too deep."""

from __future__ import annotations

import re

from commons_events.errors import InvalidSchemaError

__all__ = ["MAX_JSON_DEPTH", "MAX_PROTO_DEPTH", "MAX_PROTO_WORDS", "MAX_SIZE", "check_text", "place_of"]

MAX_SIZE = 1 << 20
"""The most characters of a schema; about what a registry that keeps each schema in one Kafka record can hold."""
MAX_PROTO_DEPTH = 64
"""The most levels of braces and brackets in a .proto text. The parsers are recursive."""
MAX_PROTO_WORDS = 100_000
"""The most words and signs of a .proto text: a few seconds of the parser, which is written in Python."""
MAX_JSON_DEPTH = 200
"""The same for JSON; a record inside a record is three levels."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_JSON_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_PROTO_TOKENS = re.compile(
    r"""//[^\n]*|/\*.*?(?:\*/|\Z)|"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?|[\w.]+|[^\w\s]""", re.DOTALL
)


def check_text(text: str, where: str, *, is_proto: bool = False) -> None:
    """Refuse a text that is empty, binary, too long, or nested too deeply for the parsers.

    Raises:
        InvalidSchemaError: with the place.
    """
    if not text.strip():
        raise InvalidSchemaError(f"{where}: the text is empty. Give the schema itself.")
    if len(text) > MAX_SIZE:
        raise InvalidSchemaError(
            f"{where}: the text has {len(text):,} characters, and {MAX_SIZE:,} are allowed. Split the schema."
        )
    if (found := _CONTROL.search(text)) is not None:
        raise InvalidSchemaError(
            f"{where}: {place_of(text, found.start())}: the character {found[0]!r} is no text. Is this a binary file?"
        )
    depth = 0
    max_depth, max_words = (MAX_PROTO_DEPTH, MAX_PROTO_WORDS) if is_proto else (MAX_JSON_DEPTH, MAX_SIZE)
    for number, token in enumerate((_PROTO_TOKENS if is_proto else _JSON_TOKENS).finditer(text)):
        character = token[0]
        if number == max_words:
            raise InvalidSchemaError(
                f"{where}: {place_of(text, token.start())}: the text has more than {max_words:,} words and signs. "
                "Split it into files that import each other."
            )
        if character in "{[(<":
            depth += 1
            if depth > max_depth:
                raise InvalidSchemaError(
                    f"{where}: {place_of(text, token.start())}: nested more than {max_depth} levels deep. "
                    "Give inner types a name, and refer to them by it."
                )
        elif character in "}])>":
            depth -= 1


def place_of(text: str, offset: int) -> str:
    """``line 3, column 14``, both counted from 1."""
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - text.rfind(chr(10), 0, offset)}"
