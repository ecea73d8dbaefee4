"""Receiving: batches, bounds and cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from commons_events.message import Message
from commons_events.testing.contracts._broker import BrokerContract, by_key, numbered, settle, values
from commons_events.testing.contracts._contract import requires
from commons_events.transport import Delivery, Outcome

__all__ = ["ReceivingTests"]


class ReceivingTests(BrokerContract, contract=True):
    """`Subscription.receive`."""

    async def test_receive_returns_at_most_the_limit(self) -> None:
        """From 1 to ``limit`` deliveries, whatever lies ready."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, numbered(topic, 20, keys=5))
        seen: list[bytes] = []
        for limit in (1, 2, 3, 7, 7):
            batch = await self.receive(subscription, limit)  # which checks the limit itself
            await settle(subscription, batch, Outcome.ACK)
            seen += values(d.message for d in batch)
        await self.read(subscription, 20 - len(seen))

    async def test_receive_waits_for_messages(self) -> None:
        """It neither returns an empty list nor gives up while nothing is there, and wakes for the next message."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        waiting = asyncio.create_task(self.receive(subscription))
        done, _ = await asyncio.wait([waiting], timeout=self.quiet)
        assert not done, f"receive returned with nothing to receive: {waiting.result()}"
        await self.publish(transport, [Message(topic, b"now")])
        assert values(d.message for d in await waiting) == [b"now"]

    async def test_receive_lets_other_tasks_run(self) -> None:
        """A loop of receives never starves the event loop, though messages lie ready."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, numbered(topic, 50))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(count())
        try:
            for received in range(50):
                await self.receive(subscription, 1)
                assert turns > received, f"after {received + 1} calls of receive another task ran {turns} times"
        finally:
            other.cancel()

    async def test_receive_waits_at_max_unsettled(self) -> None:
        """No more than ``max_unsettled`` deliveries are out; each settled one makes room for another."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group(), max_unsettled=10)
        await self.publish(transport, numbered(topic, 30))
        out = await self.read(subscription, 10, ack=False)
        await self.assert_quiet(subscription)
        await out[0].ack()
        out += await self.read(subscription, 1, ack=False)
        await self.assert_quiet(subscription)
        waiting = asyncio.create_task(self.receive(subscription))
        await asyncio.sleep(0)
        for delivery in out[1:6]:
            await delivery.ack()
        assert len(await waiting) <= 5
        for delivery in out[6:]:
            await delivery.ack()
        await subscription.flush()

    async def test_max_unsettled_spans_batches(self) -> None:
        """A limit larger than the room that is left is cut down to it."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group(), max_unsettled=3)
        sent = numbered(topic, 20)
        await self.publish(transport, sent)
        seen: list[bytes] = []
        while len(seen) < len(sent):
            batch = await self.receive(subscription, 1000)
            assert len(batch) <= 3
            seen += values(d.message for d in batch)
            await settle(subscription, batch, Outcome.ACK)
        assert sorted(seen) == sorted(values(sent))

    async def test_cancelling_a_waiting_receive_loses_nothing(self) -> None:
        """A receive that was cancelled while it waited leaves no trace: the next one gets everything."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group(), max_unsettled=1)
        for number in range(5):
            waiting = asyncio.create_task(subscription.receive(10))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
            await self.publish(transport, [Message(topic, b"%d" % number)])
            [delivery] = await self.read(subscription, 1)
            assert delivery.value == b"%d" % number

    async def test_cancelling_receive_at_any_moment_loses_nothing(self) -> None:
        """Whenever the cancel comes, what was not returned is not out: it comes next, in its order, as attempt 1."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group(), max_unsettled=4)
        sent: list[Message] = []
        received: list[Delivery] = []

        async def take(batch: Sequence[Delivery]) -> None:
            received.extend(batch)
            await settle(subscription, batch, Outcome.ACK)

        for moment in range(60):
            waiting = asyncio.create_task(subscription.receive(2))
            if moment % 2:
                await asyncio.sleep(0)
            messages = numbered(topic, 2, start=len(sent), keys=1)
            sent += messages
            published = transport.publish(messages)
            for _ in range(moment % 8):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                await take(waiting.result())
            await published
        while len(received) < len(sent):
            await take(await self.receive(subscription, 2))
        assert all(delivery.attempt == 1 for delivery in received), "a cancelled receive was counted as an attempt"
        assert sorted(values(d.message for d in received)) == sorted(values(sent))
        if transport.capabilities.ordering == "key":
            assert by_key(received) == by_key(sent)

    async def test_a_cancelled_subscriber_loses_nothing(self) -> None:
        """A consumer that is cancelled and closed right after it subscribed leaves all messages to the next one."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = await self.known_group(transport, topic)
        sent = numbered(topic, 20)
        await self.publish(transport, sent)
        first = await self.subscribe(transport, topic, group_id=group)
        reading = asyncio.create_task(first.receive(5))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        await first.close()
        second = await self.subscribe(transport, topic, group_id=group)
        await self.read_all(second, values(sent))

    async def test_a_stalled_handler_loses_nothing(self) -> None:
        """A delivery that nobody settles holds back no other key, stays out, and comes again after close."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        sent = numbered(topic, 50, keys=50)
        await self.publish(transport, sent)
        [stalled] = await self.read(subscription, 1, ack=False)
        await self.read(subscription, 49)
        await self.assert_quiet(subscription)
        await subscription.close()
        another = await self.subscribe(transport, topic, group_id=group)
        while stalled.value not in values(d.message for d in await self.receive(another)):
            pass

    async def test_order_of_handling_is_the_order_of_the_list(self) -> None:
        """Within a batch the messages of a key stand in their order, over all batches."""
        transport = await self.open()
        requires(transport.capabilities, "ordering")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group(), max_unsettled=20)
        sent = numbered(topic, 200, keys=3)
        await self.publish(transport, sent)
        received: list[Delivery] = []
        while len(received) < len(sent):
            batch = await self.receive(subscription, 13)
            received += batch
            # Settled in the opposite order: finishing has no say in the order of what comes next.
            await settle(subscription, reversed(batch), Outcome.ACK)
        assert by_key(received) == by_key(sent)
