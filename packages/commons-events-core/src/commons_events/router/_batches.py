"""Batches: several messages in one call of a handler, and an outcome for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from commons_events.errors import BatchHandlerError, DeserializationError, HandlerResultError
from commons_events.event import Event
from commons_events.log import logger
from commons_events.router._cut_off import cancelled
from commons_events.router._failures import Failures
from commons_events.router._handler import Handler, HandlerCall
from commons_events.router._lanes import Lane, LaneWorkers
from commons_events.router._processor import Processor
from commons_events.router._settling import acknowledge
from commons_events.runtime import Runtime
from commons_events.transport import DONE, Delivery

__all__ = ["Batches"]


class _Item(NamedTuple):
    """A message of a batch."""

    alone: Lane | None
    """A lane of its own, see `_alone`; None where it has not failed yet, and may never need one."""
    delivery: Delivery
    event: Event


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
        probing = self._lanes.probing
        taken: list[Lane] = []
        room = self._size
        while room and (lane := self._lanes.take()) is not None:
            lane.taken = min(len(lane.deliveries), room)
            taken.append(lane)
            room -= lane.taken
        if taken:
            self._lanes.spawn(self._run(taken, probing))

    async def _run(self, taken: list[Lane], probing: int | None) -> None:
        try:
            waits = await self._handle(taken)
        except BaseException as error:  # noqa: BLE001  # also SystemExit: the router ends, and raises it where it runs
            self._lanes.broke(error)
            return
        for lane, wait in waits:
            self._lanes.put_back(lane, wait)
        self._lanes.probed(probing)

    async def _handle(self, taken: list[Lane]) -> list[tuple[Lane, float | None]]:
        unfinished: dict[Delivery, float] = {}
        items: list[_Item] = []
        began = self._runtime.monotonic()
        for lane in taken:
            for delivery in lane.deliveries[: lane.taken]:
                if delivery.outcome is not None:  # given back meanwhile
                    continue
                alone = self._alone.get(delivery)
                found = self._read.read_plain(delivery) if alone is None else None
                if found is not None:
                    items.append(_Item(None, delivery, found[1]))
                    continue
                wait = await self._prepare(alone or _alone(delivery, began), delivery, items)
                if wait is not None:
                    unfinished[delivery] = wait
        finish, rejected = self._lanes.consumer.finish, self._lanes.consumer.rejected
        for item, outcome in zip(items, await self._outcomes(items), strict=True):
            error = outcome or (rejected.get(item.delivery) if rejected else None)
            if error is None:
                told = finish(item.delivery)
                if told is not DONE:
                    await told
            else:
                wait = await self._failed(item, error, began)
                if wait is not None:
                    unfinished[item.delivery] = wait
        waits: list[tuple[Lane, float | None]] = []
        for lane in taken:
            own = lane.deliveries[: lane.taken]
            left = [delivery for delivery in own if delivery in unfinished] if unfinished else []
            if self._alone:
                for delivery in own:
                    if delivery not in unfinished:
                        self._alone.pop(delivery, None)
            self._lanes.buffered -= len(own) - len(left)
            lane.deliveries[: lane.taken] = left
            lane.tries = len(left)  # not zero: it has failed
            waits.append((lane, max((unfinished[delivery] for delivery in left), default=None)))
        return waits

    async def _prepare(self, alone: Lane, delivery: Delivery, items: list[_Item]) -> float | None:
        """Put a message among those of the batch; the seconds to wait where it is not to be handled yet."""
        if alone.last_step is not None:
            return await self._failures.finish(alone)
        headers = dict(delivery.headers)
        if self._read.is_for_another_group(headers):
            await acknowledge(delivery)
            return None
        wait = self._failures.seconds_until_due(headers)
        if wait > 0:
            return wait
        try:
            one, event = self._read.read(delivery, headers)
        except DeserializationError as error:
            self._alone[delivery] = alone
            return await self._failures.undecodable(alone, error, None)
        if one is None:
            return await self._read.unhandled(alone, headers, None)
        item = _Item(alone, delivery, event)
        try:
            wanted = await self._handler.wants(event)
        except Exception as error:  # noqa: BLE001  # a user's code; whatever it raises, the policy decides
            return await self._failed(item, error, self._runtime.monotonic())
        if not wanted:
            await acknowledge(delivery)
            return None
        items.append(item)
        return None

    async def _outcomes(self, items: list[_Item]) -> list[Exception | None]:
        """What became of each."""
        if not items:
            return []
        events, deliveries = [item.event for item in items], [item.delivery for item in items]
        handler = self._handler
        try:
            attempt = 1 + max(item.alone.tries if item.alone is not None else 0 for item in items)
            through = self._with_middleware
            call = self._call(events, deliveries) if through is None else through(events, deliveries, attempt)
            with self._span(deliveries):
                result = await call
            await self._lanes.cut_off.clear()
            failures = handler.failures(result, len(items))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever it raises, the policy decides
            await self._lanes.cut_off.clear()
            if isinstance(error, asyncio.CancelledError):
                return [cancelled(handler.place, error)] * len(items)
            if not isinstance(error, BatchHandlerError):
                return [error] * len(items)
            strange = [place for place in error.failures if not 0 <= place < len(items)]
            if strange:
                wrong = HandlerResultError(
                    f"The batch handler {handler.place} raised BatchHandlerError for the places {strange}; the batch "
                    f"had {len(items)} events."
                )
                return [wrong] * len(items)
            failures = error.failures
        return [failures.get(place) for place in range(len(items))]

    def _span(self, deliveries: list[Delivery]) -> AbstractContextManager[None]:
        consumer = self._lanes.consumer
        return consumer.telemetry.process(deliveries, batch=True) if consumer.recorded else nullcontext()

    async def _failed(self, item: _Item, error: Exception, began: float) -> float | None:
        alone = self._alone[item.delivery] = item.alone or _alone(item.delivery, began)
        logger().debug("failed in a batch", handler=self._handler.name, delivery=repr(item.delivery))
        return await self._failures.failed(alone, self._handler, error, dict(item.delivery.headers), None)


def _alone(delivery: Delivery, began: float) -> Lane:
    """A lane that keeps this message's tries while others of its batch go."""
    alone = Lane(delivery.key, delivery)
    alone.first_try = began
    return alone
