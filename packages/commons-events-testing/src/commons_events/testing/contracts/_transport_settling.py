"""Settling: ack, nack, release, their delays and counts, and what is passed over."""

from __future__ import annotations

import pytest

from commons_events.errors import ConfigurationError
from commons_events.message import Message
from commons_events.runtime import current_runtime
from commons_events.testing.contracts._broker import BrokerContract, numbered, settle, values
from commons_events.testing.contracts._contract import requires
from commons_events.transport import Outcome, Settlement

__all__ = ["SettlingTests"]


class SettlingTests(BrokerContract, contract=True):
    """`Subscription.settle` and what `Delivery` makes of it."""

    async def test_an_acknowledged_message_never_comes_again(self) -> None:
        """Not in this subscription, nor in the next one of the group."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        await self.publish(transport, numbered(topic, self.scale.messages, keys=10))
        for delivery in await self.read(subscription, self.scale.messages, ack=False):
            await delivery.ack()
        await self.assert_quiet(subscription)
        await subscription.close()
        await self.assert_quiet(await self.subscribe(transport, topic, group_id=group))

    async def test_flush_tells_the_broker(self) -> None:
        """After ``flush`` an acknowledged message does not come again, even where the consumer is lost."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery")
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        await self.publish(transport, numbered(topic, 10))
        await self.read(subscription, 10)
        await subscription.flush()
        await self.lose(subscription)
        await self.publish(transport, [Message(topic, b"new")])
        another = await self.subscribe(transport, topic, group_id=group)
        assert values(d.message for d in await self.read(another, 1)) == [b"new"]
        await self.assert_quiet(another)

    async def test_settling_twice_is_harmless(self) -> None:
        """Of two outcomes the first one wins, whether it is said through the delivery or in a list."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, numbered(topic, 4, keys=4))
        by_value = {delivery.value: delivery for delivery in await self.read(subscription, 4, ack=False)}
        acked, nacked, listed, both = (by_value[b"%d" % number] for number in range(4))
        await acked.ack()
        await acked.nack(0)
        await nacked.nack(0)
        await nacked.ack()
        await settle(subscription, [listed, listed], Outcome.ACK)
        await settle(subscription, [listed], Outcome.NACK)
        await subscription.settle([Settlement(both, Outcome.NACK), Settlement(both, Outcome.ACK)])
        await self.read_all(subscription, [nacked.value, both.value])
        await self.assert_quiet(subscription)

    async def test_a_nacked_message_comes_again(self) -> None:
        """Saying no to the first two loses nothing: in the end every message was acknowledged."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        sent = numbered(topic, self.scale.messages, keys=10)
        await self.publish(transport, sent)
        for delivery in await self.read(subscription, 2, limit=1, ack=False):
            await delivery.nack(0)
        await self.read_all(subscription, values(sent))
        await self.assert_quiet(subscription)

    async def test_the_redelivered_message_is_the_same(self) -> None:
        """Value, key, headers, partition and offset do not change from one attempt to the next."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, [Message(topic, b"value", key=b"key", headers=(("name", b"text"),))])
        [first] = await self.read(subscription, 1, ack=False)
        await first.nack(0)
        [second] = await self.read(subscription, 1)
        assert second.message == first.message
        assert (second.partition, second.offset) == (first.partition, first.offset)
        assert second.outcome is None, "the second delivery is settled before anybody said so"

    async def test_the_delay_of_a_nack_is_kept(self) -> None:
        """The message does not come sooner than asked, and it does come."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery", "redelivery_delay")
        runtime = current_runtime()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, [Message(topic, b"again", key=b"key")])
        for factor in (1.0, 2.0):
            [delivery] = await self.read(subscription, 1, ack=False)
            started = runtime.monotonic()
            await delivery.nack(self.nack_delay * factor)
            again = await self.receive(subscription)
            waited = runtime.monotonic() - started
            assert waited >= self.nack_delay * factor - self.clock_tolerance, f"it came after {waited:.3f} s"
            await settle(subscription, again, Outcome.NACK)

    async def test_each_nack_has_its_own_delay(self) -> None:
        """A short delay said last is not held up by a long one said before, where the keys differ."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery", "redelivery_delay")
        runtime = current_runtime()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, [Message(topic, b"%d" % number, key=b"key-%d" % number) for number in range(3)])
        delays: dict[bytes, float] = {}
        started = runtime.monotonic()
        for number, delivery in enumerate(await self.read(subscription, 3, ack=False)):
            delays[delivery.value] = self.nack_delay * (3 - number) / 3
            await delivery.nack(delays[delivery.value])
        for _ in range(3):
            [delivery] = await self.read(subscription, 1, limit=1)
            waited = runtime.monotonic() - started
            asked = delays.pop(delivery.value)
            assert waited >= asked - self.clock_tolerance, f"asked for {asked:.3f} s, came after {waited:.3f} s"

    async def test_a_delayed_message_survives_its_consumer(self) -> None:
        """A nacked message whose delay is not over when its consumer closes still comes again in the group."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery")
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        await self.publish(transport, [Message(topic, b"again")])
        [delivery] = await self.read(subscription, 1, ack=False)
        await delivery.nack(self.nack_delay)
        await subscription.close()
        await self.read_all(await self.subscribe(transport, topic, group_id=group), [b"again"])

    async def test_attempts_are_counted(self) -> None:
        """1 for the first delivery, one more after each nack, for each message by itself and each group by itself."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery", "attempts")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        other_group = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, [Message(topic, b"bad", key=b"a"), Message(topic, b"good", key=b"b")])
        attempts: list[int] = []
        while len(attempts) < 4:
            for delivery in await self.receive(subscription):
                if delivery.value == b"good":
                    assert delivery.attempt == 1
                    await delivery.ack()
                else:
                    attempts.append(delivery.attempt)
                    await delivery.nack(0)
        assert attempts == [1, 2, 3, 4]
        if transport.capabilities.consumer_groups:
            assert [delivery.attempt for delivery in await self.read(other_group, 2)] == [1, 1]

    async def test_attempts_are_1_where_they_are_not_counted(self) -> None:
        """A transport that does not claim to count says 1, and nothing that could be mistaken for a count."""
        transport = await self.open()
        if transport.capabilities.attempts:
            return
        requires(transport.capabilities, "redelivery")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, [Message(topic, b"again")])
        for _ in range(3):
            [delivery] = await self.read(subscription, 1, ack=False)
            assert delivery.attempt == 1
            await delivery.nack(0)

    async def test_a_release_counts_no_attempt(self) -> None:
        """A released message comes again as if it had never been delivered."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, [Message(topic, b"again", key=b"key")])
        for _ in range(3):
            released = await self.read(subscription, 1, ack=False)
            assert released[0].attempt == 1
            await settle(subscription, released, Outcome.RELEASE)
        [delivery] = await self.read(subscription, 1, ack=False)
        assert delivery.attempt == 1
        await delivery.nack(0)
        [delivery] = await self.read(subscription, 1)
        assert delivery.attempt == (2 if transport.capabilities.attempts else 1)

    async def test_released_messages_keep_their_order(self) -> None:
        """What is released comes before its key's followers, in the order of publishing."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery", "ordering")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        sent = numbered(topic, 6, keys=1)
        await self.publish(transport, sent)
        for released in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
            out = await self.read(subscription, 3, ack=False)
            assert values(d.message for d in out) == [b"0", b"1", b"2"]
            await settle(subscription, [out[position] for position in released], Outcome.RELEASE)
        assert values(d.message for d in await self.read(subscription, 6)) == values(sent)

    async def test_followers_do_not_overtake_a_nacked_message(self) -> None:
        """What has the same key and was not delivered yet waits until the nacked message was delivered again."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery", "ordering")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        sent = numbered(topic, 5, keys=1)
        await self.publish(transport, sent)
        [first] = await self.read(subscription, 1, limit=1, ack=False)
        assert first.value == b"0"
        await first.nack(self.nack_delay)
        assert values(d.message for d in await self.read(subscription, 5)) == values(sent)

    async def test_several_nacked_messages_of_a_key_keep_their_order(self) -> None:
        """Said no to out of order and with different delays, they come again in the order of publishing."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery", "ordering")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        sent = numbered(topic, 6, keys=1)
        await self.publish(transport, sent)
        first, second, third = await self.read(subscription, 3, ack=False)
        await third.nack(0)
        await first.nack(self.nack_delay)
        await second.nack(self.nack_delay / 2)
        assert values(d.message for d in await self.read(subscription, 6)) == values(sent)

    async def test_goes_on_after_many_nacks(self) -> None:
        """Consumers that say no a hundred times each always get another delivery, and leave everything behind."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery")
        topic = await self.make_topic(transport)
        group = await self.known_group(transport, topic)
        sent = numbered(topic, 50, keys=10)
        await self.publish(transport, sent)
        for _ in range(self.scale.nackers):
            subscription = await self.subscribe(await self.open(), topic, group_id=group)
            for _ in range(self.scale.nacks):
                [delivery] = await self.receive(subscription, 1)
                await delivery.nack(0)
            await subscription.close()
        await self.read_all(await self.subscribe(transport, topic, group_id=group), values(sent))

    async def test_acknowledging_out_of_order_loses_nothing(self) -> None:
        """An unsettled message comes again although later ones were finished."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        await self.publish(transport, numbered(topic, 10, keys=1))
        deliveries = await self.read(subscription, 10, ack=False)
        unsettled = deliveries[3]
        for delivery in reversed(deliveries):
            if delivery is not unsettled:
                await delivery.ack()
        await subscription.close()
        another = await self.subscribe(transport, topic, group_id=group)
        while unsettled.value not in values(d.message for d in await self.receive(another)):
            pass

    async def test_stale_settlements_are_passed_over(self) -> None:
        """A delivery whose subscription was closed finishes nothing for whoever has the message now."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = self.new_group()
        first = await self.subscribe(transport, topic, group_id=group)
        await self.publish(transport, [Message(topic, b"once more")])
        [stale] = await self.read(first, 1, ack=False)
        await first.close()
        second = await self.subscribe(transport, topic, group_id=group)
        [owned] = await self.read(second, 1, ack=False)
        await stale.ack()
        await settle(first, [stale], Outcome.ACK)
        await settle(first, [stale], Outcome.NACK)
        await self.assert_quiet(second)
        await second.close()
        third = await self.subscribe(transport, topic, group_id=group)
        assert values(d.message for d in await self.read(third, 1)) == [owned.value]

    async def test_a_redelivered_message_makes_the_earlier_delivery_stale(self) -> None:
        """The settlement of an earlier attempt does not settle the attempt that is out."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, [Message(topic, b"again")])
        [first] = await self.read(subscription, 1, ack=False)
        await settle(subscription, [first], Outcome.NACK)
        [second] = await self.read(subscription, 1, ack=False)
        await settle(subscription, [first], Outcome.ACK)
        await second.nack(0)
        assert len(await self.read(subscription, 1)) == 1

    async def test_a_bare_subscription_cannot_reject(self) -> None:
        """There are no dead letters at this level: it says so, and the delivery can still be settled."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, [Message(topic, b"bad")])
        [delivery] = await self.read(subscription, 1, ack=False)
        with pytest.raises(ConfigurationError):
            await delivery.reject("unwanted")
        await delivery.ack()
        await self.assert_quiet(subscription)
