"""The RabbitMQ parts of the page's blocks run as printed, on a real server; only its address is another one."""

from __future__ import annotations

import ast
import asyncio
import inspect
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from commons_events.event import Event, registry
from commons_events.rabbitmq import Binding, Exchange, Queue, RabbitMQAdmin, RabbitMQProducer, Topology

HERE = Path(__file__).parent
TOPOLOGY = Topology(
    exchanges=[Exchange(name="events")],
    queues=[Queue(name="user-events")],
    bindings=[Binding(exchange="events", queue="user-events", routing_key="user.*")],
)

pytestmark = pytest.mark.asyncio


@pytest.fixture
def event_class() -> Iterator[type[Event]]:
    with registry.isolated():

        class UserCreatedEvent(Event):
            event_type = "user.created"
            user_id: str

        yield UserCreatedEvent


async def run(block: str, url: str, names: dict[str, Any]) -> None:
    """The block under top-level await, with the names that it leaves out."""
    text = (HERE / block).read_text("utf-8").replace("amqp://localhost", url)
    code = compile(text, block, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    running = eval(code, names)
    if inspect.isawaitable(running):
        await running


async def test_a_producer_and_a_consumer(rabbitmq_vhost: str, event_class: type[Event]) -> None:
    handled: list[Event] = []

    async def handle_event(event: Event) -> None:
        handled.append(event)

    event = event_class(user_id="user-1")
    async with RabbitMQAdmin(rabbitmq_vhost) as admin:
        await admin.declare(TOPOLOGY)
        await run("rabbitmq_producer.py", rabbitmq_vhost, {"event": event})
        names = {"UserCreatedEvent": event_class, "handle_event": handle_event}
        consuming = asyncio.create_task(run("rabbitmq_consumer.py", rabbitmq_vhost, names))
        more = [event_class(user_id=f"user-{number}") for number in range(2, 30)]
        async with RabbitMQProducer(url=rabbitmq_vhost) as producer:
            for one in more:
                await producer.publish(exchange="events", routing_key="user.created", event=one)
        async with asyncio.timeout(60):
            while len(handled) < 29:  # noqa: ASYNC110  # it is about another process
                await asyncio.sleep(0.05)
        consuming.cancel()
        with suppress(asyncio.CancelledError):
            await consuming
        assert [one.event_id for one in handled] == [one.event_id for one in (event, *more)]
        assert [one.user_id for one in handled] == [one.user_id for one in (event, *more)]  # type: ignore[attr-defined]
        async with asyncio.timeout(60):
            while (await admin.queue("user-events")).consumers:  # noqa: ASYNC110  # it is about another process
                await asyncio.sleep(0.05)
        assert (await admin.queue("user-events")).messages == 0
