"""`MemoryTransport`: the contract's words for the in-process broker."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import datetime
from typing import ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

from commons_events.errors import (
    ClosedError,
    ConfigurationError,
    PublishTimeoutError,
    TransactionError,
    UnknownPartitionError,
    UnknownTopicError,
)
from commons_events.memory._broker import MemoryBroker, MemoryLimits
from commons_events.memory._group import Group, Member, PartitionState
from commons_events.memory._loops import Signal, call_in_loop, complete, in_running_loop
from commons_events.message import Message, PublishResult
from commons_events.transport import (
    CONTRACT_VERSION,
    DONE,
    Capabilities,
    Delivery,
    Outcome,
    SeekTarget,
    Settlement,
    StoredMessage,
    SubscribeRequest,
    Subscription,
    TopicInfo,
    Transport,
    TransportSettings,
    check_seek,
)

__all__ = ["MemorySubscription", "MemoryTransport"]


class MemoryTransport(Transport):
    """A client of an in-process broker. May be used from several event loops and threads."""

    name: ClassVar[str] = "memory"

    def __init__(self, broker: MemoryBroker | None = None, *, close_timeout: float = 30.0) -> None:
        """Use ``broker``, or the process's default one; see `TransportSettings` for the ``close_timeout``."""
        self.broker = broker or MemoryBroker.get()
        self._close_timeout = close_timeout
        self._closed = False
        self._pending: set[asyncio.Future[Sequence[PublishResult]]] = set()
        self._subscriptions: weakref.WeakSet[MemorySubscription] = weakref.WeakSet()

    @classmethod
    def from_settings(cls, settings: TransportSettings) -> Self:
        """A client of the broker that the URL names; its query and the options may state the broker's limits."""
        parts = urlsplit(settings.url)
        if parts.path.strip("/") or parts.username or parts.password:
            raise ConfigurationError("An in-process broker's URL is memory://NAME?OPTION=VALUE, without path or user.")
        name = parts.netloc or "default"
        stated = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **settings.options}
        return cls(MemoryBroker.get(name, _limits(stated) if stated else None), close_timeout=settings.close_timeout)

    @property
    def capabilities(self) -> Capabilities:
        """All that any broker can, but for outliving the process."""
        return Capabilities(
            contract=CONTRACT_VERSION,
            ordering="key",
            durability="process",
            consumer_groups=True,
            new_group_start="earliest",
            redelivery=True,
            redelivery_delay=True,
            attempts=True,
            settles_each=True,
            publish_delay=True,
            pause=True,
            seek=True,
            browse=True,
            declare=True,
            transactions=True,
            binary_headers=True,
            repeated_headers=True,
            binary_keys=True,
            tombstones=True,
            back_pressure=True,
            max_message_bytes=self.broker.limits.max_message_bytes,
        )

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        """See `Transport.publish`; a full topic lets the future wait."""
        return self._publish(messages, 0.0)

    def publish_delayed(self, messages: Sequence[Message], delay: float) -> asyncio.Future[Sequence[PublishResult]]:
        """See `Delaying`; ``delay`` is in seconds."""
        if not 0 <= delay < float("inf"):
            raise ValueError(f"publish_delayed: delay has to be a number of seconds from 0 on, not {delay!r}.")
        return self._publish(messages, delay)

    def _publish(self, messages: Sequence[Message], delay: float) -> asyncio.Future[Sequence[PublishResult]]:
        self._check_open()
        future: asyncio.Future[Sequence[PublishResult]] = asyncio.get_running_loop().create_future()
        self.broker.publish(messages, future, delay=delay)
        if not future.done():
            self._pending.add(future)
            future.add_done_callback(self._pending.discard)
        return future

    async def subscribe(self, request: SubscribeRequest) -> MemorySubscription:
        """See `Transport.subscribe`."""
        self._check_open()
        if not request.topics:
            raise ConfigurationError("A subscription needs at least one topic.")
        for topic in request.topics:
            self.check_topic(topic)
        subscription = MemorySubscription(self.broker, request)
        self._subscriptions.add(subscription)
        return subscription

    async def browse(self, topic: str, *, partition: int, offset: int = 0, limit: int = 100) -> Sequence[StoredMessage]:
        """See `Browsable`."""
        return self.broker.browse(topic, partition, offset, limit)

    async def declare(self, topic: str, *, partitions: int | None = None) -> TopicInfo:
        """See `Declaring`."""
        return self.broker.declare(topic, partitions)

    async def topics(self) -> Sequence[TopicInfo]:
        """See `Declaring`."""
        return self.broker.topics()

    async def delete(self, topic: str) -> None:
        """See `Declaring`."""
        self.broker.delete(topic)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[MemoryTransaction]:
        """See `Transactional`."""
        self._check_open()
        transaction = MemoryTransaction()
        try:
            yield transaction
            transaction.commit(self.broker)
        finally:
            transaction.ended = True

    async def flush(self) -> None:
        """See `Transport.flush`."""
        waits = [(future, in_running_loop(future)) for future in list(self._pending)]
        while pending := [done for future, done in waits if not _is_over(future)]:
            await asyncio.wait(pending, timeout=_LOOK_AGAIN)

    async def close(self) -> None:
        """See `Transport.close`; what finds no room within the ``close_timeout`` fails with a PublishTimeoutError."""
        if self._closed:
            return
        self._closed = True
        try:
            async with self.broker.runtime.timeout(self._close_timeout):
                await self.flush()
        except TimeoutError:
            error = PublishTimeoutError(
                f"The connection was closed before the topic had room, within {self._close_timeout:g} s "
                "(close_timeout); what of these messages has no place is given up."
            )
            for future in list(self._pending):
                complete(future, error)
        for subscription in list(self._subscriptions):
            await subscription.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("This connection to the in-process broker is closed; make a new one.")


