"""Members of groups on a real broker: how they keep, share and lose their partitions."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from commons_events.errors import FencedError
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer, KafkaSubscription, _membership, _poller
from commons_events.kafka._membership import Membership
from commons_events.kafka._poller import Poller
from commons_events.testing import eventually
from commons_events.testing.services import RunningKafka
from commons_events.transport import Delivery, TopicPartition

pytestmark = pytest.mark.asyncio

SOON = 60.0
"""Seconds that something may take on a busy machine."""
QUICK: dict[str, Any] = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 300}
"""Members of the classic protocol hear of a rebalance with their next heartbeat."""
PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])


def settings_of(kafka: RunningKafka, protocol: str) -> dict[str, Any]:
    if protocol == "consumer" and (reason := kafka.why_not("consumer-protocol")):
        pytest.skip(reason)
    return {"group_protocol": protocol} if protocol == "consumer" else QUICK


async def new_topic(kafka: RunningKafka, partitions: int = 1) -> str:
    topic = kafka.unique("members")
    async with KafkaAdmin(kafka.bootstrap_servers) as admin:
        await admin.create_topic(topic, partitions=partitions)
    return topic


async def fill(kafka: RunningKafka, topic: str, partitions: int, each: int) -> None:
    async with KafkaProducer(kafka.bootstrap_servers) as producer:
        sends = [
            producer.send(topic, b"%d" % number, partition=partition)
            for number in range(each)
            for partition in range(partitions)
        ]
        await asyncio.gather(*sends)


async def take(consumer: KafkaConsumer, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(SOON):
        while len(found) < count:
            found += await consumer.receive(count - len(found))
    return found


async def until(condition: Callable[[], object], what: str) -> None:
    await eventually(condition, timeout=SOON, interval=0.05, what=what)


@PROTOCOLS
async def test_a_handler_slower_than_the_longest_poll_keeps_its_place(
    kafka_service: RunningKafka, protocol: str
) -> None:
    """librdkafka would throw out a client that isn't polled for 6 s; polling goes on while the handler works."""
    settings = settings_of(kafka_service, protocol) | {"max_poll_interval_ms": 6_000}
    topic, group = await new_topic(kafka_service), kafka_service.unique("group")
    await fill(kafka_service, topic, 1, 30_000)  # more than is handed over ahead, so that partitions are paused
    async with KafkaConsumer(kafka_service.bootstrap_servers, group, topic, **settings) as consumer:
        (first,) = await take(consumer, 1)
        await asyncio.sleep(7.5)
        await consumer.commit(first, wait=True)  # StaleDeliveryError, had it lost the partition
        numbers = [first.value]
        while len(numbers) < 30_000:
            messages = await take(consumer, 1)
            messages += await consumer.receive(5_000, timeout=1)
            numbers += [message.value for message in messages]
        assert numbers == [b"%d" % number for number in range(30_000)]
        await consumer.commit(wait=True)
        assert await consumer.lag() == {TopicPartition(topic, 0): 0}


async def test_a_topic_that_is_made_later_is_received_by_its_pattern(kafka_service: RunningKafka) -> None:
    stem = kafka_service.unique("later")
    servers, group = kafka_service.bootstrap_servers, kafka_service.unique("group")
    async with (
        KafkaAdmin(servers) as admin,
        KafkaProducer(servers) as producer,
        KafkaConsumer(servers, group, f"^{stem}-.*", topic_metadata_refresh_interval_ms=500, **QUICK) as consumer,
    ):
        for name in ("one", "two"):
            topic = f"{stem}-{name}"
            await admin.create_topic(topic, partitions=1)
            await producer.send(topic, name.encode())
            (message,) = await take(consumer, 1)
            assert (message.topic, message.value) == (topic, name.encode())
            await consumer.commit(message)


async def test_partitions_that_are_added_later_are_received(kafka_service: RunningKafka) -> None:
    if reason := kafka_service.why_not("create-partitions"):
        pytest.skip(reason)
    topic = await new_topic(kafka_service)
    servers, group = kafka_service.bootstrap_servers, kafka_service.unique("group")
    refresh = {"topic_metadata_refresh_interval_ms": 500, **QUICK}
    async with (
        KafkaAdmin(servers) as admin,
        KafkaConsumer(servers, group, topic, start="latest", **refresh) as consumer,
    ):
        await admin.create_partitions(topic, 3)
        async with KafkaProducer(servers) as producer:
            await producer.send(topic, b"new", partition=2)
        (message,) = await take(consumer, 1)  # from its beginning: nobody has skipped it
        assert (message.partition, message.value) == (2, b"new")


