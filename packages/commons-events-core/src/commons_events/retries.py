"""When a failed message is tried again, after how long, and when no more."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Literal

from commons_events._stated import check_types
from commons_events.errors import (
    ConfigurationError,
    DeserializationError,
    HandlerResultError,
    UnhandledEventError,
)

__all__ = ["Retry", "RetryAfter"]

Verdict = Literal["retry", "fatal", "ignore"]
Errors = type[Exception] | tuple[type[Exception], ...]

_HOPELESS = (DeserializationError, HandlerResultError, UnhandledEventError)
"""Trying the same bytes again leads to the same error; fatal unless a policy names them."""
_SHORTEST = 0.001
"""Seconds: what comes again at once, over and over, is a hot loop."""


class RetryAfter(Exception):  # noqa: N818  # named as HTTP's Retry-After header (RFC 9110, section 10.2.3)
    """Raise it in a handler to be called again with this message after ``delay`` seconds, whatever the policy says.

    The policy's number of attempts and total time count all the same.

    Args:
        delay: seconds, from 0.001 on.
        counted: whether this try counts as an attempt. False is for "not now", such as an open circuit.
    """

    def __init__(self, delay: float, *, counted: bool = True) -> None:
        given: object = delay
        if not isinstance(given, int | float) or not _SHORTEST <= given < float("inf"):
            raise ValueError(f"RetryAfter: delay has to be a number of seconds from {_SHORTEST} on, not {delay!r}.")
        super().__init__(f"to be tried again after {delay:g} s")
        self.delay = delay
        self.counted = counted

    def __reduce__(self) -> tuple[partial[RetryAfter], tuple[float]]:
        return partial(RetryAfter, counted=self.counted), (self.delay,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A policy for messages whose handler raised.

    The first ``immediate`` retries follow at once, the others after ``delay`` seconds, times ``factor`` with each, up
    to ``max_delay``. Of an exception the policy looks for the most specific class that it names in ``on``, ``fatal``
    or ``ignore``; one that it does not name is fatal.

    Raises:
        ConfigurationError: values do not fit together; a policy without an end that does not say ``endless``.
    """

    attempts: int | None = 5
    """How often a message is tried in all, the first time included; None for no such bound."""
    within: float | None = None
    """Seconds from the first try after which none begins; None for no such bound."""
    endless: bool = False
    """Says that a policy without ``attempts`` and ``within`` is meant."""
    immediate: int = 0
    """How many retries come without a delay."""
    delay: float = 0.5
    """Seconds before the first delayed retry."""
    factor: float = 2.0
    """What the delay is multiplied by each time."""
    max_delay: float = 60.0
    """The most seconds that multiplying leads to."""
    jitter: float = 0.5
    """Which share of a delay is left to chance, from 0 to 1: 0.5 makes 10 s a time from 5 to 10 s."""
    on: Errors = (Exception,)
    """Exceptions after which trying again makes sense."""
    fatal: Errors = ()
    """Exceptions after which it does not: the message goes to the dead letters at once."""
    ignore: Errors = ()
    """Exceptions that finish the message, with a line in the log."""
    by: Literal["in-place", "redelivery", "topic"] = "in-place"
    """Who keeps the message until then. ``in-place``: the router does, and only its key waits. ``redelivery``: the
    broker does (capabilities ``redelivery_delay`` and ``attempts``). ``topic``: a retry topic of the group does; the
    message comes back with its count in its headers, and later ones of its key go on without it."""
    topic: str | None = None
    """The retry topic; by default ``<topic>.<group>.retry``."""
    max_deliveries: int | None = None
    """Deliveries after which a message goes to the dead letters untried, where the broker counts them: for one that
    takes down every process that handles it. None for no such bound."""

    def __post_init__(self) -> None:
        check_types("Retry", Retry, {name: getattr(self, name) for name in _PLAIN})
        for problem in self._problems():
            raise ConfigurationError(f"Retry: {problem}.")

    def _problems(self) -> list[str]:
        found: list[str] = []
        if self.attempts is not None and self.attempts < 1:
            found.append(f"attempts={self.attempts} has to be 1 or more (1 is no retry at all)")
        if self.within is not None and not 0 < self.within < float("inf"):
            found.append(f"within={self.within} has to be a number of seconds over 0")
        if self.attempts is None and self.within is None and not self.endless:
            found.append("it has no end; give attempts= or within=, or say endless=True")
        if self.endless and (self.attempts is not None or self.within is not None):
            found.append("endless=True goes without attempts (attempts=None) and within")
        if self.immediate < 0 or self.immediate > 10:
            found.append(f"immediate={self.immediate} has to be from 0 to 10; more would be a hot loop")
        if not _SHORTEST <= self.delay < float("inf"):
            found.append(
                f"delay={self.delay} has to be from {_SHORTEST} s on; for some retries at once there is immediate="
            )
        if not self.delay <= self.max_delay < float("inf"):
            found.append(f"max_delay={self.max_delay} has to be from delay={self.delay} on")
        if not self.factor >= 1:
            found.append(f"factor={self.factor} has to be 1 or more")
        if not 0 <= self.jitter <= 1:
            found.append(f"jitter={self.jitter} has to be from 0 to 1")
        if self.topic is not None and self.by != "topic":
            found.append(f"topic={self.topic!r} goes with by='topic'")
        if self.within is not None and self.by == "redelivery":
            found.append(
                "within goes with by='in-place' or 'topic': a redelivery does not carry the time of the first try"
            )
        if self.max_deliveries is not None and self.max_deliveries < 1:
            found.append(f"max_deliveries={self.max_deliveries} has to be 1 or more")
        named: list[object] = [error for errors in (self.on, self.fatal, self.ignore) for error in _tuple(errors)]
        for error in named:
            if not isinstance(error, type) or not issubclass(error, Exception):
                found.append(f"on, fatal and ignore name Exception classes, not {error!r}")
            elif named.count(error) > 1:
                found.append(f"{error.__name__} stands in more than one of on, fatal and ignore")
        return found

    def verdict(self, error: Exception) -> Verdict:
        """What the policy says of an exception, its number of attempts aside."""
        if isinstance(error, RetryAfter):
            return "retry"
        named: dict[type, Verdict] = dict.fromkeys(_HOPELESS, "fatal")
        named.update(dict.fromkeys(_tuple(self.on), "retry"))
        named.update(dict.fromkeys(_tuple(self.fatal), "fatal"))
        named.update(dict.fromkeys(_tuple(self.ignore), "ignore"))
        return next((named[cls] for cls in type(error).__mro__ if cls in named), "fatal")

    def seconds(self, failures: int, chance: float) -> float:
        """How long to wait after that many failed tries.

        Args:
            failures: 1 after the first.
            chance: in [0, 1), for the jitter.
        """
        delayed = failures - self.immediate
        if delayed < 1:
            return 0.0
        try:
            longest = self.delay * self.factor ** (delayed - 1)
        except OverflowError:
            longest = self.max_delay
        longest = min(longest, self.max_delay)
        return max(longest * (1 - self.jitter * chance), _SHORTEST)


_PLAIN = [field.name for field in fields(Retry) if field.name not in ("on", "fatal", "ignore")]
"""What annotations alone say all of."""


def _tuple(errors: Errors) -> tuple[type[Exception], ...]:
    return errors if isinstance(errors, tuple) else (errors,)
