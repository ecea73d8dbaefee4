"""Messages are interchangeable with those of the CloudEvents SDK for Python, both ways."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from commons_events import Event, EventSchema, Message
from commons_events.binding import BinaryBinding, Binding, StructuredBinding, to_event

kafka = pytest.importorskip(
    "cloudevents.core.bindings.kafka", reason="the CloudEvents SDK is not installed: pip install 'cloudevents>=2'"
)
sdk_event = pytest.importorskip("cloudevents.core.v1.event")


@EventSchema(name="com.example.signed.up", version="1.3.0")
class SignedUp(Event):
    user: str
    age: int = 0
    raw: bytes = b""


MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


def made() -> SignedUp:
    return SignedUp(
        user="ü", age=7, raw=b"\0\xff", source="urn:users", correlation_id="co", event_id="id-1", timestamp=MOMENT
    )


def read_by_the_sdk(message: Message) -> Any:
    value = message.value or b""
    key = message.key
    return kafka.from_kafka_event(kafka.KafkaMessage(headers=dict(message.headers), key=key, value=value))


def from_the_sdk(message: Any) -> Message:
    headers = tuple((name, bytes(value)) for name, value in message.headers.items())
    value = message.value.encode() if isinstance(message.value, str) else message.value
    return Message("t", value, headers=headers)


def foreign(**attributes: Any) -> Any:
    whole = {
        "type": "com.example.signed.up",
        "source": "/elsewhere",
        "id": "9",
        "specversion": "1.0",
        "time": MOMENT,
        "datacontenttype": "application/json",
        **attributes,
    }
    return sdk_event.CloudEvent(attributes=whole, data={"user": "x", "age": 3})


@pytest.mark.parametrize("binding", [BinaryBinding(), StructuredBinding()], ids=lambda binding: binding.mode)
def test_the_sdk_reads_our_messages(binding: Binding) -> None:
    event = made()
    read = read_by_the_sdk(binding.to_message(event, "t"))
    attributes = read.get_attributes()
    assert attributes["type"] == "com.example.signed.up"
    assert attributes["id"] == "id-1"
    assert attributes["source"] == "urn:users"
    assert attributes["time"] == MOMENT
    assert attributes["specversion"] == "1.0"
    assert attributes["datacontenttype"] == "application/json"
    assert attributes["correlationid"] == "co"
    assert attributes["eventversion"] == "1.3.0"
    assert read.get_data() == json.loads(event.to_json())


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_we_read_the_sdk_s_messages(mode: str) -> None:
    write = kafka.to_binary_event if mode == "binary" else kafka.to_structured_event
    message = from_the_sdk(write(foreign(correlationid="co", causationid="ca")))
    for cls in (Event, SignedUp):
        event = to_event(message, cls)
        assert isinstance(event, SignedUp)
        assert (event.user, event.age) == ("x", 3)
        assert (event.event_id, event.source, event.timestamp) == ("9", "/elsewhere", MOMENT)
        assert (event.correlation_id, event.causation_id) == ("co", "ca")


@pytest.mark.parametrize("binding", [BinaryBinding(), StructuredBinding()], ids=lambda binding: binding.mode)
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_an_event_that_the_sdk_has_forwarded_comes_back_as_it_was(binding: Binding, mode: str) -> None:
    event = made()
    write = kafka.to_binary_event if mode == "binary" else kafka.to_structured_event
    forwarded = from_the_sdk(write(read_by_the_sdk(binding.to_message(event, "t"))))
    assert to_event(forwarded, Event) == event
