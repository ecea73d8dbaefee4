"""The envelope's defaults and words (reading notes 2 and 4, and the table above them)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Dict  # noqa: UP035  # as the page writes it
from uuid import UUID

import pytest

from commons_events import Event, EventMetadata, EventSchema
from commons_events.errors import DeserializationError


def test_an_event_gets_an_id_and_the_present_time_in_utc() -> None:
    class Made(Event):
        pass

    before = datetime.now(UTC)
    event = Made()
    assert before <= event.timestamp <= datetime.now(UTC)
    assert event.timestamp.utcoffset() == timedelta(0)
    assert UUID(event.event_id).version == 7
    assert (event.source, event.correlation_id, event.causation_id) == (None, None, None)
    assert (event.version, dict(event.metadata)) == ("1.0.0", {})


def test_ids_differ_and_sort_by_the_time_they_were_made() -> None:
    class Made(Event):
        pass

    events = [Made() for _ in range(200)]
    assert len({event.event_id for event in events}) == 200
    by_millisecond = [event.event_id[:13] for event in events]
    assert by_millisecond == sorted(by_millisecond)


def test_what_is_given_is_kept() -> None:
    class Made(Event):
        pass

    moment = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=timezone(timedelta(hours=2)))
    event = Made(
        event_id="id-1", source="/s", timestamp=moment, correlation_id="co", causation_id="ca", metadata={"k": [1]}
    )
    assert (event.event_id, event.source, event.correlation_id, event.causation_id) == ("id-1", "/s", "co", "ca")
    assert event.timestamp == moment
    assert event.timestamp.utcoffset() == timedelta(hours=2)
    assert event.metadata == {"k": [1]}


def test_the_bytes_are_one_flat_object_with_the_whole_envelope() -> None:
    @EventSchema(name="flat.event", version="1.4.0")
    class Flat(Event):
        user_id: str

    event = Flat(user_id="ü", source="here", correlation_id="c")
    fields = json.loads(event.to_json())
    assert fields == {
        "event_type": "flat.event",
        "version": "1.4.0",
        "event_id": event.event_id,
        "source": "here",
        "timestamp": event.timestamp.isoformat().replace("+00:00", "Z"),
        "correlation_id": "c",
        "causation_id": None,
        "metadata": {},
        "user_id": "ü",
    }


def test_serialize_is_to_json_where_the_format_is_json() -> None:
    class Plain(Event):
        n: int = 1

    event = Plain()
    assert event.serialize() == event.to_json()
    assert Plain.deserialize(event.serialize()) == event


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0", "1.2.1", "", "x"])
def test_another_version_than_the_class_s_is_an_error_on_construction(version: str) -> None:
    @EventSchema(name="v", version="1.2.0")
    class V(Event):
        pass

    assert V(version="1.2.0").version == "1.2.0"
    with pytest.raises(ValueError, match="version"):
        V(version=version)


def test_bytes_of_another_minor_version_are_read_as_the_class_s_and_of_another_major_are_not() -> None:
    @EventSchema(name="v", version="1.2.0")
    class V(Event):
        n: int = 0

    newer = json.dumps({"event_type": "v", "version": "1.9.0", "n": 5, "new_field": 1})
    event = V.from_json(newer)
    assert (event.n, event.version) == (5, "1.2.0")
    with pytest.raises(DeserializationError, match=r"version 1\.2\.0 .* version 2\.0\.0"):
        V.from_json(json.dumps({"event_type": "v", "version": "2.0.0", "n": 5}))


@pytest.mark.parametrize("version", ["null", "1", '"one"', '""', "[]", "{}", "1.5"])
def test_a_version_in_the_bytes_that_is_none_is_an_error(version: str) -> None:
    class V(Event):
        pass

    with pytest.raises(DeserializationError):
        V.from_json(f'{{"version": {version}}}')


def test_bytes_of_another_type_are_refused_by_a_class() -> None:
    class One(Event):
        event_type = "one"

    class Other(Event):
        event_type = "other"

    with pytest.raises(DeserializationError, match="'one', not 'other'"):
        Other.from_json(One().to_json())


def test_a_base_class_reads_the_class_that_the_bytes_name() -> None:
    class Base(Event):
        event_type = "base"

    class Derived(Base):
        event_type = "derived"
        n: int = 1

    event = Derived(n=2)
    assert type(Base.from_json(event.to_json())) is Derived
    assert Event.from_json(event.to_json()) == event
    with pytest.raises(DeserializationError):
        Derived.from_json(Base().to_json())


def test_event_reads_only_bytes_that_name_a_type() -> None:
    with pytest.raises(DeserializationError, match="no event_type"):
        Event.from_json(b"{}")


def test_the_same_envelope_and_fields_make_equal_events_and_hashes() -> None:
    class Made(Event):
        n: int

    moment = datetime(2024, 1, 1, tzinfo=UTC)
    one, two = Made(n=1, event_id="i", timestamp=moment), Made(n=1, event_id="i", timestamp=moment)
    assert one == two
    assert hash(one) == hash(two)
    assert one != Made(n=2, event_id="i", timestamp=moment)
    assert one != Made(n=1, event_id="j", timestamp=moment)
    assert len({one, two}) == 1


# --- metadata ----------------------------------------------------------------------------------------------------


class _PlainMetadata(Event):
    pass


class _RedeclaredMetadata(Event):
    metadata: Dict[str, Any] = {}  # noqa: UP006  # as the page writes it


@pytest.fixture(params=[_PlainMetadata, _RedeclaredMetadata])
def with_metadata(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_len_of_the_metadata_counts_just_what_the_user_put_in(with_metadata: Any) -> None:
    assert len(with_metadata().metadata) == 0
    assert len(with_metadata(correlation_id="c", source="s").metadata) == 0
    event = with_metadata(metadata={"a": 1, "b": None}, correlation_id="c")
    assert len(event.metadata) == 2
    assert list(event.metadata) == ["a", "b"]
    assert dict(event.metadata) == {"a": 1, "b": None}
    assert "correlation_id" not in event.metadata


def test_the_metadata_s_attributes_read_the_event_s_own_values(with_metadata: Any) -> None:
    event = with_metadata(correlation_id="co", causation_id="ca", source="s", metadata={"correlation_id": "mine"})
    for seen in (event, with_metadata.from_json(event.to_json())):
        assert isinstance(seen.metadata, EventMetadata)
        for name in ("event_type", "version", "event_id", "source", "timestamp", "correlation_id", "causation_id"):
            assert getattr(seen.metadata, name) == getattr(event, name)
        assert seen.metadata["correlation_id"] == "mine"


def test_the_metadata_is_read_only_and_not_shared(with_metadata: Any) -> None:
    given = {"a": 1}
    one, two = with_metadata(metadata=given), with_metadata()
    given["b"] = 2
    assert dict(one.metadata) == {"a": 1}
    assert dict(two.metadata) == {}
    with pytest.raises(TypeError):
        one.metadata["c"] = 3
    with pytest.raises(AttributeError):
        one.metadata.correlation_id = "x"


def test_the_metadata_takes_an_event_metadata_too(with_metadata: Any) -> None:
    first = with_metadata(metadata={"a": [1, {"b": 2}]})
    second = with_metadata(metadata=first.metadata)
    assert dict(second.metadata) == {"a": [1, {"b": 2}]}
    third = with_metadata(metadata=EventMetadata({"x": 1}, y=2))
    assert dict(third.metadata) == {"x": 1, "y": 2}
    assert with_metadata.from_json(third.to_json()) == third


def test_metadata_made_by_hand_has_no_event() -> None:
    alone = EventMetadata({"a": 1})
    assert len(alone) == 1
    assert alone.correlation_id is None
    assert alone.event_id is None
    assert repr(alone) == "EventMetadata({'a': 1})"


def test_a_subclass_s_metadata_default_is_its_own_and_not_shared() -> None:
    class Tagged(Event):
        metadata: dict[str, Any] = {"tag": ["x"]}

    one, two = Tagged(), Tagged()
    assert dict(one.metadata) == {"tag": ["x"]}
    one.metadata["tag"].append("y")
    assert dict(two.metadata) == {"tag": ["x"]}
    assert dict(Tagged().metadata) == {"tag": ["x"]}


@pytest.mark.parametrize(
    "value", [{"a": (1,)}, {"a": {1}}, {1: 2}, {"a": b"x"}, {"a": datetime(2024, 1, 1)}, [("a", 1)]]
)
def test_metadata_that_would_not_survive_its_round_trip_is_refused(with_metadata: Any, value: Any) -> None:
    with pytest.raises(ValueError, match="metadata"):
        with_metadata(metadata=value)
