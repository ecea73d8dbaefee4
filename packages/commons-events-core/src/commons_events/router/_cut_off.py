"""Whose doing it is that a handler was cancelled: the router's, or its own and that of what it uses."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from commons_events.errors import HandlerCancelledError
from commons_events.runtime import current_runtime

__all__ = ["CutOff", "cancelled"]


class CutOff:
    """What the workers of a subscription know of a cancellation of theirs."""

    begun: bool = False
    """Whether the router cancels its handlers. What is unsettled then stays so, whatever they make of it."""
    fetching: asyncio.Task[None] | None = None
    """The task that fetches. Whoever ends a loop with all that is in it cancels it, too."""

    @property
    def is_on(self) -> bool:
        """Whether a worker that was cancelled has to end."""
        return self.begun or (self.fetching is not None and self.fetching.cancelling() > 0)

    async def clear(self) -> None:
        """Take back what a handler that has ended has left of a cancellation of its task.

        Raises:
            CancelledError: it is cut off.
        """
        task = asyncio.current_task()
        if task is not None and task.cancelling() and not self.is_on:
            while task.uncancel():
                pass
            with suppress(asyncio.CancelledError):  # Python before 3.13 raises one that was taken back before it came
                await current_runtime().sleep(0)
        if self.begun or (task is not None and task.cancelling()):
            raise asyncio.CancelledError


def cancelled(place: str, error: asyncio.CancelledError) -> HandlerCancelledError:
    """The failure of a handler that was cancelled, though not by the router."""
    failure = HandlerCancelledError(
        f"The handler {place} ended with CancelledError, and not by the router: it raised that, or it, or a library "
        "that it uses, cancelled its task."
    )
    failure.__cause__ = error
    return failure
