"""CloudEvents over HTTP, both ways and with the CloudEvents SDK."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons_events import Event, Message
from commons_events.binding import batch_from_http, batch_to_http, from_http, to_event, to_http
from commons_events.errors import DeserializationError, SerializationError, UnknownEventTypeError

REASON = "the CloudEvents SDK is not installed: pip install 'cloudevents>=2'"


class Parcel(Event):
    event_type = "parcel.sent"
    number: int = 0
    to: str = ""


def parcel(**fields: Any) -> Parcel:
    return Parcel(**{"number": 7, "to": "Łódź", "source": "urn:post", "event_id": "p-1", **fields})


def test_binary_mode_has_the_attributes_in_headers() -> None:
    event = parcel(correlation_id='a "quoted" 100% ü', timestamp=datetime(2024, 1, 2, tzinfo=UTC))
    headers, body = to_http(event)
    assert headers["content-type"] == "application/json"
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-type"] == "parcel.sent"
    assert headers["ce-correlationid"] == "a%20%22quoted%22%20100%25%20%C3%BC"
    assert json.loads(body)["number"] == 7
    assert from_http({name.upper(): value for name, value in headers.items()}, body) == event


FOREIGN = {"content-type": "application/json", "ce-specversion": "1.0", "ce-type": "parcel.sent", "ce-id": "1"}


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ('"the \\"old\\" way"', 'the "old" way'),
        ('"quoted%20and%20encoded"', "quoted and encoded"),
        ('a"b c"d', "ab cd"),
        ('one"mark', 'one"mark'),
        ("%2541", "%41"),
        ("%ZZ%", "%ZZ%"),
    ],
)
def test_a_header_of_an_older_sender_may_be_quoted(sent: str, meant: str) -> None:
    """Section 3.1.3.2: quotation marks first, then one round of percent-decoding."""
    assert from_http({**FOREIGN, "ce-source": sent}, b"{}").source == meant


@pytest.mark.parametrize("value", ["%FF", "a\udcff"])
def test_a_header_that_is_no_text_is_refused(value: str) -> None:
    with pytest.raises(DeserializationError, match="ce-source"):
        from_http({**FOREIGN, "ce-source": value}, b"{}")
    assert from_http({**FOREIGN, "ce-source": "urn:post", "x-other": value}, b"{}").source == "urn:post"


def test_structured_mode_has_all_in_the_body() -> None:
    event = parcel()
    headers, body = to_http(event, "structured")
    assert headers == {"content-type": "application/cloudevents+json; charset=UTF-8"}
    assert json.loads(body)["data"]["to"] == "Łódź"
    assert from_http(headers, body, Parcel) == event


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_the_cloudevents_sdk_reads_what_is_written(mode: Any) -> None:
    sdk = pytest.importorskip("cloudevents.core.bindings.http", reason=REASON)
    sdk_format, sdk_event = import_module("cloudevents.core.formats.json"), import_module("cloudevents.core.v1.event")
    event = parcel(correlation_id="naïve ☃")
    headers, body = to_http(event, mode)
    read = sdk.from_http(sdk.HTTPMessage(headers, body), sdk_format.JSONFormat(), sdk_event.CloudEvent)
    assert (read.get_id(), read.get_type(), read.get_source()) == ("p-1", "parcel.sent", "urn:post")
    assert read.get_extension("correlationid") == "naïve ☃"
    data: Any = read.get_data()
    assert data["number"] == 7


@pytest.mark.parametrize("write", ["to_binary", "to_structured"])
def test_what_the_cloudevents_sdk_writes_is_read(write: str) -> None:
    sdk = pytest.importorskip("cloudevents.core.bindings.http", reason=REASON)
    sdk_format, sdk_event = import_module("cloudevents.core.formats.json"), import_module("cloudevents.core.v1.event")
    attributes = {
        "id": "x 1", "type": "parcel.sent", "source": "/post", "specversion": "1.0", "correlationid": 'ö "%" ',
        "datacontenttype": "application/json", "time": datetime(2024, 1, 2, 3, 4, 5, 600, tzinfo=UTC),
    }  # fmt: skip
    event = sdk_event.CloudEvent(attributes, {"number": 3, "to": "Ísafjörður"})
    written = getattr(sdk, write)(event, sdk_format.JSONFormat())
    read = from_http(written.headers, written.body, Parcel)
    assert (read.event_id, read.source, read.correlation_id) == ("x 1", "/post", 'ö "%" ')
    assert (read.number, read.to, read.timestamp) == (3, "Ísafjörður", attributes["time"])


def test_an_event_may_have_no_data() -> None:
    headers = {"ce-id": "1", "ce-type": "parcel.sent", "ce-source": "/a", "ce-specversion": "1.0"}
    assert from_http(headers, b"", Parcel).to == ""
    with pytest.raises(DeserializationError):
        from_http({}, b"", Parcel)


def test_a_batch_holds_several() -> None:
    events = [parcel(event_id=str(number), number=number) for number in range(3)]
    headers, body = batch_to_http(events)
    assert batch_from_http(headers, body) == events
    assert batch_from_http(*batch_to_http([])) == []
    with pytest.raises(DeserializationError, match="several events"):
        from_http(headers, body)


@pytest.mark.parametrize(
    ("content_type", "body", "problem"),
    [
        ("application/json", b"[]", "content type"),
        ("application/cloudevents-batch+json", b"[", "Not a CloudEvents JSON batch"),
        ("application/cloudevents-batch+json", b"{}", "JSON array"),
        ("application/cloudevents-batch+json", b"[{}]", "Event 0 of the batch"),
        ("application/cloudevents-batch+json", b"[NaN]", "Not a CloudEvents JSON batch"),
    ],
)
def test_what_is_no_batch_is_refused(content_type: str, body: bytes, problem: str) -> None:
    with pytest.raises(DeserializationError, match=problem):
        batch_from_http({"Content-Type": content_type}, body)


def test_an_unknown_type_and_a_missing_source_are_errors() -> None:
    headers = {"ce-id": "1", "ce-type": "nobody.knows", "ce-source": "/a", "ce-specversion": "1.0"}
    with pytest.raises(UnknownEventTypeError):
        from_http(headers, b"{}")
    with pytest.raises(SerializationError, match="has no source"):
        to_http(Parcel())


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1),
    st.sampled_from(["binary", "structured"]),
)
def test_any_text_holds_in_headers(text: str, mode: Any) -> None:
    event = parcel(correlation_id=text, source=text)
    headers, body = to_http(event, mode)
    assert all(" " < letter < "\x7f" for name, value in headers.items() if name != "content-type" for letter in value)
    assert from_http(headers, body, Parcel) == event


def test_amqp_s_two_separators_are_understood() -> None:
    for prefix in ("cloudEvents_", "cloudEvents:"):
        headers = tuple(
            (f"{prefix}{name}", value)
            for name, value in (("id", b"1"), ("type", b"parcel.sent"), ("source", b"/a"), ("specversion", b"1.0"))
        )
        event = to_event(Message("q", b'{"number": 1}', headers=headers), Event, prefix="cloudEvents_")
        assert (event.event_id, event.source) == ("1", "/a")
