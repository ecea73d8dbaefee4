"""The CloudEvents conformance data, where COMMONS_EVENTS_CONFORMANCE names the folder that holds it."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from commons_events import Event, Message
from commons_events.binding import from_http, to_event
from commons_events.errors import CommonsEventsError, DeserializationError

VARIABLE = "COMMONS_EVENTS_CONFORMANCE"
FOLDER = Path(os.environ.get(VARIABLE, "")) / "cloudevents" if os.environ.get(VARIABLE) else None

pytestmark = pytest.mark.skipif(
    FOLDER is None, reason=f"{VARIABLE} does not name the folder with the CloudEvents conformance data"
)


class Open(Event):
    """Takes the data of any object."""

    event_type = "com.example.test"
    model_config = {"extra": "allow"}


def shown(case: object) -> str:
    """A case's own id; pytest asks for one also where there is no case."""
    return str(case["id"]) if isinstance(case, dict) else "none"


def load(name: str) -> list[dict[str, Any]]:
    if FOLDER is None:
        return []
    cases: list[dict[str, Any]] = json.loads((FOLDER / name).read_text("utf-8"))["cases"]
    return cases


def plain(value: Any) -> Any:
    """A captured value without its wrapping."""
    if isinstance(value, dict):
        if "$utf8" in value:
            return value["$utf8"].encode()
        if "$bytes_hex" in value:
            return bytes.fromhex(value["$bytes_hex"])
        if "$datetime" in value:
            return datetime.fromisoformat(value["$datetime"])
        return {key: plain(item) for key, item in value.items()}
    return value


def kafka_message(captured: dict[str, Any]) -> Message:
    headers = tuple((name, plain(value)) for name, value in captured["headers"].items())
    return Message("t", plain(captured["value"]), headers=headers)


def readable(case: dict[str, Any]) -> bool:
    """Whether a case is a JSON event of CloudEvents 1.0 with an object as data, which is what this project reads."""
    if not case["op"].startswith("kafka.from_") or "result" not in case:
        return False
    event = case["result"].get("$event", {})
    attributes = event.get("attributes", {})
    return (
        attributes.get("specversion") == "1.0" and isinstance(event.get("data"), dict) and "$utf8" not in event["data"]
    )


def is_object(case: dict[str, Any]) -> bool:
    """Whether what the SDK reads is a CloudEvents 1.0 event of `Open`'s type, with an object as data."""
    event = case.get("result", {}).get("$event", {})
    attributes = event.get("attributes", {})
    return (attributes.get("specversion"), attributes.get("type")) == ("1.0", Open.event_type) and isinstance(
        event.get("data"), dict
    )


def is_json(captured: dict[str, Any]) -> bool:
    """Without a datacontenttype the SDK writes a dict as Python shows it, which no rule asks for."""
    try:
        json.loads(plain(captured["value"]))
    except ValueError:
        return False
    return True


SDK = load("sdk_python_cases.json")
READABLE = [case for case in SDK if readable(case)]
WRITTEN = [
    case
    for case in SDK
    if case["op"] in ("kafka.to_binary", "kafka.to_structured", "kafka.to_binary_event", "kafka.to_structured_event")
    and isinstance(case.get("result", {}).get("$KafkaMessage"), dict)
    and isinstance(case["args"][0]["$event"]["data"], dict)
    and "$utf8" not in case["args"][0]["$event"]["data"]
    and is_json(case["result"]["$KafkaMessage"])
]
ANY_KAFKA = [
    case for case in SDK if case["op"].startswith("kafka.from_") and "$KafkaMessage" in (case["args"] or [{}])[0]
]
FIELDS = {"id": "event_id", "source": "source", "correlationid": "correlation_id", "causationid": "causation_id"}


def check(event: Event, attributes: dict[str, Any], data: dict[str, Any], stated_time: bool) -> None:
    for name, field in FIELDS.items():
        if name in attributes:
            assert getattr(event, field) == attributes[name]
    if stated_time:
        assert event.timestamp == plain(attributes["time"])
    assert {name: getattr(event, name) for name in data} == plain(data)


