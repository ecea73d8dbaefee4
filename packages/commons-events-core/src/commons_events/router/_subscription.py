"""A plan that runs: its consumer, its lanes, and what is done with their messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from commons_events.dead_letters import Journal
from commons_events.errors import HandlerTimeoutError
from commons_events.event import Event
from commons_events.producers import EventProducer
from commons_events.router._batches import Batches
from commons_events.router._bridge import Forwarder
from commons_events.router._consumer import RouterConsumer
from commons_events.router._failures import Failures
from commons_events.router._handler import Handler
from commons_events.router._lanes import Lane, LaneWorkers
from commons_events.router._parked import ParkedKeys
from commons_events.router._parking import Parking
from commons_events.router._plan import Plan
from commons_events.router._processor import Bound, Processor
from commons_events.router._results import ResultPublisher
from commons_events.router._settling import acknowledge
from commons_events.router._threads import HandlerThreads
from commons_events.runtime import Runtime
from commons_events.transport import Transport

__all__ = ["RunningSubscription"]

_BATCH = 500
_LEFT = 100
"""Threads that hang in handlers, at which the router gives up."""


class RunningSubscription:
    """One plan with what it needs to run.

    Args:
        plan: the subscription.
        brokers: all transports of the router, by name.
        producer: of the plan's broker.
        runtime: its clock, chance and ids.
        fail: is told what must stop the router.
        close_timeout: seconds that closing waits for the broker.
    """

    def __init__(
        self,
        plan: Plan,
        brokers: Mapping[str | None, Transport],
        producer: EventProducer,
        runtime: Runtime,
        fail: Callable[[BaseException], None],
        close_timeout: float,
    ) -> None:
        self.plan = plan
        self._fail = fail
        self._executor: HandlerThreads | None = None
        self._fetching: asyncio.Task[None] | None = None
        transport = brokers[plan.broker]
        self.consumer = RouterConsumer(
            transport=transport,
            topics=(plan.topic,),
            group_id=plan.group,
            start=plan.start,
            batch_size=min(_BATCH, plan.prefetch),
            max_unsettled=2 * plan.prefetch + _BATCH,
            close_timeout=close_timeout,
        )
        self.lanes = LaneWorkers(
            self.consumer,
            self._step,
            concurrency=plan.concurrency,
            prefetch=plan.prefetch,
            runtime=runtime,
            fail=fail,
        )
        self._parking = self._make_parking(transport, runtime)
        failures = Failures(
            plan,
            transport,
            release_followers=self.lanes.release_followers,
            finish=acknowledge,
            parking=self._parking,
            rejected=self.consumer.rejected,
            runtime=runtime,
        )
        parked = None
        if self._parking is not None:
            parked = ParkedKeys(self._parking, failures.park, acknowledge, failures.backoff)
            self.lanes.also_revoked = self._parking.forget
        processor = Processor(
            plan,
            self.consumer,
            {
                ("" if cls is Event else cls.event_type): self._bind(handler, cls, runtime)
                for handler, cls in _classes(plan)
            },
            prefix=transport.header_prefix,
            failures=failures,
            results=ResultPublisher(producer),
            parked=parked,
            cut_off=self.lanes.cut_off,
            runtime=runtime,
        )
        self.lanes.step = processor.step
        if not plan.bridges and plan.batch is None:
            self.lanes.plain = processor
        for registration in plan.bridges:
            if registration.bridge is not None:
                target = brokers[registration.bridge.to_broker]
                self.lanes.step = Forwarder(registration.bridge, transport, target, failures).step
        if plan.batch is not None:
            call = plan.batch.bind(self._threads, runtime)
            Batches(
                self.lanes,
                plan.batch,
                read=processor,
                call=call,
                with_middleware=plan.batch.in_middleware(call, plan.group, self.lanes),
                failures=failures,
                runtime=runtime,
            )

    async def _step(self, lane: Lane) -> float | None:
        raise AssertionError("replaced in the constructor")

    def _make_parking(self, transport: Transport, runtime: Runtime) -> Parking | None:
        letters = self.plan.dead_letter
        if letters is None or letters.order != "key":
            return None
        return Parking(
            Journal(transport, letters.topic), self.plan.origin, self.plan.group, letters.check_every, runtime
        )

    def _bind(self, handler: Handler, cls: type[Event], runtime: Runtime) -> Bound:
        call = handler.bind(self._threads, runtime)
        registration = handler.registration
        through = handler.in_middleware(call, self.plan.group, self.lanes)
        plain = (
            through is None
            and registration.filter is None
            and registration.retry.max_deliveries is None
            and registration.retry.within is None
        )
        return Bound(handler, cls, call, through, plain)

    def _threads(self) -> HandlerThreads:
        if self._executor is None:
            self._executor = HandlerThreads(self.plan.concurrency, f"{self.plan.group}-handler")
        if self._executor.left >= _LEFT:
            self._fail(
                HandlerTimeoutError(
                    f"{self._executor.left} calls of handlers on {self.plan.name} hang in threads, which nobody can "
                    "stop; the router ends, so that a new process can go on."
                )
            )
        return self._executor

    async def start(self) -> None:
        """Join the group, and begin to fetch.

        Raises:
            TransportError: the broker refused; ConnectionLostError where it is out of reach.
        """
        await self.consumer.start()
        self._fetching = asyncio.get_running_loop().create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            await self.lanes.fetch()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever it is, nothing comes any more: the router ends by it
            self._fail(error)

    async def stop_fetching(self) -> None:
        """Begin no more handlers, and give back what has not begun."""
        self.lanes.stop()
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        self.lanes.give_back()
        await self.lanes.all_settled()

    async def close(self) -> None:
        """Leave the group; what is unsettled comes again."""
        await self.consumer.close()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def status(self) -> dict[str, Any]:
        """For a health check."""
        return {
            "topic": self.plan.topic,
            "group": self.plan.group,
            "broker": self.plan.broker,
            "buffered": self.lanes.buffered,
            "running": self.lanes.running,
            "paused": self.lanes.paused,
        }


def _classes(plan: Plan) -> list[tuple[Handler, type[Event]]]:
    return [(handler, cls) for handler in plan.handlers for cls in handler.signature.events]
