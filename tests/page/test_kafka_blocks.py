"""The Kafka parts of the page's blocks run as printed, on a real broker; only its address is another one."""

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
from commons_events.kafka import KafkaAdmin, KafkaProducer
from commons_events.testing.services import RunningKafka
from commons_events.transport import TopicPartition

HERE = Path(__file__).parent
TOPIC, GROUP = "user-events", "my-service"

pytestmark = pytest.mark.asyncio


@pytest.fixture
def event_class() -> Iterator[type[Event]]:
    with registry.isolated():

        class UserCreatedEvent(Event):
            event_type = "user.created"
            user_id: str

        yield UserCreatedEvent


async def run(block: str, kafka: RunningKafka, names: dict[str, Any]) -> None:
    """The block under top-level await, with the names that it leaves out."""
    text = (HERE / block).read_text("utf-8").replace("localhost:9092", kafka.bootstrap_servers)
    code = compile(text, block, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    running = eval(code, names)
    if inspect.isawaitable(running):
        await running


async def test_producers_and_consumers(
    kafka_service: RunningKafka, event_class: type[Event], capsys: pytest.CaptureFixture[str]
) -> None:
    events = [event_class(user_id=f"user-{number}") for number in range(4)]
    async with KafkaAdmin(kafka_service.bootstrap_servers) as admin:
        await admin.create_topic(TOPIC, partitions=1)
        names = {"event": events[0], "event1": events[1], "event2": events[2], "event3": events[3]}
        await run("kafka_producer.py", kafka_service, names)
        consuming = asyncio.create_task(run("kafka_consumer.py", kafka_service, {"UserCreatedEvent": event_class}))
        printed = ""
        async with asyncio.timeout(60):
            while printed.count("Received") < 4:
                await asyncio.sleep(0.05)
                printed += capsys.readouterr().out
        consuming.cancel()
        with suppress(asyncio.CancelledError):
            await consuming
        assert printed == "".join(f"Received: user-{number}\n" for number in range(4))
        assert await admin.group_offsets(GROUP) == {TopicPartition(TOPIC, 0): 4}
        await admin.delete_topic(TOPIC)


async def test_integration_testing(kafka_service: RunningKafka, event_class: type[Event]) -> None:
    names: dict[str, Any] = {"KafkaProducer": KafkaProducer, "event": event_class(user_id="user")}
    await run("kafka_testing.py", kafka_service, names)
    await names["producer"].close()
    async with KafkaAdmin(kafka_service.bootstrap_servers) as admin:
        assert "test-topic" in [info.topic for info in await admin.topics()]
        await admin.delete_topic("test-topic")
