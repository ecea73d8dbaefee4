"""Consuming: what is finished, what comes again, and how a consumer ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from commons_events.consumers import EventConsumer
from commons_events.errors import (
    ClosedError,
    WrongEventLoopError,
)
from commons_events.producers import EventProducer
from commons_events.runtime import current_runtime
from commons_events.testing.contracts._broker import BrokerContract
from commons_events.testing.contracts._contract import requires
from commons_events.testing.contracts._events import ContractEvent, mark_end
from commons_events.testing.contracts._standing_in import LingeringTransport, RefusingTransport
from commons_events.transport import Delivery, Outcome, Transport

__all__ = ["ConsumingTests", "numbers_of"]


class ConsumingTests(BrokerContract, contract=True):
    """`EventConsumer` while its messages can be handled."""

    def make_consumer(self, transport: Transport, *topics: str, **settings: Any) -> EventConsumer:
        """A consumer of ``topics`` on ``transport``; closed by the test."""
        return EventConsumer(transport=transport, topics=topics, **settings)

    async def _sent(self, transport: Transport, count: int, *, keys: int = 1) -> tuple[str, str]:
        """A topic with ``count`` events in it, and a group that has all of them before it."""
        topic = await self.make_topic(transport)
        group = await self.known_group(transport, topic)
        async with EventProducer(transport=transport) as producer:
            await producer.send_batch(
                topic, [ContractEvent(number=number) for number in range(count)], key=lambda e: _key(e, keys)
            )
        return topic, group

    async def _take(self, consumer: EventConsumer, count: int) -> list[Delivery]:
        taken: list[Delivery] = []
        while len(taken) < count:
            batch = await consumer.receive(count - len(taken), timeout=self.timeout)
            assert batch, f"{len(taken)} of {count} messages came within {self.timeout:g} s"
            taken += batch
        return taken

    async def _left_over(self, transport: Transport, topic: str, group: str) -> list[int]:
        """The numbers of the events that the group has not finished, which finishes them."""
        left, marks = list[int](), await mark_end(transport, topic)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            # The marks may take as long as joining does; what nobody has finished lies before them.
            while batch := await consumer.receive(1000, timeout=self.quiet if marks <= set(left) else self.timeout):
                left += numbers_of(batch)
                await consumer.commit()
        assert marks <= set(left), f"what was sent last did not come within {self.timeout:g} s"
        return sorted(number for number in left if number not in marks)

    async def test_nothing_is_finished_by_itself(self) -> None:
        """Messages that were handed out and not settled come again, all of them."""
        transport = await self.open()
        topic, group = await self._sent(transport, 20)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            assert numbers_of(await self._take(consumer, 20)) == list(range(20))
        assert await self._left_over(transport, topic, group) == list(range(20))

    async def test_commit_finishes_one_message(self) -> None:
        """``commit(message)`` is its ``ack``: it alone is finished, and none before it."""
        transport = await self.open()
        topic, group = await self._sent(transport, 5)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            taken = await self._take(consumer, 5)
            for delivery in (taken[0], taken[1]):
                await consumer.commit(delivery)
            await consumer.commit(taken[0])
        assert await self._left_over(transport, topic, group) == [2, 3, 4]

    async def test_commit_finishes_all_so_far(self) -> None:
        """``commit()`` is about everything that was handed out, and nothing that comes later or was only fetched."""
        transport = await self.open()
        topic, group = await self._sent(transport, 10)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            await self._take(consumer, 4)
            await consumer.commit()
            await self._take(consumer, 2)
        assert await self._left_over(transport, topic, group) == [4, 5, 6, 7, 8, 9]

    async def test_commit_finishes_what_was_handed_out_in_any_way(self) -> None:
        """One after the other, several at once, acknowledged or not: and again nothing that was only fetched."""
        transport = await self.open()
        topic, group = await self._sent(transport, 12)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            found = [await anext(consumer), await anext(consumer)]
            found += await self._take(consumer, 3)
            found.append(await anext(consumer))
            await found[1].ack()
            await found[3].ack()
            await consumer.commit()
            assert numbers_of(found) == list(range(6))
            assert all(delivery.outcome is Outcome.ACK for delivery in found)
            found += await self._take(consumer, 2)
            await found[7].ack()
            await anext(consumer)
        # A log keeps one position: what was finished behind an unfinished message comes again with it.
        finished = {7} if transport.capabilities.settles_each else set[int]()
        assert await self._left_over(transport, topic, group) == sorted({*range(6, 12)} - finished)

    async def test_what_was_received_can_be_looked_at_again(self) -> None:
        """By its place, in part, from its end; and what is said of a message is seen wherever it is looked at."""
        transport = await self.open()
        topic, group = await self._sent(transport, 5)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            received: list[Sequence[Delivery]] = []
            while sum(map(len, received)) < 5:
                received.append(await consumer.receive(5, timeout=self.timeout))
            numbers = [number for batch in received for number in numbers_of(batch)]
            assert numbers == list(range(5))
            batch = received[0]
            first = batch[0]
            assert numbers_of(batch) == numbers[: len(batch)]
            assert numbers_of(batch[1:]) == numbers[1 : len(batch)]
            assert numbers_of([batch[-1], first]) == [len(batch) - 1, 0]
            assert first in batch
            assert batch[0] == first
            await batch[0].ack()
            assert first.outcome is batch[0].outcome is Outcome.ACK
        assert await self._left_over(transport, topic, group) == [1, 2, 3, 4]

    async def test_commit_all_keeps_what_was_nacked(self) -> None:
        """``commit()`` does not finish a message that somebody said no to."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery")
        topic, group = await self._sent(transport, 3)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            taken = await self._take(consumer, 3)
            await taken[1].nack(0)
            await consumer.commit()
            assert numbers_of(await self._take(consumer, 1)) == [1]
            await consumer.commit()
        assert await self._left_over(transport, topic, group) == []

    async def test_commit_can_wait(self) -> None:
        """With ``wait=True`` the broker has it when it returns: that the consumer is lost then changes nothing."""
        inner = await self.open()
        requires(inner.capabilities, "redelivery")
        topic, group = await self._sent(inner, 5)
        transport = RefusingTransport(inner)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            taken = await self._take(consumer, 5)
            await consumer.commit(taken[0], wait=True)
            await taken[1].nack(self.nack_delay)
            await consumer.commit(wait=True)
            await consumer.commit(wait=True)
            await self.lose(transport.subscriptions[0])
            async with self.make_consumer(inner, topic, group_id=group) as another:
                # A log keeps one position: what was finished behind the nacked one comes again with it.
                again = [1] if inner.capabilities.settles_each else [1, 2, 3, 4]
                assert numbers_of(await self._take(another, len(again))) == again
                assert await another.receive(5, timeout=self.quiet) == []

    async def test_commit_of_another_consumers_message(self) -> None:
        """It is refused, as is what is no message, and the message stays unsettled."""
        transport = await self.open()
        topic, group = await self._sent(transport, 1)
        async with (
            self.make_consumer(transport, topic, group_id=group) as owner,
            self.make_consumer(transport, topic, group_id=self.new_group()) as stranger,
        ):
            [delivery] = await self._take(owner, 1)
            with pytest.raises(ValueError, match="another consumer"):
                await stranger.commit(delivery)
            for wrong in ("message", 5, delivery.message):
                with pytest.raises(TypeError, match="message"):
                    await owner.commit(wrong)  # type: ignore[arg-type]
        assert await self._left_over(transport, topic, group) == [0]

    async def test_an_exception_gives_back_what_is_unsettled(self) -> None:
        """Leaving ``async with`` by an error keeps what was settled, and returns the rest."""
        transport = await self.open()
        topic, group = await self._sent(transport, 5)
        with pytest.raises(LookupError):  # noqa: PT012  # the block is what is tested
            async with self.make_consumer(transport, topic, group_id=group) as consumer:
                async for delivery in consumer:
                    if delivery.event(ContractEvent).number == 2:
                        raise LookupError("the handler failed")
                    await delivery.ack()
        assert await self._left_over(transport, topic, group) == [2, 3, 4]

    async def test_a_cancel_gives_back_what_is_unsettled(self) -> None:
        """A task that is cancelled in the middle of a message has not finished that message."""
        transport = await self.open()
        topic, group = await self._sent(transport, 5)
        working = asyncio.Event()

        async def consume() -> None:
            async with self.make_consumer(transport, topic, group_id=group) as consumer:
                async for delivery in consumer:
                    if delivery.event(ContractEvent).number == 2:
                        working.set()
                        await asyncio.Event().wait()
                    await delivery.ack()

        task = asyncio.create_task(consume())
        async with asyncio.timeout(self.timeout):
            await working.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert await self._left_over(transport, topic, group) == [2, 3, 4]

    async def test_iterating_can_be_taken_up_again(self) -> None:
        """``break`` loses nothing: the next ``async for`` goes on with the next message."""
        transport = await self.open()
        topic, group = await self._sent(transport, 9)
        numbers: list[int] = []
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            for _ in range(3):
                async for delivery in consumer:
                    numbers += numbers_of([delivery])
                    await delivery.ack()
                    if len(numbers) % 3 == 0:
                        break
        assert numbers == list(range(9))
        assert await self._left_over(transport, topic, group) == []

    async def test_cancelling_receive_loses_nothing(self) -> None:
        """Neither a timeout nor a cancel takes messages along."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = self.new_group()
        received: list[Delivery] = []
        async with (
            self.make_consumer(transport, topic, group_id=group) as consumer,
            EventProducer(transport=transport) as producer,
        ):
            for number in range(40):
                waiting = asyncio.create_task(consumer.receive(1, timeout=None if number % 2 else 0.0))
                for _ in range(number % 6):
                    await asyncio.sleep(0)
                sending = producer.send(topic, ContractEvent(number=number), key="key")
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
                if not waiting.cancelled():
                    received += waiting.result()
                await sending
            received += await self._take(consumer, 40 - len(received))
            await consumer.commit()
        assert sorted(numbers_of(received)) == list(range(40))

    async def test_receive_returns_what_is_there(self) -> None:
        """Up to the limit; an empty list once the time is over; a limit that is none is refused, and loses nothing."""
        transport = await self.open()
        topic, group = await self._sent(transport, 5)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            batch = await consumer.receive(3, timeout=self.timeout)
            assert 1 <= len(batch) <= 3
            wrong: list[Any] = [0, -1, 1.5, "1", None]
            for limit in wrong:  # some have come already, as a rule
                with pytest.raises((ValueError, TypeError), match="limit"):
                    await consumer.receive(limit, timeout=self.timeout)
            await self._take(consumer, 5 - len(batch))
            assert await consumer.receive(3, timeout=self.quiet) == []

    async def test_seek_drops_what_was_fetched(self) -> None:
        """What was fetched or handed out before it is forgotten: all comes again, once, and can be finished."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        topic, group = await self._sent(transport, 10)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            await self._take(consumer, 4)
            await consumer.seek("beginning")
            assert numbers_of(await self._take(consumer, 10)) == list(range(10))
            await consumer.commit()
            assert await consumer.receive(1, timeout=self.quiet) == []
        assert await self._left_over(transport, topic, group) == []

    async def test_seek_keeps_what_another_task_receives_behind_it(self) -> None:
        """An ``async for`` that waits meanwhile gets all from the place that was sought on."""
        inner = await self.open()
        requires(inner.capabilities, "seek")
        topic, group = await self._sent(inner, 10)
        transport = LingeringTransport(inner)
        numbers: list[int] = []
        may_go_on = asyncio.Event()
        may_go_on.set()

        async def iterate(consumer: EventConsumer) -> None:
            async for delivery in consumer:
                numbers.extend(numbers_of([delivery]))
                await consumer.commit(delivery)
                await may_go_on.wait()

        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            iterating = asyncio.create_task(iterate(consumer))
            await self.eventually(lambda: len(numbers) == 10, "receiving everything")
            may_go_on.clear()
            async with asyncio.timeout(self.timeout):
                await consumer.seek("beginning")
            may_go_on.set()
            await self.eventually(lambda: len(numbers) == 20, "receiving everything again")
        await iterating
        assert numbers == [*range(10), *range(10)]
        assert await self._left_over(inner, topic, group) == []

    async def test_close_ends_iteration(self) -> None:
        """An ``async for`` that waits ends when the consumer is closed, and so does a waiting receive."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        consumer = self.make_consumer(transport, topic, group_id=self.new_group())
        await consumer.start()

        async def iterate() -> int:
            return len([delivery async for delivery in consumer])

        iterating = asyncio.create_task(iterate())
        await asyncio.sleep(0)
        receiving = asyncio.create_task(consumer.receive(1))
        await asyncio.sleep(0)
        async with asyncio.timeout(self.timeout):
            await consumer.close()
            await consumer.close()
            assert await iterating == 0
            assert await receiving == []

    async def test_a_closed_consumer_refuses(self) -> None:
        """Committing and starting raise `ClosedError`; another event loop is a `WrongEventLoopError`."""
        transport = await self.open()
        topic, group = await self._sent(transport, 1)
        consumer = self.make_consumer(transport, topic, group_id=group)
        await consumer.start()

        async def elsewhere() -> None:
            await consumer.receive(1, timeout=0.1)

        with pytest.raises(WrongEventLoopError):
            await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
        [delivery] = await self._take(consumer, 1)
        await consumer.close()
        with pytest.raises(ClosedError):
            await consumer.commit()
        with pytest.raises(ClosedError):
            await consumer.commit(delivery)
        with pytest.raises(ClosedError):
            await consumer.start()

    async def test_a_nack_backs_off(self) -> None:
        """Without a delay the waits grow with the attempts; it is no hot loop."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery", "redelivery_delay", "attempts")
        topic, group = await self._sent(transport, 1)
        runtime = current_runtime()
        base = self.nack_delay / 3
        async with self.make_consumer(transport, topic, group_id=group, retry_delay=base) as consumer:
            [delivery] = await self._take(consumer, 1)
            for attempt in (1, 2, 3):
                assert delivery.attempt == attempt
                started = runtime.monotonic()
                await delivery.nack()
                [delivery] = await self._take(consumer, 1)
                waited = runtime.monotonic() - started
                # Jitter may take up to half of the delay away.
                least = base * 2 ** (attempt - 1) / 2
                assert waited >= least - self.clock_tolerance, f"attempt {attempt + 1} came after {waited:.3f} s"

    async def test_what_was_fetched_does_not_overtake_a_nacked_message(self) -> None:
        """A message that is given back comes before what follows it under its key, also what was fetched with it."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery", "ordering")
        topic, group = await self._sent(transport, 20, keys=2)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            taken = await self._take(consumer, 4)
            first = next(delivery for delivery in taken if delivery.event(ContractEvent).number % 2 == 0)
            of_its_key = [delivery for delivery in taken if delivery.key == first.key]
            for delivery in taken:
                if delivery.key == first.key:
                    await delivery.nack(delay=self.nack_delay)
                else:
                    await delivery.ack()
            rest = await self._take(consumer, 20 - len(taken) + len(of_its_key))
            for delivery in rest:
                await delivery.ack()
        for key in {delivery.key for delivery in rest}:
            numbers = numbers_of([delivery for delivery in rest if delivery.key == key])
            assert numbers == sorted(numbers), f"key {key!r} came as {numbers}"

    async def test_two_consumers_share_a_group(self) -> None:
        """Every event is handled by one of them, and each key in its order."""
        transport = await self.open()
        requires(transport.capabilities, "consumer_groups")
        topic = await self.make_topic(transport)
        group = self.new_group()
        count = self.scale.ordered
        handled: list[Delivery] = []
        consumers = [self.make_consumer(transport, topic, group_id=group, batch_size=10) for _ in range(2)]

        async def handle(consumer: EventConsumer) -> None:
            async for delivery in consumer:
                handled.append(delivery)
                await delivery.ack()

        for consumer in consumers:
            await consumer.start()
        tasks = [asyncio.create_task(handle(consumer)) for consumer in consumers]
        async with EventProducer(transport=transport) as producer:
            events = [ContractEvent(number=number) for number in range(count)]
            await producer.send_batch(topic, events, key=lambda e: _key(e, self.scale.keys))
        await self.eventually(lambda: len(handled) >= count, "handling every event")
        for consumer in consumers:
            await consumer.close()
        await asyncio.gather(*tasks)
        assert sorted(numbers_of(handled)) == list(range(count))
        if transport.capabilities.ordering == "key":
            for key in {delivery.key for delivery in handled}:
                numbers = numbers_of([delivery for delivery in handled if delivery.key == key])
                assert numbers == sorted(numbers)

    async def test_max_unsettled_bounds_what_is_out(self) -> None:
        """No more are handed out until some are settled."""
        transport = await self.open()
        topic, group = await self._sent(transport, 20, keys=20)
        async with self.make_consumer(transport, topic, group_id=group, max_unsettled=5) as consumer:
            taken = await self._take(consumer, 5)
            assert await consumer.receive(5, timeout=self.quiet) == []
            await taken[0].ack()
            taken += await self._take(consumer, 1)
            await consumer.commit()
            await self._take(consumer, 5)


def numbers_of(deliveries: Sequence[Delivery]) -> list[int]:
    return [delivery.event(ContractEvent).number for delivery in deliveries]


def _key(event: Any, keys: int) -> str:
    return f"key-{event.number % keys}"
