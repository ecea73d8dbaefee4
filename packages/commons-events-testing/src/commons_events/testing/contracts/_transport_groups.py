"""Groups: who gets what, where a group begins, and what happens when a member is gone."""

from __future__ import annotations

import asyncio

from commons_events.message import Message
from commons_events.testing.contracts._broker import BrokerContract, by_key, numbered, settle, values
from commons_events.testing.contracts._contract import requires
from commons_events.transport import Delivery, Outcome, Subscription, TopicPartition

__all__ = ["GroupTests"]


class GroupTests(BrokerContract, contract=True):
    """`Transport.subscribe` and what its request asks for."""

    async def _drain(self, subscription: Subscription, into: list[Delivery]) -> None:
        """Receive and acknowledge until the subscription is closed."""
        while batch := await subscription.receive(10):
            into.extend(batch)
            await settle(subscription, batch, Outcome.ACK)

    async def test_a_group_shares_the_messages(self) -> None:
        """Each message goes to one member, however many there are; nobody misses one, and none comes twice."""
        transport = await self.open()
        requires(transport.capabilities, "consumer_groups")
        topic = await self.make_topic(transport)
        group = self.new_group()
        members = [await self.subscribe(transport, topic, group_id=group) for _ in range(3)]
        sent = numbered(topic, self.scale.messages, keys=self.scale.messages)
        await self.publish(transport, sent)
        received: list[Delivery] = []
        tasks = [asyncio.create_task(self._drain(member, received)) for member in members]
        await self.eventually(lambda: len(received) >= len(sent), "receiving every message")
        await asyncio.sleep(self.quiet)
        for member in members:
            await member.close()
        await asyncio.gather(*tasks)
        assert sorted(values(d.message for d in received)) == sorted(values(sent))

    async def test_every_group_gets_all(self) -> None:
        """Two groups on one topic receive all 50 messages each, and settle them each for itself."""
        transport = await self.open()
        requires(transport.capabilities, "consumer_groups")
        topic = await self.make_topic(transport)
        first, second = [await self.subscribe(transport, topic, group_id=self.new_group()) for _ in range(2)]
        sent = numbered(topic, 50, keys=7)
        await self.publish(transport, sent)
        assert sorted(values(d.message for d in await self.read(first, 50))) == sorted(values(sent))
        assert sorted(values(d.message for d in await self.read(second, 50))) == sorted(values(sent))
        await self.assert_quiet(first)
        await self.assert_quiet(second)

    async def test_a_new_group_starts_where_it_is_claimed(self) -> None:
        """At the first stored message where ``new_group_start`` is ``earliest``, else with what comes next."""
        transport = await self.open()
        requires(transport.capabilities, "new_group_start")
        topic = await self.make_topic(transport)
        await self.publish(transport, numbered(topic, 10))
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await self.publish(transport, numbered(topic, 5, start=10))
        first = 0 if transport.capabilities.new_group_start == "earliest" else 10
        received = await self.read(subscription, 15 - first)
        assert sorted(values(d.message for d in received)) == sorted(b"%d" % number for number in range(first, 15))

    async def test_a_group_can_start_at_the_latest(self) -> None:
        """With ``start="latest"`` a new group skips what was there; a known group goes on where it was."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = self.new_group()
        await self.publish(transport, numbered(topic, 5))
        subscription = await self.subscribe(transport, topic, group_id=group, start="latest")
        await self.publish(transport, numbered(topic, 5, start=5))
        await self.read_all(subscription, values(numbered(topic, 5, start=5)))
        await subscription.close()
        await self.publish(transport, numbered(topic, 5, start=10))
        again = await self.subscribe(transport, topic, group_id=group, start="latest")
        await self.read_all(again, values(numbered(topic, 5, start=10)))

    async def test_what_is_published_after_subscribe_is_received(self) -> None:
        """Once ``subscribe`` has returned nothing is missed, also at the latest position."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        for number in range(5):
            value = b"%d" % number
            subscription = await self.subscribe(transport, topic, group_id=self.new_group(), start="latest")
            await self.publish(transport, [Message(topic, value)])
            assert values(d.message for d in await self.read(subscription, 1)) == [value]
            await subscription.close()

    async def test_without_a_group_everyone_gets_all_from_the_start(self) -> None:
        """Subscribers of no group do not share: in each round a new one joins and sees all messages so far."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        from_start = transport.capabilities.new_group_start == "earliest"
        subscriptions: list[Subscription] = []
        sent: list[Message] = []
        for number in range(3):
            sent += numbered(topic, 5, start=len(sent))
            if from_start:
                await self.publish(transport, sent[-5:])
            subscriptions.append(await self.subscribe(transport, topic))
            if not from_start:
                await self.publish(transport, sent[-5:])
            for joined, subscription in enumerate(subscriptions):
                new = sent if joined == number and from_start else sent[-5:]
                received = await self.read(subscription, len(new))
                assert sorted(values(d.message for d in received)) == sorted(values(new))

    async def test_keys_keep_their_order_over_a_group(self) -> None:
        """With several consumers in a group, each key's messages are first delivered in their order."""
        transport = await self.open()
        requires(transport.capabilities, "ordering", "consumer_groups")
        topic = await self.make_topic(transport)
        group = self.new_group()
        members = [await self.subscribe(transport, topic, group_id=group) for _ in range(self.scale.readers)]
        sent = numbered(topic, self.scale.ordered, keys=self.scale.keys)
        received: list[Delivery] = []
        tasks = [asyncio.create_task(self._drain(member, received)) for member in members]
        await self.publish(transport, sent)
        await self.eventually(lambda: len(received) >= len(sent), "receiving every message")
        for member in members:
            await member.close()
        await asyncio.gather(*tasks)
        assert by_key(received) == by_key(sent)

    async def test_a_member_that_joins_takes_its_part(self) -> None:
        """Members may come while messages flow: what was handed out stays valid, and nothing is lost."""
        transport = await self.open()
        requires(transport.capabilities, "consumer_groups")
        topic = await self.make_topic(transport)
        group = self.new_group()
        revoked: list[frozenset[TopicPartition]] = []
        first = await self.subscribe(transport, topic, group_id=group, on_revoke=revoked.append)
        sent = numbered(topic, self.scale.messages, keys=20)
        await self.publish(transport, sent)
        out = await self.read(first, self.scale.messages // 2, ack=False)
        second = await self.subscribe(transport, topic, group_id=group)
        received = list(out)
        tasks = [asyncio.create_task(self._drain(member, received)) for member in (first, second)]
        for delivery in out:
            await delivery.ack()
        wanted = set(values(sent))
        await self.eventually(lambda: {d.value for d in received} == wanted, "receiving every message")
        await first.close()
        await second.close()
        await asyncio.gather(*tasks)
        for partition in (partition for partitions in revoked for partition in partitions):
            assert isinstance(partition, TopicPartition), partition
            assert partition.topic == topic

    async def test_a_member_that_leaves_gives_its_part_back(self) -> None:
        """What a closed member had unsettled comes at once to those that stay."""
        transport = await self.open()
        requires(transport.capabilities, "consumer_groups")
        topic = await self.make_topic(transport)
        group = self.new_group()
        members = [await self.subscribe(transport, topic, group_id=group) for _ in range(2)]
        sent = numbered(topic, self.scale.messages, keys=20)
        await self.publish(transport, sent)
        received: list[Delivery] = []
        staying = asyncio.create_task(self._drain(members[0], received))
        try:
            async with asyncio.timeout(self.quiet):
                await members[1].receive(1000)
        except TimeoutError:
            pass  # the broker gave everything to the other member, which is its right
        await members[1].close()
        wanted = set(values(sent))
        await self.eventually(lambda: {d.value for d in received} == wanted, "receiving every message")
        await members[0].close()
        await staying

    async def test_a_lost_consumers_messages_come_again(self) -> None:
        """What a consumer had unsettled when it died goes to another member; what it had settled does not."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery")
        topic = await self.make_topic(transport)
        group = self.new_group()
        lost = await self.subscribe(await self.open(), topic, group_id=group)
        sent = numbered(topic, 20, keys=5)
        await self.publish(transport, sent)
        deliveries = await self.read(lost, 20, ack=False)
        finished, unsettled = deliveries[:8], deliveries[8:]
        await settle(lost, finished, Outcome.ACK)
        await lost.flush()
        await self.lose(lost)
        survivor = await self.subscribe(transport, topic, group_id=group)
        received = await self.read(survivor, len(unsettled))
        assert sorted(values(d.message for d in received)) == sorted(values(d.message for d in unsettled))
        if transport.capabilities.attempts is True:
            assert {delivery.attempt for delivery in received} == {2}
        if transport.capabilities.ordering == "key":
            assert by_key(received) == by_key(unsettled)

    async def test_a_lost_consumer_settles_nothing(self) -> None:
        """Outcomes that a lost consumer says afterwards are passed over, without an error."""
        transport = await self.open()
        requires(transport.capabilities, "redelivery")
        topic = await self.make_topic(transport)
        group = self.new_group()
        lost = await self.subscribe(await self.open(), topic, group_id=group)
        await self.publish(transport, [Message(topic, b"again")])
        [stale] = await self.read(lost, 1, ack=False)
        await self.lose(lost)
        survivor = await self.subscribe(transport, topic, group_id=group)
        [owned] = await self.read(survivor, 1, ack=False)
        await stale.ack()
        await owned.nack(0)
        await self.read_all(survivor, [b"again"])
