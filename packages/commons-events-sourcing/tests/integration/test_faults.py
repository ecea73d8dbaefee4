"""Writers and servers die in the middle; what was confirmed is there, whole, and nothing is there by half.

``COMMONS_EVENTS_CHAOS=N`` kills N times as often.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, text

from commons_events.errors import StoreUnavailableError
from commons_events.memory import MemoryBroker, MemoryTransport
from commons_events.message import Message, PublishResult
from commons_events.sourcing import EventStore, OutboxRelay, StoredEvent, StoreTransaction, Subscription
from commons_events.sourcing.projections import Projection, Projector
from commons_events.testing import eventually
from commons_events.testing.services import RunningPostgres

from .stores import Place, place  # noqa: F401
from .writer import SIZE, Written

pytestmark = pytest.mark.asyncio

ROUNDS = int(os.environ.get("COMMONS_EVENTS_CHAOS", "1"))
WAIT = 120.0
WRITER = Path(__file__).with_name("writer.py")


class Writer:
    """The process, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.confirmed: list[str] = []
        self.reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, url: str, name: str, tasks: int) -> Writer:
        if url.startswith("postgresql"):
            url += "?application_name=writer"
        process = await asyncio.create_subprocess_exec(
            sys.executable, WRITER, url, name, str(tasks), stdout=asyncio.subprocess.PIPE
        )
        return cls(process)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            if line.endswith(b"\n"):  # else it was cut off
                self.confirmed.append(line.decode().strip())

    async def kill(self) -> list[str]:
        """By SIGKILL; gives the streams that were confirmed."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self.reading
        return [name for name in self.confirmed if name != "ready"]


async def all_have_ended(url: str) -> None:
    """The writers, on the server, too: it may have what they sent last still to do after they were killed."""
    if not url.startswith("postgresql"):
        return
    import psycopg

    async def ended() -> bool:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            found = await connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'writer'"
            )
            return await found.fetchone() is None

    await eventually(ended, timeout=WAIT, interval=0.05)


class Reader:
    def __init__(self, store: EventStore) -> None:
        self.seen: list[StoredEvent] = []
        self.task = asyncio.ensure_future(self._follow(store))

    async def _follow(self, store: EventStore) -> None:
        async for stored in store.subscribe(poll_interval=0.1):
            self.seen.append(stored)  # it never ends


def check(events: list[StoredEvent], confirmed: set[str]) -> None:
    """Streams are whole, none of the confirmed ones is missing, and two of one append are there both or neither."""
    sizes = Counter(stored.stream.id for stored in events)
    assert set(sizes.values()) <= {SIZE}
    assert confirmed <= sizes.keys()
    for name in sizes:
        if name.endswith("b"):
            assert name[:-1] in sizes
        elif int(name.rpartition("-")[2]) % 2:
            assert f"{name}b" in sizes
    positions = [stored.position for stored in events]
    assert positions == sorted(set(positions))


async def test_writers_are_killed(place: Place) -> None:  # noqa: F811
    if place.kind == "memory":
        pytest.skip("what is in memory dies with its process")
    confirmed: set[str] = set()
    async with place.opened() as store:
        reader = Reader(store)
        for number in range(ROUNDS):
            writers = [await Writer.start(place.url, f"{number}.{one}", 10) for one in range(2)]
            for writer in writers:
                await eventually(lambda writer=writer: len(writer.confirmed) > 30, timeout=WAIT, interval=0.02)  # type: ignore[misc]
                confirmed.update(await writer.kill())
        await all_have_ended(place.url)
        head = (await store.append("last", [Written(text="")] * SIZE)).last_position
        await eventually(lambda: reader.seen and reader.seen[-1].position == head, timeout=WAIT)
        stored = [stored async for stored in store.read_all()]
        check(stored[:-SIZE], confirmed)
        assert reader.seen == stored
        # what they are found by is as whole as they are
        assert [one async for one in store.read_all(types=[Written])] == stored
        tagged = [one for one in stored if "n3" in one.tags]
        assert tagged
        assert [one async for one in store.read_all(tags=["n3"])] == tagged
        reader.task.cancel()


async def test_the_server_is_killed(postgres_service: RunningPostgres, postgres_database: str) -> None:
    postgres_service.require("signals", "durability")
    confirmed: set[str] = set()
    writers = [await Writer.start(postgres_database, f"w{number}", 5) for number in range(2)]
    for _ in range(ROUNDS):
        for writer in writers:
            before = len(writer.confirmed)
            await eventually(lambda w=writer, n=before: len(w.confirmed) > n + 20, timeout=WAIT, interval=0.02)  # type: ignore[misc]
        await asyncio.to_thread(postgres_service.kill)
        await asyncio.to_thread(postgres_service.start)
    for writer in writers:
        before = len(writer.confirmed)
        await eventually(lambda w=writer, n=before: len(w.confirmed) > n, timeout=WAIT, interval=0.02)  # type: ignore[misc]
        confirmed.update(await writer.kill())
    await all_have_ended(postgres_database)
    async with EventStore(postgres_database) as store:
        head = (await store.append("last", [Written(text="")] * SIZE)).last_position
        reader = Reader(store)
        await eventually(lambda: reader.seen and reader.seen[-1].position == head, timeout=WAIT)
        check(reader.seen[:-SIZE], confirmed)
        reader.task.cancel()


async def test_a_subscription_outlives_the_server(postgres_service: RunningPostgres, postgres_database: str) -> None:
    """LISTEN breaks with its connection; the store says so to who reads, and a new subscription goes on."""
    postgres_service.require("signals", "durability")
    async with EventStore(postgres_database) as store:
        await store.append("a", [Written(text="1")])
        seen: list[int] = []

        async def follow() -> None:
            after = 0
            while True:
                try:
                    async for stored in store.subscribe(after=after, poll_interval=0.1):
                        seen.append(stored.position)
                        after = stored.position
                except StoreUnavailableError:
                    await asyncio.sleep(0.05)

        task = asyncio.ensure_future(follow())
        await eventually(lambda: len(seen) == 1, timeout=WAIT)
        await asyncio.to_thread(postgres_service.kill)
        await asyncio.to_thread(postgres_service.start)

        async def append() -> bool:
            with suppress(StoreUnavailableError):
                await store.append("b", [Written(text="2", event_id="two")])
                return True
            return False

        await eventually(append, timeout=WAIT, interval=0.1)
        await eventually(lambda: len(seen) == 2, timeout=WAIT)
        task.cancel()


@asynccontextmanager
async def steady_writer(store: EventStore) -> AsyncIterator[list[str]]:
    """Appends to three streams by turns until the block ends; gives the ids that were confirmed."""
    confirmed: list[str] = []

    async def write() -> None:
        number = 0
        while True:
            event = Written(text="", event_id=f"{number % 3}/{number}")
            with suppress(StoreUnavailableError):  # the same again, by its id, is stored once
                await store.append(f"s{number % 3}", [event])
                confirmed.append(event.event_id)
                number += 1
            await asyncio.sleep(0.001)

    task = asyncio.ensure_future(write())
    try:
        yield confirmed
    finally:
        task.cancel()
        await asyncio.wait([task])


async def all_of(store: EventStore) -> list[StoredEvent]:
    """All events, once the last append, whose task was cancelled, has ended one way or the other."""
    found: list[StoredEvent] = []

    async def whole() -> bool:
        found[:] = [one async for one in store.read_all()]
        return found[-1].position == await store.head()

    await eventually(whole, timeout=WAIT)
    return found


async def kill_and_start(service: RunningPostgres) -> None:
    await asyncio.to_thread(service.kill)
    await asyncio.to_thread(service.start)


async def test_the_same_subscription_goes_on_after_an_error(
    postgres_service: RunningPostgres, postgres_database: str
) -> None:
    """Also where a page that was asked for ahead has failed: nothing is left out, nothing comes twice."""
    postgres_service.require("signals", "durability")
    async with EventStore(postgres_database, page_size=10) as store:
        await store.append("a", [Written(text="") for _ in range(55)])
        subscription = store.subscribe(poll_interval=0.1)
        seen = [await anext(subscription) for _ in range(15)]
        await asyncio.to_thread(postgres_service.kill)
        with pytest.raises(StoreUnavailableError):
            while True:
                seen.append(await anext(subscription))
        await asyncio.to_thread(postgres_service.start)

        async def rest() -> bool:
            with suppress(StoreUnavailableError):
                while len(seen) < 55:
                    seen.append(await anext(subscription))
            return len(seen) == 55

        await eventually(rest, timeout=WAIT, interval=0.1)
        assert [stored.aggregate_version for stored in seen] == list(range(1, 56))


async def use_up_what_is_logged(store: EventStore) -> int:
    """Take positions until the next one is not in PostgreSQL's log yet, which has 32 ahead; gives the last one."""
    while True:
        last = (await store.append("first", [Written(text="")])).last_position
        async with store.transaction() as transaction:
            left = await transaction.execute(text("SELECT log_cnt FROM commons_events_events_position_seq"))
            if left.scalar_one() == 0:
                return last


