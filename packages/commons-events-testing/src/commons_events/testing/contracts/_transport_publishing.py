"""Publishing: what is confirmed, in which order, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from commons_events.errors import InvalidTopicError, MessageTooLargeError, TransportError
from commons_events.message import Message, PublishResult, Receipt
from commons_events.testing.contracts._broker import BrokerContract, by_key, confirmed, numbered, values
from commons_events.testing.contracts._contract import requires
from commons_events.transport import Transport

__all__ = ["PublishingTests"]


class PublishingTests(BrokerContract, contract=True):
    """`Transport.publish` and its results."""

    async def test_publishes_and_receives_all(self) -> None:
        """What is published in one call is received completely, with value, key and headers as they were."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        sent = [
            Message(topic, b"%d" % number, key=b"key-%d" % number, headers=(("number", b"n%d" % number),))
            for number in range(self.scale.messages)
        ]
        await self.publish(transport, sent)
        received = await self.read(subscription, len(sent))
        assert {(d.topic, d.value, d.key, d.headers) for d in received} == {
            (m.topic, m.value, m.key, m.headers) for m in sent
        }
        await self.assert_quiet(subscription)

    async def test_publishing_nothing_is_harmless(self) -> None:
        """An empty list has an empty list of results."""
        transport = await self.open()
        assert list(await transport.publish([])) == []

    async def test_results_stand_in_the_order_of_the_messages(self) -> None:
        """The n-th result is the n-th message's: a receipt names the place where that message lies."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        sent = numbered(topic, self.scale.messages, keys=7)
        receipts = await self.publish(transport, sent)
        assert len(receipts) == len(sent)
        assert {receipt.topic for receipt in receipts} == {topic}
        received = await self.read(subscription, len(sent))
        if receipts[0].offset is None:
            return
        places = {(d.partition, d.offset): d.value for d in received}
        assert [places.get((r.partition, r.offset)) for r in receipts] == values(sent)

    async def test_each_receipt_names_a_place_of_its_own(self) -> None:
        """No two messages have the same message id, nor the same partition and offset."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        receipts = await self.publish(transport, numbered(topic, self.scale.messages, keys=5))
        receipts += await self.publish(transport, numbered(topic, self.scale.messages))
        if receipts[0].id is not None or receipts[0].offset is not None:
            assert len({receipt.message_id for receipt in receipts}) == len(receipts)
        if receipts[0].offset is not None:
            assert len({(receipt.partition, receipt.offset) for receipt in receipts}) == len(receipts)

    async def test_publish_hands_over_when_called(self) -> None:
        """Calls that nobody has awaited yet keep their order within a key."""
        transport = await self.open()
        requires(transport.capabilities, "ordering")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        sent = numbered(topic, self.scale.messages, keys=4)
        futures = [transport.publish([message]) for message in sent]
        for future in reversed(futures):
            confirmed(await future)
        assert by_key(await self.read(subscription, len(sent))) == by_key(sent)

    async def test_flush_waits_for_every_message(self) -> None:
        """After ``flush`` every message that was handed over is confirmed or failed."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        futures = [transport.publish([message]) for message in numbered(topic, self.scale.messages)]
        async with asyncio.timeout(self.timeout):
            await transport.flush()
        assert all(future.done() for future in futures), "flush returned before every publish was done"
        for future in futures:
            confirmed(future.result())

    async def test_flush_without_messages_returns(self) -> None:
        """There is nothing to wait for where nothing was published."""
        transport = await self.open()
        async with asyncio.timeout(self.timeout):
            await transport.flush()

    async def test_too_large_fails_alone(self) -> None:
        """A message above ``max_message_bytes`` is an error result; its neighbours are confirmed."""
        transport = await self.open()
        requires(transport.capabilities, "max_message_bytes")
        limit = transport.capabilities.max_message_bytes or 0
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        results = await transport.publish(
            [Message(topic, b"before"), Message(topic, b"x" * (limit + 1)), Message(topic, b"after")]
        )
        assert isinstance(results[1], MessageTooLargeError), results[1]
        assert str(limit) in str(results[1]).replace(",", "").replace("_", ""), "the message leaves out the limit"
        confirmed([results[0], results[2]])
        await self.read_all(subscription, [b"before", b"after"])

    async def test_key_and_headers_count_for_the_size(self) -> None:
        """``max_message_bytes`` is about value, key and headers together, and a message of just that size passes."""
        transport = await self.open()
        requires(transport.capabilities, "max_message_bytes")
        limit = transport.capabilities.max_message_bytes or 0
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        frame = Message(topic, b"", key=b"k" * 10, headers=(("name", b"v" * 10),))
        fits = frame._replace(value=b"x" * (limit - frame.size))
        too_large = frame._replace(value=b"x" * (limit - frame.size + 1))
        results = await transport.publish([fits, too_large])
        confirmed(results[:1])
        assert isinstance(results[1], MessageTooLargeError), results[1]
        [delivery] = await self.read(subscription, 1)
        assert delivery.message.size == limit

    async def test_refuses_names_that_no_broker_takes(self) -> None:
        """A name that is empty, too long or has white space is an `InvalidTopicError`, wherever it is used."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        transport.check_topic(topic)
        for name in ("", "with space", "line\nbreak", "nul\0", "x" * 250):
            with pytest.raises(InvalidTopicError):
                transport.check_topic(name)
            with pytest.raises(InvalidTopicError):
                await self.subscribe(transport, name, group_id=self.new_group())
            refused, taken = await transport.publish([Message(name, b"refused"), Message(topic, b"taken")])
            assert isinstance(refused, InvalidTopicError), f"publishing to {name[:20]!r} gave {refused!r}"
            assert isinstance(taken, Receipt), taken

    async def test_a_named_partition_is_kept(self) -> None:
        """``partition`` decides where it is given, else the key; a partition that does not exist is an error."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        [first, second] = await self.publish(
            transport, [Message(topic, b"1", key=b"a"), Message(topic, b"2", key=b"a")]
        )
        if first.partition is None:
            return
        assert first.partition == second.partition, "messages of one key went to different partitions"
        asked = [Message(topic, b"%d" % number, key=b"key-%d" % number, partition=0) for number in range(10)]
        assert {receipt.partition for receipt in await self.publish(transport, asked)} == {0}
        [result] = await transport.publish([Message(topic, b"nowhere", partition=1_000_000)])
        assert isinstance(result, TransportError), result

    async def test_a_cancelled_publish_harms_no_other(self) -> None:
        """Cancelling the future gives up waiting; what is published before and after it arrives."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        before = transport.publish([Message(topic, b"before")])
        cancelled = transport.publish([Message(topic, b"cancelled")])
        after = transport.publish([Message(topic, b"after")])
        cancelled.cancel()
        confirmed(await before)
        confirmed(await after)
        missing = {b"before", b"after"}
        while missing:
            batch = await self.receive(subscription)
            assert set(values([d.message for d in batch])) <= {b"before", b"cancelled", b"after"}
            missing -= {delivery.value for delivery in batch}

    async def test_concurrent_publishers_and_subscribers(self) -> None:
        """Many publishers and a group of many subscribers side by side lose nothing."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = await self.known_group(transport, topic)
        per_publisher = self.scale.concurrent // self.scale.publishers
        sent = [
            numbered(topic, per_publisher, start=publisher * per_publisher, keys=64)
            for publisher in range(self.scale.publishers)
        ]
        missing = {value for messages in sent for value in values(messages)}

        async def publish(messages: list[Message]) -> None:
            for start in range(0, len(messages), 10):
                await self.publish(transport, messages[start : start + 10])

        async def consume() -> None:
            subscription = await self.subscribe(transport, topic, group_id=group)
            while batch := await subscription.receive(100):
                missing.difference_update(delivery.value for delivery in batch)
                for delivery in batch:
                    await delivery.ack()

        consumers = [asyncio.create_task(consume()) for _ in range(self.scale.subscribers)]
        try:
            await asyncio.gather(*map(publish, sent))
            await self.eventually(
                lambda: not missing or any(task.done() for task in consumers), "receiving every message"
            )
        finally:
            for task in consumers:
                task.cancel()
            outcomes = await asyncio.gather(*consumers, return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, asyncio.CancelledError), f"a subscriber ended early: {outcome!r}"
        assert not missing

    async def test_concurrent_publishers_keep_the_order_of_their_keys(self) -> None:
        """Publishers that share a topic, each with a key of its own, do not disturb each other's order."""
        transport = await self.open()
        requires(transport.capabilities, "ordering")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        count = self.scale.ordered // self.scale.keys

        async def publish(publisher: int) -> list[Message]:
            own = await self.open()
            messages = [Message(topic, b"%d" % number, key=b"publisher-%d" % publisher) for number in range(count)]
            for message in messages:
                await self.publish(own, [message])
            return messages

        sent = await asyncio.gather(*map(publish, range(self.scale.keys)))
        received = await self.read(subscription, count * self.scale.keys)
        assert by_key(received) == by_key(message for messages in sent for message in messages)

    async def test_keys_keep_their_order(self) -> None:
        """One consumer receives the messages of each key in the order in which they were confirmed."""
        transport = await self.open()
        requires(transport.capabilities, "ordering")
        topic = await self.make_topic(transport)
        sent = numbered(topic, self.scale.ordered, keys=self.scale.keys)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, sent)
        received = await self.read(subscription, len(sent), limit=37)
        assert by_key(received) == by_key(sent)

    async def test_a_full_topic_makes_publishing_wait(self) -> None:
        """Where a topic is full the future waits; consuming lets it go on, and nothing is lost or swapped."""
        transport = self.closing(await self.make_small_transport())
        requires(transport.capabilities, "back_pressure")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        sent, waiting = await self._fill(transport, topic)
        assert waiting, f"{len(sent)} messages of 1000 bytes were taken though nobody consumed any"
        received = await self.read(subscription, len(sent), limit=10)
        confirmed([result for future in waiting for result in await future])
        assert values(d.message for d in received) == values(sent)
        await self.publish(transport, [Message(topic, b"goes on", key=b"key")])
        await self.read_all(subscription, [b"goes on"])

    async def test_a_waiting_publish_can_be_cancelled(self) -> None:
        """Giving up one that waits for room leaves the topic usable, and those that wait behind it go on."""
        transport = self.closing(await self.make_small_transport())
        requires(transport.capabilities, "back_pressure")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        sent, waiting = await self._fill(transport, topic)
        assert waiting, f"{len(sent)} messages of 1000 bytes were taken though nobody consumed any"
        waiting[0].cancel()
        last = Message(topic, b"last", key=b"key")
        behind = transport.publish([last])
        while b"last" not in values(d.message for d in await self.read(subscription, 1)):
            pass
        confirmed(await behind)

    async def _fill(
        self, transport: Transport, topic: str
    ) -> tuple[list[Message], list[asyncio.Future[Sequence[PublishResult]]]]:
        """Publish more than there is room for; what was handed over, and the futures that still wait."""
        sent = [Message(topic, b"%04d" % number * 250, key=b"key") for number in range(self.room + 20)]
        futures = [transport.publish([message]) for message in sent]
        done = -1
        while done != (done := sum(future.done() for future in futures)):
            await asyncio.wait(futures, timeout=self.quiet)
        return sent, [future for future in futures if not future.done()]
