"""A dead letter: a message that nobody can handle, kept whole, with why and where from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from commons_events.message import Headers, Message
from commons_events.runtime import current_runtime
from commons_events.transport import Delivery

__all__ = [
    "ATTEMPTS",
    "ERROR_MESSAGE",
    "ERROR_TYPE",
    "GROUP",
    "ID",
    "MARK",
    "OFFSET",
    "ORDER",
    "PARTITION",
    "PREFIX",
    "REASON",
    "REDRIVEN",
    "REDRIVEN_GROUP",
    "RETRY_PREFIX",
    "TOPIC",
    "DeadLetter",
    "dead_letter",
]

PREFIX = "deadletter-"
REASON = f"{PREFIX}reason"
ERROR_TYPE = f"{PREFIX}error-type"
ERROR_MESSAGE = f"{PREFIX}error-message"
ATTEMPTS = f"{PREFIX}attempts"
TOPIC = f"{PREFIX}topic"
PARTITION = f"{PREFIX}partition"
OFFSET = f"{PREFIX}offset"
ID = f"{PREFIX}id"
GROUP = f"{PREFIX}group"
ORDER = f"{PREFIX}order"
"""``key`` where the followers of the letter's key wait behind it."""
MARK = f"{PREFIX}mark"
"""In a message of the dead-letter topic that is no letter, but says what became of one."""
REDRIVEN = f"{PREFIX}redriven"
"""In a message that was redriven: the id of its letter."""
REDRIVEN_GROUP = f"{PREFIX}redriven-group"
"""In a message that was redriven: the group that it is for."""

RETRY_PREFIX = "commons-events-retry-"
"""Begins the headers of messages in retry topics; they mean nothing in a dead letter."""
_MOST_TEXT = 2_000


def dead_letter(
    delivery: Delivery,
    topic: str,
    reason: str,
    error: BaseException | None,
    *,
    attempts: int | None = None,
    origin: str | None = None,
    group: str | None = None,
    ordered: bool = False,
) -> Message:
    """The dead letter for a delivery: its bytes, key and headers as they came, and headers that say why.

    Args:
        delivery: what could not be handled.
        topic: the dead-letter topic.
        reason: for whoever looks through the dead letters.
        error: the exception behind it, or None.
        attempts: how often it was tried; by default the deliveries that the broker counted.
        origin: the topic that it was first published to, where that is not the delivery's own.
        group: the group that could not handle it.
        ordered: whether later messages of its key wait behind it.
    """
    original = delivery.message
    why = [
        (ID, current_runtime().new_id()),
        (REASON, reason),
        (ATTEMPTS, str(attempts or delivery.attempt)),
        (TOPIC, origin or original.topic),
    ]
    if group is not None:
        why.append((GROUP, group))
    if ordered:
        why.append((ORDER, "key"))
    if delivery.partition is not None:
        why.append((PARTITION, str(delivery.partition)))
    if delivery.offset is not None:
        why.append((OFFSET, str(delivery.offset)))
    if error is not None:
        why.append((ERROR_TYPE, f"{type(error).__module__}.{type(error).__qualname__}"))
        why.append((ERROR_MESSAGE, _text(error)))
    added = tuple((name, text[:_MOST_TEXT].encode(errors="replace")) for name, text in why)
    return Message(topic, original.value, original.key, _without_marks(original.headers) + added)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it is read back."""

    message: Message
    """As it lies in the dead-letter topic."""
    id: str
    """The id that it was given, else its place in the topic."""
    partition: int | None
    """Its place in the dead-letter topic, where the broker has one."""
    offset: int | None
    reason: str
    error_type: str | None
    error_message: str | None
    attempts: int | None
    topic: str | None
    """Where it was first published; None where the message is no dead letter of ours."""
    group: str | None
    ordered: bool
    origin_place: tuple[int, int] | None
    """Partition and offset that the original had, where its broker has such."""

    @classmethod
    def read(cls, message: Message, partition: int | None = None, offset: int | None = None) -> DeadLetter:
        """The letter in a message; whatever its headers lack is None."""
        headers = {name: value.decode(errors="replace") for name, value in reversed(message.headers)}
        place = _number(headers.get(PARTITION)), _number(headers.get(OFFSET))
        return cls(
            message=message,
            id=headers.get(ID) or f"{message.topic}/{partition}/{offset}",
            partition=partition,
            offset=offset,
            reason=headers.get(REASON, ""),
            error_type=headers.get(ERROR_TYPE),
            error_message=headers.get(ERROR_MESSAGE),
            attempts=_number(headers.get(ATTEMPTS)),
            topic=headers.get(TOPIC),
            group=headers.get(GROUP),
            ordered=headers.get(ORDER) == "key",
            origin_place=None if place[0] is None or place[1] is None else (place[0], place[1]),
        )

    @property
    def key(self) -> bytes | None:
        """The original's key."""
        return self.message.key

    @property
    def died_at(self) -> datetime | None:
        """When it was published to the dead-letter topic."""
        return self.message.timestamp

    def original(self) -> Message:
        """The message to publish again: the original's topic, key, bytes and headers, and which letter it was.

        Raises:
            ValueError: the letter does not say where it came from.
        """
        if self.topic is None:
            raise ValueError(f"The letter {self.id} has no {TOPIC} header, so nobody knows where it came from.")
        marks: list[tuple[str, bytes]] = [(REDRIVEN, self.id.encode())]
        if self.group is not None:
            marks.append((REDRIVEN_GROUP, self.group.encode()))
        return Message(self.topic, self.message.value, self.key, (*_without_marks(self.message.headers), *marks))


def _without_marks(headers: Headers) -> Headers:
    return tuple(header for header in headers if not header[0].startswith((PREFIX, RETRY_PREFIX)))


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001  # a foreign __str__ must not cost the dead letter
        return f"(its text cannot be had: {type(failure).__name__})"
