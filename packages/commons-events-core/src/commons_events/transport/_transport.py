"""`Transport` and `Subscription`: the contract between core and a broker. Thin, batch-shaped, no policy.

Read this page, subclass both, and let ``commons_events.testing.contracts`` tell whether it holds.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

from commons_events.errors import ConfigurationError, InvalidTopicError
from commons_events.message import Message, PublishResult
from commons_events.transport._capabilities import Capabilities
from commons_events.transport._delivery import Delivery, Outcome, Settlement, Settler

__all__ = [
    "Browsable",
    "Declaring",
    "Delaying",
    "Pausable",
    "SeekTarget",
    "Seekable",
    "StoredMessage",
    "SubscribeRequest",
    "Subscription",
    "TopicInfo",
    "TopicPartition",
    "Transaction",
    "Transactional",
    "Transport",
    "TransportSettings",
    "check_seek",
    "check_topic_name",
]


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """What a transport is made from. ``url`` may hold a password and is therefore never shown."""

    url: str = field(repr=False)
    """The broker's address; its scheme is the transport's name."""
    client_id: str = "commons-events"
    """How this client names itself to the broker."""
    max_message_bytes: int | None = None
    """A limit below the broker's own, or None."""
    close_timeout: float = 30.0
    """Seconds that closing waits for the broker."""
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    """Settings in the broker's own words, passed on as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeRequest:
    """What a subscription is to receive."""

    topics: tuple[str, ...]
    group_id: str | None = None
    """The group that shares the messages. None: a group of its own that ends with the subscription."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where a group begins that has never been seen."""
    max_unsettled: int = 10_000
    """The most deliveries that are out and unsettled at once; `Subscription.receive` waits when it is reached."""
    on_revoke: Callable[[frozenset[TopicPartition]], None] | None = None
    """Called in the subscription's event loop when partitions are about to go to another member: deliveries of
    them that nobody has looked at should be released."""
    settler: Settler | None = None
    """Who carries out what is said of the deliveries, see `Delivery.settler`; None for the subscription itself. A
    subscription may leave it to whoever receives to say so."""


class Subscription(ABC):
    """A membership in a group, from which deliveries are received and to which their outcomes are handed.

    All methods are called from the event loop in which `Transport.subscribe` was called.
    """

    header_prefix: str = "ce_"
    """See `Transport.header_prefix`."""
    settles_at_once: ClassVar[bool] = False
    """Whether `settle_deliveries` never waits and costs less than each by itself: what is handled within one turn of
    the event loop is then acknowledged at the end of it, in one go."""
    holds_keys: bool = False
    """Whether it holds back what follows a nacked message under its key, where the broker promises no order: a consumer
    that is alone has one then. With the capability `ordering` it does so anyway."""

    @abstractmethod
    async def receive(self, limit: int) -> Sequence[Delivery]:
        """Wait for messages and return from 1 to ``limit`` of them, in the order in which they are to be handled.

        Lets other tasks run at least once a call. Cancelling it loses nothing: what was not returned is not out.
        Returns an empty list once the subscription is closed, and never otherwise. One call at a time.

        Raises:
            TransportError: the broker refused or failed. After a ``retriable`` one, call again.
        """

    @abstractmethod
    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        """Hand outcomes to the broker, in one go. They are on their way when this returns, without waiting.

        The awaitable returns when the broker has them, or when the transport has taken charge of telling it (a log
        commits coalesced; `flush` waits for that). A delivery that is no longer this subscription's (revoked,
        lost, closed, settled before) is passed over: it comes again elsewhere.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Return once the broker has every outcome that was handed over so far."""

    @abstractmethod
    async def close(self) -> None:
        """Flush, give back what is unsettled so that it comes again at once, and leave the group. Harmless twice.

        A `receive` that is waiting returns an empty list.
        """

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        """Settle one delivery, as its user or the consumer above asks for it; a ``delay`` of None is none.

        Override it only where one settlement can be handed over in a shorter way than by `settle`; it does the same.
        """
        return self.settle((Settlement(delivery, outcome, delay or 0.0),))

    def settle_deliveries(self, deliveries: Sequence[Delivery], outcome: Outcome) -> Awaitable[None]:
        """Settle several deliveries alike, without a delay.

        As with `settle_delivery`, an override does the same as `settle` in a shorter way.
        """
        return self.settle([Settlement(delivery, outcome) for delivery in deliveries])

    def reject_delivery(self, delivery: Delivery, reason: str, error: BaseException | None) -> Awaitable[None]:
        """A transport has no dead letters of its own; a consumer above it has."""
        raise ConfigurationError(
            f"reject({reason!r}): a bare subscription has no dead-letter topic; receive through an EventConsumer "
            "that has one, or ack() to discard the message."
        )


