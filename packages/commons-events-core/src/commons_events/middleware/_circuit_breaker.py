"""`CircuitBreaker`: stop asking what does not answer."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from commons_events._stated import check_types
from commons_events.errors import ConfigurationError
from commons_events.log import logger
from commons_events.middleware._middleware import Flow, Middleware, Received, ReceiveNext
from commons_events.retries import RetryAfter
from commons_events.runtime import Runtime, current_runtime

__all__ = ["CircuitBreaker"]


class CircuitBreaker(Middleware):
    """After some failures in a row, pauses the subscriptions for a while, then lets one message through as a probe.

    The probe's success resumes them; its failure pauses them again, twice as long each time, up to ``max_reset``.
    Failures that open the circuit, or happen while it is open, do not count as attempts of their messages: what is
    down must not fill the dead letters. Each event loop has a circuit of its own.

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
        stated = {"failures": failures, "reset": reset, "max_reset": max_reset, "on": on}
        check_types("CircuitBreaker", CircuitBreaker.__init__, stated)
        if failures < 1:
            raise ConfigurationError(f"CircuitBreaker: failures={failures} has to be 1 or more.")
        if not 0.001 <= reset <= max_reset < float("inf"):
            raise ConfigurationError(f"CircuitBreaker: reset={reset} has to be from 0.001 s to max_reset={max_reset}.")
        self._failures = failures
        self._reset, self._max_reset = reset, max_reset
        self._on = on
        self._circuits: dict[asyncio.AbstractEventLoop, _Circuit] = {}
        self._latest: _Circuit | None = None

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """``open`` while nothing is let through, ``half-open`` while a probe is; in the event loop last served."""
        return "closed" if self._latest is None else self._latest.state

    def _circuit(self) -> _Circuit:
        """This event loop's: the timer of an open one, and what it has paused, end with the loop."""
        loop, runtime = asyncio.get_running_loop(), current_runtime()
        circuit = self._circuits.get(loop)
        if circuit is None or circuit.runtime is not runtime:
            self._circuits = {each: known for each, known in self._circuits.items() if not each.is_closed()}
            circuit = self._circuits[loop] = _Circuit(runtime, self._reset)
        self._latest = circuit
        return circuit

    async def receive(self, received: Received, call_next: ReceiveNext) -> Any:
        """See `Middleware.receive`."""
        circuit, flow = self._circuit(), received.flow
        if id(flow) not in circuit.flows:
            circuit.flows[id(flow)] = flow
            if circuit.state != "closed":
                flow.pause()
        if circuit.state == "open":
            raise RetryAfter(circuit.pause, counted=False)
        try:
            result = await call_next(received)
        except self._on as error:
            self._failed(circuit, received, error)
            if circuit.state == "closed":
                raise
            raise RetryAfter(circuit.pause, counted=False) from error
        self._succeeded(circuit)
        return result

    def _failed(self, circuit: _Circuit, received: Received, error: Exception) -> None:
        circuit.in_a_row += 1
        if circuit.state == "half-open":
            circuit.pause = min(circuit.pause * 2, self._max_reset)
        elif circuit.state == "open" or circuit.in_a_row < self._failures:
            return
        circuit.state = "open"
        logger().warning(
            "circuit opened", handler=received.handler, failures=circuit.in_a_row, seconds=circuit.pause,
            error=repr(error),
        )  # fmt: skip
        for flow in circuit.flows.values():
            flow.pause()
        circuit.runtime.call_later(circuit.pause, circuit.half_open)

    def _succeeded(self, circuit: _Circuit) -> None:
        circuit.in_a_row = 0
        if circuit.state == "half-open":
            circuit.state, circuit.pause = "closed", self._reset
            logger().info("circuit closed")
            for flow in circuit.flows.values():
                flow.resume()


class _Circuit:
    """What is known of the other side in one event loop, and the subscriptions there."""

    def __init__(self, runtime: Runtime, pause: float) -> None:
        self.state: Literal["closed", "open", "half-open"] = "closed"
        self.runtime = runtime
        self.pause = pause
        self.in_a_row = 0
        self.flows: dict[int, Flow] = {}

    def half_open(self) -> None:
        self.state = "half-open"
        for flow in self.flows.values():
            flow.probe()
