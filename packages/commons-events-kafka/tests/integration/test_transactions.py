"""Exactly once: where the group stands after a transaction, whatever its consumer commits and whoever is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition

from commons_events.errors import ClosedError, TransactionAbortedError, TransactionError
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer, KafkaSubscription, KafkaTransport
from commons_events.testing import eventually
from commons_events.testing.services import RunningKafka
from commons_events.transport import Delivery
from commons_events.transport import TopicPartition as PartitionId

pytestmark = pytest.mark.asyncio
SOON = 60.0
"""Seconds that something may take on a busy machine."""
NEVER_MS = 600_000
"""Milliseconds that no test waits for."""


class Flow:
    """A topic that is read, one that is written, and the group between them."""

    def __init__(self, kafka: RunningKafka) -> None:
        if reason := kafka.why_not("transactions", "transactional-offsets", "read-committed"):
            pytest.skip(reason)
        self.kafka = kafka
        self.source, self.target = kafka.unique("source"), kafka.unique("target")
        self.group = kafka.unique("group")
        self.id = kafka.unique("id")

    async def declare(self, count: int, *, partitions: int = 1) -> None:
        """Make the topics, with ``count`` messages to read in each partition."""
        async with KafkaAdmin(self.kafka.bootstrap_servers) as admin:
            await admin.create_topic(self.source, partitions=partitions)
            await admin.create_topic(self.target, partitions=1)
        async with KafkaProducer(self.kafka.bootstrap_servers) as producer:
            for partition in range(partitions):
                for number in range(count):
                    await producer.send(self.source, b"%d" % number, partition=partition)

    def producer(self, **settings: Any) -> KafkaProducer:
        return KafkaProducer(self.kafka.bootstrap_servers, transactional_id=self.id, **settings)

    def consumer(self, **settings: Any) -> KafkaConsumer:
        """Commits by itself only where a test has it do so."""
        settings = {"commit_interval_ms": NEVER_MS, **settings}
        return KafkaConsumer(self.kafka.bootstrap_servers, self.group, [self.source], **settings)

    @asynccontextmanager
    async def clients(self) -> AsyncGenerator[tuple[KafkaProducer, KafkaConsumer]]:
        async with asyncio.timeout(2 * SOON), self.producer() as producer, self.consumer() as consumer:
            yield producer, consumer

    async def transform(self, producer: KafkaProducer, messages: Sequence[Delivery]) -> None:
        async with producer.transaction() as transaction:
            for message in messages:
                producer.send(self.target, message.value)  # type: ignore[unused-awaitable]  # the commit waits for it
            transaction.send_offsets(messages)

    async def position(self) -> int:
        """Where the group stands."""
        async with KafkaAdmin(self.kafka.bootstrap_servers) as admin:
            return (await admin.group_offsets(self.group)).get(PartitionId(self.source, 0), 0)

    async def written(self, count: int) -> list[bytes]:
        """What is seen of the target, once it has ``count`` messages."""
        found: list[bytes] = []
        group = self.kafka.unique("check")
        async with asyncio.timeout(SOON), KafkaConsumer(self.kafka.bootstrap_servers, group, [self.target]) as consumer:
            while len(found) < count:
                found += [message.value for message in await consumer.receive(100)]
        return found


async def take(consumer: KafkaConsumer, count: int) -> list[Delivery]:
    messages: list[Delivery] = []
    while len(messages) < count:
        messages += await consumer.receive(count - len(messages), timeout=SOON)
    return messages


def subscription(consumer: KafkaConsumer) -> KafkaSubscription:
    found = consumer._subscription
    assert isinstance(found, KafkaSubscription)
    return found


class Interrupted:
    """A client of librdkafka in whose event loop something happens first, when one of its methods is called."""

    def __init__(self, client: Any, method: str, first: Callable[[], Awaitable[object]]) -> None:
        self.client = client
        self.method = method
        self.first = first
        self.loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        if name != self.method:
            return found

        def interrupted(*arguments: object) -> Any:
            async def first() -> None:
                await self.first()

            asyncio.run_coroutine_threadsafe(first(), self.loop).result(SOON)
            return found(*arguments)

        return interrupted


def interrupt(
    producer: KafkaProducer, first: Callable[[], Awaitable[object]], method: str = "commit_transaction"
) -> None:
    transport = producer._transport
    assert isinstance(transport, KafkaTransport)
    assert transport._transactions is not None
    publisher = transport._transactions._publisher
    assert publisher is not None
    publisher.client = Interrupted(publisher.client, method, first)  # type: ignore[assignment]


# --- what the consumer commits beside them -------------------------------------------------------------------------


async def test_what_the_consumer_commits_meanwhile_does_not_take_the_group_back(kafka_service: RunningKafka) -> None:
    flow = Flow(kafka_service)
    await flow.declare(6)
    async with flow.clients() as (producer, consumer):
        for message in await take(consumer, 2):
            await message.ack()
        interrupt(producer, subscription(consumer).flush)
        for position in (4, 6):
            await flow.transform(producer, await take(consumer, 2))
            assert await flow.position() == position
    assert await flow.position() == 6


class Slow:
    """A client of librdkafka whose commits without waiting are still under way when it first asks what is committed."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.under_way: list[list[TopicPartition]] = []
        self.was_asked = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> Any:
        if asynchronous:
            self.under_way.append(offsets)
            return None
        return self.client.commit(offsets=offsets, asynchronous=False)

    def committed(self, partitions: list[TopicPartition], *, timeout: float) -> list[TopicPartition]:
        while self.was_asked and self.under_way:
            self.client.commit(offsets=self.under_way.pop(0), asynchronous=False)
        self.was_asked = True
        return self.client.committed(partitions, timeout=timeout)  # type: ignore[no-any-return]


