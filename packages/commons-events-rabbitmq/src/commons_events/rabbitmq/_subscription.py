"""`RabbitMQSubscription`: deliveries to the event loop, and their outcomes back to RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from commons_events.errors import TransportError
from commons_events.message import Receipt
from commons_events.rabbitmq._connection import IO, Link
from commons_events.rabbitmq._queue import QueueState, RabbitMQDelivery, first_attempt
from commons_events.rabbitmq._reading import Arrived
from commons_events.rabbitmq._receiver import Lost, Receiver, Source, Told
from commons_events.rabbitmq._settings import LOGGER
from commons_events.transport import DONE, Delivery, Outcome, Settlement, Settler, WaitingSubscription

if TYPE_CHECKING:
    from commons_events.rabbitmq._transport import RabbitMQTransport

__all__ = ["RabbitMQSubscription"]

_ACK = Outcome.ACK
_CLOSING = 10.0
"""Seconds for which closing waits for RabbitMQ to have every acknowledgement."""


class RabbitMQSubscription(WaitingSubscription[QueueState]):
    """Consumers of one or several queues, on a channel of their own. Belongs to its event loop."""

    header_prefix = "cloudEvents_"

    def __init__(
        self,
        transport: RabbitMQTransport,
        io: IO,
        link: Link,
        sources: Sequence[Source],
        *,
        prefetch: int,
        max_unsettled: int,
        temporary: bool = False,
        settler: Settler | None = None,
        woken: Callable[[], object] | None = None,
        lost: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        self._transport = transport
        self.holds_keys = not transport.settings.retry_queues
        self._max_unsettled = max_unsettled
        self._settler: Settler = settler or self
        self._woken = woken
        """Called where there may be something to `take`."""
        self._lost = lost
        """Called where all that is out has become stale."""
        self.temporary = temporary
        """Whether the queues go with this subscription."""
        self._sources = sources
        self._states = [QueueState(source.topic, source.queue, self, source.resume) for source in sources]
        self._epoch = 1
        self._out = 0
        self._failed = False
        """Whether an error was raised that ended the consuming."""
        self._retrying: set[asyncio.Future[Receipt]] = set()
        self._receiver = Receiver(io, link, sources, prefetch, self)

    async def start(self) -> None:
        """Consume; called once, by the transport."""
        try:
            await self._receiver.start()
        except BaseException:
            self._closed = True
            self._receiver.abandon()
            raise

    @property
    def settler(self) -> Settler:
        """Who carries out what is said of the deliveries."""
        return self._settler

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that are consumed."""
        return tuple(source.queue for source in self._sources)

    @property
    def out(self) -> int:
        """How many deliveries are with the user."""
        return self._out

    @property
    def stream_position(self) -> int | None:
        """Of one stream: the first offset that is not finished; None as long as that is not known."""
        resume = self._states[0].resume
        return resume[0] if resume else None

    def go_on_at(self, offset: int) -> None:
        """Of one stream that has just begun: where it goes on after a lost connection, if nothing has come yet."""
        if not self._states[0].resume:
            self._states[0].resume.append(offset)

    # --- receiving -----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        super()._wake()
        if self._woken is not None:
            self._woken()

    def on_arrival(self) -> None:
        """See `Owner`."""
        self._receiver.take()
        self._wake()

    def take(self, limit: int) -> list[RabbitMQDelivery]:
        """Up to ``limit`` deliveries: first what comes again, then new messages in the order of the queue."""
        arrived = self._receiver.arrived
        with suppress(IndexError):  # the I/O thread may clear it in between
            if isinstance(arrived[0], Lost) and isinstance(lost := arrived.popleft(), Lost):
                self._forget(lost.epoch)  # then nothing is out
        if self._failed:  # and was told so: whoever asks once more gets messages, or hears of it again
            self._failed = False
            self._receiver.again()
        limit = min(limit, self._max_unsettled - self._out)
        if limit <= 0 or self._paused:
            return []
        taken: list[RabbitMQDelivery] = []
        if self._scheduled:
            self._take_again(taken, limit)
        states, settler, new = self._states, self._settler, RabbitMQDelivery.__new__
        epoch, count = self._epoch, len(taken)
        while count < limit:
            try:
                what = arrived.popleft()
            except IndexError:
                break
            if isinstance(what, Arrived):
                state = states[what.source]
                attempt = first_attempt(what)
                if state.redeliveries.held:
                    delivery = RabbitMQDelivery(what, state, epoch, attempt)
                    key = delivery.key
                    if key is not None and key in state.redeliveries.held:
                        state.park(delivery, key)
                        continue
                delivery = new(RabbitMQDelivery)  # its __init__, spelled out: the call takes longer than all it does
                delivery.arrived, delivery.state, delivery.epoch = what, state, epoch
                delivery.settler, delivery.attempt, delivery.outcome = settler, attempt, None
                state.unfinished[what.tag] = delivery
                state.out += 1
                if state.is_stream is None:
                    state.begin(delivery)
                taken.append(delivery)
                count += 1
            elif isinstance(what, Lost):
                self._forget(what.epoch)
                taken.clear()
                count, epoch = 0, self._epoch
            elif taken:
                arrived.appendleft(what)  # after what came before it
                break
            else:
                self._failed = True
                raise what
        self._out += count
        return taken

    def _forget(self, epoch: int) -> None:
        self._epoch = epoch
        self._receiver.settle(Lost(epoch))
        self._out = 0
        if self._lost is not None:
            self._lost()
        self._scheduled.clear()
        for state in self._states:
            state.forget()

    # --- settling --------------------------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        """See `Subscription.settle`; acknowledgements go out at once, many in one."""
        if self._closed:
            return DONE
        settled = 0
        for delivery, outcome, delay in settlements:
            if not isinstance(delivery, RabbitMQDelivery) or delivery.state.subscription is not self:
                continue
            state = delivery.state
            if outcome is _ACK:
                if state.finish(delivery):
                    settled += 1
                    self._receiver.settle(delivery.arrived.tag)
            elif outcome is Outcome.NACK and self._transport.settings.retry_queues:
                if state.finish(delivery):
                    settled += 1
                    self._retry(delivery, delay)
            else:
                attempt = delivery.attempt + (outcome is Outcome.NACK)
                if state.put_back(delivery, self._runtime.monotonic() + delay, attempt):
                    settled += 1
                    self._scheduled[state] = None
        self._settled(settled)
        return DONE

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        """See `Subscription.settle_delivery`."""
        if outcome is not _ACK or not isinstance(delivery, RabbitMQDelivery):
            return super().settle_delivery(delivery, outcome, delay)
        state = delivery.state
        if not self._closed and state.subscription is self and state.finish(delivery):
            self._receiver.settle(delivery.arrived.tag)
            if self._out < self._max_unsettled and not self._scheduled:
                self._out -= 1
            else:
                self._settled(1)
        return DONE

    def settle_deliveries(self, deliveries: Sequence[Delivery], outcome: Outcome) -> Awaitable[None]:
        """See `Subscription.settle_deliveries`."""
        if outcome is not _ACK:
            return super().settle_deliveries(deliveries, outcome)
        if not self._closed:
            settled, settle = 0, self._receiver.settle
            for delivery in deliveries:
                if (
                    isinstance(delivery, RabbitMQDelivery)
                    and delivery.state.subscription is self
                    and delivery.state.finish(delivery)
                ):
                    settled += 1
                    settle(delivery.arrived.tag)
            self._settled(settled)
        return DONE

    def give_back(self, delivery: RabbitMQDelivery, requeue: bool) -> Awaitable[None]:
        """``basic.reject``: to the queue, or to its dead-letter exchange."""
        if not self._closed and delivery.state.finish(delivery):
            self._receiver.settle(Told(delivery.arrived.tag, requeue))
            self._settled(1)
        return DONE

    def _settled(self, settled: int) -> None:
        if settled:
            full = self._out >= self._max_unsettled
            self._out -= settled
            if full or self._scheduled:
                self._wake()

    def _retry(self, delivery: RabbitMQDelivery, delay: float) -> None:
        """Send the message to a queue that hands it back after ``delay``, and then acknowledge it here."""
        sent = self._transport.retry(delivery, delay)
        self._retrying.add(sent)

        def done(future: asyncio.Future[Receipt]) -> None:
            self._retrying.discard(sent)
            error = None if future.cancelled() else future.exception()
            if future.cancelled() or error is not None:
                LOGGER.warning("a message could not be sent to its retry queue, so it is kept here: %s", error)
                if not self._closed and delivery.epoch == self._epoch:
                    state, tag = delivery.state, delivery.arrived.tag
                    state.unfinished[tag] = delivery
                    state.out += 1
                    self._out += 1
                    state.put_back(delivery, self._runtime.monotonic() + delay, delivery.attempt + 1)
                    self._out -= 1
                    self._scheduled[state] = None
                    self._wake()
            elif not self._closed and delivery.epoch == self._epoch:
                self._receiver.settle(delivery.arrived.tag)

        sent.add_done_callback(done)

    async def flush(self) -> None:
        """See `Subscription.flush`."""
        if self._retrying:
            await asyncio.wait(list(self._retrying))
            await asyncio.sleep(0)
        if not self._closed:
            await self._receiver.flush()

    # --- what only some brokers can ------------------------------------------------------------------------------

    def pause(self) -> None:
        """See `Pausable`; RabbitMQ goes on to send until the prefetch is reached."""
        super().pause()

    # --- the end ---------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        if self._closed:
            return
        try:
            async with asyncio.timeout(_CLOSING):
                await self.flush()
        except TimeoutError:
            LOGGER.warning("closing a RabbitMQ subscription: RabbitMQ did not answer within %g s", _CLOSING)
        except TransportError as error:
            LOGGER.warning("closing a RabbitMQ subscription: %s", error)
        self._end()
        await self._receiver.close()
        if self.temporary:
            await self._transport.delete_queues(self.queues)

    def _end(self) -> None:
        self._closed = True
        self._wake()
        self._transport.forget(self)

    def drop(self) -> None:
        """End without waiting: nothing more is acknowledged."""
        if not self._closed:
            self._end()
            self._receiver.abandon()

    async def abandon(self) -> None:
        """End as if the process had died: nothing more is acknowledged. For tests of redelivery."""
        self._end()
        await self._receiver.close(settle=False)
