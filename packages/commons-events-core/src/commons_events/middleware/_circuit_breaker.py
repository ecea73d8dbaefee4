"""`CircuitBreaker`: stop asking what does not answer."""

from __future__ import annotations

from typing import Any, Literal

from commons_events.errors import ConfigurationError
from commons_events.log import logger
from commons_events.middleware._middleware import Flow, Middleware, Received, ReceiveNext
from commons_events.retries import RetryAfter
from commons_events.runtime import current_runtime

__all__ = ["CircuitBreaker"]


class CircuitBreaker(Middleware):
    """After some failures in a row, pauses the subscriptions for a while, then lets one message through as a probe.

    The probe's success resumes them; its failure pauses them again, twice as long each time, up to ``max_reset``.
    Failures that open the circuit, or happen while it is open, do not count as attempts of their messages: what is
    down must not fill the dead letters.

    Args:
        failures: how many failures in a row open the circuit.
        reset: seconds until the first probe.
        max_reset: the most seconds between probes.
        on: which exceptions count as failures; others leave the count as it is.

    Raises:
        ConfigurationError: a value does not fit.
    """

    def __init__(
        self,
        failures: int = 5,
        *,
        reset: float = 30.0,
        max_reset: float = 300.0,
        on: type[Exception] | tuple[type[Exception], ...] = (Exception,),
    ) -> None:
        if failures < 1:
            raise ConfigurationError(f"CircuitBreaker: failures={failures} has to be 1 or more.")
        if not 0.001 <= reset <= max_reset < float("inf"):
            raise ConfigurationError(f"CircuitBreaker: reset={reset} has to be from 0.001 s to max_reset={max_reset}.")
        self.state: Literal["closed", "open", "half-open"] = "closed"
        """``open`` while nothing is let through, ``half-open`` while a probe is."""
        self._failures = failures
        self._reset, self._max_reset = reset, max_reset
        self._on = on
        self._in_a_row = 0
        self._pause = reset
        self._flows: dict[int, Flow] = {}

    async def receive(self, received: Received, call_next: ReceiveNext) -> Any:
        """See `Middleware.receive`."""
        flow = received.flow
        if id(flow) not in self._flows:
            self._flows[id(flow)] = flow
            if self.state != "closed":
                flow.pause()
        if self.state == "open":
            raise RetryAfter(self._pause, counted=False)
        try:
            result = await call_next(received)
        except self._on as error:
            self._failed(received, error)
            if self.state == "closed":
                raise
            raise RetryAfter(self._pause, counted=False) from error
        self._succeeded()
        return result

    def _failed(self, received: Received, error: Exception) -> None:
        self._in_a_row += 1
        if self.state == "half-open":
            self._pause = min(self._pause * 2, self._max_reset)
        elif self.state == "open" or self._in_a_row < self._failures:
            return
        self.state = "open"
        logger().warning(
            "circuit opened", handler=received.handler, failures=self._in_a_row, seconds=self._pause, error=repr(error)
        )
        for flow in self._flows.values():
            flow.pause()
        current_runtime().call_later(self._pause, self._half_open)

    def _half_open(self) -> None:
        self.state = "half-open"
        for flow in self._flows.values():
            flow.probe()

    def _succeeded(self) -> None:
        self._in_a_row = 0
        if self.state == "half-open":
            self.state, self._pause = "closed", self._reset
            logger().info("circuit closed")
            for flow in self._flows.values():
                flow.resume()
