"""One message's way: read, dispatch by type, handle, publish what came of it, settle; or retry, or keep it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from commons_events.binding._reading import NOTHING_KNOWN, ROUTING, KnownReading, known_reading, to_event
from commons_events.dead_letters import REDRIVEN_GROUP
from commons_events.errors import (
    DeserializationError,
    UnhandledEventError,
    UnknownEventTypeError,
)
from commons_events.event import Event, registry
from commons_events.log import logger
from commons_events.message import Headers
from commons_events.router._consumer import RouterConsumer
from commons_events.router._cut_off import CutOff, cancelled
from commons_events.router._failures import Failures
from commons_events.router._handler import Handler, HandlerCall
from commons_events.router._lanes import Lane
from commons_events.router._parked import ParkedKeys, Turn
from commons_events.router._plan import Plan
from commons_events.router._results import ResultPublisher
from commons_events.router._settling import acknowledge
from commons_events.runtime import Runtime
from commons_events.transport import DONE, Delivery

__all__ = ["Bound", "Processor"]


@dataclass(slots=True)
class Bound:
    """A handler as this subscription calls it."""

    handler: Handler
    event_class: type[Event]
    call: HandlerCall
    with_middleware: Callable[[Any, Any, int], Awaitable[Any]] | None
    plain: bool
    """Whether there is nothing around the call: no filter, middleware, bound on time or bound on deliveries."""


class Processor:
    """Handles the first message of a lane: the `Step` of one subscription.

    Args:
        plan: the subscription.
        consumer: whose messages they are.
        bound: its handlers by event type; ``""`` for the one that takes all other events.
        prefix: what stands before a CloudEvents attribute's name in a header.
        failures: retries and keeps.
        results: publishes what handlers return.
        parked: the keys that stand still, or None where none do.
        cut_off: tells the router's cancelling from others'.
        runtime: its clock.
    """

    def __init__(
        self,
        plan: Plan,
        consumer: RouterConsumer,
        bound: dict[str, Bound],
        *,
        prefix: str,
        failures: Failures,
        results: ResultPublisher,
        parked: ParkedKeys | None,
        cut_off: CutOff,
        runtime: Runtime,
    ) -> None:
        self._plan = plan
        self._consumer = consumer
        self._bound = bound
        self._by_header = {name.encode(): one for name, one in bound.items() if name}
        self._rest = bound.get("")
        self._by_base: tuple[int, dict[bytes, Bound | None]] = -1, {}
        """Of types that have no handler of their own: that of a base class. They hold for that many changes of the
        registry, since a class may be made after the start."""
        self._only = next(iter(bound.values())) if len(bound) == 1 else None
        self._prefix = prefix
        self._type = f"{prefix}type"
        self._failures = failures
        self._results = results
        self._parked = parked
        self._cut_off = cut_off
        self._runtime = runtime
        self._retry_topic = plan.topic != plan.origin
        self._known = NOTHING_KNOWN, _NOBODY
        """How the latest message was read, and who handled it: those of one class mostly come together."""
        self._all_known: dict[Headers, tuple[KnownReading, Bound]] = {}
        """The same of others, by their first headers."""
        self._usual = ROUTING + 3
        self._id, self._source, self._time = f"{prefix}id", f"{prefix}source", f"{prefix}time"

    async def step(self, lane: Lane) -> float | None:
        """See `Step`."""
        if lane.last_step is not None:
            return await self._failures.finish(lane)
        delivery = lane.deliveries[0]
        turn: Turn | None = None
        headers = dict(delivery.headers)
        if self._parked is not None or self._retry_topic or REDRIVEN_GROUP in headers:
            wait = await self._may_begin(lane, delivery, headers)
            if isinstance(wait, Turn):
                turn = wait
                if turn.done:
                    return turn.wait
            elif wait is not None:
                return wait
            elif delivery.outcome is not None:
                return None
        try:
            one, event = self.read(delivery, headers)
        except DeserializationError as error:
            return await self._failures.undecodable(lane, error, turn)
        if one is None:
            return await self.unhandled(lane, headers, turn)
        try:
            if self._consumer.recorded:
                with self._consumer.telemetry.process((delivery,)):
                    await self._handle(one, event, delivery, lane, headers)
            else:
                await self._handle(one, event, delivery, lane, headers)
        except BaseException as error:  # noqa: BLE001  # a user's code; whatever it raises, the policy decides
            return await self.failed(lane, one, error, turn)
        if turn is not None and turn.head is not None:
            return await self._failures.resolve(lane, turn)
        told = self._consumer.finish(delivery)
        if told is not DONE:
            await told
        return None

    def _handler_of(self, name: bytes) -> Bound | None:
        """The handler for an event type: its own, one of the nearest base class, or the one for all others."""
        one = self._by_header.get(name)
        if one is not None:
            return one
        changes, found = self._by_base
        if changes != registry.changes or len(found) >= _MOST_KNOWN:  # foreign headers can name anything
            changes, found = self._by_base = registry.changes, {}
        if name not in found:
            found[name] = self._handler_of_base(name.decode(errors="replace"))
        return found[name]

    def _handler_of_base(self, name: str) -> Bound | None:
        event_class = registry.get(name)
        by_class = {one.event_class: one for one in self._bound.values() if one is not self._rest}
        if event_class is not None:
            for base in event_class.__mro__:
                if base in by_class:
                    return replace(by_class[base], event_class=event_class)
        return self._rest

    async def _handle(self, one: Bound, event: Any, delivery: Delivery, lane: Lane, headers: dict[str, bytes]) -> None:
        call = one.call(event, delivery) if one.plain else self._call(one, event, delivery, lane, headers)
        result = await call
        await self._cut_off.clear()
        if delivery in self._consumer.rejected:
            raise self._consumer.rejected[delivery]
        if result is not None:
            await self.publish(one, result, event, delivery)

    async def publish(self, one: Bound, result: Any, event: Event, delivery: Delivery) -> None:
        """See `ResultPublisher.publish`."""
        await self._results.publish(one.handler, result, event, delivery)

    async def failed(self, lane: Lane, one: Bound, error: BaseException, turn: Turn | None = None) -> float | None:
        """The handler of the lane's first message raised ``error``: see `Failures.failed`.

        Raises:
            CancelledError: the router has cut the handler off.
            BaseException: ``error``, where it is not about the message: it ends the router.
        """
        if not isinstance(error, Exception | asyncio.CancelledError):
            raise error
        await self._cut_off.clear()
        if isinstance(error, asyncio.CancelledError):
            error = cancelled(one.handler.place, error)
        headers = dict(lane.deliveries[0].headers)
        return await self._failures.failed(lane, one.handler, error, headers, turn)

    # --- what is like the message before ---------------------------------------------------------------------------

    def _remember(self, headers: Headers, one: Bound) -> None:
        """Let the next messages that begin so take the short way, if there is nothing around the handler's call."""
        if not one.plain or self._parked is not None or self._retry_topic:
            return
        known = known_reading(headers, one.event_class, prefix=self._prefix)
        # a header may come twice, and the last one has decided
        if known is not None and self._handler_of(known.first[2][1]) is one:
            if len(self._all_known) >= _MOST_KNOWN:  # foreign headers can name anything
                self._all_known.clear()
            self._known = self._all_known[known.first] = known, one

    def read_plain(self, delivery: Delivery) -> tuple[Bound, Any] | None:
        """As `read`, where nothing but the call of the handler is to be done, and no look at the headers is needed.

        None where that is not known, nor anything of what may be wrong.
        """
        headers = delivery.headers
        known, one = self._known
        first = headers[:ROUTING]
        if first != known.first:  # equal ones are told so in a fraction of the time that hashing them takes
            self._known = known, one = self._all_known.get(first, (NOTHING_KNOWN, _NOBODY))
        value = delivery.value
        if (
            not value
            or not value.startswith(known.head)
            or known.changes != registry.changes
            # a look at all names costs as much as the call of a handler
            or (
                REDRIVEN_GROUP in [name for name, _ in headers[ROUTING:]]
                if len(headers) != self._usual
                else headers[4][0] != self._id or headers[5][0] != self._source or headers[6][0] != self._time
            )
        ):
            return None
        try:
            return one, known.decode(value)
        except DeserializationError:
            return None

    async def _may_begin(self, lane: Lane, delivery: Delivery, headers: dict[str, bytes]) -> Turn | float | None:
        if self.is_for_another_group(headers):
            await acknowledge(delivery)
            return None
        if self._retry_topic:
            wait = self._failures.seconds_until_due(headers)
            if wait > 0:
                return wait
        if self._parked is not None:
            return await self._parked.turn(lane, delivery, headers)
        return None

    def is_for_another_group(self, headers: dict[str, bytes]) -> bool:
        """Whether a message was redriven for another group of the topic."""
        group = headers.get(REDRIVEN_GROUP)
        return group is not None and group.decode(errors="replace") != self._plan.group

    def read(self, delivery: Delivery, headers: dict[str, bytes]) -> tuple[Bound | None, Any]:
        """The handler for a message and the event in it; no handler where none takes its type.

        Raises:
            DeserializationError: it is no event.
        """
        name = headers.get(self._type)
        if name is not None:
            one = self._handler_of(name)
            if one is None:
                return None, None
            event = to_event(delivery.message, one.event_class, prefix=self._prefix)
            self._remember(delivery.headers, one)
            return one, event
        # Without a header the bytes say it, or the only class there is has to do.
        try:
            event = delivery.event()
        except UnknownEventTypeError:
            if self._only is None or b'"specversion"' in delivery.value[:4096]:
                if b'"event_type"' in delivery.value or b'"specversion"' in delivery.value:
                    return None, None  # an event, but of no type that anybody knows here
                raise
            return self._only, delivery.event(self._only.event_class)
        one = self._handler_of(event.event_type.encode())
        if one is not None and one.event_class is not Event and type(event) is not one.event_class:
            event = delivery.event(one.event_class)  # of another version
        return one, event

    async def _call(self, one: Bound, event: Any, delivery: Delivery, lane: Lane, headers: dict[str, bytes]) -> Any:
        registration = one.handler.registration
        attempt = self._failures.attempt(lane, headers)
        if lane.first_try is None and registration.retry.within is not None:
            lane.first_try = self._runtime.monotonic()
        most = registration.retry.max_deliveries
        if most is not None and delivery.attempt > most:
            raise self._failures.too_many(delivery, most)
        if registration.filter is not None and not await one.handler.wants(event):
            logger().debug("filtered out", handler=one.handler.name, delivery=repr(delivery))
            return None
        if one.with_middleware is None:
            return await one.call(event, delivery)
        return await one.with_middleware(event, delivery, attempt)

    async def unhandled(self, lane: Lane, headers: dict[str, bytes], turn: Turn | None) -> float | None:
        """No handler takes the type of the lane's first message: the stated policy decides."""
        delivery = lane.deliveries[0]
        name = headers.get(self._type, b"?").decode(errors="replace")
        if self._plan.unhandled == "error":
            error = UnhandledEventError(
                f"No handler on {self._plan.name} takes events of type {name!r}; there are handlers for: "
                f"{', '.join(repr(known) for known in self._bound)}."
            )
            return await self._failures.keep(lane, "no handler for its type", error, headers, turn)
        logger().debug("no handler for its type", type=name, delivery=repr(delivery))
        if turn is not None and turn.head is not None:
            return await self._failures.resolve(lane, turn)
        await acknowledge(delivery)
        return None


_MOST_KNOWN = 256
_NOBODY: Any = None
"""Who handles messages that nothing is known of."""
