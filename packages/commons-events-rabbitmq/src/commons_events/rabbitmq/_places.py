"""Where a group stands in a stream, as the group's queue has it; see `RabbitMQStreamSubscription`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import NamedTuple

__all__ = ["Place", "position_queue"]


def position_queue(topic: str, group: str) -> str:
    """The queue that holds a group's place in a stream."""
    return f"{topic}.{group}.position"


class Place(NamedTuple):
    """Where a group stands."""

    term: int
    """0 as long as nobody has read."""
    offset: int | str | datetime
    """The first one that is not finished; or "first", or a time, where that is not known yet."""

    @property
    def order(self) -> tuple[int, int]:
        """The greatest counts."""
        return self.term, self.offset if isinstance(self.offset, int) else -1

    def encode(self) -> bytes:
        """As the queue has it."""
        offset = self.offset.isoformat() if isinstance(self.offset, datetime) else self.offset
        return json.dumps({"term": self.term, "offset": offset}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Place | None:
        """From the queue; None for what is none."""
        try:
            read = json.loads(data)
            term, offset = read["term"], read["offset"]
            if offset != "first" and type(offset) is not int:
                offset = datetime.fromisoformat(offset)
        except (ValueError, KeyError, TypeError):
            return None
        return cls(term, offset) if type(term) is int else None
