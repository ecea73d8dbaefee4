"""Dead letters: a message that nobody can handle, kept whole, with why and where from."""

from __future__ import annotations

from commons_events.message import Message
from commons_events.transport import Delivery

__all__ = [
    "ATTEMPTS",
    "ERROR_MESSAGE",
    "ERROR_TYPE",
    "OFFSET",
    "PARTITION",
    "PREFIX",
    "REASON",
    "TOPIC",
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

_MOST_TEXT = 2_000


def dead_letter(delivery: Delivery, topic: str, reason: str, error: BaseException | None) -> Message:
    """The dead letter for a delivery: its bytes, key and headers as they came, and headers that say why.

    Args:
        delivery: what could not be handled.
        topic: the dead-letter topic.
        reason: for whoever looks through the dead letters.
        error: the exception behind it, or None.
    """
    original = delivery.message
    why = [(REASON, reason), (ATTEMPTS, str(delivery.attempt)), (TOPIC, original.topic)]
    if delivery.partition is not None:
        why.append((PARTITION, str(delivery.partition)))
    if delivery.offset is not None:
        why.append((OFFSET, str(delivery.offset)))
    if error is not None:
        why.append((ERROR_TYPE, f"{type(error).__module__}.{type(error).__qualname__}"))
        why.append((ERROR_MESSAGE, _text(error)))
    kept = tuple(header for header in original.headers if not header[0].startswith(PREFIX))
    added = tuple((name, text[:_MOST_TEXT].encode(errors="replace")) for name, text in why)
    return Message(topic, original.value, original.key, kept + added)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001  # a foreign __str__ must not cost the dead letter
        return f"(its text cannot be had: {type(failure).__name__})"
