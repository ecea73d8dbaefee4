"""A connection to the simulated broker that fails when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from commons_events.errors import ConnectionLostError, PublishTimeoutError
from commons_events.memory import MemoryBroker, MemorySubscription, MemoryTransport
from commons_events.message import Message, PublishResult
from commons_events.testing.simulation._faults import FaultKind
from commons_events.transport import Delivery, Outcome, Settlement, SubscribeRequest

__all__ = ["SimulatedTransport"]


class SimulatedTransport(MemoryTransport):
    """As the in-process broker's own, with faults.

    Args:
        broker: the simulated broker.
        strikes: whether a fault of this kind is due now; asking takes it.
    """

    def __init__(self, broker: MemoryBroker, strikes: Callable[[FaultKind], bool]) -> None:
        super().__init__(broker)
        self._strikes = strikes
        self.open: list[SimulatedSubscription] = []

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        """See `Transport.publish`."""
        if self._strikes(FaultKind.PUBLISH_FAILS):
            return _failed()
        future = super().publish(messages)
        return _failed() if self._strikes(FaultKind.PUBLISH_UNCONFIRMED) else future

    async def subscribe(self, request: SubscribeRequest) -> MemorySubscription:
        """See `Transport.subscribe`."""
        for topic in request.topics:
            self.check_topic(topic)
        subscription = SimulatedSubscription(self.broker, request, self._strikes)
        self._subscriptions.add(subscription)
        self.open.append(subscription)
        return subscription

    def lose(self) -> None:
        """The broker takes this client for dead."""
        for subscription in self.open:
            self.broker.disconnect(subscription)


class SimulatedSubscription(MemorySubscription):
    """One that may lose its place and what it has out."""

    def __init__(self, broker: MemoryBroker, request: SubscribeRequest, strikes: Callable[[FaultKind], bool]) -> None:
        super().__init__(broker, request)
        self._request = request
        self._strikes = strikes
        self._closed = False

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See `Subscription.receive`; after a loss it joins again."""
        if self.member.gone and not self._closed:
            super().__init__(self._broker, self._request)
            raise ConnectionLostError("The broker had lost this consumer; it has joined again.")
        batch = await super().receive(limit)
        if not batch and self.member.gone and not self._closed:
            return await self.receive(limit)
        return batch

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        """See `Subscription.settle`."""
        if self._strikes(FaultKind.ACK_FAILS):
            raise ConnectionLostError("The connection was lost before the broker had the settlement.")
        if any(s.outcome is Outcome.ACK for s in settlements) and self._strikes(FaultKind.ACK_LOST):
            settlements = [s._replace(outcome=Outcome.NACK) for s in settlements]
        return super().settle(settlements)

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        """By way of `settle`, so that faults strike here too."""
        return self.settle((Settlement(delivery, outcome, delay or 0.0),))

    def settle_deliveries(self, deliveries: Sequence[Delivery], outcome: Outcome) -> Awaitable[None]:
        """By way of `settle`, too."""
        return self.settle([Settlement(delivery, outcome) for delivery in deliveries])

    async def close(self) -> None:
        """See `Subscription.close`."""
        self._closed = True
        await super().close()


def _failed() -> asyncio.Future[Sequence[PublishResult]]:
    future: asyncio.Future[Sequence[PublishResult]] = asyncio.get_running_loop().create_future()
    future.set_exception(PublishTimeoutError("The broker did not confirm; it may have the messages all the same."))
    return future
