"""Snapshots: a shortcut that is never trusted beyond what fits the class and the stream."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as for_all
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

from commons_events.errors import (
    AggregateDefinitionError,
    ConfigurationError,
    SnapshotError,
    StoreUnavailableError,
)
from commons_events.runtime import Runtime, use_runtime
from commons_events.sourcing import (
    AggregateRoot,
    DomainEvent,
    EventStore,
    MemoryBackend,
    SnapshotPolicy,
    StoredSnapshot,
    StreamId,
)
from commons_events.sourcing._snapshots import StateCodec, state_codec
from commons_events.sourcing._state import set_state


class Counted(DomainEvent):
    event_type = "counter.counted"
    by: int


class Counter(AggregateRoot):
    snapshot_policy = SnapshotPolicy(every=10)
    replayed: ClassVar[int] = 0
    per_key: dict[int, int]

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.total = 0
        self.per_key = {}

    def count(self, by: int) -> None:
        self.apply(Counted(aggregate_id=self.id, by=by))

    def handle_counted(self, event: Counted) -> None:
        type(self).replayed += 1
        self.total += event.by
        self.per_key[event.by] = self.per_key.get(event.by, 0) + 1


STREAM = StreamId("n-1", "Counter")


async def counted(store: EventStore, *numbers: int, aggregate_class: type[Counter] = Counter) -> Counter:
    counter = aggregate_class("n-1")
    for number in numbers:
        counter.count(number)
    await store.save(counter)
    return counter


async def load(store: EventStore, aggregate_class: type[Counter] = Counter) -> tuple[Counter, int]:
    """The aggregate, and how many events were read for it."""
    aggregate_class.replayed = 0
    loaded = await store.load(aggregate_class, "n-1")
    return loaded, aggregate_class.replayed


@pytest.mark.asyncio
async def test_a_snapshot_is_kept_when_it_is_due_and_only_newer_events_are_read() -> None:
    async with EventStore("memory://") as store:
        counter = await counted(store, *range(9))
        assert await store.snapshot(STREAM, "Counter") is None
        counter.count(9)
        await store.save(counter)
        snapshot = await store.snapshot(STREAM, "Counter")
        assert snapshot is not None
        assert snapshot.version == 10
        for number in range(3):
            counter.count(number)
            await store.save(counter)
        loaded, events = await load(store)
        assert events == 3
        assert vars(loaded) == vars(counter)
        assert (loaded.version, loaded.saved_version) == (13, 13)
        assert loaded.per_key == {n: 2 if n < 3 else 1 for n in range(10)}


@pytest.mark.asyncio
async def test_a_first_snapshot_that_comes_while_it_loads_is_no_matter() -> None:
    """On PostgreSQL the snapshot and the events are two queries, between which others may save."""

    class Between(MemoryBackend):
        async def fetch_from_snapshot(self, stream: StreamId, kind: str, last: int, limit: int) -> Any:
            assert await self.snapshot(stream, kind, last) is None
            await counted(EventStore(backend=self), *range(10))
            return None, (await super().fetch_from_snapshot(stream, kind, last, limit))[1]

    loaded, _ = await load(EventStore(backend=Between()))
    assert (loaded.version, loaded.total) == (10, 45)


@pytest.mark.asyncio
async def test_a_snapshot_is_made_when_the_last_one_is_old() -> None:
    class Clock(Runtime):
        time = datetime(2026, 1, 1, tzinfo=UTC)

        def now(self) -> datetime:
            return self.time

    class Aging(Counter):
        category = "Counter"
        snapshot_policy = SnapshotPolicy(every=3, max_age=timedelta(days=1))

    with use_runtime(Clock()):
        async with EventStore("memory://") as store:
            aging = Aging("n-1")
            for number in range(3):
                aging.count(number)
            await store.save(aging)
            for hours, version in ((23, 3), (25, 5)):
                Clock.time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
                aging.count(1)
                await store.save(aging)
                snapshot = await store.snapshot(STREAM, Aging.__qualname__)
                assert snapshot is not None
                assert snapshot.version == version


@pytest.mark.asyncio
@pytest.mark.parametrize(("loaded", "versions"), [(True, (2, 4)), (False, (3, 5))], ids=["by a load", "by a save"])
async def test_before_the_first_snapshot_the_age_is_that_of_the_first_event(
    loaded: bool, versions: tuple[int, int]
) -> None:
    class Aging(Counter):
        category = "Counter"
        snapshot_policy = SnapshotPolicy(every=None, max_age=timedelta(days=1))

    first, aging = datetime.now(UTC), Aging("n-1")
    async with EventStore("memory://") as store:
        for hours, version in ((0, None), (23, None), (25, versions[0]), (26, versions[0]), (50, versions[1])):
            with use_runtime(At(first + timedelta(hours=hours))):
                if hours and loaded:
                    aging = await store.load(Aging, "n-1")
                aging.count(1)
                await store.save(aging)
                snapshot = await store.snapshot(STREAM, Aging.__qualname__)
                assert (snapshot and snapshot.version) == version


class At(Runtime):
    def __init__(self, time: datetime) -> None:
        super().__init__()
        self.time = time

    def now(self) -> datetime:
        return self.time


@pytest.mark.asyncio
async def test_a_missing_snapshot_is_made_by_loading() -> None:
    async with EventStore("memory://") as store:
        await counted(store, *range(12))
        await store.delete_snapshots(STREAM)
        assert (await load(store))[1] == 12
        assert (await load(store))[1] == 0


@pytest.mark.asyncio
async def test_an_aggregate_as_it_was_is_not_read_from_a_later_snapshot_and_keeps_none() -> None:
    async with EventStore("memory://") as store:
        await counted(store, *range(12))
        assert (await store.load(Counter, "n-1", version=7)).total == sum(range(7))
        await store.delete_snapshots(STREAM)
        assert (await store.load(Counter, "n-1", version=11)).total == sum(range(11))
        assert await store.snapshot(STREAM, "Counter") is None


def changed_handler(self: Counter, event: Counted) -> None:
    type(self).replayed += 1
    self.total += 2 * event.by
    self.per_key[event.by] = self.per_key.get(event.by, 0) + 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("change", "total"),
    [
        ({"handle_counted": changed_handler}, 2 * sum(range(12))),
        ({"snapshot_version": 2}, sum(range(12))),
        ({"__annotations__": {"per_key": "dict[int, int | None]"}}, sum(range(12))),
    ],
    ids=["a handler", "the snapshot_version", "an attribute's type"],
)
async def test_a_snapshot_of_a_class_that_has_changed_is_made_anew(change: dict[str, Any], total: int) -> None:
    async with EventStore("memory://") as store:
        await counted(store, *range(12))
        new = type("Counter", (Counter,), {"__module__": __name__, "__qualname__": "Counter", **change})
        loaded, events = await load(store, new)
        assert (loaded.total, events) == (total, 12)
        assert (await load(store, new))[1] == 0


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{}",
        b'ID\n{"total": 99}',
        b'ID\n{"typed": {}, "plain": 99}',
        b'ID\n{"typed": {"per_key": {"x": 1}}, "plain": {"total": 99}}',
    ],
)
async def test_a_snapshot_that_cannot_be_read_is_made_anew(data: bytes) -> None:
    async with EventStore("memory://") as store:
        counter = await counted(store, *range(12))
        last = (await store.get_events("n-1"))[-1].event_id
        await store.save_snapshot(damaged(data.replace(b"ID", last.encode())))
        loaded, events = await load(store)
        assert vars(loaded) == vars(counter)
        assert events == 12
        assert (await load(store))[1] == 0


def damaged(data: bytes) -> StoredSnapshot:
    fingerprint = state_codec(Counter).fingerprint
    return StoredSnapshot(
        stream=STREAM, version=12, kind="Counter", schema_version=fingerprint, data=data, taken_at=datetime.now(UTC)
    )


@pytest.mark.asyncio
async def test_a_snapshot_of_another_history_is_not_trusted() -> None:
    async with EventStore("memory://") as one, EventStore("memory://") as other:
        await counted(one, *[1] * 12)
        foreign = await one.snapshot(STREAM, "Counter")
        assert foreign is not None
        await counted(other, *[2] * 12)
        await other.delete_snapshots(STREAM)
        await other.save_snapshot(foreign)
        assert (await load(other))[0].total == 24
    async with EventStore("memory://") as shorter:  # as after the return of an older backup
        await counted(shorter, 1)
        await shorter.save_snapshot(foreign)
        assert (await load(shorter))[0].total == 1
        assert await shorter.snapshot(STREAM, "Counter") is None  # it would be in the way of those to come


@pytest.mark.asyncio
async def test_a_snapshot_ahead_of_the_stream_that_cannot_be_deleted_is_no_matter() -> None:
    class ReadOnly(MemoryBackend):
        async def delete_snapshots(self, stream: StreamId) -> None:
            raise StoreUnavailableError("read-only")

    async with EventStore(backend=ReadOnly()) as store:
        await counted(store, *range(12))
        await store.save_snapshot(replace(damaged(b""), version=1000))
        assert (await load(store))[0].total == sum(range(12))


class Status(Enum):
    OPEN = "open"


class Address(BaseModel):
    city: str


class Rich(AggregateRoot):
    price: Decimal
    status: Status
    address: Address | None
    seen: set[int]
    at: datetime
    _hidden: tuple[int, ...]

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.price, self.status, self.address = Decimal("1.10"), Status.OPEN, Address(city="Ulm")
        self.seen, self.at, self._hidden = {1, 2}, datetime(2026, 1, 1, tzinfo=UTC), (1, 2)
        self.plain: Any = None


def test_annotated_attributes_come_back_as_their_types() -> None:
    rich, codec = Rich("r-1"), StateCodec(Rich)
    assert codec.load(codec.dump(rich)) == vars(rich)


@pytest.mark.parametrize(
    "value",
    [{1: "a"}, (1, 2), {1}, Status.OPEN, Decimal(1), datetime(2026, 1, 1, tzinfo=UTC), object(), float("nan"), [(1,)]],
)
def test_what_would_not_come_back_is_refused_with_the_attribute_s_name(value: object) -> None:
    rich = Rich("r-1")
    rich.plain = value
    with pytest.raises(SnapshotError, match=r"Rich 'r-1': a snapshot cannot keep the attribute 'plain'.*Say its type"):
        StateCodec(Rich).dump(rich)


@dataclass
class Hidden:
    shown: int = 0
    of_code: int = field(default=0, init=False, compare=False)


class Excluding(BaseModel):
    left_out: Any = Field(0, exclude=True)
    _private: int = PrivateAttr(0)


class Point(NamedTuple):
    x: Any = 0


class Slotted(AggregateRoot):
    __slots__ = ("__mangled", "balance", "unset")
    balance: int

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.balance, self.__mangled = 1, 2

    @property
    def mangled(self) -> int:
        return self.__mangled


class Exact(Slotted):
    at: datetime
    clock: time
    last: deque[int]
    lasts: dict[str, deque[int]]
    stock: defaultdict[str, int]
    ordered: OrderedDict[str, int]
    numbers: set[tuple[int, float]]
    keys: dict[float, int]
    sure: float
    hidden: Hidden
    excluding: Excluding
    places: list[Point]
    limit: Final = 3
    final: Final[Decimal]
    shared: ClassVar = 4
    large: Any

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.final = Decimal("1.0")


BERLIN = ZoneInfo("Europe/Berlin")
BACK = {
    "at": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))),
    "clock": time(1, 2, 3, 4),
    "last": deque([1, 2]),
    "stock": defaultdict(int, a=1),
    "ordered": OrderedDict(b=1, a=2),
    "numbers": {(1, 1.0)},
    "keys": {1.0: 1},
    "sure": -0.0,
    "hidden": Hidden(1),
    "excluding": Excluding(),
    "places": [Point({"a": [1]})],
}


def test_what_is_the_same_comes_back_slots_too() -> None:
    exact, codec = Exact("e-1"), StateCodec(Exact)
    vars(exact).update(BACK)
    exact.balance = 15
    back = Exact("e-1")
    back.unset = back.extra = 1  # type: ignore[attr-defined]
    set_state(back, codec.load(codec.dump(exact)) or {})
    assert vars(back) == vars(exact)
    assert repr(vars(back)["sure"]) == "-0.0"
    assert (back.balance, back.mangled, hasattr(back, "unset")) == (15, 2, False)


def hidden(**attributes: int) -> Any:
    made = Hidden()
    vars(made).update(attributes)
    return made


def private() -> Any:
    made = Excluding()
    made._private = 1
    return made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at", datetime(2026, 1, 1, tzinfo=BERLIN)),
        ("at", datetime(2026, 10, 25, 2, 30, fold=1)),
        ("clock", time(1, 2, tzinfo=BERLIN)),
        ("last", deque([1], maxlen=3)),
        ("lasts", {"a": deque([1], maxlen=3)}),
        ("stock", defaultdict(lambda: 100, a=1)),
        ("stock", defaultdict(None, a=1)),
        ("numbers", {(1, 1)}),
        ("keys", {1: 1}),
        ("sure", 1),
        ("hidden", hidden(of_code=1)),
        ("hidden", hidden(other=1)),
        ("excluding", Excluding(left_out=1)),
        ("excluding", private()),
        ("places", [Point((1,))]),
        ("large", [10**5000]),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(name: str, value: object) -> None:
    exact = Exact("e-1")
    vars(exact)[name] = value
    with pytest.raises(SnapshotError, match=f"Exact 'e-1': a snapshot cannot keep the attribute '{name}'") as caught:
        StateCodec(Exact).dump(exact)
    assert "extra=" not in str(caught.value)
    assert ("astimezone" in str(caught.value)) == (name == "at")


def test_an_aggregate_of_slots_alone_has_snapshots() -> None:
    slotted, back, codec = Slotted("s-1"), Slotted("s-1"), StateCodec(Slotted)
    slotted.balance, back.unset = 3, 4  # type: ignore[attr-defined]
    set_state(back, codec.load(codec.dump(slotted)) or {})
    assert (back.balance, back.mangled, hasattr(back, "unset")) == (3, 2, False)


@dataclass(frozen=True)
class Money:
    amount: Decimal
    notes: Any = None


@dataclass
class Line:
    sku: str


class Place(BaseModel):
    model_config = ConfigDict(frozen=True)
    city: str
    tags: Any = None

    @cached_property
    def letters(self) -> list[str]:
        return list(self.city)


class Pair(AggregateRoot):
    one: Any
    many: list[Any]
    money: tuple[Money, Money]
    lines: list[Line]
    addresses: dict[str, Address]
    place: Place
    places: set[Place]
    last: Counted
    status: tuple[Status, Status]
    key: tuple[Any, ...]
    keys: tuple[tuple[int, str], ...]


def shared() -> list[dict[str, Any]]:
    a_dict, a_list, address, line = {"sku": "a"}, [1], Address(city="Ulm"), Line("a")
    return [
        {"many": [a_dict], "one": {"a": a_dict}},
        {"many": [a_list, a_list]},
        {"one": a_list, "many": a_list},
        {"addresses": {"home": address, "work": address}},
        {"lines": [line, line]},
        {"money": (Money(Decimal(1), a_list), Money(Decimal(2), a_list))},
        {"place": Place(city="Ulm", tags=a_list), "many": a_list},
        {"key": (a_list, a_list)},
    ]


@pytest.mark.parametrize("state", shared(), ids=lambda state: " and ".join(state))
def test_an_object_that_can_change_and_would_come_back_as_two_is_refused(state: dict[str, Any]) -> None:
    pair = Pair("p-1")
    vars(pair).update(state)
    first, last = next(iter(state)), list(state)[-1]
    with pytest.raises(SnapshotError, match=rf"keep the attribute '{last}': the .* in it, .*, is in '{first}' already"):
        StateCodec(Pair).dump(pair)


def test_what_never_changes_may_be_held_twice() -> None:
    money, place, event = Money(Decimal(1)), Place(city="Ulm"), Counted(aggregate_id="p-1", by=1)
    assert place.letters == ["U", "l", "m"]
    text, key = "a text that is long enough to be one object", (1, "x")
    pair, codec = Pair("p-1"), StateCodec(Pair)
    vars(pair).update(
        one=text, many=[text, 10**30, 10**30, 1.5, None], money=(money, money), place=place, places={place}, last=event,
        status=(Status.OPEN, Status.OPEN), key=(place.city, place.city), equal=[[1], [1], {}, {}],
        keys=(key, key),
    )  # fmt: skip
    assert codec.load(codec.dump(pair)) == vars(pair)


@pytest.mark.asyncio
async def test_a_snapshot_does_not_part_what_is_one(event_registry: object) -> None:
    class Added(DomainEvent):
        sku: str

    class Cart(AggregateRoot):
        snapshot_policy = SnapshotPolicy(every=2)

        def __init__(self, id: str) -> None:
            super().__init__(id)
            self.lines: list[dict[str, Any]] = []
            self.by_sku: dict[str, dict[str, Any]] = {}

        def handle_added(self, event: Added) -> None:
            line = {"sku": event.sku, "price": 0}
            self.lines.append(line)
            self.by_sku[event.sku] = line

    async with EventStore("memory://") as store:
        cart = Cart("c-1")
        cart.apply(Added(aggregate_id="c-1", sku="a"))
        await store.save(cart)
        cart.apply(Added(aggregate_id="c-1", sku="b"))
        with pytest.raises(SnapshotError, match="'by_sku': the dict in it"):
            await store.save(cart)
        assert (await store.load(Cart, "c-1")).version == 1


@pytest.mark.asyncio
async def test_a_state_that_cannot_be_kept_is_refused_before_anything_is_stored() -> None:
    class Awkward(Counter):
        def handle_counted(self, event: Counted) -> None:
            self.total = Decimal(event.by)  # type: ignore[assignment]

    async with EventStore("memory://") as store:
        awkward = Awkward("n-1")
        for number in range(10):
            awkward.count(number)
        with pytest.raises(SnapshotError, match="'total'"):
            await store.save(awkward)
        assert await store.get_events("n-1") == []
        assert len(awkward.pending_events) == 10


@pytest.mark.asyncio
async def test_loading_needs_no_snapshot_that_can_be_kept() -> None:
    class Late(Counter):
        category = "Counter"

        def handle_counted(self, event: Counted) -> None:
            self.total = {event.by}  # type: ignore[assignment]

    async with EventStore("memory://") as store:
        await counted(store, *range(12))
        assert (await store.load(Late, "n-1")).total == {11}  # type: ignore[comparison-overlap]


@pytest.mark.asyncio
async def test_loading_needs_no_class_that_can_be_kept() -> None:
    def refuse(value: int) -> int:
        raise KeyError(value)

    async with EventStore("memory://") as store:
        await counted(store, *range(12))
        last = (await store.get_events("n-1"))[-1].event_id.encode()
        for annotation in ("Nowhere", Annotated[int, AfterValidator(refuse)]):
            members = {"__module__": __name__, "__annotations__": {"total": annotation}, "__qualname__": "Counter"}
            odd = type("Counter", (Counter,), members)
            await store.save_snapshot(damaged(last + b'\n{"typed": {"total": 1}, "plain": {}}'))
            assert (await store.load(odd, "n-1")).total == sum(range(12))
        await store.save_snapshot(replace(damaged(last + b"\n"), schema_version=state_codec(odd).fingerprint))
        assert (await store.load(odd, "n-1")).total == sum(range(12))


def test_an_annotation_that_cannot_be_looked_up_is_named() -> None:
    odd = type("Odd", (AggregateRoot,), {"__annotations__": {"x": "Nowhere"}, "__module__": __name__})
    with pytest.raises(SnapshotError, match="Nowhere"):
        StateCodec(odd)
    strange = type("Strange", (AggregateRoot,), {"__annotations__": {"x": Runtime}, "__module__": __name__})
    with pytest.raises(SnapshotError, match="pydantic cannot write"):
        StateCodec(strange)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every": 0}, "every is 0"),
        ({"every": 1.5}, "every is 1.5; it is a whole number"),
        ({"every": "10"}, "every is '10'"),
        ({"every": True}, "every is True"),
        ({"every": None}, "give every= or max_age="),
        ({"max_age": timedelta(0)}, "max_age is datetime.timedelta"),
        ({"max_age": 60}, "max_age is 60; it is a timedelta"),
    ],
)
def test_a_policy_that_is_none_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"SnapshotPolicy: {said}"):
        SnapshotPolicy(**options)


@pytest.mark.parametrize("policy", [5, SnapshotPolicy, True])
def test_a_class_whose_policy_is_none_is_refused(policy: object) -> None:
    with pytest.raises(AggregateDefinitionError, match=r"Odd.snapshot_policy is .*; it is a SnapshotPolicy, such as"):
        type("Odd", (AggregateRoot,), {"snapshot_policy": policy, "__qualname__": "Odd"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@for_all(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), json_values, max_size=5))
def test_any_state_of_json_comes_back(state: dict[str, Any]) -> None:
    class Loose(AggregateRoot):
        pass

    loose, codec = Loose("l-1"), StateCodec(Loose)
    vars(loose).update(state)
    assert codec.load(codec.dump(loose)) == state
