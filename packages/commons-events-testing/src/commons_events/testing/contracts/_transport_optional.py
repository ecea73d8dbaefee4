"""What only some brokers can: each protocol tied to the capability that claims it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from commons_events.errors import ConfigurationError, UnknownPartitionError, UnknownTopicError
from commons_events.message import Message
from commons_events.runtime import current_runtime
from commons_events.testing.contracts._broker import BrokerContract, confirmed, numbered, settle, values
from commons_events.testing.contracts._contract import requires
from commons_events.transport import (
    Browsable,
    Declaring,
    Delaying,
    Outcome,
    Pausable,
    Seekable,
    Subscription,
    Transactional,
    Transport,
)

__all__ = ["OptionalTests"]


class OptionalTests(BrokerContract, contract=True):
    """`Pausable`, `Seekable`, `Browsable`, `Declaring` and `Delaying`."""

    async def test_claims_agree_with_what_is_there(self) -> None:
        """A capability is claimed exactly where its protocol is implemented: neither more nor less than it does."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        for claim, thing, protocol in (
            ("pause", subscription, Pausable),
            ("seek", subscription, Seekable),
            ("browse", transport, Browsable),
            ("declare", transport, Declaring),
            ("publish_delay", transport, Delaying),
            ("transactions", transport, Transactional),
        ):
            claimed = bool(getattr(transport.capabilities, claim))
            implemented = isinstance(thing, protocol)
            assert implemented or not claimed, f"claims {claim}, but {thing!r} is no {protocol.__name__}"
            assert claimed or not implemented, (
                f"is {protocol.__name__}, but does not claim {claim}: it claims too little"
            )

    # --- pause ------------------------------------------------------------------------------------------------

    async def test_a_paused_subscription_receives_nothing(self) -> None:
        """Neither what lies ready nor what comes, until ``resume``; then all of it."""
        transport = await self.open()
        requires(transport.capabilities, "pause")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        assert isinstance(subscription, Pausable)
        sent = numbered(topic, 20)
        await self.publish(transport, sent[:10])
        await self.read(subscription, 1)
        subscription.pause()
        subscription.pause()
        await self.publish(transport, sent[10:])
        await self.assert_quiet(subscription)
        waiting = asyncio.create_task(self.receive(subscription, 1))
        await asyncio.sleep(0)
        subscription.resume()
        await settle(subscription, await waiting, Outcome.ACK)
        await self.read(subscription, 18)

    async def test_pausing_keeps_membership_and_settlements(self) -> None:
        """What is out can be settled while paused, and closing gives back the rest."""
        transport = await self.open()
        requires(transport.capabilities, "pause")
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        assert isinstance(subscription, Pausable)
        await self.publish(transport, numbered(topic, 2))
        out = await self.read(subscription, 2, ack=False)
        subscription.pause()
        await out[0].ack()
        await subscription.flush()
        await subscription.close()
        another = await self.subscribe(transport, topic, group_id=group)
        assert values(d.message for d in await self.read(another, 1)) == [out[1].value]
        await self.assert_quiet(another)

    # --- seek -------------------------------------------------------------------------------------------------

    async def _consumed(self, transport: Transport, count: int) -> tuple[str, str, Subscription]:
        """A topic of one partition's messages, a group that finished all of them, and its subscription."""
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group)
        assert isinstance(subscription, Seekable)
        await self.publish(transport, numbered(topic, count, keys=1))
        await self.read(subscription, count)
        await subscription.flush()
        return topic, group, subscription

    async def test_seek_to_the_beginning(self) -> None:
        """Everything that is stored comes again, and again in order."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        topic, _, subscription = await self._consumed(transport, 10)
        assert isinstance(subscription, Seekable)
        await subscription.seek("beginning")
        assert values(d.message for d in await self.read(subscription, 10)) == values(numbered(topic, 10))
        await self.assert_quiet(subscription)

    async def test_seek_to_the_end(self) -> None:
        """What is stored is skipped; what is published from then on is received."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        assert isinstance(subscription, Seekable)
        await self.publish(transport, numbered(topic, 20, keys=5))
        await subscription.seek("end")
        await self.assert_quiet(subscription)
        await self.publish(transport, [Message(topic, b"new")])
        assert values(d.message for d in await self.read(subscription, 1)) == [b"new"]

    async def test_seek_to_an_offset(self) -> None:
        """Receiving goes on with the message that lies there; an offset before the first means the first."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        topic, _, subscription = await self._consumed(transport, 10)
        assert isinstance(subscription, Seekable)
        await subscription.seek("beginning")
        stored = await self.read(subscription, 10)
        target = stored[6]
        assert target.offset is not None
        await subscription.seek(target.offset, topic=topic, partition=target.partition)
        assert values(d.message for d in await self.read(subscription, 4)) == [b"6", b"7", b"8", b"9"]
        await subscription.seek(0, topic=topic, partition=target.partition)
        assert values(d.message for d in await self.read(subscription, 10)) == values(numbered(topic, 10))

    async def test_seek_to_a_time(self) -> None:
        """Receiving goes on with the first message at or after it."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        assert isinstance(subscription, Seekable)
        begin = current_runtime().now()
        sent = [
            Message(topic, b"%d" % number, key=b"key", timestamp=begin + timedelta(seconds=number))
            for number in range(5)
        ]
        await self.publish(transport, sent)
        await self.read(subscription, 5)
        await subscription.seek(begin + timedelta(seconds=2))
        assert values(d.message for d in await self.read(subscription, 3)) == [b"2", b"3", b"4"]
        await subscription.seek(begin + timedelta(seconds=2.5))
        assert values(d.message for d in await self.read(subscription, 2)) == [b"3", b"4"]
        await subscription.seek(begin + timedelta(days=1))
        await self.assert_quiet(subscription)

    async def test_seek_to_a_time_before_everything(self) -> None:
        """Receiving begins with the first message, however long ago that is."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        _, _, subscription = await self._consumed(transport, 3)
        assert isinstance(subscription, Seekable)
        for year in (1, 1969, 1970):
            await subscription.seek(datetime(year, 1, 1, tzinfo=UTC))
            assert values(d.message for d in await self.read(subscription, 3)) == [b"0", b"1", b"2"]

    async def test_seek_refuses_what_is_no_place(self) -> None:
        """Each by its own error, and nothing has changed: what is out can be settled, and the rest comes."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription: Any = await self.subscribe(transport, topic, group_id=group)
        await self.publish(transport, numbered(topic, 10, keys=1))
        out = await self.read(subscription, 5, ack=False)
        for target, error in (
            ("middle", ValueError),
            (datetime(2000, 1, 1), ValueError),  # it is naive
            (1.5, TypeError),
            (None, TypeError),
            (True, TypeError),
        ):
            with pytest.raises(error, match="seek"):
                await subscription.seek(target)
        with pytest.raises(TypeError, match="partition"):
            await subscription.seek("beginning", partition="0")
        for partition in (-1, 1000):
            with pytest.raises(UnknownPartitionError, match="partition"):
                await subscription.seek("beginning", partition=partition)
        with pytest.raises(UnknownTopicError, match="never-subscribed"):
            await subscription.seek("beginning", topic="never-subscribed")
        await settle(subscription, out, Outcome.ACK)
        assert values(d.message for d in await self.read(subscription, 5)) == values(numbered(topic, 10))[5:]
        await subscription.close()
        await self.assert_quiet(await self.subscribe(transport, topic, group_id=group))

    async def test_a_cancelled_seek_loses_nothing(self) -> None:
        """Wherever it is cancelled: it takes effect or it does not, and what is published later is received."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        topic, _, subscription = await self._consumed(transport, 10)
        assert isinstance(subscription, Seekable)
        for turns in range(10):
            seeking = asyncio.create_task(subscription.seek("beginning"))
            for _ in range(turns):
                await asyncio.sleep(0)
            seeking.cancel()
            await asyncio.wait([seeking])
            mark = b"mark-%d" % turns
            await self.publish(transport, [Message(topic, mark, key=b"key-0")])
            while (await self.read(subscription, 1))[0].value != mark:
                pass
        await subscription.seek("end")
        await self.publish(transport, [Message(topic, b"new", key=b"key-0")])
        assert values(d.message for d in await self.read(subscription, 1)) == [b"new"]

    async def test_the_latest_seek_counts(self) -> None:
        """Nothing comes that an earlier one has brought and nobody has received yet."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        topic, group, subscription = await self._consumed(transport, 10)
        assert isinstance(subscription, Seekable)
        await subscription.seek("beginning")
        await self.publish(transport, [Message(topic, b"another", key=b"key-0")])
        await asyncio.sleep(self.quiet)  # all of it may be fetched by now
        await subscription.seek("end")
        await self.assert_quiet(subscription)
        await asyncio.gather(*(subscription.seek(target) for target in ("end", "beginning", "end")))
        await self.assert_quiet(subscription)
        await self.publish(transport, [Message(topic, b"new", key=b"key-0")])
        assert values(d.message for d in await self.read(subscription, 1)) == [b"new"]
        await subscription.close()
        await self.assert_quiet(await self.subscribe(transport, topic, group_id=group))

    async def test_seek_forgets_what_is_out(self) -> None:
        """Settling a delivery from before does nothing, and takes no room of ``max_unsettled``."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        topic = await self.make_topic(transport)
        group = self.new_group()
        subscription = await self.subscribe(transport, topic, group_id=group, max_unsettled=5)
        assert isinstance(subscription, Seekable)
        await self.publish(transport, numbered(topic, 5, keys=1))
        forgotten = await self.read(subscription, 5, ack=False)
        await subscription.seek("beginning")
        again = await self.read(subscription, 5, ack=False)
        for delivery in forgotten:
            await delivery.ack()
        await self.assert_quiet(subscription)
        for delivery in again[:2]:
            await delivery.ack()
        await subscription.close()
        rest = await self.read(await self.subscribe(transport, topic, group_id=group), 3)
        assert values(d.message for d in rest) == [b"2", b"3", b"4"]

    async def test_seek_is_the_groups(self) -> None:
        """The position that was sought stays where the group goes on after close."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        topic, group, subscription = await self._consumed(transport, 5)
        assert isinstance(subscription, Seekable)
        await subscription.seek("beginning")
        await subscription.close()
        another = await self.subscribe(transport, topic, group_id=group)
        assert values(d.message for d in await self.read(another, 5)) == values(numbered(topic, 5))

    async def test_seek_in_one_topic_leaves_the_others(self) -> None:
        """``topic`` and ``partition`` say where; positions elsewhere stay."""
        transport = await self.open()
        requires(transport.capabilities, "seek")
        first, second = await self.make_topic(transport), await self.make_topic(transport)
        subscription = await self.subscribe(transport, first, second, group_id=self.new_group())
        assert isinstance(subscription, Seekable)
        await self.publish(transport, [*numbered(first, 5), *numbered(second, 5)])
        await self.read(subscription, 10)
        await subscription.seek("beginning", topic=first)
        assert {delivery.topic for delivery in await self.read(subscription, 5)} == {first}
        await self.assert_quiet(subscription)

    # --- browse -----------------------------------------------------------------------------------------------

    async def test_browsing_shows_what_is_stored(self) -> None:
        """From an offset on, up to a limit, with the places that the receipts named."""
        transport = await self.open()
        requires(transport.capabilities, "browse")
        assert isinstance(transport, Browsable)
        topic = await self.make_topic(transport)
        receipts = await self.publish(transport, numbered(topic, 20, keys=1))
        partition, first = receipts[0].partition, receipts[0].offset
        assert partition is not None
        assert first is not None
        stored = await transport.browse(topic, partition=partition)
        assert values(s.message for s in stored) == values(numbered(topic, 20))
        assert [(s.partition, s.offset) for s in stored] == [(r.partition, r.offset) for r in receipts]
        part = await transport.browse(topic, partition=partition, offset=first + 5, limit=3)
        assert values(s.message for s in part) == [b"5", b"6", b"7"]
        assert list(await transport.browse(topic, partition=partition, offset=first + 20)) == []

    async def test_browsing_touches_no_group(self) -> None:
        """A group still receives everything, each message as its first attempt."""
        transport = await self.open()
        requires(transport.capabilities, "browse")
        assert isinstance(transport, Browsable)
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        receipts = await self.publish(transport, numbered(topic, 5, keys=1))
        for _ in range(2):
            assert len(await transport.browse(topic, partition=receipts[0].partition or 0)) == 5
        received = await self.read(subscription, 5)
        assert {delivery.attempt for delivery in received} == {1}

    # --- declare ----------------------------------------------------------------------------------------------

    async def test_declaring_a_topic(self) -> None:
        """It is made as asked for, found again, listed, and not changed behind anybody's back."""
        transport = await self.open()
        requires(transport.capabilities, "declare")
        assert isinstance(transport, Declaring)
        topic = f"declared-{self.new_group()}"
        made = await transport.declare(topic, partitions=3)
        assert (made.topic, made.partitions) == (topic, 3)
        assert await transport.declare(topic, partitions=3) == made
        assert await transport.declare(topic) == made
        with pytest.raises(ConfigurationError):
            await transport.declare(topic, partitions=4)
        listed = list(await transport.topics())
        assert made in listed
        assert [info.topic for info in listed] == sorted(info.topic for info in listed)
        receipts = await self.publish(transport, numbered(topic, 100, keys=100))
        assert {receipt.partition for receipt in receipts} <= {0, 1, 2}

    async def test_deleting_a_topic(self) -> None:
        """It goes with its messages and the groups' positions; one that is not there is an `UnknownTopicError`."""
        transport = await self.open()
        requires(transport.capabilities, "declare")
        assert isinstance(transport, Declaring)
        topic = f"deleted-{self.new_group()}"
        group = self.new_group()
        await transport.declare(topic, partitions=1)
        subscription = await self.subscribe(transport, topic, group_id=group)
        await self.publish(transport, numbered(topic, 5))
        await self.read(subscription, 5)
        await subscription.close()
        await transport.delete(topic)
        assert topic not in [info.topic for info in await transport.topics()]
        with pytest.raises(UnknownTopicError):
            await transport.delete(topic)
        await transport.declare(topic, partitions=1)
        again = await self.subscribe(transport, topic, group_id=group)
        await self.publish(transport, [Message(topic, b"new")])
        assert values(d.message for d in await self.read(again, 1)) == [b"new"]

    # --- publish with a delay -----------------------------------------------------------------------------------

    async def test_a_delayed_message_is_not_seen_sooner(self) -> None:
        """It arrives once its delay is over; what is published meanwhile does not wait for it."""
        transport = await self.open()
        requires(transport.capabilities, "publish_delay")
        assert isinstance(transport, Delaying)
        runtime = current_runtime()
        topic = await self.make_topic(transport)
        subscription = await self.subscribe(transport, topic, group_id=self.new_group())
        delay = 5 * self.nack_delay  # long beside what it takes to publish and read on a busy machine
        started = runtime.monotonic()
        confirmed(await transport.publish_delayed([Message(topic, b"later", key=b"key")], delay))
        await self.publish(transport, [Message(topic, b"now", key=b"key")])
        assert values(d.message for d in await self.read(subscription, 1)) == [b"now"]
        [delivery] = await self.read(subscription, 1)
        waited = runtime.monotonic() - started
        assert delivery.value == b"later"
        assert waited >= delay - self.clock_tolerance, f"it came after {waited:.3f} s"
