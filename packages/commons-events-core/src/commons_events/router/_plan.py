"""What a router is going to run: handlers by broker, topic and group; and everything that can be known to be wrong."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from commons_events.errors import CapabilityError, HandlerDefinitionError
from commons_events.event import Event, check_migrations
from commons_events.router._handler import Handler
from commons_events.router._options import DeadLetters, Registration
from commons_events.transport import Transport

__all__ = ["Plan", "make_plans"]

T = TypeVar("T")

CONCURRENCY = 16
PREFETCH = 1000


@dataclass(kw_only=True)
class Plan:
    """One subscription: the handlers of one topic and group on one broker."""

    broker: str | None
    topic: str
    group: str
    origin: str
    """The topic that the messages were first published to; another one than ``topic`` for a retry topic."""
    concurrency: int = CONCURRENCY
    prefetch: int = PREFETCH
    dead_letter: DeadLetters | None = None
    unhandled: Literal["ignore", "error"] = "ignore"
    start: Literal["earliest", "latest"] = "earliest"
    handlers: list[Handler] = field(default_factory=list)
    bridges: list[Registration] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For messages to people."""
        return f"topic {self.topic!r}, group {self.group!r}"

    @property
    def batch(self) -> Handler | None:
        """The batch handler, which has its subscription for itself."""
        return next((handler for handler in self.handlers if handler.signature.batch), None)


def make_plans(registrations: Iterable[Registration], brokers: Mapping[str | None, Transport]) -> list[Plan]:
    """The subscriptions for these handlers on these brokers.

    Raises:
        HandlerDefinitionError: a handler cannot work, or handlers contradict each other; the message names them.
        CapabilityError: a broker lacks what a handler asks for.
        MissingMigrationError: an older version of an event cannot be read as the class that a handler takes.
        InvalidTopicError: a broker takes no such name.
    """
    plans: dict[tuple[str | None, str, str], Plan] = {}
    for registration in registrations:
        handler = Handler(registration) if registration.bridge is None else None
        for topic in registration.topics:
            _check_broker(registration, brokers)
            _add(plans, registration, handler, topic, topic)
            if handler is not None and registration.retry.by == "topic":
                retry_topic = registration.retry.topic or f"{topic}.{registration.group}.retry"
                _add(plans, registration, handler, retry_topic, topic)
    for plan in plans.values():
        _settle_options(plan)
        _check_types(plan)
        transport = brokers[plan.broker]
        transport.check_topic(plan.topic)
        if plan.topic != plan.origin:
            transport.check_target(plan.topic)
        if plan.dead_letter is not None:
            transport.check_target(plan.dead_letter.topic)
        _check_places(plan, transport)
        for registration in plan.bridges:
            if registration.bridge is not None:
                brokers[registration.bridge.to_broker].check_target(registration.bridge.to)
        _check_capabilities(plan, transport)
    events = {cls for plan in plans.values() for h in plan.handlers for cls in h.signature.events if cls is not Event}
    if events:
        check_migrations(*events)
    return list(plans.values())


def _check_broker(registration: Registration, brokers: Mapping[str | None, Transport]) -> None:
    asked = [registration.broker]
    if registration.bridge is not None:
        asked.append(registration.bridge.to_broker)
    for name in asked:
        if name not in brokers:
            known = ", ".join(repr(known) for known in brokers if known is not None) or "none by name"
            raise HandlerDefinitionError(
                f"{_who(registration)} asks for the broker {name!r}, which run(brokers=…) does not name; there are: "
                f"{known}."
            )


def _add(
    plans: dict[tuple[str | None, str, str], Plan],
    registration: Registration,
    handler: Handler | None,
    topic: str,
    origin: str,
) -> None:
    key = registration.broker, topic, registration.group
    plan = plans.get(key)
    if plan is None:
        plan = plans[key] = Plan(broker=registration.broker, topic=topic, group=registration.group, origin=origin)
    elif plan.origin != origin:
        raise HandlerDefinitionError(
            f"{_who(registration)}: {topic!r} would be the retry topic of both {plan.origin!r} and {origin!r} in group "
            f"{plan.group!r}; give each a Retry(topic=…) of its own."
        )
    if handler is not None:
        plan.handlers.append(handler)
    else:
        plan.bridges.append(registration)


def _who(registration: Registration) -> str:
    if registration.bridge is not None:
        return f"The bridge from {registration.topics[0]!r} to {registration.bridge.to!r}"
    return f"The handler {Handler(registration).place}"


def _registrations(plan: Plan) -> list[Registration]:
    return [handler.registration for handler in plan.handlers] + plan.bridges


def _settle_options(plan: Plan) -> None:
    """What belongs to a subscription as a whole may be said by each of its handlers, but not differently."""
    registrations = _registrations(plan)
    plan.concurrency = _agreed(plan, "concurrency", [r.concurrency for r in registrations]) or CONCURRENCY
    plan.prefetch = _agreed(plan, "prefetch", [r.prefetch for r in registrations]) or max(
        PREFETCH, plan.concurrency * 2
    )
    plan.dead_letter = _agreed(plan, "dead_letter", [r.dead_letter for r in registrations])
    plan.unhandled = _agreed(plan, "unhandled", [r.unhandled for r in registrations]) or "ignore"
    plan.start = _agreed(plan, "start", [r.start for r in registrations]) or "earliest"
    if plan.batch is not None and plan.batch.registration.concurrency is None:
        plan.concurrency = 1


