"""What became of the letters of a topic that can be browsed: read from the letters and the marks behind them.

A mark is an empty message in the dead-letter topic, in its letter's partition, whose headers name the letter and what
was done with it. So every process that reads the topic knows the same, also after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from commons_events.dead_letters._letter import ID, MARK, OFFSET, PARTITION, DeadLetter
from commons_events.errors import InvalidTopicError, UnknownTopicError
from commons_events.message import Message, Receipt
from commons_events.transport import Browsable, Declaring, Transport

__all__ = ["NOWHERE", "Entry", "Journal", "LetterSequence", "Mark", "Place"]

Place = tuple[int | None, int | None]
"""A message's partition and offset; None where the broker has none."""
NOWHERE: Place = (None, None)
_AT_ONCE = 500
_AHEAD = 100
"""Letters that are fetched with the one that is asked for: the next ones are asked for next."""
_PAGED = 1_000
"""Letters fetched and not asked for yet that are kept, about."""
_REMEMBERED = 10_000
"""Ids of letters that are gone, so that a copy of one is known."""


class Mark(StrEnum):
    """What was done with a letter."""

    REDRIVEN = "redriven"
    """It was published to its topic again. An ordered letter still holds its key until it is resolved or returned."""
    RETURNED = "returned"
    """Redriven, it failed again or could not be its turn: the letter stands as before."""
    RESOLVED = "resolved"
    """Redriven, it was handled: the letter is gone."""
    DISCARDED = "discarded"
    """Somebody decided that it is not needed: the letter is gone."""


class LetterSequence(NamedTuple):
    """Whose order the letters keep: those of one topic, group and key."""

    topic: str | None
    group: str | None
    key: bytes | None


@dataclass(slots=True)
class Entry:
    """A letter that stands, without its bytes."""

    id: str
    partition: int
    offset: int
    sequence: LetterSequence | None
    """None where the letter holds nobody up."""
    origin_place: tuple[int, int] | None
    redriven: bool = False
    returned_from: Place = NOWHERE
    """Where the redriven message was that was returned last. It may be, before whoever sent it has noted that."""


