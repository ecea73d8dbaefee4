"""Projections: each event has its effect once, what fails is parked, and a rebuild takes the live one's place."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
import pytest_asyncio
from sqlalchemy import (
    DDL,
    Column,
    Connection,
    Enum,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from commons_events.errors import (
    CapabilityError,
    ConfigurationError,
    DependentObjectsError,
    HandlerCancelledError,
    ProjectionDefinitionError,
    ProjectionVersionError,
    TransactionAbortedError,
    UnknownProjectionError,
)
from commons_events.event import Event, registry
from commons_events.retries import Retry
from commons_events.sourcing import DomainEvent, EventStore, StoredEvent, StoreTransaction, StreamId
from commons_events.sourcing._rebuild import _PostgresShadow
from commons_events.sourcing.projections import Projection, Projector, RebuildProgress


class UserNamed(DomainEvent):
    event_type = "person.named"
    name: str


class UserLeft(DomainEvent):
    event_type = "person.left"


class Unrelated(DomainEvent):
    event_type = "person.unrelated"


QUICK = Retry(attempts=2, delay=0.001)


@dataclass
class People:
    """A projection of people by name, whose handlers can be made to fail."""

    version: int = 1
    extra: tuple[Any, ...] = ()
    held_up: Callable[[], Awaitable[object]] | None = None
    broken: set[str] = field(default_factory=set)
    calls: list[int] = field(default_factory=list)
    parking: Any = "stream"

    def __post_init__(self) -> None:
        self.table = Table(
            "people",
            MetaData(),
            Column("id", String(50), primary_key=True),
            Column("name", String(50), nullable=False, index=True),
            Column("changes", Integer, nullable=False),
            *self.extra,
        )
        self.projection = Projection("people", tables=[self.table], version=self.version, parking=self.parking)
        people = self.table

        @self.projection.handler
        async def named(event: UserNamed, stored: StoredEvent, transaction: StoreTransaction) -> None:
            self.calls.append(stored.position)
            if self.held_up is not None:
                await self.held_up()
            mine = people.c.id == event.aggregate_id
            changed = await transaction.execute(
                update(people).where(mine).values(name=event.name, changes=people.c.changes + 1)
            )
            if changed.rowcount == 0:
                more = {"shout": event.name.upper()} if self.extra else {}
                new = event.name if self.version < 3 else f"{event.name} by {self.version}"
                await transaction.execute(insert(people).values(id=event.aggregate_id, name=new, changes=1, **more))
            if event.name in self.broken:
                raise LookupError(f"no {event.name}")

        @self.projection.handler
        async def left(event: UserLeft, transaction: StoreTransaction) -> None:
            await transaction.execute(people.delete().where(people.c.id == event.aggregate_id))

    async def rows(self, store: EventStore) -> list[tuple[Any, ...]]:
        async with store.transaction() as transaction:
            found = await transaction.execute(select(self.table).order_by(self.table.c.id))
            return [tuple(row) for row in found.all()]

    def projector(self, store: EventStore, **options: Any) -> Projector:
        return Projector(store, [self.projection], **{"retry": QUICK, "poll_interval": 0.05, **options})


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/events.db"
    found: str = request.getfixturevalue("postgres_database")
    return found


@pytest_asyncio.fixture
async def store(url: str) -> AsyncIterator[EventStore]:
    async with EventStore(url) as made:
        yield made


async def name(store: EventStore, *names: str, id: str = "u-1") -> None:
    await store.append(StreamId(id, "Person"), [UserNamed(aggregate_id=id, name=one) for one in names])


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110  # it asks a database
            await asyncio.sleep(0.02)


# --- running ---------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_it_catches_up_and_goes_on_from_where_it_was(store: EventStore) -> None:
    people = People()
    await name(store, "Ann", "Anna")
    await name(store, "Bob", id="u-2")
    assert await people.projector(store).catch_up() == 3
    assert await people.rows(store) == [("u-1", "Anna", 2), ("u-2", "Bob", 1)]
    await store.append(StreamId("u-2", "Person"), [UserLeft(aggregate_id="u-2"), Unrelated(aggregate_id="u-2")])
    again = People()
    assert await again.projector(store).catch_up() == 1
    assert await again.rows(store) == [("u-1", "Anna", 2)]
    assert again.calls == []
    (status,) = await again.projector(store).status()
    assert (status.position, status.lag, status.state) == (await store.head(), 0, "live")
    assert status.is_healthy()


@pytest.mark.asyncio
async def test_it_follows_what_is_new_until_it_is_cancelled(store: EventStore) -> None:
    people = People()
    running = asyncio.create_task(people.projector(store).run())
    for number in range(3):
        await name(store, f"n{number}")

        async def there(number: int = number) -> bool:
            with suppress(Exception):
                return (await people.rows(store))[0][2] == number + 1
            return False

        await until(there)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.mark.asyncio
async def test_two_workers_of_one_projection_give_each_event_one_effect(store: EventStore) -> None:
    workers = [People(), People()]
    for number in range(40):
        await name(store, *(f"n{number}-{i}" for i in range(3)), id=f"u-{number % 7}")
    running = [asyncio.create_task(people.projector(store, batch=5).run()) for people in workers]

    async def done() -> bool:
        with suppress(Exception):
            return sum(row[2] for row in await workers[0].rows(store)) >= 120
        return False

    await until(done)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert sum(row[2] for row in await workers[0].rows(store)) == 120


@pytest.mark.asyncio
async def test_workers_that_start_at_once_make_the_tables_once(url: str) -> None:
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(EventStore(url)) for _ in range(4)]
        await name(stores[0], "Ann")
        handled = await asyncio.gather(*(People().projector(store).catch_up() for store in stores))
        assert sum(handled) >= 1
        assert await People().rows(stores[0]) == [("u-1", "Ann", 1)]


@pytest.mark.asyncio
async def test_handlers_that_are_not_async_get_a_connection_or_a_session(store: EventStore) -> None:
    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "persons"
        id: Mapped[str] = mapped_column(String(50), primary_key=True)
        name: Mapped[str] = mapped_column(String(50))

    projection = Projection("persons", tables=[Person])

    @projection.handler
    def named(event: UserNamed, session: Session) -> None:
        person = session.get(Person, event.aggregate_id) or Person(id=event.aggregate_id)
        person.name = event.name
        session.add(person)

    @projection.handler
    def left(event: UserLeft | Unrelated, connection: Connection) -> None:
        connection.execute(text("DELETE FROM persons WHERE id = :id"), {"id": event.aggregate_id})

    await name(store, "Ann", "Anna")
    await name(store, "Bob", id="u-2")
    await store.append(StreamId("u-2", "Person"), [Unrelated(aggregate_id="u-2")])
    assert await Projector(store, [projection]).catch_up() == 4
    async with store.transaction() as transaction:
        assert (await transaction.execute(text("SELECT id, name FROM persons"))).all() == [("u-1", "Anna")]


@pytest.mark.asyncio
async def test_whatever_can_be_called_handles_events_and_has_defaults_of_its_own(store: EventStore) -> None:
    seen: list[str] = []

    class Named:
        async def __call__(self, event: UserNamed, transaction: StoreTransaction) -> None:
            seen.append(event.name)

    def left(event: UserLeft, word: str, *, end: str = "!") -> None:
        seen.append(word + end)

    projection = Projection("p")
    projection.handler(Named())
    projection.handler(partial(left, word="left"))
    await name(store, "Ann")
    await store.append(StreamId("u-1", "Person"), [UserLeft(aggregate_id="u-1")])
    assert await Projector(store, [projection]).catch_up() == 2
    assert seen == ["Ann", "left!"]


@pytest.mark.asyncio
async def test_a_handler_of_event_takes_all_others(store: EventStore) -> None:
    seen: list[str] = []
    projection = Projection("all")

    @projection.handler
    def named(event: UserNamed) -> None:
        seen.append(event.name)

    @projection.handler
    def other(event: Event, stored: StoredEvent) -> None:
        seen.append(stored.event_type)

    await store.append(
        StreamId("u-1", "Person"), [UserNamed(aggregate_id="u-1", name="Ann"), UserLeft(aggregate_id="u-1")]
    )
    assert await Projector(store, [projection]).catch_up() == 2
    assert seen == ["Ann", "person.left"]


# --- events that fail ------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_poison_event_is_parked_with_its_followers_and_the_others_go_on(store: EventStore) -> None:
    people = People(broken={"bad"})
    await name(store, "Ann", "bad", "Anna")
    await name(store, "Bob", id="u-2")
    await name(store, "Anne")
    projector = people.projector(store)
    await projector.catch_up()
    assert await people.rows(store) == [("u-1", "Ann", 1), ("u-2", "Bob", 1)]
    first, *followers = await projector.states.parked("people")
    assert (first.reason, first.error_type, first.attempts, first.behind) == (
        "LookupError: no bad",
        "LookupError",
        2,
        None,
    )
    assert first.parked_at.utcoffset() == timedelta(0)
    assert [event.behind for event in followers] == [first.position] * 2
    (status,) = await projector.status()
    assert (status.parked, status.lag, status.is_healthy()) == (3, 0, False)

    assert await projector.retry_parked("people") == (0, 3)
    assert (await projector.states.parked("people"))[0].attempts == 3
    people.broken.clear()
    assert await projector.retry_parked("people") == (3, 0)
    assert await people.rows(store) == [("u-1", "Anne", 4), ("u-2", "Bob", 1)]
    assert (await projector.status())[0].is_healthy()


@pytest.mark.asyncio
async def test_two_who_retry_at_once_give_each_parked_event_one_effect(store: EventStore) -> None:
    people = People(broken={f"n{number}" for number in range(10)})
    await name(store, *(f"n{number}" for number in range(10)))
    projector = people.projector(store)
    await projector.catch_up()
    people.broken.clear()
    outcomes = await asyncio.gather(*(people.projector(store).retry_parked("people") for _ in range(3)))
    assert sum(done for done, _ in outcomes) == 10
    assert await people.rows(store) == [("u-1", "n9", 10)]


@pytest.mark.asyncio
async def test_with_parking_by_event_the_stream_goes_on(store: EventStore) -> None:
    people = People(broken={"bad"}, parking="event")
    await name(store, "Ann", "bad", "Anna")
    projector = people.projector(store)
    await projector.catch_up()
    assert await people.rows(store) == [("u-1", "Anna", 2)]
    assert len(await projector.states.parked("people")) == 1


@pytest.mark.asyncio
async def test_what_fails_for_a_while_is_tried_again_and_nothing_is_parked(store: EventStore) -> None:
    people = People(broken={"late"})
    await name(store, "Ann", "late", "Anna")
    projector = people.projector(store, retry=Retry(attempts=1_000_000, delay=0.01, factor=1))
    running = asyncio.create_task(projector.run())

    async def failing() -> bool:
        found = await projector.states.status()
        return bool(found and found[0].state == "failing")

    await until(failing)
    (status,) = await projector.status()
    assert status.error == "LookupError: no late"
    assert status.error_position == 2
    assert await people.rows(store) == [("u-1", "Ann", 1)]
    people.broken.clear()

    async def done() -> bool:
        return await people.rows(store) == [("u-1", "Anna", 3)]

    await until(done)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    (status,) = await projector.status()
    assert (status.error, status.parked) == (None, 0)


@pytest.mark.asyncio
async def test_a_cancellation_that_nobody_asked_for_is_an_error_of_the_handlers(store: EventStore) -> None:
    projection, other, seen = Projection("p"), Projection("other"), list[str]()

    @projection.handler
    async def awaits_what_another_one_cancelled(event: UserNamed) -> None:
        if event.name == "bad":
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled
        seen.append(event.name)

    @other.handler
    async def nothing(event: UserNamed) -> None: ...

    await name(store, "bad")
    await name(store, "Ann", id="u-2")
    for projections in ([projection], [projection, other]):
        projector = Projector(store, projections, retry=QUICK)
        running = asyncio.create_task(projector.run())

        async def level(projector: Projector = projector, running: asyncio.Task[None] = running) -> bool:
            found = await projector.status()
            return running.done() or (len(found) == len(projector.projections) and not any(one.lag for one in found))

        await until(level)
        assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    [parked] = await projector.states.parked("p")
    assert (parked.error_type, parked.attempts, seen) == ("HandlerCancelledError", 2, ["Ann"])


@pytest.mark.asyncio
async def test_running_ends_with_an_error_where_one_of_its_tasks_does(store: EventStore) -> None:
    projection, other = Projection("p"), Projection("other")
    for one in (projection, other):
        one.handler(_nothing)
    running = asyncio.create_task(Projector(store, [projection, other]).run())

    async def started() -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks() if task.get_name() == "projection other"]

    await until(started)
    (await started())[0].cancel()
    with pytest.raises(HandlerCancelledError, match="projection other was cancelled, though run"):
        await running
    assert not await started()


def _nothing(event: UserNamed) -> None: ...


@pytest.mark.asyncio
async def test_a_handler_that_leaves_its_transaction_unawaited_stops_its_projection(store: EventStore) -> None:
    people = People()
    projection = Projection("p", tables=[people.table])

    @projection.handler
    def forgotten(event: UserNamed, transaction: StoreTransaction) -> None:
        with suppress(RuntimeError):
            transaction.execute(insert(people.table)).close()  # type: ignore[unused-coroutine,unused-ignore]

    await name(store, "Ann")
    with pytest.raises(ProjectionDefinitionError, match="gave nothing to await"):
        await Projector(store, [projection], retry=QUICK).run()
    assert await Projector(store, [projection]).states.parked("p") == []


@pytest.mark.asyncio
async def test_bytes_that_do_not_decode_are_parked(store: EventStore) -> None:
    with registry.isolated():

        class Odd(DomainEvent):
            event_type = "person.odd"
            size: int

        await store.append(StreamId("u-1", "Person"), [Odd(aggregate_id="u-1", size=1)])
    with registry.isolated():

        class Odd(DomainEvent):  # type: ignore[no-redef]
            event_type = "person.odd"
            size: int
            colour: str

        projection = Projection("odd")

        def odd(event: Any) -> None: ...

        odd.__annotations__["event"] = Odd  # whose name only this function knows
        projection.handler(odd)
        projector = Projector(store, [projection])
        await projector.catch_up()
        (parked,) = await projector.states.parked("odd")
        assert parked.error_type == "UndecodableEventError"
        assert "colour" in parked.reason


@pytest.mark.asyncio
async def test_a_migrated_event_reaches_the_handler_of_the_newest_class(store: EventStore) -> None:
    from commons_events import EventSchema, migration

    with registry.isolated():

        @EventSchema(name="person.moved", version="1.0.0")
        class Moved1(DomainEvent):
            place: str

        await store.append(StreamId("u-1", "Person"), [Moved1(aggregate_id="u-1", place="Ulm, DE")])

        @EventSchema(name="person.moved", version="2.0.0")
        class Moved(DomainEvent):
            city: str
            country: str

        @migration(from_=Moved1, to=Moved)
        def split(event: Moved1) -> Moved:
            city, country = event.place.split(", ")
            return Moved(aggregate_id=event.aggregate_id, city=city, country=country)

        seen: list[tuple[str, int]] = []
        projection = Projection("moved")

        def moved(event: Any) -> None:
            seen.append((event.country, event.aggregate_version))

        moved.__annotations__["event"] = Moved  # whose name only this function knows
        projection.handler(moved)
        await Projector(store, [projection]).catch_up()
        assert seen == [("DE", 1)]


@pytest.mark.asyncio
async def test_a_renamed_event_reaches_the_handler_of_the_class_that_it_became(store: EventStore) -> None:
    from commons_events import migration

    with registry.isolated():

        class Moved(DomainEvent):
            place: str

        class Relocated(DomainEvent):
            city: str

        migration(from_=Moved, to=Relocated)(lambda e: Relocated(aggregate_id=e.aggregate_id, city=e.place))
        await store.append(StreamId("u-1", "Person"), [Moved(aggregate_id="u-1", place="Ulm")])
        seen: list[str] = []
        projection = Projection("relocated")

        def relocated(event: Any) -> None:
            seen.append(event.city)

        relocated.__annotations__["event"] = Relocated  # whose name only this function knows
        projection.handler(relocated)
        assert projection.event_types == ("Moved", "Relocated")
        await Projector(store, [projection]).catch_up()
        assert seen == ["Ulm"]


@pytest.mark.asyncio
async def test_a_version_of_its_type_that_no_handler_takes_is_parked(store: EventStore) -> None:
    from commons_events import EventSchema

    seen: set[str] = set()
    projection = Projection("moved")

    def moved(event: Any) -> None:
        seen.add(type(event).__name__)

    with registry.isolated():

        @EventSchema(name="person.moved", version="1.0.0")
        class Moved(DomainEvent):
            place: str

        @EventSchema(name="person.moved", version="2.0.0")
        class Moved2(DomainEvent):
            city: str

        moved.__annotations__["event"] = Moved  # whose name only this function knows
        projection.handler(moved)
        await store.append(StreamId("u-1", "Person"), [Moved(aggregate_id="u-1", place="Ulm, DE")])
        await store.append(StreamId("u-1", "Person"), [Moved2(aggregate_id="u-1", city="Ulm")])
        projector = Projector(store, [projection], retry=QUICK)
        await projector.catch_up()
        (parked,) = await projector.states.parked("moved")
        assert (seen, parked.position, parked.error_type) == ({"Moved"}, 2, "MissingHandlerError")
        assert "Moved2 ('person.moved', version 2.0.0). Annotate one" in parked.reason
        assert await projector.retry_parked("moved") == (0, 1)

        moved.__annotations__["event"] = Moved2
        projection.handler(moved)
        assert await projector.retry_parked("moved") == (1, 0)
        assert seen == {"Moved", "Moved2"}


def counting(act: Callable[[Session], Any]) -> tuple[Table, Projection]:
    """Counts names; at that of Eve it does something else besides."""
    totals = Table("totals", MetaData(), Column("name", String(50), primary_key=True), Column("n", Integer))
    projection = Projection("totals", tables=[totals])

    @projection.handler
    def count(event: UserNamed, session: Session) -> None:
        changed = session.execute(update(totals).values(n=totals.c.n + 1))
        if not changed.rowcount:  # type: ignore[attr-defined]
            session.execute(insert(totals).values(name="all", n=1))
        if event.name == "Eve":
            act(session)

    return totals, projection


def twice(session: Session) -> None:
    with suppress(IntegrityError):
        session.execute(text("INSERT INTO totals VALUES ('all', 1)"))


def twice_and_back(session: Session) -> None:
    twice(session)
    session.rollback()


async def counted(store: EventStore, act: Callable[[Session], Any]) -> tuple[int, list[str]]:
    """What six events come to, of which Eve's is one, and why events were parked."""
    totals, projection = counting(act)
    for number, one in enumerate(["Ann", "Bob", "Eve", "Dan", "Gil", "Hal"]):
        await name(store, one, id=f"u-{number}")
    projector = Projector(store, [projection], retry=QUICK)
    await projector.catch_up()
    async with store.transaction() as transaction:
        count = (await transaction.execute(select(totals.c.n))).scalar_one()
    return count, [one.reason for one in await projector.states.parked("totals")]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("act", "count"),
    [
        (lambda session: session.rollback(), 5),
        (twice_and_back, 5),
        (lambda session: session.commit(), 6),
        (lambda session: (session.commit(), session.rollback()), 6),
    ],
)
async def test_a_session_commits_and_rolls_back_its_handlers_own_work(
    store: EventStore, act: Callable[[Session], Any], count: int
) -> None:
    assert await counted(store, act) == (count, [])


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "act",
    [
        lambda session: session.connection().rollback(),
        lambda session: session.connection().commit(),
        lambda session: session.connection().get_transaction().rollback(),
        lambda session: session.execute(text("ROLLBACK")),
    ],
)
async def test_a_handler_that_ends_the_transaction_has_its_event_parked_alone(
    store: EventStore, act: Callable[[Session], Any]
) -> None:
    count, [reason] = await counted(store, act)
    assert count == 5
    assert "begin_nested" in reason


