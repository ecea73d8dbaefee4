"""What happened in a simulated run, and what has to be true of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from commons_events.message import Message

__all__ = ["INVARIANTS", "Handled", "History", "Invariant", "Sent", "key_order", "nothing_left", "nothing_lost"]


class Sent(NamedTuple):
    """An event whose sending was confirmed. ``number`` counts up in the order of sending."""

    event_id: str
    key: bytes | None
    number: int


class Handled(NamedTuple):
    """An event whose handling had its effect."""

    event_id: str
    key: bytes | None
    worker: str
    time: float


@dataclass
class History:
    """One run, from outside: what was sent, what was handled, and what lies in the broker at the end."""

    sent: list[Sent] = field(default_factory=list)
    handled: list[Handled] = field(default_factory=list)
    dead_letters: list[Message] = field(default_factory=list)
    dead_letter_ids: set[str] = field(default_factory=set)
    unfinished: int = 0
    """Messages that the broker would deliver again, though everybody has had the time to finish."""
    most_unsettled: int = 0
    """The most messages that one worker had out at once."""
    notes: list[tuple[float, str, tuple[object, ...]]] = field(default_factory=list)
    """What happened: the time, a text for ``%``, and its values."""

    @property
    def trace(self) -> list[str]:
        """What happened, a line each, for a person."""
        return [f"{time:8.3f} s  {text % values}" for time, text, values in self.notes]


Invariant = Callable[[History], Iterable[str]]
"""Yields a sentence for each way in which a history is wrong."""


def nothing_lost(history: History) -> Iterable[str]:
    """Every confirmed event was handled, or lies in the dead letters."""
    seen = {handled.event_id for handled in history.handled} | history.dead_letter_ids
    lost = [sent for sent in history.sent if sent.event_id not in seen]
    if lost:
        yield f"lost: {_names(lost)} were sent, and neither handled nor kept in the dead letters"


def key_order(history: History) -> Iterable[str]:
    """Events of one key were first handled in the order in which they were sent."""
    numbers = {sent.event_id: sent.number for sent in history.sent}
    last: dict[bytes, int] = {}
    seen: set[str] = set()
    for handled in history.handled:
        if handled.key is None or handled.event_id in seen or handled.event_id not in numbers:
            continue
        seen.add(handled.event_id)
        number = numbers[handled.event_id]
        if number < last.get(handled.key, -1):
            yield f"order: event {number} of key {handled.key!r} was first handled after event {last[handled.key]}"
        last[handled.key] = max(number, last.get(handled.key, -1))


def nothing_left(history: History) -> Iterable[str]:
    """At the end the broker has nothing that would be delivered again."""
    if history.unfinished:
        yield f"unfinished: {history.unfinished} messages were never acknowledged, though all faults were long over"


INVARIANTS: Sequence[Invariant] = (nothing_lost, key_order, nothing_left)
"""What is checked where nothing else is said."""


def _names(events: Sequence[Sent]) -> str:
    shown = ", ".join(str(event.number) for event in events[:5])
    return f"events {shown}" + (f" and {len(events) - 5} more" if len(events) > 5 else "")
