"""Messages: what goes in comes out, however odd."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

from commons_events.message import Message
from commons_events.runtime import current_runtime
from commons_events.testing.contracts._broker import BrokerContract, numbered, values
from commons_events.testing.contracts._contract import requires
from commons_events.transport import Delivery, Transport

__all__ = ["MessageTests"]

_ALL_BYTES = bytes(range(256))


class MessageTests(BrokerContract, contract=True):
    """Values, keys, headers, timestamps and topics."""

    async def _there_and_back(
        self, transport: Transport, messages: Sequence[Message]
    ) -> list[tuple[Message, Delivery]]:
        """Send ``messages`` (whose topic is replaced) and pair each with its delivery."""
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        pairs: list[tuple[Message, Delivery]] = []
        for message in messages:
            sent = message._replace(topic=topic)
            await self.publish(transport, [sent])
            [delivery] = await self.read(subscription, 1)
            pairs.append((sent, delivery))
        return pairs

    async def test_odd_values_hold(self) -> None:
        """A value is any bytes: empty, one zero byte, every byte, no UTF-8, what looks like JSON or a number."""
        transport = await self.open()
        odd = [b"", b"\0", _ALL_BYTES, b"\xff\xfe", "ünïcödé 🎈".encode(), b"null", b"0", b" ", b"\r\n\r\n", b"{"]
        for sent, received in await self._there_and_back(transport, [Message("", value) for value in odd]):
            assert received.value == sent.value
            assert received.message.value is not None, "an empty value came back as none at all"
            assert received.data == received.body == received.value

    async def test_big_values_hold(self) -> None:
        """A megabyte, or as much as the broker allows, arrives unchanged beside small ones."""
        transport = await self.open()
        limit = transport.capabilities.max_message_bytes
        size = self.scale.big if limit is None else min(self.scale.big, limit)
        big = (_ALL_BYTES * (size // 256 + 1))[:size]
        messages = [Message("", b"small"), Message("", big), Message("", b"small again")]
        for sent, received in await self._there_and_back(transport, messages):
            assert received.value == sent.value, f"a value of {len(sent.value or b'')} bytes was changed"

    async def test_tombstones_are_told_from_empty_values(self) -> None:
        """None stays None and ``b""`` stays ``b""``."""
        transport = await self.open()
        requires(transport.capabilities, "tombstones")
        messages = [Message("", value, key=b"key") for value in (None, b"", None, b"x")]
        pairs = await self._there_and_back(transport, messages)
        assert [received.message.value for _, received in pairs] == [None, b"", None, b"x"]
        assert pairs[0][1].value == b""

    async def test_text_keys_hold(self) -> None:
        """Keys of UTF-8 text come back as they were, and no key stays no key."""
        transport = await self.open()
        keys = [None, b"key", "schlüssel-🔑".encode(), b"a" * 100, b"with space", b"0"]
        pairs = await self._there_and_back(transport, [Message("", b"v", key=key) for key in keys])
        assert [received.key for _, received in pairs] == keys

    async def test_binary_keys_hold(self) -> None:
        """A key is any bytes, and an empty key is not the same as none."""
        transport = await self.open()
        requires(transport.capabilities, "binary_keys")
        keys = [b"\0", b"\xff\xfe\0", _ALL_BYTES, b"", None, "ü".encode("latin-1")]
        pairs = await self._there_and_back(transport, [Message("", b"v", key=key) for key in keys])
        assert [received.key for _, received in pairs] == keys

    async def test_headers_hold(self) -> None:
        """Headers of UTF-8 text come back complete and in their order, empty and long ones included."""
        transport = await self.open()
        odd = [
            (),
            (("name", b"value"),),
            (("z", b"first"), ("a", b"second"), ("m", b"third")),
            (("empty", b""), ("unicode", "grüße 🎈".encode()), ("number", b"1")),
            (("content-type", b"application/json"), ("ce_id", b"1"), ("with.dot", b"x"), ("with_under-score", b"y")),
            (("long", b"x" * 5000),),
            tuple((f"header-{number}", b"%d" % number) for number in range(50)),
        ]
        pairs = await self._there_and_back(transport, [Message("", b"v", headers=headers) for headers in odd])
        assert [received.headers for _, received in pairs] == odd

    async def test_binary_headers_hold(self) -> None:
        """A header's value is any bytes."""
        transport = await self.open()
        requires(transport.capabilities, "binary_headers")
        headers = (("all", _ALL_BYTES), ("not-utf8", b"\xff\xfe"), ("nul", b"\0"))
        [(_, received)] = await self._there_and_back(transport, [Message("", b"v", headers=headers)])
        assert received.headers == headers

    async def test_repeated_headers_hold(self) -> None:
        """A name may come several times, and its values keep their order."""
        transport = await self.open()
        requires(transport.capabilities, "repeated_headers")
        headers = (("twice", b"1"), ("other", b"x"), ("twice", b"2"), ("twice", b"1"))
        [(_, received)] = await self._there_and_back(transport, [Message("", b"v", headers=headers)])
        assert received.headers == headers

    async def test_timestamps_are_aware(self) -> None:
        """A given timestamp is the same moment on the other side; where none is given the broker stamps its own."""
        transport = await self.open()
        given = datetime(2024, 2, 29, 23, 59, 59, 123000, tzinfo=timezone(timedelta(hours=5, minutes=30)))
        pairs = await self._there_and_back(transport, [Message("", b"v", timestamp=given), Message("", b"v")])
        [kept, stamped] = [received.timestamp for _, received in pairs]
        assert kept is not None
        assert kept.tzinfo is not None
        assert abs((kept - given).total_seconds()) <= self.timestamp_precision
        assert stamped is not None, "the broker did not stamp the message"
        assert stamped.tzinfo is not None
        assert abs((stamped.astimezone(UTC) - current_runtime().now()).total_seconds()) < 3600

    async def test_topics_are_apart(self) -> None:
        """A subscription receives the messages of its own topics alone."""
        transport = await self.open()
        first, second = await self.make_topic(transport), await self.make_topic(transport)
        group = self.new_group()
        of_first = await self.subscribe(transport, first, group_id=group)
        of_second = await self.subscribe(transport, second, group_id=self.new_group())
        await self.publish(transport, [Message(first, b"first"), Message(second, b"second")])
        for subscription, topic in ((of_first, first), (of_second, second)):
            [delivery] = await self.read(subscription, 1)
            assert (delivery.topic, delivery.value) == (topic, b"first" if topic == first else b"second")
            await self.assert_quiet(subscription)

    async def test_one_subscription_reads_several_topics(self) -> None:
        """All messages of all topics asked for come, each with its topic."""
        transport = await self.open()
        topics = [await self.make_topic(transport) for _ in range(3)]
        subscription = await self.subscribe(transport, *topics, group_id=self.new_group())
        sent = [message for topic in topics for message in numbered(topic, 10)]
        await self.publish(transport, sent)
        received = await self.read(subscription, len(sent))
        assert sorted((d.topic, d.value) for d in received) == sorted((m.topic, m.value or b"") for m in sent)

    async def test_many_topics_at_once(self) -> None:
        """Publishing and reading many topics side by side gives each all of its own messages."""
        transport = await self.open()

        async def one_topic() -> None:
            topic = await self.make_topic(transport)
            subscription = await self.subscribe(transport, topic, group_id=self.new_group())
            sent = numbered(topic, self.scale.messages)
            await self.publish(transport, sent)
            received = await self.read(subscription, len(sent))
            assert {delivery.topic for delivery in received} == {topic}
            assert sorted(values(d.message for d in received)) == sorted(values(sent))

        await asyncio.gather(*(one_topic() for _ in range(self.scale.topics)))
