"""Bridges: messages from one broker to another, as they are."""

from __future__ import annotations

import asyncio

from commons_events.errors import TransportError
from commons_events.message import Message, Receipt
from commons_events.router._failures import Failures
from commons_events.router._lanes import Lane
from commons_events.router._options import Bridge
from commons_events.router._settling import acknowledge
from commons_events.transport import Transport

__all__ = ["Forwarder"]


class Forwarder:
    """Publishes the first message of a lane elsewhere, and finishes it once that is confirmed: a `Step`.

    Key, value, headers and timestamp stay. CloudEvents' attributes get the prefix of the broker that they go to.
    """

    def __init__(self, bridge: Bridge, source: Transport, target: Transport, failures: Failures) -> None:
        self._to = bridge.to
        self._dropped = frozenset(bridge.drop_headers)
        self._old, self._new = source.header_prefix, target.header_prefix
        self._target = target
        self._failures = failures

    async def step(self, lane: Lane) -> float | None:
        """See `Step`."""
        if lane.last_step is not None:
            return await self._failures.finish(lane)
        delivery = lane.deliveries[0]
        original = delivery.message
        headers = tuple(
            (self._new + name.removeprefix(self._old) if name.startswith(self._old) else name, value)
            for name, value in original.headers
            if name not in self._dropped
        )
        message = Message(self._to, original.value, original.key, headers, original.timestamp)
        try:
            (result,) = await self._target.publish([message])
            if not isinstance(result, Receipt):
                raise result
        except TransportError as error:
            if error.retriable:
                return self._failures.backoff(lane, error)
            return await self._failures.keep(lane, f"cannot be forwarded to {self._to}", error, {}, None)
        except asyncio.CancelledError:
            raise
        await acknowledge(delivery)
        return None
