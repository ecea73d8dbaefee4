"""What travels: a `Message` knows its topic, key, headers and bytes, and no broker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple, overload

from commons_events.errors import TransportError

__all__ = [
    "Headers",
    "Message",
    "Messages",
    "PublishResult",
    "Receipt",
    "Receipts",
    "header_bytes",
    "is_text",
]

Headers = tuple[tuple[str, bytes], ...]
"""Names and values in their order; a name may come twice, and a value is any bytes."""


class Message(NamedTuple):
    """One message on its way to a broker or back from it. Immutable; name the fields, don't count on their order.

    ``value`` is the payload; ``None`` is a tombstone, which says that ``key`` has no value any more. ``key``
    decides the partition and with it the order. ``timestamp`` is aware; the broker stamps it where it is None.
    ``partition`` asks for one partition, and is None to let the key decide.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp: datetime | None = None
    partition: int | None = None

    def header(self, name: str) -> str | None:
        """The value of the first header called ``name`` as UTF-8 text, or None where there is none.

        Raises:
            UnicodeDecodeError: the value is not UTF-8; read such a value from ``headers``.
        """
        for header_name, value in self.headers:
            if header_name == name:
                return value.decode()
        return None

    @property
    def size(self) -> int:
        """Bytes of value, key and headers together: what a limit on the size of messages counts."""
        _, value, key, headers, _, _ = self
        return len(value or b"") + len(key or b"") + header_bytes(headers)


def header_bytes(headers: Headers) -> int:
    """Bytes of names and values together."""
    return sum(map(len, chain.from_iterable(headers)))


def is_text(text: str) -> bool:
    """Whether every client can take it, such as for a header's name: it has UTF-8 bytes, and no zero byte.

    At that some clients cut it off; others end the process where it holds half of a surrogate pair.
    """
    if text.isascii():
        return "\0" not in text
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


class Messages(list[Message]):
    """Messages that were made together, and what their maker knows of all of them.

    Args:
        messages: in their order.
        most_header_bytes: no one's headers have more.
    """

    __slots__ = ("most_header_bytes",)

    def __init__(self, messages: Iterable[Message], *, most_header_bytes: int) -> None:
        super().__init__(messages)
        self.most_header_bytes = most_header_bytes


class Receipt(NamedTuple):
    """A broker's confirmation of one message; ``partition`` and ``offset`` are None where a broker has none."""

    topic: str
    partition: int | None = None
    offset: int | None = None
    id: str | None = None

    @property
    def message_id(self) -> str:
        """The broker's own id of the message; on a log, which has none, ``topic/partition/offset``."""
        return self.id or f"{self.topic}/{self.partition}/{self.offset}"


class Receipts(Sequence[Receipt]):
    """The receipts of a batch of which the broker confirmed every message. Each is made when somebody looks at it.

    Equal to any sequence of equal receipts.

    Args:
        topics: the topic, or one a message.
        partitions: the partition, or one a message.
        offsets: one a message; None where the broker gave none.
    """

    __slots__ = ("_offsets", "_partitions", "_topics")

    def __init__(
        self, topics: str | Sequence[str], partitions: int | Sequence[int], offsets: Sequence[int | None]
    ) -> None:
        self._topics = topics
        self._partitions = partitions
        self._offsets = offsets

    @classmethod
    def joined(cls, parts: Sequence[Receipts]) -> Receipts:
        """Those of several batches, one after the other."""
        if len(parts) == 1:
            return parts[0]
        topics: list[str] = []
        partitions: list[int] = []
        offsets: list[int | None] = []
        places = {(part._topics, part._partitions) for part in parts if part._is_of_one_place}
        alike = len(places) == 1 and all(part._is_of_one_place for part in parts)
        for part in parts:
            offsets += part._offsets
            if not alike:
                count = len(part)
                topics += [part._topics] * count if isinstance(part._topics, str) else part._topics
                partitions += [part._partitions] * count if isinstance(part._partitions, int) else part._partitions
        if alike:
            return cls(parts[0]._topics, parts[0]._partitions, offsets)
        return cls(topics, partitions, offsets)

    @property
    def _is_of_one_place(self) -> bool:
        return isinstance(self._topics, str) and isinstance(self._partitions, int)

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> Receipt: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Receipt]: ...

    def __getitem__(self, index: int | slice) -> Receipt | Sequence[Receipt]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        offset = self._offsets[index]
        topic = self._topics if isinstance(self._topics, str) else self._topics[index]
        return Receipt(
            topic, self._partitions if isinstance(self._partitions, int) else self._partitions[index], offset
        )

    def __iter__(self) -> Iterator[Receipt]:
        return map(self.__getitem__, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none either

    def __repr__(self) -> str:
        return repr(list(self))


PublishResult = Receipt | TransportError
