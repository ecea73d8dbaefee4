"""Parking: the followers of a failed key wait behind it in the dead-letter topic, until it is redriven or discarded."""

from __future__ import annotations

import asyncio

from commons_events.dead_letters import REDRIVEN, Entry, Journal, LetterSequence, Mark
from commons_events.runtime import Runtime
from commons_events.transport import Delivery, TopicPartition

__all__ = ["Parking"]


class Parking:
    """What one subscription knows of the keys that stand still.

    It reads the dead-letter topic before the first message of each partition that it gets, so that it knows what the
    partition's last owner has parked; and again now and then while a follower comes.

    Args:
        journal: of the dead-letter topic.
        origin: the topic that the letters were published to first.
        group: the group whose keys they are.
        check_every: seconds between looks while followers come.
        runtime: its clock.
    """

    def __init__(self, journal: Journal, origin: str, group: str, check_every: float, runtime: Runtime) -> None:
        self.journal = journal
        self._origin = origin
        self._group = group
        self._check_every = check_every
        self._runtime = runtime
        self._known: set[TopicPartition] = set()
        self._revocations = 0
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()
        self._looks = 0
        """Looks that have begun."""
        self._latest = 0
        """The number of the last one that ended well."""

    def forget(self, revoked: frozenset[TopicPartition]) -> None:
        """Partitions go to another member: what happens to them there has to be read when they come back."""
        self._known -= revoked
        self._revocations += 1

    def _sequence(self, delivery: Delivery) -> LetterSequence:
        return LetterSequence(self._origin, self._group, delivery.key)

    async def ahead(self, delivery: Delivery) -> list[Entry]:
        """The letters that this message stands behind, the oldest first; empty where it may be handled.

        Raises:
            TransportError: the dead-letter topic could not be read.
        """
        if delivery.key is None:
            return []
        place = TopicPartition(delivery.topic, delivery.partition or 0)
        if place not in self._known:
            revocations = self._revocations
            await self._look()
            if revocations == self._revocations:  # else it may be another member's by now, and is read again
                self._known.add(place)
        standing = self.journal.standing(self._sequence(delivery))
        if standing and self._runtime.monotonic() - self._looked_at >= self._check_every:
            await self._look()
            standing = self.journal.standing(self._sequence(delivery))
        return list(standing)

    async def look_again(self, delivery: Delivery) -> list[Entry]:
        """As `ahead`, after reading what is new."""
        await self._look()
        return list(self.journal.standing(self._sequence(delivery)))

    async def _look(self) -> None:
        before = self._looks
        async with self._looking:
            if self._latest > before:
                return  # while this one waited another one began, and has seen all that there was to see
            self._looks += 1
            number = self._looks
            await self.journal.refresh()
            self._latest = number
            self._looked_at = self._runtime.monotonic()

    async def mark(self, entry: Entry, mark: Mark, delivery: Delivery) -> None:
        """Write down what became of a letter whose redriven message this is, and return once the broker has it.

        Raises:
            TransportError: the broker refused or failed.
        """
        async with self._looking:
            await self.journal.mark([(entry, mark, (delivery.partition, delivery.offset))])


def redriven_id(headers: dict[str, bytes]) -> str | None:
    """The letter that a message was redriven from."""
    value = headers.get(REDRIVEN)
    return None if value is None else value.decode(errors="replace")
