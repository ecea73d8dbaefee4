"""`EventTestHarness`: an in-process broker that belongs to one test, with clients on it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from commons_events.consumers import EventConsumer
from commons_events.event import Event
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.producers import EventProducer
from commons_events.router import EventRouter
from commons_events.testing._router_run import RouterRun, run_router
from commons_events.testing._wait import eventually
from commons_events.transport import Delivery

if TYPE_CHECKING:
    from commons_events.testing.services import (
        RunningAws,
        RunningKafka,
        RunningPostgres,
        RunningPubsub,
        RunningRabbitMQ,
        RunningService,
    )

__all__ = ["EventTestHarness"]


_AUTO_CREATE = "COMMONS_EVENTS_KAFKA_AUTO_CREATE_TOPICS"
"""Lets producers of commons-events-kafka make topics on first use."""


class _TopicsByThemselves:
    """Has `_AUTO_CREATE` set while any block is open, of whichever thread; after the last one it is as it was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._before: str | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._blocks == 0:
                self._before = os.environ.get(_AUTO_CREATE)
            self._blocks += 1
            os.environ[_AUTO_CREATE] = "true"

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks:
                return
            if self._before is None:
                os.environ.pop(_AUTO_CREATE, None)
            else:
                os.environ[_AUTO_CREATE] = self._before


_topics_by_themselves = _TopicsByThemselves()


class EventTestHarness:
    """An empty in-process broker of its own, and clients on it. Nobody else sees what is in it.

    Use it as it is, or in ``with`` or ``async with``, which empties the broker at the end.

    Example::

        async with EventTestHarness() as harness:
            await harness.publish("orders", OrderPlaced(order_id="1"))
            async with harness.consumer("orders", group_id="billing") as consumer:
                ...
            [event] = await harness.events("invoices")
    """

    def __init__(self, broker: MemoryBroker | None = None) -> None:
        self.broker = broker or MemoryBroker("harness")
        """The in-process broker, for its limits, `disconnect` and `reset`."""

    def transport(self) -> MemoryTransport:
        """A new connection to the broker, for code that takes a ``transport=``."""
        return MemoryTransport(self.broker)

    def producer(self, **settings: Any) -> EventProducer:
        """An `EventProducer` on the broker; ``settings`` as in `ProducerConfig`."""
        return EventProducer(transport=self.transport(), **settings)

    def consumer(self, *topics: str, **settings: Any) -> EventConsumer:
        """An `EventConsumer` of these topics; ``settings`` as in `ConsumerConfig`."""
        return EventConsumer(transport=self.transport(), topics=topics, **settings)

    def run(self, router: EventRouter, *, grace: float = 30.0) -> AbstractAsyncContextManager[RouterRun]:
        """Run a router on the broker for a block, in virtual time; brokers that its handlers name get one each.

        Args:
            router: as the program has it.
            grace: virtual seconds that running handlers get at the end of the block.

        Example::

            async with harness.run(router) as t:
                await t.send("user-events", UserRegistered(user_id="1"))
                [event] = await t.handled(on_registered)
        """
        return run_router(router, self.broker, self.transport(), grace)

    async def publish(self, topic: str, *events: Event, key: str | bytes | None = None) -> None:
        """Send events, and return once the broker has them."""
        async with self.producer() as producer:
            await producer.send_batch(topic, events, key=key)

    async def deliveries(self, topic: str, *, count: int = 1, timeout: float = 5.0) -> Sequence[Delivery]:
        """Wait for ``count`` messages of a topic and return all there are, without any effect on groups.

        Raises:
            AssertionError: fewer came within ``timeout`` seconds.
        """
        found: list[Delivery] = []

        async def enough() -> bool:
            found.extend(await consumer.receive(1000, timeout=0.01))
            return len(found) >= count

        async with self.consumer(topic) as consumer:
            await eventually(enough, timeout=timeout, what=f"{count} messages on topic {topic!r}")
            while more := await consumer.receive(1000, timeout=0.0):
                found.extend(more)
        return found

    async def events(self, topic: str, *, count: int = 1, timeout: float = 5.0) -> list[Event]:
        """As `deliveries`, decoded.

        Raises:
            AssertionError: fewer came within ``timeout`` seconds.
            DeserializationError: one of them is no event.
        """
        # A closed consumer still knows how its deliveries are read.
        return [delivery.event() for delivery in await self.deliveries(topic, count=count, timeout=timeout)]

    wait_until = staticmethod(eventually)
    """See `eventually`."""

    def kafka_container(self, *, fresh: bool = False) -> AbstractAsyncContextManager[RunningKafka]:
        """A real Kafka: ``async with harness.kafka_container() as kafka: kafka.bootstrap_servers``.

        At the address that the environment holds, else a local Apache Kafka, else an embedded broker; ``way``
        and ``description`` say which it is. It creates topics by themselves. All blocks of a process share one, so
        take topics that no other test has (``kafka.unique("orders")``), or ask for a ``fresh`` one, which takes
        seconds and is stopped at the block's end. Kafka's own clients, which never ask a broker for new topics
        unless told to, are told so by an environment variable while the block is open.

        Raises:
            ServiceUnavailableError: no way to one is there; the message says for each why not.
            ServiceStartError: it is there and did not start.
        """
        return cast("AbstractAsyncContextManager[RunningKafka]", self._service("kafka", fresh))

    def postgres_container(self, *, fresh: bool = False) -> AbstractAsyncContextManager[RunningPostgres]:
        """A real PostgreSQL: ``async with harness.postgres_container() as postgres: postgres.url``.

        As `kafka_container`; ``with postgres.database() as url:`` gives an empty database of one's own.
        """
        return cast("AbstractAsyncContextManager[RunningPostgres]", self._service("postgres", fresh))

    def rabbitmq_container(self, *, fresh: bool = False) -> AbstractAsyncContextManager[RunningRabbitMQ]:
        """A real RabbitMQ: ``async with harness.rabbitmq_container() as rabbitmq: rabbitmq.url``.

        As `kafka_container`; ``with rabbitmq.vhost() as url:`` gives a virtual host of one's own.
        """
        return cast("AbstractAsyncContextManager[RunningRabbitMQ]", self._service("rabbitmq", fresh))

    def pubsub_container(self, *, fresh: bool = False) -> AbstractAsyncContextManager[RunningPubsub]:
        """Google's Pub/Sub emulator: ``async with harness.pubsub_container() as pubsub: pubsub.address``.

        As `kafka_container`; a project of one's own, ``pubsub.unique("project")``, needs no making.
        """
        return cast("AbstractAsyncContextManager[RunningPubsub]", self._service("pubsub", fresh))

    def aws_container(self, *, fresh: bool = False) -> AbstractAsyncContextManager[RunningAws]:
        """A server that speaks for SNS and SQS: ``async with harness.aws_container() as aws: aws.url``.

        As `kafka_container`; ``boto3.client("sqs", **aws.client_settings)`` is a client of it.
        """
        return cast("AbstractAsyncContextManager[RunningAws]", self._service("aws", fresh))

    @asynccontextmanager
    async def _service(self, name: str, fresh: bool) -> AsyncIterator[RunningService]:
        from commons_events.testing.services import SharedServices, shared

        services = SharedServices(shared.logs) if fresh else shared
        try:
            service = await asyncio.to_thread(services.get, name)
            with _topics_by_themselves:
                yield service
        finally:
            if fresh:
                # A start that is still under way, after a cancel, ends before this.
                await asyncio.to_thread(services.stop)

    def reset(self) -> None:
        """Empty the broker: topics, groups and positions. Open subscriptions end."""
        self.broker.reset()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.reset()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.reset()
