"""A span around each try of a handler, and its duration, by OpenTelemetry's conventions for messaging."""

from __future__ import annotations

from typing import Any

import pytest

from commons_events import Event, EventProducer, Retry
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.router import EventRouter
from commons_events.testing import eventually

pytestmark = pytest.mark.asyncio


class Happened(Event):
    event_type = "unit.telemetry.handled"
    n: int = 0


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport(MemoryBroker())


def named(recorded: Any, name: str) -> list[Any]:
    return [span for span in recorded.exporter.get_finished_spans() if span.name == name]


def durations(recorded: Any) -> list[tuple[dict[str, str], int]]:
    data = recorded.reader.get_metrics_data()
    return [
        (dict(point.attributes), point.count)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "messaging.process.duration"
        for point in metric.data.data_points
    ]


async def test_a_handler_is_a_consumer_span_below_its_sender_s(recorded: Any, transport: MemoryTransport) -> None:
    from opentelemetry import baggage, context, trace
    from opentelemetry.trace import SpanKind

    router = EventRouter()
    inside: list[tuple[Any, object]] = []

    @router.subscribe("orders", group="g", publish_to="invoices")
    async def handle(event: Happened) -> Happened:
        inside.append((trace.get_current_span().get_span_context(), baggage.get_baggage("customer")))
        return Happened(n=2)

    sent = Happened(n=1, correlation_id="c-1")
    async with router.running(broker=transport), EventProducer(transport=transport) as producer:
        token = context.attach(baggage.set_baggage("customer", "42"))
        await producer.send("orders", sent, key="k")
        context.detach(token)
        await eventually(lambda: named(recorded, "process orders"), timeout=60)
    [span], [send], [passed_on] = (named(recorded, name) for name in ("process orders", "send orders", "send invoices"))
    assert span.kind is SpanKind.CONSUMER
    assert span.parent.span_id == send.context.span_id
    assert [(link.context.span_id, dict(link.attributes)) for link in span.links] == [
        (send.context.span_id, {"messaging.message.id": sent.event_id})
    ]
    assert inside == [(span.context, "42")]
    assert passed_on.parent.span_id == span.context.span_id, "what a handler returns is sent within its span"
    attributes = dict(span.attributes)
    assert attributes.pop("messaging.destination.partition.id").isdigit()
    assert attributes.pop("messaging.client.id")
    assert attributes == {
        "messaging.system": "memory",
        "messaging.consumer.group.name": "g",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders",
        "messaging.message.id": sent.event_id,
        "messaging.message.conversation_id": "c-1",
    }


async def test_each_try_is_a_span_and_a_failed_one_says_so(recorded: Any, transport: MemoryTransport) -> None:
    from opentelemetry.trace import StatusCode

    router = EventRouter()
    tries = 0

    @router.subscribe("orders", group="g", retry=Retry(attempts=2, delay=0.001))
    def handle(event: Happened) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise LookupError("not yet")

    async with router.running(broker=transport), EventProducer(transport=transport) as producer:
        await producer.send("orders", Happened())
        await eventually(lambda: len(named(recorded, "process orders")) == 2, timeout=60)
    failed, done = named(recorded, "process orders")
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "LookupError"
    assert [event.name for event in failed.events] == ["exception"]
    assert done.status.status_code is not StatusCode.ERROR
    assert "error.type" not in done.attributes
    assert failed.context.trace_id == done.context.trace_id
    counted = durations(recorded)
    assert sorted((attributes.get("error.type", ""), count) for attributes, count in counted) == [
        ("", 1),
        ("LookupError", 1),
    ]
    assert {attributes["messaging.consumer.group.name"] for attributes, _ in counted} == {"g"}


async def test_a_batch_is_one_span_that_links_to_all_senders(recorded: Any, transport: MemoryTransport) -> None:
    router = EventRouter()

    @router.subscribe("orders", group="g", batch_size=3, batch_wait=60)
    async def handle(events: list[Happened]) -> None: ...

    events = [Happened(n=n) for n in range(3)]
    async with router.running(broker=transport), EventProducer(transport=transport) as producer:
        for event in events:
            await producer.send("orders", event)
        await eventually(lambda: named(recorded, "process orders"), timeout=60)
    [span] = named(recorded, "process orders")
    assert span.parent is None
    assert span.attributes["messaging.batch.message_count"] == 3
    assert "messaging.message.id" not in span.attributes
    linked = {link.context.span_id: link.attributes["messaging.message.id"] for link in span.links}
    assert linked.keys() == {sent.context.span_id for sent in named(recorded, "send orders")}
    assert set(linked.values()) == {event.event_id for event in events}


async def test_a_message_without_a_sender_s_context_begins_a_trace(recorded: Any, transport: MemoryTransport) -> None:
    from commons_events import Message

    router = EventRouter()

    @router.subscribe("orders", group="g")
    async def handle(event: Happened) -> None: ...

    await transport.publish([Message("orders", Happened().to_json())])
    async with router.running(broker=transport):
        await eventually(lambda: named(recorded, "process orders"), timeout=60)
    [span] = named(recorded, "process orders")
    assert (span.parent, span.links) == (None, ())
