"""`__post_init__` runs after every way in which an event comes to be, and then the event is a fact (note 3)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from commons_events import Event
from commons_events.errors import CommonsEventsError, DeserializationError, FrozenEventError


class Counted(Event):
    """Knows how often `__post_init__` has run for it: it starts at what the fields say."""

    event_type = "unit.counted"
    runs: int = 0
    email: str = "a@b"

    def __post_init__(self) -> None:
        super().__post_init__()
        if "@" not in self.email:
            raise ValueError("Invalid email format")
        self.runs = self.runs + 1


class Holder(BaseModel):
    event: Counted


class Letter(Event):
    event_type = "unit.letter"
    inner: Counted
    more: list[Counted] = []
    by_name: dict[str, Counted] = {}
    maybe: Counted | None = None


WAYS: dict[str, Callable[[Counted], Counted]] = {
    "from_json": lambda event: Counted.from_json(event.to_json()),
    "deserialize": lambda event: Counted.deserialize(event.serialize()),
    "Event.from_json": lambda event: Event.from_json(event.to_json()),  # type: ignore[dict-item,return-value]
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda event: pickle.loads(pickle.dumps(event)),
    "pickle protocol 2": lambda event: pickle.loads(pickle.dumps(event, 2)),
    "model_copy": lambda event: event.model_copy(),
    "model_copy deep": lambda event: event.model_copy(deep=True),
    "model_copy update": lambda event: event.model_copy(update={"source": "x"}),
    "model_construct": lambda event: Counted.model_construct(runs=event.runs, email=event.email),
    "model_validate": lambda event: Counted.model_validate(event.model_dump()),
    "model_validate_json": lambda event: Counted.model_validate_json(event.to_json()),
    "inside another model": lambda event: Holder.model_validate({"event": event.model_dump()}).event,
    "inside another model's JSON": lambda event: (
        Holder.model_validate_json(b'{"event":' + event.to_json() + b"}").event
    ),
    "inside an event's JSON": lambda event: Letter.from_json(b'{"inner":' + event.to_json() + b"}").inner,
}


@pytest.mark.parametrize("way", WAYS)
def test_post_init_runs_once_for_every_way_to_an_event(way: str) -> None:
    first = Counted()
    assert first.runs == 1
    second = WAYS[way](first)
    assert type(second) is Counted
    assert second.runs == 2


@pytest.mark.parametrize("way", WAYS)
def test_the_event_is_frozen_whatever_way_it_came(way: str) -> None:
    event = WAYS[way](Counted())
    with pytest.raises(FrozenEventError, match="is a fact"):
        event.email = "x@y"
    with pytest.raises(FrozenEventError, match="is a fact"):
        event.source = "x"
    with pytest.raises(FrozenEventError, match="is a fact"):
        event.event_type = "x"  # type: ignore[misc]
    with pytest.raises(FrozenEventError):
        del event.email
    assert event.email == "a@b"


@pytest.mark.parametrize("name", ["version", "event_id", "timestamp", "metadata", "correlation_id", "runs", "unknown"])
def test_no_name_can_be_assigned_or_deleted_after_post_init(name: str) -> None:
    event = Counted()
    before = event.to_json()
    with pytest.raises(FrozenEventError, match="model_copy"):
        setattr(event, name, "x")
    with pytest.raises(FrozenEventError):
        delattr(event, name)
    assert event.to_json() == before


def test_frozen_is_an_attribute_error_of_the_framework() -> None:
    assert issubclass(FrozenEventError, AttributeError)
    assert issubclass(FrozenEventError, CommonsEventsError)


def test_construction_lets_the_value_error_through_as_it_is() -> None:
    with pytest.raises(ValueError, match="Invalid email format") as caught:
        Counted(email="nobody")
    assert type(caught.value) is ValueError
    assert str(caught.value) == "Invalid email format"


@pytest.mark.parametrize("error", [ValueError("v"), KeyError("k"), RuntimeError("r"), AssertionError("a")])
def test_decoding_has_what_post_init_raised_as_its_cause(error: Exception) -> None:
    class Picky(Event):
        n: int = 0

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.n:
                raise error

    with pytest.raises(type(error)) as constructed:
        Picky(n=1)
    assert constructed.value is error
    with pytest.raises(DeserializationError, match="__post_init__ refused") as decoded:
        Picky.from_json(b'{"n": 1}')
    assert isinstance(decoded.value, ValueError)
    assert decoded.value.__cause__ is error


def test_decoding_of_a_nested_event_has_the_value_error_in_its_chain() -> None:
    bad = b'{"inner": {"email": "nobody"}}'
    with pytest.raises(DeserializationError, match="Invalid email format"):
        Letter.from_json(bad)


def test_cancelling_passes_through_post_init() -> None:
    class Stopping(Event):
        def __post_init__(self) -> None:
            super().__post_init__()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stopping()
    with pytest.raises(KeyboardInterrupt):
        Stopping.from_json(b"{}")


def test_what_post_init_assigns_is_validated_as_any_value() -> None:
    class Assigns(Event):
        n: int = 0
        what: Any = None

        def __post_init__(self) -> None:
            super().__post_init__()
            self.n = self.what

    assert Assigns(what="7").n == 7
    with pytest.raises(ValidationError, match="valid integer"):
        Assigns(what="seven")


def test_what_post_init_assigns_travels() -> None:
    class Completes(Event):
        user: str
        source: str | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.source:
                self.source = f"urn:user:{self.user}"

    event = Completes(user="u")
    assert event.source == "urn:user:u"
    assert b'"source":"urn:user:u"' in event.to_json()
    assert Completes.from_json(event.to_json()) == event
    assert "source" in event.model_fields_set


def test_an_unknown_name_cannot_be_assigned_in_post_init_either() -> None:
    class Invents(Event):
        def __post_init__(self) -> None:
            super().__post_init__()
            self.invented = 1

    with pytest.raises((ValueError, AttributeError), match="invented"):
        Invents()


def test_a_failed_construction_can_be_tried_again() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="Invalid email format"):
            Counted(email="x")
    assert Counted().runs == 1


def test_post_init_of_every_base_runs_by_super() -> None:
    order: list[str] = []

    class Base(Event):
        def __post_init__(self) -> None:
            super().__post_init__()
            order.append("base")

    class Mixin:
        def __post_init__(self) -> None:
            super().__post_init__()  # type: ignore[misc]
            order.append("mixin")

    class Derived(Mixin, Base):
        def __post_init__(self) -> None:
            super().__post_init__()
            order.append("derived")

    Derived()
    assert order == ["base", "mixin", "derived"]


# --- nested events -----------------------------------------------------------------------------------------------


def test_an_event_given_as_a_field_of_another_is_kept_as_it_is() -> None:
    inner = Counted()
    letter = Letter(inner=inner, more=[inner], by_name={"k": inner}, maybe=inner)
    assert letter.inner.runs == 1
    assert letter.inner == inner
    assert letter.maybe == inner


def test_nested_events_run_post_init_when_decoded_wherever_they_stand() -> None:
    inner = Counted()
    letter = Letter(inner=inner, more=[inner], by_name={"k": inner}, maybe=inner)
    read = Letter.from_json(letter.to_json())
    assert read.maybe is not None
    assert [read.inner.runs, read.more[0].runs, read.by_name["k"].runs, read.maybe.runs] == [2, 2, 2, 2]
    for event in (read.inner, read.more[0], read.by_name["k"], read.maybe):
        with pytest.raises(FrozenEventError):
            event.email = "x@y"


def test_a_nested_event_keeps_its_own_envelope() -> None:
    class Fact(Event):
        n: int = 0

    class Wrap(Event):
        fact: Fact

    wrap = Wrap(fact=Fact(n=3, correlation_id="c", metadata={"k": 1}))
    read = Wrap.from_json(wrap.to_json())
    assert read == wrap
    assert type(read.fact) is Fact
    assert read.fact.event_id == wrap.fact.event_id
    assert dict(read.fact.metadata) == {"k": 1}


def test_deepcopy_of_an_event_copies_the_events_inside_and_runs_their_post_init() -> None:
    letter = Letter(inner=Counted())
    again = copy.deepcopy(letter)
    assert again.inner is not letter.inner
    assert again.inner.runs == 2


# --- copies ------------------------------------------------------------------------------------------------------


class Plain(Event):
    event_type = "unit.plain"
    n: int = 0
    items: list[Any] = []


@pytest.mark.parametrize(
    "way",
    [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e)), lambda e: e.model_copy()],
    ids=["copy", "deepcopy", "pickle", "model_copy"],
)
def test_a_copy_equals_the_original(way: Callable[[Plain], Plain]) -> None:
    event = Plain(n=3, items=[1, {"a": [2]}], metadata={"k": 1}, correlation_id="c")
    again = way(event)
    assert again == event
    assert again is not event
    assert again.to_json() == event.to_json()
    assert again.model_fields_set == event.model_fields_set


def test_deepcopy_shares_nothing() -> None:
    event = Plain(items=[[1]], metadata={"k": [1]})
    again = copy.deepcopy(event)
    again.items[0].append(2)
    again.metadata["k"].append(2)
    assert event.items == [[1]]
    assert dict(event.metadata) == {"k": [1]}


def test_model_copy_with_update_is_validated_and_keeps_the_identity() -> None:
    event = Plain(n=1, correlation_id="c")
    changed = event.model_copy(update={"n": "5"})
    assert changed.n == 5
    assert (changed.event_id, changed.timestamp, changed.correlation_id) == (event.event_id, event.timestamp, "c")
    assert event.n == 1
    with pytest.raises(ValidationError, match="valid integer"):
        event.model_copy(update={"n": "five"})
    with pytest.raises(ValidationError, match="unknown_one"):
        event.model_copy(update={"unknown_one": 1})


def test_model_copy_with_update_runs_post_init_and_lets_its_error_through() -> None:
    with pytest.raises(ValueError, match="Invalid email format") as caught:
        Counted().model_copy(update={"email": "nobody"})
    assert type(caught.value) is ValueError


def test_model_copy_with_update_can_state_metadata_and_a_new_id() -> None:
    event = Plain(metadata={"a": 1})
    changed = event.model_copy(update={"metadata": {"b": 2}, "event_id": "new"})
    assert dict(changed.metadata) == {"b": 2}
    assert changed.event_id == "new"
    assert dict(event.metadata) == {"a": 1}


def test_with_source_states_the_source_and_nothing_else() -> None:
    event = Counted()
    sent = event.with_source("urn:x")
    assert (sent.source, event.source) == ("urn:x", None)
    assert sent.event_id == event.event_id
    assert sent.runs == event.runs
    with pytest.raises(FrozenEventError):
        sent.source = "y"
