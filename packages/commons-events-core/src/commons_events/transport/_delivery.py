"""A received message, and what can be said of it to its broker."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar, cast, overload

from commons_events.binding import to_event
from commons_events.event import Event
from commons_events.message import Headers, Message

__all__ = ["DONE", "Delivery", "Outcome", "Settlement", "Settler"]


E = TypeVar("E", bound=Event)


class Outcome(StrEnum):
    """What happened to a delivery."""

    ACK = "ack"
    """Finished: it never comes again in this group."""
    NACK = "nack"
    """Failed: it comes again, after a delay, with the attempt counted."""
    RELEASE = "release"
    """Not looked at: it comes again as if it had never been delivered."""


_ACK = Outcome.ACK  # Python 3.11 takes as long to look it up in the enum as for a call


class _Done:
    """An awaitable that is done already, without a future, a coroutine or a generator a call."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return _EXHAUSTED


_EXHAUSTED = cast("Generator[Any, Any, None]", iter(()))

DONE: Awaitable[None] = _Done()
"""What a settlement returns that needs no waiting."""


class Settler(Protocol):
    """Whoever carries out what a delivery's user says: a subscription, or the consumer above it."""

    header_prefix: str
    """See `Transport.header_prefix`."""

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        """Hand ``outcome`` over when called; the awaitable returns once that is done. ``delay`` is in seconds."""
        ...

    def reject_delivery(self, delivery: Delivery, reason: str, error: BaseException | None) -> Awaitable[None]:
        """Take the message out of the way for good, without losing it."""
        ...


class Delivery:
    """One message as it was received: its bytes, where it stood, which attempt this is, and how to settle it.

    ``ack``, ``nack`` and ``reject`` hand the outcome over when called and return an awaitable. Settling twice is
    harmless: the first one wins. A delivery that is never settled comes again once its consumer is gone.

    A transport makes deliveries, or a subclass that carries its own handle, and may be asked for their settlement
    from the event loop of the subscription alone.
    """

    __slots__ = ("__weakref__", "attempt", "message", "offset", "outcome", "partition", "settler")

    def __init__(
        self,
        message: Message,
        settler: Settler,
        partition: int | None = None,
        offset: int | None = None,
        attempt: int = 1,
    ) -> None:
        self.message = message
        self.settler = settler
        self.partition = partition
        """The partition that the message came from, or None where a broker has none."""
        self.offset = offset
        """The message's place in its partition, or None where a broker has none."""
        self.attempt = attempt
        """1 for the first delivery in this group, then counted up; always 1 where the broker does not count."""
        self.outcome: Outcome | None = None
        """What was said of it first, or None while it is unsettled."""

    @property
    def topic(self) -> str:
        """The topic that the message was published to."""
        return self.message.topic

    @property
    def key(self) -> bytes | None:
        """The key that decided the partition, or None."""
        return self.message.key

    @property
    def headers(self) -> Headers:
        """The headers in their order."""
        return self.message.headers

    @property
    def timestamp(self) -> datetime | None:
        """When the message was published, aware, as the broker has it."""
        return self.message.timestamp

    @property
    def value(self) -> bytes:
        """The payload; ``b""`` for a tombstone, which ``message.value is None`` tells apart."""
        return self.message.value or b""

    data = value
    body = value

    @overload
    def event(self) -> Event: ...

    @overload
    def event(self, event_class: type[E]) -> E: ...

    def event(self, event_class: type[Event] = Event) -> Event:
        """The event that the message carries, decoded by its headers: as ``event_class``, or by its own type.

        Raises:
            DeserializationError: (a ValueError) the message is no such event; `reject` keeps it with the reason.
            UnknownEventTypeError: no class is known for its type.
        """
        return to_event(self.message, event_class, prefix=self.settler.header_prefix)

    def ack(self) -> Awaitable[None]:
        """Finished: the message never comes again in this group."""
        if self.outcome is not None:
            return DONE
        self.outcome = _ACK
        return self.settler.settle_delivery(self, _ACK, None)

    def nack(self, delay: float | None = None) -> Awaitable[None]:
        """Failed: the message comes again.

        Args:
            delay: seconds until then, at least; None lets the consumer back off by the attempt.
        """
        if self.outcome is not None:
            return DONE
        if delay is not None and not 0 <= delay < float("inf"):
            raise ValueError(f"nack: delay has to be a number of seconds from 0 on, not {delay!r}.")
        self.outcome = Outcome.NACK
        return self.settler.settle_delivery(self, Outcome.NACK, delay)

    def reject(self, reason: str, error: BaseException | None = None) -> Awaitable[None]:
        """Never to be handled: the message goes to the dead letters with ``reason``, and only then is finished.

        Args:
            reason: one word or sentence for whoever looks through the dead letters.
            error: the exception behind it; its type and text go along. By default the one being handled.

        Raises:
            ConfigurationError: no dead-letter topic is configured. ``ack()`` discards knowingly.
        """
        if self.outcome is not None:
            return DONE
        return self.settler.reject_delivery(self, reason, error)

    def __repr__(self) -> str:
        state = self.outcome or "unsettled"
        place = f"{self.topic}/{self.partition}/{self.offset}"
        return f"<{type(self).__name__} {place} attempt {self.attempt}, {len(self.value)} bytes, {state}>"


class Settlement(NamedTuple):
    """One outcome in a list of them. ``delay`` is in seconds and counts for a nack alone."""

    delivery: Delivery
    outcome: Outcome
    delay: float = 0.0