@dataclass
class Journal:
    """The letters of one dead-letter topic that stand, in their order; `refresh` reads what is new.

    Memory grows with the number of letters that stand, some hundred bytes each.
    """

    transport: Transport
    topic: str
    entries: dict[str, Entry] = field(default_factory=dict)
    _by_sequence: dict[LetterSequence, dict[str, Entry]] = field(default_factory=dict)
    _gone: dict[str, None] = field(default_factory=dict)
    _positions: dict[int, int] = field(default_factory=dict)
    _page: dict[tuple[int, int], Message] = field(default_factory=dict)
    """Letters that were fetched ahead, by partition and offset."""

    async def refresh(self) -> None:
        """Read on to the end of the topic; one that does not exist has no letters.

        Raises:
            TransportError: the broker failed.
        """
        partitions = await self._partitions()
        for error in await asyncio.gather(*map(self._read_on, partitions), return_exceptions=True):
            if error is not None:
                raise error

    async def _read_on(self, partition: int) -> None:
        transport = self.transport
        assert isinstance(transport, Browsable)
        while True:
            position = self._positions.get(partition, 0)
            try:
                stored = await transport.browse(self.topic, partition=partition, offset=position, limit=_AT_ONCE)
            except (UnknownTopicError, InvalidTopicError):
                return
            if not stored:
                return
            for message, _, offset in stored:
                self._read(message, partition, offset)
            self._positions[partition] = stored[-1].offset + 1

    async def _partitions(self) -> Sequence[int]:
        if isinstance(self.transport, Declaring) and self.transport.capabilities.declare:
            counts = {info.topic: info.partitions for info in await self.transport.topics()}
            return range(counts.get(self.topic, 0))
        return range(max(self._positions, default=0) + 64)

    def _read(self, message: Message, partition: int, offset: int) -> None:
        headers = dict(message.headers)
        mark = headers.get(MARK)
        if mark is not None:
            place = NOWHERE
            if PARTITION in headers and OFFSET in headers:
                place = int(headers[PARTITION]), int(headers[OFFSET])
            self._apply(headers.get(ID, b"").decode(errors="replace"), mark.decode(errors="replace"), place)
            return
        self.add(message, partition, offset)

    def add(self, message: Message, partition: int, offset: int) -> None:
        """Take note of a letter, which is at this place; once."""
        letter = DeadLetter.read(message, partition, offset)
        if letter.id in self.entries or letter.id in self._gone:
            return
        ordered = letter.ordered and letter.key is not None
        sequence = LetterSequence(letter.topic, letter.group, letter.key) if ordered else None
        self.entries[letter.id] = entry = Entry(letter.id, partition, offset, sequence, letter.origin_place)
        if sequence is not None:
            self._by_sequence.setdefault(sequence, {})[letter.id] = entry

    def _apply(self, id: str, mark: str, place: Place) -> None:
        entry = self.entries.get(id)
        if entry is None:
            return
        if mark == Mark.REDRIVEN and entry.sequence is not None:
            entry.redriven = None in place or place != entry.returned_from
        elif mark == Mark.RETURNED:
            entry.redriven = False
            entry.returned_from = place
        elif mark in (Mark.REDRIVEN, Mark.RESOLVED, Mark.DISCARDED):
            del self.entries[id]
            self._gone[id] = None
            if len(self._gone) > _REMEMBERED:
                del self._gone[next(iter(self._gone))]
            if entry.sequence is not None:
                followers = self._by_sequence[entry.sequence]
                del followers[id]
                if not followers:
                    del self._by_sequence[entry.sequence]

    def standing(self, sequence: LetterSequence) -> Sequence[Entry]:
        """The letters of a sequence that stand, the oldest first."""
        return list(self._by_sequence.get(sequence, {}).values())

    def is_gone(self, id: str) -> bool:
        """Whether the letter was resolved or discarded, as far as is remembered."""
        return id in self._gone

    async def letter(self, entry: Entry) -> DeadLetter | None:
        """The letter itself, or None where the broker does not keep it any more."""
        transport = self.transport
        assert isinstance(transport, Browsable)
        place = (entry.partition, entry.offset)
        if place not in self._page:
            stored = await transport.browse(self.topic, partition=entry.partition, offset=entry.offset, limit=_AHEAD)
            if len(self._page) > _PAGED:
                self._page.clear()
            self._page.update({(partition, offset): message for message, partition, offset in stored})
        message = self._page.pop(place, None)
        return None if message is None else DeadLetter.read(message, entry.partition, entry.offset)

    async def mark(self, marks: Sequence[tuple[Entry, Mark, Place]]) -> None:
        """Write down what was done with letters, and return once the broker has it.

        Args:
            marks: the letters, what was done with each, and the place of the message that was redriven or has come
                back, where there is one. A sender's mark may come after that of who gave the message back, and then
                says nothing new.

        Raises:
            TransportError: the broker refused or failed; what it has taken counts.
        """
        if not marks:
            return
        results = await self.transport.publish([self._message(*mark) for mark in marks])
        for (entry, mark, place), result in zip(marks, results, strict=True):
            if isinstance(result, Receipt):
                self._apply(entry.id, mark.value, place)
        for result in results:
            if not isinstance(result, Receipt):
                raise result

    def _message(self, entry: Entry, mark: Mark, place: Place) -> Message:
        headers = [(MARK, mark.value.encode()), (ID, entry.id.encode())]
        partition, offset = place
        if partition is not None and offset is not None:
            headers += [(PARTITION, b"%d" % partition), (OFFSET, b"%d" % offset)]
        key = entry.sequence.key if entry.sequence is not None else None
        return Message(self.topic, b"", key, tuple(headers), partition=entry.partition)
