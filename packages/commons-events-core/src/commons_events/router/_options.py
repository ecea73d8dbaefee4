"""What is said of handlers when they are declared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from commons_events._stated import check_types
from commons_events.errors import ConfigurationError
from commons_events.middleware import Middleware
from commons_events.retries import Retry

__all__ = ["Bridge", "DeadLetters", "Registration"]

Key = str | bytes | None


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Where messages go that failed for good.

    Args:
        topic: the dead-letter topic, of the same broker.
        order: ``none``: later messages of the key go on. ``key``: they are parked behind the failed one, in order,
            until it is redriven and handled, or discarded (capabilities ``ordering`` and ``browse``).
        check_every: seconds after which a router with parked keys looks what has become of them.
    """

    topic: str
    order: Literal["none", "key"] = "none"
    check_every: float = 1.0

    def __post_init__(self) -> None:
        check_types("DeadLetters", DeadLetters, asdict(self))
        if not 0.01 <= self.check_every < float("inf"):
            raise ConfigurationError(f"DeadLetters: check_every={self.check_every} has to be 0.01 s or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One handler with all that was said of it."""

    function: Callable[..., Any]
    topics: tuple[str, ...]
    group: str
    broker: str | None
    retry: Retry
    dead_letter: DeadLetters | None
    concurrency: int | None
    prefetch: int | None
    timeout: float | None
    publish_to: str | None
    publish_key: Callable[[Any], Key] | None
    filter: Callable[[Any], bool | Awaitable[bool]] | None
    unhandled: Literal["ignore", "error"] | None
    start: Literal["earliest", "latest"] | None
    batch_size: int
    batch_wait: float
    middleware: tuple[Middleware, ...] = ()
    bridge: Bridge | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """Where messages are forwarded to, as they are."""

    to: str
    to_broker: str | None
    drop_headers: Sequence[str] = field(default=())