@pytest.mark.parametrize("case", READABLE, ids=shown)
def test_messages_that_the_sdk_reads_are_read_alike(case: dict[str, Any]) -> None:
    captured = case["args"][0]["$KafkaMessage"]
    attributes = case["result"]["$event"]["attributes"]
    text = str(captured)
    event = to_event(kafka_message(captured), Open)
    check(event, attributes, case["result"]["$event"]["data"], "ce_time" in text or '\\"time\\"' in text)


@pytest.mark.parametrize("case", WRITTEN, ids=shown)
def test_messages_that_the_sdk_writes_are_read_alike(case: dict[str, Any]) -> None:
    written = case["args"][0]["$event"]
    event = to_event(kafka_message(case["result"]["$KafkaMessage"]), Open)
    check(event, written["attributes"], written["data"], stated_time=True)


@pytest.mark.parametrize("case", ANY_KAFKA, ids=shown)
def test_every_captured_message_is_an_event_or_refused(case: dict[str, Any]) -> None:
    for cls in (Open, Event):
        try:
            to_event(kafka_message(case["args"][0]["$KafkaMessage"]), cls)
        except CommonsEventsError as error:
            assert isinstance(error, DeserializationError)


HTTP = [case for case in SDK if case["op"].startswith("http.from_") and is_object(case)]
AMQP = [case for case in SDK if case["op"].startswith("amqp.from_") and is_object(case)]


@pytest.mark.parametrize("case", HTTP, ids=shown)
def test_http_requests_that_the_sdk_reads_are_read_alike(case: dict[str, Any]) -> None:
    captured = case["args"][0]["$HTTPMessage"]
    event = from_http(captured["headers"], plain(captured["body"]), Open)
    attributes = case["result"]["$event"]["attributes"]
    check(event, attributes, case["result"]["$event"]["data"], '"ce-time' in str(captured).lower())


@pytest.mark.parametrize("case", AMQP, ids=shown)
def test_amqp_messages_that_the_sdk_reads_are_read_alike(case: dict[str, Any]) -> None:
    captured = case["args"][0]["$AMQPMessage"]
    texts = {**captured["properties"], **captured["application_properties"]}
    texts = {name: text for name, text in texts.items() if isinstance(text, str)}  # native types are a transport's
    headers = tuple((name, text.encode()) for name, text in texts.items())
    event = to_event(Message("q", plain(captured["application_data"]), headers=headers), Open, prefix="cloudEvents_")
    attributes = case["result"]["$event"]["attributes"]
    check(event, attributes, case["result"]["$event"]["data"], stated_time=False)


def documents() -> list[dict[str, Any]]:
    return [case for case in load("json_format.json") if "document" in case]


@pytest.mark.parametrize("case", documents(), ids=shown)
def test_json_documents_are_read_or_refused_as_the_format_says(case: dict[str, Any]) -> None:
    whole = case["document"]
    value = (whole if isinstance(whole, str) else json.dumps(whole)).encode()
    message = Message("t", value, headers=(("content-type", b"application/cloudevents+json"),))

    class Mock(Event):
        event_type = "mock.test"
        model_config = {"extra": "allow"}

    wants = case.get("expect")
    object_data = isinstance(whole, dict) and isinstance(whole.get("data", {}), dict) and "data_base64" not in whole
    try:
        event = to_event(message, Mock)
    except DeserializationError:
        assert not (wants == "accept" and object_data and whole.get("specversion") == "1.0"), case
        return
    assert whole["specversion"] == "1.0"
    attributes = case["event"]["attributes"] if "event" in case else whole
    assert (event.event_id, event.source) == (attributes["id"], attributes["source"])
    if "time" in attributes:
        assert event.timestamp == datetime.fromisoformat(attributes["time"])


