"""Spans and metrics by OpenTelemetry's semantic conventions for messaging (v1.44, in development).

Through the API alone: nothing is recorded, and next to nothing spent, until the program configures an SDK.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Link, SpanKind

from commons_events.message import Headers

if TYPE_CHECKING:
    from commons_events.transport import Delivery

__all__ = ["Telemetry"]

_SCOPE = "commons_events"
_NO_PROVIDERS = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
_TOPICS = 1_000
"""Topics whose attributes are kept."""


def _provider() -> object:
    """The tracer provider that is set, or None; ``get_tracer_provider`` looks into the environment at each call.

    What the environment names has been loaded by then: ``get_tracer`` does that, once.
    """
    return trace._TRACER_PROVIDER


_get_provider = _provider if hasattr(trace, "_TRACER_PROVIDER") else trace.get_tracer_provider


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

    @property
    def tracing(self) -> bool:
        """Whether spans go anywhere."""
        provider = _get_provider()
        return provider is not None and not isinstance(provider, _NO_PROVIDERS)

    @contextmanager
    def send(self, topic: str, count: int | None = None) -> Generator[Headers]:
        """A span around handing messages to the broker; yields the headers that carry its context (W3C Trace Context).

        Args:
            topic: ``messaging.destination.name``.
            count: the number of messages of a batch; None where there is always one.
        """
        attributes = self._operation("send", "send", topic, count)
        with self._tracer.start_as_current_span(f"send {topic}", kind=SpanKind.PRODUCER, attributes=attributes):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            yield tuple((name, value.encode()) for name, value in carrier.items())

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
            links = [
                Link(context)
                for message in [delivery.message for delivery in deliveries]
                if (context := _span_context(propagate.extract(message.headers, getter=_HEADERS))).is_valid
            ]
            attributes = self._operation("poll", "receive", topic, len(deliveries))
            self._tracer.start_span(f"poll {topic}", kind=SpanKind.CLIENT, attributes=attributes, links=links).end()

    def _operation(self, name: str, type_: str, topic: str, count: int | None) -> Mapping[str, str | int]:
        attributes: dict[str, str | int] = {**self._measured(name, topic), "messaging.operation.type": type_}
        if count is not None:
            attributes["messaging.batch.message_count"] = count
        return attributes

    def _measured(self, name: str, topic: str) -> dict[str, str]:
        return {**self._attributes, "messaging.operation.name": name, "messaging.destination.name": topic}


def _span_context(context: Context) -> trace.SpanContext:
    return trace.get_current_span(context).get_span_context()


class _HeadersGetter(Getter[Headers]):
    def get(self, carrier: Headers, key: str) -> list[str] | None:
        found = [value.decode(errors="replace") for name, value in carrier if name.lower() == key]
        return found or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name for name, _ in carrier]


_HEADERS = _HeadersGetter()
