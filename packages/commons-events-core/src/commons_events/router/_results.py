"""Events that handlers return: sent with correlation and causation, and confirmed before the message is finished."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from commons_events.event import Event
from commons_events.message import Receipt
from commons_events.middleware import Outgoing, SendNext
from commons_events.producers import EventProducer
from commons_events.router._handler import Handler
from commons_events.transport import Delivery

__all__ = ["ResultPublisher"]


class ResultPublisher:
    """Sends what handlers return by one broker's producer."""

    def __init__(self, producer: EventProducer) -> None:
        self._producer = producer
        self._chains: dict[Handler, SendNext] = {}

    async def publish(self, handler: Handler, result: Any, cause: Event, delivery: Delivery) -> None:
        """Return once the broker has all of them, in order.

        Raises:
            HandlerResultError: the handler returned something else than it may.
            TransportError: the broker refused one of them, or failed.
        """
        events = handler.outputs(result)
        registration = handler.registration
        if not events or registration.publish_to is None:
            return
        outgoing = [
            Outgoing(
                registration.publish_to,
                caused_by(cause, event),
                registration.publish_key(event) if registration.publish_key is not None else delivery.key,
            )
            for event in events
        ]
        if handler.send:
            send = self._chain(handler)
            for one in outgoing:
                await send(one)
            return
        await all_confirmed([self._send(one) for one in outgoing])

    def _send(self, outgoing: Outgoing) -> asyncio.Future[Receipt]:
        return self._producer.send(outgoing.topic, outgoing.event, key=outgoing.key, headers=outgoing.headers)

    def _chain(self, handler: Handler) -> SendNext:
        chain = self._chains.get(handler)
        if chain is None:

            async def innermost(outgoing: Outgoing) -> Receipt:
                return await self._send(outgoing)

            chain = innermost
            for middleware in reversed(handler.send):
                chain = partial(_around, middleware.send, chain)
            self._chains[handler] = chain
        return chain


async def _around(send: Any, inner: SendNext, outgoing: Outgoing) -> Receipt:
    receipt: Receipt = await send(outgoing, inner)
    return receipt


async def all_confirmed(futures: Sequence[asyncio.Future[Receipt]]) -> None:
    """Wait for all of them, and raise the first error only then: none is left behind unawaited."""
    results = await asyncio.gather(*futures, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def caused_by(cause: Event, event: Event) -> Event:
    """``event`` with the correlation id of what led to it (its own id where it has none), and its id as the cause.

    What the handler has set itself stays.
    """
    stated: dict[str, str] = {}
    if event.correlation_id is None:
        stated["correlation_id"] = cause.correlation_id or cause.event_id
    if event.causation_id is None:
        stated["causation_id"] = cause.event_id
    return event.model_copy(update=stated) if stated else event
