"""Whether a field's default is a value of the field's type, and what it is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from enum import Enum
from typing import Any, cast
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import PydanticUndefined, SchemaError, SchemaValidator, core_schema

__all__ = ["has_function", "sound_default"]

Schema = dict[str, Any]

_PLAIN: dict[str, type[Any]] = {
    "bool": bool, "bytes": bytes, "date": date, "float": float, "int": int, "none": type(None), "str": str,
    "timedelta": timedelta, "uuid": UUID,
}  # fmt: skip
_EMPTY: dict[str, type[Any]] = {"dict": dict, "frozenset": frozenset, "list": list, "set": set}
_BARE = frozenset({"type", "metadata", "ref", "microseconds_precision"})
_INSIDE = _BARE | {"keys_schema", "values_schema", "items_schema"}


def has_function(node: Any) -> bool:
    """Whether a validator of the user's is in a type, which may make anything of a default."""
    if isinstance(node, dict):
        if isinstance(node.get("type"), str) and node["type"].startswith("function-"):
            return True
        return any(has_function(child) for key, child in node.items() if key not in _VALUES)
    return isinstance(node, list | tuple) and any(map(has_function, node))


_VALUES = frozenset({"metadata", "config", "default", "serialization", "cls", "members", "expected"})


def sound_default(node: Schema, exact: Callable[[], Schema], config: Mapping[str, Any]) -> Any:
    """The default of a field without validators of the user's, as a value of the field's type.

    Args:
        node: pydantic's schema of a field with a default.
        exact: makes the schema inside it, as it shall be validated by; asked where a look is not enough.
        config: of the model that has the field.

    Raises:
        ValueError: it is none, and no conversion that pydantic does makes it one; says why, on a line.
    """
    default = node["default"]
    if default is PydanticUndefined or _is_plainly(node["schema"], default, config) or _refers(node["schema"]):
        return default
    try:
        validator = SchemaValidator(
            cast(core_schema.CoreSchema, exact()), cast(core_schema.CoreConfig, dict(config)), _use_prebuilt=False
        )
    except SchemaError:
        return default  # it cannot stand alone
    try:
        found = validator.validate_python(default)
    except ValidationError as error:
        raise ValueError(error.errors(include_url=False, include_context=False)[0]["msg"]) from error
    return default if type(found) is type(default) and repr(found) == repr(default) else found


def _is_plainly(node: Schema, default: Any, config: Mapping[str, Any]) -> bool:
    """Whether a look is enough to see that it is one."""
    type_ = node["type"]
    if type_ == "nullable":
        return default is None or _is_plainly(node["schema"], default, config)
    if type_ in _PLAIN:
        return (
            type(default) is _PLAIN[type_]
            and node.keys() <= _BARE
            and (type_ != "str" or not any(key.startswith("str_") for key in config))
        )
    if type_ in _EMPTY:
        return type(default) is _EMPTY[type_] and not default and node.keys() <= _INSIDE
    if type_ == "enum":
        return isinstance(default, Enum) and isinstance(default, node["cls"])
    if type_ == "any":
        return default is None or type(default) in (bool, float)
    return type_ == "literal" and any(one is default for one in node["expected"])


def _refers(node: Any) -> bool:
    """Whether a type is only known within the event, since it recurs."""
    if isinstance(node, dict):
        if node.get("type") == "definition-ref":
            return True
        return any(_refers(child) for key, child in node.items() if key not in _VALUES)
    return isinstance(node, list | tuple) and any(map(_refers, node))
