"""What an `EventRouter` keeps on a broker where handlers fail: retries and dead letters."""

from __future__ import annotations

import pytest

from commons_events.dead_letters import DeadLetterQueue
from commons_events.errors import HandlerFailedError, PublishError
from commons_events.message import Message
from commons_events.producers import EventProducer
from commons_events.retries import Retry
from commons_events.router import DeadLetters, EventRouter
from commons_events.testing.contracts._contract import requires
from commons_events.testing.contracts._events import ContractEvent
from commons_events.testing.contracts._router_case import QUICK, RouterCase
from commons_events.testing.contracts._standing_in import RefusingTransport
from commons_events.transport import Delivery

__all__ = ["FailureTests"]


class FailureTests(RouterCase, contract=True):
    """Retries and dead letters."""

    async def test_what_fails_for_good_is_kept_and_the_rest_goes_on(self) -> None:
        """With its bytes, reason, error and attempts; undecodable bytes too."""
        transport = await self.open()
        topic, group, letters = await self._places(transport)
        seen: list[int] = []
        router = EventRouter()

        @router.subscribe(topic, group=group, retry=QUICK, dead_letter=letters)
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

    async def test_redriven_letters_of_a_key_are_handled_in_their_order(self) -> None:
        """Once the fault is mended, the parked key goes on as if nothing had been, and no letter is left."""
        transport = await self.open()
        requires(transport.capabilities, "ordering", "browse")
        topic, group, letters = await self._places(transport)
        seen: list[int] = []
        broken = True
        router = EventRouter()
        kept = DeadLetters(letters, order="key", check_every=0.05)

        @router.subscribe(topic, group=group, retry=Retry(attempts=1), dead_letter=kept)
        async def handle(event: ContractEvent) -> None:
            if broken and event.number == 1:
                raise ValueError("bad")
            seen.append(event.number)

        queue = DeadLetterQueue(transport, letters)

        async def standing() -> list[int]:
            values = [letter.message.value async for letter in queue.letters()]
            return [ContractEvent.from_json(value or b"").number for value in values]

        await self._send(transport, topic, 4)
        async with router.running(broker=transport, grace=self.timeout):
            await self._letters(transport, letters, 3)
            broken = False

            async def redriven() -> bool:
                await queue.redrive()
                return not await standing()

            await self.eventually(redriven, "no letter stands")
        assert list(dict.fromkeys(seen)) == [0, 1, 2, 3]
        assert await self._left_over(transport, topic, group) == []

    async def test_redriven_letters_are_handled(self) -> None:
        """A letter that was redriven goes to its topic, with its bytes and key, and stands no more."""
        transport = await self.open()
        topic, group, letters = await self._places(transport)
        queue = DeadLetterQueue(transport, letters)
        if not queue.browses:  # it takes letters by a group, which has to be there before them on some brokers
            await (await self.subscribe(transport, letters, group_id=queue.group)).close()
        seen: list[tuple[int, bytes | None]] = []
        tries = 0
        router = EventRouter()

        @router.subscribe(topic, group=group, retry=Retry(attempts=1), dead_letter=letters)
        async def handle(event: ContractEvent, message: Delivery) -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise ValueError("bad")
            seen.append((event.number, message.key))

        await self._send(transport, topic, 1, start=7)
        async with router.running(broker=transport, grace=self.timeout):
            await self._letters(transport, letters, 1)
            report = await queue.redrive()
            await self.eventually(lambda: seen, "it is handled")
        assert (report.done, seen) == (1, [(7, b"key-0")])
        assert [letter async for letter in queue.letters()] == []

    async def test_a_retry_topic_keeps_the_count_for_the_next_process(self) -> None:
        """Later messages go on, and a router that begins anew goes on counting."""
        transport = await self.open()
        requires(transport.capabilities, "consumer_groups")
        topic, later, letters = [await self.make_topic(transport) for _ in range(3)]
        self._letter_group = await self.known_group(transport, letters)
        group = await self.known_group(transport, topic, later)
        calls: list[int] = []
        router = EventRouter()
        retry = Retry(by="topic", topic=later, attempts=3, delay=self.nack_delay, jitter=0)

        @router.subscribe(topic, group=group, retry=retry, dead_letter=letters)
        async def handle(event: ContractEvent) -> None:
            calls.append(event.number)
            if event.number == 0:
                raise ValueError("bad")

        await self._send(transport, topic, 3)
        await self._until(router, transport, lambda: {0, 1, 2} <= set(calls), "the others are handled meanwhile")
        await self._until(router, transport, lambda: calls.count(0) >= 3, "it is tried three times")
        [letter] = await self._letters(transport, letters, 1)
        assert (letter.attempts, letter.topic, letter.key) == (3, topic, b"key-0")
        assert sorted(calls) == [0, 0, 0, 1, 2]
        assert await self._left_over(transport, topic, group) == []

    async def test_redelivery_waits_in_the_broker_which_counts(self) -> None:
        """With ``Retry(by="redelivery")`` other keys go on, and the last attempt is the policy's."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery_delay", "attempts")
        topic, group, letters = await self._places(transport)
        calls: list[int] = []
        router = EventRouter()
        retry = Retry(by="redelivery", attempts=3, delay=self.nack_delay, jitter=0)

        @router.subscribe(topic, group=group, retry=retry, dead_letter=letters)
        async def handle(event: ContractEvent) -> None:
            calls.append(event.number)
            if event.number == 0:
                raise ValueError("bad")

        await self._send(transport, topic, 6, keys=3)
        async with router.running(broker=transport, grace=self.timeout):
            [letter] = await self._letters(transport, letters, 1)
            await self.eventually(lambda: set(calls) == set(range(6)), "the others are handled")
        assert (letter.attempts, letter.key) == (3, b"key-0")
        assert calls.count(0) == 3
        assert await self._left_over(transport, topic, group) == []