async def test_what_is_sent_before_a_slow_group_gives_anything_is_received_from_the_end(
    kafka_service: RunningKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members of the newer protocol have subscribed when nobody has given them anything for a second."""
    settings = settings_of(kafka_service, "consumer")
    topic, group = await new_topic(kafka_service, 2), kafka_service.unique("group")
    await fill(kafka_service, topic, 2, 5)
    sent = threading.Event()
    on_assign = Membership.on_assign

    def late(self: Membership, *arguments: Any) -> None:
        if arguments[1]:
            sent.wait(SOON)
        on_assign(self, *arguments)

    monkeypatch.setattr(_membership, "_SILENT_MEMBER", 0.0)
    monkeypatch.setattr(Poller, "poll_one", lambda _: None)  # while it joins
    monkeypatch.setattr(Membership, "on_assign", late)
    async with KafkaConsumer(kafka_service.bootstrap_servers, group, topic, start="latest", **settings) as consumer:
        monkeypatch.undo()
        await fill(kafka_service, topic, 2, 1)
        sent.set()
        assert sorted((message.partition, message.offset) for message in await take(consumer, 2)) == [(0, 5), (1, 5)]


@PROTOCOLS
async def test_a_static_member_comes_again_to_its_partitions(kafka_service: RunningKafka, protocol: str) -> None:
    """Its leaving for a moment moves nobody's partitions; it gets the same ones again."""
    settings = settings_of(kafka_service, protocol)
    if protocol == "classic":
        settings = {**settings, "session_timeout_ms": 45_000}
    topic, group = await new_topic(kafka_service, 4), kafka_service.unique("group")

    def member(name: str) -> KafkaConsumer:
        return KafkaConsumer(
            kafka_service.bootstrap_servers, group, topic, group_instance_id=f"{group}-{name}", **settings
        )

    async with member("stays") as stays:
        leaving = member("goes")
        await leaving.__aenter__()
        await until(lambda: len(stays.assignment) == len(leaving.assignment) == 2, "sharing the partitions")
        had, others = leaving.assignment, stays.assignment
        assert had | others == {TopicPartition(topic, partition) for partition in range(4)}
        await leaving.close()
        async with member("goes") as again:
            await until(lambda: again.assignment, "coming again")
            assert again.assignment == had
            assert stays.assignment == others
            await fill(kafka_service, topic, 4, 1)
            assert {m.partition for m in await take(stays, 2)} == {place.partition for place in others}
            assert {m.partition for m in await take(again, 2)} == {place.partition for place in had}


@PROTOCOLS
async def test_a_member_without_partitions_leaves_when_it_closes(kafka_service: RunningKafka, protocol: str) -> None:
    """Nobody waits for its session to time out."""
    settings = settings_of(kafka_service, protocol)
    if protocol == "classic":
        settings = {**settings, "session_timeout_ms": 600_000, "max_poll_interval_ms": 600_000}
    topic, group = await new_topic(kafka_service), kafka_service.unique("group")
    servers = kafka_service.bootstrap_servers
    first, second = (KafkaConsumer(servers, group, topic, **settings) for _ in range(2))
    await first.start()
    await second.start()
    await until(lambda: sorted(len(c.assignment) for c in (first, second)) == [0, 1], "sharing one partition")
    spare, busy = (first, second) if not first.assignment else (second, first)
    await spare.close()
    await busy.close()
    async with asyncio.timeout(SOON), KafkaConsumer(servers, group, topic, **settings) as third:
        await until(lambda: third.assignment, "having the partition")


async def test_a_static_member_without_partitions_stays_one(kafka_service: RunningKafka) -> None:
    """Its place is kept while it is away."""
    topic, group = await new_topic(kafka_service), kafka_service.unique("group")
    servers, settings = kafka_service.bootstrap_servers, {**QUICK, "session_timeout_ms": 45_000}
    first, second = (
        KafkaConsumer(servers, group, topic, group_instance_id=f"{group}-{number}", **settings) for number in range(2)
    )
    async with first, second:
        await until(lambda: sorted(len(c.assignment) for c in (first, second)) == [0, 1], "sharing one partition")
        await (second if first.assignment else first).close()
        admin = AdminClient({"bootstrap.servers": servers})
        described = admin.describe_consumer_groups([group])[group]
        assert len((await asyncio.to_thread(described.result, SOON)).members) == 2


async def test_two_with_the_same_instance_id(kafka_service: RunningKafka) -> None:
    """The newer one has the place; the older one is told, again and again, and its close does no harm."""
    topic, group = await new_topic(kafka_service), kafka_service.unique("group")
    settings = {**QUICK, "group_instance_id": group}
    before = KafkaConsumer(kafka_service.bootstrap_servers, group, topic, **settings)
    async with KafkaConsumer(kafka_service.bootstrap_servers, group, topic, **settings) as after:
        pass
    await before.__aenter__()
    async with KafkaConsumer(kafka_service.bootstrap_servers, group, topic, **settings) as after:
        for _ in range(2):
            async with asyncio.timeout(SOON):
                with pytest.raises(FencedError, match=r"group\.instance\.id") as caught:
                    await before.receive(1)
            assert not caught.value.retriable
        await before.close()
        await fill(kafka_service, topic, 1, 1)
        (message,) = await take(after, 1)
        await after.commit(message, wait=True)


async def test_who_is_fenced_while_it_reads_is_told_so(kafka_service: RunningKafka) -> None:
    """Also where much comes, so that the event loop reads by itself, and meets the error there."""
    topic, group = await new_topic(kafka_service, 2), kafka_service.unique("group")
    settings = {**QUICK, "group_instance_id": group}
    values = [b"x" * 100] * 5_000
    async with (
        KafkaProducer(kafka_service.bootstrap_servers) as producer,
        KafkaConsumer(kafka_service.bootstrap_servers, group, topic, **settings) as before,
    ):

        async def produce() -> None:
            while True:
                await producer.send_batch(topic, values)

        async def read() -> None:
            while True:
                await before.receive(500)
                await before.commit()
                await asyncio.sleep(0.001)  # slower than what comes, so that there is always more

        for _ in range(40):
            await producer.send_batch(topic, values)
        producing, reading = asyncio.ensure_future(produce()), asyncio.ensure_future(read())
        subscription = before._subscription
        assert isinstance(subscription, KafkaSubscription)
        await until(lambda: subscription._poller._reads > 10, "reading in the loop")
        async with KafkaConsumer(kafka_service.bootstrap_servers, group, topic, **settings):
            async with asyncio.timeout(SOON):
                with pytest.raises(FencedError, match=r"group\.instance\.id"):
                    await reading
        producing.cancel()


async def test_with_the_newer_protocol_the_first_of_an_instance_id_stays(kafka_service: RunningKafka) -> None:
    settings = settings_of(kafka_service, "consumer")
    topic, group = await new_topic(kafka_service), kafka_service.unique("group")
    settings = {**settings, "group_instance_id": group}
    async with KafkaConsumer(kafka_service.bootstrap_servers, group, topic, **settings) as first:
        second = KafkaConsumer(kafka_service.bootstrap_servers, group, topic, **settings)
        async with asyncio.timeout(SOON):
            with pytest.raises(FencedError, match="instance ID is still used"):
                async with second:
                    await second.receive(1)
        await fill(kafka_service, topic, 1, 1)
        (message,) = await take(first, 1)
        await first.commit(message, wait=True)


@PROTOCOLS
async def test_partitions_leave_once_what_is_out_is_finished_and_committed(
    kafka_service: RunningKafka, protocol: str
) -> None:
    """Nothing is handled twice where a member finishes in time what it has when another one comes."""
    settings = settings_of(kafka_service, protocol)
    partitions = 4
    topic, group = await new_topic(kafka_service, partitions), kafka_service.unique("group")
    await fill(kafka_service, topic, partitions, 50)
    servers = kafka_service.bootstrap_servers
    async with KafkaConsumer(servers, group, topic, commit_interval_ms=60_000, **settings) as first:
        taken = await take(first, partitions * 50)
        second = KafkaConsumer(servers, group, topic, **settings)
        joining = asyncio.ensure_future(second.__aenter__())
        await until(lambda: len(first.assignment) < partitions, "partitions that are to leave")
        for message in taken:
            await message.ack()
        await joining
        try:
            await until(lambda: len(first.assignment) + len(second.assignment) == partitions, "sharing the partitions")
            await fill(kafka_service, topic, partitions, 1)
            for member in (first, second):
                for message in await take(member, len(member.assignment)):
                    assert message.offset == 50, "what was finished before its partition left came again"
        finally:
            await second.close()


@PROTOCOLS
async def test_a_rebalance_that_the_event_loop_hears_of_while_it_reads(
    kafka_service: RunningKafka, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where much comes the loop reads for itself; what takes waiting is left to the thread, and nothing is lost."""
    left = Counter[str]()
    is_left_for_later = Membership._is_left_for_later

    def counting(self: Membership, change: Callable[..., None], *arguments: Any) -> bool:
        is_left = is_left_for_later(self, change, *arguments)
        left[change.__name__] += is_left
        return is_left

    monkeypatch.setattr(Membership, "_is_left_for_later", counting)
    monkeypatch.setattr(_poller, "_AT_ONCE", 10)
    settings = settings_of(kafka_service, protocol)
    partitions, group = 4, kafka_service.unique("group")
    topic, servers = await new_topic(kafka_service, partitions), kafka_service.bootstrap_servers
    found = Counter[tuple[int | None, int | None]]()
    sent = 0

    async def send() -> None:
        nonlocal sent
        while not left["on_revoke"]:
            await fill(kafka_service, topic, partitions, 250)
            sent += 250 * partitions
            while sent - len(found) > 8_000:  # noqa: ASYNC110  # the loop is never without messages, nor far behind
                await asyncio.sleep(0.01)

    async def receive(consumer: KafkaConsumer) -> None:
        while True:
            for message in await consumer.receive(10):
                found[message.partition, message.offset] += 1
            await consumer.commit()
            await asyncio.sleep(0.001)

    async with KafkaConsumer(servers, group, topic, batch_size=10, **settings) as first, asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(send())
        receiving = [tasks.create_task(receive(first))]
        while not sending.done():  # members come and go until it has happened: most often the first one
            async with KafkaConsumer(servers, group, topic, batch_size=10, **settings) as second:
                receiving.append(tasks.create_task(receive(second)))
                await until(lambda: len(first.assignment) < partitions, "sharing the partitions")
                receiving.pop().cancel()
            await until(lambda: len(first.assignment) == partitions, "having all partitions again")
        await until(lambda: len(found) == sent, "handling all messages")
        receiving.pop().cancel()
