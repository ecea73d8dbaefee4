"""Aggregates in and out of every store: what is saved comes back, and what cannot be saved is not."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from copy import copy, deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import pytest_asyncio

from commons_events import EventSchema, migration
from commons_events.errors import (
    AggregateDefinitionError,
    AggregateNotFoundError,
    AmbiguousStreamError,
    ConfigurationError,
    EventTooLargeError,
    ForeignAggregateError,
    ForeignEventError,
    InvalidVersionError,
    MissingHandlerError,
    StreamDeletedError,
    UnchangedAggregateError,
    UndecodableEventError,
    UnknownEventTypeError,
    VersionConflictError,
)
from commons_events.event import Event, EventRegistry, registry
from commons_events.sourcing import AggregateRoot, Append, DomainEvent, EventStore, StreamId
from commons_events.sourcing._decoding import stored_types

pytestmark = pytest.mark.asyncio


class CartOpened(DomainEvent):
    event_type = "cart.opened"
    customer: str


class ItemAdded(DomainEvent):
    event_type = "cart.item-added"
    sku: str
    quantity: int = 1


class Cart(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.customer: str | None = None
        self.items: dict[str, int] = {}

    def open(self, customer: str) -> None:
        self.apply(CartOpened(aggregate_id=self.id, customer=customer))

    def add(self, sku: str, quantity: int = 1) -> None:
        self.apply(ItemAdded(aggregate_id=self.id, sku=sku, quantity=quantity))

    def handle_cart_opened(self, event: CartOpened) -> None:
        self.customer = event.customer

    def handle_item_added(self, event: ItemAdded) -> None:
        self.items[event.sku] = self.items.get(event.sku, 0) + event.quantity


class Wishlist(Cart):
    pass


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventStore]:
    url = {"memory": lambda: "memory://", "sqlite": lambda: f"sqlite:///{tmp_path}/events.db"}.get(
        request.param, lambda: request.getfixturevalue("postgres_database")
    )()
    async with EventStore(url, max_event_bytes=2_000) as made:
        yield made


def cart(id: str = "c-1", items: int = 2) -> Cart:
    made = Cart(id)
    made.open("Ann")
    for number in range(items):
        made.add(f"sku-{number}")
    return made


async def test_a_saved_aggregate_comes_back_with_its_events(store: EventStore) -> None:
    made = cart()
    events = made.pending_events
    await store.save(made)
    assert (made.pending_events, made.version, made.saved_version) == ((), 3, 3)

    loaded = await store.load(Cart, "c-1")
    assert vars(loaded) == vars(made) == {"customer": "Ann", "items": {"sku-0": 1, "sku-1": 1}}
    assert (loaded.version, loaded.pending_events) == (3, ())
    assert await store.get_events(aggregate_id="c-1", from_version=0) == list(events)
    assert await store.get_events("c-1", 2, 2) == [events[1]]
    assert await store.get_events("c-2") == []


async def test_a_loaded_aggregate_goes_on(store: EventStore) -> None:
    await store.save(cart())
    loaded = await store.load(Cart, "c-1")
    loaded.add("sku-0", 4)
    await store.save(loaded)
    loaded.add("sku-9")
    await store.save(loaded)
    again = await store.load(Cart, "c-1")
    assert again.items == {"sku-0": 5, "sku-1": 1, "sku-9": 1}
    assert [e.aggregate_version for e in await store.get_events("c-1") if isinstance(e, DomainEvent)] == [1, 2, 3, 4, 5]


async def test_a_class_names_its_private_attributes_as_it_likes(store: EventStore) -> None:
    class Shipment(AggregateRoot):
        def __init__(self, id: str) -> None:
            super().__init__(id)
            for name in ("id", "version", "pending", "handling", "handlers", "origin", "snapshot", "record", "store"):
                setattr(self, f"_{name}", name)

        def handle_cart_opened(self, event: CartOpened) -> None:
            self._origin = event.customer

    for customer in ("Ann", "Bob"):
        made = Shipment("s-1") if customer == "Ann" else await store.load(Shipment, "s-1")
        made.apply(CartOpened(aggregate_id="s-1", customer=customer))
        await store.save(made)
    loaded = await store.load(Shipment, "s-1")
    assert (loaded.id, loaded.version, loaded.pending_events) == ("s-1", 2, ())
    assert vars(loaded) == vars(made)
    assert (loaded._origin, vars(loaded)["_version"]) == ("Bob", "version")


async def test_an_event_has_the_version_that_it_is_stored_at_whoever_reads_it(store: EventStore) -> None:
    """Its bytes do not know it where it was appended directly, and have another one where it comes from elsewhere."""
    events = [CartOpened(aggregate_id="c-1", customer="ann"), ItemAdded(aggregate_id="c-1", sku="pen").placed(7)]
    stream = StreamId("c-1", "Cart")
    await store.append(stream, events)
    async with store.subscribe() as subscription, store.subscribe_group("readers") as group:
        delivered = []
        for _ in events:
            delivered.append(await anext(group))
            await delivered[-1].done()
        for read in (
            [stored.event() for stored in await store.fetch_stream(stream)],
            [stored.event() async for stored in store.read_all()],
            [stored.event() for stored in await subscription.next_page()],
            [delivery.event() for delivery in delivered],
            await store.get_events("c-1"),
        ):
            assert [event.aggregate_version for event in read] == [1, 2]  # type: ignore[attr-defined]


async def test_an_aggregate_is_loaded_as_it_was(store: EventStore) -> None:
    await store.save(cart(items=3))
    assert (await store.load(Cart, "c-1", version=2)).items == {"sku-0": 1}
    with pytest.raises(AggregateNotFoundError, match="is at version 4, and has no version 5 yet"):
        await store.load(Cart, "c-1", version=5)
    for version in (0, -1, True, "2"):
        with pytest.raises(InvalidVersionError, match="from 1 on"):
            await store.load(Cart, "c-1", version=version)  # type: ignore[arg-type]
    with pytest.raises(InvalidVersionError):
        await store.get_events("c-1", from_version=-1)


async def test_what_was_changed_by_somebody_else_is_a_conflict(store: EventStore) -> None:
    await store.save(cart())
    mine, theirs = await store.load(Cart, "c-1"), await store.load(Cart, "c-1")
    theirs.add("theirs")
    await store.save(theirs)
    mine.add("mine")
    with pytest.raises(VersionConflictError) as conflict:
        await store.save(mine)
    assert (conflict.value.expected, conflict.value.actual) == (3, 4)
    assert len(mine.pending_events) == 1  # nothing is lost: the caller decides
    assert "mine" not in (await store.load(Cart, "c-1")).items
    with pytest.raises(VersionConflictError):
        await store.save(cart())


async def test_several_aggregates_are_saved_together_or_not_at_all(store: EventStore) -> None:
    await store.save(cart("c-1"), cart("c-2"))
    one, two = await store.load(Cart, "c-1"), await store.load(Cart, "c-2")
    other = await store.load(Cart, "c-2")
    other.add("x")
    await store.save(other)
    one.add("one")
    two.add("two")
    with pytest.raises(VersionConflictError, match="c-2"):
        await store.save(one, two)
    assert (await store.load(Cart, "c-1")).version == 3


async def test_an_answer_that_was_lost_is_asked_for_again(store: EventStore) -> None:
    made = cart()
    await store.append_many([Append(StreamId("c-1", "Cart"), made.pending_events, 0)])
    await store.save(made)  # the same events once more
    assert made.pending_events == ()
    assert (await store.load(Cart, "c-1")).version == 3


async def test_saving_nothing_is_refused(store: EventStore) -> None:
    made = cart()
    await store.save(made)
    with pytest.raises(UnchangedAggregateError, match="Cart 'c-1' has applied no event"):
        await store.save(made)
    with pytest.raises(ConfigurationError, match="none"):
        await store.save()


async def test_a_foreign_aggregate_is_refused(store: EventStore) -> None:
    async with EventStore("memory://") as elsewhere:
        await elsewhere.save(cart())
        loaded = await elsewhere.load(Cart, "c-1")
    loaded.add("x")
    with pytest.raises(ForeignAggregateError, match="belongs to another store"):
        await store.save(loaded)
    with pytest.raises(ForeignAggregateError, match="is none"):
        await store.save(loaded.pending_events[0])  # type: ignore[arg-type]
    twice = cart()
    with pytest.raises(ForeignAggregateError, match="comes twice"):
        await store.save(twice, twice)
    assert await store.get_events("c-1") == []


@pytest.mark.parametrize("copied", [copy, deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
async def test_a_copy_goes_on_by_itself(store: EventStore, copied: Callable[[Cart], Cart]) -> None:
    await store.save(cart())
    loaded = await store.load(Cart, "c-1")
    loaded.add("both")
    made = copied(loaded)
    assert (vars(made), made.pending_events, made.version) == (vars(loaded), loaded.pending_events, 4)
    made.add("copy")
    assert (len(made.pending_events), len(loaded.pending_events), loaded.saved_version) == (2, 1, 3)
    await store.save(made)
    with pytest.raises(VersionConflictError):
        loaded.add("mine")
        await store.save(loaded)
    assert (await store.load(Cart, "c-1")).version == 5


async def test_a_copy_belongs_to_the_store_and_a_pickle_to_none(store: EventStore) -> None:
    made = cart()
    await store.save(made)
    made.add("more")
    async with EventStore("memory://") as elsewhere:
        for copied in (copy(made), deepcopy(made)):
            with pytest.raises(ForeignAggregateError, match="belongs to another store"):
                await elsewhere.save(copied)
        with pytest.raises(VersionConflictError):
            await elsewhere.save(pickle.loads(pickle.dumps(made)))


async def test_an_aggregate_that_is_not_there_says_what_is(store: EventStore) -> None:
    with pytest.raises(AggregateNotFoundError, match="There is no Cart 'c-1'"):
        await store.load(Cart, "c-1")
    await store.save(cart())
    with pytest.raises(AggregateNotFoundError, match="Its id is that of streams of 'Cart'"):
        await store.load(Wishlist, "c-1")


async def test_two_classes_may_share_an_id_that_is_then_to_be_told_apart(store: EventStore) -> None:
    wishlist = Wishlist("c-1")
    wishlist.open("Bob")
    await store.save(wishlist, cart())
    assert (await store.load(Cart, "c-1")).customer == "Ann"
    assert (await store.load(Wishlist, "c-1")).customer == "Bob"
    with pytest.raises(AmbiguousStreamError):
        await store.get_events("c-1")
    assert len(await store.get_events(StreamId("c-1", "Wishlist"))) == 1


async def test_a_deleted_aggregate_says_so(store: EventStore) -> None:
    await store.save(cart())
    await store.delete_stream(StreamId("c-1", "Cart"))
    with pytest.raises(StreamDeletedError):
        await store.load(Cart, "c-1")
    with pytest.raises(StreamDeletedError):
        await store.save(cart())


async def test_an_event_that_is_too_large_leaves_nothing_behind(store: EventStore) -> None:
    made, large = cart("c-1"), cart("c-2")
    large.add("x" * 3_000)
    with pytest.raises(EventTooLargeError, match="ItemAdded"):
        await store.save(made, large)
    assert await store.get_events("c-1") == []
    assert len(made.pending_events) == 3


async def test_an_event_without_a_handler_in_the_stream_is_refused(store: EventStore) -> None:
    class Narrow(AggregateRoot):
        category = "Cart"

        def handle_cart_opened(self, event: CartOpened) -> None: ...

    await store.save(cart())
    with pytest.raises(
        MissingHandlerError, match=r"version 2 of stream 'Cart/c-1'.*Narrow has no handler for ItemAdded"
    ):
        await store.load(Narrow, "c-1")


async def test_a_handler_that_fails_says_for_which_event(store: EventStore) -> None:
    class Strict(AggregateRoot):
        category = "Cart"

        def handle_cart_opened(self, event: CartOpened) -> None: ...

        def handle_item_added(self, event: ItemAdded) -> None:
            raise LookupError(event.sku)

    await store.save(cart())
    with pytest.raises(LookupError) as caught:
        await store.load(Strict, "c-1")
    assert "version 2 of stream 'Cart/c-1'" in caught.value.__notes__[0]


@pytest.mark.parametrize("id", ["می\u200cخواهم", "👨\u200d👩\u200d👧", "e\u0301", "日本\u3000語", "../a b", "%_'\"\\"])
async def test_an_id_in_any_language_comes_back(store: EventStore, id: str) -> None:
    await store.save(cart(id))
    loaded = await store.load(Cart, id)
    assert (loaded.id, loaded.version) == (id, 3)
    assert [event.aggregate_id for event in await store.get_events(id)] == [id] * 3  # type: ignore[attr-defined]


async def test_a_range_that_cannot_be_is_refused_for_any_stream(store: EventStore) -> None:
    for id in ("c-1", "nobody"):
        for first, last in ((-1, None), (0, -1), (2**63, None)):
            with pytest.raises(InvalidVersionError):
                await store.get_events(id, from_version=first, to_version=last)
        await store.save(cart("c-1")) if id == "c-1" else None


async def test_an_event_that_is_no_domain_event_in_the_stream_is_refused(
    store: EventStore, event_registry: EventRegistry
) -> None:
    class Stray(Event):
        pass

    await store.append(StreamId("c-1", "Cart"), [Stray()])
    with pytest.raises(ForeignEventError, match="Stray: it is no DomainEvent"):
        await store.load(Cart, "c-1")


async def test_an_unknown_event_type_says_where_it_lies(store: EventStore) -> None:
    with registry.isolated():

        class Forgotten(DomainEvent):
            pass

        await store.append(StreamId("c-1", "Cart"), [Forgotten(aggregate_id="c-1")])
    with pytest.raises(UnknownEventTypeError, match="version 1 of stream 'Cart/c-1': No event class .*'Forgotten'"):
        await store.load(Cart, "c-1")
    with pytest.raises(UnknownEventTypeError):
        await store.get_events("c-1")


async def test_bytes_that_no_longer_decode_say_where_they_lie(store: EventStore) -> None:
    with registry.isolated():

        class Priced(DomainEvent):
            price: int

        await store.append(StreamId("c-1", "Cart"), [Priced(aggregate_id="c-1", price=1)])
    with registry.isolated():

        class Priced(DomainEvent):  # type: ignore[no-redef]
            price: int
            currency: str

        with pytest.raises(UndecodableEventError, match="version 1 of stream 'Cart/c-1' cannot be read: .*currency"):
            await store.load(Cart, "c-1")


async def test_older_events_come_through_their_migrations_and_stay_as_they_are(
    store: EventStore, event_registry: EventRegistry
) -> None:
    @EventSchema(name="cart.renamed", version="1.0.0")
    class Renamed1(DomainEvent):
        name: str

    class Named(AggregateRoot):
        first = last = ""

        def handle_renamed(self, event: Any) -> None:
            self.first, self.last = event.first, event.last

    old = Renamed1(aggregate_id="n-1", name="Ann Lee")
    await store.append(StreamId("n-1", "Named"), [old])

    @EventSchema(name="cart.renamed", version="2.0.0")
    class Renamed(DomainEvent):
        first: str
        last: str

    assert isinstance((await store.get_events("n-1"))[0], Renamed1)  # no migration says otherwise yet

    @migration(from_=Renamed1, to=Renamed)
    def split(event: Renamed1) -> Renamed:
        first, _, last = event.name.partition(" ")
        return Renamed(aggregate_id=event.aggregate_id, first=first, last=last)

    loaded = await store.load(Named, "n-1")
    assert (loaded.first, loaded.last, loaded.version) == ("Ann", "Lee", 1)
    (event,) = await store.get_events("n-1")
    assert isinstance(event, Renamed)
    assert (event.event_id, event.aggregate_version) == (old.event_id, 1)
    (stored,) = await store.fetch_stream(StreamId("n-1", "Named"))
    assert stored.schema_version == "1.0.0"
    assert b"Ann Lee" in stored.data


async def test_events_of_a_type_that_was_renamed_come_as_the_new_one(
    store: EventStore, event_registry: EventRegistry
) -> None:
    class SignedUp(DomainEvent):
        event_type = "member.signed-up"
        mail: str

    class Joined(DomainEvent):
        event_type = "member.joined"
        email: str

    @EventSchema(name="member.joined", version="2.0.0")
    class Joined2(Joined):
        email: str
        way: str

    class PublicJoined(Event):
        """What the outside is told; an aggregate's events are not read as it."""

    migration(from_=SignedUp, to=Joined)(lambda e: Joined(aggregate_id=e.aggregate_id, email=e.mail))
    migration(from_=Joined, to=Joined2)(lambda e: Joined2(aggregate_id=e.aggregate_id, email=e.email, way="form"))
    migration(from_=Joined2, to=PublicJoined)(lambda e: PublicJoined())

    class Member(AggregateRoot):
        joined: tuple[str, ...] = ()

        def handle_joined(self, event: Any) -> None:
            self.joined = (*self.joined, event.email)

    stream = StreamId("m-1", "Member")
    await store.append(stream, [SignedUp(aggregate_id="m-1", mail="a@b"), Joined(aggregate_id="m-1", email="c@d")])
    await store.append(stream, [Joined2(aggregate_id="m-1", email="e@f", way="call")])
    loaded = await store.load(Member, "m-1")
    assert (loaded.joined, loaded.version) == (("a@b", "c@d", "e@f"), 3)
    read = [stored async for stored in store.read_all(types=[Joined2])]
    assert [type(stored.event()) for stored in read] == [Joined2] * 3
    assert [stored.event_type for stored in read] == ["member.signed-up", "member.joined", "member.joined"]
    # a text is the type that they were stored as, and an old class has what was never anything else
    for kind in ("member.signed-up", SignedUp):
        assert [stored.position async for stored in store.read_all(types=[kind])] == [read[0].position]


