"""Closing: nothing is lost, nothing hangs, and nothing works afterwards."""

from __future__ import annotations

import asyncio

import pytest

from commons_events.errors import ClosedError, ConfigurationError, TransportError
from commons_events.message import Message
from commons_events.testing.contracts._broker import BrokerContract, confirmed, numbered, settle, values
from commons_events.testing.contracts._contract import requires
from commons_events.transport import (
    CONTRACT_VERSION,
    Outcome,
    SubscribeRequest,
    Subscription,
    TransportSettings,
)

__all__ = ["ClosingTests"]


class ClosingTests(BrokerContract, contract=True):
    """The ends of subscriptions and transports."""

    async def test_closing_twice_is_harmless(self) -> None:
        """Also side by side, and also the transport's."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        await asyncio.gather(subscription.close(), subscription.close())
        await subscription.close()
        await asyncio.gather(transport.close(), transport.close())
        await transport.close()

    async def test_an_unused_transport_closes(self) -> None:
        """A transport that never connected has nothing to close."""
        transport = await self.open()
        await transport.flush()
        await transport.close()

    async def test_close_ends_a_waiting_receive(self) -> None:
        """It returns an empty list, as does every later one."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        waiting = asyncio.create_task(subscription.receive(10))
        await asyncio.sleep(0)
        await subscription.close()
        async with asyncio.timeout(self.timeout):
            assert list(await waiting) == []
            assert list(await subscription.receive(10)) == []

    async def test_nothing_is_received_after_close(self) -> None:
        """Not even what lay ready: it belongs to the group again."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        sent = numbered(topic, 10)
        await self.publish(transport, sent)
        await self.receive(subscription, 1)
        await subscription.close()
        assert list(await subscription.receive(10)) == []
        await self.read_all(await self.subscribe(transport, topic, group_id=group), values(sent))

    async def test_closing_the_transport_closes_its_subscriptions(self) -> None:
        """They return what they had, and a receive that waits in one of them ends."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        await self.publish(transport, [Message(topic, b"again")])
        await self.read(subscription, 1, ack=False)
        waiting = asyncio.create_task(subscription.receive(10))
        await asyncio.sleep(0)
        async with asyncio.timeout(self.timeout):
            await transport.close()
            assert list(await waiting) == []
        another = await self.open()
        await self.read_all(await self.subscribe(another, topic, group_id=group), [b"again"])

    async def test_a_closed_transport_refuses(self) -> None:
        """Publishing and subscribing raise `ClosedError`."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        await transport.close()
        with pytest.raises(ClosedError):
            _ = transport.publish([Message(topic, b"late")])  # when called, not from the future
        with pytest.raises(ClosedError):
            await transport.subscribe(SubscribeRequest(topics=(topic,)))

    async def test_settling_after_close_is_passed_over(self) -> None:
        """No error, no effect: the message comes again elsewhere."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        await self.publish(transport, [Message(topic, b"again")])
        [delivery] = await self.read(subscription, 1, ack=False)
        await subscription.close()
        await delivery.ack()
        await subscription.flush()
        await self.read_all(await self.subscribe(transport, topic, group_id=group), [b"again"])

    async def test_close_keeps_what_was_settled(self) -> None:
        """Outcomes that were handed over just before close, and not awaited, count."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        await self.publish(transport, numbered(topic, 10))
        handed_over = [delivery.ack() for delivery in await self.read(subscription, 10, ack=False)]
        await subscription.close()
        for outcome in handed_over:
            await outcome
        await self.assert_quiet(await self.subscribe(transport, topic, group_id=group))

    async def test_a_group_resumes_after_close(self) -> None:
        """Rounds of opening, reading a part and closing twice see every message in the end."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = await self.known_group(transport, topic)
        sent = numbered(topic, self.scale.concurrent, keys=50)
        await self.publish(transport, sent)
        missing = set(values(sent))
        for _ in range(4):
            own = await self.make_transport()
            subscription = await self.subscribe(own, topic, group_id=group)
            # One is left unsettled in each round, and has to come again.
            part = len(await self.read(subscription, 1, ack=False))
            while part < self.scale.concurrent // 5:
                batch = await self.receive(subscription, min(100, self.scale.concurrent // 5 - part))
                await settle(subscription, batch, Outcome.ACK)
                missing -= {delivery.value for delivery in batch}
                part += len(batch)
            await subscription.close()
            await subscription.close()
            await own.close()
            await own.close()
        last = await self.subscribe(transport, topic, group_id=group)
        while missing:
            batch = await self.receive(last)
            await settle(last, batch, Outcome.ACK)
            missing -= {delivery.value for delivery in batch}

    async def test_closing_while_messages_are_under_way(self) -> None:
        """A consumer that closes in the middle of the stream hangs on nothing and loses nothing."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = await self.known_group(transport, topic)
        sent = numbered(topic, self.scale.ordered, keys=20)
        finished: set[bytes] = set()

        async def publish() -> None:
            for start in range(0, len(sent), 10):
                await self.publish(transport, sent[start : start + 10])
                await asyncio.sleep(0)

        async def consume(subscription: Subscription, midway: asyncio.Event) -> None:
            handled = 0
            while batch := await subscription.receive(7):
                for delivery in batch:
                    await asyncio.sleep(0)
                    await delivery.ack()
                    finished.add(delivery.value)
                    handled += 1
                    if handled == self.scale.ordered // 10 + 1:
                        midway.set()

        publishing = asyncio.create_task(publish())
        for _ in range(3):
            subscription = await self.subscribe(transport, topic, group_id=group)
            midway = asyncio.Event()
            consuming = asyncio.create_task(consume(subscription, midway))
            async with asyncio.timeout(self.timeout):
                await midway.wait()
                await subscription.close()
                await consuming
        await publishing
        last = await self.subscribe(transport, topic, group_id=group)
        # What was acknowledged while its subscription closed may come again; what was not has to.
        missing = set(values(sent)) - finished
        while missing:
            batch = await self.receive(last)
            missing -= {delivery.value for delivery in batch}
            await settle(last, batch, Outcome.ACK)

    async def test_many_close_at_once(self) -> None:
        """Ten that subscribe and close at once neither fail nor take messages along."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        group = await self.known_group(transport, topic)

        async def come_and_go() -> None:
            own = await self.open()
            subscription = await self.subscribe(own, topic, group_id=group)
            await asyncio.gather(subscription.close(), own.close())

        await asyncio.gather(*(come_and_go() for _ in range(10)))
        sent = numbered(topic, 50, keys=10)
        await self.publish(transport, sent)
        await self.read_all(await self.subscribe(transport, topic, group_id=group), values(sent))

    async def test_closing_a_publisher_loses_nothing(self) -> None:
        """``close`` flushes: whatever was handed over before, awaited or not, is confirmed and arrives."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        share = self.scale.closing // self.scale.closers
        sent = [numbered(topic, share, start=share * closer, keys=50) for closer in range(self.scale.closers)]

        async def publish_and_close(messages: list[Message]) -> None:
            own = await self.open()
            futures = [own.publish(messages[start : start + 7]) for start in range(0, share, 7)]
            async with asyncio.timeout(self.timeout):
                await own.close()
            assert all(future.done() for future in futures), "close returned before every publish was done"
            for future in futures:
                confirmed(future.result())

        await asyncio.gather(*map(publish_and_close, sent))
        await self.read_all(subscription, [value for messages in sent for value in values(messages)])

    async def test_confirmed_messages_survive_their_publisher(self) -> None:
        """What was confirmed is there for others after the transport that sent it was closed."""
        publisher = await self.open()
        topic = await self.make_topic(publisher)
        group = await self.known_group(publisher, topic)
        sent = numbered(topic, 20, keys=4)
        await self.publish(publisher, sent)
        await publisher.close()
        consumer = await self.open()
        await self.read_all(await self.subscribe(consumer, topic, group_id=group), values(sent))

    async def test_a_restarted_broker_has_lost_nothing(self) -> None:
        """Two restarts while messages flow: what was confirmed arrives, without subscribing anew."""
        transport = await self.open()
        if transport.capabilities.durability != "broker":
            pytest.skip("capability durability is not claimed beyond the process")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        sent = numbered(topic, self.scale.concurrent, keys=50)
        part = len(sent) // 6
        missing: set[bytes] = set()

        async def publish() -> None:
            for number, start in enumerate(range(0, len(sent), part)):
                if number in (2, 3):
                    await self.restart_broker()
                waiting = sent[start : start + part]
                while waiting:
                    results = await transport.publish(waiting)
                    failed = [result for result in results if isinstance(result, TransportError)]
                    assert all(error.retriable for error in failed), failed[:3]
                    missing.update(
                        message.value or b""
                        for message, result in zip(waiting, results, strict=True)
                        if not isinstance(result, TransportError)
                    )
                    waiting = [m for m, r in zip(waiting, results, strict=True) if isinstance(r, TransportError)]

        await publish()
        await self.read_all(subscription, missing)

    async def test_unknown_settings_are_refused(self) -> None:
        """A misspelt setting is a `ConfigurationError` that names it, before anything connects."""
        kind = type(await self.open())
        for settings in self.misspelt_settings(kind.name):
            with pytest.raises(ConfigurationError, match="no_such_setting"):
                kind.from_settings(settings)

    def misspelt_settings(self, name: str) -> list[TransportSettings]:
        """Settings with an unknown one called ``no_such_setting``; override it where the URL looks different."""
        return [
            TransportSettings(url=f"{name}://contract?no_such_setting=1"),
            TransportSettings(url=f"{name}://contract", options={"no_such_setting": 1}),
        ]

    async def test_states_what_it_is(self) -> None:
        """Its name, its header prefix, and capabilities of a contract version that exists and that do not change."""
        transport = await self.open()
        assert isinstance(transport.name, str)
        assert transport.name.replace("-", "").isalnum(), "the name has to serve as a URL's scheme"
        assert isinstance(transport.header_prefix, str)
        before = transport.capabilities
        assert 1 <= before.contract <= CONTRACT_VERSION
        topic = await self.make_topic(transport)
        await self.publish(transport, [Message(topic, b"connects")])
        assert transport.capabilities == before

    async def test_close_gives_back_in_order(self) -> None:
        """A subscription that closes gives back what is unsettled, in each key's order."""
        transport = await self.open()
        requires(transport.capabilities, "ordering")
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        sent = numbered(topic, 10, keys=1)
        await self.publish(transport, sent)
        out = await self.read(subscription, 6, ack=False)
        await settle(subscription, out[:2], Outcome.ACK)
        await subscription.close()
        another = await self.subscribe(transport, topic, group_id=group)
        received = values(d.message for d in await self.read(another, 8))
        assert received == values(sent)[2:]
