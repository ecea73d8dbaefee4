"""`EventConsumer`: messages from any broker, at least once. All that is not the broker's own is decided here, once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from sys import exception
from types import TracebackType
from typing import Any, ClassVar, Literal, Self
from weakref import WeakMethod

from pydantic import Field, field_validator, model_validator

from commons_events.config import ClientConfig, open_transport
from commons_events.dead_letters import dead_letter
from commons_events.errors import (
    CapabilityError,
    ClosedError,
    ConfigurationError,
    TransportError,
    WrongEventLoopError,
)
from commons_events.log import logger
from commons_events.message import Receipt
from commons_events.runtime import current_runtime
from commons_events.telemetry import Telemetry
from commons_events.transport import (
    DONE,
    Batch,
    Delivery,
    Outcome,
    Pausable,
    Seekable,
    SeekTarget,
    Settlement,
    SubscribeRequest,
    Subscription,
    TopicPartition,
    Transport,
)

__all__ = ["ConsumerConfig", "EventConsumer"]

_running_loop = asyncio._get_running_loop
_ACK, _NACK = Outcome.ACK, Outcome.NACK  # see `Delivery.ack`
_TOPIC = attrgetter("topic")
_MOST_UNSIFTED = 64


class ConsumerConfig(ClientConfig):
    """Settings of an `EventConsumer`; see `ClientConfig` for where they come from."""

    role: ClassVar[str] = "consumer"

    topics: tuple[str, ...] = Field(min_length=1)
    """What to receive."""
    group_id: str | None = Field(default=None, min_length=1)
    """The group that shares the messages; None for a group of its own, which ends with the consumer."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where a group begins that the broker has never seen."""
    batch_size: int = Field(default=500, gt=0)
    """The most messages that are fetched at once."""
    max_unsettled: int = Field(default=50_000, gt=0)
    """The most messages that are out and unsettled; fetching pauses there, with a warning."""
    retry_delay: float = Field(default=0.1, ge=0)
    """Seconds until a message that was nacked without a delay comes again; doubled with each attempt."""
    max_retry_delay: float = Field(default=60.0, gt=0)
    """The most seconds that doubling leads to."""
    dead_letter_topic: str | None = Field(default=None, min_length=1)
    """Where `Delivery.reject` keeps a message."""

    @field_validator("topics", mode="before")
    @classmethod
    def _one_topic_is_a_list_too(cls, topics: Any) -> Any:
        return (topics,) if isinstance(topics, str) else topics

    @model_validator(mode="after")
    def _dead_letters_stay_dead(self) -> Self:
        if self.dead_letter_topic in self.topics:
            raise ValueError(
                f"the dead_letter_topic {self.dead_letter_topic!r} is among the topics: it would feed itself"
            )
        return self


