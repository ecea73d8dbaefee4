"""`RedeliverySchedule`: what comes again, and when, with each key in its order."""

from __future__ import annotations

from heapq import heappop, heappush

__all__ = ["RedeliverySchedule"]


class RedeliverySchedule:
    """What comes again of one partition or queue: each at its time, and those of one key in the order of their places.

    For transports whose broker does not hold a message back. A place is a number that grows in the order of the log,
    such as an offset. While something of a key is to come again, what follows under it waits behind: `park` it.
    """

    __slots__ = ("_due", "_heap", "held")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, bytes | None]] = []
        """By time; a place may be in it several times, of which one counts."""
        self._due: dict[int, float] = {}
        """When each with a key that was put back is due; one that was parked is as soon as it is the first."""
        self.held: dict[bytes, list[int]] = {}
        """For each key with something to come again: a heap of its places."""

    def __bool__(self) -> bool:
        return bool(self._heap)

    @property
    def next_due(self) -> float | None:
        """When something may come again at the earliest, or None where nothing does."""
        return self._heap[0][0] if self._heap else None

    def put_back(self, place: int, key: bytes | None, due: float) -> None:
        """Let ``place`` come again at ``due``, before anything of its key that lies behind it."""
        if key is not None:
            heappush(self.held.setdefault(key, []), place)
            self._due[place] = due
        heappush(self._heap, (due, place, key))

    def park(self, place: int, key: bytes) -> None:
        """Let ``place``, which was never delivered, wait behind what comes again of its key, which is in ``held``."""
        heappush(self.held[key], place)

    def pop_due(self, now: float) -> int | None:
        """The next place that comes again by ``now``, or None."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, place, key = heappop(heap)
            if key is None:
                return place
            queue = self.held.get(key)
            if queue is None or queue[0] != place or self._due.get(place, 0.0) > now:
                continue  # an earlier one of its key goes first, or it has an entry for a later time
            heappop(queue)
            self._due.pop(place, None)
            if queue:
                heappush(heap, (self._due.get(queue[0], 0.0), queue[0], key))
            else:
                del self.held[key]
            return place
        return None
