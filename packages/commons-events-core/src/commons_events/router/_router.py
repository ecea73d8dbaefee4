"""`EventRouter`: which handler is for what."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Literal, ParamSpec, TypeVar

from commons_events._stated import check_types
from commons_events.errors import ConfigurationError
from commons_events.middleware import Middleware
from commons_events.retries import Retry
from commons_events.router._options import Bridge, DeadLetters, Key, Registration
from commons_events.router._running import Broker, RunningRouter

__all__ = ["EventRouter"]

P = ParamSpec("P")
R = TypeVar("R")
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]


class EventRouter:
    """Handlers by topic, group and event type; and how they run.

    Example::

        router = EventRouter()

        @router.subscribe("user-events", group="billing", retry=Retry(attempts=5), dead_letter="user-events-dlq")
        async def on_registered(event: UserRegistered) -> None:
            ...

        await router.run(broker="kafka://localhost:9092")

    A message is acknowledged once its handler has returned and what it returned is published and confirmed. Messages
    of one key are handled in order, different keys side by side.

    Args:
        prefix: stands before the names of all topics that the handlers are declared with.
        middleware: around every handler and everything that handlers send, the first one outermost.
        lifespan: a function that makes an async context manager, which is entered before the first message and left
            after the last one.
        broker: the broker that `run` connects to unless it is given one.
    """

    def __init__(
        self,
        *,
        prefix: str = "",
        middleware: Sequence[Middleware] = (),
        lifespan: Lifespan | None = None,
        broker: Broker | None = None,
    ) -> None:
        check_types(
            "EventRouter", EventRouter.__init__, {"prefix": prefix, "middleware": middleware, "lifespan": lifespan}
        )
        self._prefix = prefix
        self._middleware = list(middleware)
        self._lifespans: list[Lifespan] = [lifespan] if lifespan is not None else []
        self._broker = broker
        self._own: list[Registration] = []
        self._included: list[tuple[EventRouter, str]] = []

    # --- declaring ---------------------------------------------------------------------------------------------

    def subscribe(
        self,
        *topics: str,
        group: str,
        retry: Retry | None = None,
        dead_letter: str | DeadLetters | None = None,
        concurrency: int | None = None,
        prefetch: int | None = None,
        timeout: float | None = None,
        publish_to: str | None = None,
        publish_key: Callable[[Any], Key] | None = None,
        filter: Callable[[Any], bool | Awaitable[bool]] | None = None,
        unhandled: Literal["ignore", "error"] | None = None,
        start: Literal["earliest", "latest"] | None = None,
        batch_size: int = 100,
        batch_wait: float = 0.1,
        middleware: Sequence[Middleware] = (),
        broker: str | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorator of a handler, which stays the function that it is.

        What the handler takes is said by its annotations: one parameter is an event class, a union of classes or a
        list of them (a batch); one may be a `Delivery` (or a list of them); others are dependencies of fast-depends
        (``Annotated[Session, Depends(…)]``). A handler that is not async runs in a thread. Handlers of other types on
        the same topic and group share its subscription.

        Args:
            topics: what to receive.
            group: the group that shares the messages.
            retry: the policy; by default ``Retry()``: 5 attempts, in place.
            dead_letter: where messages go that failed for good or cannot be read. Without it such a message stops
                the router, and stays unsettled.
            concurrency: the most keys (for a batch handler: batches) that are handled at once; by default 16 (1).
            prefetch: the most messages that are in the process; by default 1000.
            timeout: seconds after which a handler is cancelled, which counts as a failure; those that middleware waits
                before it calls the handler do not count.
            publish_to: the topic of the events that the handler returns or yields.
            publish_key: their key by the event; by default the key of the message that led to them.
            filter: takes the event; where it is false the message is finished without the handler. It may be async;
                what it raises, the handler has raised.
            unhandled: what happens to events that no handler of the subscription takes: ``ignore`` (the default)
                finishes them, ``error`` makes dead letters of them.
            start: where a group begins that the broker has never seen; by default ``earliest``.
            batch_size: the most events of a batch.
            batch_wait: seconds that a batch waits to be full.
            middleware: around this handler, inside the router's.
            broker: the name of one of ``run(brokers={…})``; by default the one that has no name.

        Raises:
            ConfigurationError: a value does not fit. What depends on the handler's annotations, on other handlers or
                on the broker is found when the router starts.
        """
        stated = dict(locals())
        check_types("subscribe", EventRouter.subscribe, {name: stated[name] for name in _OPTIONS})
        _check_options(topics, group, concurrency=concurrency, prefetch=prefetch, batch_size=batch_size)
        _check_seconds(timeout=timeout, batch_wait=batch_wait)

        def register(function: Callable[P, R]) -> Callable[P, R]:
            self._own.append(
                Registration(
                    function=function,
                    topics=topics,
                    group=group,
                    broker=broker,
                    retry=retry or Retry(),
                    dead_letter=DeadLetters(dead_letter) if isinstance(dead_letter, str) else dead_letter,
                    concurrency=concurrency,
                    prefetch=prefetch,
                    timeout=timeout,
                    publish_to=publish_to,
                    publish_key=publish_key,
                    filter=filter,
                    unhandled=unhandled,
                    start=start,
                    batch_size=batch_size,
                    batch_wait=batch_wait,
                    middleware=tuple(middleware),
                )
            )
            return function

        return register

    def bridge(
        self,
        topic: str,
        *,
        group: str,
        to: str | None = None,
        from_broker: str | None = None,
        to_broker: str | None = None,
        dead_letter: str | DeadLetters | None = None,
        concurrency: int | None = None,
        prefetch: int | None = None,
        drop_headers: Sequence[str] = (),
    ) -> None:
        """Forward a topic's messages to another broker or topic, as they are: key, value, headers and timestamp.

        A message is finished once the other broker has confirmed it. What it may take later is tried again without
        an end; what it never takes (too large, for example) is a dead letter.

        Args:
            topic: what to receive.
            group: the bridge's own.
            to: the topic to publish to; by default of the same name.
            from_broker: the name of a broker of ``run(brokers=…)``; by default the one that has no name.
            to_broker: as ``from_broker``.
            dead_letter: as in `subscribe`.
            concurrency: as in `subscribe`.
            prefetch: as in `subscribe`.
            drop_headers: names of headers that stay behind.
        """
        stated = {name: value for name, value in locals().items() if name != "self"}
        check_types("bridge", EventRouter.bridge, stated)
        _check_options((topic,), group, concurrency=concurrency, prefetch=prefetch, batch_size=1)
        self._own.append(
            Registration(
                function=self.bridge,
                topics=(topic,),
                group=group,
                broker=from_broker,
                retry=Retry(),
                dead_letter=DeadLetters(dead_letter) if isinstance(dead_letter, str) else dead_letter,
                concurrency=concurrency,
                prefetch=prefetch,
                timeout=None,
                publish_to=None,
                publish_key=None,
                filter=None,
                unhandled=None,
                start=None,
                batch_size=1,
                batch_wait=0.0,
                bridge=Bridge(to=to or topic, to_broker=to_broker, drop_headers=tuple(drop_headers)),
            )
        )

    def include(self, router: EventRouter, *, prefix: str = "") -> None:
        """Take over the handlers and lifespans of another router, also those that are declared on it later.

        Its own middleware stands inside this router's.

        Args:
            router: the other one.
            prefix: stands before its topics, its own prefix included.

        Raises:
            ConfigurationError: it is no router, or would include itself.
        """
        if not isinstance(router, EventRouter):
            raise ConfigurationError(f"include: {router!r} is no EventRouter.")
        if self in (router, *router.all_included()):
            raise ConfigurationError("include: the router would include itself.")
        self._included.append((router, prefix))

    def add_middleware(self, middleware: Middleware) -> None:
        """Put a middleware around all handlers, inside those that are there."""
        check_types("add_middleware", EventRouter.add_middleware, {"middleware": middleware})
        self._middleware.append(middleware)

    # --- what was declared -------------------------------------------------------------------------------------

    def all_included(self) -> list[EventRouter]:
        """The routers that this one includes, and those that they include."""
        return [each for router, _ in self._included for each in (router, *router.all_included())]

    @property
    def registrations(self) -> list[Registration]:
        """All handlers, with prefixes and middleware applied."""
        found = [
            *self._own,
            *(_prefixed(one, prefix) for router, prefix in self._included for one in router.registrations),
        ]
        around = tuple(self._middleware)
        return [replace(_prefixed(one, self._prefix), middleware=(*around, *one.middleware)) for one in found]

    @property
    def lifespans(self) -> list[Lifespan]:
        """This router's, then those of the included ones."""
        return [*self._lifespans, *(each for router, _ in self._included for each in router.lifespans)]

    # --- running -----------------------------------------------------------------------------------------------

    def running(
        self,
        *,
        broker: Broker | None = None,
        brokers: Mapping[str, Broker] | None = None,
        grace: float = 30.0,
    ) -> RunningRouter:
        """The router as an async context manager, which runs it for the time of the block.

        Args:
            broker: the broker of handlers that name none: a name, a URL or a transport. By default the router's own,
                else what the settings of consumers say (see `ClientConfig`), else ``memory``.
            brokers: further brokers by the names that handlers use.
            grace: seconds that running handlers get to end.

        Raises:
            (from entering it) HandlerDefinitionError: a handler, or what is said of it, cannot work.
            CapabilityError: a broker lacks what a handler asks for.
            UnknownBrokerError: no installed transport has the broker's name.
            TransportError: a broker refused, or is out of reach.
            (from leaving it) HandlerFailedError: a message failed for good, and there was nowhere to keep it.
        """
        named = dict[str | None, Broker | None]()
        named.update(brokers or {})
        needed = {one.broker for one in self.registrations}
        needed |= {one.bridge.to_broker for one in self.registrations if one.bridge is not None}
        if None in needed or not named:
            named[None] = broker if broker is not None else self._broker
        return RunningRouter(self, named, grace=grace)

    async def run(
        self,
        *,
        broker: Broker | None = None,
        brokers: Mapping[str, Broker] | None = None,
        grace: float = 30.0,
    ) -> None:
        """Run until SIGTERM, SIGINT or a failure; see `running`. A second signal cuts off, and so does cancelling.

        Raises:
            BaseException: what a handler raised that is no ``Exception``, such as SystemExit: it stops the router.
        """
        running = self.running(broker=broker, brokers=brokers, grace=grace)
        with running.stopped_by_signals():
            async with running:
                await running.wait()


_OPTIONS = inspect.getfullargspec(EventRouter.subscribe).kwonlyargs


def _check_options(topics: tuple[object, ...], group: str, **counts: int | None) -> None:
    if not topics or not all(isinstance(topic, str) and topic for topic in topics):
        raise ConfigurationError(
            f"subscribe: topics are non-empty names, not {topics!r}. Use @router.subscribe('topic', …)."
        )
    if not group:
        raise ConfigurationError(f"subscribe: group={group!r} has to be a non-empty name.")
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigurationError(f"subscribe: {name}={value} has to be 1 or more.")


def _check_seconds(**values: float | None) -> None:
    for name, value in values.items():
        least = 0.0 if name == "batch_wait" else 0.001
        if value is not None and not least <= value < float("inf"):
            raise ConfigurationError(f"subscribe: {name}={value} has to be a number of seconds from {least:g} on.")


def _prefixed(one: Registration, prefix: str) -> Registration:
    return replace(one, topics=tuple(prefix + topic for topic in one.topics)) if prefix else one
