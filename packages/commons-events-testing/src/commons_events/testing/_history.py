"""`History`: what was confirmed and what was handled in a run under faults, and what has to hold between them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

__all__ = ["History"]


@dataclass
class History:
    """Every confirmed send and every handled message of one run; each is a key and its number under that key.

    Senders append to ``confirmed`` once the broker has confirmed, handlers to ``handled`` once they are done; `check`
    then says whether anything was lost, or came out of order.

    Args:
        confirmed: what was sent, in the order in which it was confirmed.
        handled: what was handled, in the order in which it was finished.
    """

    confirmed: list[tuple[str, int]] = field(default_factory=list)
    handled: list[tuple[str, int]] = field(default_factory=list)

    def missing(self) -> set[tuple[str, int]]:
        """What was confirmed and not handled yet."""
        return set(self.confirmed) - set(self.handled)

    def check(self, *, duplicates: bool = True, ordered: bool = True) -> None:
        """Nothing confirmed is lost; each key is first handled in its order; nothing twice unless that is allowed.

        Args:
            duplicates: whether a message may have been handled twice, as at-least-once delivery allows.
            ordered: whether the order of keys was promised.

        Raises:
            AssertionError: one of them does not hold; the message says which, with examples.
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