@pytest.mark.parametrize("case", load("kafka_binary.json"), ids=shown)
def test_binary_records_of_another_sdk_are_read_or_refused(case: dict[str, Any]) -> None:
    class Mock(Event):
        event_type = "mock.test"
        model_config = {"extra": "allow"}

    value = None if case["value"] is None else case["value"].encode()
    headers = tuple((name, text.encode()) for name, text in case["headers"].items())
    try:
        event = to_event(Message("t", value, headers=headers), Mock)
    except DeserializationError:
        assert value is None or not value.startswith(b"{")
        return
    attributes = case["attributes"]
    assert (event.event_id, event.source) == (attributes["id"], attributes["source"])
    if "time" in attributes:
        assert event.timestamp == datetime.fromisoformat(attributes["time"])
    assert "ignored" not in event.model_fields_set


def test_every_rule_is_judged() -> None:
    """Which rule is held where; a rule that is new in the data fails here until someone has judged it."""
    assert FOLDER is not None
    rules = json.loads((FOLDER / "binding_rules.json").read_text("utf-8"))["rows"]
    assert {row["id"] for row in rules} == set(RULES)
    written = {
        name
        for path in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert {test for test in RULES.values() if test.startswith("test_")} <= written


RULES = {
    "ce-rule-01": "test_the_attributes_stand_in_the_headers_and_the_whole_event_in_the_value",
    "ce-rule-02": "test_every_binding_s_prefix_works_both_ways_but_content_type_has_none",
    "ce-rule-03": "test_the_attributes_stand_in_the_headers_and_the_whole_event_in_the_value",
    "ce-rule-04": "test_a_tombstone_is_no_event_but_an_empty_value_is_bad_json",
    "ce-rule-05": "test_absent_data_is_an_event_of_nothing_but_attributes_and_no_tombstone",
    "ce-rule-06": "test_the_mode_is_told_by_the_content_type_in_any_case",
    "ce-rule-07": "test_the_attributes_stand_in_the_headers_and_the_whole_event_in_the_value",
    "ce-rule-08": "not done: the key is the caller's alone",
    "ce-rule-09": "not done: the key is the caller's alone",
    "ce-rule-10": "test_the_value_is_a_cloud_events_document_with_the_event_as_data",
    "ce-rule-11": "test_batch_mode_is_not_taken",
    "ce-rule-12": "test_every_binding_s_prefix_works_both_ways_but_content_type_has_none",
    "ce-rule-13": "test_amqp_s_two_separators_are_understood",
    "ce-rule-14": "test_every_binding_s_prefix_works_both_ways_but_content_type_has_none",
    "ce-rule-15": "a transport's: a header's value is bytes here",
    "ce-rule-16": "a transport's: a header's value is bytes here",
    "ce-rule-17": "test_the_mode_is_told_by_the_content_type_in_any_case",
    "ce-rule-18": "test_every_binding_s_prefix_works_both_ways_but_content_type_has_none",
    "ce-rule-19": "test_every_binding_s_prefix_works_both_ways_but_content_type_has_none",
    "ce-rule-20": "test_the_value_is_a_cloud_events_document_with_the_event_as_data",
    "ce-rule-21": "test_the_mode_is_told_by_the_content_type_in_any_case",
    "ce-rule-22": "test_data_and_data_base64_exclude_each_other",
    "ce-rule-23": "test_the_value_is_a_cloud_events_document_with_the_event_as_data",
    "ce-rule-24": "test_json_data_is_a_json_value",
    "ce-rule-25": "test_data_base64_is_the_bytes_of_the_event",
    "ce-rule-26": "test_a_null_attribute_is_as_one_that_is_absent",
    "ce-rule-27": "test_a_text_as_json_data_is_not_parsed_again",
    "ce-rule-28": "test_data_that_is_no_object_is_a_deserialization_error",
    "ce-rule-29": "not done: every attribute that is written is a string",
    "ce-rule-30": "test_the_mode_is_told_by_the_content_type_in_any_case",
    "ce-rule-31": "test_a_document_without_a_required_attribute_is_refused",
    "ce-rule-32": "test_attribute_names_are_lower_case_letters_and_digits_of_at_most_20",
    "ce-rule-33": "test_a_foreign_event_with_a_time_that_is_none_is_a_deserialization_error",
    "ce-rule-34": "not done: extensions are the envelope's alone",
    "ce-rule-35": "not done: an event is read, not forwarded as a message",
    "ce-rule-36": "not done: every attribute that is written is a string",
}
