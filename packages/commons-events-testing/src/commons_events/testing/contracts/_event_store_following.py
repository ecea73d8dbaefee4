"""Subscriptions miss nothing, also while many write."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from commons_events.errors import (
    VersionConflictError,
)
from commons_events.testing._wait import eventually

if TYPE_CHECKING:
    from commons_events.sourcing import StoredEvent, Subscription

from commons_events.testing.contracts._event_store_case import (
    WAIT,
    Counted,
    EventStoreCase,
    Noted,
    counted,
    ids,
    listed,
)

__all__ = ["FollowingTests"]


class FollowingTests(EventStoreCase, contract=True):
    """Readers that go on."""

    async def test_a_subscription_catches_up_and_goes_on_live(self) -> None:
        store, other = await self.store(page_size=4), await self.store()
        await store.append("a", counted(10))
        seen: list[int] = []
        subscription = store.subscribe(after=2)

        async def follow() -> None:
            async for stored in subscription:
                seen.append(stored.position)
                assert subscription.position == stored.position

        task = asyncio.ensure_future(follow())
        await eventually(lambda: len(seen) == 8 and subscription.live, timeout=WAIT)
        for number in range(5):
            await (other if number % 2 else store).append(f"b{number}", counted(1))
            await eventually(lambda number=number: len(seen) == 9 + number, timeout=WAIT)  # type: ignore[misc]
        task.cancel()
        assert seen == list(range(3, 16))
        await subscription.close()
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)

    async def test_a_filtered_subscription_sees_all_of_its_kind(self) -> None:
        store = await self.store(page_size=5)
        seen: list[int] = []

        async def follow() -> None:
            async for stored in store.subscribe(types=[Noted]):
                seen.append(stored.position)  # noqa: PERF401  # it never ends

        task = asyncio.ensure_future(follow())
        for number in range(30):
            await store.append(f"s{number}", [Noted() if number % 3 == 0 else Counted()])
        await eventually(lambda: len(seen) == 10, timeout=WAIT)
        task.cancel()
        assert seen == list(range(1, 31, 3))

    async def test_closing_a_subscription_ends_a_loop_that_waits(self) -> None:
        store = await self.store()
        await store.append("a", counted(1))
        subscription = store.subscribe(poll_interval=100 * WAIT)

        async def follow() -> list[int]:
            return [stored.position async for stored in subscription]

        task = asyncio.ensure_future(follow())
        await eventually(lambda: subscription.live, timeout=WAIT)
        await subscription.close()
        await subscription.close()
        assert await asyncio.wait_for(task, WAIT) == [1]
        assert await subscription.next_page() == []

    async def test_a_closed_subscription_gives_no_event_that_was_on_its_way(self) -> None:
        store = await self.store()
        await store.append("a", counted(3))

        async def follow(subscription: Subscription, seen: list[int]) -> None:
            async for stored in subscription:
                seen.append(stored.position)  # noqa: PERF401  # what it has seen by then counts

        for turns in range(10):  # of the event loop, so that it is closed at each point of the reading
            subscription = store.subscribe()
            seen: list[int] = []
            task = asyncio.ensure_future(follow(subscription, seen))
            for _ in range(turns):
                await asyncio.sleep(0)
            await subscription.close()
            before = list(seen)
            await asyncio.wait_for(task, WAIT)
            assert seen == before
            assert subscription.position == len(seen)

    async def test_a_page_at_a_time(self) -> None:
        store = await self.store()
        await store.append("a", counted(5))
        subscription = store.subscribe()
        assert [len(await subscription.next_page(3)), len(await subscription.next_page(3))] == [3, 2]
        assert await subscription.next_page(wait=False) == []
        assert subscription.position == 5

    async def test_readers_miss_nothing_while_many_write(self) -> None:
        """Some writers roll back, some take their time between storing and committing."""
        store = await self.store(page_size=50)
        others = [await self.store() for _ in range(3)]
        committed: set[str] = set()
        rounds = 5

        async def write(writer: int) -> None:
            target = others[writer % len(others)]
            for number in range(rounds):
                events = counted(1 + (writer + number) % 5)
                if (writer + number) % 3 == 0:
                    await target.append(f"w{writer}-{number}", events, expected=0)
                    committed.update(ids(events))
                    continue
                with suppress(ZeroDivisionError):
                    async with target.transaction() as transaction:
                        await transaction.append(f"w{writer}-{number}", events, expected=0)
                        await asyncio.sleep((writer * 7 + number * 3) % 20 / 1000)
                        if (writer + number) % 10 == 1:
                            raise ZeroDivisionError
                    committed.update(ids(events))

        seen: list[StoredEvent] = []

        async def follow() -> None:
            async for stored in store.subscribe(poll_interval=0.05):
                seen.append(stored)  # noqa: PERF401  # it never ends

        reader = asyncio.ensure_future(follow())
        await asyncio.gather(*(write(writer) for writer in range(self.writers)))
        await eventually(lambda: len(seen) >= len(committed) or reader.done(), timeout=WAIT)
        reader.cancel()
        assert set(ids(seen)) == committed
        assert len(seen) == len(committed)
        positions = [stored.position for stored in seen]
        assert positions == sorted(positions)

    async def test_concurrent_writers_of_one_stream_lose_nothing(self) -> None:
        stores = [await self.store() for _ in range(2)]
        conflicts = 0

        async def write(writer: int) -> None:
            nonlocal conflicts
            store = stores[writer % 2]
            for _ in range(3):
                event = Counted(number=writer)
                while True:
                    version = await store.stream_version("shared")
                    try:
                        result = await store.append("shared", [event], expected=version)
                    except VersionConflictError:
                        conflicts += 1
                        continue
                    assert result.version == version + 1
                    break

        await asyncio.gather(*(write(writer) for writer in range(self.writers)))
        await asyncio.gather(*(stores[n % 2].append("shared", counted(2)) for n in range(self.writers)))
        stored = await listed(stores[0].read_stream("shared"))
        assert [one.aggregate_version for one in stored] == list(range(1, self.writers * 5 + 1))
        assert len(set(ids(stored))) == self.writers * 5

    async def test_two_big_appends_do_not_mix(self) -> None:
        first, second = await self.store(), await self.store()
        results = await asyncio.gather(
            *(store.append(f"s{n}", counted(300), expected=0) for n, store in enumerate((first, second, first, second)))
        )
        spans = sorted((result.first_position, result.last_position) for result in results)
        assert all(high - low == 299 for low, high in spans)
        assert all(one[1] < two[0] for one, two in pairwise(spans))
