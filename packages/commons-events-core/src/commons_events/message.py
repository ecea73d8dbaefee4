"""What travels: a `Message` knows its topic, key, headers and bytes, and no broker."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from commons_events.errors import TransportError

__all__ = ["Headers", "Message", "PublishResult", "Receipt"]

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
        size = len(value or b"") + len(key or b"")
        for name, text in headers:
            size += len(name) + len(text)
        return size


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


PublishResult = Receipt | TransportError
