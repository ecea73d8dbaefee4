"""Nodes and consumers die, freeze and lose their connections; what was confirmed is handled, in each key's order.

``COMMONS_EVENTS_CHAOS=N`` runs each N times as long.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest

from commons_events.errors import StaleDeliveryError
from commons_events.rabbitmq import (
    Queue,
    RabbitMQAdmin,
    RabbitMQConsumer,
    RabbitMQDelivery,
    RabbitMQProducer,
    Topology,
)
from commons_events.testing import FaultRun
from commons_events.testing.services import RunningRabbitMQ, ServiceError, start_rabbitmq
from commons_events.transport import Delivery

pytestmark = pytest.mark.asyncio

ROUNDS = int(os.environ.get("COMMONS_EVENTS_CHAOS", "1"))
KEYS = 8
PATIENCE = 180.0
HEARTBEAT = 2

Kind = Literal["classic", "quorum"]


class Run(FaultRun):
    """A queue, and the history of what is sent to it and handled."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.queue = "faults"
        self.ids: dict[tuple[str, int], str | None] = {}

    async def declare(self, kind: Kind) -> None:
        queue = Queue(name=self.queue, type=kind, single_active_consumer=True)
        async with RabbitMQAdmin(self.url) as admin:
            await admin.declare(Topology(queues=[queue]))

    async def send(self) -> None:
        async with RabbitMQProducer(self.url, heartbeat=HEARTBEAT) as producer:
            await self.produce(lambda key, value: producer.publish("", self.queue, value, key=key))

    async def consume(self, leave: asyncio.Event) -> None:
        """Handle messages until ``leave``."""
        async with RabbitMQConsumer(
            self.url, queue=self.queue, prefetch_count=100, heartbeat=HEARTBEAT, retry_delay=0.05
        ) as consumer:
            await self.handle(consumer, leave, check=self.check_marked)

    def check_marked(self, message: Delivery) -> None:
        """What comes twice is marked, or was sent again: then it has the same id."""
        assert isinstance(message, RabbitMQDelivery)
        what = (message.key or b"").decode(), int(message.value)
        id = message.properties.message_id
        assert message.redelivered or self.ids.setdefault(what, id) == id

    async def consumer_process(self) -> asyncio.subprocess.Process:
        """A consumer in a process of its own, which has begun."""
        return await self.worker(Path(__file__).with_name("worker.py"), self.url, self.queue)

    @asynccontextmanager
    async def under_load(self) -> AsyncIterator[None]:
        """Send and handle while the block does its harm; then handle all the rest, and check."""
        leave = asyncio.Event()
        producing = self.begin(self.send())
        consuming = self.begin(self.consume(leave))
        try:
            await self.handled(100)
            yield
            await self.handled(100)
            self.stop.set()
            await producing
            await self.until(lambda: not self.history.missing(), "handling the rest")
            leave.set()
            await consuming
        finally:
            for task in (producing, consuming):
                task.cancel()
            await asyncio.gather(producing, consuming, return_exceptions=True)
        self.history.check()

    async def handled(self, more: int) -> None:
        """Wait until so many more were confirmed and handled."""
        confirmed, handled = len(self.history.confirmed), len(self.history.handled)
        await self.until(
            lambda: len(self.history.confirmed) > confirmed + more and len(self.history.handled) > handled + more,
            "going on",
        )


# RabbitMQ 3.10 writes down late which queues there are: of quorum queues (Ra's names.dets) only after the list has been
# left alone for half a second; and a classic queue that was declared less than half a second before a kill -9 was gone
# after one kill of ten, for good.
WRITTEN_DOWN = 3.0


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_a_node_that_is_killed_has_lost_nothing(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str, kind: Kind
) -> None:
    """kill -9 and a restart, under load."""
    rabbitmq_service.require("signals", "durability")
    run = Run(rabbitmq_vhost)
    await run.declare(kind)
    await asyncio.sleep(WRITTEN_DOWN)
    async with run.under_load():
        for number in range(ROUNDS):
            if number:
                await run.handled(100)
            await asyncio.to_thread(rabbitmq_service.kill)
            await asyncio.to_thread(rabbitmq_service.start)


