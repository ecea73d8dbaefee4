"""Histories: every confirmed send and every handled event, and what has to hold between them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

__all__ = ["History"]


@dataclass
class History:
    """What happened in one run; each message is a key and its number under that key."""

    confirmed: list[tuple[str, int]] = field(default_factory=list)
    handled: list[tuple[str, int]] = field(default_factory=list)

    def missing(self) -> set[tuple[str, int]]:
        """What was confirmed and not handled yet."""
        return set(self.confirmed) - set(self.handled)

    def check(self, *, duplicates: bool = True, ordered: bool = True) -> None:
        """Nothing confirmed is lost; each key is first handled in its order; nothing twice unless that is allowed.

        Args:
            duplicates: whether a message may have been handled twice.
            ordered: whether the order of keys was promised.

        Raises:
            AssertionError: one of them does not hold.
        """
        lost = self.missing()
        assert not lost, f"{len(lost)} confirmed messages were never handled, such as {sorted(lost)[:5]}"
        first: dict[str, list[int]] = defaultdict(list)
        seen: set[tuple[str, int]] = set()
        twice = 0
        for key, number in self.handled:
            if (key, number) in seen:
                twice += 1
                continue
            seen.add((key, number))
            first[key].append(number)
        for key, numbers in first.items():
            assert not ordered or numbers == sorted(numbers), f"key {key!r} was handled out of order"
        assert duplicates or not twice, f"{twice} messages were handled twice"
