"""What transports have in common whose broker is a server, and whose client belongs to one event loop."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from commons_events.errors import ClosedError, WrongEventLoopError
from commons_events.runtime import current_runtime
from commons_events.transport._delivery import Delivery
from commons_events.transport._redelivery import RedeliverySchedule
from commons_events.transport._transport import Subscription, Transport, TransportSettings

__all__ = ["ConnectedTransport", "HoldsBack", "WaitingSubscription"]


class _Startable(Protocol):
    async def start(self) -> None: ...

    async def close(self) -> None: ...


S = TypeVar("S", bound=_Startable)


class ConnectedTransport(Transport):
    """Belongs to the event loop of its first use; closing it closes its subscriptions, once.

    A subclass takes its settings in `_open`, calls `_check_usable` before it uses its client, starts subscriptions by
    `_begin`, and lets go of the server in `_disconnect`.
    """

    _loop: asyncio.AbstractEventLoop | None = None
    _closing: asyncio.Future[None] | None = None

    @classmethod
    def from_settings(cls, settings: TransportSettings) -> Self:
        """See `Transport.from_settings`."""
        made = cls.__new__(cls)
        made._open(settings)
        return made

    @abstractmethod
    def _open(self, settings: TransportSettings) -> None:
        """Become ready, without waiting and without network.

        Raises:
            ConfigurationError: a setting is unknown or wrong.
        """
        self._subscriptions: set[_Startable] = set()

    def _check_usable(self) -> asyncio.AbstractEventLoop:
        """The event loop, which is the one of the first use.

        Raises:
            WrongEventLoopError: it is another one.
            ClosedError: the transport is closed.
        """
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongEventLoopError(
                f"This {type(self).__name__} belongs to another event loop, that of its first use."
            )
        if self._closing is not None:
            raise ClosedError(f"This {type(self).__name__} is closed; make a new one.")
        return loop

    async def _begin(self, subscription: S) -> S:
        """Start a subscription, which is closed with the transport from now on."""
        self._subscriptions.add(subscription)
        try:
            await subscription.start()
        except BaseException:
            self._subscriptions.discard(subscription)
            raise
        return subscription

    def forget(self, subscription: _Startable) -> None:
        """A subscription has ended."""
        self._subscriptions.discard(subscription)

    async def close(self) -> None:
        """See `Transport.close`."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        await self._disconnect()

    @abstractmethod
    async def _disconnect(self) -> None:
        """Flush, and let go of the server; the subscriptions are closed."""


class HoldsBack(Protocol):
    """A part of a subscription that holds back what comes again: a partition, or a queue."""

    @property
    def redeliveries(self) -> RedeliverySchedule:
        """When."""
        ...

    def pop_due(self, now: float) -> Delivery | None:
        """The next delivery that comes again by now, which is then with the user; or None."""
        ...


P = TypeVar("P", bound=HoldsBack)


class WaitingSubscription(Subscription, Generic[P]):
    """Waits for what arrives and for what comes again, which it holds back by itself.

    A subclass hands out in `take`, calls `_wake` where there is something new, and ends in `_close`.
    """

    def __init__(self) -> None:
        self._runtime = current_runtime()
        self._scheduled: dict[P, None] = {}
        """The parts in which something comes again."""
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._seeking = 0
        """How many seeks are under way: `take` hands nothing out meanwhile."""
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See `Subscription.receive`."""
        await self._runtime.sleep(0)
        while not self._closed:
            batch = self.take(limit)
            if batch:
                return batch
            self._waiter = waiter = asyncio.get_running_loop().create_future()
            due = self.next_due
            if due is None or self._paused or self._seeking:
                await waiter
                continue
            timer = self._runtime.call_later(max(0.0, due - self._runtime.monotonic()), self._wake)
            try:
                await waiter
            finally:
                timer.cancel()
        return ()

    @property
    def next_due(self) -> float | None:
        """When something comes again at the earliest, by the runtime's clock; None where nothing does."""
        times = (part.redeliveries.next_due for part in self._scheduled)
        return min((time for time in times if time is not None), default=None)

    @abstractmethod
    def take(self, limit: int) -> Sequence[Delivery]:
        """Up to ``limit`` deliveries that are there: first what comes again (`_take_again`), then what is new."""

    def _take_again(self, taken: list[Any], limit: int) -> None:
        now = self._runtime.monotonic()
        for part in list(self._scheduled):
            while len(taken) < limit and (again := part.pop_due(now)) is not None:
                taken.append(again)
            if not part.redeliveries:
                del self._scheduled[part]

    def _wake(self) -> None:
        """There may be something to take."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def pause(self) -> None:
        """See `Pausable`."""
        self._paused = True

    def resume(self) -> None:
        """See `Pausable`."""
        self._paused = False
        self._wake()

    async def close(self) -> None:
        """See `Subscription.close`."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    @abstractmethod
    async def _close(self) -> None:
        """Tell the broker what is finished, give back the rest, and leave the group."""
