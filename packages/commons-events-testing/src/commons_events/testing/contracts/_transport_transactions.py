"""Transactions: seen together, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from commons_events.errors import TransactionError
from commons_events.message import Message
from commons_events.testing.contracts._broker import BrokerContract, numbered, values
from commons_events.testing.contracts._contract import requires
from commons_events.transport import Outcome, Settlement, Subscription, Transactional, Transport

__all__ = ["TransactionTests"]


class TransactionTests(BrokerContract, contract=True):
    """`Transactional`."""

    async def _open_transactional(self) -> Transport:
        transport = await self.open()
        requires(transport.capabilities, "transactions")
        assert isinstance(transport, Transactional)
        return transport

    async def _reader(self, transport: Transport, *topics: str, group: str | None = None) -> Subscription:
        return await self.subscribe(transport, *topics, group_id=group or self.new_group())

    async def test_a_transaction_is_seen_when_it_commits(self) -> None:
        """Nobody sees its messages before, and everybody all of them after; others go on meanwhile."""
        transport = await self._open_transactional()
        assert isinstance(transport, Transactional)
        first, second = await self.make_topic(transport), await self.make_topic(transport)
        reader = await self._reader(await self.open(), first, second)
        async with transport.transaction() as transaction:
            transaction.publish(numbered(first, 5, keys=1))
            transaction.publish(numbered(second, 5, keys=1))
            await self.assert_quiet(reader)
        received = await self.read(reader, 10)
        for topic in (first, second):
            assert values(d.message for d in received if d.topic == topic) == values(numbered(topic, 5))
        await self.assert_quiet(reader)

    async def test_an_aborted_transaction_is_never_seen(self) -> None:
        """The block's exception passes, and nothing of it is visible, then or later."""
        transport = await self._open_transactional()
        assert isinstance(transport, Transactional)
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        with pytest.raises(LookupError, match="changed my mind"):  # noqa: PT012  # the block is what is tested
            async with transport.transaction() as transaction:
                transaction.publish([Message(topic, b"never")])
                raise LookupError("changed my mind")
        await self.publish(transport, [Message(topic, b"after")])
        assert values(d.message for d in await self.read(reader, 1)) == [b"after"]
        await self.assert_quiet(reader)

    async def test_a_cancelled_transaction_is_aborted(self) -> None:
        """A cancel inside the block is no commit."""
        transport = await self._open_transactional()
        assert isinstance(transport, Transactional)
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        begun = asyncio.Event()

        async def stall() -> None:
            assert isinstance(transport, Transactional)
            async with transport.transaction() as transaction:
                transaction.publish([Message(topic, b"never")])
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(stall())
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await self.publish(transport, [Message(topic, b"after")])
        assert values(d.message for d in await self.read(reader, 1)) == [b"after"]

    async def test_a_transaction_that_is_cancelled_as_it_begins_is_aborted(self) -> None:
        """However far it had come; the next one goes on."""
        transport = await self._open_transactional()
        assert isinstance(transport, Transactional)
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)

        async def stall() -> None:
            assert isinstance(transport, Transactional)
            async with transport.transaction() as transaction:
                transaction.publish([Message(topic, b"never")])
                await asyncio.Event().wait()

        for turns in range(6):
            async with transport.transaction() as transaction:
                transaction.publish([Message(topic, b"%d" % turns, key=b"key")])
            task = asyncio.create_task(stall())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        assert values(d.message for d in await self.read(reader, 6)) == [b"%d" % turns for turns in range(6)]
        await self.assert_quiet(reader)

    async def test_settlements_belong_to_the_transaction(self) -> None:
        """Consume, transform, produce: input settled and output visible together, and after an abort neither."""
        transport = await self._open_transactional()
        assert isinstance(transport, Transactional)
        source, target = await self.make_topic(transport), await self.make_topic(transport)
        group = self.new_group()
        reader = await self._reader(transport, target)
        await self.publish(transport, [Message(source, b"input")])
        for commit in (False, True):
            subscription = await self._reader(transport, source, group=group)
            [delivery] = await self.read(subscription, 1, ack=False)
            assert delivery.value == b"input"
            try:
                async with transport.transaction() as transaction:
                    transaction.publish([Message(target, b"output")])
                    transaction.settle([Settlement(delivery, Outcome.ACK)])
                    if not commit:
                        raise LookupError("not yet")
            except LookupError:
                await self.assert_quiet(reader)
            await subscription.close()
        assert values(d.message for d in await self.read(reader, 1)) == [b"output"]
        await self.assert_quiet(await self._reader(transport, source, group=group))

    async def test_stale_settlements_are_not_committed(self) -> None:
        """Where the input belongs to another consumer by now, nothing of the transaction becomes visible."""
        transport = await self._open_transactional()
        assert isinstance(transport, Transactional)
        source, target = await self.make_topic(transport), await self.make_topic(transport)
        group = self.new_group()
        reader = await self._reader(transport, target)
        lost = await self._reader(await self.open(), source, group=group)
        await self.publish(transport, [Message(source, b"input")])
        [stale] = await self.read(lost, 1, ack=False)
        await self.lose(lost)
        survivor = await self._reader(transport, source, group=group)
        await self.read(survivor, 1)
        with pytest.raises(TransactionError):  # noqa: PT012  # the block is what is tested
            async with transport.transaction() as transaction:
                transaction.publish([Message(target, b"twice")])
                transaction.settle([Settlement(stale, Outcome.ACK)])
        await self.assert_quiet(reader)

    async def test_a_transaction_ends_with_its_block(self) -> None:
        """Using it afterwards is a `TransactionError`."""
        transport = await self._open_transactional()
        assert isinstance(transport, Transactional)
        topic = await self.make_topic(transport)
        async with transport.transaction() as transaction:
            pass
        with pytest.raises(TransactionError):
            transaction.publish([Message(topic, b"late")])
        with pytest.raises(TransactionError):
            transaction.settle([])

    async def test_transactions_do_not_disturb_each_other(self) -> None:
        """Several at once commit each its own, and keep the order of a key inside each."""
        transport = await self._open_transactional()
        assert isinstance(transport, Transactional)
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)

        async def one(number: int) -> None:
            assert isinstance(transport, Transactional)
            async with transport.transaction() as transaction:
                for step in range(5):
                    transaction.publish([Message(topic, b"%d-%d" % (number, step), key=b"key-%d" % number)])
                    await asyncio.sleep(0)

        await asyncio.gather(*map(one, range(5)))
        received = values(d.message for d in await self.read(reader, 25))
        for number in range(5):
            own = [value for value in received if value.startswith(b"%d-" % number)]
            assert own == [b"%d-%d" % (number, step) for step in range(5)]
