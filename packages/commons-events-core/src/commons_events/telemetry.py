"""Spans and metrics by OpenTelemetry's semantic conventions for messaging (v1.44, in development).

Through the API alone: nothing is recorded, and next to nothing spent, until the program configures an SDK.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import context as contexts
from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Link, SpanKind

from commons_events.message import Headers
from commons_events.runtime import current_runtime

if TYPE_CHECKING:
    from commons_events.transport import Delivery

__all__ = ["Telemetry"]

_SCOPE = "commons_events"
_NO_PROVIDERS = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The conventions' buckets of durations."""
_TOPICS = 1_000
"""Topics whose attributes are kept."""


def _provider() -> object:
    """The tracer provider that is set, or None; ``get_tracer_provider`` looks into the environment at each call.

    What the environment names has been loaded by then: ``get_tracer`` does that, once.
    """
    return trace._TRACER_PROVIDER


def _meter_provider() -> object:
    """As `_provider`, for metrics."""
    return _metrics._METER_PROVIDER


_get_provider = _provider if hasattr(trace, "_TRACER_PROVIDER") else trace.get_tracer_provider
_metrics = getattr(metrics, "_internal", metrics)
_get_meter_provider = _meter_provider if hasattr(_metrics, "_METER_PROVIDER") else metrics.get_meter_provider


class Telemetry:
    """What a client of one messaging system records.

    Args:
        system: ``messaging.system``.
        client_id: ``messaging.client.id``.
        destination: ``messaging.consumer.group.name`` of a consumer, or None.
    """

    def __init__(self, system: str, client_id: str, group: str | None = None) -> None:
        self._attributes: dict[str, str] = {"messaging.system": system, "messaging.client.id": client_id}
        if group is not None:
            self._attributes["messaging.consumer.group.name"] = group
        self._sending: dict[str, dict[str, str]] = {}
        """What a topic's sent messages are counted by."""
        meter = metrics.get_meter(_SCOPE)
        self._tracer = trace.get_tracer(_SCOPE)
        self._sent = meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Messages that the producer handed to the broker."
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Messages that were delivered to the application."
        )
        self._processed = meter.create_histogram(
            "messaging.process.duration", "s", "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )  # fmt: skip

    @property
    def tracing(self) -> bool:
        """Whether spans go anywhere."""
        provider = _get_provider()
        return provider is not None and not isinstance(provider, _NO_PROVIDERS)

    @property
    def processing(self) -> bool:
        """Whether spans or durations of handlers go anywhere."""
        provider = _get_meter_provider()
        return self.tracing or (provider is not None and not isinstance(provider, NoOpMeterProvider))

    @contextmanager
    def send(self, topic: str, count: int | None = None) -> Generator[Headers]:
        """A span around handing messages to the broker; yields the headers that carry its context (W3C Trace Context).

        Args:
            topic: ``messaging.destination.name``.
            count: the number of messages of a batch; None where there is always one.
        """
        attributes = self._operation("send", "send", topic, count)
        with self._tracer.start_as_current_span(f"send {topic}", kind=SpanKind.PRODUCER, attributes=attributes) as span:
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            try:
                yield tuple((name, value.encode()) for name, value in carrier.items())
            except BaseException as error:
                span.set_attribute("error.type", _error_type(error))
                raise

    def sent(self, topic: str, count: int = 1) -> None:
        """Count messages that were handed over."""
        attributes = self._sending.get(topic)
        if attributes is None:
            if len(self._sending) >= _TOPICS:
                self._sending.clear()
            attributes = self._sending[topic] = self._measured("send", topic)
        self._sent.add(count, attributes)

    def received(self, topic: str, deliveries: Sequence[Delivery]) -> None:
        """Count messages that reach the application, and note them in a span that links to their senders'."""
        self._consumed.add(len(deliveries), self._measured("poll", topic))
        if self.tracing:
            links = _links(deliveries)
            attributes = self._operation("poll", "receive", topic, len(deliveries))
            self._tracer.start_span(f"poll {topic}", kind=SpanKind.CLIENT, attributes=attributes, links=links).end()

    @contextmanager
    def process(self, deliveries: Sequence[Delivery], *, batch: bool = False) -> Generator[None]:
        """A span around the handling of messages, in the trace of the one that sent them, and its duration.

        A single message's sender is the span's parent and linked to; those of a batch are linked to. What the
        sender has put into its baggage is there for the handler of a single message.

        Args:
            deliveries: what is handled, all of one topic.
            batch: whether it is handled as a batch, also where there is but one.
        """
        first = deliveries[0]
        topic = first.topic
        attributes: dict[str, str | int] = {
            **self._operation("process", "process", topic, len(deliveries) if batch else None)
        }
        if len({delivery.partition for delivery in deliveries}) == 1 and first.partition is not None:
            attributes["messaging.destination.partition.id"] = str(first.partition)
        if not batch:
            attributes.update(_message(first, self._attributes["messaging.system"]))
        measured: dict[str, str] = self._measured("process", topic)
        runtime = current_runtime()
        began = runtime.monotonic()
        outer = None
        if not batch:
            outer = contexts.attach(propagate.extract(first.message.headers, contexts.get_current(), getter=_HEADERS))
        try:
            with self._tracer.start_as_current_span(
                f"process {topic}", kind=SpanKind.CONSUMER, attributes=attributes, links=_links(deliveries)
            ) as span:
                try:
                    yield
                except BaseException as error:
                    measured["error.type"] = _error_type(error)
                    span.set_attribute("error.type", measured["error.type"])
                    raise
        finally:
            if outer is not None:
                contexts.detach(outer)
            self._processed.record(runtime.monotonic() - began, measured)

    def _operation(self, name: str, type_: str, topic: str, count: int | None) -> Mapping[str, str | int]:
        attributes: dict[str, str | int] = {**self._measured(name, topic), "messaging.operation.type": type_}
        if count is not None:
            attributes["messaging.batch.message_count"] = count
        return attributes

    def _measured(self, name: str, topic: str) -> dict[str, str]:
        return {**self._attributes, "messaging.operation.name": name, "messaging.destination.name": topic}


def _links(deliveries: Sequence[Delivery]) -> list[Link]:
    """To the senders of messages that say who they are; the message that it is about stands in the link."""
    links = []
    for delivery in deliveries:
        message = delivery.message
        sender = _span_context(propagate.extract(message.headers, Context(), getter=_HEADERS))
        if sender.is_valid:
            id = message.header(f"{delivery.settler.header_prefix}id")
            links.append(Link(sender, {"messaging.message.id": id} if id else None))
    return links


def _message(delivery: Delivery, system: str) -> dict[str, str | int]:
    """What is said of a single message."""
    message, prefix = delivery.message, delivery.settler.header_prefix
    said: dict[str, str | int] = {}
    for name, header in (("id", "id"), ("conversation_id", "correlationid")):
        value = message.header(prefix + header)
        if value:
            said[f"messaging.message.{name}"] = value
    if system == "kafka":
        if delivery.offset is not None:
            said["messaging.kafka.offset"] = delivery.offset
        if message.key is not None:
            said["messaging.kafka.message.key"] = message.key.decode(errors="replace")
    return said


def _error_type(error: BaseException) -> str:
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _span_context(context: Context) -> trace.SpanContext:
    return trace.get_current_span(context).get_span_context()


class _HeadersGetter(Getter[Headers]):
    def get(self, carrier: Headers, key: str) -> list[str] | None:
        found = [value.decode(errors="replace") for name, value in carrier if name.lower() == key]
        return found or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name for name, _ in carrier]


_HEADERS = _HeadersGetter()