_LOOK_AGAIN = 0.1
"""Seconds until it is looked whether another event loop was closed, so that nobody waits any more for its futures."""


def _is_over(future: asyncio.Future[Sequence[PublishResult]]) -> bool:
    return future.done() or future.get_loop().is_closed()


class MemorySubscription(Subscription):
    """A member of a group on the in-process broker. One that is dropped without `close` gives its messages back."""

    settles_at_once = True

    def __init__(self, broker: MemoryBroker, request: SubscribeRequest) -> None:
        loop = asyncio.get_running_loop()
        self._broker = broker
        self._settler = request.settler or self
        self.member = Member(
            topics=frozenset(request.topics),
            loop=loop,
            signal=Signal(loop),
            max_unsettled=request.max_unsettled,
            on_revoke=request.on_revoke,
        )
        self.group = broker.join(request.group_id, request.topics, request.start, self.member)
        self._dropped = weakref.finalize(self, _leave_soon, broker, self.group, self.member)
        self._dropped.atexit = False

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See `Subscription.receive`."""
        runtime = self._broker.runtime
        await runtime.sleep(0)
        while True:
            batch, wake, seconds = self._broker.take(self.group, self.member, limit, self._settler)
            if wake is None:
                return batch
            if seconds is None:
                await wake
            else:
                timer = runtime.call_later(seconds, self.member.signal.set)
                try:
                    await wake
                finally:
                    timer.cancel()

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        """See `Subscription.settle`; done when it returns."""
        self._broker.settle(settlements)
        return DONE

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        """`settle` of one, without a list around it."""
        broker = self._broker
        with broker.lock:
            broker.settle_locked(delivery, outcome, delay or 0.0)
        return DONE

    def settle_deliveries(self, deliveries: Sequence[Delivery], outcome: Outcome) -> Awaitable[None]:
        """`settle` of several alike, without a settlement around each."""
        self._broker.settle_deliveries(deliveries, outcome)
        return DONE

    async def flush(self) -> None:
        """Nothing to wait for: a settlement is done when `settle` returns."""

    async def close(self) -> None:
        """See `Subscription.close`."""
        if self._dropped.detach() is not None:
            self._broker.leave(self.group, self.member)

    def pause(self) -> None:
        """See `Pausable`."""
        self.member.paused = True

    def resume(self) -> None:
        """See `Pausable`."""
        self.member.paused = False
        self.member.signal.set()

    async def seek(self, target: SeekTarget, *, topic: str | None = None, partition: int | None = None) -> None:
        """See `Seekable`."""
        check_seek(target, partition)
        if topic is not None and topic not in self.member.topics:
            raise UnknownTopicError(f"seek: this subscription has no topic {topic!r}.")
        topics = self.member.topics if topic is None else {topic}
        counts = [info.partitions for info in self._broker.topics() if info.topic in topics]
        if partition is not None and not 0 <= partition < max(counts, default=0):
            raise UnknownPartitionError(f"seek: no topic of this subscription has a partition {partition}.")
        states = [
            state
            for state in self.member.owned
            if topic in (None, state.partition.id.topic) and partition in (None, state.partition.id.partition)
        ]
        self._broker.seek(self.member, {state: _offset(state, target) for state in states})


def _leave_soon(broker: MemoryBroker, group: Group, member: Member) -> None:
    """Not now: memory is cleaned up at any moment, also while this very thread holds the broker's lock."""
    call_in_loop(member.loop, lambda: broker.leave(group, member))


class MemoryTransaction:
    """What a transaction has gathered so far; nothing is visible before its commit."""

    def __init__(self) -> None:
        self.ended = False
        self._messages: list[Message] = []
        self._settlements: list[Settlement] = []

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transaction`."""
        self._check_open()
        self._messages.extend(messages)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Transaction`."""
        self._check_open()
        self._settlements.extend(settlements)

    def commit(self, broker: MemoryBroker) -> None:
        """Make all of it visible at once."""
        broker.commit(self._messages, self._settlements)

    def _check_open(self) -> None:
        if self.ended:
            raise TransactionError("This transaction has ended; begin a new one.")


def _offset(state: PartitionState, target: SeekTarget) -> int:
    if isinstance(target, datetime):
        return state.partition.offset_at(target)
    if target == "beginning":
        return state.partition.base
    if target == "end":
        return state.partition.end
    return target


def _limits(stated: dict[str, object]) -> MemoryLimits:
    known: dict[str, type[int] | type[float]] = {
        field.name: float if isinstance(field.default, float) else int for field in fields(MemoryLimits)
    }
    values: dict[str, int | float] = {}
    for name, value in stated.items():
        if name not in known:
            raise ConfigurationError(f"memory broker: unknown option {name!r}; there are: {', '.join(known)}.")
        try:
            values[name] = known[name](str(value))
        except ValueError as error:
            raise ConfigurationError(f"memory broker: {name}={value!r} is not a number.") from error
    return MemoryLimits(**values)  # type: ignore[arg-type]  # each value was made by its own field's type
