"""Dead letters: messages that nobody can handle, kept whole, with why and where from; and what becomes of them."""

from commons_events.dead_letters._journal import Entry, Journal, LetterSequence, Mark
from commons_events.dead_letters._letter import (
    ATTEMPTS,
    ERROR_MESSAGE,
    ERROR_TYPE,
    GROUP,
    ID,
    MARK,
    OFFSET,
    ORDER,
    PARTITION,
    PREFIX,
    REASON,
    REDRIVEN,
    REDRIVEN_GROUP,
    TOPIC,
    DeadLetter,
    dead_letter,
)
from commons_events.dead_letters._queue import DeadLetterQueue, DeadLetterReport, LetterFilter

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
    "TOPIC",
    "DeadLetter",
    "DeadLetterQueue",
    "DeadLetterReport",
    "Entry",
    "Journal",
    "LetterFilter",
    "LetterSequence",
    "Mark",
    "dead_letter",
]