async def test_what_the_consumer_committed_before_arrives_before(kafka_service: RunningKafka) -> None:
    flow = Flow(kafka_service)
    await flow.declare(4)
    async with flow.clients() as (producer, consumer):
        for message in await take(consumer, 2):
            await message.ack()
        held = subscription(consumer)
        held._poller.consumer = slow = Slow(held._poller.consumer)  # type: ignore[assignment]
        held._commit()  # as its timer does
        await eventually(lambda: slow.under_way, timeout=SOON)
        await flow.transform(producer, await take(consumer, 2))
        await held._poller.call(lambda: [slow.client.commit(offsets=o, asynchronous=False) for o in slow.under_way])
        assert await flow.position() == 4


async def test_what_the_consumer_committed_before_and_never_arrives_ends_the_transaction(
    kafka_service: RunningKafka,
) -> None:
    """Within its time, and the consumer goes on."""
    flow = Flow(kafka_service)
    await flow.declare(4)
    async with (
        asyncio.timeout(2 * SOON),
        flow.producer() as producer,
        flow.consumer(transaction_commit_timeout_ms=1_000) as consumer,
    ):
        for message in await take(consumer, 2):
            await message.ack()
        held = subscription(consumer)
        client = held._poller.consumer
        held._poller.consumer = slow = Slow(client)  # type: ignore[assignment]
        slow.commit = lambda **_: None  # type: ignore[method-assign]
        held._commit()
        messages = await take(consumer, 2)
        with pytest.raises(TransactionAbortedError, match="not committed yet"):
            await flow.transform(producer, messages)
        held._poller.consumer = client
        held.on_commit_failed(list(held.assignment))
        await flow.transform(producer, messages)
        assert await flow.position() == 4


async def test_a_transaction_that_is_refused_lets_go_of_nothing_that_another_one_holds(
    kafka_service: RunningKafka,
) -> None:
    flow = Flow(kafka_service)
    await flow.declare(4)
    async with flow.clients() as (producer, consumer), KafkaProducer(kafka_service.bootstrap_servers) as other:
        messages = await take(consumer, 4)

        async def refuse() -> None:
            with pytest.raises(TransactionError, match="unfinished"):
                await flow.transform(other, messages[2:])
            await subscription(consumer).flush()

        interrupt(producer, refuse)
        await flow.transform(producer, messages[:2])
        assert await flow.position() == 2


async def test_a_producer_may_be_entered_inside_a_transaction_of_its_transport(kafka_service: RunningKafka) -> None:
    flow = Flow(kafka_service)
    await flow.declare(0)
    transport = KafkaTransport(f"kafka://{kafka_service.bootstrap_servers}", **{"transactional.id": flow.id})
    try:
        async with asyncio.timeout(SOON), KafkaProducer(transport=transport) as producer, producer.transaction():
            await producer.send(flow.target, b"first")
            async with KafkaProducer(transport=transport):
                await producer.send(flow.target, b"second")
    finally:
        await transport.close()
    assert await flow.written(2) == [b"first", b"second"]


async def test_an_aborted_transaction_leaves_the_position_to_the_consumer(kafka_service: RunningKafka) -> None:
    flow = Flow(kafka_service)
    await flow.declare(4)
    async with flow.clients() as (producer, consumer):
        first, *others = await take(consumer, 4)

        async def fail() -> None:
            await first.ack()  # which the transaction was to finish
            raise LookupError

        interrupt(producer, fail, "send_offsets_to_transaction")
        with pytest.raises(LookupError):
            await flow.transform(producer, [first, *others])
        await subscription(consumer).flush()
        assert await flow.position() == 1


# --- being cancelled -----------------------------------------------------------------------------------------------


