"""`ConsumerContract`: what an `EventConsumer` keeps on a broker."""

from __future__ import annotations

import asyncio

import pytest

from commons_events import dead_letters
from commons_events.errors import ConfigurationError, DeserializationError, PublishError, UnknownEventTypeError
from commons_events.event import registry
from commons_events.message import Message
from commons_events.producers import EventProducer
from commons_events.testing.contracts._consuming import ConsumingTests
from commons_events.testing.contracts._events import ContractEvent
from commons_events.testing.contracts._standing_in import RefusingTransport
from commons_events.transport import Transport

__all__ = ["ConsumerContract"]


class ConsumerContract(ConsumingTests, contract=True):
    """The contract of a consumer on a transport: subclass it as `TransportContract`.

    A consumer of another class is tested by overriding `make_consumer`.
    """

    async def test_a_reject_becomes_a_dead_letter(self) -> None:
        """With the original bytes, key and headers, and the reason, error, attempt and origin; then it is finished."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        letters = await self.make_topic(transport)
        group, reading = self.new_group(), self.new_group()
        original = Message(topic, b"\xffnot json", key=b"key", headers=(("name", b"value"), ("other", b"")))
        async with (
            self.make_consumer(transport, letters, group_id=reading) as undertaker,
            self.make_consumer(transport, topic, group_id=group, dead_letter_topic=letters) as consumer,
        ):
            await self.publish(transport, [original])
            [delivery] = await self._take(consumer, 1)
            try:
                raise LookupError("no such customer")
            except LookupError as error:
                await delivery.reject("unknown customer", error)
            [letter] = await self._take(undertaker, 1)
            assert (letter.value, letter.key) == (original.value, original.key)
            assert letter.headers[: len(original.headers)] == original.headers
            assert letter.message.header(dead_letters.REASON) == "unknown customer"
            assert letter.message.header(dead_letters.ERROR_TYPE) == "builtins.LookupError"
            assert letter.message.header(dead_letters.ERROR_MESSAGE) == "no such customer"
            assert letter.message.header(dead_letters.ATTEMPTS) == "1"
            assert letter.message.header(dead_letters.TOPIC) == topic
            await letter.ack()
        assert await self._raw_left_over(transport, topic, group) == []

    async def test_a_dead_letter_is_confirmed_first(self) -> None:
        """Until the broker has the dead letter the original is unsettled, and comes again if its consumer ends."""
        inner = await self.open()
        letters = await self.make_topic(inner)
        topic, group = await self._sent(inner, 1)
        transport = RefusingTransport(inner)
        async with self.make_consumer(transport, topic, group_id=group, dead_letter_topic=letters) as consumer:
            [delivery] = await self._take(consumer, 1)
            transport.holding = True
            rejecting = asyncio.ensure_future(delivery.reject("unwanted"))
            await asyncio.wait([rejecting], timeout=self.quiet)
            assert not rejecting.done(), "reject is done before the dead letter was confirmed"
            rejecting.cancel()
            await asyncio.wait([rejecting])
        await transport.release()
        assert await self._left_over(inner, topic, group) == [0]

    async def test_a_failed_dead_letter_leaves_the_original(self) -> None:
        """The broker's error comes out of ``reject``; the message is unsettled, can be settled, and comes again."""
        inner = await self.open()
        letters = await self.make_topic(inner)
        topic, group = await self._sent(inner, 2)
        transport = RefusingTransport(inner, lambda m: PublishError("no room") if m.topic == letters else None)
        async with self.make_consumer(transport, topic, group_id=group, dead_letter_topic=letters) as consumer:
            first, second = await self._take(consumer, 2)
            for delivery in (first, second):
                with pytest.raises(PublishError, match="no room"):
                    await delivery.reject("unwanted")
                assert delivery.outcome is None
            await first.ack()
        assert await self._left_over(inner, topic, group) == [1]

    async def test_a_reject_needs_a_dead_letter_topic(self) -> None:
        """Without one it says so, and the message stays unsettled."""
        transport = await self.open()
        topic, group = await self._sent(transport, 1)
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            [delivery] = await self._take(consumer, 1)
            with pytest.raises(ConfigurationError, match="dead_letter_topic"):
                await delivery.reject("unwanted")
        assert await self._left_over(transport, topic, group) == [0]

    async def test_bytes_that_do_not_decode_lose_nothing(self) -> None:
        """Whatever they are, the error is a `DeserializationError`; the message can be settled, and others go on."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        prefix = transport.header_prefix
        typed = ((f"{prefix}type", ContractEvent.event_type.encode()), ("content-type", b"application/json"))
        bad: list[Message] = [
            Message(topic, b"", headers=typed),
            Message(topic, b"{", headers=typed),
            Message(topic, b'{"number": "many"}', headers=typed),
            Message(topic, b"\xff\xfe"),
            Message(topic, b"{}", headers=(("content-type", b"application/cloudevents+json"),)),
        ]
        if transport.capabilities.tombstones:
            bad.append(Message(topic, None, key=b"key"))
        if transport.capabilities.binary_headers:
            bad.append(Message(topic, b"{}", headers=((f"{prefix}type", b"\xff"),)))
        async with self.make_consumer(transport, topic, group_id=self.new_group()) as consumer:
            await self.publish(transport, bad)
            async with EventProducer(transport=transport) as producer:
                await producer.send(topic, ContractEvent(number=1))
            good = 0
            for delivery in await self._take(consumer, len(bad) + 1):
                try:
                    assert delivery.event(ContractEvent).number == 1
                    good += 1
                except DeserializationError:
                    assert delivery.outcome is None
                await delivery.ack()
            assert good == 1

    async def test_an_unknown_class_is_an_error_of_its_own(self) -> None:
        """An event that nobody here knows is an `UnknownEventTypeError` that names its type."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        async with (
            self.make_consumer(transport, topic, group_id=self.new_group()) as consumer,
            EventProducer(transport=transport) as producer,
        ):
            with registry.isolated():

                class Forgotten(ContractEvent):
                    event_type = "commons-events.contract.forgotten"

                await producer.send(topic, Forgotten(number=1))
            [delivery] = await self._take(consumer, 1)
            with pytest.raises(UnknownEventTypeError, match=r"commons-events\.contract\.forgotten"):
                delivery.event()
            await delivery.ack()

    async def _raw_left_over(self, transport: Transport, topic: str, group: str) -> list[bytes]:
        """The bytes of what the group has not finished of ``key``."""
        await self.publish(transport, [Message(topic, b"mark", key=b"key")])
        values: list[bytes] = []
        async with self.make_consumer(transport, topic, group_id=group) as consumer:
            while b"mark" not in values:
                values += [delivery.value for delivery in await self._take(consumer, 1)]
        values.remove(b"mark")
        return values
