"""Semantic versions (semver.org 2.0.0), as far as reading needs them."""

from __future__ import annotations

__all__ = ["same_major", "version_order"]


def same_major(one: str, other: str) -> bool:
    """Whether two versions share their major number, so that one's class may read the other's bytes."""
    return _major(one) == _major(other)


def _major(version: str) -> str:
    return version.split(".", 1)[0]


def version_order(version: str) -> tuple[object, ...]:
    """A key that sorts versions as semver.org 2.0.0 (section 11) does: a pre-release comes before its release."""
    core, _, pre = version.partition("+")[0].partition("-")
    return [_part(part) for part in core.split(".")], not pre, [_part(part) for part in pre.split(".")]


def _part(part: str) -> tuple[bool, int, str]:
    return (False, int(part), "") if part.isdecimal() else (True, 0, part)
