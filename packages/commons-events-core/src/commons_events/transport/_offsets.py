"""Which offsets of a partition are finished, and how far the contiguous prefix of them reaches."""

from __future__ import annotations

__all__ = ["OffsetTracker"]


class OffsetTracker:
    """Finished offsets of one partition on a log, where only "all before this one" can be committed.

    Offsets may be finished in any order; ``committed`` moves up to the first unfinished one and never past it.
    """

    __slots__ = ("_beyond", "committed")

    def __init__(self, start: int = 0) -> None:
        self.committed = start
        """All offsets before this one are finished."""
        self._beyond: set[int] = set()

    def finish(self, offset: int) -> bool:
        """Mark ``offset`` finished; True where that moved ``committed``. Finishing one twice does nothing."""
        if offset != self.committed:
            if offset > self.committed:
                self._beyond.add(offset)
            return False
        committed = offset + 1
        if self._beyond:
            while committed in self._beyond:
                self._beyond.remove(committed)
                committed += 1
        self.committed = committed
        return True

    def is_finished(self, offset: int) -> bool:
        """Whether ``offset`` is finished."""
        return offset < self.committed or offset in self._beyond

    @property
    def held_back(self) -> int:
        """How many finished offsets wait for an unfinished one before them."""
        return len(self._beyond)
