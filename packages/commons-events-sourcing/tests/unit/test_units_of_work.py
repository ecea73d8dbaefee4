"""Repositories and units of work: one object an aggregate, all or nothing, and another try after a conflict."""

from __future__ import annotations

import asyncio
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest

from commons_events.errors import (
    AggregateDefinitionError,
    AggregateNotFoundError,
    ClosedError,
    ConfigurationError,
    ForeignAggregateError,
    InvalidAggregateIdError,
    VersionConflictError,
    WrongEventLoopError,
)
from commons_events.retries import Retry
from commons_events.sourcing import AggregateRoot, DomainEvent, EventStore, Repository, UnitOfWork, run_unit

pytestmark = pytest.mark.asyncio


class Deposited(DomainEvent):
    event_type = "purse.deposited"
    amount: int


class Purse(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.balance = 0

    def deposit(self, amount: int) -> int:
        if self.balance + amount < 0:
            raise ValueError("not that much in it")
        self.apply(Deposited(aggregate_id=self.id, amount=amount))
        return self.balance

    async def deposit_later(self, amount: int) -> int:
        await asyncio.sleep(0)
        return self.deposit(amount)

    def look(self) -> int:
        return self.balance

    def handle_deposited(self, event: Deposited) -> None:
        self.balance += event.amount


@pytest.fixture
def store() -> EventStore:
    return EventStore("memory://")


async def filled(store: EventStore, *ids: str, amount: int = 10) -> None:
    for id in ids:
        purse = Purse(id)
        purse.deposit(amount)
        await store.save(purse)


@pytest.mark.parametrize("url", ["memory://", "sqlite://"])
async def test_commands_of_many_at_once_take_turns(url: str) -> None:
    async with EventStore(url) as store:
        await filled(store, "p-1", "p-2", amount=0)
        one, other = (Repository(store, Purse, retry=Retry(attempts=1)) for _ in range(2))
        commands = [
            purses.execute(id, command, 1)
            for _ in range(10)
            for purses in (one, other)
            for id in ("p-1", "p-2")
            for command in (Purse.deposit, Purse.deposit_later)
        ]
        await asyncio.gather(*commands)
        for id in ("p-1", "p-2"):
            loaded = await one.load(id)
            assert (loaded.balance, loaded.version) == (40, 41)


async def test_stores_of_several_processes_try_again_until_all_is_done(tmp_path: Path) -> None:
    url, policy = f"sqlite:///{tmp_path}/purses.db", Retry(attempts=100, delay=0.001, on=(VersionConflictError,))
    async with EventStore(url) as store, EventStore(url) as second:
        await filled(store, "p-1", amount=0)
        both = [Repository(each, Purse, retry=policy) for each in (store, second)]
        await asyncio.gather(*(purses.execute("p-1", Purse.deposit, 1) for _ in range(10) for purses in both))
        assert (await store.load(Purse, "p-1")).balance == 20


async def test_a_command_inside_another_one_waits_for_nobody(store: EventStore) -> None:
    await filled(store, "p-1", "p-2")
    purses = Repository(store, Purse, retry=Retry(attempts=1))

    async def look_at(purse: Purse, id: str) -> int:
        await asyncio.sleep(0.01)  # so that each has its turn
        return sum(await asyncio.gather(*(purses.execute(id, Purse.look) for _ in range(2))))

    async def deposit_twice(purse: Purse) -> None:
        await purses.execute("p-1", Purse.deposit, 1)
        purse.deposit(1)

    async with asyncio.timeout(60):
        assert await purses.execute("p-1", look_at, "p-1") == 20
        crossing = (purses.execute("p-1", look_at, "p-2"), purses.execute("p-2", look_at, "p-1"))
        assert await asyncio.gather(*crossing) == [20, 20]
        with pytest.raises(VersionConflictError):
            await purses.execute("p-1", deposit_twice)


async def test_a_command_in_a_transaction_s_block_waits_for_nobody_who_waits_for_the_block() -> None:
    async with EventStore("sqlite://") as store:
        await filled(store, "p-1")
        purses = Repository(store, Purse)
        began, inside = asyncio.Event(), asyncio.Event()

        async def deposit_within(purse: Purse) -> None:
            began.set()
            await inside.wait()
            purse.deposit(1)

        depositing = asyncio.create_task(purses.execute("p-1", deposit_within))
        await began.wait()
        async with asyncio.timeout(60), store.transaction():
            inside.set()
            assert await purses.execute("p-1", Purse.look) == 10
        await depositing
        assert await purses.execute("p-1", Purse.look) == 11


async def test_a_command_that_is_cancelled_gives_its_turn_away(store: EventStore) -> None:
    await filled(store, "p-1")
    purses = Repository(store, Purse)

    async def sleep(purse: Purse) -> None:
        await asyncio.sleep(600)

    running, waiting, last = (asyncio.create_task(purses.execute("p-1", c)) for c in (sleep, sleep, Purse.look))
    await asyncio.sleep(0.01)
    waiting.cancel()
    running.cancel()
    assert await asyncio.wait_for(last, 60) == 10
    assert running.cancelled()
    assert waiting.cancelled()


async def test_turns_of_another_event_loop_are_not_waited_for(store: EventStore) -> None:
    await filled(store, "p-1")
    purses = Repository(store, Purse)

    async def elsewhere(purse: Purse) -> None:
        with pytest.raises(WrongEventLoopError):
            await asyncio.to_thread(Context().run, asyncio.run, purses.execute("p-1", Purse.look))

    await asyncio.gather(purses.execute("p-1", elsewhere), purses.execute("p-1", Purse.look))


async def test_what_cannot_be_a_repository_is_refused(store: EventStore) -> None:
    strange: Any = Repository
    for given, policy in ((None, {}), (Purse, {}), (store, {"retry": 5}), (store, {"retry": None})):
        with pytest.raises(ConfigurationError, match="store has to be an EventStore|retry is .* has to be a "):
            strange(given, Purse, **policy)
    for given in ("Purse", dict, store):
        with pytest.raises(AggregateDefinitionError, match="is no class that derives from AggregateRoot"):
            strange(store, given)
    with pytest.raises(ConfigurationError, match="store has to be"):
        UnitOfWork(strange)
    with pytest.raises(ConfigurationError, match="retry is 5"):
        await run_unit(store, strange, retry=5)  # type: ignore[arg-type]


async def test_a_conflict_after_the_last_try_reaches_the_caller(store: EventStore) -> None:
    await filled(store, "p-1")
    seen: list[int] = []

    async def overtaken(purse: Purse) -> None:
        seen.append(purse.version)
        other = await store.load(Purse, "p-1")
        other.deposit(1)
        await store.save(other)
        purse.deposit(100)

    purses = Repository(store, Purse, retry=Retry(attempts=3, delay=0.001, on=(VersionConflictError,)))
    with pytest.raises(VersionConflictError):
        await purses.execute("p-1", overtaken)
    assert seen == [1, 2, 3]  # loaded anew each time
    assert (await purses.load("p-1")).balance == 13


async def test_what_a_command_raises_is_not_tried_again_and_saves_nothing(store: EventStore) -> None:
    await filled(store, "p-1")
    calls = 0

    def refused(purse: Purse) -> None:
        nonlocal calls
        calls += 1
        purse.deposit(5)
        purse.deposit(-100)

    with pytest.raises(ValueError, match="not that much"):
        await Repository(store, Purse).execute("p-1", refused)
    assert calls == 1
    assert (await store.load(Purse, "p-1")).version == 1


async def test_a_repository_returns_what_the_command_did(store: EventStore) -> None:
    purses = Repository(store, Purse)
    assert await purses.get("p-1") is None
    with pytest.raises(AggregateNotFoundError):
        await purses.execute("p-1", Purse.deposit, 1)
    assert await purses.create("p-1", Purse.deposit, 3) == 3
    with pytest.raises(VersionConflictError):
        await purses.create("p-1", Purse.deposit, 3)
    assert await purses.execute("p-1", Purse.deposit_later, amount=4) == 7
    assert await purses.execute("p-1", Purse.look) == 7
    loaded = await purses.load("p-1")
    assert loaded.version == 2
    loaded.deposit(1)
    await purses.save(loaded)
    assert (await purses.load("p-1", version=2)).balance == 7


async def test_a_unit_saves_all_it_changed_together(store: EventStore) -> None:
    await filled(store, "p-1", "p-2", "p-3")
    async with UnitOfWork(store) as unit:
        one, two = await unit.load(Purse, "p-1"), await unit.load(Purse, "p-2")
        await unit.load(Purse, "p-3")
        assert await unit.load(Purse, "p-1") is one
        assert await unit.get(Purse, "p-9") is None
        new = unit.add(Purse("p-4"))
        one.deposit(-5)
        two.deposit(5)
        new.deposit(1)
    assert [(await store.load(Purse, f"p-{n}")).balance for n in (1, 2, 3, 4)] == [5, 15, 10, 1]
    positions = [stored.position async for stored in store.read_all(from_position=4)]
    assert len(positions) == 3


async def test_a_unit_that_ends_by_an_exception_saves_nothing(store: EventStore) -> None:
    await filled(store, "p-1")
    with pytest.raises(ZeroDivisionError):
        async with UnitOfWork(store) as unit:
            (await unit.load(Purse, "p-1")).deposit(1)
            raise ZeroDivisionError
    async with UnitOfWork(store) as unit:
        (await unit.load(Purse, "p-1")).deposit(1)
        unit.discard()
    assert (await store.load(Purse, "p-1")).version == 1
    with pytest.raises(ClosedError, match="has ended"):
        await unit.load(Purse, "p-1")


async def test_a_unit_has_one_object_an_aggregate(store: EventStore) -> None:
    await filled(store, "p-1")
    async with UnitOfWork(store) as unit:
        loaded = await unit.load(Purse, "p-1")
        assert unit.add(loaded) is loaded
        with pytest.raises(ForeignAggregateError, match="another object already"):
            unit.add(Purse("p-1"))


async def test_a_unit_has_one_object_a_stream_whatever_the_class(store: EventStore) -> None:
    class Safe(Purse):
        category = "Purse"

    await filled(store, "p-1", "p-2")
    async with UnitOfWork(store) as unit:
        safe, purse = await unit.load(Safe, "p-1"), await unit.load(Purse, "p-2")
        assert await unit.load(Purse, "p-1") is safe  # which is a Purse, too
        with pytest.raises(ForeignAggregateError, match=r"stream 'Purse/p-2' as Purse already, which is no .*Safe"):
            await unit.load(Safe, "p-2")
        with pytest.raises(ForeignAggregateError, match="has Purse 'p-2' as another object already"):
            unit.add(Safe("p-2"))
        safe.deposit(1)
        purse.deposit(1)
    assert [(await store.load(Purse, id)).balance for id in ("p-1", "p-2")] == [11, 11]
    strange: Any = UnitOfWork(store)
    for given, id in (("Purse", "p-1"), (None, "p-1"), (dict, "p-1"), (Purse, ["p-1"]), (Purse, None)):
        with pytest.raises((AggregateDefinitionError, InvalidAggregateIdError)):
            await strange.load(given, id)


async def test_what_is_of_another_class_or_no_aggregate_is_refused(store: EventStore) -> None:
    class Safe(Purse):
        pass

    class Box(AggregateRoot):
        def handle_deposited(self, event: Deposited) -> None: ...

    box, safe, strange = Box("b-1"), Safe("s-1"), Repository[Any](store, Purse)
    box.apply(Deposited(aggregate_id="b-1", amount=1))
    safe.deposit(1)
    for given in (box, Purse, None):
        with pytest.raises(ForeignAggregateError, match="This repository is of Purse, and .* is none"):
            await strange.save(given)
    assert await store.head() == 0
    with pytest.raises(ForeignAggregateError, match="in the stream 'Safe/s-1', and this repository reads 'Purse/s-1'"):
        await strange.save(safe)
    Safe.category = "Purse"
    await strange.save(safe)
    assert (await strange.load("s-1")).balance == 1
    async with UnitOfWork(store) as unit:
        for given in (object(), None, Purse):
            with pytest.raises(ForeignAggregateError, match="takes an aggregate, and .* is none"):
                unit.add(given)  # type: ignore[type-var]


async def test_tasks_that_load_at_once_get_the_same_object(store: EventStore) -> None:
    await filled(store, "p-1")
    async with UnitOfWork(store) as unit:
        first, second = await asyncio.gather(unit.load(Purse, "p-1"), unit.load(Purse, "p-1"))
        assert first is second


async def test_a_commit_in_between_goes_on_with_the_same_objects(store: EventStore) -> None:
    async with UnitOfWork(store) as unit:
        purse = unit.add(Purse("p-1"))
        purse.deposit(1)
        await unit.commit()
        await unit.commit()
        purse.deposit(2)
    assert (await store.load(Purse, "p-1")).version == 2


async def test_transfers_that_cross_keep_the_sum(store: EventStore) -> None:
    ids = ["p-1", "p-2", "p-3"]
    await filled(store, *ids, amount=100)

    async def transfer(start: str, end: str) -> None:
        async def work(unit: UnitOfWork) -> None:
            (await unit.load(Purse, start)).deposit(-1)
            await asyncio.sleep(0)
            (await unit.load(Purse, end)).deposit(1)

        await run_unit(store, work, retry=Retry(attempts=200, immediate=3, delay=0.001, max_delay=0.01))

    await asyncio.gather(*(transfer(ids[n % 3], ids[(n + 1 + n % 2) % 3]) for n in range(30)))
    balances = [(await store.load(Purse, id)).balance for id in ids]
    assert sum(balances) == 300
    assert sum([(await store.load(Purse, id)).version for id in ids]) == 3 + 60
