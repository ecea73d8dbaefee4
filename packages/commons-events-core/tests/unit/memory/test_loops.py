"""The in-process broker over several threads and event loops, and over one `asyncio.run` after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from commons_events import Event, EventConsumer, EventProducer, Message
from commons_events.errors import WrongEventLoopError
from commons_events.memory import MemoryBroker, MemoryLimits, MemoryTransport
from commons_events.transport import SubscribeRequest


class Happened(Event):
    event_type = "unit.loops.happened"
    n: int = 0


@pytest.fixture(autouse=True)
def fresh_brokers() -> Iterator[None]:
    MemoryBroker.reset_all()
    yield
    MemoryBroker.reset_all()


def in_thread(main: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    return thread


async def produce(count: int, start: int = 0) -> None:
    async with EventProducer(broker="memory") as producer:
        await producer.send_batch("t", [Happened(n=n) for n in range(start, start + count)])


async def consume(count: int, *, ack: bool = True, group: str = "g") -> list[int]:
    got: list[int] = []
    async with EventConsumer(broker="memory", topics=["t"], group_id=group) as consumer:
        async for message in consumer:
            got.append(message.event(Happened).n)
            if ack:
                await message.ack()
            if len(got) == count:
                break
    return got


def test_what_one_asyncio_run_sent_the_next_one_receives() -> None:
    asyncio.run(produce(5))
    assert sorted(asyncio.run(consume(5))) == [0, 1, 2, 3, 4]


def test_a_group_goes_on_in_the_next_asyncio_run() -> None:
    asyncio.run(produce(4))
    first = asyncio.run(consume(2))
    second = asyncio.run(consume(2))
    assert sorted(first + second) == [0, 1, 2, 3]


def test_what_a_run_left_unsettled_comes_again_in_the_next() -> None:
    asyncio.run(produce(3))
    assert sorted(asyncio.run(consume(3, ack=False))) == [0, 1, 2]
    assert sorted(asyncio.run(consume(3))) == [0, 1, 2]


def test_a_member_whose_loop_has_ended_without_closing_holds_nothing() -> None:
    kept: list[EventConsumer] = []

    async def leak() -> None:
        consumer = EventConsumer(broker="memory", topics=["t"], group_id="g")
        kept.append(consumer)
        await consumer.start()
        assert len(await consumer.receive(10)) > 0

    asyncio.run(produce(3))
    asyncio.run(leak())
    assert sorted(asyncio.run(consume(3))) == [0, 1, 2]


def test_publishing_wakes_a_receiver_in_another_thread_s_loop() -> None:
    waiting = threading.Event()
    got: list[int] = []

    async def receive() -> None:
        async with EventConsumer(broker="memory", topics=["t"], group_id="g") as consumer:
            waiting.set()
            got.extend(message.event(Happened).n for message in await consumer.receive(1, timeout=60))

    thread = in_thread(receive)
    assert waiting.wait(60)
    asyncio.run(produce(1, start=7))
    thread.join(60)
    assert got == [7]


def test_settling_in_one_thread_lets_a_waiting_publisher_in_another_go_on() -> None:
    broker = MemoryBroker("t", MemoryLimits(max_messages=1))
    full = threading.Event()
    offsets: list[Any] = []

    async def publish() -> None:
        transport = MemoryTransport(broker)
        await transport.publish([Message("t", b"1", partition=0)])
        second = transport.publish([Message("t", b"2", partition=0)])
        assert not second.done()
        full.set()
        offsets.append((await asyncio.wait_for(second, 60))[0])

    async def settle() -> None:
        subscription = await MemoryTransport(broker).subscribe(SubscribeRequest(topics=("t",), group_id="g"))
        (delivery,) = await subscription.receive(10)
        await delivery.ack()
        await subscription.close()

    thread = in_thread(publish)
    assert full.wait(60)
    asyncio.run(settle())
    thread.join(60)
    assert [receipt.offset for receipt in offsets] == [1]


def test_many_threads_share_a_group_and_lose_and_double_nothing() -> None:
    total, members = 1_200, 3
    got: list[int] = []
    lock = threading.Lock()
    done = threading.Event()

    async def member() -> None:
        async with EventConsumer(broker="memory", topics=["t"], group_id="g") as consumer:
            while not done.is_set():
                for message in await consumer.receive(50, timeout=0.05):
                    await message.ack()
                    with lock:
                        got.append(message.event(Happened).n)
                        if len(got) >= total:
                            done.set()

    threads = [in_thread(member) for _ in range(members)]
    producers = [in_thread(lambda start=start: produce(total // 4, start)) for start in range(0, total, total // 4)]
    for thread in producers:
        thread.join(60)
    assert done.wait(60)
    for thread in threads:
        thread.join(60)
    assert sorted(got) == list(range(total))


def test_a_producer_belongs_to_the_loop_of_its_first_use() -> None:
    producer = EventProducer(broker="memory")
    with pytest.raises(WrongEventLoopError, match="running event loop"):
        producer.send("t", Happened())

    async def use() -> None:
        await producer.send("t", Happened())

    asyncio.run(use())
    with pytest.raises(WrongEventLoopError, match="another event loop"):
        asyncio.run(use())


def test_a_consumer_belongs_to_the_loop_of_its_first_use() -> None:
    consumer = EventConsumer(broker="memory", topics=["t"])

    async def use() -> None:
        await consumer.start()

    asyncio.run(use())
    with pytest.raises(WrongEventLoopError, match="another event loop"):
        asyncio.run(use())


def test_making_clients_needs_no_loop_and_connects_nothing() -> None:
    EventProducer(broker="memory://elsewhere")
    EventConsumer(broker="memory://elsewhere", topics=["t"])
    assert MemoryBroker.get("elsewhere").topics() == []


def full_broker() -> tuple[MemoryBroker, MemoryTransport]:
    """A broker whose topic has one message and no room, and a client of it."""
    broker = MemoryBroker("full", MemoryLimits(max_messages=1, partitions=1))
    transport = MemoryTransport(broker)

    async def fill() -> None:
        await transport.publish([Message("t", b"first")])

    asyncio.run(fill())
    return broker, transport


def test_flush_waits_for_what_another_event_loop_handed_over() -> None:
    broker, transport = full_broker()
    handed_over, order = threading.Event(), list[str]()

    async def publish() -> None:
        published = transport.publish([Message("t", b"second")])
        handed_over.set()
        await published
        order.append("published")

    async def flush() -> None:
        flushing = asyncio.ensure_future(transport.flush())
        await asyncio.sleep(0.02)
        assert not flushing.done()
        subscription = await MemoryTransport(broker).subscribe(SubscribeRequest(topics=("t",), group_id="g"))
        (delivery,) = await subscription.receive(1)
        await delivery.ack()
        await asyncio.wait_for(flushing, 60)
        await subscription.close()

    thread = in_thread(publish)
    assert handed_over.wait(60)
    asyncio.run(flush())
    thread.join(60)
    assert order == ["published"]


def test_flush_waits_for_nobody_whose_event_loop_is_closed() -> None:
    _, transport = full_broker()

    async def publish() -> None:
        transport.publish([Message("t", b"second")])

    asyncio.run(publish())
    asyncio.run(asyncio.wait_for(transport.flush(), 60))
    asyncio.run(asyncio.wait_for(transport.close(), 60))
