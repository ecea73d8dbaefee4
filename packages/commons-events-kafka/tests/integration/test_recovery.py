"""A subscription whose client is made anew, or whose event loop hears late of what became of its partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from commons_events.consumers import EventConsumer
from commons_events.errors import ConnectionLostError, TransactionAbortedError, TransactionError
from commons_events.kafka import KafkaAdmin, KafkaProducer, _subscription
from commons_events.kafka._poller import Poller
from commons_events.kafka._publisher import Publisher
from commons_events.kafka._subscription import KafkaSubscription
from commons_events.kafka._transport import KafkaTransport
from commons_events.testing import History
from commons_events.testing.services import RunningKafka
from commons_events.transport import Delivery
from commons_events.transport import TopicPartition as PartitionId

pytestmark = pytest.mark.asyncio
PATIENCE = 60.0


class Case:
    """A topic of one partition, what was sent to it, and what was received."""

    def __init__(self, kafka: RunningKafka) -> None:
        self.kafka = kafka
        self.topic = kafka.unique("recovery")
        self.history = History()

    async def send(self, count: int) -> None:
        """Send ``count`` more, each with the next number."""
        first = len(self.history.confirmed)
        async with KafkaProducer(self.kafka.bootstrap_servers) as producer:
            for number in range(first, first + count):
                await producer.send(self.topic, b"%d" % number, key="key")
                self.history.confirmed.append(("key", number))

    async def declare(self) -> None:
        async with KafkaAdmin(self.kafka.bootstrap_servers) as admin:
            await admin.create_topic(self.topic, partitions=1)

    def consumer(
        self, *, grouped: bool = True, start: Literal["earliest", "latest"] = "earliest", **settings: Any
    ) -> EventConsumer:
        group = self.kafka.unique("group") if grouped else None
        url = f"kafka://{self.kafka.bootstrap_servers}"
        return EventConsumer(url=url, group_id=group, topics=[self.topic], start=start, **settings)

    async def receive(self, consumer: EventConsumer, until: int, *, most: int = 5) -> None:
        """Receive and finish messages until the one with the number ``until`` has come."""
        while not self.history.handled or self.history.handled[-1][1] < until:
            messages = await consumer.receive(most, timeout=PATIENCE)
            assert messages, f"nothing came in {PATIENCE:g} s; {len(self.history.missing())} are missing"
            for message in messages:
                self.history.handled.append(("key", int(message.value)))
                await message.ack()


def subscription(consumer: EventConsumer) -> tuple[KafkaSubscription, Poller]:
    found = consumer._subscription
    assert isinstance(found, KafkaSubscription)
    return found, found._poller


def publisher_of(producer: KafkaProducer) -> Publisher:
    transport = producer._transport
    assert isinstance(transport, KafkaTransport)
    assert transport.publisher is not None
    return transport.publisher


@pytest.mark.parametrize("grouped", [True, False], ids=["group", "no group"])
async def test_a_client_made_anew_goes_on_where_it_was(kafka_service: RunningKafka, grouped: bool) -> None:
    case = Case(kafka_service)
    await case.declare()
    await case.send(20)
    async with case.consumer(grouped=grouped) as consumer:
        await case.receive(consumer, 9)
        _, poller = subscription(consumer)
        for last in (29, 39):
            before = poller.consumer
            await poller.call(partial(poller.begin_again, "for a test"))
            assert poller.consumer is not before
            await case.send(10)
            await case.receive(consumer, last)
    case.history.check()


async def test_a_reader_from_the_end_made_anew_does_not_go_back(kafka_service: RunningKafka) -> None:
    case = Case(kafka_service)
    await case.declare()
    await case.send(5)
    async with case.consumer(grouped=False, start="latest") as consumer:
        _, poller = subscription(consumer)
        await poller.call(partial(poller.begin_again, "for a test"))
        await case.send(5)
        await case.receive(consumer, 9)
    assert [number for _, number in case.history.handled] == [5, 6, 7, 8, 9]


async def test_a_client_that_fetches_nothing_of_its_partitions_is_made_anew(kafka_service: RunningKafka) -> None:
    """As one whose question where its group stands was lost with its broker: it is assigned, and never fetches."""
    case = Case(kafka_service)
    await case.declare()
    await case.send(5)
    async with case.consumer() as consumer:
        await case.receive(consumer, 4)
        _, poller = subscription(consumer)
        async with asyncio.timeout(PATIENCE):
            while poller.intake.unheard:  # noqa: ASYNC110  # a set; the end of a partition is heard of, too
                await asyncio.sleep(0.05)
        before = poller.consumer

        def fall_silent() -> None:
            partitions = before.assignment()
            before.pause(partitions)
            poller.intake.unheard.update(PartitionId(p.topic, p.partition) for p in partitions)
            poller.membership.hear_until = 0.0

        await poller.call(fall_silent)
        await case.send(5)
        await case.receive(consumer, 9)
        assert poller.consumer is not before
    case.history.check()


async def test_a_commit_that_is_under_way_and_fails_is_made_again_on_closing(kafka_service: RunningKafka) -> None:
    case = Case(kafka_service)
    await case.declare()
    await case.send(5)
    consumer = case.consumer()
    group = consumer.config.group_id
    async with consumer:
        await case.receive(consumer, 4)
        held, poller = subscription(consumer)
        # As a rebalance does that comes between: the broker has an older generation, and says so too late.
        poller.commit_soon = lambda positions: None  # type: ignore[method-assign]
        held._commit()
    await case.send(1)
    async with EventConsumer(
        url=f"kafka://{case.kafka.bootstrap_servers}", group_id=group, topics=[case.topic]
    ) as next:
        (message,) = await next.receive(10, timeout=PATIENCE)
        assert message.value == b"5"


class Refusing:
    """A client of librdkafka one of whose methods fails so often, as it does for a while on a slow broker."""

    def __init__(self, client: Any, method: str, code: int, times: int) -> None:
        self.client = client
        self.method = method
        self.code = code
        self.left = times

    def __getattr__(self, name: str) -> Any:
        return self.refuse if name == self.method and self.left else getattr(self.client, name)

    def refuse(self, *_: object, **__: object) -> None:
        self.left -= 1
        raise KafkaException(KafkaError(self.code))


async def test_a_commit_waits_for_the_end_of_a_rebalance(
    kafka_service: RunningKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes as long as the slowest member does."""
    monkeypatch.setattr(_subscription, "_COMMIT_TRIES", 3)
    case = Case(kafka_service)
    await case.declare()
    await case.send(5)
    async with case.consumer(options={"commit.interval.ms": 600_000}) as consumer:
        await case.receive(consumer, 4)
        _, poller = subscription(consumer)
        poller.consumer = refusing = Refusing(poller.consumer, "commit", KafkaError.REBALANCE_IN_PROGRESS, 10)  # type: ignore[assignment]
        await consumer.commit(wait=True)
        assert not refusing.left
        poller.consumer = refusing.client


