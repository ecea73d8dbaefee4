"""Generic events with their types, used without a subclass."""

import pickle
from typing import Generic, TypeVar

import pytest
from pydantic import BaseModel, create_model

from commons_events import Event, EventSchema
from commons_events.errors import UnknownEventTypeError
from commons_events.event import registry
from commons_events.plugins import serializer

T = TypeVar("T")
U = TypeVar("U")


@EventSchema(name="thing.changed", version="1.2.0", schema_type="avro")
class Changed(Event, Generic[T, U]):
    before: T
    after: U


class Point(BaseModel):
    x: int


IntToText = Changed[int, str]


@pytest.mark.parametrize("format", ["json", "avro", "protobuf"])
def test_it_is_found_by_what_its_bytes_state(format: str) -> None:
    codec = serializer(format)
    event = IntToText(before=1, after="x")
    assert (event.event_type, event.version) == ("thing.changed[int, str]", "1.2.0")
    assert event.schema_info().schema_type == "avro"
    read = codec.decode(codec.encode(event), Event)
    assert read == event
    assert type(read) is IntToText


def test_it_is_registered_as_soon_as_it_is_named_with_all_its_types() -> None:
    with registry.isolated():
        half = Changed[int, U]
        assert registry.get("thing.changed[int, ~U]") is None
        whole = half[Point]
        assert registry.find("thing.changed[int, Point]") is whole
        event = whole(before=1, after=Point(x=2))
        assert Event.deserialize(event.serialize()) == event
        assert pickle.loads(pickle.dumps(IntToText(before=1, after="x"))).after == "x"


def test_types_that_are_called_alike_are_not_guessed() -> None:
    here, there = (create_model("Place", __module__=module, x=(int, ...)) for module in ("here", "there"))
    with registry.isolated():
        one, other = Changed[int, here], Changed[int, there]  # type: ignore[valid-type]
        event = one(before=1, after=here(x=2))
        with pytest.raises(UnknownEventTypeError, match="Make a subclass"):
            Event.deserialize(event.serialize())
        assert one.deserialize(event.serialize()) == event
        assert one.event_type == other.event_type


def test_it_is_found_again_after_a_block_that_was_isolated() -> None:
    def there_and_back() -> None:
        event = Changed[bytes, Point](before=b"1", after=Point(x=2))
        assert registry.find("thing.changed[bytes, Point]") is type(event)
        assert Event.deserialize(event.serialize()) == event

    for _ in range(2):
        with registry.isolated():
            there_and_back()
        assert registry.get("thing.changed[bytes, Point]") is None
    there_and_back()


def test_what_was_called_alike_before_an_isolated_block_is_so_after_it() -> None:
    here, there = (create_model("Spot", __module__=module, x=(int, ...)) for module in ("here", "there"))
    with registry.isolated():
        one, _ = Changed[int, here], Changed[int, there]  # type: ignore[valid-type]
        event = one(before=1, after=here(x=2))
        for _ in range(2):
            with pytest.raises(UnknownEventTypeError, match="Make a subclass"):
                Event.deserialize(event.serialize())
            with registry.isolated():
                pass
            assert Changed[int, here] is one  # type: ignore[valid-type]


@pytest.mark.parametrize("format", ["json", "avro", "protobuf"])
def test_its_type_may_be_bound_to_events(format: str) -> None:
    AnyEvent = TypeVar("AnyEvent", bound=Event)

    @EventSchema(name=f"retried.{format}", schema_type=format)
    class Retried(Event, Generic[AnyEvent]):
        cause: AnyEvent
        others: list[AnyEvent] = []

    class Paid(Event):
        event_type = f"retried.{format}.paid"
        amount: int

    paid = Paid(amount=3)
    event = Retried[Paid](cause=paid, others=[paid])
    assert Event.deserialize(event.serialize()) == event
    with pytest.raises(ValueError, match=r"Paid, which the field's type Event does not hold"):
        Retried(cause=paid)
