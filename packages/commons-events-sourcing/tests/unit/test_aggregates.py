"""Aggregates by themselves: what they apply, what they refuse, and that a refused event did not happen."""

from __future__ import annotations

import json
from contextlib import suppress
from copy import copy
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as for_all
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from commons_events.errors import (
    AggregateDefinitionError,
    EventOrderError,
    ForeignEventError,
    InvalidAggregateIdError,
    MissingHandlerError,
)
from commons_events.event import Event, registry
from commons_events.sourcing import AggregateRoot, DomainEvent


class AccountOpened(DomainEvent):
    event_type = "account.opened"
    owner: str


class MoneyMoved(DomainEvent):
    event_type = "account.money-moved"
    amount: int


class SalaryPaid(MoneyMoved):
    event_type = "account.salary-paid"


class HTTPNoticeSent2(DomainEvent):
    pass


class Unheard(DomainEvent):
    pass


class Account(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.owner = ""
        self.balance = 0
        self.notices = 0

    def handle_account_opened(self, event: AccountOpened) -> None:
        self.owner = event.owner

    def handle_money_moved(self, event: MoneyMoved) -> None:
        if event.amount == 13:
            raise ArithmeticError("thirteen")
        self.balance += event.amount

    def handle_http_notice_sent2(self, event: HTTPNoticeSent2) -> None:
        self.notices += 1


def moved(amount: int, id: str = "a-1") -> MoneyMoved:
    return MoneyMoved(aggregate_id=id, amount=amount)


def test_an_applied_event_changes_the_state_and_waits_to_be_saved() -> None:
    account = Account("a-1")
    events = [AccountOpened(aggregate_id="a-1", owner="Ann"), moved(5), moved(-2)]
    for event in events:
        account.apply(event)
    assert (account.owner, account.balance) == ("Ann", 3)
    assert list(account.pending_events) == events
    assert [event.aggregate_version for event in events] == [1, 2, 3]
    assert (account.version, account.saved_version) == (3, 0)


def test_a_class_s_name_with_an_abbreviation_and_a_digit_has_its_handler() -> None:
    account = Account("a-1")
    account.apply(HTTPNoticeSent2(aggregate_id="a-1"))
    assert account.notices == 1


def test_a_derived_event_is_handled_as_its_base_and_a_derived_aggregate_may_say_otherwise() -> None:
    class Doubling(Account):
        def handle_salary_paid(self, event: SalaryPaid) -> None:
            self.balance += 2 * event.amount

    for aggregate_class, balance in ((Account, 7), (Doubling, 14)):
        account = aggregate_class("a-1")
        account.apply(SalaryPaid(aggregate_id="a-1", amount=7))
        assert account.balance == balance


@pytest.mark.parametrize("known", [False, True])
def test_a_test_s_handler_is_there_as_long_as_the_test_says(known: bool) -> None:
    class Mocked(Account):
        pass

    if known:
        Mocked("a-1").apply(moved(1))
    with patch.object(Mocked, "handle_money_moved") as mock:
        Mocked("a-1").apply(moved(1))
        Mocked("a-1").replay([moved(1).placed(1)])
    with patch.object(Mocked, "handle_money_moved", lambda self, event: setattr(self, "balance", 100)):
        patched = Mocked("a-1")
        patched.apply(moved(1))
    account = Mocked("a-1")
    account.apply(moved(1))
    assert (mock.call_count, patched.balance, account.balance) == (2, 100, 1)


def test_an_event_that_cannot_be_copied_did_not_happen() -> None:
    class Stubborn(BaseModel):
        def __deepcopy__(self, memo: Any = None) -> Any:
            raise TypeError("stays as it is")

    class Kept(DomainEvent):
        event_type = "tests.aggregates.kept"
        what: Stubborn

    class Keeping(Account):
        def handle_kept(self, event: Kept) -> None: ...

    event, account = Kept(aggregate_id="a-1", what=Stubborn()), Keeping("a-1")
    for _ in range(2):
        with pytest.raises(TypeError, match="stays as it is"):
            account.apply(event)
    assert (event.aggregate_version, account.version, account.pending_events) == (0, 0, ())
    account.apply(moved(1))


def test_an_event_that_a_handler_refuses_did_not_happen() -> None:
    account = Account("a-1")
    account.apply(moved(1))
    bad = moved(13)
    with pytest.raises(ArithmeticError, match="thirteen"):
        account.apply(bad)
    assert (account.version, len(account.pending_events), bad.aggregate_version) == (1, 1, 0)
    account.apply(moved(2))
    assert [event.aggregate_version for event in account.pending_events] == [1, 2]


def test_an_event_without_a_handler_is_refused_with_the_method_to_write() -> None:
    account = Account("a-1")
    with pytest.raises(MissingHandlerError, match=r"Define handle_unheard\(self, event: Unheard\).*handle_money_moved"):
        account.apply(Unheard(aggregate_id="a-1"))
    assert (account.version, account.pending_events) == (0, ())
    with pytest.raises(MissingHandlerError):
        account.replay([Unheard(aggregate_id="a-1", aggregate_version=1)])
    assert account.version == 0


def test_an_event_of_another_aggregate_is_refused() -> None:
    account = Account("a-1")
    with pytest.raises(ForeignEventError, match="it is of the aggregate 'a-2'"):
        account.apply(moved(1, "a-2"))
    with pytest.raises(ForeignEventError, match="'a-2'"):
        account.replay([moved(1, "a-2").placed(1)])
    assert account.balance == 0


def test_what_is_no_domain_event_is_refused() -> None:
    with registry.isolated():

        class Plain(Event):
            aggregate_id: str

        with pytest.raises(ForeignEventError, match="no DomainEvent"):
            Account("a-1").apply(Plain(aggregate_id="a-1"))  # type: ignore[arg-type]
        with pytest.raises(ForeignEventError, match="no DomainEvent"):
            Account("a-1").replay([Plain(aggregate_id="a-1")])


def test_an_event_happens_once() -> None:
    account, event = Account("a-1"), moved(1)
    account.apply(event)
    with pytest.raises(EventOrderError, match="applied before, as version 1"):
        account.apply(event)
    assert account.balance == 1


def test_a_handler_applies_no_events() -> None:
    """The event would get the version of the one that is being handled, and happen again with each load."""

    class Eager(Account):
        def handle_account_opened(self, event: AccountOpened) -> None:
            if event.owner == "replay":
                self.replay([moved(1).placed(1)])
            self.apply(moved(1))

    eager = Eager("a-1")
    opened = AccountOpened(aggregate_id="a-1", owner="Ann")
    for act, said in (
        (lambda: eager.apply(opened), "cannot apply MoneyMoved .* while a handler runs.*in the command"),
        (lambda: eager.replay([opened.model_copy().placed(1)]), "cannot apply MoneyMoved"),
        (lambda: eager.apply(AccountOpened(aggregate_id="a-1", owner="replay")), "cannot replay events"),
    ):
        with pytest.raises(EventOrderError, match=said):
            act()
        assert (eager.version, eager.pending_events, eager.balance, opened.aggregate_version) == (0, (), 0, 0)
    eager.apply(moved(2))
    assert (eager.version, eager.saved_version, eager.balance) == (1, 0, 2)


class Line(BaseModel):
    sku: str
    notes: list[str] = []


class OrderPlaced(DomainEvent):
    skus: list[str] = []
    lines: list[Line] = []
    prices: dict[str, Any] = {}
    anything: Any = None
    posts: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.posts = self.posts + 1


class OrderChanged(DomainEvent):
    sku: str


class Order(AggregateRoot):
    """Keeps what its events hold, as natural handlers do."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.held: Any = None

    def handle_order_placed(self, event: OrderPlaced) -> None:
        self.held = event

    def handle_order_changed(self, event: OrderChanged) -> None:
        placed = self.held
        placed.skus.append(event.sku)
        placed.lines.append(Line(sku=event.sku))
        placed.lines[0].sku = event.sku
        placed.lines[0].notes.append(event.sku)
        placed.prices[event.sku] = 1
        placed.prices["nested"].append(event.sku)
        placed.anything["list"].append(event.sku)
        placed.metadata["list"].append(event.sku)
        if event.sku == "bad":
            raise ArithmeticError("bad")


def placed() -> OrderPlaced:
    return OrderPlaced(
        aggregate_id="o-1",
        skus=["a"],
        lines=[Line(sku="a")],
        prices={"nested": []},
        anything={"list": [1]},
        metadata={"list": []},
    )


@pytest.mark.parametrize("sku", ["good", "bad"])
def test_an_event_that_waits_stays_as_it_was_applied(sku: str) -> None:
    order, event = Order("o-1"), placed()
    before = json.loads(event.to_json())
    order.apply(event)
    with suppress(ArithmeticError):
        order.apply(OrderChanged(aggregate_id="o-1", sku=sku))
    assert order.held.skus == ["a", sku]
    assert json.loads(order.pending_events[0].to_json()) == {**before, "aggregate_version": 1}
    assert order.pending_events[0].model_fields_set == event.model_fields_set


def test_what_a_command_puts_into_an_event_may_be_a_part_of_the_state() -> None:
    line, order = Line(sku="a"), Order("o-1")
    order.apply(OrderPlaced(aggregate_id="o-1", lines=[line]))
    line.sku = "b"
    assert order.pending_events[0].lines[0].sku == "a"  # type: ignore[attr-defined]


def test_events_that_are_replayed_stay_the_caller_s() -> None:
    events = [placed().placed(1), OrderChanged(aggregate_id="o-1", sku="b", aggregate_version=2)]
    before = [event.to_json() for event in events]
    for _ in range(2):
        order = Order("o-1")
        order.replay(events)
        assert order.held.skus == ["a", "b"]
    assert [event.to_json() for event in events] == before


def test_an_event_that_cannot_change_is_not_copied() -> None:
    UserId = NewType("UserId", str)

    class Plain(DomainEvent):
        event_type = "tests.aggregates.plain"
        user: UserId
        names: tuple[str, ...] = ()
        kinds: frozenset[Literal["a", "b"]] = frozenset()
        price: Annotated[Decimal | None, Field(ge=0, decimal_places=2, max_digits=9)] = None
        born: date | None = None

    class Hearing(Account):
        def handle_plain(self, event: Plain) -> None: ...

    event, account = Plain(aggregate_id="a-1", user=UserId("u"), metadata={"trace": "t"}), Hearing("a-1")
    account.apply(event)
    assert account.pending_events[0] is event


def test_a_copy_from_within_a_handler_is_in_none() -> None:
    copies: list[Account] = []

    class Copying(Account):
        def handle_money_moved(self, event: MoneyMoved) -> None:
            super().handle_money_moved(event)
            copies.append(copy(self))

    Copying("a-1").apply(moved(1))
    copies[0].apply(moved(2))
    assert (copies[0].balance, copies[0].version) == (3, 1)


def test_stored_events_come_in_order_and_before_new_ones() -> None:
    account = Account("a-1")
    account.replay([moved(1).placed(1), moved(2).placed(2)])
    assert (account.version, account.saved_version, account.pending_events) == (2, 2, ())
    with pytest.raises(EventOrderError, match="at version 2.* has version 4"):
        account.replay([moved(4).placed(4)])
    account.apply(moved(3))
    with pytest.raises(EventOrderError, match="1 events that are not saved"):
        account.replay([moved(5).placed(4)])


@pytest.mark.parametrize("id", ["", "a\0b", "a\nb", "a\x7f", "\x85", "\ud800", "x" * 256, 7, None, b"a"])
def test_an_id_that_is_none_is_refused(id: Any) -> None:
    with pytest.raises(InvalidAggregateIdError, match="id"):
        Account(id)


def test_the_longest_id_is_taken() -> None:
    assert Account("ü" * 255).id == "ü" * 255


def test_a_class_that_forgets_its_base_s_init_says_so() -> None:
    class Forgetful(AggregateRoot):
        def __init__(self, id: str) -> None:
            self.name = id

    aggregate = Forgetful("a-1")
    for use in (lambda: aggregate.id, lambda: aggregate.apply(moved(1))):
        with pytest.raises(AggregateDefinitionError, match=r"has not called super\(\).__init__\(id\)"):
            use()
    assert "not initialized" in repr(aggregate)


def test_an_async_handler_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(AggregateDefinitionError, match="handle_money_moved is async"):

        class Waiting(AggregateRoot):
            async def handle_money_moved(self, event: MoneyMoved) -> None: ...


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@for_all(st.lists(st.integers(-50, 50).filter(lambda n: n != 13), max_size=30), st.integers(0, 30))
def test_replaying_what_was_applied_gives_the_same_state(amounts: list[int], cut: int) -> None:
    account = Account("a-1")
    for amount in amounts:
        account.apply(moved(amount))
    events = account.pending_events
    again = Account("a-1")
    again.replay(events[:cut])
    again.replay(events[cut:])
    assert vars(again) == vars(account)
    assert again.version == account.version == len(amounts)
