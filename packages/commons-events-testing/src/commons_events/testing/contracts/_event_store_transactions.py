"""Transactions over several things, checkpoints and snapshots."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from commons_events.errors import (
    CapabilityError,
    CheckpointError,
    ClosedError,
    InvalidVersionError,
    TransactionError,
    VersionConflictError,
)
from commons_events.testing.contracts._event_store_case import WAIT, EventStoreCase, counted, sourcing

__all__ = ["TransactionTests"]


class TransactionTests(EventStoreCase, contract=True):
    """Together or not at all."""

    async def test_a_transaction_is_seen_as_a_whole_or_not_at_all(self) -> None:
        store, other = await self.store(), await self.store()
        with pytest.raises(RuntimeError, match="no"):  # noqa: PT012  # the block is what is tested
            async with store.transaction() as transaction:
                await transaction.append("a", counted(2), expected=0)
                await transaction.save_checkpoint("reader", 5)
                raise RuntimeError("no")
        assert await store.stream_version("a") == 0
        assert await store.checkpoint("reader") == 0
        async with store.transaction() as transaction:
            await transaction.append("a", counted(2), expected=0)
            assert len(await transaction.fetch_stream("a")) == 2
            with pytest.raises(VersionConflictError):
                await transaction.append("a", counted(1), expected=0)
            await transaction.append("a", counted(1), expected=2)
            await transaction.save_checkpoint("reader", 5)
            assert await transaction.checkpoint("reader") == 5
        assert await other.stream_version("a") == 3
        assert await other.checkpoint("reader") == 5

    async def test_a_failed_append_of_a_transaction_leaves_nothing_of_itself(self) -> None:
        s, store = sourcing(), await self.store()
        await store.append("taken", counted(1))
        async with store.transaction() as transaction:
            await transaction.append("kept", counted(1))
            with pytest.raises(VersionConflictError):
                await transaction.append_many([s.Append("lost", counted(2)), s.Append("taken", counted(1), 0)])
        assert await store.stream_version("kept") == 1
        assert await store.stream_version("lost") == 0

    async def test_writing_past_an_open_transaction_in_its_block_is_refused(self) -> None:
        """It would wait for itself; also in a task that the block starts, since it may wait for that."""
        s, store = sourcing(), await self.store()
        taken_at = datetime(2026, 1, 2, tzinfo=UTC)
        snapshot = s.StoredSnapshot(stream="a", version=1, kind="k", schema_version="1", data=b"", taken_at=taken_at)

        async def begin() -> None:
            async with store.transaction():
                pass

        async with store.transaction() as transaction:
            await transaction.append("a", counted(1))
            await transaction.save_checkpoint("reader", 1)
            await transaction.save_snapshot(snapshot)
            for write in (
                lambda: store.append("a", counted(1)),
                lambda: store.append_many([s.Append("a", counted(1)), s.Append("b", counted(1))]),
                lambda: store.append("a", counted(1000)),
                lambda: store.delete_stream("a"),
                lambda: store.save_checkpoint("reader", 2),
                lambda: store.delete_checkpoint("reader"),
                lambda: store.save_snapshot(snapshot),
                lambda: store.delete_snapshots("a"),
                begin,
                lambda: s.EventStore(backend=store.backend).append("a", counted(1)),
            ):
                for call in (write, lambda write=write: asyncio.gather(write())):
                    with pytest.raises(CapabilityError, match="transaction"):
                        async with asyncio.timeout(WAIT):
                            await call()
        assert await store.stream_version("a") == 1
        assert await store.checkpoint("reader") == 1

    async def test_reading_beside_an_open_transaction_in_its_block_does_not_wait_for_it(self) -> None:
        store = await self.store()
        await store.append("a", counted(1))
        subscription = store.subscribe()
        async with store.transaction(), asyncio.timeout(WAIT):
            assert len(await store.fetch_stream("a")) == 1
            assert [len(found) for found in await asyncio.gather(store.fetch_stream("a"))] == [1]
            assert len(await subscription.next_page(wait=False)) == 1
            assert await store.checkpoints() == {}

    async def test_a_task_that_outlives_the_block_it_was_started_in_may_write(self) -> None:
        store = await self.store()
        ended = asyncio.Event()

        async def later() -> None:
            await ended.wait()
            await store.append("a", counted(1))
            async with store.transaction() as transaction:
                await transaction.append("a", counted(1))
                with pytest.raises(CapabilityError):
                    await store.append("a", counted(1))
            await store.append("a", counted(1))

        async with store.transaction():
            task = asyncio.ensure_future(later())
        ended.set()
        async with asyncio.timeout(WAIT):
            await task
            await store.append("a", counted(1), expected=3)

    async def test_a_transaction_is_of_no_use_after_its_block(self) -> None:
        s, store = sourcing(), await self.store()
        ended = []
        for failed in (False, True):
            with suppress(ZeroDivisionError):
                async with store.transaction() as transaction:
                    ended.append(transaction)
                    if failed:
                        raise ZeroDivisionError
        snapshot = s.StoredSnapshot(
            stream="a", version=1, kind="A", data=b"x", taken_at=datetime(2026, 1, 2, tzinfo=UTC)
        )
        for transaction in ended:
            for call in (
                transaction.append("a", counted(1)),
                transaction.append_many([s.Append("a", counted(1))]),
                transaction.fetch_stream("a"),
                transaction.checkpoint("reader"),
                transaction.save_checkpoint("reader", 1),
                transaction.save_snapshot(snapshot),
                transaction.check_lease(s.Lease("g", 0, "worker", 1)),
                transaction.execute(None),  # type: ignore[call-overload]
                transaction.run_sync(str),
            ):
                with pytest.raises(ClosedError, match="ended"):
                    await call
        assert (await store.append("a", counted(1), expected=0)).stored
        async with store.transaction() as transaction:
            await transaction.append("a", counted(1), expected=1)
        async with store.subscribe() as subscription:  # nothing is left open that it would wait for
            assert [(await anext(subscription)).position for _ in range(2)] == [1, 2]
        assert await store.checkpoint("reader") == 0

    async def test_what_other_tasks_do_in_a_transaction_ends_with_its_block(self) -> None:
        """Each call is in time, and a part of what the block does, or refused."""
        store, expected = await self.store(), 0
        for failed in (False, True):
            for done in range(4):
                calls: list[asyncio.Task[Any]] = []
                with suppress(ZeroDivisionError):
                    async with store.transaction() as transaction:
                        calls += [asyncio.create_task(transaction.append("a", counted(1))) for _ in range(4)]
                        await asyncio.sleep(0)
                        for call in calls[:done]:
                            await call
                        if failed:
                            raise ZeroDivisionError
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
                assert all(isinstance(late, ClosedError) for late in outcomes if isinstance(late, BaseException))
                assert not any(isinstance(early, BaseException) for early in outcomes[:done])
                if not failed:
                    expected += sum(not isinstance(outcome, ClosedError) for outcome in outcomes)
                assert await store.stream_version("a") == expected
        assert (await store.append("a", counted(1), expected=expected)).stored

    async def test_a_programs_own_tables_take_part(self) -> None:
        store = await self.store()
        if not self.has_sql:
            with pytest.raises(CapabilityError, match="SQL"):
                async with store.transaction() as transaction:
                    await transaction.execute(None)  # type: ignore[call-overload]
            return
        from sqlalchemy import Column, Integer, MetaData, String, Table, select

        totals = Table(
            "totals", metadata := MetaData(), Column("name", String(20), primary_key=True), Column("n", Integer)
        )
        async with store.transaction() as transaction:
            await transaction.run_sync(lambda connection: metadata.create_all(connection))
            await transaction.execute(totals.insert(), [{"name": "a", "n": 1}, {"name": "b", "n": 2}])
            await transaction.save_checkpoint("totals", 1)
        with pytest.raises(CheckpointError, match="position 1"):  # noqa: PT012  # the block is what is tested
            async with store.transaction() as transaction:
                await transaction.execute(totals.update().values(n=99))
                await transaction.save_checkpoint("totals", 1)
        async with store.transaction() as transaction:
            rows = (await transaction.execute(select(totals.c.n).order_by(totals.c.name))).scalars().all()
            await transaction.run_sync(lambda connection: metadata.drop_all(connection))
        assert rows == [1, 2]

    async def test_a_block_that_ends_its_transaction_by_itself_does_not_end_as_if_all_were_stored(self) -> None:
        store = await self.store()
        if not self.has_sql:
            return
        from sqlalchemy import text
        from sqlalchemy.orm import Session

        def roll_back(connection: Any) -> None:
            session = Session(bind=connection)
            session.execute(text("SELECT 1"))
            session.rollback()

        def begin_anew(connection: Any) -> None:
            connection.get_transaction().rollback()
            connection.execute(text("SELECT 1"))

        for end in (
            roll_back,
            lambda connection: [connection.execute(text(statement)) for statement in ("ROLLBACK", "SELECT 1")],
            lambda connection: connection.close(),
            begin_anew,
        ):
            with pytest.raises(TransactionError, match="begin_nested"):  # noqa: PT012  # the block is what is tested
                async with store.transaction() as transaction:
                    await transaction.append("a", counted(1))
                    await transaction.run_sync(end)
            with pytest.raises(TransactionError, match="begin_nested"):  # noqa: PT012  # the block is what is tested
                async with store.transaction() as transaction:
                    await transaction.append("a", counted(1))
                    with suppress(TransactionError):
                        await transaction.run_sync(end)
                    for more in (transaction.append("a", counted(1)), transaction.save_checkpoint("reader", 1)):
                        with pytest.raises(TransactionError, match="begin_nested"):
                            await more
        with pytest.raises(TransactionError, match="begin_nested"):
            async with store.transaction() as transaction:
                await transaction.execute(text("COMMIT"))
        assert (await store.head(), await store.checkpoint("reader")) == (0, 0)

    async def test_a_connection_refuses_to_end_the_transaction_and_a_part_of_it_may_fail(self) -> None:
        store = await self.store()
        if not self.has_sql:
            return

        def fail_apart(connection: Any) -> None:
            with suppress(ZeroDivisionError), connection.begin_nested():
                raise ZeroDivisionError

        async with store.transaction() as transaction:
            await transaction.append("a", counted(1))
            for end in (lambda connection: connection.commit(), lambda connection: connection.rollback()):
                with pytest.raises(TransactionError, match="begin_nested"):
                    await transaction.run_sync(end)
            await transaction.run_sync(fail_apart)
            await transaction.append("a", counted(1), expected=1)
        assert await store.stream_version("a") == 2

    async def test_a_store_is_not_closed_in_the_block_of_its_transaction(self) -> None:
        """It would wait for itself."""
        store = await self.store()
        async with store.transaction() as transaction:
            for close in (store.close, lambda: asyncio.gather(store.close())):
                with pytest.raises(CapabilityError, match="block"):
                    async with asyncio.timeout(WAIT):
                        await close()
            await transaction.append("a", counted(1))
        await store.append("a", counted(1), expected=1)
        await store.close()

    # --- checkpoints and snapshots ---------------------------------------------------------------------------

    async def test_checkpoints_move_forward_only(self) -> None:
        store = await self.store()
        assert await store.checkpoint("p") == 0
        await store.save_checkpoint("p", 3)
        for position in (3, 2, 0):
            with pytest.raises(CheckpointError):
                await store.save_checkpoint("p", position)
        await store.save_checkpoint("p", 4)
        await store.save_checkpoint("p", 1, backwards=True)
        await store.save_checkpoint("p%", 7)
        await store.save_checkpoint("pq", 8)
        assert await store.checkpoints("p%") == {"p%": 7}
        assert await store.checkpoints() == {"p": 1, "p%": 7, "pq": 8}
        await store.delete_checkpoint("p")
        assert await store.checkpoint("p") == 0
        with pytest.raises(InvalidVersionError):
            await store.save_checkpoint("p", -1)

    async def test_tracking_in_the_transaction_of_the_effect_makes_it_happen_once(self) -> None:
        store = await self.store()
        for attempt in range(2):
            with suppress(CheckpointError):
                async with store.transaction() as transaction:
                    await transaction.append(f"effect-{attempt}", counted(1))
                    await transaction.save_checkpoint("upstream", 1)
        assert await store.stream_version("effect-0") == 1
        assert await store.stream_version("effect-1") == 0

    async def test_snapshots_keep_the_latest(self) -> None:
        s, store = sourcing(), await self.store()
        stream = s.StreamId("a", "Order")

        def snapshot(version: int, kind: str = "Order") -> Any:
            return s.StoredSnapshot(
                stream=stream, version=version, kind=kind, schema_version="2", data=b"\x00%d" % version,
                taken_at=datetime(2026, 1, 2, tzinfo=UTC),
            )  # fmt: skip

        assert await store.snapshot(stream, "Order") is None
        for version in (5, 9, 7):
            await store.save_snapshot(snapshot(version))
        assert await store.snapshot(stream, "Order") == snapshot(9)
        assert await store.snapshot(stream, "Order", at_most=8) is None
        assert await store.snapshot(stream, "Other") is None
        assert await store.snapshot("a", "Order") is None
        await store.delete_snapshots(stream)
        assert await store.snapshot(stream, "Order") is None
