"""What keeps one schema from reading what another one wrote."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Direction", "Violation"]


class Direction(StrEnum):
    """Which schema reads, and which one has written."""

    BACKWARD = "BACKWARD"
    """The new schema reads what was written with the older one."""
    FORWARD = "FORWARD"
    """The older schema reads what is written with the new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One reason why a reader's schema cannot read what a writer's schema allows.

    Each format has a function ``violations(reader: str, writer: str) -> list[Violation]``, which is empty where all
    that was written can be read.
    """

    path: str
    """Where in the reader's schema: a JSON pointer after ``#`` for JSON Schema and Avro; for Protobuf ``#``, the names
    of the messages and the field's number, as Confluent's registry writes it."""
    rule: str
    """The rule that is broken, by the name that the format's checker has for it in Confluent's registry."""
    message: str
    """What is wrong, in a sentence: both sides' values."""
    advice: str
    """What to do about it, in a sentence."""
    older: int | None = None
    """The older schema it is about: its place in what `compatibility` was given, counted from 0, oldest first."""
    direction: Direction | None = None
    """Who reads whom; `compatibility` fills it in, as it does ``older``."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message} ({self.rule}). {self.advice}"