async def test_what_was_renamed_is_found_out_once_a_question(event_registry: EventRegistry) -> None:
    class Newest(DomainEvent):
        pass

    for number in range(20):
        old = type(f"Old{number}", (DomainEvent,), {"__module__": __name__})
        event_registry.migrations.migration(from_=old, to=Newest)(lambda event: Newest(aggregate_id=event.aggregate_id))
    with patch.object(event_registry.migrations, "renamed", wraps=event_registry.migrations.renamed) as renamed:
        assert len(stored_types(Newest)) == 21
    assert renamed.call_count == 1


@pytest.mark.parametrize(
    ("schema_type", "library"),
    [("json", "pydantic"), ("jsonschema", "fastjsonschema"), ("avro", "avro"), ("protobuf", "google.protobuf")],
)
async def test_an_aggregate_s_events_may_be_of_any_format(
    schema_type: str, library: str, event_registry: EventRegistry
) -> None:
    pytest.importorskip(library, reason=f"the extra [{schema_type}] of commons-events-core is not installed")

    @EventSchema(name="meter.read", version="1.0.0", schema_type=schema_type)
    class MeterRead(DomainEvent):
        value: int

    class Meter(AggregateRoot):
        last = 0

        def handle_meter_read(self, event: MeterRead) -> None:
            self.last = event.value

    async with EventStore("sqlite://") as store:
        meter = Meter("m-1")
        for value in (3, 2**40):
            meter.apply(MeterRead(aggregate_id="m-1", value=value))
        events = list(meter.pending_events)
        await store.save(meter)
        loaded = await store.load(Meter, "m-1")
        assert (loaded.last, loaded.version) == (2**40, 2)
        assert await store.get_events("m-1") == events
        assert {stored.format async for stored in store.read_all()} == {schema_type}


