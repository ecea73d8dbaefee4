"""Spans, their context on messages, and counters, by OpenTelemetry's conventions for messaging."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from commons_events import Event, EventConsumer, EventProducer
from commons_events.errors import InvalidTopicError
from commons_events.memory import MemoryBroker, MemoryTransport


class Happened(Event):
    event_type = "unit.telemetry.happened"
    n: int = 0


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport(MemoryBroker())


def stored(transport: MemoryTransport, topic: str) -> list[Any]:
    partitions = {info.topic: info.partitions for info in transport.broker.topics()}[topic]
    return [item.message for p in range(partitions) for item in transport.broker.browse(topic, p, 0, 100)]


@pytest.mark.asyncio
async def test_a_send_is_a_producer_span_with_the_conventions_attributes(
    recorded: Any, transport: MemoryTransport
) -> None:
    from opentelemetry.trace import SpanKind, StatusCode

    async with EventProducer(transport=transport, client_id="me") as producer:
        await producer.send("orders", Happened())
    span = recorded.spans["send orders"]
    assert span.kind is SpanKind.PRODUCER
    assert dict(span.attributes) == {
        "messaging.system": "memory",
        "messaging.client.id": "me",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "orders",
    }
    assert span.instrumentation_scope.name == "commons_events"
    assert span.status.status_code is not StatusCode.ERROR


@pytest.mark.asyncio
async def test_a_message_carries_the_span_s_context_by_w3c_s_header(recorded: Any, transport: MemoryTransport) -> None:
    async with EventProducer(transport=transport) as producer:
        await producer.send("orders", Happened())
    (message,) = stored(transport, "orders")
    context = recorded.spans["send orders"].context
    expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert message.header("traceparent") == expected
    assert context.trace_flags.sampled


@pytest.mark.asyncio
async def test_the_span_is_a_child_of_the_program_s_own(recorded: Any, transport: MemoryTransport) -> None:
    from opentelemetry import trace

    async with EventProducer(transport=transport) as producer:
        with trace.get_tracer("program").start_as_current_span("outer") as outer:
            await producer.send("orders", Happened())
        assert recorded.spans["send orders"].parent.span_id == outer.get_span_context().span_id


@pytest.mark.asyncio
async def test_a_batch_is_one_span_that_says_how_many(recorded: Any, transport: MemoryTransport) -> None:
    async with EventProducer(transport=transport) as producer:
        await producer.send_batch("orders", [Happened(n=n) for n in range(3)])
    spans = recorded.exporter.get_finished_spans()
    (span,) = [span for span in spans if span.name == "send orders"]
    assert span.attributes["messaging.batch.message_count"] == 3
    assert all(message.header("traceparent") for message in stored(transport, "orders"))


@pytest.mark.asyncio
async def test_a_poll_is_a_client_span_that_links_to_the_senders(recorded: Any, transport: MemoryTransport) -> None:
    from opentelemetry.trace import SpanKind

    async with EventProducer(transport=transport) as producer:
        await producer.send("orders", Happened())
        await producer.send("orders", Happened())
    async with EventConsumer(transport=transport, topics=["orders"], group_id="g", client_id="you") as consumer:
        await consumer.receive(10)
    sent = {span.context.span_id for span in recorded.exporter.get_finished_spans() if span.name == "send orders"}
    polls = [span for span in recorded.exporter.get_finished_spans() if span.name == "poll orders"]
    assert {link.context.span_id for span in polls for link in span.links} == sent
    assert polls[0].kind is SpanKind.CLIENT
    assert dict(polls[0].attributes) == {
        "messaging.system": "memory",
        "messaging.client.id": "you",
        "messaging.consumer.group.name": "g",
        "messaging.operation.name": "poll",
        "messaging.operation.type": "receive",
        "messaging.destination.name": "orders",
        "messaging.batch.message_count": len(sent),
    }


@pytest.mark.asyncio
@pytest.mark.parametrize("header", [b"", b"\xff\xfe", b"00-nonsense", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"])
async def test_a_message_with_a_broken_context_is_received_without_a_link(
    recorded: Any, transport: MemoryTransport, header: bytes
) -> None:
    from commons_events import Message

    await transport.publish([Message("orders", b"{}", headers=(("traceparent", header),))])
    async with EventConsumer(transport=transport, topics=["orders"]) as consumer:
        assert len(await consumer.receive(10)) == 1
    assert recorded.spans["poll orders"].links == ()


@pytest.mark.asyncio
async def test_messages_are_counted_by_topic(recorded: Any, transport: MemoryTransport) -> None:
    async with EventProducer(transport=transport) as producer:
        await producer.send("a", Happened())
        await producer.send_batch("b", [Happened(), Happened()])
    async with EventConsumer(transport=transport, topics=["a", "b"]) as consumer:
        got = 0
        while got < 3:
            got += len(await consumer.receive(10))
    assert recorded.counts() == {
        ("messaging.client.sent.messages", "a"): 1,
        ("messaging.client.sent.messages", "b"): 2,
        ("messaging.client.consumed.messages", "a"): 1,
        ("messaging.client.consumed.messages", "b"): 2,
    }


@pytest.mark.asyncio
async def test_a_send_that_is_refused_is_a_span_with_the_error(recorded: Any, transport: MemoryTransport) -> None:
    from opentelemetry.trace import StatusCode

    async with EventProducer(transport=transport) as producer:
        with pytest.raises(InvalidTopicError):
            producer.send("two words", Happened())
    span = recorded.spans["send two words"]
    assert span.status.status_code is StatusCode.ERROR
    assert recorded.counts() == {}


@pytest.mark.asyncio
async def test_without_an_sdk_messages_carry_no_context(transport: MemoryTransport) -> None:
    async with EventProducer(transport=transport) as producer:
        await producer.send("orders", Happened())
    (message,) = stored(transport, "orders")
    assert message.header("traceparent") is None


@pytest.mark.asyncio
async def test_a_program_s_own_traceparent_is_not_lost_without_an_sdk(transport: MemoryTransport) -> None:
    own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with EventProducer(transport=transport) as producer:
        await producer.send("orders", Happened(), headers={"traceparent": own})
    (message,) = stored(transport, "orders")
    assert message.header("traceparent") == own


def test_without_an_sdk_the_sdk_is_not_even_loaded(python: Callable[..., str]) -> None:
    code = """
import asyncio, sys
from commons_events import Event, EventProducer
class Happened(Event):
    event_type = "happened"
async def main():
    async with EventProducer(broker="memory") as producer:
        await producer.send("t", Happened())
asyncio.run(main())
print([name for name in sys.modules if name.startswith("opentelemetry.sdk")])
"""
    assert python(code).strip() == "[]"
