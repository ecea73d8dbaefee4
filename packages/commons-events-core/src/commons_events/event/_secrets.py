"""Secrets (pydantic's ``SecretStr``, ``SecretBytes``, ``Secret[…]``): in the bytes, and masked in all else."""

from __future__ import annotations

import base64
from typing import Any, Final

from pydantic import Secret, SecretBytes, SecretStr, TypeAdapter
from pydantic_core import core_schema

__all__ = ["IN_BYTES", "holds_secret", "is_secret", "unmasked"]

IN_BYTES: Final = object()
"""The context of a serializer that writes an event's bytes. What prints an event, ``model_dump_json``, has another."""


def is_secret(node: dict[str, Any]) -> bool:
    """Whether pydantic writes this type masked, so that it could not be read again."""
    serialization = node.get("serialization")
    return serialization is not None and serialization.get("function") in _MASKS


def holds_secret(node: Any) -> bool:
    """Whether there is such a type anywhere in this one."""
    if isinstance(node, dict):
        return is_secret(node) or any(holds_secret(child) for key, child in node.items() if key not in _NO_SCHEMA)
    return isinstance(node, list | tuple) and any(map(holds_secret, node))


_NO_SCHEMA = frozenset({"metadata", "config", "default", "serialization", "cls", "members", "expected"})


def unmasked() -> core_schema.SerSchema:
    """How such a type is written: itself where bytes are made, masked elsewhere."""
    return core_schema.plain_serializer_function_ser_schema(_write, info_arg=True, when_used="json-unless-none")


def _write(secret: Secret[Any] | SecretStr | SecretBytes, info: core_schema.SerializationInfo) -> Any:
    if info.context is not IN_BYTES:
        return str(secret)
    value = secret.get_secret_value()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _masks(node: Any) -> set[Any]:
    """The functions by which a type of secrets is masked."""
    found = set()
    if isinstance(node, dict):
        if isinstance(node.get("serialization"), dict):
            found.add(node["serialization"]["function"])
        for child in node.values():
            found |= _masks(child)
    return found


_MASKS = frozenset().union(*(_masks(TypeAdapter(type_).core_schema) for type_ in (SecretStr, SecretBytes, Secret[str])))
