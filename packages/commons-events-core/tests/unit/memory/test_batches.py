"""Batches on the in-process broker: stored and handed out together, to the same effect as one by one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons_events import Message
from commons_events.errors import MessageTooLargeError
from commons_events.memory import MemoryBroker, MemoryLimits, MemoryTransport
from commons_events.message import Messages, Receipt
from commons_events.transport import Delivery, SubscribeRequest

Bench = Callable[..., Any]
MOMENT = datetime(2024, 5, 6, tzinfo=UTC)

_keys = st.sampled_from([None, b"a", b"b", b"c"])
_alike = st.lists(st.tuples(_keys, st.just(b"v"), st.just(MOMENT), st.none(), st.just("t")), max_size=40)
_mixed = st.lists(
    st.tuples(
        _keys,
        st.none() | st.just(b"v"),
        st.none() | st.just(MOMENT),
        st.none() | st.integers(0, 2),
        st.sampled_from(["t", "u"]),
    ),
    max_size=20,
)


def messages_of(fields: list[tuple[Any, ...]]) -> list[Message]:
    return [
        Message(topic, value, key, (("n", str(number).encode()),), timestamp, partition)
        for number, (key, value, timestamp, partition, topic) in enumerate(fields)
    ]


def number_of(message: Message) -> int:
    return int(message.header("n") or "")


@given(batches=st.lists(_alike | _mixed, min_size=1, max_size=4), limit=st.sampled_from([1, 3, 7, 100]), data=st.data())
def test_a_batch_is_stored_where_its_receipts_say_and_received_in_its_order(
    batches: list[list[tuple[Any, ...]]], limit: int, data: st.DataObject
) -> None:
    messages = messages_of([fields for batch in batches for fields in batch])
    sizes = [len(batch) for batch in batches]
    settled: set[int] = set()

    async def run() -> None:
        transport = MemoryTransport(MemoryBroker(limits=MemoryLimits(partitions=3)))
        subscription = await transport.subscribe(SubscribeRequest(topics=("t", "u"), group_id="g"))
        start, stored = 0, {}
        for size in sizes:
            batch = messages[start : start + size]
            for message, receipt in zip(batch, await transport.publish(batch), strict=True):
                assert isinstance(receipt, Receipt)
                stored[receipt] = message
            start += size
        assert len(stored) == len(messages)
        for receipt, message in stored.items():
            assert receipt.partition is not None
            assert receipt.offset is not None
            (found,) = await transport.browse(
                receipt.topic, partition=receipt.partition, offset=receipt.offset, limit=1
            )
            assert number_of(found.message) == number_of(message)
            assert found.message.timestamp is not None
            assert message.partition in (None, receipt.partition)
        got: list[Delivery] = []
        again: Counter[int] = Counter()
        while len(settled) < len(messages):
            for delivery in await asyncio.wait_for(subscription.receive(limit), 60):
                number = number_of(delivery.message)
                assert stored[Receipt(delivery.topic, delivery.partition, delivery.offset)] is messages[number] or (
                    messages[number].timestamp is None
                )
                assert delivery.attempt == again[number] + 1
                if delivery.attempt == 1:
                    got.append(delivery)
                if again[number] < 2 and data.draw(st.booleans()):
                    again[number] += 1
                    await delivery.nack(0)
                else:
                    await delivery.ack()
                    settled.add(number)
        for topic in ("t", "u"):
            received = [number_of(d.message) for d in got if d.topic == topic]
            assert again or received == sorted(received)
            for key in (b"a", b"b", b"c"):
                by_key = [number for number in received if messages[number].key == key]
                asked_for = any(messages[number].partition is not None for number in by_key)
                assert asked_for or by_key == sorted(by_key)

    asyncio.run(run())


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, 2, 8, 9, 500])
async def test_a_batch_without_keys_is_spread_over_the_partitions(bench: Bench, count: int) -> None:
    b = bench(partitions=8)
    subscription = await b.subscribe()
    batch = messages_of([(None, b"v", MOMENT, None, "t")] * count)
    receipts = await b.transport.publish(batch)
    sizes = Counter(receipt.partition for receipt in receipts)
    assert max(sizes.values()) == -(-count // 8)
    assert [number_of(d.message) for d in await b.take(subscription, 1000)] == list(range(count))


@pytest.mark.asyncio
async def test_two_members_share_what_one_batch_brought(bench: Bench) -> None:
    b = bench(partitions=4)
    one, two = await b.subscribe(), await b.subscribe()
    await b.transport.publish(messages_of([(bytes([n]), b"v", MOMENT, None, "t") for n in range(100)]))
    first, second = await b.take(one, 30), await b.take(two, 1000)
    while more := await b.take(one, 30):
        first += more
    numbers = [[number_of(d.message) for d in got] for got in (first, second)]
    assert sorted(numbers[0] + numbers[1]) == list(range(100))
    assert all(own == sorted(own) and own for own in numbers)


@pytest.mark.asyncio
async def test_a_batch_larger_than_the_limit_refuses_only_the_message_that_is(bench: Bench) -> None:
    b = bench(max_message_bytes=1000)
    small = Message("t", b"v" * 400, timestamp=MOMENT)
    large = small._replace(headers=(("h", b"x" * 700),))
    results = await b.transport.publish([small, small, large, small])
    assert [isinstance(result, MessageTooLargeError) for result in results] == [False, False, True, False]
    told = Messages([small, small, large, small], most_header_bytes=701)
    results = await b.transport.publish(told)
    assert [isinstance(result, MessageTooLargeError) for result in results] == [False, False, True, False]
    assert len(b.stored()) == 6


@pytest.mark.asyncio
async def test_a_batch_that_has_no_room_as_a_whole_fills_what_there_is(bench: Bench) -> None:
    b = bench(max_messages=3)
    waiting = b.transport.publish([Message("t", bytes([n]), timestamp=MOMENT) for n in range(5)])
    assert not waiting.done()
    assert len(b.stored()) == 3
    subscription = await b.subscribe()
    for delivery in await b.take(subscription):
        await delivery.ack()
    assert len(await asyncio.wait_for(waiting, 60)) == 5
    assert [d.value for d in await b.take(subscription)] == [b"\x03", b"\x04"]
