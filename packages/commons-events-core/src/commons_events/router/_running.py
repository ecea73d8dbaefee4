"""A router that runs: opens, watches, and ends without losing anything."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic_settings import SettingsConfigDict

from commons_events.config import ClientConfig, open_transport
from commons_events.errors import ClosedError, ConfigurationError
from commons_events.log import logger
from commons_events.producers import EventProducer
from commons_events.router._plan import make_plans
from commons_events.router._subscription import RunningSubscription
from commons_events.runtime import current_runtime
from commons_events.transport import Transport

if TYPE_CHECKING:
    from commons_events.router._router import EventRouter

__all__ = ["Broker", "RunningRouter"]

Broker = str | Transport
"""A broker's name or URL; or a transport, which stays its maker's to close."""
_CUT_OFF = 5.0
"""Seconds that a handler gets to end once it is cancelled."""


_SIGNALS = signal.SIGTERM, signal.SIGINT
_TOLD: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = {}
"""Whom a loop's one handler of these tells."""


class _BrokerConfig(ClientConfig):
    role: ClassVar[str] = "consumer"
    model_config = SettingsConfigDict(extra="ignore")  # the table of consumers has settings that are not a broker's


class RunningRouter:
    """A router between its start and its end. `EventRouter.running` makes it; use it in ``async with``.

    Entering checks everything, connects, runs the lifespans' beginnings and joins the groups. Leaving stops: nothing
    new begins, what runs gets ``grace`` seconds, what is done is settled, the rest comes again. Leaving by a
    cancellation cuts off at once.
    """

    def __init__(
        self,
        router: EventRouter,
        brokers: Mapping[str | None, Broker | None],
        *,
        grace: float,
        close_timeout: float = 30.0,
    ) -> None:
        given: object = grace
        if not isinstance(given, int | float) or not 0 <= given < float("inf"):
            raise ConfigurationError(f"grace={grace!r} has to be a number of seconds from 0 on.")
        self.state: Literal["new", "starting", "running", "stopping", "stopped"] = "new"
        self.error: BaseException | None = None
        """What made it stop, or None."""
        self._router = router
        self._brokers = brokers
        self._grace = grace
        self._close_timeout = close_timeout
        self._runtime = current_runtime()
        self._stack = AsyncExitStack()
        self._subscriptions: list[RunningSubscription] = []
        self._producers: dict[str | None, EventProducer] = {}
        self._stop_asked: asyncio.Future[None] | None = None
        self._cut: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        if self.state != "new":
            raise ClosedError("A RunningRouter runs once; ask the router for another one.")
        self.state = "starting"
        loop = asyncio.get_running_loop()
        self._make_ready(loop)
        try:
            await self._start()
        except BaseException:
            self.state = "stopped"
            await self._stack.aclose()
            raise
        self.state = "running"
        return self

    def _make_ready(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._stop_asked is None:
            self._stop_asked, self._cut = loop.create_future(), loop.create_future()

    async def _start(self) -> None:
        transports: dict[str | None, Transport] = {}
        for name, broker in self._brokers.items():
            if isinstance(broker, Transport):
                transports[name] = broker
            else:
                config = _BrokerConfig() if broker is None else _BrokerConfig(broker=broker)
                transports[name] = open_transport(config)
                self._stack.push_async_callback(transports[name].close)
        plans = make_plans(self._router.registrations, transports)
        if not plans:
            raise ConfigurationError("The router has no handlers; declare one with @router.subscribe(…).")
        for lifespan in self._router.lifespans:
            await self._stack.enter_async_context(lifespan())
        for name in dict.fromkeys(plan.broker for plan in plans):
            producer = EventProducer(transport=transports[name], close_timeout=self._close_timeout)
            self._producers[name] = await self._stack.enter_async_context(producer)
        for plan in plans:
            subscription = RunningSubscription(
                plan, transports, self._producers[plan.broker], self._runtime, self._failed, self._close_timeout
            )
            self._subscriptions.append(subscription)
            self._stack.push_async_callback(subscription.close)
        for subscription in self._subscriptions:
            await subscription.start()
        for plan in plans:
            logger().info("subscribed", topic=plan.topic, group=plan.group, concurrency=plan.concurrency)

    def _failed(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
            logger().error("the router stops", error=repr(error))
        self.stop()

    def stop(self) -> None:
        """Ask for the end: `wait` returns. To be called from its event loop."""
        if self._stop_asked is not None and not self._stop_asked.done():
            self._stop_asked.set_result(None)

    def cut_off(self) -> None:
        """End at once: handlers that run are cancelled, and their messages come again."""
        self.stop()
        if self._cut is not None and not self._cut.done():
            self._cut.set_result(None)

    async def wait(self) -> None:
        """Return when the end was asked for, or something went wrong that stops the router."""
        assert self._stop_asked is not None
        await asyncio.wait([self._stop_asked])

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self.cut_off()
        await self.end()
        if self.error is not None and error is None:
            raise self.error

    async def end(self) -> None:
        """End before the ``async with`` does: all that leaving it does, but for raising `error`; harmless twice.

        To be awaited in the task that entered, and not in a handler, which would wait for itself.
        """
        if self.state == "stopped":
            return
        self.stop()
        try:
            await self._let_handlers_end()
        finally:
            try:
                await self._stack.aclose()
            finally:
                self.state = "stopped"

    async def _let_handlers_end(self) -> None:
        """Stop fetching, give back what has not begun, and let what runs end, for ``grace`` seconds."""
        self.state = "stopping"
        for subscription in self._subscriptions:
            await subscription.stop_fetching()
        running = self._running()
        if not running:
            return
        assert self._cut is not None
        timer = self._runtime.call_later(self._grace, self.cut_off)
        try:
            while running and not self._cut.done():
                await asyncio.wait([*running, self._cut], return_when=asyncio.FIRST_COMPLETED)
                running = self._running()
        except asyncio.CancelledError:
            self._cancel(running)
            raise
        finally:
            timer.cancel()
        self._cancel(running)
        await self._let_end(running)

    def _running(self) -> set[asyncio.Task[None]]:
        return {task for s in self._subscriptions for task in s.lanes.tasks if not task.done()}

    def _cancel(self, running: set[asyncio.Task[None]]) -> None:
        if running:
            logger().warning("handlers are cut off; their messages come again", handlers=len(running))
        for subscription in self._subscriptions:
            subscription.lanes.cancel()

    async def _let_end(self, running: set[asyncio.Task[None]]) -> None:
        late: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._runtime.call_later(_CUT_OFF, lambda: None if late.done() else late.set_result(None))
        while running and not late.done():
            await asyncio.wait([*running, late], return_when=asyncio.FIRST_COMPLETED)
            running = {task for task in running if not task.done()}
        timer.cancel()
        if running:
            logger().error("handlers do not end though they are cancelled; they are left behind", handlers=len(running))

    # --- from outside ------------------------------------------------------------------------------------------

    @contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT ask for the end, a second one cuts off. Only in the main thread, where they arrive.

        Of several routers in an event loop, all are told.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        self._make_ready(loop)

        def on_signal() -> None:
            if self._stop_asked is None or not self._stop_asked.done():
                self.stop()
            elif self.state in ("new", "starting") and task is not None:
                task.cancel()  # whatever it waits for to begin
            else:
                self.cut_off()

        told = _TOLD.setdefault(loop, [])
        told.append(on_signal)
        if len(told) == 1:
            for number in _SIGNALS:
                with suppress(NotImplementedError):  # Windows: Ctrl+C cancels the main task
                    loop.add_signal_handler(number, lambda: [each() for each in list(told)])
        try:
            yield
        finally:
            told.remove(on_signal)
            if not told:
                del _TOLD[loop]
                for number in _SIGNALS:
                    with suppress(NotImplementedError):
                        loop.remove_signal_handler(number)

    def producer(self, broker: str | None = None) -> EventProducer:
        """The producer on one of the brokers, for the time that the router runs."""
        return self._producers[broker]

    def status(self) -> dict[str, Any]:
        """State, error and subscriptions, for a health check; plain values, ready for JSON."""
        return {
            "state": self.state,
            "error": None if self.error is None else repr(self.error),
            "subscriptions": [subscription.status() for subscription in self._subscriptions],
        }
