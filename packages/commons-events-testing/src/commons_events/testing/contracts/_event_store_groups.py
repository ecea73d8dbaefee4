"""Groups of workers, and the end of a store's life."""

from __future__ import annotations

import asyncio

import pytest

from commons_events.errors import (
    CheckpointError,
    ClosedError,
    ConfigurationError,
    LeaseLostError,
)
from commons_events.testing._wait import eventually
from commons_events.testing.contracts._event_store_case import WAIT, EventStoreCase, counted, ids, listed

__all__ = ["GroupTests"]


class GroupTests(EventStoreCase, contract=True):
    """Workers that share, and stores that close."""

    async def test_a_groups_workers_share_streams_and_keep_their_order(self) -> None:
        store = await self.store()
        for number in range(40):
            await store.append(f"s{number % 10}", counted(1, number))
        handled: list[tuple[str, str, int]] = []

        async def work(worker: str) -> None:
            async with (await self.store()).subscribe_group(
                "g", worker=worker, lease_seconds=6, poll_interval=0.05
            ) as group:
                async for delivery in group:
                    await delivery.done()
                    handled.append((worker, delivery.stored.stream.id, delivery.stored.aggregate_version))

        workers = [asyncio.ensure_future(work(name)) for name in ("a", "b", "c")]
        await eventually(lambda: len(handled) == 40, timeout=WAIT)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for stream in range(10):
            assert [version for _, name, version in handled if name == f"s{stream}"] == [1, 2, 3, 4]
        late = store.subscribe_group("g", worker="d")
        async with late:
            await store.append("s3", counted(1))
            delivery = await anext(late)
            assert (delivery.stored.stream.id, delivery.stored.aggregate_version) == ("s3", 5)

    async def test_who_lost_a_lease_cannot_finish(self) -> None:
        store = await self.store()
        await store.append("s", counted(1))
        slow = store.subscribe_group("g", worker="slow", partitions=1, lease_seconds=0.2)
        delivery = await anext(slow)
        quick = store.subscribe_group("g", worker="quick", partitions=1, lease_seconds=60, poll_interval=0.05)
        taken = await asyncio.wait_for(anext(quick), WAIT)
        assert taken.stored == delivery.stored
        assert taken.lease.epoch > delivery.lease.epoch
        with pytest.raises(LeaseLostError, match="slow"):
            await delivery.done()
        await taken.done()
        await quick.close()

    async def test_an_event_whose_transaction_fails_is_not_finished(self) -> None:
        """Else the next one's checkpoint would pass over it."""
        store = await self.store()
        await store.append("s", counted(2))
        async with store.subscribe_group("g", partitions=1) as group:
            delivery = await anext(group)
            with pytest.raises(ZeroDivisionError):  # noqa: PT012  # the block is what is tested
                async with store.transaction() as transaction:
                    await transaction.append("effect", counted(1))
                    await delivery.finish(transaction)
                    raise ZeroDivisionError
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(group), 0.1)
            async with store.transaction() as transaction:
                await transaction.append("effect", counted(1))
                await delivery.finish(transaction)
            with pytest.raises(CheckpointError):
                async with store.transaction() as transaction:
                    await delivery.finish(transaction)
            following = await anext(group)
            assert (delivery.stored.position, following.stored.position) == (1, 2)
            await following.done()
            await following.done()  # as after an answer that was lost
        assert await store.stream_version("effect") == 1
        assert await store.checkpoint("g/0") == 2

    async def test_an_unfinished_event_comes_to_the_next_worker(self) -> None:
        store = await self.store()
        await store.append("s", counted(2))
        for worker in ("first", "second"):
            async with store.subscribe_group("g", worker=worker, partitions=1) as group:
                delivery = await anext(group)
                assert delivery.stored.position == 1
        await store.save_checkpoint("g/0", 1)
        async with store.subscribe_group("g", worker="third", partitions=1) as group:
            assert (await anext(group)).stored.position == 2

    async def test_a_worker_that_leaves_with_nothing_leaves_nothing_undone(self) -> None:
        store = await (await self.store()).open()
        share = store.backend.lease
        assert len(await share("g", 8, "a", 60)) == 8
        async with store.subscribe_group("g", worker="b") as late:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(late), 0.1)
        assert len(await share("g", 8, "a", 60)) == 8

    async def test_a_group_keeps_its_number_of_partitions(self) -> None:
        store = await self.store()
        await store.append("s", counted(1))
        async with store.subscribe_group("g", partitions=4) as group:
            await (await anext(group)).done()
        for partitions in (2, 8):
            with pytest.raises(ConfigurationError, match=rf"4 partitions.*{partitions}"):
                await anext(store.subscribe_group("g", partitions=partitions))
        assert await store.checkpoints("g/") != {}

    async def test_partitions_are_shared_evenly(self) -> None:
        store = await (await self.store()).open()
        share = store.backend.lease
        assert len(await share("g", 8, "a", 60)) == 8
        assert await share("g", 8, "b", 60) == []
        assert len(await share("g", 8, "a", 60)) == 4
        assert len(await share("g", 8, "b", 60)) == 4
        await share("g", 8, "c", 60)
        held = {name: len(await share("g", 8, name, 60)) for name in ("a", "b", "c", "a", "b", "c")}
        assert sorted(held.values()) == [2, 3, 3]
        await share("g", 8, "a", 0, range(8))
        held = {name: len(await share("g", 8, name, 60)) for name in ("b", "c", "b", "c")}
        assert sorted(held.values()) == [4, 4]

    # --- life ------------------------------------------------------------------------------------------------

    async def test_another_store_finds_what_was_stored(self) -> None:
        store, events = await self.store(), counted(3)
        await store.append("a", events)
        other = await self.store()
        assert ids(await listed(other.read_stream("a"))) == ids(events)
        assert (await other.append("a", events)).stored is False

    async def test_a_closed_store_says_so(self) -> None:
        store = await self.store()
        await store.append("a", counted(1))
        await store.close()
        await store.close()
        with pytest.raises(ClosedError):
            await store.append("a", counted(1))
        with pytest.raises(ClosedError):
            await listed(store.read_all())

    async def test_closing_finishes_what_was_handed_over(self) -> None:
        store = await self.store()
        await store.append("first", counted(1))
        tasks = [asyncio.ensure_future(store.append(f"s{number}", counted(2))) for number in range(50)]
        await asyncio.sleep(0)
        await store.close()
        results = await asyncio.gather(*tasks)
        assert len(results) == 50
        assert len(await listed((await self.store()).read_all())) == 101
