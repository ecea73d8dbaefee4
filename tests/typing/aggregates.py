"""Aggregates, repositories and projections keep their types, as a user sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

from sqlalchemy import Column, MetaData, String, Table, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from commons_events import Event
from commons_events.sourcing import (
    AggregateRoot,
    DomainEvent,
    EventStore,
    Repository,
    SnapshotPolicy,
    StoreTransaction,
    UnitOfWork,
    run_unit,
)
from commons_events.sourcing.projections import Projection, Projector
from commons_events.testing import given


class Opened(DomainEvent):
    event_type = "typing.opened"
    owner: str


class Account(AggregateRoot):
    snapshot_policy = SnapshotPolicy(every=100)
    owner: str | None

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.owner = None

    def open(self, owner: str) -> int:
        self.apply(Opened(aggregate_id=self.id, owner=owner))
        return self.version

    async def open_later(self, owner: str) -> str:
        return owner

    def handle_opened(self, event: Opened) -> None:
        self.owner = event.owner


async def stores() -> None:
    async with EventStore("sqlite://") as store:
        account = Account("a-1")
        await store.save(account, Account("a-2"))
        loaded = await store.load(Account, "a-1")
        assert_type(loaded, Account)
        assert_type(loaded.owner, str | None)
        assert_type(await store.load(Account, "a-1", version=1), Account)
        assert_type(await store.get_events("a-1", from_version=0), list[Event])
        await store.load(Opened, "a-1")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]

        accounts = Repository(store, Account)
        assert_type(accounts, Repository[Account])
        assert_type(await accounts.get("a-1"), Account | None)
        assert_type(await accounts.execute("a-1", Account.open, "Ann"), int)
        assert_type(await accounts.execute("a-1", Account.open_later, owner="Ann"), str)
        assert_type(await accounts.create("a-1", Account.open, "Ann"), int)
        assert_type(await accounts.create("a-1", Account.open_later, owner="Ann"), str)

        async def work(unit: UnitOfWork) -> int:
            assert_type(unit.add(Account("a-3")), Account)
            return (await unit.load(Account, "a-1")).open("Bob")

        assert_type(await run_unit(store, work), int)
        await Projector(store, [projection]).run()


names = Table("names", MetaData(), Column("name", String))
projection = Projection("names", tables=[names])


class Base(DeclarativeBase): ...


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


Projection("lines", tables=[Line])
Projection("lines and names", tables=[Line.__table__, names])


@projection.handler
async def on_opened(event: Opened, transaction: StoreTransaction) -> str:
    changed = await transaction.execute(names.update().values(name=event.owner))
    assert_type(changed.rowcount, int)
    for number, words in await transaction.execute(select(Line.id, Line.text)):
        assert_type(number, int)
        assert_type(words, str)
    assert_type((await transaction.execute(select(Line))).scalars().all(), Sequence[Line])
    return event.owner


async def calls(event: Opened, transaction: StoreTransaction) -> None:
    assert_type(await on_opened(event, transaction), str)


def tests() -> None:
    decided = given(Account, "a-1").when(Account.open, "Ann")
    assert_type(decided.then(Opened(aggregate_id="a-1", owner="Ann")).aggregate, Account)
    given(Account, "a-1").when(lambda account: account.open("Ann")).then_state(owner="Ann")