@pytest.mark.asyncio
async def test_a_handler_that_goes_on_after_a_failed_statement_is_parked_for_what_has_failed(
    postgres_database: str,
) -> None:
    async with EventStore(postgres_database) as store:
        count, [reason] = await counted(store, twice)
        assert count == 5
        assert 'UniqueViolation: duplicate key value violates unique constraint "totals_pkey"' in reason


# --- operations ------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_paused_projection_stands_still_until_it_goes_on(store: EventStore) -> None:
    people = People()
    projector = people.projector(store)
    await projector.catch_up()
    await projector.states.set_paused("people", True)
    await name(store, "Ann")
    assert await projector.catch_up() == 0
    assert (await projector.status())[0].state == "paused"
    assert (await projector.status())[0].lag > 0
    await projector.states.set_paused("people", False)
    assert await projector.catch_up() == 1
    with pytest.raises(UnknownProjectionError, match="there are: people"):
        await projector.states.set_paused("persons", True)
    with pytest.raises(UnknownProjectionError, match="it has: people"):
        await projector.rebuild("persons")


@pytest.mark.asyncio
async def test_a_rebuild_fills_new_tables_beside_the_live_ones_and_swaps_them(store: EventStore) -> None:
    old = People()
    for number in range(10):
        await name(store, f"n{number}", id=f"u-{number % 3}")
    old_projector = old.projector(store)
    await old_projector.catch_up()
    new = People(version=2, extra=(Column("shout", String(50), index=True),))
    new_projector = new.projector(store, batch=3)
    with pytest.raises(ProjectionVersionError, match="older version 1. Rebuild it"):
        await new_projector.catch_up()

    before = await old.rows(store)
    steps: list[RebuildProgress] = []
    done = await new_projector.rebuild("people", on_progress=steps.append)
    assert [step.swapped for step in steps] == [False] * (len(steps) - 1) + [True]
    assert (done.events, done.parked) == (10, 0)
    assert [row[:3] for row in await new.rows(store)] == before
    assert {row[3] for row in await new.rows(store)} == {"N0", "N1", "N2"}
    with pytest.raises(ProjectionVersionError, match="newer version 2"):
        await old.projector(store).catch_up()
    await name(store, "after", id="u-9")
    assert await new_projector.catch_up() == 1
    assert (await new.rows(store))[-1] == ("u-9", "after", 1, "AFTER")
    (status,) = await new_projector.status()
    assert (status.version, status.rebuild_version, status.state) == (2, None, "live")
    # and once more, of the same version
    await new_projector.rebuild("people")
    assert len(await new.rows(store)) == 4