async def test_a_position_that_is_given_out_again_after_a_kill_is_not_passed_over(
    postgres_service: RunningPostgres, postgres_database: str
) -> None:
    """A reader waits for the transaction that holds it; the server is killed, and gives it to another transaction."""
    postgres_service.require("signals", "durability")
    for _ in range(20):
        # what is announced is committed, too, and might take the positions to the disk
        async with EventStore(postgres_database, notify=False) as store:
            last = await use_up_what_is_logged(store)
            subscription = store.subscribe(after=last)
            with pytest.raises(StoreUnavailableError):  # the block is what is tested
                async with store.transaction() as transaction:
                    lost = (await transaction.append("lost", [Written(text="")])).last_position
                    assert await subscription.next_page(wait=False) == []  # the reader has seen who is writing
                    await kill_and_start(postgres_service)
            seen: list[StoredEvent] = []

            async def read(subscription: Subscription = subscription, seen: list[StoredEvent] = seen) -> bool:
                with suppress(StoreUnavailableError):
                    while page := await subscription.next_page(wait=False):
                        seen += page
                    return True
                return False

            async with EventStore(postgres_database) as one, EventStore(postgres_database) as other:
                async with one.transaction() as transaction:
                    again = (await transaction.append("again", [Written(text="")])).last_position
                    await other.append("later", [Written(text="")])
                    await eventually(read, timeout=WAIT)
                    assert seen == []
                await eventually(read, timeout=WAIT)
                assert [stored.stream.id for stored in seen] == ["again", "later"]
        if again == lost:  # else the log had got to the disk by the way
            return
    pytest.fail("the server never forgot a position")