class Transport(ABC):
    """A connection to a broker, for publishing and subscribing.

    Made without waiting and without network; connects on first use. A transport may be used by several event
    loops and threads only where its documentation says so. Whoever made it closes it.
    """

    name: ClassVar[str]
    """The ``broker=`` value and URL scheme, and the entry point's name."""
    header_prefix: ClassVar[str] = "ce_"
    """What CloudEvents' protocol binding for this broker puts before an attribute's name in a header."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: TransportSettings) -> Self:
        """A transport for these settings.

        Raises:
            ConfigurationError: a setting is unknown or does not fit; the message names it and the right ones.
        """

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What holds on this broker."""

    def check_topic(self, topic: str) -> None:
        """Raise `InvalidTopicError` where the broker would not take ``topic`` as a name."""
        check_topic_name(topic)

    def check_target(self, topic: str) -> None:
        """Raise `InvalidTopicError` where nothing can be published to ``topic``: it may be a pattern of names."""
        self.check_topic(topic)

    def receives(self, subscribed: str, topic: str) -> bool:
        """Whether who subscribes to ``subscribed``, which may be a pattern, receives what is published to ``topic``."""
        return subscribed == topic

    def room(self) -> Awaitable[object] | None:
        """What to await before many more messages are published; None while there is room for them.

        A client that keeps a bounded number of messages says so here; whoever publishes more all the same gets a
        `TopicFullError` for them.
        """
        return None

    @abstractmethod
    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        """Hand messages over, in order, when called; the future returns one result a message, in their order.

        A result is a `Receipt` once the broker has confirmed the message (and would keep it if it could keep
        anything, see ``durability``), else the error. Messages of one key and topic are stored in the order in
        which they were handed over. Where there is no room the future waits; cancelling it gives up waiting, but
        messages that were handed over may still arrive.

        Raises:
            ClosedError: the transport is closed.
        """

    @abstractmethod
    async def subscribe(self, request: SubscribeRequest) -> Subscription:
        """Join a group and return once its place is known: what is published from then on is received.

        Raises:
            TransportError: the broker refused; ConnectionLostError where it is out of reach.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Return once every message that was handed over is confirmed or failed."""

    @abstractmethod
    async def close(self) -> None:
        """Flush and disconnect; close the subscriptions that are still open. Harmless twice."""


# --- what only some brokers can --------------------------------------------------------------------------------

SeekTarget = int | datetime | Literal["beginning", "end"]
"""An offset, the first message at or after a time, or one of the ends."""


def check_seek(target: SeekTarget, partition: int | None = None) -> None:
    """Refuse what is no place to seek; a transport calls it before anything else in `Seekable.seek`.

    Raises:
        TypeError: the target is no offset, time or word, or the partition no number.
        ValueError: it is a word other than "beginning" and "end", or a naive time.
    """
    places = 'give an offset, an aware datetime, "beginning" or "end"'
    if isinstance(target, bool) or not isinstance(target, int | datetime | str):
        raise TypeError(f"seek: {target!r} is no place to go on at; {places}.")
    if isinstance(target, str) and target not in ("beginning", "end"):
        raise ValueError(f"seek: there is no place {target!r}; {places}.")
    if isinstance(target, datetime) and target.utcoffset() is None:
        raise ValueError(f"seek: the time {target!r} is naive; {places}.")
    if partition is not None and (isinstance(partition, bool) or not isinstance(partition, int)):
        raise TypeError(f"seek: a partition is a number, not {partition!r}.")


