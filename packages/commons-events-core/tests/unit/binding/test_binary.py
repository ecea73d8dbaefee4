"""CloudEvents' binary content mode: what stands in the headers, and what is read from them (reading note 2)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, Field

from commons_events import Event, EventSchema, Message
from commons_events.binding import BinaryBinding, StructuredBinding, to_event
from commons_events.errors import DeserializationError, SerializationError, UnknownEventTypeError
from commons_events.event import registry
from commons_events.message import Messages
from commons_events.plugins import SERIALIZERS, register, unregister
from commons_events.serialization import JsonSerializer

E = TypeVar("E", bound=Event)


@EventSchema(name="com.example.order.placed", version="1.2.0")
class Placed(Event):
    order_id: str = "o"
    note: str | None = None


@EventSchema(name="com.example.order.placed", version="2.0.0")
class PlacedTwo(Event):
    order_number: str = "n"


MOMENT = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


def placed(**fields: Any) -> Placed:
    return Placed(**{"event_id": "id-1", "source": "/orders", "timestamp": MOMENT, **fields})


def message_of(headers: dict[str, str | bytes], value: bytes | None) -> Message:
    pairs = ((name, text if isinstance(text, bytes) else text.encode()) for name, text in headers.items())
    return Message("t", value, headers=tuple(pairs))


def test_the_attributes_stand_in_the_headers_and_the_whole_event_in_the_value() -> None:
    event = placed(correlation_id="co", causation_id="ca")
    message = BinaryBinding().to_message(event, "orders", key=b"k")
    assert dict(message.headers) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_type": b"com.example.order.placed",
        "ce_eventversion": b"1.2.0",
        "ce_id": b"id-1",
        "ce_source": b"/orders",
        "ce_time": MOMENT.isoformat().encode(),
        "ce_correlationid": b"co",
        "ce_causationid": b"ca",
    }
    assert (message.topic, message.key) == ("orders", b"k")
    assert message.value == event.to_json()


def test_absent_attributes_have_no_header() -> None:
    names = [name for name, _ in BinaryBinding().to_message(placed(), "t").headers]
    assert "ce_correlationid" not in names
    assert "ce_causationid" not in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize("prefix", ["ce_", "ce-", "cloudEvents_", "cloudEvents:"])
def test_every_binding_s_prefix_works_both_ways_but_content_type_has_none(prefix: str) -> None:
    event = placed(correlation_id="co")
    message = BinaryBinding(prefix).to_message(event, "t")
    assert all(name == "content-type" or name.startswith(prefix) for name, _ in message.headers)
    assert to_event(message, Event, prefix=prefix) == event


def test_more_headers_stand_behind_and_timestamp_and_partition_are_passed_on() -> None:
    message = BinaryBinding().to_message(
        placed(), "t", headers=(("x", b"\xff"), ("x", b"2")), timestamp=MOMENT, partition=3
    )
    assert message.headers[-2:] == (("x", b"\xff"), ("x", b"2"))
    assert (message.timestamp, message.partition) == (MOMENT, 3)


def test_headers_are_utf_8() -> None:
    message = BinaryBinding().to_message(placed(source="urn:ü", correlation_id="世界"), "t")
    headers = dict(message.headers)
    assert headers["ce_source"] == "urn:ü".encode()
    assert headers["ce_correlationid"] == "世界".encode()
    assert to_event(message, Placed).source == "urn:ü"


def test_an_event_without_a_source_is_no_cloud_event() -> None:
    with pytest.raises(SerializationError, match="no source"):
        BinaryBinding().to_message(Placed(), "t")
    with pytest.raises(SerializationError, match="no source"):
        BinaryBinding().to_message(Placed(source=""), "t")


def test_an_event_with_an_empty_id_is_no_cloud_event() -> None:
    with pytest.raises(SerializationError, match="event_id"):
        BinaryBinding().to_message(placed(event_id=""), "t")


def test_reading_as_event_finds_the_class_by_type_and_version() -> None:
    one = BinaryBinding().to_message(placed(), "t")
    two = BinaryBinding().to_message(PlacedTwo(source="s"), "t")
    assert type(to_event(one, Event)) is Placed
    assert type(to_event(two, Event)) is PlacedTwo


def test_the_bytes_win_where_headers_and_bytes_differ() -> None:
    message = BinaryBinding().to_message(placed(correlation_id="in bytes"), "t")
    other = {
        "ce_id": b"other",
        "ce_source": b"/other",
        "ce_time": b"1999-01-01T00:00:00Z",
        "ce_correlationid": b"other",
    }
    headers = tuple((name, other.get(name, value)) for name, value in message.headers)
    assert to_event(message._replace(headers=headers), Event) == placed(correlation_id="in bytes")
    assert to_event(message._replace(headers=headers), Placed) == placed(correlation_id="in bytes")


def test_the_bytes_win_also_over_another_type_in_the_headers() -> None:
    class Other(Event):
        event_type = "other"

    message = BinaryBinding().to_message(placed(), "t")
    headers = tuple((name, b"other" if name == "ce_type" else value) for name, value in message.headers)
    try:
        event: Event = to_event(message._replace(headers=headers), Event)
    except DeserializationError:
        return
    assert type(event) is Placed


def test_an_event_of_another_system_is_filled_from_the_headers() -> None:
    message = message_of(
        {
            "content-type": "application/json",
            "ce_specversion": "1.0",
            "ce_type": "com.example.order.placed",
            "ce_id": "foreign-1",
            "ce_source": "/elsewhere",
            "ce_time": "2018-04-26T14:48:09+02:00",
            "ce_correlationid": "co",
            "ce_causationid": "ca",
            "ce_eventversion": "1.2.0",
            "ce_subject": "ignored",
        },
        b'{"order_id": "o-7"}',
    )
    for cls in (Event, Placed):
        event: Any = to_event(message, cls)
        assert type(event) is Placed
        assert (event.order_id, event.event_id, event.source) == ("o-7", "foreign-1", "/elsewhere")
        assert event.timestamp == datetime(2018, 4, 26, 14, 48, 9, tzinfo=timezone(timedelta(hours=2)))
        assert (event.correlation_id, event.causation_id) == ("co", "ca")


def test_a_foreign_event_without_a_version_is_read_by_the_latest_class() -> None:
    message = message_of(
        {"ce_type": "com.example.order.placed", "ce_id": "1", "ce_source": "s"}, b'{"order_number": "5"}'
    )
    assert type(to_event(message, Event)) is PlacedTwo


def test_a_foreign_event_runs_post_init_once_with_its_own_id() -> None:
    seen: list[str] = []

    class Seen(Event):
        event_type = "seen"

        def __post_init__(self) -> None:
            super().__post_init__()
            seen.append(self.event_id)

    to_event(message_of({"ce_type": "seen", "ce_id": "mine", "ce_source": "s"}, b"{}"), Seen)
    assert seen == ["mine"]


def test_a_foreign_event_with_fields_that_are_written_by_an_alias_is_filled() -> None:
    from pydantic import Field

    class Aliased(Event):
        event_type = "aliased"
        user: str = Field(alias="userName")
        amount: bytes = b""

    message = message_of({"ce_type": "aliased", "ce_id": "7", "ce_source": "s"}, b'{"userName": "u", "amount": "YQ=="}')
    event = to_event(message, Aliased)
    assert (event.user, event.amount, event.event_id, event.source) == ("u", b"a", "7", "s")


@pytest.mark.parametrize("missing", ["ce_id", "ce_source", "ce_time"])
def test_a_foreign_event_that_lacks_an_attribute_is_read_all_the_same(missing: str) -> None:
    headers = {"ce_type": "com.example.order.placed", "ce_eventversion": "1.2.0", "ce_id": "1", "ce_source": "s"}
    headers["ce_time"] = "2018-04-26T14:48:09Z"
    del headers[missing]
    event = to_event(message_of(dict(headers), b"{}"), Placed)
    assert event.event_id
    assert event.timestamp.tzinfo is not None


@pytest.mark.parametrize("time", ["yesterday", "2018-13-01T00:00:00Z", "", "NaN"])
def test_a_foreign_event_with_a_time_that_is_none_is_a_deserialization_error(time: str) -> None:
    message = message_of({"ce_type": "com.example.order.placed", "ce_id": "1", "ce_time": time}, b"{}")
    with pytest.raises(DeserializationError):
        to_event(message, Placed)


def test_without_any_headers_the_bytes_name_the_class() -> None:
    event = placed()
    assert to_event(Message("t", event.to_json()), Event) == event
    assert to_event(Message("t", event.to_json()), Placed) == event


def test_bytes_without_headers_and_without_a_type_are_of_an_unknown_class() -> None:
    with pytest.raises(UnknownEventTypeError):
        to_event(Message("t", b'{"order_id": "1"}'), Event)


def test_an_unknown_type_is_its_own_error() -> None:
    with pytest.raises(UnknownEventTypeError, match=r"no\.such"):
        to_event(message_of({"ce_type": "no.such"}, b"{}"), Event)


def test_reading_as_a_class_that_the_event_is_not_is_refused() -> None:
    class Other(Event):
        event_type = "other"

    with pytest.raises(DeserializationError, match=r"com\.example\.order\.placed"):
        to_event(BinaryBinding().to_message(placed(), "t"), Other)


def test_a_tombstone_is_no_event_but_an_empty_value_is_bad_json() -> None:
    with pytest.raises(DeserializationError, match="tombstone"):
        to_event(message_of({"ce_type": "com.example.order.placed"}, None), Event)
    with pytest.raises(DeserializationError, match="JSON"):
        to_event(message_of({"ce_type": "com.example.order.placed", "ce_eventversion": "1.2.0"}, b""), Event)


@pytest.mark.parametrize("name", ["ce_type", "ce_eventversion", "content-type", "ce_id", "ce_source", "ce_time"])
def test_a_header_that_is_not_utf_8_is_a_deserialization_error_that_names_it(name: str) -> None:
    headers: dict[str, str | bytes] = {"ce_type": "com.example.order.placed", "ce_eventversion": "1.2.0", "ce_id": "1"}
    headers[name] = b"\xff\xfe"
    with pytest.raises(DeserializationError, match=name):
        to_event(message_of(headers, b"{}"), Event)


def test_another_header_that_is_not_utf_8_is_nobody_s_business() -> None:
    message = BinaryBinding().to_message(placed(), "t", headers=(("x", b"\xff"),))
    assert to_event(message, Event) == placed()


def test_of_a_repeated_header_the_first_counts() -> None:
    message = Message(
        "t", b"{}", headers=(("ce_type", b"com.example.order.placed"), ("ce_type", b"no.such"), ("ce_id", b"1"))
    )
    assert isinstance(to_event(message, Event), PlacedTwo)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json", "text/json"],
)
def test_json_by_any_of_its_names_is_read_as_json(content_type: str) -> None:
    message = message_of(
        {"content-type": content_type, "ce_type": "com.example.order.placed", "ce_eventversion": "1.2.0"},
        b'{"order_id": "5"}',
    )
    assert to_event(message, Placed).order_id == "5"


def test_bytes_of_another_format_end_in_a_deserialization_error() -> None:
    message = message_of({"content-type": "application/xml", "ce_type": "com.example.order.placed"}, b"<a/>")
    with pytest.raises(DeserializationError):
        to_event(message, Placed)


def test_a_class_that_was_decorated_again_gets_new_headers() -> None:
    binding = BinaryBinding()

    class Later(Event):
        event_type = "later"

    first = dict(binding.to_message(Later(source="s"), "t").headers)
    EventSchema(version="1.1.0")(Later)
    second = dict(binding.to_message(Later(source="s"), "t").headers)
    assert (first["ce_eventversion"], second["ce_eventversion"]) == (b"1.0.0", b"1.1.0")


def test_a_newer_minor_version_is_read_by_the_class_there_is() -> None:
    fields = {**json.loads(placed().to_json()), "version": "1.9.0", "new": 1}
    message = message_of(
        {"ce_type": "com.example.order.placed", "ce_eventversion": "1.9.0"}, json.dumps(fields).encode()
    )
    event = to_event(message, Event)
    assert type(event) is Placed
    assert event.version == "1.2.0"


def test_a_foreign_event_keeps_the_source_of_the_headers_where_post_init_would_default_it() -> None:
    class Defaults(Event):
        event_type = "defaults"

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.source:
                self.source = "default"

    message = message_of({"ce_type": "defaults", "ce_id": "1", "ce_source": "/theirs"}, b"{}")
    assert to_event(message, Defaults).source == "/theirs"
    assert to_event(message_of({"ce_type": "defaults", "ce_id": "1"}, b"{}"), Defaults).source == "default"


def test_a_foreign_event_of_another_type_than_the_class_s_is_refused() -> None:
    class Other(Event):
        event_type = "other"

    with pytest.raises(DeserializationError):
        to_event(message_of({"ce_type": "com.example.order.placed", "ce_id": "1"}, b"{}"), Other)


@pytest.mark.parametrize("name", ["ce_id", "ce_source"])
def test_an_empty_attribute_is_refused_or_as_one_that_is_absent(name: str) -> None:
    headers: dict[str, str | bytes] = {"ce_type": "com.example.order.placed", "ce_eventversion": "1.2.0", "ce_id": "1"}
    try:
        event = to_event(message_of({**headers, name: b""}, b"{}"), Placed)
    except DeserializationError:
        return
    assert event.event_id
    assert event.source is None


# --- what is remembered of a class's messages -----------------------------------------------------------------------


@given(
    st.datetimes(
        timezones=st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))) | st.just(UTC)
    )
)
def test_the_time_is_the_timestamp_in_iso_format(moment: datetime) -> None:
    event = placed(timestamp=moment)
    expected = event.timestamp.isoformat()
    assert BinaryBinding().to_message(event, "t").header("ce_time") == expected
    assert json.loads(StructuredBinding().to_message(event, "t").value or b"")["time"] == expected


def test_events_of_several_classes_in_turn_keep_their_own_headers() -> None:
    binding = BinaryBinding()
    for event in (placed(), PlacedTwo(source="s"), placed(), PlacedTwo(source="s")):
        message = binding.to_message(event, "t")
        assert message.header("ce_eventversion") == event.version
        assert to_event(message, Event) == event


def test_a_class_that_takes_another_ones_place_reads_the_next_message() -> None:
    def define() -> type[Event]:
        class Renewed(Event):
            event_type = "renewed"
            one: str = "1"

        return Renewed

    first = define()
    message = BinaryBinding().to_message(first(source="s"), "t")
    assert type(to_event(message, Event)) is first
    second = define()
    assert type(to_event(message, Event)) is second
    registry.unregister(second)
    with pytest.raises(UnknownEventTypeError):
        to_event(message, Event)


def test_another_serializer_in_the_place_of_one_reads_the_next_message() -> None:
    class Plain(JsonSerializer):
        name = "passing-json"
        content_type = "application/x-passing"

    class Shouting(Plain):
        def decode(self, data: bytes, event_class: type[E]) -> E:
            return super().decode(data.replace(b"quiet", b"LOUD"), event_class)

    with registry.isolated():

        @EventSchema(name="spoken", schema_type="passing-json")
        class Spoken(Event):
            words: str

        read = []
        for codec in (Plain, Shouting, Plain):
            register(SERIALIZERS, "passing-json", codec)
            try:
                message = BinaryBinding().to_message(Spoken(words="quiet", source="s"), "t")
                read += [to_event(message, Spoken).words, to_event(message, Spoken).words]
            finally:
                unregister(SERIALIZERS, "passing-json")
        assert read == ["quiet", "quiet", "LOUD", "LOUD", "quiet", "quiet"]


def test_a_class_that_is_forgotten_at_the_end_of_a_block_reads_no_more() -> None:
    with registry.isolated():

        class Passing(Event):
            event_type = "passing"

        message = BinaryBinding().to_message(Passing(source="s"), "t")
        assert type(to_event(message, Event)) is Passing
    with pytest.raises(UnknownEventTypeError):
        to_event(message, Event)


def test_the_order_and_repetition_of_headers_make_no_difference() -> None:
    event = placed()
    message = BinaryBinding().to_message(event, "t")
    again = (*message.headers, ("ce_type", b"another"), ("content-type", b"application/avro"))
    for headers in (message.headers, message.headers[::-1], again, message.headers[4:] + message.headers[:4]):
        for _ in range(2):  # the second time it is remembered
            assert to_event(message._replace(headers=headers), Event) == event
            assert to_event(message._replace(headers=headers), Placed) == event


def test_messages_that_begin_alike_are_told_apart_by_all_that_counts() -> None:
    message = BinaryBinding().to_message(placed(), "t")
    assert to_event(message, Event) == placed()
    wrong = (("content-type", b"application/json"), *message.headers[1:2], ("ce_type", b"unheard of"))
    with pytest.raises(UnknownEventTypeError):
        to_event(message._replace(headers=wrong + message.headers[3:]), Event)
    other_prefix = tuple((name.replace("ce_", "ce-"), value) for name, value in message.headers)
    assert to_event(message._replace(headers=other_prefix), Event, prefix="ce-") == placed()


def test_a_type_that_stands_behind_the_first_headers_is_looked_at_every_time() -> None:
    """As other systems order them: these messages begin alike, and are of two classes."""

    class One(Event):
        event_type = "one"

    class Two(Event):
        event_type = "two"

    first = {
        "content-type": "application/json",
        "ce_specversion": "1.0",
        "ce_source": "/s",
        "ce_time": MOMENT.isoformat(),
    }
    for cls in (One, Two, One, One, Two):
        message = message_of({**first, "ce_id": "1", "ce_type": cls.event_type}, b"{}")
        assert type(to_event(message, Event)) is cls


@pytest.mark.parametrize("prefix", ["ce_", "ce-", "cloudEvents_"])
@pytest.mark.parametrize("version", ["2.0", "1", "", "1.0 "])
def test_another_specversion_is_refused(prefix: str, version: str) -> None:
    headers = {"content-type": "application/json", f"{prefix}specversion": version}
    headers |= {f"{prefix}type": "com.example.order.placed", f"{prefix}id": "1", f"{prefix}source": "s"}
    for cls in (Event, Placed):
        with pytest.raises(DeserializationError, match="specversion"):
            to_event(message_of(dict(headers), b"{}"), cls, prefix=prefix)


@pytest.mark.parametrize("missing", ["id", "source", "type"])
def test_what_says_to_be_a_cloudevent_has_what_one_must_have(missing: str) -> None:
    """A made-up id would be another one at each delivery."""
    headers = {"ce_specversion": "1.0", "ce_type": "com.example.order.placed", "ce_id": "1", "ce_source": "s"}
    assert to_event(message_of(dict(headers), b"{}"), PlacedTwo).event_id == "1"
    for problem in ({f"ce_{missing}": ""}, {}):
        incomplete = {name: text for name, text in headers.items() if name != f"ce_{missing}"} | problem
        with pytest.raises(DeserializationError, match=f"ce_{missing}"):
            to_event(message_of(dict(incomplete), b"{}"), PlacedTwo)


def test_what_foreign_headers_name_is_remembered_within_bounds() -> None:
    from commons_events.binding import _reading

    message = BinaryBinding().to_message(placed(), "t")
    for number in range(2 * _reading._MOST_ROUTES):
        headers = (*message.headers[:3], ("ce_eventversion", f"1.0.{number}".encode()), *message.headers[4:])
        assert to_event(message._replace(headers=headers), Event) == placed()
        assert len(_reading._routes) <= _reading._MOST_ROUTES


def test_what_cannot_be_written_leaves_its_place_in_a_batch() -> None:
    class Measured(Event):
        value: float

    events = [
        Measured(value=1.0, source="/s"),
        Measured(value=float("nan"), source="/s"),
        placed(),
        placed(source=None),
    ]
    first, refused, other, without = BinaryBinding().to_messages(events, "t", keys=[b"1", b"2", b"3", b"4"])
    assert isinstance(first, Message)
    assert isinstance(refused, SerializationError)
    assert isinstance(other, Message)
    assert isinstance(without, SerializationError)
    assert "source" in str(without)
    assert (first.key, other.key) == (b"1", b"3")
    assert to_event(other, Placed) == events[2]


_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(
    ids=st.lists(_texts, min_size=1, max_size=4),
    source=_texts,
    more=st.none() | _texts,
    headers=st.lists(st.tuples(_texts, st.binary(max_size=30)), max_size=3),
)
@pytest.mark.parametrize("binding", [BinaryBinding, StructuredBinding])
def test_a_binding_states_its_own_source_where_an_event_has_none(
    binding: type[BinaryBinding] | type[StructuredBinding],
    ids: list[str],
    source: str,
    more: str | None,
    headers: list[tuple[str, bytes]],
) -> None:
    events = [placed(event_id=id, source=None, note=more, correlation_id=more, causation_id=more) for id in ids]
    made = binding(source=source).to_messages(events, "t", headers=tuple(headers), timestamp=MOMENT)
    stated = binding().to_messages([event.with_source(source) for event in events], "t", headers=tuple(headers))
    for message, wanted, event in zip(made, stated, events, strict=True):
        assert isinstance(message, Message)
        assert isinstance(wanted, Message)
        assert message == wanted._replace(timestamp=MOMENT)
        if isinstance(made, Messages):
            assert sum(len(name) + len(value) for name, value in message.headers) <= made.most_header_bytes
        assert event.source is None


def test_a_class_whose_json_begins_otherwise_states_the_source_all_the_same() -> None:
    class Aliased(Event):
        source: str | None = Field(default=None, serialization_alias="src")
        text: str = '{"source":null,"timestamp":1}'

    class Written(Event):
        model_config = ConfigDict(serialize_by_alias=True)
        source: str | None = Field(default=None, serialization_alias="source", validation_alias="source")

    for event in (Aliased(), Written(), Aliased(event_id=',"source":null,"timestamp":')):
        (message,) = BinaryBinding(source="/own").to_messages([event], "t")
        assert isinstance(message, Message)
        assert message.value == event.with_source("/own").to_json()
        assert type(event).from_json(message.value).source == "/own"
