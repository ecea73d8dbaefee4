"""librdkafka's message as it is received: its place is known, which the client's own types leave open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from confluent_kafka import KafkaError
from confluent_kafka import Message as ClientMessage

__all__ = ["ERROR", "PARTITION", "RawMessage"]


class RawMessage(Protocol):
    """What is read of a `confluent_kafka.Message`; one with an ``error()`` stands for an event in its partition."""

    def error(self) -> KafkaError | None:
        """None for a message."""
        ...

    def topic(self) -> str:
        """The topic."""
        ...

    def partition(self) -> int:
        """The partition."""
        ...

    def offset(self) -> int:
        """The place in the partition."""
        ...

    def key(self) -> bytes | None:
        """The key."""
        ...

    def value(self) -> bytes | None:
        """The payload; None for a tombstone."""
        ...

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        """The headers."""
        ...

    def set_headers(self, headers: list[tuple[str, bytes | None]]) -> None:
        """Have others from now on."""
        ...

    def timestamp(self) -> tuple[int, int]:
        """What kind of time, and milliseconds since 1970."""
        ...

    def __len__(self) -> int:
        """Bytes of the value."""
        ...


# Its methods as functions, for `map`: that calls them without a step of Python's in between.
ERROR = cast("Callable[[RawMessage], KafkaError | None]", ClientMessage.error)
PARTITION = cast("Callable[[RawMessage], int]", ClientMessage.partition)
