"""What differs between two schemas, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

__all__ = ["Difference", "Effect", "Outcome", "walk"]


class Effect(IntEnum):
    """What a difference does to a reader."""

    NONE = 0
    """All that the writer's schema allows can still be read."""
    STRICT = 1
    """Something may not be readable that nobody is known to write: broken in strict mode alone."""
    BREAKS = 2
    """Something that the writer's schema allows cannot be read."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference; ``path`` is relative to the pair that it was found in."""

    rule: str
    effect: Effect
    path: str = ""
    message: str = ""
    advice: str = ""


@dataclass(slots=True, eq=False)
class Outcome:
    """What comparing one pair of schemas found: differences of its own, and those of pairs below it.

    Pairs below are shared, not copied: a schema that is reached by a thousand ways was compared once.
    """

    pair: tuple[int, int]
    lenient: bool
    entries: list[Difference | tuple[str, Outcome]] = field(default_factory=list)
    breaks: bool = False

    def note(self, rule: str, path: str = "") -> None:
        """Add a difference that does no harm."""
        self.entries.append(Difference(rule, Effect.NONE, path))

    def add(self, rule: str, path: str, message: str, advice: str, effect: Effect = Effect.BREAKS) -> None:
        """Add a difference that breaks the reader."""
        self.entries.append(Difference(rule, effect, path, message, advice))
        self.breaks |= self.counts(effect)

    def include(self, outcome: Outcome, path: str = "") -> None:
        """Add what a pair below found, at a path below this pair's."""
        if outcome.entries:
            self.entries.append((path, outcome))
            self.breaks |= outcome.breaks

    def counts(self, effect: Effect) -> bool:
        """Whether a difference of this effect breaks compatibility in the mode at hand."""
        return effect > (Effect.STRICT if self.lenient else Effect.NONE)


def walk(root: Outcome, *, broken: bool, limit: int) -> Iterator[tuple[str, Difference]]:
    """The differences below an outcome, in order, each with its whole path; at most ``limit``.

    Args:
        root: what comparing the two roots found.
        broken: whether to leave out what does no harm.
        limit: how many to give; a schema of a few lines may have billions of paths.
    """
    stack = [(root, iter(root.entries))]
    way = [""]
    on_the_way = {root.pair}  # a cycle's differences are given where it starts
    while stack:
        outcome, entries = stack[-1]
        for entry in entries:
            if isinstance(entry, Difference):
                if not broken or outcome.counts(entry.effect):
                    yield "".join(way) + entry.path, entry
                    limit -= 1
                    if limit <= 0:
                        return
                continue
            path, below = entry
            if (below.breaks or not broken) and below.pair not in on_the_way:
                on_the_way.add(below.pair)
                way.append(path)
                stack.append((below, iter(below.entries)))
                break
        else:
            stack.pop()
            way.pop()
            on_the_way.discard(outcome.pair)