async def test_classes_that_cannot_be_made_from_an_id_are_refused(store: EventStore) -> None:
    class Demanding(Cart):
        category = "Cart"

        def __init__(self, id: str, owner: str) -> None:
            super().__init__(id)

    class Renaming(Cart):
        category = "Cart"

        def __init__(self, id: str) -> None:
            super().__init__(id.upper())

    class Eager(Cart):
        category = "Cart"

        def __init__(self, id: str) -> None:
            super().__init__(id)
            self.open("nobody")

    await store.save(cart())
    for aggregate_class, reason in (
        (Demanding, "missing a required argument: 'owner'"),
        (Renaming, "has the id 'C-1'"),
        (Eager, "applies events"),
        (str, "no class that derives from AggregateRoot"),
    ):
        with pytest.raises(AggregateDefinitionError, match=reason):
            await store.load(aggregate_class, "c-1")  # type: ignore[type-var]


async def test_events_that_are_applied_while_it_saves_wait_for_the_next_time(store: EventStore) -> None:
    made = cart()
    saving = asyncio.create_task(store.save(made))
    await asyncio.sleep(0)
    made.add("late")
    await saving
    assert [event.sku for event in made.pending_events if isinstance(event, ItemAdded)] == ["late"]
    await store.save(made)
    assert (await store.load(Cart, "c-1")).items["late"] == 1


