"""Batches: several messages in one call of a handler, and an outcome for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from commons_events.errors import BatchHandlerError, DeserializationError, HandlerCancelledError, HandlerResultError
from commons_events.event import Event
from commons_events.log import logger
from commons_events.router._failures import Failures
from commons_events.router._handler import Handler, HandlerCall, with_timeout
from commons_events.router._lanes import Lane, LaneWorkers
from commons_events.router._processor import Processor
from commons_events.router._settling import acknowledge
from commons_events.runtime import Runtime
from commons_events.transport import Delivery

__all__ = ["Batches"]


class _Item(NamedTuple):
    """A message of a batch in a lane of its own, which keeps its tries while the others go."""

    alone: Lane
    delivery: Delivery
    event: Event
    headers: dict[str, bytes]


class Batches:
    """Makes batches of the lanes' messages, in order within a key, and settles each message by its own outcome.

    A batch begins when ``batch_size`` messages are there, or ``batch_wait`` seconds after the first of them. While a
    key is in a batch it is in no other.
    """

    def __init__(
        self,
        lanes: LaneWorkers,
        handler: Handler,
        *,
        read: Processor,
        call: HandlerCall,
        with_middleware: Callable[[Any, Any, int], Awaitable[Any]] | None,
        failures: Failures,
        runtime: Runtime,
    ) -> None:
        self._lanes = lanes
        self._handler = handler
        self._read = read
        self._call = call
        self._with_middleware = with_middleware
        self._failures = failures
        self._runtime = runtime
        self._size = handler.registration.batch_size
        self._wait = handler.registration.batch_wait
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        self._alone: dict[Delivery, Lane] = {}
        """Of messages that have failed and are not done with; as many as are in the lanes at most."""
        lanes.on_new = self._consider

    def _consider(self) -> None:
        lanes = self._lanes
        while lanes.running < lanes.concurrency and lanes.ready_lanes and lanes.may_begin:
            if not self._due and lanes.count_ready(self._size) < self._size:
                if self._timer is None:
                    self._timer = self._runtime.call_later(self._wait, self._linger)
                return
            self._due = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._begin()

    def _linger(self) -> None:
        self._timer = None
        self._due = True
        self._consider()

    def _begin(self) -> None:
        taken: list[tuple[Lane, int]] = []
        room = self._size
        while room and (lane := self._lanes.take()) is not None:
            count = min(len(lane.deliveries), room)
            taken.append((lane, count))
            room -= count
        if taken:
            self._lanes.spawn(self._run(taken))

    async def _run(self, taken: list[tuple[Lane, int]]) -> None:
        try:
            waits = await self._handle(taken)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # also SystemExit: the router ends, and raises it where it runs
            self._lanes.fail(error)
            return
        for lane, wait in waits:
            self._lanes.put_back(lane, wait)

    async def _handle(self, taken: list[tuple[Lane, int]]) -> list[tuple[Lane, float | None]]:
        outcomes: dict[Delivery, float | None] = {}
        items: list[_Item] = []
        for lane, count in taken:
            for delivery in list(lane.deliveries)[:count]:
                if delivery.outcome is not None:  # given back meanwhile
                    outcomes[delivery] = None
                    continue
                await self._prepare(lane, delivery, items, outcomes)
        for item, error in zip(items, await self._outcomes(items), strict=True):
            outcomes[item.delivery] = await self._settle(item, error)
        waits: list[tuple[Lane, float | None]] = []
        for lane, count in taken:
            own = lane.deliveries[:count]
            left = [delivery for delivery in own if outcomes[delivery] is not None]
            for delivery in own:
                if outcomes[delivery] is None:
                    self._alone.pop(delivery, None)
            self._lanes.buffered -= len(own) - len(left)
            lane.deliveries[:count] = left
            lane.tries = len(left)  # not zero: it has failed
            waits.append((lane, max((outcomes[delivery] or 0.0 for delivery in left), default=None)))
        return waits

    async def _prepare(
        self, lane: Lane, delivery: Delivery, items: list[_Item], outcomes: dict[Delivery, float | None]
    ) -> None:
        alone = self._alone.get(delivery)
        if alone is None:
            alone = Lane(lane.key, delivery)
            alone.first_try = self._runtime.monotonic()
        elif alone.last_step is not None:
            outcomes[delivery] = await self._failures.finish(alone)
            return
        headers = dict(delivery.message.headers)
        wait = self._failures.seconds_until_due(headers)
        if wait > 0:
            outcomes[delivery] = wait
            return
        try:
            one, event = self._read.read(delivery, headers)
        except DeserializationError as error:
            self._alone[delivery] = alone
            outcomes[delivery] = await self._failures.undecodable(alone, error, None)
            return
        if one is None:
            outcomes[delivery] = await self._read.unhandled(alone, headers, None)
            return
        wanted = self._handler.registration.filter
        if wanted is not None and not wanted(event):
            await acknowledge(delivery)
            outcomes[delivery] = None
            return
        items.append(_Item(alone, delivery, event, headers))

    async def _outcomes(self, items: list[_Item]) -> list[Exception | None]:
        """What became of each."""
        if not items:
            return []
        events, deliveries = [item.event for item in items], [item.delivery for item in items]
        handler = self._handler
        try:
            attempt = 1 + max(item.alone.tries for item in items)
            through = self._with_middleware
            call = self._call(events, deliveries) if through is None else through(events, deliveries, attempt)
            timeout = handler.registration.timeout
            if timeout is not None:
                call = with_timeout(call, timeout, handler, self._runtime)
            with self._span(deliveries):
                result = await call
            failures = handler.failures(result, len(items))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            cancelled = HandlerCancelledError(
                f"The handler {handler.place} raised CancelledError by itself: {error!r}."
            )
            return [cancelled] * len(items)
        except BatchHandlerError as error:
            strange = [place for place in error.failures if not 0 <= place < len(items)]
            if strange:
                wrong = HandlerResultError(
                    f"The batch handler {handler.place} raised BatchHandlerError for the places {strange}; the batch "
                    f"had {len(items)} events."
                )
                return [wrong] * len(items)
            failures = error.failures
        except Exception as error:  # noqa: BLE001  # a user's code; whatever it raises, the policy decides
            return [error] * len(items)
        return [failures.get(place) for place in range(len(items))]

    def _span(self, deliveries: list[Delivery]) -> AbstractContextManager[None]:
        consumer = self._lanes.consumer
        return consumer.telemetry.process(deliveries, batch=True) if consumer.recorded else nullcontext()

    async def _settle(self, item: _Item, error: Exception | None) -> float | None:
        if error is None:
            await acknowledge(item.delivery)
            return None
        self._alone[item.delivery] = item.alone
        logger().debug("failed in a batch", handler=self._handler.name, delivery=repr(item.delivery))
        return await self._failures.failed(item.alone, self._handler, error, item.headers, None)