@pytest.mark.asyncio
async def test_code_that_a_rebuild_has_left_behind_writes_nothing_more(store: EventStore) -> None:
    old = People(broken={"bad"})
    await name(store, "Ann", "bad")
    projector = old.projector(store)
    await projector.catch_up()
    await People(version=2, broken={"bad"}).projector(store).rebuild("people")
    old.broken.clear()
    with pytest.raises(ProjectionVersionError, match="newer version 2"):
        await projector.retry_parked("people")
    [parked] = await projector.states.parked("people")
    assert parked.attempts == 2
    with pytest.raises(ProjectionVersionError, match="newer version 2"):
        await projector.catch_up()
    assert await old.rows(store) == [("u-1", "Ann", 1)]


@pytest.mark.asyncio
async def test_a_rebuild_leaves_the_live_tables_to_readers_and_workers(store: EventStore) -> None:
    old = People()
    await name(store, "Ann", "Anna")
    old_projector = old.projector(store)
    await old_projector.catch_up()
    new = People(version=2)
    seen: list[Any] = []
    loop = asyncio.get_running_loop()

    async def meanwhile() -> None:
        await name(store, f"while-{len(seen)}", id="u-2")
        await old_projector.catch_up()
        seen.append((await old.rows(store), (await old_projector.states.status())[0].state))

    tasks: list[asyncio.Task[None]] = []

    def progress(step: RebuildProgress) -> None:
        if len(tasks) < 3 and not step.swapped:
            tasks.append(loop.create_task(meanwhile()))

    async def wait_for_the_first() -> None:
        """The rebuild's own transaction is open meanwhile."""
        if tasks:
            await asyncio.wait([tasks[0]], timeout=60)

    new.held_up = wait_for_the_first
    new_projector = new.projector(store, batch=1)
    await new_projector.rebuild("people", on_progress=progress)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, ProjectionVersionError) for outcome in outcomes), outcomes
    assert seen[0][0][0] == ("u-1", "Anna", 2)
    await new_projector.catch_up()
    rows = {row[0]: row for row in await new.rows(store)}
    assert rows["u-1"] == ("u-1", "Anna", 2)
    assert rows["u-2"][2] == len(tasks)


