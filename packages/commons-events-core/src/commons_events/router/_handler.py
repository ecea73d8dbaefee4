"""A handler, ready to be called: its kind, its parameters, its dependencies, and its middleware around it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

from commons_events.errors import HandlerDefinitionError, HandlerResultError, HandlerTimeoutError
from commons_events.event import Event
from commons_events.middleware import Flow, Middleware, Received, ReceiveNext
from commons_events.router._options import Registration
from commons_events.router._signature import Signature, function_name, looked_up, place, read_signature
from commons_events.router._threads import HandlerThreads
from commons_events.runtime import Runtime

__all__ = ["Handler", "HandlerCall"]

HandlerCall = Callable[[Any, Any], Awaitable[Any]]
"""Takes the event and its delivery, or the lists of them."""


class Handler:
    """A registered function with its signature read.

    Raises:
        HandlerDefinitionError: see `read_signature`.
    """

    def __init__(self, registration: Registration) -> None:
        self.registration = registration
        self.name = function_name(registration.function)
        self.place = place(registration.function)
        self.signature: Signature = read_signature(registration.function)
        self.receive = [m for m in registration.middleware if type(m).receive is not Middleware.receive]
        self.send = [m for m in registration.middleware if type(m).send is not Middleware.send]
        self._injected = self._inject()

    def _inject(self) -> Callable[..., Any]:
        function = self.registration.function
        if not self.signature.dependencies:
            return function
        from fast_depends import inject  # its marker was found, so it is there

        try:
            with looked_up((function, *self.signature.dependencies)):
                return inject(function, cast=False)
        except Exception as error:  # whatever the library finds wrong with the dependencies is found at the start
            raise HandlerDefinitionError(
                f"The handler {self.place} has dependencies that cannot be used: {type(error).__name__}: {error}"
            ) from error

    def bind(self, executor: Callable[[], HandlerThreads], runtime: Runtime) -> HandlerCall:
        """How to call the function with an event and its delivery, for as long as its time-out lets it.

        Args:
            executor: gives the threads of sync ones.
            runtime: the time-out's clock.
        """
        call, timeout = self._call(executor), self.registration.timeout
        return call if timeout is None else partial(_in_time, call, timeout, self.place, runtime)

    def _call(self, executor: Callable[[], HandlerThreads]) -> HandlerCall:
        function, signature = self._injected, self.signature
        message, kind = signature.message_parameter, signature.kind
        event = signature.event_parameter
        if kind == "async" and not signature.dependencies:
            return _direct(function, event, message, signature.by_place)

        def arguments(value: Any, delivery: Any) -> dict[str, Any]:
            return {event: value} if message is None else {event: value, message: delivery}

        if kind == "async":

            async def call_async(value: Any, delivery: Any) -> Any:
                return await function(**arguments(value, delivery))

            return call_async
        if kind == "async generator":

            async def collect(value: Any, delivery: Any) -> Any:
                stream: AsyncIterator[Any] = function(**arguments(value, delivery))
                return [member async for member in stream]

            return collect
        finished: Callable[..., Any] = partial(_listed, function) if kind == "generator" else function

        async def call_in_thread(value: Any, delivery: Any) -> Any:
            call = partial(copy_context().run, finished, **arguments(value, delivery))
            threads = executor()
            try:
                result = await asyncio.get_running_loop().run_in_executor(threads, call)
            except asyncio.CancelledError as error:
                if not threads.leave(call):
                    # No subclass: in Python 3.11 asyncio.timeout makes no TimeoutError of one.
                    raise asyncio.CancelledError(_NEVER_BEGUN) from error
                raise
            return await result if inspect.isawaitable(result) else result  # of a plain decorator of an async function

        return call_in_thread

    def in_middleware(
        self, call: HandlerCall, group: str, flow: Flow
    ) -> Callable[[Any, Any, int], Awaitable[Any]] | None:
        """``call`` with the middleware around it, the first outermost; None where there is none."""
        if not self.receive:
            return None

        async def innermost(received: Received) -> Any:
            return await call(received.event, received.message)

        chain: ReceiveNext = innermost
        for middleware in reversed(self.receive):
            chain = partial(_around, middleware.receive, chain)
        name = self.name

        def start(event: Any, delivery: Any, attempt: int) -> Awaitable[Any]:
            return chain(Received(event, delivery, name, group, attempt, flow))

        return start

    async def wants(self, event: Any) -> bool:
        """Whether its filter lets the event through."""
        said: Any = True if self.registration.filter is None else self.registration.filter(event)
        return bool(await said if inspect.isawaitable(said) else said)

    # --- what it returned --------------------------------------------------------------------------------------

    def outputs(self, result: Any) -> Sequence[Event]:
        """The events to publish.

        Raises:
            HandlerResultError: it returned something else than events, or events that have nowhere to go.
        """
        if result is None:
            return ()
        events: Sequence[Any] = result if isinstance(result, list | tuple) else (result,)
        for event in events:
            if not isinstance(event, Event):
                raise HandlerResultError(
                    f"The handler {self.place} returned a {type(event).__name__}, which is neither None, nor an event, "
                    "nor a list of events."
                )
        if events and self.registration.publish_to is None:
            raise HandlerResultError(
                f"The handler {self.place} returned a {type(events[0]).__qualname__}, but has no publish_to=, so it "
                "has nowhere to go."
            )
        return events

    def failures(self, result: Any, count: int) -> dict[int, Exception]:
        """What a batch handler returned: the exception of each event that failed, by its place.

        Raises:
            HandlerResultError: it is neither None nor a list with one outcome an event.
        """
        if result is None:
            return {}
        fits = isinstance(result, list | tuple) and len(result) == count
        if not fits or not all(outcome is None or isinstance(outcome, Exception) for outcome in result):
            raise HandlerResultError(
                f"The batch handler {self.place} was given {count} events and returned {_brief(result)}; it returns "
                "None, or a list with None or an exception for each event. Or it raises BatchHandlerError."
            )
        return {index: outcome for index, outcome in enumerate(result) if outcome is not None}


def _direct(function: Callable[..., Awaitable[Any]], event: str, message: str | None, by_place: bool) -> HandlerCall:
    if by_place:
        return function if message is not None else lambda value, delivery: function(value)
    if message is None:
        return lambda value, delivery: function(**{event: value})
    return lambda value, delivery: function(**{event: value, message: delivery})


def _listed(function: Callable[..., Iterable[Any]], **arguments: Any) -> list[Any]:
    return list(function(**arguments))


async def _around(
    receive: Callable[[Received, ReceiveNext], Awaitable[Any]], inner: ReceiveNext, received: Received
) -> Any:
    return await receive(received, inner)


def _brief(value: Any) -> str:
    return (
        f"a {type(value).__name__} of {len(value)}" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
    )


_NEVER_BEGUN = "no thread had come to it"
"""What the cancellation of such a call says."""


async def _in_time(call: HandlerCall, timeout: float, place: str, runtime: Runtime, event: Any, delivery: Any) -> Any:
    """``call``, but cancelled after ``timeout`` seconds of the runtime's time.

    Raises:
        HandlerTimeoutError: the time was up. A handler that is not async goes on in its thread, which nobody can stop,
            if it has begun.
    """
    task = asyncio.current_task()
    assert task is not None
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = runtime.call_later(timeout, expire)
    before = task.cancelling()
    try:
        return await call(event, delivery)
    except asyncio.CancelledError as error:
        if expired and task.cancelling() <= before + 1:
            began = error.args != (_NEVER_BEGUN,)
            said = "return" if began else "begin, for want of a thread,"
            late = HandlerTimeoutError(f"The handler {place} did not {said} within {timeout:g} s (timeout).")
            late.began = began
            raise late from error
        raise
    finally:
        timer.cancel()
        if expired:
            task.uncancel()  # whatever came out of it, the cancellation was ours
