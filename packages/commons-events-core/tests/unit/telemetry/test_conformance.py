"""OpenTelemetry's own description of messaging spans and metrics, where COMMONS_EVENTS_CONFORMANCE names its folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from commons_events import Event, EventProducer, Retry
from commons_events.errors import InvalidTopicError
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.router import EventRouter
from commons_events.testing import eventually

FILE = Path(os.environ.get("COMMONS_EVENTS_CONFORMANCE", "/nonexistent")) / "otel_messaging" / "messaging_semconv.json"
pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(
        not FILE.is_file(), reason="COMMONS_EVENTS_CONFORMANCE names no folder with OpenTelemetry's conventions"
    ),
]
SPANS = {
    "send": "messaging.send.producer",
    "receive": "messaging.receive.client",
    "process": "messaging.process.consumer",
}
OURS = {"messaging.consumer.group.name"}
"""Stated for single systems, and used here for all that have groups."""


class Happened(Event):
    event_type = "unit.telemetry.conforming"
    n: int = 0


def conventions() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return found


def required(attributes: list[dict[str, Any]]) -> set[str]:
    return {each["name"] for each in attributes if each["requirement"] == "required"}


async def record() -> None:
    """Sends, polls and handles; some of it fails, some is a batch."""
    transport = MemoryTransport(MemoryBroker())
    router = EventRouter()
    tries, batched = 0, 0

    @router.subscribe("single", group="g", retry=Retry(attempts=2, delay=0.001))
    async def handle(event: Happened) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise LookupError("not yet")

    @router.subscribe("batch", group="g", batch_wait=0.01)
    async def handle_all(events: list[Happened]) -> None:
        nonlocal batched
        batched += len(events)

    async with router.running(broker=transport), EventProducer(transport=transport) as producer:
        await producer.send("single", Happened(correlation_id="c"))
        await producer.send_batch("batch", [Happened(n=n) for n in range(3)])
        with pytest.raises(InvalidTopicError):
            producer.send("no topic", Happened())
        await eventually(lambda: (tries, batched) == (2, 3), timeout=60)


async def test_spans_are_as_described(recorded: Any) -> None:
    found = conventions()
    described = {span.get("id") or span["name"]: span for span in found["spans"]}
    deprecated = {each["name"] for each in found["deprecated_attributes"]}
    await record()
    spans = recorded.exporter.get_finished_spans()
    assert {span.attributes["messaging.operation.type"] for span in spans} == SPANS.keys()
    for span in spans:
        attributes = dict(span.attributes)
        convention = described[SPANS[attributes["messaging.operation.type"]]]
        assert span.kind.name == convention["kind"].upper()
        assert span.name == f"{attributes['messaging.operation.name']} {attributes['messaging.destination.name']}"
        assert required(convention["attributes"]) <= attributes.keys()
        known = {each["name"] for each in convention["attributes"]}
        assert attributes.keys() - OURS <= known
        assert not attributes.keys() & deprecated
        assert ("error.type" in attributes) == (not span.status.is_ok and not span.status.is_unset)


async def test_metrics_are_as_described(recorded: Any) -> None:
    await record()
    metrics = {
        metric.name: metric
        for resource in recorded.reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    described = {each["name"]: each for each in conventions()["metrics"] if not each["deprecated"]}
    assert metrics.keys() <= described.keys()
    for name, metric in metrics.items():
        assert metric.unit == described[name]["unit"]
        for point in metric.data.data_points:
            assert required(described[name]["attributes"]) <= point.attributes.keys()
            assert point.attributes.keys() <= {each["name"] for each in described[name]["attributes"]}
    durations = metrics["messaging.process.duration"].data.data_points
    assert sum(point.count for point in durations) == sum(
        span.name.startswith("process ") for span in recorded.exporter.get_finished_spans()
    )
    assert {point.attributes.get("error.type") for point in durations} == {None, "LookupError"}
