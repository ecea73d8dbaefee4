"""`Pace`: how long work has taken of late, so that what is short needs no way to another thread and back."""

from __future__ import annotations

import math

__all__ = ["Pace"]

_WEIGHT = 1 / 8
"""Of the latest. One that was held up by chance does not change the mean much, several do."""


class Pace:
    """The mean of what work of a size took, the latest above all (exponentially weighted).

    Args:
        limit: seconds up to which work is short; with infinity all is, with 0 none.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._took: dict[int, float] = {}
        """Seconds, by the logarithm of the size."""

    def is_short(self, size: int = 0) -> bool:
        """Whether work of this size will probably be done within the limit; not where nothing is known of it."""
        if self._limit in (0.0, math.inf):
            return self._limit > 0
        return self._took.get(size.bit_length(), self._limit) < self._limit

    def note(self, seconds: float, size: int = 0) -> None:
        """Tell what some has taken."""
        before = self._took.get(size.bit_length(), seconds)
        self._took[size.bit_length()] = before + (seconds - before) * _WEIGHT
