"""Media types (RFC 6838), as content types name them."""

from __future__ import annotations

__all__ = ["is_json", "media_type"]


def media_type(content_type: str) -> str:
    """The type alone, in lower case, without parameters such as a charset."""
    return content_type.split(";", 1)[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether data of this type is a JSON value (CloudEvents JSON format, section 3.1.1)."""
    return media_type(content_type).endswith(("/json", "+json"))
