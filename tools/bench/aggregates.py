"""Aggregates: loading them from 10, 1,000 and 100,000 events, beside the eventsourcing library, on the same databases.

Both have the same event (six fields), the same settings of the database and a warm cache; a load counts from the call
until the aggregate stands.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from commons_events.sourcing import AggregateRoot, DomainEvent, EventStore, SnapshotPolicy
from tools.bench.measure import Effort, LeftOutError, Table, at_most

LIBRARIES = ("eventsourcing", "sqlalchemy", "psycopg")
SIZES = (10, 1_000)
LARGE = 100_000
LOADS = {10: 200, 1_000: 10, LARGE: 1}
THEIRS = "eventsourcing: application and aggregate"
NOTE = "customer asked for gift wrapping and a card, deliver to the back door"


def fields(number: int) -> dict[str, Any]:
    return {
        "sku": f"SKU-{number:06d}",
        "name": "Blue widget, large",
        "qty": number % 7 + 1,
        "price": 19.99,
        "note": NOTE,
    }


class BasketItemAdded(DomainEvent):
    event_type = "bench.basket.item-added"
    sku: str
    name: str
    qty: int
    price: float
    note: str


class Basket(AggregateRoot):
    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.total = 0

    def add(self, **item: Any) -> None:
        self.apply(BasketItemAdded(aggregate_id=self.id, **item))

    def handle_basket_item_added(self, event: BasketItemAdded) -> None:
        self.total += event.qty


class SnapshotBasket(Basket):
    snapshot_policy = SnapshotPolicy(every=1_000)


@cache
def postgres_url() -> str:
    from commons_events.testing.services import ServiceUnavailableError, shared

    try:
        return shared.get("postgres").address
    except ServiceUnavailableError as error:
        raise LeftOutError(str(error)) from error


@cache
def folder() -> Path:
    made = tempfile.TemporaryDirectory(
        prefix="commons-events-bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    )
    _kept.append(made)
    return Path(made.name)


_kept: list[Any] = []


class Ours:
    """A store with one basket of each size and class."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.loop = asyncio.new_event_loop()
        self.store: EventStore | None = None
        self.ids: dict[tuple[type[Basket], int], str] = {}

    def load(self, basket_class: type[Basket], size: int, loads: int) -> float:
        return self.loop.run_until_complete(self._load(basket_class, size, loads))

    async def _load(self, basket_class: type[Basket], size: int, loads: int) -> float:
        if self.store is None:
            self.store = EventStore(self.url)
        id = self.ids.get((basket_class, size))
        if id is None:
            id = self.ids[basket_class, size] = str(uuid4())
            basket = basket_class(id)
            for start in range(0, size, 1_000):
                for number in range(start, min(start + 1_000, size)):
                    basket.add(**fields(number))
                await self.store.save(basket)
            await self.store.load(basket_class, id)
        begun = perf_counter()
        for _ in range(loads):
            loaded = await self.store.load(basket_class, id)
        spent = perf_counter() - begun
        assert loaded.version == size
        return spent / loads * 1e3


@cache
def ours(database: str) -> Ours:
    if database == "sqlite":
        return Ours(f"sqlite:///{folder()}/ours.db")
    return Ours(postgres_url())


@cache
def their_classes() -> tuple[Any, Any]:
    try:
        from eventsourcing.application import Application
        from eventsourcing.domain import Aggregate, event
    except ImportError as error:
        raise LeftOutError('pip install "eventsourcing[postgres]"') from error

    class TheirBasket(Aggregate):  # type: ignore[misc,unused-ignore]
        @event("Opened")
        def __init__(self) -> None:
            self.total = 0

        @event("ItemAdded")
        def add(self, sku: str, name: str, qty: int, price: float, note: str) -> None:
            self.total += qty

    # The library finds an event's class by its module and name.
    TheirBasket.__qualname__ = "TheirBasket"
    for name in ("Opened", "ItemAdded"):
        getattr(TheirBasket, name).__qualname__ = f"TheirBasket.{name}"
    globals()["TheirBasket"] = TheirBasket
    return TheirBasket, Application


class Theirs:
    """The eventsourcing library's application, with and without snapshots."""

    def __init__(self, environment: dict[str, str]) -> None:
        basket, application = their_classes()
        self.basket = basket
        self.app = application(env={"IS_SNAPSHOTTING_ENABLED": "y", **environment})
        self.ids: dict[tuple[bool, int], Any] = {}

    def load(self, snapshot: bool, size: int, loads: int) -> float:
        id = self.ids.get((snapshot, size))
        if id is None:
            basket = self.basket()
            for start in range(1, size, 1_000):
                for number in range(start, min(start + 1_000, size)):
                    basket.add(**fields(number))
                self.app.save(basket)
            id = self.ids[snapshot, size] = basket.id
            if snapshot:
                self.app.take_snapshot(id)
        begun = perf_counter()
        for _ in range(loads):
            loaded: Any = self.app.repository.get(id)
        spent = perf_counter() - begun
        assert loaded.version == size
        return spent / loads * 1e3


@cache
def theirs(database: str) -> Theirs:
    if database == "sqlite":
        return Theirs({"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": f"{folder()}/theirs.db"})
    parts = urlsplit(postgres_url())
    return Theirs(
        {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": parts.path.strip("/"),
            "POSTGRES_HOST": parts.hostname or "",
            "POSTGRES_PORT": str(parts.port or 5432),
            "POSTGRES_USER": parts.username or "",
            "POSTGRES_PASSWORD": parts.password or "x",
        }
    )


def table(database: str, title: str, sizes: tuple[int, ...], key: str, note: str) -> Table:
    made = Table(key, f"Loading an aggregate from {title}, ms", note, *(f"{size:,}" for size in sizes))

    def costs(effort: Effort, load: Callable[[int, int], float]) -> dict[str, float]:
        if effort.quick and LARGE in sizes:
            raise LeftOutError("it takes minutes; leave --quick out")
        return {f"{size:,}": load(size, effort.count(LOADS[size])) for size in sizes}

    @made.contender(THEIRS)
    def application(effort: Effort) -> dict[str, float]:
        return costs(effort, lambda size, loads: theirs(database).load(False, size, loads))

    @made.contender("ours", *(at_most(0.4, THEIRS, metric=f"{size:,}") for size in sizes if size == 1_000))
    def store(effort: Effort) -> dict[str, float]:
        return costs(effort, lambda size, loads: ours(database).load(Basket, size, loads))

    @made.contender("eventsourcing, snapshot of the last event")
    def snapshot_application(effort: Effort) -> dict[str, float]:
        return costs(effort, lambda size, loads: theirs(database).load(True, size, loads))

    @made.contender("ours, snapshot of the last thousandth event")
    def snapshot_store(effort: Effort) -> dict[str, float]:
        return costs(effort, lambda size, loads: ours(database).load(SnapshotBasket, size, loads))

    return made


FEW = "The columns are how many events it has. From all of them, or from a snapshot on; 10 events have none of ours."
MANY = "As above, of 100,000 events."
TABLES = [
    table("sqlite", "SQLite (WAL)", SIZES, "load-sqlite", FEW),
    table("postgresql", "PostgreSQL", SIZES, "load-postgresql", FEW),
    table("sqlite", "SQLite (WAL)", (LARGE,), "load-large-sqlite", MANY),
    table("postgresql", "PostgreSQL", (LARGE,), "load-large-postgresql", MANY),
]
