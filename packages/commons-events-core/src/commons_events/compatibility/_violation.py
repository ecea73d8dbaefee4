"""What keeps one schema from reading what another one wrote."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Violation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One reason why a reader's schema cannot read what a writer's schema allows.

    Each format has a function ``violations(reader: str, writer: str) -> list[Violation]``, which is empty where all
    that was written can be read.
    """

    path: str
    """Where in the schema: a JSON pointer after ``#`` for JSON Schema and Avro, a field's path for Protobuf."""
    rule: str
    """The rule that is broken, by the name that the format's checker has for it in Confluent's registry."""
    message: str
    """What is wrong, in a sentence: both sides' values."""
    advice: str
    """What to do about it, in a sentence."""

    def __str__(self) -> str:
        return f"{self.path}: {self.message} ({self.rule}). {self.advice}"
