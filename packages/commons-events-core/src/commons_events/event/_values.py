"""Values that every format holds exactly, and what makes them so. Each function is for pydantic to call."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any

from pydantic_core import PydanticCustomError, TzInfo

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "aware",
    "decode_base64",
    "encode_base64",
    "exact_items",
    "exact_keys_and_values",
    "exact_sequence",
    "exact_value",
    "exact_values",
    "whole_minutes",
]

MAX_DEPTH = 100
"""Levels of lists and dicts inside ``Any``; JSON parsers stop at a few more."""
MAX_DIGITS = 4300
"""Digits of an int; Python itself reads no longer ones from text by default."""
_INT_LIMIT = 10**MAX_DIGITS
_CONSTANTS = frozenset({bool, float, type(None)})


def exact_value(value: Any, path: str = "", depth: int = 0) -> Any:
    """A copy of ``value``, which is None, bool, int, float, str, list, or dict with str keys, all the way down.

    Raises:
        PydanticCustomError: it is something else; the message says what and where.
    """
    kind = type(value)
    if kind is str:
        return value if value.isascii() else _encodable(value, path)
    if kind is bool or value is None or kind is float:
        return value
    if kind is int:
        if -_INT_LIMIT < value < _INT_LIMIT:
            return value
        raise _refusal(path, f"an int of more than {MAX_DIGITS} digits")
    if depth >= MAX_DEPTH and kind in (list, dict):
        raise _refusal(path[:40] + "…", f"nested deeper than {MAX_DEPTH} levels")
    if kind is list:
        return [exact_value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if kind is dict:
        return {_exact_key(key, path): exact_value(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
    raise _refusal(path, f"a {kind.__qualname__}")


def exact_values(values: dict[Any, Any]) -> dict[Any, Any]:
    """The same for a dict that pydantic has just made: only what needs a copy or a complaint costs more than a look."""
    for key, value in values.items():
        kind = type(value)
        if kind is str:
            if value.isascii():
                continue
        elif kind in _CONSTANTS or (kind is int and -_INT_LIMIT < value < _INT_LIMIT):
            continue
        values[key] = exact_value(value, f".{key}", 1)
    return values


def exact_keys_and_values(values: dict[Any, Any]) -> dict[Any, Any]:
    for key in values:
        _exact_key(key, "")
    return exact_values(values)


def exact_items(values: list[Any]) -> list[Any]:
    return [exact_value(value, f"[{index}]", 1) for index, value in enumerate(values)]


def exact_sequence(values: Sequence[Any]) -> list[Any]:
    if isinstance(values, str | bytes | bytearray):
        raise _refusal("", f"a {type(values).__qualname__}")
    return exact_items(list(values))


def _exact_key(key: object, path: str) -> str:
    if type(key) is not str:
        raise _refusal(path, f"a dict with the key {key!r}, which is not a str")
    return key if key.isascii() else _encodable(key, path)


def _encodable(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refusal(path, "a str with a lone surrogate, which UTF-8 cannot hold") from error
    return text


def _refusal(path: str, what: str) -> PydanticCustomError:
    return PydanticCustomError(
        "exact_value",
        "Inside Any only None, bool, int, float, str, list and dict with str keys hold exactly; "
        "{place} {what}. Give the field a type, or convert the value",
        {"place": f"at {path.lstrip('.')} is" if path else "this is", "what": what},
    )


def aware(value: datetime) -> datetime:
    """A datetime with a fixed offset: a naive one means UTC (reading it otherwise would depend on the machine).

    A time zone with rules becomes the offset in force, since that is what bytes carry; an offset that is not whole
    minutes, which RFC 3339 cannot write, becomes UTC.
    """
    zone = value.tzinfo
    if zone is UTC or type(zone) is TzInfo:  # pydantic's own, which has whole minutes
        return value
    offset = value.utcoffset()
    if offset is None:
        return value.replace(tzinfo=UTC)
    if not offset % _MINUTE:
        return value if type(zone) is timezone else value.replace(tzinfo=timezone(offset), fold=0)
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise PydanticCustomError(
            "datetime_offset", "{value} has an offset of seconds, and is out of range in UTC", {"value": str(value)}
        ) from error


def whole_minutes(value: time) -> time:
    """A time whose offset, if it has one, RFC 3339 can write; a zone that has none without a date is no offset."""
    if value.tzinfo is None or type(value.tzinfo) is TzInfo:
        return value
    offset = value.utcoffset()
    if offset is None:
        return value.replace(tzinfo=None)
    if offset % _MINUTE:
        raise PydanticCustomError(
            "time_offset",
            "{value} has an offset that is not whole minutes, which text cannot hold",
            {"value": str(value)},
        )
    return value


_MINUTE = timedelta(minutes=1)


def decode_base64(value: Any, text_of: Callable[[Any], str]) -> bytes:
    if isinstance(value, bytes):  # a validator of the user's has read the text
        return value
    try:
        return base64.b64decode(text_of(value), validate=True)
    except binascii.Error as error:
        raise PydanticCustomError(
            "base64", "Bytes are base64 (RFC 4648, section 4) in JSON: {why}", {"why": str(error)}
        ) from error


def encode_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()
