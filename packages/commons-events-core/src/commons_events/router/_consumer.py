"""`RouterConsumer`: the router's own way to an `EventConsumer`."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable

from commons_events.consumers import EventConsumer
from commons_events.telemetry import Telemetry
from commons_events.transport import Delivery, Outcome, TopicPartition

__all__ = ["RouterConsumer"]

_ACK = Outcome.ACK  # see `Delivery.ack`


class RouterConsumer(EventConsumer):
    """An `EventConsumer` that also tells the lanes which partitions are about to go to another member."""

    on_revoked: Callable[[frozenset[TopicPartition]], None] = staticmethod(lambda revoked: None)

    recorded: bool = False
    """Whether spans or durations of handlers go anywhere, by the time of the last fetch."""

    @property
    def telemetry(self) -> Telemetry:
        """What records them."""
        return self._telemetry

    async def receive(self, limit: int, timeout: float | None = None) -> list[Delivery]:
        """As `EventConsumer.receive`, but what is out is not kept here: the lanes have it, and their own bound."""
        if timeout is not None:
            taken = await super().receive(limit, timeout)
            self._unsettled.clear()
            return taken
        while not self._buffer and await self._fetch():
            pass
        self.recorded = self._telemetry.processing
        buffer = self._buffer
        if len(buffer) <= limit:
            taken = list(buffer)
            buffer.clear()
            return taken
        return [buffer.popleft() for _ in range(limit)]

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        """See `Settler`."""
        subscription = self._subscription
        if outcome is not _ACK or subscription is None or self._closed or self._loop is not _get_running_loop():
            return super().settle_delivery(delivery, outcome, delay)
        return subscription.settle_delivery(delivery, _ACK, None)

    def _give_back(self, revoked: frozenset[TopicPartition]) -> None:
        super()._give_back(revoked)
        self.on_revoked(revoked)
