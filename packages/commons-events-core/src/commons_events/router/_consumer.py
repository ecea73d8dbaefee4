"""`RouterConsumer`: the router's own way to an `EventConsumer`."""

from __future__ import annotations

from asyncio import _get_running_loop, get_running_loop
from collections.abc import Awaitable, Callable, Iterable, Sequence
from sys import exception
from typing import Any

from commons_events.consumers import EventConsumer
from commons_events.router._settling import acknowledge, acknowledge_all
from commons_events.telemetry import Telemetry
from commons_events.transport import DONE, Batch, Delivery, Outcome, TopicPartition

__all__ = ["Rejected", "RouterConsumer"]

_ACK = Outcome.ACK  # see `Delivery.ack`


class Rejected(Exception):  # noqa: N818  # no error of anybody's
    """A handler has rejected its message, because of ``error`` if there was one."""

    def __init__(self, reason: str, error: Exception | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error


class RouterConsumer(EventConsumer):
    """An `EventConsumer` that also tells the lanes which partitions are about to go to another member."""

    on_revoked: Callable[[frozenset[TopicPartition]], None] = staticmethod(lambda revoked: None)

    see_to: Callable[[Iterable[Awaitable[None]]], None] = staticmethod(lambda settling: None)
    """Lets settlements that are on their way end by themselves."""

    recorded: bool = False
    """Whether spans or durations of handlers go anywhere, by the time of the last fetch."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.rejected: dict[Delivery, Rejected] = {}
        """What handlers have rejected; it is kept by the router, once the handler has ended."""
        self._finished: list[Delivery] = []
        """Acknowledged in this turn of the event loop, and not told yet."""

    @property
    def telemetry(self) -> Telemetry:
        """What records them."""
        return self._telemetry

    async def receive(self, limit: int, timeout: float | None = None) -> Sequence[Delivery]:
        """As `EventConsumer.receive`, but what is out is not kept here: the lanes have it, and their own bound."""
        if timeout is not None:
            taken = await super().receive(limit, timeout)
            self._unsettled.clear()
            self._batches.clear()
            return taken
        await self._fill()
        self.recorded = self._telemetry.processing
        return self._take_buffered(limit)

    def _keep_unsettled(self, handed_out: Batch) -> None:
        """See `receive`."""

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        """See `Settler`."""
        if self.rejected and delivery in self.rejected:  # which comes first, and wins
            delivery.outcome = None
            return DONE
        subscription = self._subscription
        if outcome is not _ACK or subscription is None or self._closed or self._loop is not _get_running_loop():
            return super().settle_delivery(delivery, outcome, delay)
        return subscription.settle_delivery(delivery, _ACK, None)

    def reject_delivery(self, delivery: Delivery, reason: str, error: BaseException | None) -> Awaitable[None]:
        """See `Settler`, and `rejected`."""
        cause = error or exception()
        self.rejected.setdefault(delivery, Rejected(reason, cause if isinstance(cause, Exception) else None))
        return DONE

    def finish(self, delivery: Delivery) -> Awaitable[None]:
        """Acknowledge a message that was handled; together with others, where that is all one to the broker."""
        subscription = self._subscription
        if subscription is None or not subscription.settles_at_once:
            return acknowledge(delivery)
        if delivery.outcome is None:
            delivery.outcome = _ACK
            if not self._finished:
                get_running_loop().call_soon(self.tell_finished)
            self._finished.append(delivery)
        return DONE

    def tell_finished(self) -> None:
        """Hand over what `finish` has gathered."""
        finished, subscription = self._finished, self._subscription
        if finished and subscription is not None:
            self._finished = []
            told = acknowledge_all(subscription, finished)
            if told is not DONE:
                self.see_to([told])

    async def close(self) -> None:
        """See `EventConsumer.close`."""
        self.tell_finished()
        await super().close()

    def _give_back(self, revoked: frozenset[TopicPartition]) -> None:
        self.tell_finished()
        super()._give_back(revoked)
        self.on_revoked(revoked)