async def test_a_projector_outlives_the_server_and_has_each_effect_once(
    postgres_service: RunningPostgres, postgres_database: str
) -> None:
    postgres_service.require("signals", "durability")
    effects = Table(
        "effects",
        MetaData(),
        Column("number", Integer, primary_key=True),
        Column("position", BigInteger, nullable=False),
    )
    projection = Projection("effects", tables=[effects])
    handled: list[int] = []

    @projection.handler
    async def written(event: Written, stored: StoredEvent, transaction: StoreTransaction) -> None:
        await transaction.execute(effects.insert().values(position=stored.position))
        handled.append(stored.position)

    async with EventStore(postgres_database) as store:
        projector = Projector(store, [projection], batch=5, poll_interval=0.1)
        running = asyncio.ensure_future(projector.run())
        async with steady_writer(store) as confirmed:
            for _ in range(ROUNDS):
                seen = len(handled)
                await eventually(lambda seen=seen: len(handled) > seen + 20, timeout=WAIT, interval=0.01)  # type: ignore[misc]
                await kill_and_start(postgres_service)
            before = len(confirmed)
            await eventually(lambda: len(confirmed) > before + 5, timeout=WAIT)
        assert not running.done()
        stored = await all_of(store)
        assert {one.event_id for one in stored} >= set(confirmed)

        async def level() -> bool:
            return await store.checkpoint("projection:effects") >= stored[-1].position

        await eventually(level, timeout=WAIT)
        async with store.transaction() as transaction:
            rows = await transaction.execute(effects.select().order_by(effects.c.number))
            assert [row.position for row in rows] == [one.position for one in stored]
        assert await projector.states.parked("effects") == []
        running.cancel()
        await asyncio.wait([running])


class Recording(MemoryTransport):
    """The in-process broker, which notes what it is given."""

    sent: list[str]

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        self.sent += [message.header("ce_id") or "" for message in messages]
        return super().publish(messages)


async def test_a_relay_outlives_the_server_and_loses_nothing(
    postgres_service: RunningPostgres, postgres_database: str
) -> None:
    postgres_service.require("signals", "durability")
    transport = Recording(MemoryBroker())
    transport.sent = []
    async with EventStore(postgres_database) as store:
        relay = OutboxRelay(store, transport, topic="written")
        running = asyncio.ensure_future(relay.run())
        async with steady_writer(store) as confirmed:
            for _ in range(ROUNDS):
                seen = len(transport.sent)
                await eventually(lambda seen=seen: len(transport.sent) > seen + 20, timeout=WAIT, interval=0.01)  # type: ignore[misc]
                await kill_and_start(postgres_service)
            before = len(confirmed)
            await eventually(lambda: len(confirmed) > before + 5, timeout=WAIT)
        stored = [one.event_id for one in await all_of(store)]
        assert set(stored) >= set(confirmed)
        await eventually(lambda: running.done() or set(transport.sent) >= set(stored), timeout=WAIT)
        assert not running.done()
        assert set(transport.sent) == set(stored)
        for stream in "012":  # what came twice came again as it was; the first time each stream was in order
            first = [name for name in dict.fromkeys(transport.sent) if name.startswith(f"{stream}/")]
            assert first == [name for name in stored if name.startswith(f"{stream}/")]
        running.cancel()
        await asyncio.wait([running])