class EventConsumer:
    """Receives messages of some topics, as a member of a group, at least once.

    Nothing is acknowledged before ``message.ack()`` or ``commit(message)``. Leaving ``async with``, also by an
    exception or a cancellation, settles what is settled, gives back what is not, and closes. Belongs to the event
    loop of its first use. ``async for`` may be left and taken up again.

    Args:
        config: a `ConsumerConfig`, or keyword arguments that make one (``broker="memory"``, ``topics=[…]``).
        transport: use this one, which stays its maker's to close, instead of opening the configured one.

    Raises:
        UnknownBrokerError: no installed transport has the broker's name.
        ConfigurationError: a setting is unknown or wrong.
    """

    def __init__(
        self, config: ConsumerConfig | None = None, /, *, transport: Transport | None = None, **settings: Any
    ) -> None:
        if config is not None and settings:
            raise ConfigurationError(f"EventConsumer: give a config or settings, not both: {', '.join(settings)}.")
        if not isinstance(config, ConsumerConfig | None):
            kind = type(config).__name__
            raise TypeError(
                f"EventConsumer: give a ConsumerConfig, or settings by their names, such as url=…, not a {kind}."
            )
        self.config = config or ConsumerConfig(**settings)
        self._owned = transport is None
        self._transport = transport or open_transport(self.config)
        self._check_topics(self.config.topics)
        self._check_dead_letter_topic(self.config.dead_letter_topic)
        self.header_prefix = self._transport.header_prefix
        self._telemetry = Telemetry(self._transport.name, self.config.client_id, self.config.group_id)
        self._runtime = current_runtime()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subscription: Subscription | None = None
        self._buffer: deque[Delivery] | Batch = deque()
        self._each: Iterable[Delivery] = ()
        """Takes one after the other out of the buffer, where that is a batch."""
        self._unsettled: dict[Delivery, None] = {}
        self._handed_out: list[Delivery] = []
        """The latest of what was handed out; some may be settled. `_sift` brings the others to ``_unsettled``."""
        self._batches: list[Batch] = []
        """As ``_handed_out``, of batches; but for the one that is the buffer, which knows what was handed out of it."""
        self._sift_batches_at = _MOST_UNSIFTED
        """So many of them are looked through: half of them were kept at the last time, or it would take longer each."""
        self._fetching = asyncio.Lock()
        self._handing_over: asyncio.Future[None] | None = None
        self._closed = False
        self._warned = False

    def _check_topics(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._transport.check_topic(topic)

    def _check_dead_letter_topic(self, dead_letter_topic: str | None) -> None:
        if dead_letter_topic is None:
            return
        self._transport.check_target(dead_letter_topic)
        for topic in self.config.topics:
            if self._transport.receives(topic, dead_letter_topic):
                raise ConfigurationError(
                    f"The dead_letter_topic {dead_letter_topic!r} is among the topics that {topic!r} stands for: it "
                    "would feed itself. Name another."
                )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivery:
        """The next message, when there is one; ends once the consumer is closed."""
        for delivery in self._each:
            return delivery
        while not self._buffer:
            if not await self._fetch():
                raise StopAsyncIteration
        buffer = self._buffer
        if isinstance(buffer, Batch):
            self._each = each = buffer.pop_each()
            return next(each)
        delivery = buffer.popleft()
        self._handed_out.append(delivery)
        if len(self._handed_out) >= _MOST_UNSIFTED:
            self._sift()
        return delivery

    async def start(self) -> None:
        """Join the group, if that has not happened: what is published from then on is received.

        Raises:
            TransportError: the broker refused; ConnectionLostError where it is out of reach.
        """
        self._check_usable()
        if self._subscription is None:
            self._subscription = await self._transport.subscribe(
                SubscribeRequest(
                    topics=self.config.topics,
                    group_id=self.config.group_id,
                    start=self.config.start,
                    max_unsettled=self.config.max_unsettled,
                    on_revoke=_while_alive(self._give_back),
                    settler=self,
                )
            )

    async def receive(self, limit: int, timeout: float | None = None) -> Sequence[Delivery]:
        """From 1 to ``limit`` messages; fewer or none only where ``timeout`` seconds have passed, or it was closed.

        Cancelling it loses nothing. Returns a list, or a `Batch`, which makes its deliveries as they are looked at.

        Raises:
            TypeError, ValueError: the limit is no whole number, or below 1.
        """
        if not isinstance(limit, int):
            raise TypeError(f"receive: limit is an int, not {limit!r}.")
        if limit < 1:
            raise ValueError(f"receive: limit has to be 1 or more, not {limit}.")
        if timeout is None:  # most often; waiting with a timeout costs as much as all else here
            await self._fill()
        else:
            try:
                async with self._runtime.timeout(timeout):
                    await self._fill()
            except TimeoutError:
                return []
        taken = self._take_buffered(limit)
        if not isinstance(taken, Batch):
            self._sift()
            self._handed_out += taken
        return taken

    async def _fill(self) -> None:
        while not self._buffer and await self._fetch():
            pass

    def _take_buffered(self, limit: int) -> Sequence[Delivery]:
        buffer = self._buffer
        if isinstance(buffer, Batch):
            taken = buffer.take(limit)
            self._each = ()
            if not buffer:
                self._rebuffer(())
            return taken
        if len(buffer) > limit:
            return [buffer.popleft() for _ in range(limit)]
        self._buffer = deque()
        return list(buffer)

    def _rebuffer(self, deliveries: Iterable[Delivery]) -> None:
        """Go on with these in place of what was fetched."""
        if isinstance(self._buffer, Batch):
            self._keep_unsettled(self._buffer.popped())
        self._each = ()
        self._buffer = deliveries if isinstance(deliveries, Batch) else deque(deliveries)

    def _keep_unsettled(self, handed_out: Batch) -> None:
        if not handed_out.has_unsettled:
            return
        self._batches.append(handed_out)
        if len(self._batches) >= self._sift_batches_at:
            self._batches = [batch for batch in self._batches if batch.has_unsettled]
            self._sift_batches_at = max(_MOST_UNSIFTED, 2 * len(self._batches))

    def _sift(self) -> dict[Delivery, None]:
        """All that was handed out and is unsettled: most are settled by now, and never cost a place in the dict."""
        if self._handed_out:
            self._unsettled.update(dict.fromkeys([d for d in self._handed_out if d.outcome is None]))
            self._handed_out.clear()
        for batch in self._handed_out_batches():
            self._unsettled.update(dict.fromkeys(batch.unsettled()))
        self._batches.clear()
        return self._unsettled

    def _handed_out_batches(self) -> list[Batch]:
        return [*self._batches, self._buffer.popped()] if isinstance(self._buffer, Batch) else self._batches

    def commit(self, delivery: Delivery | None = None, *, wait: bool = False) -> Awaitable[None]:
        """Finish one message, or all that were handed out so far.

        Args:
            delivery: the message; None for all so far.
            wait: whether to return only once the broker has it (a log commits coalesced, a little later).

        Raises:
            ValueError: the message came from another consumer.
            TypeError: it is no message that was received.
            ClosedError: the consumer is closed; what was unsettled then comes again.
        """
        subscription = self._subscribed()
        if delivery is not None:
            try:
                is_mine = delivery.settler is self
            except AttributeError:
                raise TypeError(
                    f"commit: give a message that was received, or none for all, not {delivery!r}."
                ) from None
            if not is_mine:
                raise ValueError(f"commit: {delivery!r} was received by another consumer; commit it there.")
            settled = delivery.ack()
        else:
            settled = self._settle_all(subscription, [*self._unsettled, *self._handed_out], Outcome.ACK)
            self._unsettled.clear()
            self._handed_out.clear()
            for batch in self._handed_out_batches():
                settled = _together(settled, batch.ack_unsettled())
            self._batches.clear()
        return _after(settled, subscription) if wait else settled

    def pause(self) -> None:
        """Fetch nothing until `resume`; the group keeps this member. What was fetched is still handed out."""
        self._pausable().pause()

    def resume(self) -> None:
        """Fetch again."""
        self._pausable().resume()

    async def seek(self, target: SeekTarget, *, topic: str | None = None, partition: int | None = None) -> None:
        """Go on at an offset, a time, the ``"beginning"`` or the ``"end"`` in the partitions this member has.

        Messages of these partitions that are out are forgotten: settling them does nothing.

        Raises:
            CapabilityError: the broker has no such thing.
            TypeError, ValueError: this is no place to go on at, or no partition.
            UnknownTopicError: the consumer has no such topic; UnknownPartitionError where it has no such partition.
        """
        subscription = self._subscribed()
        if not isinstance(subscription, Seekable):
            raise CapabilityError(f"The broker {self._transport.name!r} cannot seek.")

        def is_sought_in(delivery: Delivery) -> bool:
            return topic in (None, delivery.topic) and partition in (None, delivery.partition)

        # What another task fetches while this one waits is from behind the seek.
        gone = set(filter(is_sought_in, [*self._buffer, *self._sift()]))
        await subscription.seek(target, topic=topic, partition=partition)
        self._rebuffer([delivery for delivery in self._buffer if delivery not in gone])
        self._unsettled = {delivery: None for delivery in self._sift() if delivery not in gone}

    async def close(self) -> None:
        """Give back what is unsettled, leave the group, disconnect; harmless twice. A waiting ``async for`` ends."""
        if self._closed:
            return
        self._check_loop()
        self._closed = True
        buffered = list(self._buffer)
        self._rebuffer(())
        self._unsettled.clear()
        self._handed_out.clear()
        self._batches.clear()
        try:
            if self._subscription is not None:
                if buffered:
                    await self._settle_all(self._subscription, buffered, Outcome.RELEASE)
                async with self._runtime.timeout(self.config.close_timeout):
                    await self._subscription.close()
        finally:
            if self._owned:
                await self._transport.close()

    # --- what deliveries ask for -------------------------------------------------------------------------------

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        """See `Settler`; a nack without a delay backs off by the attempt, so that it is no hot loop."""
        subscription = self._subscription
        if subscription is None or self._closed or self._loop is not _running_loop():
            subscription = self._subscribed()  # says which of the three it is
        if self._unsettled:
            self._unsettled.pop(delivery, None)
        if outcome is _ACK:
            return subscription.settle_delivery(delivery, _ACK, None)
        if delay is None and outcome is _NACK:
            delay = self._backoff(delivery.attempt)
        settled = subscription.settle_delivery(delivery, outcome, delay)
        if self._buffer:
            return self._with_followers(subscription, delivery, settled)
        return settled

    def _with_followers(
        self, subscription: Subscription, delivery: Delivery, settled: Awaitable[None]
    ) -> Awaitable[None]:
        """A message was given back: so is what was fetched of its key and follows it, which must not overtake it.

        Only where it waits there: else all of it would be fetched again at once, and at the next one again.
        """
        topic, key = delivery.topic, delivery.key
        if key is None or not (subscription.holds_keys or self._transport.capabilities.ordering == "key"):
            return settled
        followers = [fetched for fetched in self._buffer if fetched.key == key and fetched.topic == topic]
        if not followers:
            return settled
        gone = set(followers)
        others = [fetched for fetched in self._buffer if fetched not in gone]
        self._rebuffer(others)
        return _together(settled, self._settle_all(subscription, followers, Outcome.RELEASE))

    def reject_delivery(self, delivery: Delivery, reason: str, error: BaseException | None) -> Awaitable[None]:
        """See `Settler`: keep the message in the dead-letter topic, and only when it is confirmed there, finish it."""
        subscription = self._subscribed()
        topic = self.config.dead_letter_topic
        if topic is None:
            raise ConfigurationError(
                f"reject({reason!r}): this consumer has no dead_letter_topic; configure one, or ack() to discard."
            )
        letter = dead_letter(delivery, topic, reason, error or exception())
        published = self._transport.publish([letter])
        delivery.outcome = Outcome.ACK

        async def finish() -> None:
            try:
                (result,) = await published
                if not isinstance(result, Receipt):
                    raise result
            except BaseException:
                delivery.outcome = None  # it is still unsettled, and comes again if nothing else happens
                self._unsettled[delivery] = None
                raise
            self._unsettled.pop(delivery, None)
            await subscription.settle((Settlement(delivery, Outcome.ACK),))

        return asyncio.ensure_future(finish())

    def _backoff(self, attempt: int) -> float:
        longest = min(self.config.retry_delay * 2.0 ** min(attempt - 1, 60), self.config.max_retry_delay)
        return longest * (0.5 + self._runtime.random() / 2)  # jitter, so that many do not come at once

    def _settle_all(
        self, subscription: Subscription, deliveries: Sequence[Delivery], outcome: Outcome
    ) -> Awaitable[None]:
        unsettled = [delivery for delivery in deliveries if delivery.outcome is None]
        for delivery in unsettled:
            delivery.outcome = outcome
        return subscription.settle_deliveries(unsettled, outcome) if unsettled else DONE

    # --- fetching ----------------------------------------------------------------------------------------------

    async def _fetch(self) -> bool:
        """Fill the buffer; False once the consumer is closed."""
        if self._closed:
            return False
        if self._subscription is None:
            await self.start()
            if self._closed:
                return False
        subscription = self._subscribed()
        async with self._fetching:
            if self._buffer:
                return True
            if self._closed:
                return False
            self._warn_if_stalled()
            batch = await self._receive_batch(subscription)
            if batch and not isinstance(batch, Batch) and batch[0].settler is not self:
                for delivery in batch:
                    delivery.settler = self
            if self._closed:
                return False
            self._rebuffer(batch)
        for topic, deliveries in self._by_topic(batch):
            self._telemetry.received(topic, deliveries)
        return bool(batch)

    def _by_topic(self, batch: Sequence[Delivery]) -> Iterable[tuple[str, Sequence[Delivery]]]:
        if isinstance(batch, Batch):
            return batch.by_topic()
        topics = self.config.topics
        if len(topics) == 1 and batch and batch[0].topic == topics[0]:  # by its name: all of the batch is of it
            return [(topics[0], batch)]
        return [(topic, list(deliveries)) for topic, deliveries in groupby(batch, _TOPIC)]

    async def _receive_batch(self, subscription: Subscription) -> Sequence[Delivery]:
        failures = 0
        while True:
            try:
                return await subscription.receive(self.config.batch_size)
            except TransportError as error:
                if not error.retriable:
                    raise
                failures += 1
                delay = self._backoff(failures)
                logger().warning("receive failed, trying again", error=str(error), seconds=round(delay, 3))
                await self._runtime.sleep(delay)

    def _give_back(self, revoked: frozenset[TopicPartition]) -> None:
        """Partitions are about to go to another member: what was fetched of them and not handed out goes with them."""
        mine = [d for d in self._buffer if d.partition is not None and (d.topic, d.partition) in revoked]
        if mine and self._subscription is not None and not self._closed:
            gone = set(mine)
            self._rebuffer([delivery for delivery in self._buffer if delivery not in gone])
            released = self._settle_all(self._subscription, mine, Outcome.RELEASE)
            self._handing_over = asyncio.ensure_future(_finished(released))

    def _warn_if_stalled(self) -> None:
        limit = self.config.max_unsettled
        out = len(self._unsettled) + len(self._handed_out) + sum(map(len, self._batches))
        if out < limit or len(self._sift()) < limit:
            self._warned = False
        elif not self._warned:
            self._warned = True
            oldest = next(iter(self._unsettled))
            logger().warning(
                "fetching pauses: too many messages are unsettled",
                unsettled=len(self._unsettled),
                max_unsettled=self.config.max_unsettled,
                oldest=f"{oldest.topic}/{oldest.partition}/{oldest.offset}",
            )

    # --- use at the right time and place -----------------------------------------------------------------------

    def _pausable(self) -> Pausable:
        subscription = self._subscribed()
        if not isinstance(subscription, Pausable):
            raise CapabilityError(f"The broker {self._transport.name!r} cannot pause.")
        return subscription

    def _subscribed(self) -> Subscription:
        subscription = self._subscription
        if subscription is None or self._closed or self._loop is not _running_loop():
            self._check_usable()  # says which of the three it is
            raise ClosedError("This EventConsumer has not started; use it in async with, or await start().")
        return subscription

    def _check_usable(self) -> None:
        self._check_loop()
        if self._closed:
            raise ClosedError("This EventConsumer is closed; what it had not settled is delivered again elsewhere.")

    def _check_loop(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise WrongEventLoopError("An EventConsumer is used inside a running event loop (asyncio.run).") from error
        if self._loop is not loop:
            if self._loop is not None:
                raise WrongEventLoopError(
                    "This EventConsumer belongs to another event loop, that of its first use; make one here."
                )
            self._loop = loop


def _while_alive(method: Callable[[frozenset[TopicPartition]], None]) -> Callable[[frozenset[TopicPartition]], None]:
    """``method``, without keeping its consumer: one that is dropped gives back what it has."""
    reference = WeakMethod(method)

    def call(revoked: frozenset[TopicPartition]) -> None:
        alive = reference()
        if alive is not None:
            alive(revoked)

    return call


async def _finished(settled: Awaitable[None]) -> None:
    await settled


def _together(settled: Awaitable[None], more: Awaitable[None]) -> Awaitable[None]:
    if more is DONE:
        return settled
    return more if settled is DONE else asyncio.ensure_future(_both(settled, more))


async def _both(settled: Awaitable[None], more: Awaitable[None]) -> None:
    await settled
    await more


async def _after(settled: Awaitable[None], subscription: Subscription) -> None:
    await settled
    await subscription.flush()