async def test_who_is_cancelled_while_it_commits_has_committed(kafka_service: RunningKafka) -> None:
    flow = Flow(kafka_service)
    await flow.declare(3)
    async with flow.clients() as (producer, consumer):
        messages = await take(consumer, 3)
        task = asyncio.create_task(flow.transform(producer, messages))

        async def cancel() -> None:
            for _ in range(2):  # also again
                task.cancel()
                await asyncio.sleep(0)

        interrupt(producer, cancel)
        await asyncio.wait([task])
        assert task.cancelled()
        await subscription(consumer).flush()
        assert await flow.position() == 3
    assert await flow.position() == 3
    assert await flow.written(3) == [b"0", b"1", b"2"]


async def test_an_event_loop_that_ends_while_it_commits_does_not_take_the_group_back(
    kafka_service: RunningKafka,
) -> None:
    flow = Flow(kafka_service)
    await flow.declare(3)

    async def work(commits: asyncio.Event) -> None:
        async with flow.clients() as (producer, consumer):
            messages = await take(consumer, 3)

            async def tell() -> None:
                commits.set()

            interrupt(producer, tell)
            await flow.transform(producer, messages)

    async def program() -> None:
        commits = asyncio.Event()
        task = asyncio.create_task(work(commits))
        waiting = asyncio.create_task(commits.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)

    await asyncio.to_thread(asyncio.run, program())
    async with flow.clients() as (producer, consumer):
        if await flow.position() < 3:  # the broker had not heard of the commit
            await flow.transform(producer, await take(consumer, 3))
    assert await flow.written(3) == [b"0", b"1", b"2"]


# --- those that others left open -----------------------------------------------------------------------------------


async def test_what_a_predecessor_left_open_ends_when_the_producer_starts(kafka_service: RunningKafka) -> None:
    """Until then nobody can tell where the group stands, and its consumers wait."""
    flow = Flow(kafka_service)
    await flow.declare(3)

    def die() -> None:
        servers = {"bootstrap.servers": kafka_service.bootstrap_servers}
        consumer = confluent_kafka.Consumer({**servers, "group.id": flow.group})
        metadata = consumer.consumer_group_metadata()
        consumer.close()
        config = {**servers, "transactional.id": flow.id, "transaction.timeout.ms": NEVER_MS}
        client = confluent_kafka.Producer(config)
        client.init_transactions(SOON)
        client.begin_transaction()
        client.produce(flow.target, b"never")
        client.send_offsets_to_transaction([TopicPartition(flow.source, 0, 3)], metadata, SOON)

    await asyncio.to_thread(die)
    async with flow.clients() as (producer, consumer):
        await flow.transform(producer, await take(consumer, 3))
    assert await flow.written(3) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("setting", ["transaction.commit.timeout.ms", "connect.timeout.ms"])
async def test_a_producer_that_finds_no_broker_when_it_starts_is_closed(setting: str) -> None:
    others = {"transaction.commit.timeout.ms": 600_000, "connect.timeout.ms": 600_000}
    producer = KafkaProducer("127.0.0.1:1", transactional_id="id", options=others | {setting: 300})
    async with asyncio.timeout(SOON):
        with pytest.raises(TransactionAbortedError, match=f"opening the transactional producer.*{setting}"):
            async with producer:
                pass
        assert producer._closed


async def test_a_producer_that_is_closed_in_its_transaction_aborts_it(kafka_service: RunningKafka) -> None:
    topic = kafka_service.unique("closed")
    async with KafkaAdmin(kafka_service.bootstrap_servers) as admin:
        await admin.create_topic(topic, partitions=1)
    producer = KafkaProducer(kafka_service.bootstrap_servers)
    with pytest.raises(ClosedError, match="transaction"):
        async with producer.transaction():
            await producer.send(topic, b"never")
            await producer.close()
    async with KafkaProducer(kafka_service.bootstrap_servers) as another:
        await another.send(topic, b"after")
    group = kafka_service.unique("group")
    async with KafkaConsumer(kafka_service.bootstrap_servers, group, topic) as consumer:
        [message] = await consumer.receive(1, timeout=SOON)
        assert message.value == b"after"


# --- rebalances ----------------------------------------------------------------------------------------------------


async def test_a_transaction_over_a_partition_that_leaves_may_be_done_again(kafka_service: RunningKafka) -> None:
    flow = Flow(kafka_service)
    await flow.declare(2, partitions=2)
    quick = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 300}
    async with asyncio.timeout(2 * SOON), flow.producer() as producer, flow.consumer(**quick) as consumer:
        messages = await take(consumer, 4)
        other = flow.consumer(**quick)
        joining = asyncio.create_task(other.start())
        try:
            await eventually(lambda: len(consumer.assignment) == 1, timeout=SOON)
            with pytest.raises(TransactionAbortedError, match="comes again there") as caught:
                await flow.transform(producer, messages)
            assert caught.value.retriable
            for message in messages:
                await message.nack()
            kept = await take(consumer, 2)
            await flow.transform(producer, kept)
            await joining
            await flow.transform(producer, await take(other, 2))
        finally:
            await asyncio.wait([joining])
            await other.close()
    assert sorted(await flow.written(4)) == [b"0", b"0", b"1", b"1"]
