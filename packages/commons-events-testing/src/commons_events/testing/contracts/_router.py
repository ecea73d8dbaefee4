"""`RouterContract`: what an `EventRouter` keeps on a broker."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from commons_events.dead_letters import DeadLetter
from commons_events.errors import HandlerFailedError, PublishError
from commons_events.message import Message
from commons_events.producers import EventProducer
from commons_events.retries import Retry
from commons_events.router import DeadLetters, EventRouter
from commons_events.testing.contracts._broker import BrokerContract
from commons_events.testing.contracts._contract import requires
from commons_events.testing.contracts._events import ContractEvent, OddEvent, mark_end
from commons_events.testing.contracts._standing_in import RefusingTransport
from commons_events.transport import Delivery, Outcome, Settlement, Transport

__all__ = ["RouterContract"]

_QUICK = Retry(attempts=2, delay=0.01, max_delay=0.02)


class RouterContract(BrokerContract, contract=True):
    """The contract of handlers on a transport: subclass it as `TransportContract`."""

    async def _places(self, transport: Transport) -> tuple[str, str, str]:
        """A topic, a group that has it before it, and a topic for dead letters."""
        requires(transport.capabilities, "consumer_groups")
        topic, letters = await self.make_topic(transport), await self.make_topic(transport)
        return topic, await self.known_group(transport, topic), letters

    async def _send(self, transport: Transport, topic: str, count: int, *, keys: int = 1) -> None:
        async with EventProducer(transport=transport) as producer:
            for number in range(count):
                await producer.send(topic, ContractEvent(number=number), key=f"key-{number % keys}")

    async def _until(
        self, router: EventRouter, transport: Transport, condition: Callable[[], object], what: str
    ) -> None:
        """Run the router until ``condition()`` holds."""
        async with router.running(broker=transport, grace=self.timeout) as running:
            await self.eventually(lambda: condition() or running.error is not None, what)

    async def _left_over(self, transport: Transport, topic: str, group: str) -> list[int]:
        """The numbers of the events that the group has not finished, which finishes them."""
        left, marks = list[int](), await mark_end(transport, topic)
        subscription = await self.subscribe(transport, topic, group_id=group)
        while True:
            complete = marks <= set(left)
            try:
                # The marks may take as long as joining does; what nobody has finished lies before them.
                async with asyncio.timeout(self.quiet if complete else self.timeout):
                    batch = await subscription.receive(1000)
            except TimeoutError:
                assert complete, f"what was sent last did not come within {self.timeout:g} s"
                break
            left += [delivery.event(ContractEvent).number for delivery in batch]
            await subscription.settle([Settlement(delivery, Outcome.ACK) for delivery in batch])
        await subscription.close()
        return sorted(number for number in left if number not in marks)

    async def _letters(self, transport: Transport, topic: str, count: int) -> list[DeadLetter]:
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        return [DeadLetter.read(each.message) for each in await self.read(subscription, count)]

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

        @router.subscribe(topic, group=group, retry=_QUICK, dead_letter=letters, concurrency=keys)
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

    async def test_what_fails_for_good_is_kept_and_the_rest_goes_on(self) -> None:
        """With its bytes, reason, error and attempts; undecodable bytes too."""
        transport = await self.open()
        topic, group, letters = await self._places(transport)
        seen: list[int] = []
        router = EventRouter()

        @router.subscribe(topic, group=group, retry=_QUICK, dead_letter=letters)
        async def handle(event: ContractEvent) -> None:
            if event.number == 1:
                raise LookupError("no such customer")
            seen.append(event.number)

        await self.publish(transport, [Message(topic, b"\xff no event", key=b"key-0")])
        await self._send(transport, topic, 3)
        await self._until(router, transport, lambda: len(seen) >= 2, "two events are handled")
        kept = {letter.attempts: letter for letter in await self._letters(transport, letters, 2)}
        assert seen == [0, 2]
        assert (kept[2].error_type, kept[2].error_message) == ("builtins.LookupError", "no such customer")
        assert (kept[2].topic, kept[2].group, kept[2].key) == (topic, group, b"key-0")
        assert kept[1].message.value == b"\xff no event"
        assert await self._left_over(transport, topic, group) == []

    async def test_a_dead_letter_that_cannot_be_published_leaves_the_original(self) -> None:
        """It is tried again and again; a router that ends meanwhile leaves the message to the next one."""
        inner = await self.open()
        topic, group, letters = await self._places(inner)
        refused: list[Message] = []

        def refuse(message: Message) -> PublishError | None:
            if message.topic != letters:
                return None
            refused.append(message)
            return PublishError("no room")

        router = EventRouter()

        @router.subscribe(topic, group=group, retry=Retry(attempts=1), dead_letter=letters)
        async def handle(event: ContractEvent) -> None:
            raise ValueError("bad")

        await self._send(inner, topic, 1)
        await self._until(router, RefusingTransport(inner, refuse), lambda: len(refused) >= 2, "two were refused")
        assert await self._left_over(inner, topic, group) == [0]

    async def test_without_dead_letters_a_failure_stops_the_router(self) -> None:
        """It says which message it was; the message is unsettled."""
        transport = await self.open()
        topic, group, _ = await self._places(transport)
        router = EventRouter()

        @router.subscribe(topic, group=group, retry=Retry(attempts=1))
        async def handle(event: ContractEvent) -> None:
            raise ValueError("bad")

        await self._send(transport, topic, 1)
        with pytest.raises(HandlerFailedError, match=topic):
            await self._until(router, transport, lambda: False, "the router stops")
        assert await self._left_over(transport, topic, group) == [0]

    async def test_what_runs_finishes_within_the_grace_time(self) -> None:
        """What had not begun comes again."""
        await self._end("grace")

    async def test_what_is_cut_off_comes_again(self) -> None:
        """After the grace time handlers are cancelled, and nothing of theirs is finished."""
        await self._end("cut off")

    async def test_cancelling_finishes_nothing(self) -> None:
        """A router whose task is cancelled leaves the messages whose handlers it cuts off."""
        await self._end("cancel")

    async def _end(self, how: Literal["grace", "cut off", "cancel"]) -> None:
        transport = await self.open()
        topic, group, letters = await self._places(transport)
        begun, may_end = asyncio.Event(), asyncio.Event()
        done: list[int] = []
        router = EventRouter()

        @router.subscribe(topic, group=group, dead_letter=letters, concurrency=2)
        async def handle(event: ContractEvent) -> None:
            begun.set()
            await may_end.wait()
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
        refusals = 1

        def refuse(message: Message) -> PublishError | None:
            nonlocal refusals
            if message.topic != out or not refusals:
                return None
            refusals -= 1
            return PublishError("not now")

        calls: list[int] = []
        router = EventRouter()

        @router.subscribe(topic, group=group, retry=_QUICK, dead_letter=letters, publish_to=out)
        async def handle(event: ContractEvent) -> ContractEvent:
            calls.append(event.number)
            return ContractEvent(number=100)

        await self._send(inner, topic, 1)
        await self._until(router, RefusingTransport(inner, refuse), lambda: len(calls) >= 2, "it is tried twice")
        subscription = await self.subscribe(inner, out, group_id=self.new_group())
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

    async def test_parked_keys_stay_parked_for_the_next_process(self) -> None:
        """With ``order="key"`` the followers of a failed message are kept behind it, in order."""
        transport = await self.open()
        requires(transport.capabilities, "ordering", "browse")
        topic, group, letters = await self._places(transport)
        seen: list[int] = []

        def make(broken: set[int]) -> EventRouter:
            router = EventRouter()
            kept = DeadLetters(letters, order="key")

            @router.subscribe(topic, group=group, retry=Retry(attempts=1), dead_letter=kept)
            async def handle(event: ContractEvent) -> None:
                if event.number in broken:
                    raise ValueError("bad")
                seen.append(event.number)

            return router

        await self._send(transport, topic, 3)
        await self._until(make({0}), transport, lambda: True, "it runs")
        async with make({0}).running(broker=transport):
            await self._letters(transport, letters, 3)
        async with EventProducer(transport=transport) as producer:
            await producer.send(topic, ContractEvent(number=3), key="key-0")
            await producer.send(topic, ContractEvent(number=4), key="other")
        await self._until(make(set()), transport, lambda: 4 in seen, "the other key is handled")
        async with make(set()).running(broker=transport):
            kept = await self._letters(transport, letters, 4)
        assert [ContractEvent.from_json(letter.message.value or b"").number for letter in kept] == [0, 1, 2, 3]
        assert seen == [4]