async def test_two_tasks_that_save_one_object_forget_nothing_that_was_applied_meanwhile(store: EventStore) -> None:
    made = cart()
    twice = [asyncio.create_task(store.save(made)) for _ in range(2)]
    await asyncio.wait(twice, return_when=asyncio.FIRST_COMPLETED)
    made.add("late")
    await asyncio.gather(*twice)
    assert [event.sku for event in made.pending_events if isinstance(event, ItemAdded)] == ["late"]
    await store.save(made)
    assert (await store.load(Cart, "c-1")).items["late"] == 1


async def test_many_savers_of_one_aggregate_lose_nothing_that_was_confirmed(store: EventStore) -> None:
    await store.save(cart(items=0))

    async def saver(name: str) -> list[str]:
        confirmed: list[str] = []
        for number in range(5):
            loaded = await store.load(Cart, "c-1")
            loaded.add(f"{name}-{number}")
            try:
                await store.save(loaded)
            except VersionConflictError:
                continue
            confirmed.append(f"{name}-{number}")
        return confirmed

    confirmed = [sku for done in await asyncio.gather(*(saver(f"s{n}") for n in range(8))) for sku in done]
    final = await store.load(Cart, "c-1")
    assert sorted(final.items) == sorted(confirmed)
    assert final.version == 1 + len(confirmed)


async def test_a_transaction_that_is_cancelled_while_it_begins_holds_nobody_up(store: EventStore) -> None:
    async def begin() -> None:
        async with store.transaction() as transaction:
            await transaction.append("t-1", [CartOpened(aggregate_id="t-1", customer="nobody")])
            await asyncio.sleep(60)

    await store.head()
    for turns in range(6):
        beginning = asyncio.create_task(begin())
        for _ in range(turns):
            await asyncio.sleep(0)
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
    await store.save(cart())
    assert await store.head() > 0
    assert await store.get_events("t-1") == []
