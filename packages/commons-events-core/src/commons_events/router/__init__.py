"""Handlers: typed functions that events are routed to, with retries, dead letters and an order that holds."""

from commons_events.router._options import DeadLetters
from commons_events.router._router import EventRouter
from commons_events.router._running import RunningRouter

__all__ = ["DeadLetters", "EventRouter", "RunningRouter"]
