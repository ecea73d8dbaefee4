"""What stands around every handler and every event that a router sends: rate limits, circuit breakers, your own."""

from commons_events.middleware._circuit_breaker import CircuitBreaker
from commons_events.middleware._middleware import Flow, Middleware, Outgoing, Received, ReceiveNext, SendNext
from commons_events.middleware._rate_limit import RateLimit

__all__ = [
    "CircuitBreaker",
    "Flow",
    "Middleware",
    "Outgoing",
    "RateLimit",
    "ReceiveNext",
    "Received",
    "SendNext",
]
