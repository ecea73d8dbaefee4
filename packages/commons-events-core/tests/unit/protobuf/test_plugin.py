"""The plugin: found by its name and content type, loaded late, missing with the line to type; and its warning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

import pytest
import structlog
from structlog.testing import capture_logs

from commons_events import Event, EventSchema
from commons_events.binding import BinaryBinding, Binding, StructuredBinding, from_http, to_event, to_http
from commons_events.plugins import SERIALIZERS, serializer, serializer_for, unregister
from commons_events.protobuf import FieldNumber, ProtobufSerializer

Python = Callable[..., str]

WITHOUT = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "google":
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Hidden())
from commons_events import Event, EventSchema
@EventSchema(name="sent", schema_type="protobuf")
class Sent(Event):
    word: str
event = Sent(word="x")
print(event.to_json()[:10])
from commons_events.protobuf import file_descriptor, message_class
for work in (
    event.serialize, lambda: Sent.deserialize(b""), lambda: Sent.schema, lambda: file_descriptor(Sent),
    lambda: message_class(Sent),
):
    try:
        work()
    except ImportError as error:
        print(type(error).__name__, error)
try:
    Event.deserialize(b"\\n\\x04sent")
except ValueError as error:
    print(type(error).__name__, error)
from commons_events.plugins import installed
print([info.problem for info in installed() if info.name == "protobuf"])
"""


def test_without_the_extra_events_can_be_made_and_the_line_to_type_is_said(python: Python) -> None:
    first, *lines, unknown, listed = python(WITHOUT).splitlines()
    assert first == "b'{\"event_ty'"
    assert len(lines) == 5
    assert unknown.startswith("UnknownEventTypeError ")
    assert 'protobuf: Type: pip install "commons-events-core[protobuf]"' in unknown
    assert "MissingDistributionError" in listed
    for line in lines:
        assert line.startswith("MissingDistributionError ")
        assert line.endswith('Type: pip install "commons-events-core[protobuf]"')


def test_nothing_of_google_s_is_loaded_before_it_is_used(python: Python) -> None:
    code = """
import sys
from commons_events import Event, EventSchema
@EventSchema(name="sent", schema_type="protobuf")
class Sent(Event):
    word: str
print("google.protobuf.message" in sys.modules)
Sent(word="x").serialize()
print("google.protobuf.message" in sys.modules)
"""
    assert python(code) == "False\nTrue\n"


def test_it_is_found_by_its_name_and_its_content_type() -> None:
    assert type(serializer("protobuf")) is ProtobufSerializer
    assert serializer_for("application/protobuf; charset=x") is serializer("protobuf")


@EventSchema(name="plugged", schema_type="protobuf")
class Plugged(Event):
    word: str
    number: int = 0


@pytest.mark.parametrize("binding", [BinaryBinding(), StructuredBinding()])
def test_it_goes_through_the_bindings(binding: Binding, own_registry: None) -> None:
    event = Plugged(word="x", source="s")
    message = binding.to_message(event, "t")
    assert to_event(message, Plugged) == event


@pytest.fixture
def warnings() -> Iterator[list[structlog.typing.EventDict]]:
    """What is logged by a program that has configured structlog; each test has a serializer that warned of nothing."""
    unregister(SERIALIZERS, "none")
    structlog.configure()
    try:
        with capture_logs() as logs:
            yield logs
    finally:
        structlog.reset_defaults()
        unregister(SERIALIZERS, "none")


def test_numbers_by_order_are_warned_of_once_they_leave_the_process(
    warnings: list[structlog.typing.EventDict],
) -> None:
    event = Plugged(word="x", source="s")
    event.serialize()
    BinaryBinding().to_message(event, "t")
    assert warnings == []
    for binding in (BinaryBinding(outside=True), StructuredBinding(outside=True), BinaryBinding("ce-", outside=True)):
        binding.to_message(event, "t")
        binding.to_message(event, "t")
    request = to_http(event)
    assert from_http(request.headers, request.body, Plugged) == event
    (warning,) = warnings
    assert (warning["log_level"], warning["event"]) == ("warning", "protobuf field numbers are not locked")
    assert (warning["event_type"], warning["fields"]) == ("plugged", "Plugged.word, Plugged.number")
    assert "commons-events schema lock" in warning["advice"]


def test_stated_numbers_need_no_warning(warnings: list[structlog.typing.EventDict]) -> None:
    @EventSchema(name="stated", schema_type="protobuf")
    class Stated(Event):
        word: Annotated[str, FieldNumber(1)]

    BinaryBinding(outside=True).to_message(Stated(word="x", source="s"), "t")
    assert warnings == []
