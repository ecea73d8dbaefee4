"""``given(…).when(…).then(…)``: passes for what happened, and says what differs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from functools import cached_property
from typing import Any

import pytest

pytest.importorskip("commons_events.sourcing", reason="aggregates are commons-events-sourcing's")

from commons_events.errors import ForeignEventError
from commons_events.event import Event
from commons_events.sourcing import AggregateRoot, DomainEvent
from commons_events.testing import Decided, given


class DoorOpened(DomainEvent):
    event_type = "door.opened"
    by: str
    wide: bool = False

    @cached_property
    def initial(self) -> str:
        return self.by[0]


class DoorClosed(DomainEvent):
    event_type = "door.closed"


class Door(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.is_open = False

    def open(self, by: str, *, wide: bool = False) -> None:
        if self.is_open:
            raise ValueError("it is open")
        self.apply(DoorOpened(aggregate_id=self.id, by=by, wide=wide))

    def slam(self) -> None:
        self.apply(DoorClosed(aggregate_id=self.id))
        raise RuntimeError("broken")

    async def wait(self) -> None: ...

    def open_each(self, *names: str) -> Iterator[None]:
        for name in names:
            yield self.open(name)

    async def open_each_in_time(self, *names: str) -> AsyncIterator[None]:
        for name in names:
            yield self.open(name)

    def handle_door_opened(self, event: DoorOpened) -> None:
        self.is_open = True

    def handle_door_closed(self, event: DoorClosed) -> None:
        self.is_open = False


OPENED = DoorOpened(aggregate_id="d", by="Ann")


def opening() -> Decided[Door]:
    return given(Door, "d").when(Door.open, "Ann")


def test_what_happened_is_compared_by_its_data() -> None:
    given(Door, "d").when(Door.open, "Ann").then(OPENED).then_state(is_open=True)
    given(Door, "d").when(lambda door: door.open("Ann", wide=True)).then(
        DoorOpened(aggregate_id="d", by="Ann", wide=True, aggregate_version=1)
    )


def test_a_cached_property_that_was_read_is_no_data() -> None:
    expected = DoorOpened(aggregate_id="d", by="Ann")
    assert expected.initial == "A"
    given(Door, "d").when(Door.open, "Ann").then(expected)
    with pytest.raises(AssertionError, match=r"by: 'Ann' was expected") as caught:
        given(Door, "d").when(Door.open, "Bob").then(expected)
    assert "initial" not in str(caught.value)


def test_a_past_is_given_and_its_events_may_be_shared() -> None:
    for _ in range(2):
        given(Door, "d", OPENED).when(Door.open, by="Bob").then_raises(ValueError, match="is open")
    assert OPENED.aggregate_version == 0
    decided = given(Door, "d", OPENED, DoorClosed(aggregate_id="d")).when(Door.open, "Bob")
    assert [event.aggregate_version for event in decided.events] == [3]


def test_a_shared_event_stays_as_it_is_when_the_state_changes() -> None:
    class GuestsInvited(DomainEvent):
        names: list[str]

    class Party(AggregateRoot):
        guests: list[str]

        def invite(self, *names: str) -> None:
            self.apply(GuestsInvited(aggregate_id=self.id, names=[*names]))

        def handle_guests_invited(self, event: GuestsInvited) -> None:
            self.guests = event.names

    invited = GuestsInvited(aggregate_id="p", names=["Ann"])
    for _ in range(2):
        given(Party, "p", invited).when(lambda party: party.guests.append("Bob")).then_state(guests=["Ann", "Bob"])
        given(Party, "p").when(Party.invite, "Ann").then(invited)


def test_nothing_happened() -> None:
    given(Door, "d", OPENED).when(lambda door: door.is_open).then_nothing().then_state(is_open=True)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda d: d.then(), "0 were expected, and 1 happened"),
        (lambda d: d.then_nothing(), "0 were expected, and 1 happened"),
        (lambda d: d.then(OPENED, OPENED), "2 were expected, and 1 happened"),
        (lambda d: d.then(DoorClosed(aggregate_id="d")), "event 1: DoorClosed was expected, and it is a DoorOpened"),
        (lambda d: d.then(DoorOpened(aggregate_id="d", by="Bob")), "event 1: by: 'Bob' was expected, and it is 'Ann'"),
        (lambda d: d.then(OPENED.model_copy(update={"aggregate_version": 2})), "aggregate_version: 2 was expected"),
        (lambda d: d.then(OPENED.model_copy(update={"correlation_id": "c"})), "correlation_id: 'c' was expected"),
        (lambda d: d.then_raises(ValueError), "ValueError was expected, and the command did: [DoorOpened("),
        (lambda d: d.then_state(is_open=False, size=3), "is_open: False was expected, and it is True\n  size: 3"),
    ],
)
def test_what_differs_is_said(check: Any, message: str) -> None:
    decided = given(Door, "d").when(Door.open, "Ann")
    with pytest.raises(AssertionError, match=re.escape(message)):
        check(decided)


def test_an_error_that_was_not_expected_is_shown_with_its_cause() -> None:
    decided = given(Door, "d", OPENED).when(Door.open, "Bob")
    for check in (
        decided.then_nothing,
        lambda: decided.then_raises(KeyError),
        lambda: decided.then_state(is_open=True),
    ):
        with pytest.raises(AssertionError, match="it is open") as raised:
            check()
        assert isinstance(raised.value.__cause__, ValueError)
    with pytest.raises(AssertionError, match="'shut' is not found"):
        decided.then_raises(ValueError, match="shut")


def test_a_refusal_after_an_event_is_none() -> None:
    with pytest.raises(AssertionError, match="events had happened already"):
        given(Door, "d", OPENED).when(Door.slam).then_raises(RuntimeError)


def test_an_async_command_is_refused() -> None:
    with pytest.raises(TypeError, match="awaits nothing"):
        given(Door, "d").when(Door.wait)


@pytest.mark.parametrize("command", [Door.open_each, Door.open_each_in_time, lambda door, name: door.open_each(name)])
def test_a_command_of_which_nothing_has_run_is_refused(command: Any) -> None:
    with pytest.raises(TypeError, match="nothing has run"):
        given(Door, "d").when(command, "Ann")
    given(Door, "d").when(lambda door: list(door.open_each("Ann"))).then(OPENED)


def test_a_second_command_has_its_own_events_alone() -> None:
    door = given(Door, "d")
    first = door.when(Door.open, "Ann")
    door.when(lambda door: None).then_nothing()
    door.when(Door.open, "Bob").then_raises(ValueError, match="is open")
    second = door.when(lambda door: door.apply(DoorClosed(aggregate_id="d")))
    first.then(OPENED)
    second.then(DoorClosed(aggregate_id="d", aggregate_version=2))
    with pytest.raises(AssertionError, match="1 were expected, and 0 happened"):
        door.when(lambda door: None).then(OPENED)


class Passed(Event):
    event_type = "door.passed"


@pytest.mark.parametrize(
    ("misuse", "error", "message"),
    [
        (lambda: given(Door, "d", [OPENED]), TypeError, "given() takes events, each by itself, and [DoorOpened("),  # type: ignore[arg-type]
        (lambda: given(Door, "d", DoorOpened), TypeError, "DoorOpened'> is none. Make one: DoorOpened(…)."),  # type: ignore[arg-type]
        (lambda: given(Door, "d", Passed()), ForeignEventError, "cannot apply Passed: it is no DomainEvent"),
        (lambda: opening().then([OPENED]), TypeError, "then() takes events, each by itself, and [DoorOpened("),  # type: ignore[arg-type]
        (lambda: opening().then(DoorOpened), TypeError, "DoorOpened'> is none. Make one: DoorOpened(…)."),  # type: ignore[arg-type]
        (lambda: opening().then_raises(ValueError("it")), TypeError, "then_raises(ValueError, match=…)"),  # type: ignore[arg-type]
        (lambda: opening().then_raises("it"), TypeError, "or a tuple of them, and no 'it'"),  # type: ignore[arg-type]
        (lambda: opening().then_raises(()), TypeError, "or a tuple of them, and no empty one"),
        (lambda: given(Door, "d").when("open"), TypeError, "when(Door.open, 'Ann'). 'open' can't be called"),  # type: ignore[arg-type]
        (lambda: opening().then_raises((KeyError, OSError)), AssertionError, "KeyError or OSError was expected"),
    ],
)
def test_what_is_no_assertion_says_how_it_is_written(misuse: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        misuse()


def test_one_of_several_errors() -> None:
    given(Door, "d", OPENED).when(Door.open, "Bob").then_raises((KeyError, ValueError), match="is open")
    with pytest.raises(AssertionError, match="KeyError or OSError was expected, and it raised ValueError"):
        given(Door, "d", OPENED).when(Door.open, "Bob").then_raises((KeyError, OSError))
