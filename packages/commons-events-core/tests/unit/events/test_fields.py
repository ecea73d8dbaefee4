"""Fields: required after defaults, mutable defaults, unknown names (reading note 5)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, Field, ValidationError

from commons_events import Event
from commons_events.errors import DeserializationError, EventDefinitionError


class Address(BaseModel):
    city: str
    tags: list[str] = []


class Open(BaseModel):
    model_config = {"extra": "allow"}
    known: int = 0


class Order(Event):
    event_type = "unit.order"
    note: str = "none"
    items: list[dict[str, Any]] = []
    order_id: str
    address: Address = Address(city="Here")
    amount: int


def problems(error: ValidationError) -> set[tuple[str, ...]]:
    return {tuple(str(part) for part in problem["loc"]) for problem in error.errors()}


def test_required_fields_may_follow_fields_with_defaults() -> None:
    order = Order(order_id="o", amount=1)
    assert (order.note, order.order_id, order.amount) == ("none", "o", 1)
    with pytest.raises(ValidationError) as caught:
        Order()
    assert problems(caught.value) == {("order_id",), ("amount",)}


def test_mutable_defaults_are_never_shared() -> None:
    one, two = Order(order_id="1", amount=1), Order(order_id="2", amount=1)
    one.items.append({"a": 1})
    one.address.tags.append("t")
    one.address.city = "There"
    assert two.items == []
    assert (two.address.city, two.address.tags) == ("Here", [])
    fresh = Order.from_json(b'{"order_id": "3", "amount": 1}')
    assert fresh.items == []
    assert (fresh.address.city, fresh.address.tags) == ("Here", [])


def test_deep_mutable_defaults_are_never_shared() -> None:
    class Deep(Event):
        preferences: dict[str, Any] = {"theme": {"name": "light", "sizes": [1]}}
        rows: list[list[int]] = [[1]]
        anything: Any = {"a": [1]}

    one, two = Deep(), Deep()
    one.preferences["theme"]["sizes"].append(2)
    one.rows[0].append(2)
    one.anything["a"].append(2)
    for other in (two, Deep(), Deep.from_json(b"{}")):
        assert other.preferences == {"theme": {"name": "light", "sizes": [1]}}
        assert other.rows == [[1]]
        assert other.anything == {"a": [1]}


def test_what_the_caller_keeps_of_any_contents_does_not_change_the_event() -> None:
    given: dict[str, Any] = {"sku": "a", "sizes": [1]}
    order = Order(order_id="o", amount=1, items=[given])
    given["sizes"].append(2)
    given["new"] = 1
    assert order.items == [{"sku": "a", "sizes": [1]}]


def test_all_problems_are_named_unknown_missing_and_wrong_together() -> None:
    with pytest.raises(ValidationError) as caught:
        Order(amount="much", nte="x", extra_one=1, address={"tags": 1})
    assert problems(caught.value) == {
        ("amount",),
        ("nte",),
        ("extra_one",),
        ("order_id",),
        ("address", "city"),
        ("address", "tags"),
    }


def test_unknown_fields_are_ignored_on_decoding() -> None:
    order = Order.from_json(b'{"order_id": "o", "amount": 1, "later": {"x": [1]}, "even_later": null}')
    assert order.order_id == "o"
    assert not hasattr(order, "later")
    assert b"later" not in order.to_json()


def test_unknown_fields_are_kept_where_the_class_says_so_and_written_again() -> None:
    class Keeps(Event):
        model_config = {"extra": "allow"}
        n: int = 0

    read = Keeps.from_json(
        b'{"n": 1, "later": {"x": [1, null, 2.5, "s", true]}, "big": 123456789012345678901234567890}'
    )
    assert read.later == {"x": [1, None, 2.5, "s", True]}  # type: ignore[attr-defined]
    written = json.loads(read.to_json())
    assert written["later"] == {"x": [1, None, 2.5, "s", True]}
    assert written["big"] == 123456789012345678901234567890
    assert Keeps.from_json(read.to_json()) == read


def test_unknown_fields_are_refused_on_construction_also_where_decoding_keeps_them() -> None:
    class Keeps(Event):
        model_config = {"extra": "allow"}
        n: int = 0

    with pytest.raises(ValidationError, match="later"):
        Keeps(n=1, later=2)


def test_a_kept_unknown_field_survives_copies() -> None:
    import copy

    class Keeps(Event):
        model_config = {"extra": "allow"}

    read = Keeps.from_json(b'{"later": [1]}')
    assert json.loads(copy.deepcopy(read).to_json())["later"] == [1]
    assert json.loads(copy.copy(read).to_json())["later"] == [1]
    assert json.loads(read.with_source("s").to_json())["later"] == [1]
    assert json.loads(read.model_copy(update={"source": "s"}).to_json())["later"] == [1]


def test_unknown_fields_inside_a_model_that_keeps_them_are_written_again() -> None:
    class Outer(Event):
        inner: Open = Open()
        inners: list[Open] = []

    read = Outer.from_json(b'{"inner": {"known": 1, "new": [1]}, "inners": [{"more": {"a": 1}}], "gone": 1}')
    written = json.loads(read.to_json())
    assert written["inner"] == {"known": 1, "new": [1]}
    assert written["inners"] == [{"known": 0, "more": {"a": 1}}]
    assert Outer.from_json(read.to_json()) == read


def test_unknown_fields_of_a_nested_event_are_refused_from_a_program_and_ignored_in_bytes() -> None:
    class Inner(Event):
        n: int = 0

    class Outer(Event):
        inner: Inner
        inners: list[Inner] = []

    with pytest.raises(ValidationError) as caught:
        Outer(inner={"n": 1, "odd": 1}, inners=[{"odder": 1}])
    assert problems(caught.value) == {("inner", "odd"), ("inners", "0", "odder")}
    read = Outer.from_json(b'{"inner": {"n": 1, "odd": 1}, "inners": [{"odder": 1}]}')
    assert read.inner.n == 1


@pytest.mark.parametrize("annotation", [Event, list[Event], Event | None, dict[str, Event]], ids=str)
def test_a_field_of_any_event_is_refused(annotation: object) -> None:
    for names in (["cause"], ["cause", "effect"]):
        space = {"__annotations__": dict.fromkeys(names, annotation), "__module__": __name__, "__qualname__": "Failed"}
        with pytest.raises(EventDefinitionError, match=r"Failed: .*any Event.*discriminator='event_type'"):
            type(Event)("Failed", (Event,), space)


def test_an_event_of_a_subclass_is_refused_where_the_class_is_declared() -> None:
    class Paid(Event):
        order_id: str

    class PaidByCard(Paid):
        card: str

    class Failed(Event):
        cause: Paid
        others: list[Paid] = []

    paid, by_card = Paid(order_id="1"), PaidByCard(order_id="1", card="c")
    event = Failed(cause=paid, others=[paid])
    assert Failed.from_json(event.to_json()) == event
    for fields in ({"cause": by_card}, {"cause": paid, "others": [by_card]}):
        with pytest.raises(ValueError, match=r"PaidByCard, which the field's type .*Paid does not hold"):
            Failed(**fields)


class Branch(Event):
    parent: Branch | None = None
    leaf: Leaf | None = None


class Leaf(Event):
    branch: Branch | None = None


class LongBranch(Branch):
    length: int = 0


def test_an_event_of_a_subclass_is_refused_inside_its_own_class_too() -> None:
    event = Branch(parent=Branch(parent=Branch()), leaf=Leaf(branch=Branch()))
    assert Branch.from_json(event.to_json()) == event
    for make in (lambda: Branch(parent=LongBranch()), lambda: Leaf(branch=LongBranch())):
        with pytest.raises(ValueError, match=r"LongBranch, which the field's type Branch does not hold"):
            make()


def test_a_field_may_have_the_type_of_a_model_that_the_event_derives_from() -> None:
    class Person(BaseModel):
        name: str

    class Named(Event, Person):
        by: Person

    event = Named(name="a", by=Person(name="b"))
    assert Named.from_json(event.to_json()) == event


def test_a_nested_event_that_keeps_unknown_fields_writes_them_again() -> None:
    class Inner(Event):
        model_config = {"extra": "allow"}

    class Outer(Event):
        inner: Inner

    read = Outer.from_json(b'{"inner": {"later": {"a": 1}}}')
    assert json.loads(read.to_json())["inner"]["later"] == {"a": 1}


def test_a_class_may_forbid_unknown_fields_in_bytes_too() -> None:
    class Strict(Event):
        model_config = {"extra": "forbid"}

    with pytest.raises(DeserializationError, match="later"):
        Strict.from_json(b'{"later": 1}')


@pytest.mark.parametrize(("extra", "additional"), [("ignore", None), ("allow", True), ("forbid", False)])
def test_the_json_schema_says_what_becomes_of_unknown_fields(extra: Any, additional: bool | None) -> None:
    cls: type[Event] = type(Event)(
        "Said", (Event,), {"__module__": __name__, "__qualname__": "Said", "model_config": {"extra": extra}}
    )
    assert json.loads(cls.schema).get("additionalProperties") is additional


def test_a_field_goes_by_its_name_and_by_its_alias() -> None:
    class Aliased(Event):
        user_id: str = Field(alias="userId")
        mail: str = Field(default="m", validation_alias=AliasChoices("email", "e-mail"))

    assert Aliased(userId="u").user_id == "u"
    assert Aliased(user_id="u", email="x").mail == "x"
    event = Aliased(user_id="u", **{"e-mail": "y"})
    assert event.mail == "y"
    assert Aliased.from_json(event.to_json()) == event
    assert Aliased.from_json(b'{"userId": "u", "email": "z"}').mail == "z"
    with pytest.raises(ValidationError, match="userid"):
        Aliased(user_id="u", userid="u")


def test_an_event_with_aliases_copies_with_update() -> None:
    class Aliased(Event):
        user_id: str = Field(alias="userId")
        n: int = 0

    event = Aliased(userId="u")
    assert event.model_copy(update={"n": 1}).user_id == "u"


def test_field_constraints_hold_on_construction_and_decoding() -> None:
    class Bound(Event):
        n: int = Field(ge=1, le=5)
        name: str = Field(default="abc", min_length=2, pattern="^[a-z]+$")

    with pytest.raises(ValidationError) as caught:
        Bound(n=9, name="A")
    assert problems(caught.value) == {("n",), ("name",)}
    with pytest.raises(DeserializationError, match=r"n: .*name: "):
        Bound.from_json(b'{"n": 9, "name": "A"}')


def test_a_field_called_self_or_data_or_cls_is_a_field_as_any() -> None:
    class Odd(Event):
        self: int = 0
        data: int = 0
        cls: int = 0
        args: int = 0

    event = Odd(**{"self": 1, "data": 2, "cls": 3, "args": 4})
    assert (event.self, event.data, event.cls, event.args) == (1, 2, 3, 4)
    assert Odd.from_json(event.to_json()) == event


def test_a_positional_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        Order({"order_id": "o"})  # type: ignore[call-arg]
