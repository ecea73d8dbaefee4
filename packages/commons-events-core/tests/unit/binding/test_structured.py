"""CloudEvents' structured content mode: one JSON document (reading note 2, JSON format 1.0)."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from commons_events import Event, EventSchema, Message
from commons_events.binding import StructuredBinding, to_event
from commons_events.errors import DeserializationError, SerializationError, UnknownEventTypeError


@EventSchema(name="com.example.paid", version="1.1.0")
class Paid(Event):
    amount: int = 0
    raw: bytes = b""


MOMENT = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def paid(**fields: Any) -> Paid:
    return Paid(**{"event_id": "i", "source": "/pay", "timestamp": MOMENT, **fields})


def document(**changes: Any) -> dict[str, Any]:
    whole = {"specversion": "1.0", "id": "7", "source": "/x", "type": "com.example.paid", "data": {"amount": 3}}
    return {name: value for name, value in {**whole, **changes}.items() if value is not ...}


def message_of(whole: object, content_type: str = "application/cloudevents+json") -> Message:
    value = whole if isinstance(whole, bytes) else json.dumps(whole).encode()
    return Message("t", value, headers=(("content-type", content_type.encode()),))


def test_the_value_is_a_cloud_events_document_with_the_event_as_data() -> None:
    event = paid(amount=5, raw=b"\0", correlation_id="co", causation_id="ca", metadata={"k": "ü"})
    message = StructuredBinding().to_message(event, "t", key=b"k", headers=(("x", b"1"),))
    assert message.value is not None
    assert json.loads(message.value) == {
        "specversion": "1.0",
        "id": "i",
        "source": "/pay",
        "type": "com.example.paid",
        "time": MOMENT.isoformat(),
        "datacontenttype": "application/json",
        "eventversion": "1.1.0",
        "correlationid": "co",
        "causationid": "ca",
        "data": json.loads(event.to_json()),
    }
    assert message.headers == (("content-type", b"application/cloudevents+json; charset=UTF-8"), ("x", b"1"))
    assert to_event(message, Event) == event
    assert to_event(message, Paid) == event


def test_attribute_names_are_lower_case_letters_and_digits_of_at_most_20() -> None:
    message = StructuredBinding().to_message(paid(correlation_id="c", causation_id="d"), "t")
    assert message.value is not None
    for name in json.loads(message.value):
        assert name.isalnum()
        assert name == name.lower()
        assert len(name) <= 20


def test_an_event_without_a_source_is_no_cloud_event() -> None:
    with pytest.raises(SerializationError, match="source"):
        StructuredBinding().to_message(Paid(), "t")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents+json",
        "application/cloudevents+json; charset=utf-8",
        "Application/CloudEvents+JSON",
        "application/cloudevents",
    ],
)
def test_the_mode_is_told_by_the_content_type_in_any_case(content_type: str) -> None:
    event: Any = to_event(message_of(document(), content_type), Event)
    assert (event.amount, event.event_id, event.source) == (3, "7", "/x")


def test_batch_mode_is_not_taken() -> None:
    with pytest.raises(DeserializationError):
        to_event(message_of([document()], "application/cloudevents-batch+json"), Event)


def test_an_event_of_another_system_is_filled_from_the_attributes() -> None:
    whole = document(
        time="2018-04-26T14:48:09+02:00", correlationid="co", causationid="ca", eventversion="1.1.0", odd=1
    )
    for cls in (Event, Paid):
        event = to_event(message_of(whole), cls)
        assert isinstance(event, Paid)
        assert event.timestamp == datetime(2018, 4, 26, 12, 48, 9, tzinfo=UTC)
        assert (event.correlation_id, event.causation_id, event.amount) == ("co", "ca", 3)


def test_the_data_wins_where_it_has_an_envelope_of_its_own() -> None:
    event = paid(amount=9, correlation_id="mine")
    whole = document(id="other", source="/other", correlationid="other", data=json.loads(event.to_json()))
    assert to_event(message_of(whole), Event) == event


def test_a_null_attribute_is_as_one_that_is_absent() -> None:
    event = to_event(message_of(document(time=None, correlationid=None, datacontenttype=None)), Paid)
    assert event.correlation_id is None
    assert event.event_id == "7"


@pytest.mark.parametrize("datacontenttype", [..., "application/json", "application/vnd.a+json", "text/json; x=y"])
def test_json_data_is_a_json_value(datacontenttype: Any) -> None:
    assert to_event(message_of(document(datacontenttype=datacontenttype)), Paid).amount == 3


def test_an_object_as_data_is_json_whatever_the_type_says() -> None:
    event = to_event(message_of(document(datacontenttype="text/xml")), Paid)
    assert (event.amount, event.event_id) == (3, "7")


def test_a_text_as_json_data_is_not_parsed_again() -> None:
    with pytest.raises(DeserializationError):
        to_event(message_of(document(data='{"amount": 3}', datacontenttype="application/json")), Paid)


def test_data_base64_is_the_bytes_of_the_event() -> None:
    data = base64.b64encode(paid(amount=4).to_json()).decode()
    whole = document(data=..., data_base64=data, datacontenttype="application/json")
    assert to_event(message_of(whole), Paid) == paid(amount=4)


@pytest.mark.parametrize("data", ["*", "YQ", 5, None, {}, "ü"])
def test_data_base64_that_is_none_is_a_deserialization_error(data: Any) -> None:
    with pytest.raises(DeserializationError):
        to_event(message_of(document(data=..., data_base64=data)), Paid)


def test_data_and_data_base64_exclude_each_other() -> None:
    with pytest.raises(DeserializationError):
        to_event(message_of(document(data_base64="e30=")), Paid)


def test_absent_data_is_an_event_of_nothing_but_attributes_and_no_tombstone() -> None:
    assert to_event(message_of(document(data=...)), Paid).amount == 0


@pytest.mark.parametrize("data", [None, 1, "x", [], [1], True])
def test_data_that_is_no_object_is_a_deserialization_error(data: Any) -> None:
    with pytest.raises(DeserializationError):
        to_event(message_of(document(data=data)), Paid)


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
@pytest.mark.parametrize("value", [..., None, 5, "", []])
def test_a_document_without_a_required_attribute_is_refused(name: str, value: Any) -> None:
    with pytest.raises(DeserializationError):
        to_event(message_of(document(**{name: value})), Paid)


@pytest.mark.parametrize("version", ["0.3", "1.0.1", "2.0"])
def test_another_specversion_is_refused(version: str) -> None:
    with pytest.raises(DeserializationError, match=r"specversion"):
        to_event(message_of(document(specversion=version)), Paid)


@pytest.mark.parametrize(
    "value",
    [b"", b"null", b"[]", b"1", b"{", b"\xff", b'{"specversion": NaN}', b"[" * 10_000, b'"x"', b'{"a":' * 5_000],
)
def test_a_value_that_is_no_document_is_a_deserialization_error(value: bytes) -> None:
    with pytest.raises(DeserializationError):
        to_event(message_of(value), Event)


def test_a_document_of_an_unknown_type_is_its_own_error() -> None:
    with pytest.raises(UnknownEventTypeError):
        to_event(message_of(document(type="no.such")), Event)


def test_a_document_of_another_type_than_the_class_s_is_refused() -> None:
    class Other(Event):
        event_type = "other"

    with pytest.raises(DeserializationError):
        to_event(message_of(document()), Other)


def test_a_tombstone_is_no_document() -> None:
    message = Message("t", None, headers=(("content-type", b"application/cloudevents+json"),))
    with pytest.raises(DeserializationError, match="tombstone"):
        to_event(message, Event)


def test_exact_numbers_survive_the_document() -> None:
    class Exact(Event):
        event_type = "exact"
        big: int = 0
        real: float = 0.0
        anything: Any = None

    event = Exact(big=10**60, real=1e16, anything=[2**70, 1.0, -0.0, 5e-324], source="s")
    message = StructuredBinding().to_message(event, "t")
    read = to_event(message, Exact)
    assert read == event
    assert [type(item) for item in read.anything] == [int, float, float, float]
