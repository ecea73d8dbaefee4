"""The interface of middleware, and what it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from commons_events.event import Event
from commons_events.message import Receipt
from commons_events.transport import Delivery

__all__ = ["Flow", "Middleware", "Outgoing", "ReceiveNext", "Received", "SendNext"]


class Flow(Protocol):
    """The tap of one subscription."""

    def pause(self) -> None:
        """Begin no handler and fetch nothing; those that run go on."""
        ...

    def probe(self) -> None:
        """While paused: let one waiting key begin."""
        ...

    def resume(self) -> None:
        """Go on as before."""
        ...


@dataclass(frozen=True, slots=True)
class Received:
    """What is being handled: one event, or a batch of them."""

    event: Any
    """The event; of a batch handler the list of them."""
    message: Any
    """Its `Delivery`; of a batch handler the list of them. Settling it is the router's."""
    handler: str
    """The handler's name."""
    group: str
    attempt: int
    """1 for the first try."""
    flow: Flow

    @property
    def messages(self) -> list[Delivery]:
        """The deliveries, also where there is but one."""
        return self.message if isinstance(self.message, list) else [self.message]


@dataclass(slots=True)
class Outgoing:
    """An event that a handler returned, on its way; middleware may change where to, the key and the headers."""

    topic: str
    event: Event
    key: str | bytes | None = None
    headers: Mapping[str, str | bytes] = field(default_factory=dict)


ReceiveNext = Callable[[Received], Awaitable[Any]]
SendNext = Callable[[Outgoing], Awaitable[Receipt]]


class Middleware:
    """Subclass it and override one method or both. An instance serves all handlers that it is given to, side by side.

    Example::

        class Timing(Middleware):
            async def receive(self, received, call_next):
                start = current_runtime().monotonic()
                try:
                    return await call_next(received)
                finally:
                    record(received.handler, current_runtime().monotonic() - start)
    """

    async def receive(self, received: Received, call_next: ReceiveNext) -> Any:
        """Stands around each try of a handler.

        What ``call_next`` raises is what the handler raised, and what leaves here is what the retry policy sees; so
        do not swallow what has failed, or it counts as done.
        """
        return await call_next(received)

    async def send(self, outgoing: Outgoing, call_next: SendNext) -> Receipt:
        """Stands around the sending of each event that a handler returned; returns the broker's receipt."""
        return await call_next(outgoing)
