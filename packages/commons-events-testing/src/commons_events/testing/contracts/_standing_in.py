"""Transports that stand in for another and refuse or hold back what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

from commons_events.errors import TransportError
from commons_events.message import Message, PublishResult
from commons_events.transport import (
    Capabilities,
    Delivery,
    Outcome,
    Seekable,
    SeekTarget,
    Settlement,
    SubscribeRequest,
    Subscription,
    Transport,
    TransportSettings,
)

__all__ = ["LingeringTransport", "RefusingTransport"]


class RefusingTransport(Transport):
    """Passes everything on to ``inner``, except messages for which ``refuse`` returns an error.

    While ``holding`` is set, confirmed messages are not reported as such until ``release`` is called.
    """

    def __init__(self, inner: Transport, refuse: Callable[[Message], TransportError | None] = lambda _: None) -> None:
        self.inner = inner
        self.refuse = refuse
        self.holding = False
        self.subscriptions: list[Subscription] = []
        self._held: list[tuple[asyncio.Future[Sequence[PublishResult]], asyncio.Future[Sequence[PublishResult]]]] = []
        self.name = inner.name  # type: ignore[misc]  # what is a class's own elsewhere is here the inner one's
        self.header_prefix = inner.header_prefix  # type: ignore[misc]

    @classmethod
    def from_settings(cls, settings: TransportSettings) -> Self:
        """Not made from settings."""
        raise NotImplementedError

    @property
    def capabilities(self) -> Capabilities:
        """The inner transport's."""
        return self.inner.capabilities

    def room(self) -> Awaitable[object] | None:
        """The inner transport's."""
        return self.inner.room()

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        """Publish what is not refused; the others get their error."""
        results: list[PublishResult | None] = [self.refuse(message) for message in messages]
        taken = [message for message, error in zip(messages, results, strict=True) if error is None]
        future: asyncio.Future[Sequence[PublishResult]] = asyncio.get_running_loop().create_future()
        inner = self.inner.publish(taken)

        def report(done: asyncio.Future[Sequence[PublishResult]]) -> None:
            if future.done():
                return
            receipts = iter(done.result())
            future.set_result([next(receipts) if error is None else error for error in results])

        if self.holding:
            held: asyncio.Future[Sequence[PublishResult]] = asyncio.get_running_loop().create_future()
            held.add_done_callback(report)
            self._held.append((inner, held))
        else:
            inner.add_done_callback(report)
        return future

    async def release(self) -> None:
        """Report what was held back."""
        self.holding = False
        for inner, held in self._held:
            held.set_result(await inner)
        self._held.clear()

    async def subscribe(self, request: SubscribeRequest) -> Subscription:
        """The inner transport's subscription."""
        subscription = await self.inner.subscribe(request)
        self.subscriptions.append(subscription)
        return subscription

    async def flush(self) -> None:
        """Flush the inner transport."""
        await self.inner.flush()

    async def close(self) -> None:
        """Close the inner transport."""
        await self.inner.close()


class LingeringTransport(RefusingTransport):
    """Its subscriptions return from `Seekable.seek` only once something from behind it was received."""

    async def subscribe(self, request: SubscribeRequest) -> Subscription:
        """The inner transport's subscription, lingering."""
        return _LingeringSubscription(await super().subscribe(request))


class _LingeringSubscription(Subscription):
    def __init__(self, inner: Subscription) -> None:
        self._inner = inner
        self._received = asyncio.Event()

    async def seek(self, target: SeekTarget, *, topic: str | None = None, partition: int | None = None) -> None:
        assert isinstance(self._inner, Seekable)
        self._received.clear()
        await self._inner.seek(target, topic=topic, partition=partition)
        await self._received.wait()

    async def receive(self, limit: int) -> Sequence[Delivery]:
        batch = await self._inner.receive(limit)
        self._received.set()
        return batch

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        return self._inner.settle(settlements)

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        return self._inner.settle_delivery(delivery, outcome, delay)

    async def flush(self) -> None:
        await self._inner.flush()

    async def close(self) -> None:
        await self._inner.close()