async def test_the_next_server_of_the_list_is_gone_over_to(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str
) -> None:
    """Its first address is dead from the beginning; the second freezes, and later the third one is killed."""
    rabbitmq_service.require("signals")
    name = urlsplit(rabbitmq_vhost).path[1:]
    with start_rabbitmq() as other:
        other.manage("PUT", f"/api/vhosts/{name}")
        other.manage("PUT", f"/api/permissions/{name}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
        dead = urlsplit(rabbitmq_vhost)._replace(netloc="guest:guest@127.0.0.1:1").geturl()
        urls = [dead, rabbitmq_vhost, other.url_of(name)]
        for url in urls[1:]:
            async with RabbitMQAdmin(url) as admin:
                await admin.declare(Topology(queues=[Queue(name="q", type="classic")]))
        async with (
            RabbitMQProducer(urls, heartbeat=HEARTBEAT, connection_timeout=5_000) as producer,
            RabbitMQConsumer(urls, queue="q", heartbeat=HEARTBEAT, connection_timeout=5_000) as consumer,
            asyncio.timeout(PATIENCE),
        ):

            async def there_and_back(value: bytes) -> None:
                sent = asyncio.ensure_future(producer.publish("", "q", value))
                while True:
                    (message,) = await consumer.receive(1)
                    await message.ack()
                    if message.value == value:
                        break
                await sent

            await there_and_back(b"at the second")
            await asyncio.to_thread(rabbitmq_service.pause)
            try:
                await there_and_back(b"at the third")
            finally:
                await asyncio.to_thread(rabbitmq_service.resume)
            await asyncio.to_thread(other.kill)
            await there_and_back(b"at the second again")


async def test_a_node_that_is_shut_down_has_lost_nothing(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str
) -> None:
    rabbitmq_service.require("signals", "durability")
    run = Run(rabbitmq_vhost)
    await run.declare("quorum")
    async with run.under_load():
        for number in range(ROUNDS):
            if number:
                await run.handled(100)
            await asyncio.to_thread(rabbitmq_service.terminate)
            await asyncio.to_thread(rabbitmq_service.start)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_connections_that_are_closed_by_force(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str, kind: Kind
) -> None:
    """Every second, under load."""
    rabbitmq_service.require("management")
    run = Run(rabbitmq_vhost)
    await run.declare(kind)
    closed = 0
    async with run.under_load():
        for _ in range(4 * ROUNDS):
            with suppress(ServiceError):
                closed += await asyncio.to_thread(rabbitmq_service.close_connections, "commons-events")
            await asyncio.sleep(1.0)
        # The list of connections is some seconds old where the server is busy.
        async with asyncio.timeout(PATIENCE):
            while closed < 2:  # it is about another process
                closed += await asyncio.to_thread(rabbitmq_service.close_connections, "commons-events")
                await asyncio.sleep(0.2)


async def test_a_frozen_node(rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str) -> None:
    """Heartbeats find it out; what was under way is confirmed by the connection that comes after it, or was before."""
    rabbitmq_service.require("signals")
    run = Run(rabbitmq_vhost)
    await run.declare("quorum")
    async with run.under_load():
        for _ in range(ROUNDS):
            await asyncio.to_thread(rabbitmq_service.pause)
            await asyncio.sleep(2.0 * HEARTBEAT + 1.0)
            await asyncio.to_thread(rabbitmq_service.resume)
            await run.handled(100)


async def test_a_memory_alarm(rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str) -> None:
    """Who publishes waits, who consumes goes on, and nothing is lost."""
    rabbitmq_service.require("alarms")
    run = Run(rabbitmq_vhost)
    await run.declare("classic")
    async with run.under_load():
        for _ in range(ROUNDS):
            raised = rabbitmq_service.alarm()
            await asyncio.to_thread(raised.__enter__)
            try:
                await run.until(lambda: not run.history.missing(), "consuming during the alarm")
                await asyncio.sleep(0.5)
            finally:
                await asyncio.to_thread(raised.__exit__, None, None, None)


async def test_a_consumer_that_is_killed_in_the_middle(rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str) -> None:
    run = Run(rabbitmq_vhost)
    await run.declare("quorum")
    producing = asyncio.create_task(run.send())
    for _ in range(ROUNDS + 1):
        process = await run.consumer_process()
        watching = asyncio.create_task(run.watch(process))
        before = len(run.history.handled)
        await run.until(lambda: len(run.history.handled) > before + 100, "handling before the kill")  # noqa: B023
        process.kill()
        await process.wait()
        await watching
    run.stop.set()
    await producing
    leave = asyncio.Event()
    consuming = asyncio.create_task(run.consume(leave))
    await run.until(lambda: not run.history.missing(), "handling what the killed left")
    leave.set()
    await consuming
    run.history.check()


async def test_committing_over_a_lost_connection_says_so(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str
) -> None:
    rabbitmq_service.require("management")
    run = Run(rabbitmq_vhost)
    await run.declare("quorum")
    async with (
        RabbitMQProducer(rabbitmq_vhost, client_id="the-producer") as producer,
        RabbitMQConsumer(rabbitmq_vhost, queue=run.queue, client_id="the-consumer") as consumer,
    ):
        await producer.publish("", run.queue, b"0", key="key")
        async with asyncio.timeout(PATIENCE):
            (message,) = await consumer.receive(1)
            while not await asyncio.to_thread(rabbitmq_service.close_connections, "the-consumer"):  # noqa: ASYNC110  # it is about another process
                await asyncio.sleep(0.1)
            (again,) = await consumer.receive(1)
            assert again.value == message.value
            assert again.redelivered  # type: ignore[attr-defined]
            with pytest.raises(StaleDeliveryError, match="delivered again"):
                await consumer.commit(message, wait=True)
            await message.ack()  # passed over
            await consumer.commit(again, wait=True)


async def test_a_slow_handler_keeps_its_connection(rabbitmq_vhost: str) -> None:
    """A handler that blocks the event loop for longer than heartbeats allow loses nothing: they come from a thread."""
    run = Run(rabbitmq_vhost)
    await run.declare("quorum")
    async with (
        RabbitMQProducer(rabbitmq_vhost) as producer,
        RabbitMQConsumer(rabbitmq_vhost, queue=run.queue, heartbeat=1) as consumer,
    ):
        await producer.publish("", run.queue, b"0")
        async with asyncio.timeout(PATIENCE):
            (message,) = await consumer.receive(1)
            time.sleep(3.5)  # noqa: ASYNC251  # that is the point
            await consumer.commit(message, wait=True)
            assert await consumer.receive(1, timeout=0.3) == []
