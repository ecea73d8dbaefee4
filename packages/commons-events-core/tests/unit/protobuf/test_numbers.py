"""Field numbers: stated, locked, or by order."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import AliasChoices, BaseModel, Field

from commons_events import Event, EventSchema
from commons_events.errors import EventDefinitionError
from commons_events.protobuf import FieldNumber, file_descriptor
from commons_events.protobuf._lock import LockedMessage, LockedTypes, parse, render
from commons_events.protobuf._locking import updated
from commons_events.protobuf._plan import plan_of


def numbers(cls: type[Event], locked: LockedTypes | None = None) -> dict[str, int]:
    return {slot.name: slot.number for slot in plan_of(cls, locked).root.slots if slot.locked}


def test_by_order_around_those_that_are_stated() -> None:
    class Mixed(Event):
        first: int
        second: Annotated[int, FieldNumber(1)]
        third: Annotated[int, FieldNumber(100)]
        fourth: int

    assert numbers(Mixed) == {"first": 2, "second": 1, "third": 100, "fourth": 3}
    assert plan_of(Mixed).unlocked == ("Mixed.first", "Mixed.fourth")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (0, "none: they go from 1"),
        (-1, "none"),
        (2**29, "none"),
        (19000, "Protobuf keeps for itself"),
        (19999, "Protobuf keeps for itself"),
        (2032, "envelope"),
        (2047, "envelope"),
    ],
)
def test_a_number_that_cannot_be_is_refused_when_the_class_is_created(number: int, reason: str) -> None:
    with pytest.raises(EventDefinitionError, match=rf"Wrong.*field 'one' states the number {number}.*{reason}"):

        @EventSchema(schema_type="protobuf")
        class Wrong(Event):
            one: Annotated[int, FieldNumber(number)]


@pytest.mark.parametrize("number", [1, 15, 2031, 2048, 18999, 20000, 2**29 - 1])
def test_a_number_that_can_be_is_taken(number: int) -> None:
    class Right(Event):
        one: Annotated[int, FieldNumber(number)]

    assert numbers(Right) == {"one": number}


def test_a_clash_is_refused_also_inside_a_model() -> None:
    class Inner(BaseModel):
        a: Annotated[int, FieldNumber(3)]
        b: Annotated[int, FieldNumber(3)]

    with pytest.raises(EventDefinitionError, match=r"message Inner.*fields 'a' and 'b' both have the number 3"):

        @EventSchema(schema_type="protobuf")
        class Outer(Event):
            inner: Inner


def test_order_leaves_out_what_is_the_envelope_s() -> None:
    fields: dict[str, Any] = {f"f{n}": int for n in range(2040)}
    cls = type("Huge", (Event,), {"__annotations__": fields, "__module__": __name__})
    assert numbers(cls)["f2030"] == 2031
    assert numbers(cls)["f2031"] == 2048


def locked(fields: dict[str, int], **reserved: int) -> LockedTypes:
    return LockedTypes({"event": LockedMessage(fields, reserved)})


def test_locked_numbers_stay_and_new_fields_come_behind() -> None:
    class Locked(Event):
        new: int
        b: int
        a: int

    assert numbers(Locked, locked({"a": 1, "b": 5}, gone=9)) == {"new": 10, "b": 5, "a": 1}
    assert plan_of(Locked, locked({"a": 1, "b": 5})).unlocked == ("Locked.new",)


def test_a_renamed_field_keeps_its_number() -> None:
    class Renamed(Event):
        heading: str = Field(validation_alias=AliasChoices("heading", "title"))

    assert numbers(Renamed, locked({"title": 4})) == {"heading": 4}


def test_a_stated_number_that_is_reserved_or_locked_otherwise_is_refused() -> None:
    class Again(Event):
        one: Annotated[int, FieldNumber(3)]

    with pytest.raises(EventDefinitionError, match=r"number 3, which was 'gone''s: old bytes"):
        numbers(Again, locked({}, gone=3))
    with pytest.raises(EventDefinitionError, match=r"lock file has 2: bytes of before.*Keep 2"):
        numbers(Again, locked({"one": 2}))


def test_what_the_lock_file_says_after_a_change() -> None:
    class Before(Event):
        event_type = "changed"
        a: int
        b: str
        title: str
        either: int | str = 1

    locks = updated({}, [Before])
    assert locks["changed.v1"].messages["event"].numbers == {"a": 1, "b": 2, "title": 3, "either": 4}

    @EventSchema(name="changed", version="1.1.0")
    class After(Event):
        c: float = 0.0
        heading: str = Field(default="", validation_alias=AliasChoices("heading", "title"))
        a: int
        either: str | int | bool = 1

    found = updated(locks, [After])["changed.v1"].messages
    assert found["event"].numbers == {"a": 1, "heading": 3, "either": 4, "c": 5}
    assert found["event"].reserved == {"b": 2}
    assert found["event.EitherUnion"].numbers == {"int_value": 1, "str_value": 2, "bool_value": 3}
    both = updated(locks, [Before, After])["changed.v1"].messages["event"]
    assert (both.numbers["b"], both.reserved) == (2, {})
    assert locks["changed.v1"].messages["event"].reserved == {}


def test_the_text_of_a_lock_file_is_sorted_and_read_again() -> None:
    class One(Event):
        b: int
        a: int

    locks = updated({}, [One])
    text = render(locks)
    assert text.index('"a": 2') < text.index('"b": 1')
    assert render(parse(text, "x")) == text
    assert updated(parse(text, "x"), [One]) == locks


@pytest.mark.parametrize(
    "text",
    ["", "[]", "<<<<<<< HEAD", '{"format": 2, "protobuf": {}}', '{"format": 1}', '{"format": 1, "protobuf": []}',
     '{"format": 1, "protobuf": {"a.v1": {"messages": {"event": {"fields": {"a": "1"}}}}}}',
     '{"format": 1, "protobuf": {"a.v1": {"messages": {"event": {}}}}}'],
)  # fmt: skip
def test_what_is_no_lock_file_is_refused(text: str) -> None:
    with pytest.raises(EventDefinitionError, match=r"the file"):
        parse(text, "the file")


def test_reserved_numbers_stand_in_the_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "commons_events.protobuf._plan.locked_types", lambda cls, package: locked({"a": 1}, gone=2, again=3)
    )

    class Reserving(Event):
        a: int
        again: int

    message = file_descriptor(Reserving).message_type[0]
    assert [(r.start, r.end) for r in message.reserved_range] == [(2, 3), (3, 4)]
    assert list(message.reserved_name) == ["gone"]  # a field may have a former field's name, and never its number
    assert numbers(Reserving) == {"a": 1, "again": 4}


LOCK = '{"format": 1, "protobuf": {"a.v1": {"messages": {"event": {"fields": {"a": 1, "b": %s}}}}}}'


@pytest.mark.parametrize("number", ["0", "-1", "true", '"2"', "2.0", "19500", "2040", "536870912", "99999999999"])
def test_a_lock_file_with_a_number_that_is_none_is_refused(number: str) -> None:
    with pytest.raises(EventDefinitionError, match=r"lock\.json is damaged: .*'b' has the number"):
        parse((LOCK % number).encode(), "lock.json")


def test_a_lock_file_that_a_merge_left_with_a_field_twice_is_refused() -> None:
    with pytest.raises(EventDefinitionError, match=r"'b' is there twice\. Settle the conflict"):
        parse((LOCK % '2, "b": 3').encode(), "lock.json")
