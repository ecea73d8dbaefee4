"""What the page's Quick Start leaves in the broker, and that its event modeling classes keep their promises."""

from __future__ import annotations

import asyncio
import copy
import json
import runpy
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from commons_events import EventConsumer
from commons_events.errors import FrozenEventError, MissingDistributionError
from commons_events.event import registry
from commons_events.memory import MemoryBroker
from commons_events.plugins import SERIALIZERS, names

HERE = Path(__file__).parent
NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
USER: dict[str, Any] = {"user_id": "u", "email": "a@b.c", "username": "alice", "registered_at": NOW}


@pytest.fixture(autouse=True)
def clean_process() -> Iterator[None]:
    MemoryBroker.reset_all()
    with registry.isolated():
        yield
    MemoryBroker.reset_all()


@pytest.fixture
def page() -> dict[str, Any]:
    """The block's names, without its last lines, which run it; `timedelta` is a name that it leaves out."""
    block = HERE / "event_modeling.py"
    defined: dict[str, Any] = {"__name__": "page", "timedelta": timedelta}
    definitions = block.read_text("utf-8").partition("# Run demonstrations")[0]
    exec(compile(definitions, str(block), "exec", dont_inherit=True), defined)
    return defined


def test_the_quick_start_sends_its_event_as_a_cloud_event() -> None:
    made = runpy.run_path(str(HERE / "quick_start.py"), run_name="__main__")
    broker = MemoryBroker.get()
    (topic,) = broker.topics()
    assert topic.topic == "user-events"
    (stored,) = [item for p in range(topic.partitions) for item in broker.browse("user-events", p, 0, 10)]
    message = stored.message
    event = made["UserRegistered"].from_json(message.value)
    assert (event.user_id, event.email, event.source) == ("user_123", "john@example.com", "auth-service")
    assert event.registered_at.tzinfo is not None
    assert message.header("ce_type") == "user.registered"
    assert message.header("ce_source") == "auth-service"
    assert message.header("ce_id") == event.event_id


def test_a_consumer_of_the_default_broker_receives_what_the_quick_start_sent() -> None:
    made = runpy.run_path(str(HERE / "quick_start.py"), run_name="__main__")

    async def receive() -> Any:
        async with EventConsumer(broker="memory", topics=["user-events"], group_id="g") as consumer:
            (message,) = await consumer.receive(1, timeout=60)
            await consumer.commit(message)
            return message.event()

    assert isinstance(asyncio.run(receive()), made["UserRegistered"])


def test_the_classes_state_their_types_versions_and_formats(page: dict[str, Any]) -> None:
    stated = {
        name: (page[name].event_type, page[name].schema_info().version, page[name].schema_info().schema_type)
        for name in ("UserRegisteredEvent", "UserProfileUpdatedEvent", "OrderLifecycleEvent")
    }
    assert stated == {
        "UserRegisteredEvent": ("user.registered", "1.2.0", "avro"),
        "UserProfileUpdatedEvent": ("user.profile.updated", "1.0.0", "json"),
        "OrderLifecycleEvent": ("order.lifecycle", "2.1.0", "protobuf"),
    }


def test_a_registration_is_made_with_its_defaults(page: dict[str, Any]) -> None:
    event = page["UserRegisteredEvent"](**USER)
    assert event.role is page["UserRole"].USER
    assert event.source == "user-service"
    assert event.preferences == {"notifications": True, "theme": "light", "language": "en"}
    assert (event.tags, event.profile, event.full_name) == ([], {}, None)
    assert event.version == "1.2.0"
    assert page["UserRegisteredEvent"].from_json(event.to_json()) == event


def test_an_empty_id_is_made_up_by_post_init(page: dict[str, Any]) -> None:
    event = page["UserRegisteredEvent"](**USER, event_id="")
    assert event.event_id.startswith("evt_")
    assert page["UserRegisteredEvent"].from_json(event.to_json()).event_id == event.event_id


@pytest.mark.parametrize(
    ("wrong", "text"), [({"email": "nobody"}, "Invalid email format"), ({"username": "al"}, "Username too short")]
)
def test_its_validation_raises_the_page_s_own_words(page: dict[str, Any], wrong: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        page["UserRegisteredEvent"](**{**USER, **wrong})
    assert str(caught.value) == text
    bad = {**json.loads(page["UserRegisteredEvent"](**USER).to_json()), **wrong}
    with pytest.raises(ValueError, match=text):
        page["UserRegisteredEvent"].from_json(json.dumps(bad))


def test_its_mutable_defaults_are_not_shared(page: dict[str, Any]) -> None:
    one, two = page["UserRegisteredEvent"](**USER), page["UserRegisteredEvent"](**USER)
    one.tags.append("t")
    one.preferences["theme"] = "dark"
    assert two.tags == []
    assert two.preferences["theme"] == "light"


def test_it_is_a_fact_once_it_is_made(page: dict[str, Any]) -> None:
    event = page["UserRegisteredEvent"](**USER)
    with pytest.raises(FrozenEventError):
        event.email = "x@y"
    assert copy.deepcopy(event) == event


def test_avro_and_protobuf_name_the_line_that_brings_them_while_they_are_missing(page: dict[str, Any]) -> None:
    order = page["OrderLifecycleEvent"](
        order_id="o", user_id="u", status="pending", items=[], total_amount=1.0, status_changed_at=NOW
    )
    for event, codec in ((page["UserRegisteredEvent"](**USER), "avro"), (order, "protobuf")):
        if codec in names(SERIALIZERS):
            continue
        with pytest.raises(MissingDistributionError, match=rf'pip install "commons-events-core\[{codec}\]"'):
            event.serialize()
        with pytest.raises(MissingDistributionError, match=rf'pip install "commons-events-core\[{codec}\]"'):
            type(event).deserialize(b"")


def test_a_profile_update_is_made_from_changes(page: dict[str, Any]) -> None:
    cls = page["UserProfileUpdatedEvent"]
    event = cls.create_from_changes(user_id="u", changes={"name": ("a", "b"), "age": (1, 2)}, updated_by="me")
    assert event.updated_fields == ["name", "age"]
    assert (event.old_values, event.new_values) == ({"name": "a", "age": 1}, {"name": "b", "age": 2})
    assert cls.deserialize(event.serialize()) == event


def test_an_order_keeps_its_metadata_beside_the_envelope(page: dict[str, Any]) -> None:
    event = page["OrderLifecycleEvent"](
        order_id="o",
        user_id="u",
        status=page["EventStatus"].PROCESSING,
        items=[{"product_id": "p", "quantity": 1, "price": 19.99}],
        total_amount=19.99,
        status_changed_at=NOW,
        correlation_id="c",
        metadata={"payment_method": "credit_card"},
    )
    assert len(event.metadata) == 1
    assert event.metadata.correlation_id == "c"
    assert page["OrderLifecycleEvent"].from_json(event.to_json()) == event
