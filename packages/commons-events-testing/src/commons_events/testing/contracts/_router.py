"""`RouterContract`: what an `EventRouter` keeps on a broker."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Literal

from commons_events.errors import PublishError
from commons_events.message import Message
from commons_events.producers import EventProducer
from commons_events.retries import Retry
from commons_events.router import EventRouter
from commons_events.testing.contracts._contract import requires
from commons_events.testing.contracts._events import ContractEvent, OddEvent
from commons_events.testing.contracts._router_case import QUICK, RouterCase
from commons_events.testing.contracts._router_failures import FailureTests
from commons_events.testing.contracts._standing_in import RefusingTransport
from commons_events.transport import Delivery

__all__ = ["RouterContract"]


class HandlingTests(RouterCase, contract=True):
    """Handling, order, and the end."""

    async def test_messages_are_finished_after_their_handler_returned(self) -> None:
        """Each event reaches its handler, by type; what was handled does not come again."""
        transport = await self.open()
        topic, group, letters = await self._places(transport)
        seen: list[object] = []
        router = EventRouter()

        @router.subscribe(topic, group=group, dead_letter=letters)
        async def on_small(event: ContractEvent, message: Delivery) -> None:
            assert message.outcome is None, "it is settled while its handler runs"
            seen.append(event.number)

        @router.subscribe(topic, group=group)
        def on_odd(event: OddEvent) -> None:
            seen.append(event.text)

        async with EventProducer(transport=transport) as producer:
            await producer.send(topic, OddEvent(text="odd"))
        await self._send(transport, topic, 20, keys=5)
        await self._until(router, transport, lambda: len(seen) >= 21, "21 events are handled")
        assert set(seen) == {*range(20), "odd"}
        assert await self._left_over(transport, topic, group) == []

    async def test_a_key_keeps_its_order_while_others_run(self) -> None:
        """Handlers of one key never run at once nor out of order, also where they fail and are tried again."""
        transport = await self.open()
        requires(transport.capabilities, "ordering")
        topic, group, letters = await self._places(transport)
        count, keys = self.scale.ordered, self.scale.keys
        running: set[int] = set()
        done: dict[int, list[int]] = defaultdict(list)
        failed: set[int] = set()
        most = 0
        router = EventRouter()

        @router.subscribe(topic, group=group, retry=QUICK, dead_letter=letters, concurrency=keys)
        async def handle(event: ContractEvent) -> None:
            nonlocal most
            key = event.number % keys
            assert key not in running
            running.add(key)
            most = max(most, len(running))
            try:
                await asyncio.sleep(0)
                if event.number % 7 == 0 and event.number not in failed:
                    failed.add(event.number)
                    raise OSError("not at first")
                done[key].append(event.number)
            finally:
                running.remove(key)

        await self._send(transport, topic, count, keys=keys)
        await self._until(router, transport, lambda: sum(map(len, done.values())) >= count, f"{count} are handled")
        assert dict(done) == {key: list(range(key, count, keys)) for key in range(keys)}
        assert most > 1, "different keys never ran side by side"

    async def test_what_runs_finishes_within_the_grace_time(self) -> None:
        """What had not begun comes again."""
        await self._end("grace")

    async def test_what_is_cut_off_comes_again(self) -> None:
        """After the grace time handlers are cancelled, and nothing of theirs is finished."""
        await self._end("cut off")

    async def test_what_is_cut_off_and_fails_or_returns_comes_again(self) -> None:
        """Whatever a handler makes of being cancelled: an error of a client that it uses, or nothing."""
        await self._end("cut off", swallows=True)

    async def test_cancelling_finishes_nothing(self) -> None:
        """A router whose task is cancelled leaves the messages whose handlers it cuts off."""
        await self._end("cancel")

    async def _end(self, how: Literal["grace", "cut off", "cancel"], *, swallows: bool = False) -> None:
        transport = await self.open()
        topic, group, letters = await self._places(transport)
        begun, may_end = asyncio.Event(), asyncio.Event()
        done: list[int] = []
        router = EventRouter()

        @router.subscribe(topic, group=group, retry=Retry(attempts=1), dead_letter=letters, concurrency=2)
        async def handle(event: ContractEvent) -> None:
            begun.set()
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                if not swallows:
                    raise
                if event.number % 2:
                    raise ValueError("cut off") from None
                return
            done.append(event.number)

        async def run() -> None:
            grace = self.timeout if how == "grace" else 0.0
            async with router.running(broker=transport, grace=grace) as running:
                await begun.wait()
                if how == "cancel":
                    await asyncio.Event().wait()
                running.stop()
                if how == "grace":
                    asyncio.get_running_loop().call_later(0.01, may_end.set)

        await self._send(transport, topic, 6, keys=6)
        task = asyncio.ensure_future(run())
        if how == "cancel":
            await begun.wait()
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() is (how == "cancel")
        assert bool(done) is (how == "grace")
        assert sorted([*done, *await self._left_over(transport, topic, group)]) == list(range(6))

    async def test_returned_events_are_confirmed_first(self) -> None:
        """Where what a handler returned is refused, the message has failed."""
        inner = await self.open()
        topic, group, letters = await self._places(inner)
        out = await self.make_topic(inner)
        reading = await self.known_group(inner, out)
        refusals = 1

        def refuse(message: Message) -> PublishError | None:
            nonlocal refusals
            if message.topic != out or not refusals:
                return None
            refusals -= 1
            return PublishError("not now")

        calls: list[int] = []
        router = EventRouter()

        @router.subscribe(topic, group=group, retry=QUICK, dead_letter=letters, publish_to=out)
        async def handle(event: ContractEvent) -> ContractEvent:
            calls.append(event.number)
            return ContractEvent(number=100)

        await self._send(inner, topic, 1)
        await self._until(router, RefusingTransport(inner, refuse), lambda: len(calls) >= 2, "it is tried twice")
        subscription = await self.subscribe(inner, out, group_id=reading)
        [sent] = await self.read(subscription, 1)
        assert sent.key == b"key-0"
        assert sent.event(ContractEvent).causation_id is not None
        assert await self._left_over(inner, topic, group) == []

    async def test_a_lost_member_s_messages_are_handled_by_another(self) -> None:
        """Crashing in the middle of a handler loses nothing."""
        inner = await self.open()
        requires(inner.capabilities, "redelivery")
        topic, group, letters = await self._places(inner)
        stuck, seen = asyncio.Event(), set[int]()

        def make(handler: Callable[[int], Awaitable[None]]) -> EventRouter:
            router = EventRouter()

            @router.subscribe(topic, group=group, dead_letter=letters)
            async def handle(event: ContractEvent) -> None:
                await handler(event.number)

            return router

        async def hang(number: int) -> None:
            stuck.set()
            await asyncio.Event().wait()

        async def note(number: int) -> None:
            seen.add(number)

        await self._send(inner, topic, 10, keys=5)
        transport = RefusingTransport(inner)
        async with make(hang).running(broker=transport, grace=0):
            await stuck.wait()
            await self.lose(transport.subscriptions[0])
            await self._until(make(note), inner, lambda: len(seen) == 10, "all are handled by the other one")

    async def test_a_batch_handler_settles_each_message(self) -> None:
        """What failed in a batch comes again by itself; the rest of the batch is finished."""
        transport = await self.open()
        topic, group, letters = await self._places(transport)
        batches: list[list[int]] = []
        router = EventRouter()

        @router.subscribe(topic, group=group, retry=QUICK, dead_letter=letters, batch_size=5, batch_wait=0.01)
        async def handle(events: list[ContractEvent]) -> list[Exception | None]:
            first = not any(3 in batch for batch in batches)
            batches.append([event.number for event in events])
            return [OSError("not at first") if event.number == 3 and first else None for event in events]

        await self._send(transport, topic, 12, keys=12)
        await self._until(
            router, transport, lambda: sum(map(len, batches)) >= 13, "12 events are handled, and one twice"
        )
        assert sorted(number for batch in batches for number in batch) == sorted([*range(12), 3])
        assert max(map(len, batches)) <= 5
        assert await self._left_over(transport, topic, group) == []

    async def test_a_batch_that_runs_is_finished_within_the_grace_time(self) -> None:
        """All of it, also where it is one key's; what the batch does not hold comes again."""
        transport = await self.open()
        topic, group, letters = await self._places(transport)
        may_end = asyncio.Event()
        batches: list[list[int]] = []
        router = EventRouter()

        @router.subscribe(topic, group=group, dead_letter=letters, batch_size=5, batch_wait=self.timeout)
        async def handle(events: list[ContractEvent]) -> None:
            batches.append([event.number for event in events])
            await may_end.wait()

        await self._send(transport, topic, 8)
        async with router.running(broker=transport, grace=self.timeout):
            await self.eventually(lambda: batches, "a batch is full")
            asyncio.get_running_loop().call_later(0.01, may_end.set)
        assert len(batches) == 1
        assert sorted([*batches[0], *await self._left_over(transport, topic, group)]) == list(range(8))

    async def test_no_more_than_prefetch_is_in_the_process(self) -> None:
        """Slow handlers pause the fetch, and it goes on once there is room."""
        transport = await self.open()
        topic, group, letters = await self._places(transport)
        may_end = asyncio.Event()
        done: list[int] = []
        router = EventRouter()

        @router.subscribe(topic, group=group, dead_letter=letters, concurrency=2, prefetch=6)
        async def handle(event: ContractEvent) -> None:
            await may_end.wait()
            done.append(event.number)

        await self._send(transport, topic, 30, keys=30)
        async with router.running(broker=transport, grace=self.timeout) as running:

            def buffered() -> int:
                [status] = running.status()["subscriptions"]
                assert status["running"] <= 2
                most: int = status["buffered"]
                assert most <= 6
                return most

            await self.eventually(lambda: buffered() == 6, "as many are there as may be")
            await asyncio.sleep(self.quiet)
            assert buffered() == 6
            may_end.set()
            await self.eventually(lambda: buffered() >= 0 and len(done) >= 30, "all are handled")
        assert sorted(done) == list(range(30))

    async def test_routers_may_come_and_go(self) -> None:
        """A key's messages are first handled in their order, whoever has it; nothing is lost."""
        transport = await self.open()
        topic, group, letters = await self._places(transport)
        count, keys = self.scale.ordered, self.scale.keys
        seen: list[int] = []
        router = EventRouter()

        @router.subscribe(topic, group=group, retry=QUICK, dead_letter=letters, prefetch=20)
        async def handle(event: ContractEvent) -> None:
            await asyncio.sleep(0.001)
            seen.append(event.number)

        def new() -> int:
            return len(set(seen))

        async with router.running(broker=transport, grace=self.timeout):
            await self._send(transport, topic, count // 2, keys=keys)
            async with router.running(broker=await self.open(), grace=self.timeout):
                await self.eventually(lambda: new() >= count // 4, "a quarter is handled")
            await self._send(transport, topic, count - count // 2, keys=keys, start=count // 2)
            async with router.running(broker=await self.open(), grace=self.timeout):
                await self.eventually(lambda: new() >= count * 3 // 4, "three quarters are handled")
            await self.eventually(lambda: new() == count, "all are handled")
        if transport.capabilities.ordering == "key":
            for key in range(keys):
                mine = [number for number in dict.fromkeys(seen) if number % keys == key]
                assert mine == sorted(mine), f"key {key} was handled out of order"
        assert await self._left_over(transport, topic, group) == []


class RouterContract(HandlingTests, FailureTests, contract=True):
    """The contract of handlers on a transport: subclass it as `TransportContract`."""
