"""OpenTelemetry's SDK, recording in memory, put in force for one test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest


class Recorded(NamedTuple):
    """What was recorded."""

    exporter: Any
    reader: Any

    @property
    def spans(self) -> dict[str, Any]:
        """Finished spans by name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def counts(self) -> dict[tuple[str, str], int]:
        """Metric values by metric name and destination."""
        data = self.reader.get_metrics_data()
        return {
            (metric.name, point.attributes["messaging.destination.name"]): point.value
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    reason = "opentelemetry-sdk is not installed"
    pytest.importorskip("opentelemetry.sdk.trace", reason=reason)
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    metering = MeterProvider([reader], shutdown_on_exit=False)
    # The API lets a program set its providers once; a test asks for its own by the same doors.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", tracing)
    monkeypatch.setattr(trace, "get_tracer", lambda name, *_, **__: tracing.get_tracer(name))
    monkeypatch.setattr(metrics, "get_meter", lambda name, *_, **__: metering.get_meter(name))
    yield Recorded(exporter, reader)
    tracing.shutdown()
    metering.shutdown()
