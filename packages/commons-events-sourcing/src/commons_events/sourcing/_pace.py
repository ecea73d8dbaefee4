"""`Pace`: how long appends have taken of late, so that short ones need no way to another thread and back."""

from __future__ import annotations

import math

from commons_events.sourcing._types import PreparedAppend

__all__ = ["Pace"]

_EVENT = 256
"""Bytes that count for an event beside its data: its row and its places in the indexes."""
_WEIGHT = 1 / 8
"""Of the latest append. One that was held up by chance does not change the mean much, several do."""


class Pace:
    """The mean of what appends of a size took, the latest above all (exponentially weighted).

    Args:
        limit: seconds up to which an append is short; with infinity all are, with 0 none.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._took: dict[int, float] = {}
        """Seconds, by the logarithm of the size."""

    def is_short(self, append: PreparedAppend) -> bool:
        """Whether it will probably be done within the limit; not where nothing is known of its size."""
        if self._limit in (0.0, math.inf):
            return self._limit > 0
        return self._took.get(_size(append), self._limit) < self._limit

    def note(self, append: PreparedAppend, seconds: float) -> None:
        """Tell what one has taken."""
        size = _size(append)
        before = self._took.get(size, seconds)
        self._took[size] = before + (seconds - before) * _WEIGHT


def _size(append: PreparedAppend) -> int:
    return sum([_EVENT + len(event.data) for event in append.events]).bit_length()