class StoredMessage(NamedTuple):
    """A message as it lies in the broker."""

    message: Message
    partition: int
    offset: int


class TopicInfo(NamedTuple):
    """A topic and how many partitions it has."""

    topic: str
    partitions: int


@runtime_checkable
class Pausable(Protocol):
    """Of a subscription; capability ``pause``."""

    def pause(self) -> None:
        """Receive nothing until `resume`; membership and positions stay as they are."""
        ...

    def resume(self) -> None:
        """Receive again."""
        ...


@runtime_checkable
class Seekable(Protocol):
    """Of a subscription; capability ``seek``."""

    async def seek(self, target: SeekTarget, *, topic: str | None = None, partition: int | None = None) -> None:
        """Set the group's position in the partitions this member has (all, or those named).

        Deliveries that are out are forgotten: settling them does nothing. ``beginning``, and an offset or a time before
        the first stored message, mean the first stored message. Nothing is handed out until it returns; from then on
        nothing that an earlier seek would bring. One that fails or is cancelled loses nothing: it has changed nothing,
        or takes effect.

        Raises:
            TypeError, ValueError: see `check_seek`.
            UnknownTopicError: the subscription is not to this topic.
            UnknownPartitionError: no topic of the subscription has this partition.
            TransportError: the broker did not answer.
        """
        ...


@runtime_checkable
class Browsable(Protocol):
    """Of a transport; capability ``browse``."""

    async def browse(self, topic: str, *, partition: int, offset: int = 0, limit: int = 100) -> Sequence[StoredMessage]:
        """Up to ``limit`` stored messages of a partition from ``offset`` on, without any effect on a group."""
        ...


@runtime_checkable
class Declaring(Protocol):
    """Of a transport; capability ``declare``."""

    async def declare(self, topic: str, *, partitions: int | None = None) -> TopicInfo:
        """Make a topic, or find it as it was asked for; another number of partitions is a ConfigurationError."""
        ...

    async def topics(self) -> Sequence[TopicInfo]:
        """All topics, by name."""
        ...

    async def delete(self, topic: str) -> None:
        """Delete a topic with its messages and the groups' positions in it; UnknownTopicError where there is none."""
        ...


@runtime_checkable
class Delaying(Protocol):
    """Of a transport; capability ``publish_delay``."""

    def publish_delayed(self, messages: Sequence[Message], delay: float) -> asyncio.Future[Sequence[PublishResult]]:
        """As `Transport.publish`, but the messages become visible ``delay`` seconds later, in that order."""
        ...


class Transaction(Protocol):
    """What happens between the beginning and the end of a transaction is seen together, or not at all."""

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish these with the commit."""
        ...

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Settle these with the commit."""
        ...


@runtime_checkable
class Transactional(Protocol):
    """Of a transport; capability ``transactions``."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Commit when the block ends; abort, and let the exception pass, when it raises or is cancelled.

        Raises:
            TransactionError: at the end of the block, where the commit failed and nothing of it is visible.
        """
        ...


def check_topic_name(topic: str) -> None:
    """The rule that a topic name keeps on every broker: 1 to 249 printable characters without white space."""
    if not isinstance(topic, str):
        raise InvalidTopicError(f"A topic name is a str, not {type(topic).__name__}: {topic!r}.")
    if not topic:
        raise InvalidTopicError("The topic name is empty; give a name of 1 to 249 characters.")
    if len(topic) > 249:
        raise InvalidTopicError(f"The topic name {topic[:40]!r}… has {len(topic)} characters; at most 249 are allowed.")
    if not topic.isprintable() or " " in topic:
        raise InvalidTopicError(
            f"The topic name {topic!r} has white space or characters that do not print; leave them out."
        )