async def test_a_seek_waits_until_its_partition_is_fetched(
    kafka_service: RunningKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after the assignment, and where its group's place is told late."""
    monkeypatch.setattr(_subscription, "sleep", lambda _: None)
    case = Case(kafka_service)
    await case.declare()
    await case.send(5)
    async with case.consumer() as consumer:
        await case.receive(consumer, 4)
        _, poller = subscription(consumer)
        poller.consumer = refusing = Refusing(poller.consumer, "seek", KafkaError._STATE, 500)  # type: ignore[assignment]
        await consumer.seek("beginning")
        assert not refusing.left
        poller.consumer = refusing.client
        assert (await consumer.receive(1, timeout=PATIENCE))[0].value == b"0"


async def test_a_producer_made_anew_sends_what_was_not_confirmed_in_its_order(kafka_service: RunningKafka) -> None:
    case = Case(kafka_service)
    await case.declare()
    await case.send(1)
    headers = {"place": "first"}
    async with KafkaProducer(kafka_service.bootstrap_servers, linger_ms=2_000) as producer:
        numbers = range(1, 31)
        ones = [producer.send(case.topic, b"%d" % number, key="key", headers=headers) for number in numbers[:10]]
        batch = [b"%d" % number for number in numbers[10:]]
        sending = asyncio.ensure_future(producer.send_batch(case.topic, batch, key="key", headers=headers))
        await asyncio.sleep(0)
        publisher = publisher_of(producer)
        before = publisher.client
        publisher.cut_off = True
        while publisher.client is before:  # noqa: ASYNC110  # its thread sees to it
            await asyncio.sleep(0.01)
        last = producer.send(case.topic, b"31", key="key", headers=headers)
        await producer.flush()
        receipts = [*await asyncio.gather(*ones), *await sending, await last]
    assert [receipt.offset for receipt in receipts] == list(range(1, 32))
    case.history.confirmed += [("key", number) for number in (*numbers, 31)]
    async with case.consumer() as consumer:
        for message in await consumer.receive(1, timeout=PATIENCE):
            await message.ack()
        case.history.handled.append(("key", 0))
        while case.history.missing():
            for message in await consumer.receive(100, timeout=PATIENCE):
                assert message.headers == tuple((name, value.encode()) for name, value in headers.items())
                case.history.handled.append(("key", int(message.value)))
    case.history.check(duplicates=False)


@pytest.mark.parametrize("applied", [False, True], ids=["before it is applied", "after it is applied"])
async def test_a_loss_that_a_busy_loop_hears_of_late_spares_what_came_after(
    kafka_service: RunningKafka, applied: bool
) -> None:
    case = Case(kafka_service)
    await case.declare()
    await case.send(5)
    async with case.consumer() as consumer:
        await case.receive(consumer, 4)
        held, poller = subscription(consumer)
        partitions = [TopicPartition(case.topic, 0)]
        # What the client's thread does while the loop, which is this code, runs nothing else.
        poller.membership.on_lost(poller.consumer, partitions)
        poller.membership.on_assign(poller.consumer, partitions)
        if applied:
            assert not held.take(5)
        await case.send(5)
        await case.receive(consumer, 9)
        await consumer.commit()
        assert held.assignment == {(case.topic, 0)}
    case.history.check()


def transactional(producer: KafkaProducer) -> Publisher:
    transport = producer._transport
    assert isinstance(transport, KafkaTransport)
    assert transport._transactions is not None
    assert transport._transactions._publisher is not None
    return transport._transactions._publisher


async def test_a_transaction_whose_client_lost_its_last_broker_is_aborted_and_the_next_one_works(
    kafka_service: RunningKafka,
) -> None:
    case = Case(kafka_service)
    await case.declare()
    async with KafkaProducer(
        kafka_service.bootstrap_servers, transactional_id=kafka_service.unique("id"), linger_ms=3_000
    ) as producer:
        with pytest.raises(TransactionAbortedError, match="No Kafka broker"):
            async with producer.transaction():
                sending = producer.send(case.topic, b"lost", key="key")
                lost = transactional(producer)
                lost.cut_off = True  # as its thread finds out
                with pytest.raises(ConnectionLostError):
                    await sending
        async with producer.transaction():
            producer.send(case.topic, b"0", key="key")
        case.history.confirmed.append(("key", 0))
        assert transactional(producer) is not lost
    async with case.consumer() as consumer:
        await case.receive(consumer, 0)
    case.history.check(duplicates=False)


class LostAnswer:
    """A client of librdkafka whose commits nobody answers, whether they reach the broker or not."""

    def __init__(self, client: Any, *, reaches: bool) -> None:
        self.client = client
        self.reaches = reaches

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def commit_transaction(self, timeout: float) -> None:
        if self.reaches:
            self.client.commit_transaction(timeout)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


@pytest.mark.parametrize("reaches", [True, False], ids=["committed", "not committed"])
async def test_a_commit_that_nobody_answers_is_told_by_the_offsets_that_went_with_it(
    kafka_service: RunningKafka, reaches: bool
) -> None:
    case, output = Case(kafka_service), Case(kafka_service)
    await case.declare()
    await output.declare()
    await case.send(5)
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer, case.consumer() as consumer:

        async def transform(messages: Sequence[Delivery]) -> None:
            async with producer.transaction() as transaction:
                for message in messages:
                    producer.send(output.topic, message.value, key=message.key)
                transaction.send_offsets(messages)

        messages: list[Delivery] = []
        while len(messages) < 4:
            messages += await consumer.receive(4 - len(messages), timeout=PATIENCE)
        await transform(messages[:1])
        publisher = transactional(producer)
        publisher.client = LostAnswer(publisher.client, reaches=reaches)  # type: ignore[assignment]
        if reaches:
            await transform(messages[1:3])
        else:
            with pytest.raises(TransactionAbortedError):
                await transform(messages[1:3])
            await transform(messages[1:3])
        await transform([*messages[3:], *await consumer.receive(1, timeout=PATIENCE)])
    output.history.confirmed = case.history.confirmed
    async with output.consumer() as consumer:
        await output.receive(consumer, 4)
    output.history.check(duplicates=False)


async def test_what_became_of_a_commit_without_offsets_is_not_known(kafka_service: RunningKafka) -> None:
    case = Case(kafka_service)
    await case.declare()
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
        async with producer.transaction():
            producer.send(case.topic, b"0", key="key")
        publisher = transactional(producer)
        publisher.client = LostAnswer(publisher.client, reaches=False)  # type: ignore[assignment]
        with pytest.raises(TransactionError, match="is not known") as raised:
            async with producer.transaction():
                producer.send(case.topic, b"lost", key="key")
        assert not raised.value.retriable
        async with producer.transaction():
            producer.send(case.topic, b"1", key="key")
    case.history.confirmed += [("key", 0), ("key", 1)]
    async with case.consumer() as consumer:
        await case.receive(consumer, 1)
    case.history.check(duplicates=False)


async def test_closing_waits_for_no_broker_that_is_gone(kafka_service: RunningKafka) -> None:
    if reason := kafka_service.why_not("signals"):
        pytest.skip(reason)
    case = Case(kafka_service)
    await case.declare()
    async with KafkaProducer(kafka_service.bootstrap_servers) as first, first.transaction():
        await first.send(case.topic, b"first", key="key")  # a new broker takes its time for it
    settings: dict[str, Any] = {"transaction_commit_timeout_ms": 1_000, "close_timeout": 1.0}
    producer = KafkaProducer(kafka_service.bootstrap_servers, **settings)
    try:
        async with asyncio.timeout(PATIENCE):
            done = False
            while not done:  # a busy broker takes longer than that, too
                with suppress(TransactionAbortedError):
                    async with producer.transaction():
                        await producer.send(case.topic, b"0", key="key")
                    done = True
            open_one = producer.transaction()
            await open_one.__aenter__()
            await producer.send(case.topic, b"1", key="key")
            await asyncio.to_thread(kafka_service.pause)
            await producer.close()
    finally:
        await asyncio.to_thread(kafka_service.resume)


async def test_a_consumer_ends_without_a_broker(kafka_service: RunningKafka) -> None:
    """Nor does its thread keep the program alive, which has something to commit and a group to leave."""
    if reason := kafka_service.why_not("signals"):
        pytest.skip(reason)
    case = Case(kafka_service)
    await case.declare()
    await case.send(5)
    consumer = case.consumer(options={"commit.interval.ms": 60_000}, close_timeout=1.0)
    await consumer.__aenter__()
    await case.receive(consumer, 4)
    _, poller = subscription(consumer)
    await asyncio.to_thread(kafka_service.pause)
    try:
        async with asyncio.timeout(PATIENCE):
            with suppress(TimeoutError):
                await consumer.close()
            await asyncio.to_thread(poller._thread.join)
    finally:
        await asyncio.to_thread(kafka_service.resume)
