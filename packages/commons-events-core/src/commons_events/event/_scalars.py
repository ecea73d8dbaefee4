"""Which event classes need less work, by what runs while their events are made."""

from __future__ import annotations

from typing import Any, cast

from pydantic_core import core_schema

from commons_events.event._values import aware

__all__ = ["aware_times", "begins_with_envelope", "is_plain", "is_repeatable"]


def is_plain(schema: core_schema.CoreSchema) -> bool:
    """Whether nothing of the class's own sees a whole event while it is validated, when it is not one yet.

    Args:
        schema: as `exact_schema` returns it.
    """
    event = cast(dict[str, Any], schema)
    if event["type"] != "function-after" or event["schema"]["type"] != "model":
        return False  # a validator of the whole event may do anything
    model = event["schema"]
    return "post_init" not in model and model["schema"]["type"] == "model-fields"


def is_repeatable(schema: core_schema.CoreSchema, trusted_factories: frozenset[object]) -> bool:
    """Whether it makes no difference that an event is validated twice: no function of the class's own runs in it.

    Args:
        schema: as `exact_schema` returns it.
        trusted_factories: default factories that may be called for nothing.
    """
    event = cast(dict[str, Any], schema)
    return is_plain(schema) and _is_repeatable(event["schema"], trusted_factories)


def _is_repeatable(node: Any, trusted: frozenset[object]) -> bool:
    if isinstance(node, list | tuple):
        return all(_is_repeatable(item, trusted) for item in node)
    if not isinstance(node, dict):
        return True
    function = node.get("function")
    if isinstance(function, dict) and getattr(function.get("function"), "__module__", "") != aware.__module__:
        return False
    if node.get("default_factory", dict) not in trusted:
        return False
    return all(_is_repeatable(item, trusted) for key, item in node.items() if key not in _NOT_VALIDATION)


_NOT_VALIDATION = frozenset({"config", "metadata", "serialization", "function", "default"})


def begins_with_envelope(schema: core_schema.CoreSchema) -> bool:
    """Whether JSON of the class begins with the envelope's members by their own names, in `Event`'s order.

    Args:
        schema: as `exact_schema` returns it.
    """
    if not is_plain(schema):
        return False
    event = cast(dict[str, Any], schema)
    fields = event["schema"]["schema"]["fields"]
    return (
        "serialization" not in event["schema"]
        and tuple(fields)[: len(_FIRST)] == _FIRST
        and not any("serialization_alias" in fields[name] for name in _FIRST)
        and all(_is_text(fields[name]["schema"]) for name in ("event_id", "source"))
    )


def _is_text(node: dict[str, Any]) -> bool:
    while node["type"] in ("default", "nullable") and "serialization" not in node:
        node = node["schema"]
    return node["type"] == "str" and "serialization" not in node


_FIRST = ("event_type", "version", "event_id", "source", "timestamp")


def aware_times(schema: core_schema.CoreSchema) -> core_schema.CoreSchema:
    """A copy for reading JSON whose times have to be aware, as nearly all are.

    Pydantic sees to that by itself, which costs less than to call `aware` for each.
    """
    return cast(core_schema.CoreSchema, _aware_times(schema))


def _aware_times(node: Any) -> Any:
    if isinstance(node, list):
        return [_aware_times(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "function-after" and node["function"]["function"] is aware:
        inner = node["schema"]
        return node if "tz_constraint" in inner else {**inner, "tz_constraint": "aware"}
    return {key: value if key in ("config", "metadata") else _aware_times(value) for key, value in node.items()}