@pytest.mark.asyncio
async def test_a_rebuild_that_was_broken_off_is_gone_on_with(store: EventStore) -> None:
    await name(store, *(f"n{number}" for number in range(6)))
    await People().projector(store).catch_up()
    first = People(version=2)

    def stop(step: RebuildProgress) -> None:
        if step.events == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await first.projector(store, batch=2).rebuild("people", on_progress=stop)
    second = People(version=2)
    projector = second.projector(store, batch=2)
    assert (await projector.states.status())[0].state == "rebuilding"
    done = await projector.rebuild("people")
    assert done.events == 2
    assert await second.rows(store) == [("u-1", "n5", 6)]


@pytest.mark.asyncio
@pytest.mark.parametrize("transactions", range(1, 5))
async def test_a_rebuild_goes_on_with_nothing_of_another_versions(
    store: EventStore, monkeypatch: pytest.MonkeyPatch, transactions: int
) -> None:
    """However early it was broken off itself: here, after so many transactions."""
    for number in range(6):
        await name(store, "n", id=f"u-{number}")
    await People().projector(store).catch_up()

    def stop(step: RebuildProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await People(version=2).projector(store, batch=2).rebuild("people", on_progress=stop)
    begin, begun = EventStore.transaction, 0

    def counted(self: EventStore) -> Any:
        nonlocal begun
        begun += 1
        if begun > transactions:
            raise KeyboardInterrupt
        return begin(self)

    monkeypatch.setattr(EventStore, "transaction", counted)
    with pytest.raises(KeyboardInterrupt):
        await People(version=3).projector(store, batch=2).rebuild("people")
    monkeypatch.undo()
    third = People(version=3)
    await third.projector(store).rebuild("people")
    assert await third.rows(store) == [(f"u-{number}", "n by 3", 1) for number in range(6)]


@pytest.mark.asyncio
async def test_a_rebuild_ends_where_what_the_live_tables_are_ahead_by_was_deleted(store: EventStore, url: str) -> None:
    await name(store, "Ann")
    await name(store, "Bob", id="u-2")
    await People().projector(store).catch_up()
    await store.delete_stream(StreamId("u-2", "Person"))
    second = People(version=2)
    async with EventStore(url) as fresh, asyncio.timeout(60):  # which has seen nothing of it
        progress = await second.projector(fresh).rebuild("people")
    assert progress.swapped
    assert await second.rows(store) == [("u-1", "Ann", 1)]
    assert await second.projector(store).catch_up() == 0


@pytest.mark.asyncio
async def test_a_rebuild_that_begins_while_another_one_swaps_waits_for_it(
    store: EventStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time")
    await name(store, "Ann")
    await People().projector(store).catch_up()
    swap, begun = _PostgresShadow.swap, asyncio.Event()
    second = People(version=2)

    async def waits() -> bool:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            found = await connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return await found.fetchone() != (0,)

    async def swaps_slowly(self: _PostgresShadow, transaction: StoreTransaction, saved: int) -> bool:
        if begun.is_set():
            return await swap(self, transaction, saved)
        found = await swap(self, transaction, saved)
        begun.set()
        await until(waits)
        await name(beside, "Bea")
        return found

    monkeypatch.setattr(_PostgresShadow, "swap", swaps_slowly)
    async with EventStore(url) as beside, asyncio.timeout(60):
        one = asyncio.create_task(second.projector(store).rebuild("people"))
        await begun.wait()
        two = People(version=2).projector(beside).rebuild("people")
        await asyncio.gather(one, two)
    await second.projector(store).catch_up()
    assert await second.rows(store) == [("u-1", "Bea", 2)]


@pytest.mark.asyncio
async def test_a_rebuild_that_another_one_has_swapped_writes_nothing_to_the_live_tables(
    store: EventStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await name(store, "Ann")
    await People().projector(store).catch_up()
    held, swapped = asyncio.Event(), asyncio.Event()
    async with EventStore(url) as beside, asyncio.timeout(60):
        head = beside.head

        async def held_up() -> int:
            held.set()
            await swapped.wait()
            return await head()

        monkeypatch.setattr(beside, "head", held_up)
        slow = asyncio.create_task(People(version=2).projector(beside).rebuild("people"))
        await held.wait()
        people = People(version=2)
        await people.projector(store).rebuild("people")
        await name(store, "Bea")
        swapped.set()
        await slow
    await people.projector(store).catch_up()
    assert await people.rows(store) == [("u-1", "Bea", 2)]


@pytest.mark.asyncio
async def test_a_page_that_the_server_breaks_off_is_handled_again(store: EventStore) -> None:
    await name(store, "Ann", "Bob")
    calls: list[int] = []
    projection = Projection("broken_off")

    @projection.handler
    def named(event: UserNamed, stored: StoredEvent) -> None:
        calls.append(stored.position)
        if len(calls) == 2:
            raise TransactionAbortedError("a deadlock, say")

    projector = Projector(store, [projection])
    assert await projector.catch_up() == 2
    assert calls == [1, 2, 1, 2]


@pytest.mark.asyncio
async def test_a_rebuild_leaves_projections_of_similar_names_alone(store: EventStore) -> None:
    await name(store, *(f"n{number}" for number in range(6)))
    seen: list[int] = []
    other = Projection("people:rebuild")

    @other.handler
    def named(event: UserNamed, stored: StoredEvent) -> None:
        seen.append(stored.position)

    await People().projector(store).catch_up()
    await Projector(store, [other]).catch_up()

    def stop(step: RebuildProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await People(version=2).projector(store, batch=2).rebuild("people", on_progress=stop)
    assert await Projector(store, [other]).catch_up() == 0
    assert seen == [1, 2, 3, 4, 5, 6]


@pytest.mark.asyncio
async def test_a_rebuild_makes_tables_with_all_that_belongs_to_them(store: EventStore, url: str) -> None:
    await name(store, "Ann")
    await People().projector(store).catch_up()
    for version, extra in (
        (2, Column("mood", Enum("good", "bad", name="mood"), server_default="good", comment="how")),
        (3, Column("mood", Enum("good", "bad", name="mood"), server_default="bad", comment="how else")),
        (4, Column("number", Integer, Sequence("numbers"))),
        (5, Column("number", Integer, Sequence("numbers"), comment="how many")),
    ):
        people = People(version=version)
        people.table.append_column(extra)
        people.table.comment = f"version {version}"
        projector = people.projector(store)
        await projector.rebuild("people")
        await name(store, f"n{version}", id=f"u-{version}")
        assert await projector.catch_up() == 1
        assert len(await people.rows(store)) == version

        def look(connection: Connection) -> tuple[str | None, str | None]:
            found = inspect(connection)
            (column,) = (each for each in found.get_columns("people") if each["name"] in {"mood", "number"})
            return found.get_table_comment("people")["text"], column["comment"]

        if url.startswith("postgresql"):  # SQLite has no comments
            async with store.transaction() as transaction:
                assert await transaction.run_sync(look) == (f"version {version}", extra.comment)


@pytest.mark.asyncio
async def test_a_rebuild_says_what_depends_on_its_tables(postgres_database: str) -> None:
    views: dict[str, LiteralString] = {
        "of_people": "CREATE VIEW of_people AS SELECT count(*) AS n FROM people",
        "friends": "CREATE TABLE friends (id text REFERENCES people, of text REFERENCES people)",
    }
    async with EventStore(postgres_database) as store:
        await name(store, "Ann", "Anna")
        await People().projector(store).catch_up()
        new = People(version=2)
        projector = new.projector(store, batch=1)
        async with store.transaction() as transaction:
            for view in views.values():
                await transaction.execute(text(view))
        steps: list[RebuildProgress] = []
        found = "table friends depends on table people; view of_people depends on table people. Nothing was replaced"
        with pytest.raises(DependentObjectsError, match=found):
            await projector.rebuild("people", on_progress=steps.append)
        assert steps == []  # it had not begun
        (status,) = await projector.status()
        assert status.rebuild_version is None
        async with store.transaction() as transaction:
            await transaction.execute(text("DROP VIEW of_people"))
            await transaction.execute(text("DROP TABLE friends"))

        def make_a_view(step: RebuildProgress) -> None:
            if step.events == 1:
                with psycopg.connect(postgres_database) as connection:
                    connection.execute(views["of_people"])

        with pytest.raises(DependentObjectsError, match="view of_people depends on table people"):
            await projector.rebuild("people", on_progress=make_a_view)
        assert await People().rows(store) == [("u-1", "Anna", 2)]
        assert (await projector.status())[0].version == 1
        async with store.transaction() as transaction:
            await transaction.execute(text("DROP VIEW of_people"))
        assert (await projector.rebuild("people")).swapped
        assert await new.rows(store) == [("u-1", "Anna", 2)]


@pytest.mark.asyncio
@pytest.mark.parametrize("schema", ["", "public."])
async def test_a_rebuild_runs_the_listeners_of_its_tables(postgres_database: str, schema: str) -> None:
    """Here, two that make a function and a trigger, which shouts."""

    def listening(version: int) -> People:
        people = People(version=version)
        body = "BEGIN new.name = upper(new.name); RETURN new; END"
        function = f"CREATE OR REPLACE FUNCTION {schema}shout() RETURNS trigger LANGUAGE plpgsql AS '{body}'"
        trigger = f"CREATE TRIGGER shout BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION {schema}shout()"
        for statement in (function, trigger):
            event.listen(people.table, "after_create", DDL(statement))
        return people

    async with EventStore(postgres_database) as store:
        await name(store, "Ann")
        await listening(1).projector(store).catch_up()
        for version in (2, 3):
            people = listening(version)
            projector = people.projector(store)
            if not schema:  # it would be made beside the new tables, and have no place beside the live ones
                with pytest.raises(ProjectionDefinitionError, match=r"listeners make function shout\(\) with"):
                    await projector.rebuild("people")
                return
            await projector.rebuild("people")
            await name(store, "Bob", id=f"u-{version}")
            await projector.catch_up()
        assert [row[1][:3] for row in await people.rows(store)] == ["ANN", "BOB", "BOB"]


def files_beside(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*-rebuild-*") if not path.name.endswith(("-wal", "-shm"))]


@pytest.mark.asyncio
async def test_a_rebuild_that_an_older_package_has_broken_off_begins_anew_on_sqlite(tmp_path: Path) -> None:
    async with EventStore(f"sqlite:///{tmp_path / 'events.db'}") as store:
        await name(store, *(f"n{number}" for number in range(6)))
        await People().projector(store).catch_up()

        def stop(step: RebuildProgress) -> None:
            raise KeyboardInterrupt

        new = People(version=2)
        with pytest.raises(KeyboardInterrupt):
            await new.projector(store, batch=2).rebuild("people", on_progress=stop)
        (beside,) = files_beside(tmp_path)
        with sqlite3.connect(beside) as connection:
            connection.execute("UPDATE commons_events_version SET version_num = '0001'")
        connection.close()
        assert (await new.projector(store).rebuild("people")).events == 6
        assert await new.rows(store) == [("u-1", "n5", 6)]
        assert files_beside(tmp_path) == []


@pytest.mark.asyncio
async def test_what_a_rebuild_parks_takes_the_place_of_what_was_parked(store: EventStore) -> None:
    old = People(broken={"a", "b"}, parking="event")
    await name(store, "a", id="u-1")
    await name(store, "b", id="u-2")
    await old.projector(store).catch_up()
    new = People(version=2, broken={"b"}, parking="event")
    projector = new.projector(store)
    done = await projector.rebuild("people")
    assert done.parked == 1
    assert [event.stream.id for event in await projector.states.parked("people")] == ["u-2"]
    assert await new.rows(store) == [("u-1", "a", 1)]


# --- a killed worker -------------------------------------------------------------------------------------------

WORKER = """
    import asyncio, sys
    from sqlalchemy import Column, Integer, MetaData, String, Table, insert, update
    from commons_events.sourcing import DomainEvent, EventStore, StoreTransaction
    from commons_events.sourcing.projections import Projection, Projector

    class UserNamed(DomainEvent):
        event_type = "person.named"
        name: str

    people = Table("people", MetaData(), Column("id", String(50), primary_key=True), Column("changes", Integer))
    projection = Projection("people", tables=[people])

    @projection.handler
    async def named(event: UserNamed, transaction: StoreTransaction) -> None:
        changed = await transaction.execute(
            update(people).where(people.c.id == event.aggregate_id).values(changes=people.c.changes + 1)
        )
        if changed.rowcount == 0:
            await transaction.execute(insert(people).values(id=event.aggregate_id, changes=1))
        print("one", flush=True)

    async def main():
        async with EventStore(sys.argv[1]) as store:
            await Projector(store, [projection], batch=7, poll_interval=0.05).run()

    asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_a_worker_that_is_killed_has_given_each_event_one_effect_or_none(url: str) -> None:
    total = 200
    async with EventStore(url) as store:
        for number in range(0, total, 20):
            await name(store, *(f"n{n}" for n in range(number, number + 20)), id=f"u-{number % 3}")
    worker = subprocess.Popen(  # noqa: ASYNC220  # nothing else runs meanwhile
        [sys.executable, "-c", textwrap.dedent(WORKER), url], stdout=subprocess.PIPE, start_new_session=True
    )
    assert worker.stdout is not None
    try:
        for _ in range(30):  # the worker is in the middle of a batch then
            assert worker.stdout.readline() == b"one\n"
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(60)
        worker.stdout.close()
    people = Table("people", MetaData(), Column("id", String(50), primary_key=True), Column("changes", Integer))
    projection = Projection("people", tables=[people])

    @projection.handler
    async def named(event: UserNamed, transaction: StoreTransaction) -> None:
        changed = await transaction.execute(
            update(people).where(people.c.id == event.aggregate_id).values(changes=people.c.changes + 1)
        )
        if changed.rowcount == 0:
            await transaction.execute(insert(people).values(id=event.aggregate_id, changes=1))

    async with EventStore(url) as store:
        await Projector(store, [projection]).catch_up()
        async with store.transaction() as transaction:
            changes = (await transaction.execute(select(people.c.changes))).scalars().all()
        assert sum(changes) == total


# --- bad input -------------------------------------------------------------------------------------------------


def test_projections_that_cannot_work_are_refused_when_they_are_defined() -> None:
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True))
    for arguments, reason in (
        ({"name": ""}, "projection's name"),
        ({"name": "x" * 101}, "at most 100"),
        ({"name": "p", "version": 0}, "from 1 on"),
        ({"name": "p", "version": True}, "from 1 on"),
        ({"name": "p", "parking": "row"}, "parking is"),
        ({"name": "p", "tables": ["t"]}, r"no sqlalchemy\.Table"),
        ({"name": "p", "tables": [People]}, r"no sqlalchemy\.Table, nor a class"),
        ({"name": "p", "tables": table}, "a list of tables"),
        ({"name": "p", "tables": table.metadata}, r"metadata\.sorted_tables"),
        ({"name": "p", "tables": [Table("t", MetaData(), schema="s")]}, "names its schema"),
    ):
        with pytest.raises((ProjectionDefinitionError, ValueError), match=reason):
            Projection(**arguments)
    store, projection = EventStore("memory://"), Projection("p", tables=[table])
    with pytest.raises(ConfigurationError, match="Two projections are called 'p'"):
        Projector(store, [projection, Projection("p")])
    with pytest.raises(ConfigurationError, match="both have the table 't'"):
        Projector(store, [projection, Projection("q", tables=[table])])
    for arguments, reason in (
        ({"projections": []}, "at least one"),
        ({"projections": projection}, r"Write \[projection\]"),
        ({"projections": [Projection]}, "is none"),
        ({"store": "sqlite://"}, "it is an EventStore"),
        ({"retry": 3}, "it is a Retry"),
        ({"batch": 0}, "batch is 0"),
        ({"poll_interval": float("nan")}, "poll_interval is nan"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            Projector(**{"store": store, "projections": [projection], **arguments})


def test_handlers_that_cannot_work_are_refused_when_they_are_defined() -> None:
    projection = Projection("p")

    def none(transaction: StoreTransaction) -> None: ...
    def odd(event: UserNamed, size: int) -> None: ...
    def bare(event) -> None: ...  # type: ignore[no-untyped-def]
    def two(event: UserNamed, other: UserLeft) -> None: ...
    async def blocking(event: UserNamed, session: Session) -> None: ...
    def placed(event: UserNamed, /) -> None: ...
    def maybe(event: UserNamed, transaction: StoreTransaction | None = None) -> None: ...

    unfit: Any
    for function, reason in (
        (none, "has no event parameter"),
        (odd, "nobody fills 'size'"),
        (bare, "nobody fills 'event'"),
        (two, "two event parameters"),
        (blocking, "for a function that is not async"),
        (partial(blocking), "for a function that is not async"),
        (placed, "by its place alone"),
        (maybe, "nobody fills 'transaction'"),
        (UserNamed, "is no function"),
        (None, "is no function"),
    ):
        unfit = function
        with pytest.raises(ProjectionDefinitionError, match=reason):
            projection.handler(unfit)

    @projection.handler
    def first(event: UserNamed) -> None: ...

    with pytest.raises(ProjectionDefinitionError, match="both handle UserNamed"):

        @projection.handler
        def second(event: UserLeft | UserNamed) -> None: ...


@pytest.mark.asyncio
async def test_a_projection_needs_a_handler_and_a_store_with_sql(url: str) -> None:
    async with EventStore(url) as store:
        with pytest.raises(ProjectionDefinitionError, match="has no handler"):
            await Projector(store, [Projection("p")]).catch_up()
    async with EventStore("memory://") as memory:
        with pytest.raises(CapabilityError, match="no SQL"):
            await People().projector(memory).catch_up()