def _agreed(plan: Plan, name: str, values: list[T | None]) -> T | None:
    stated = list(dict.fromkeys(value for value in values if value is not None))
    if len(stated) > 1:
        raise HandlerDefinitionError(
            f"The handlers of {plan.name} share one subscription, and say different things of its {name}: "
            f"{', '.join(repr(value) for value in stated)} ({', '.join(h.place for h in plan.handlers)}). Say it once."
        )
    return stated[0] if stated else None


def _check_types(plan: Plan) -> None:
    taken: dict[str, Handler] = {}
    if plan.bridges and (plan.handlers or len(plan.bridges) > 1):
        raise HandlerDefinitionError(
            f"The bridge on {plan.name} shares its group with another handler, so each would get only some of the "
            "messages. Give it a group of its own."
        )
    if plan.batch is not None and len(plan.handlers) > 1:
        raise HandlerDefinitionError(
            f"The batch handler {plan.batch.place} shares {plan.name} with other handlers. Let it take a list of a "
            "union (list[A | B]), or give it a group of its own."
        )
    if plan.batch is not None and plan.dead_letter is not None and plan.dead_letter.order == "key":
        raise HandlerDefinitionError(
            f"The batch handler {plan.batch.place} is given the followers of a key along with it, so its dead letters "
            "cannot keep the key's order: use order='none', or a handler of single events."
        )
    for handler in plan.handlers:
        for cls in handler.signature.events:
            name = "" if cls is Event else cls.event_type
            other = taken.setdefault(name, handler)
            if other is not handler:
                what = "all other events" if cls is Event else f"events of type {name!r}"
                raise HandlerDefinitionError(
                    f"Two handlers take {what} on {plan.name}: {other.place} and {handler.place}. Each message has one "
                    "handler in a group; give one of them another group."
                )
        _check_outputs(handler)


def _check_outputs(handler: Handler) -> None:
    publishes, returns = handler.registration.publish_to is not None, handler.signature.returns
    if publishes and handler.signature.batch:
        raise HandlerDefinitionError(
            f"The batch handler {handler.place} has publish_to=, but what a batch handler returns are the outcomes of "
            "its events. Publish by a producer of your own."
        )
    if handler.signature.batch or returns is inspect.Signature.empty or returns is Any:
        return
    members = get_args(returns) if get_origin(returns) in (Union, type(int | str)) else (returns,)
    events = [m for m in members if isinstance(m, type) and issubclass(m, Event)]
    if events and not publishes:
        raise HandlerDefinitionError(
            f"The handler {handler.place} returns {events[0].__qualname__}, which has nowhere to go: give publish_to=."
        )
    if publishes and not events:
        raise HandlerDefinitionError(
            f"The handler {handler.place} has publish_to={handler.registration.publish_to!r}, but is annotated to "
            f"return {returns!r}, which is no event."
        )
    wrong = [m for m in members if m not in (None, type(None)) and m not in events and get_origin(m) is None]
    if wrong and (events or publishes):
        raise HandlerDefinitionError(
            f"The handler {handler.place} is annotated to return {wrong[0]!r}, which cannot be published; events can."
        )


def _check_places(plan: Plan, transport: Transport) -> None:
    letters = plan.dead_letter.topic if plan.dead_letter is not None else None
    if letters is not None and any(transport.receives(topic, letters) for topic in (plan.topic, plan.origin)):
        raise HandlerDefinitionError(
            f"The dead-letter topic {letters!r} of {plan.name} is its own source: it would feed itself. Name another "
            f"({', '.join(h.place for h in plan.handlers)})."
        )
    if plan.topic == plan.origin:
        for handler in plan.handlers:
            retry_topic = handler.registration.retry.topic
            if retry_topic is not None and transport.receives(plan.topic, retry_topic):
                raise HandlerDefinitionError(f"The retry topic of {handler.place} is its own source, {plan.topic!r}.")
    for registration in plan.bridges:
        bridge = registration.bridge
        if bridge is not None and bridge.to_broker == plan.broker and transport.receives(plan.topic, bridge.to):
            raise HandlerDefinitionError(f"The bridge from {plan.topic!r} leads to itself.")


def _check_capabilities(plan: Plan, transport: Transport) -> None:
    can = transport.capabilities

    def demand(who: str, what: str, needed: str, claimed: bool | None, instead: str) -> None:
        if not claimed:
            raise CapabilityError(
                f"{who} asks for {what}, which needs the capability {needed!r}; the broker {transport.name!r} does not "
                f"have it. {instead}"
            )

    demand(
        plan.name.capitalize(), f"group={plan.group!r}", "consumer_groups", can.consumer_groups, "Use another broker."
    )
    for handler in plan.handlers:
        retry = handler.registration.retry
        who = f"The handler {handler.place}"
        if retry.by == "redelivery":
            other = "Use Retry(by='in-place') or by='topic'."
            demand(who, "Retry(by='redelivery')", "redelivery_delay", can.redelivery_delay, other)
            demand(who, "Retry(by='redelivery')", "attempts", bool(can.attempts), other)
        if retry.max_deliveries is not None:
            # counted by a member, they begin anew with the crash that this is to count
            demand(who, "Retry(max_deliveries=…)", "attempts", can.attempts is True, "Leave it out.")
    if plan.dead_letter is not None and plan.dead_letter.order == "key":
        other = "Use order='none'."
        who = f"The dead-letter topic {plan.dead_letter.topic!r} of {plan.name}"
        demand(who, "order='key'", "ordering", can.ordering == "key", other)
        demand(who, "order='key'", "browse", can.browse, other)
