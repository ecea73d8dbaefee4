"""`RateLimit`: so many handlers a second, and no more."""

from __future__ import annotations

from typing import Any

from commons_events._stated import check_types
from commons_events.errors import ConfigurationError
from commons_events.middleware._middleware import Middleware, Received, ReceiveNext
from commons_events.runtime import Runtime, current_runtime

__all__ = ["RateLimit"]


class RateLimit(Middleware):
    """Lets handlers begin at a rate: a token bucket. Whoever finds it empty waits its turn, in order.

    Waiting ones count as running, so they are bounded by the handlers' ``concurrency``; the rest waits in the broker.

    Args:
        rate: how many messages a second; a batch counts each of its messages.
        burst: how many may begin at once after a quiet time.

    Raises:
        ConfigurationError: a value is not over 0.
    """

    def __init__(self, rate: float, *, burst: int = 1) -> None:
        check_types("RateLimit", RateLimit.__init__, {"rate": rate, "burst": burst})
        if not 0 < rate < float("inf"):
            raise ConfigurationError(f"RateLimit: rate={rate} has to be a number over 0.")
        if burst < 1:
            raise ConfigurationError(f"RateLimit: burst={burst} has to be 1 or more.")
        self._interval = 1 / rate
        self._slack = (burst - 1) * self._interval
        self._free_at = float("-inf")
        self._clock: Runtime | None = None
        """Whose time that is."""

    async def receive(self, received: Received, call_next: ReceiveNext) -> Any:
        """See `Middleware.receive`."""
        runtime = current_runtime()
        if runtime is not self._clock:  # in a test, say, whose time is its own
            self._clock, self._free_at = runtime, float("-inf")
        now = runtime.monotonic()
        begin = max(self._free_at, now - self._slack)
        self._free_at = begin + self._interval * len(received.messages)
        if begin > now:
            await runtime.sleep(begin - now)
        return await call_next(received)
