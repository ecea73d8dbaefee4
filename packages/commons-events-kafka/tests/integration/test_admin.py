"""`KafkaAdmin` on a real cluster: topics, partitions, configurations and groups, and what it says to wrong calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from commons_events.errors import (
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    InvalidTopicError,
    TransportError,
    UnknownTopicError,
)
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer
from commons_events.testing.services import RunningKafka
from commons_events.transport import TopicInfo, TopicPartition

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def admin(kafka_service: RunningKafka) -> AsyncIterator[KafkaAdmin]:
    if reason := kafka_service.why_not("admin"):
        pytest.skip(reason)
    async with KafkaAdmin(kafka_service.bootstrap_servers) as admin:
        yield admin


async def test_a_topic_is_made_described_and_deleted(admin: KafkaAdmin, kafka_service: RunningKafka) -> None:
    topic = kafka_service.unique("admin")
    made = await admin.create_topic(topic, partitions=3, replication_factor=1)
    assert made == TopicInfo(topic, 3) == await admin.topic(topic)
    assert await admin.create_topic(topic) == made  # found as it is
    assert made in await admin.topics()
    described = await admin.describe_topic(topic)
    assert [place.partition for place in described.partitions] == [0, 1, 2]
    for place in described.partitions:
        assert place.leader in place.replicas == place.in_sync
    with pytest.raises(ConfigurationError, match=r"has 3 partitions, and was asked for with 2"):
        await admin.create_topic(topic, partitions=2)
    await admin.delete_topic(topic)
    assert made not in await admin.topics()
    for call in (admin.topic(topic), admin.describe_topic(topic), admin.delete_topic(topic)):
        with pytest.raises(UnknownTopicError, match=topic):
            await call
    # Nor does asking make one, though this broker lets clients make topics.
    assert topic not in [info.topic for info in await admin.topics()]


async def test_partitions_are_added_and_never_taken_away(admin: KafkaAdmin, kafka_service: RunningKafka) -> None:
    if reason := kafka_service.why_not("create-partitions"):
        pytest.skip(reason)
    topic = kafka_service.unique("admin")
    await admin.create_topic(topic, partitions=2)
    await admin.create_partitions(topic, 5)
    assert await admin.topic(topic) == TopicInfo(topic, 5)
    for count, said in ((5, topic), (4, topic), (0, "count=0"), (-1, "count=-1")):
        with pytest.raises(ConfigurationError, match=said):
            await admin.create_partitions(topic, count)
    with pytest.raises(UnknownTopicError):
        await admin.create_partitions(kafka_service.unique("nowhere"), 2)


async def test_partitions_that_were_added_can_be_used(
    admin: KafkaAdmin, kafka_service: RunningKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the broker that is asked hears of them late."""
    if reason := kafka_service.why_not("create-partitions"):
        pytest.skip(reason)
    topic = kafka_service.unique("admin")
    late = [await admin.create_topic(topic, partitions=2)] * 3
    found = KafkaAdmin.topic

    async def heard_late(self: KafkaAdmin, topic: str) -> TopicInfo:
        return late.pop() if late else await found(self, topic)

    monkeypatch.setattr(KafkaAdmin, "topic", heard_late)
    await admin.create_partitions(topic, 3)
    assert await admin.topic(topic) == TopicInfo(topic, 3)


async def test_a_topics_configuration_is_set_and_taken_back(admin: KafkaAdmin, kafka_service: RunningKafka) -> None:
    if reason := kafka_service.why_not("alter-configs"):
        pytest.skip(reason)
    topic = kafka_service.unique("admin")
    await admin.create_topic(topic, partitions=1, config={"cleanup.policy": "compact"})
    before = await admin.topic_config(topic)
    assert before["cleanup.policy"] == "compact"
    await admin.set_topic_config(topic, {"retention.ms": "12345", "cleanup.policy": None})
    after = await admin.topic_config(topic)
    assert after == before | {"retention.ms": "12345", "cleanup.policy": "delete"}
    with pytest.raises(ConfigurationError, match=r"retention\.mss"):
        await admin.set_topic_config(topic, {"retention.mss": "1"})
    with pytest.raises(ConfigurationError, match=r"retention\.ms"):
        await admin.set_topic_config(topic, {"retention.ms": "soon"})
    with pytest.raises(ConfigurationError, match=r"cleanup\.policy"):
        await admin.create_topic(kafka_service.unique("admin"), config={"cleanup.policy": "shred"})
    nowhere = kafka_service.unique("nowhere")
    with pytest.raises(UnknownTopicError):
        await admin.topic_config(nowhere)
    with pytest.raises(UnknownTopicError):
        await admin.set_topic_config(nowhere, {"retention.ms": "1"})
    assert await admin.topic_config(topic) == after


async def test_a_groups_positions_are_read_set_and_forgotten(admin: KafkaAdmin, kafka_service: RunningKafka) -> None:
    if reason := kafka_service.why_not("group-offsets"):
        pytest.skip(reason)
    servers, topic, group = kafka_service.bootstrap_servers, kafka_service.unique("admin"), kafka_service.unique("g")
    place, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await admin.create_topic(topic, partitions=2)
    async with KafkaProducer(servers) as producer:
        for number in range(5):
            await producer.send(topic, b"%d" % number, partition=0)

    async def received(count: int) -> list[bytes]:
        found: list[bytes] = []
        async with KafkaConsumer(servers, group, topic) as consumer:
            while len(found) < count:
                for message in await consumer.receive(count - len(found), timeout=60):
                    found.append(message.value)
                    await message.ack()
            await consumer.commit(wait=True)
            with pytest.raises(TransportError, match=f"{group}.*consumers first"):
                await admin.set_group_offsets(group, {place: 0})
            with pytest.raises(TransportError, match=f"{group}.*consumers first"):
                await admin.delete_group(group)
        return found

    assert await admin.group_offsets(group) == {}
    assert await received(4) == [b"0", b"1", b"2", b"3"]
    assert (await admin.group_offsets(group))[place] == 4
    await admin.set_group_offsets(group, {place: 2, other: 0})
    assert await admin.group_offsets(group) == {place: 2, other: 0}
    assert await received(3) == [b"2", b"3", b"4"]
    with pytest.raises(UnknownTopicError, match=f"partition 7 of topic '{topic}'"):
        await admin.set_group_offsets(group, {TopicPartition(topic, 7): 0})
    with pytest.raises(ConfigurationError, match="-1"):
        await admin.set_group_offsets(group, {place: -1})
    await admin.delete_group(group)
    assert await admin.group_offsets(group) == {}
    with pytest.raises(TransportError, match=f"{group}.*not exist"):
        await admin.delete_group(group)


@pytest.mark.parametrize("topic", ["", ".", "..", "two words", "ümlaut", "slash/ed", "x" * 250, "^open"])
async def test_names_that_kafka_takes_nowhere(topic: str) -> None:
    """They are refused before anybody is asked."""
    async with KafkaAdmin("127.0.0.1:1") as admin:
        for call in (
            lambda: admin.create_topic(topic),
            lambda: admin.delete_topic(topic),
            lambda: admin.topic(topic),
            lambda: admin.create_partitions(topic, 2),
            lambda: admin.topic_config(topic),
            lambda: admin.set_topic_config(topic, {"retention.ms": "1"}),
        ):
            with pytest.raises(InvalidTopicError):
                await call()


async def test_counts_that_no_cluster_can_serve(admin: KafkaAdmin, kafka_service: RunningKafka) -> None:
    topic = kafka_service.unique("admin")
    for partitions in (0, -1):
        with pytest.raises(ConfigurationError, match="partitions"):
            await admin.create_topic(topic, partitions=partitions)
    for replicas in (0, -3, 99, 20_000):
        with pytest.raises(ConfigurationError, match=r"[Rr]eplication"):
            await admin.create_topic(topic, replication_factor=replicas)
    with pytest.raises(UnknownTopicError):
        await admin.topic(topic)


async def test_nobody_at_the_address() -> None:
    async with KafkaAdmin("127.0.0.1:1", options={"connect.timeout.ms": 500}) as admin:
        for call in (admin.topics(), admin.create_topic("t"), admin.delete_topic("t"), admin.group_offsets("g")):
            with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:1"):
                await call


async def test_one_that_is_closed() -> None:
    admin = KafkaAdmin("127.0.0.1:1")
    await admin.close()
    await admin.close()
    with pytest.raises(ClosedError):
        await admin.topics()
    with pytest.raises(ClosedError):
        await admin.create_topic("t")


async def test_what_is_no_text_or_of_a_wrong_type_is_refused_at_once(
    admin: KafkaAdmin, kafka_service: RunningKafka
) -> None:
    """librdkafka's client ends the process where a text has no bytes."""
    topic, half = kafka_service.unique("admin"), "half a pair \ud83c"
    await admin.create_topic(topic, partitions=1)
    for call in (
        admin.group_offsets(half),
        admin.set_group_offsets(half, {TopicPartition(topic, 0): 0}),
        admin.delete_group(half),
        admin.create_topic(topic, config={half: "1"}),
        admin.create_topic(topic, config={"retention.ms": half}),
        admin.set_topic_config(topic, {half: "1"}),
    ):
        with pytest.raises(ConfigurationError, match="half of a surrogate"):
            await call
    wrong: Any = [1, "2", 3.5]
    for call in (
        admin.create_topic(topic, partitions=wrong[1]),
        admin.create_topic(topic, replication_factor=wrong[2]),
        admin.create_partitions(topic, wrong[1]),
        admin.create_topic(topic, config={"retention.ms": wrong[0]}),
        admin.set_topic_config(topic, {"retention.ms": wrong[0]}),
        admin.group_offsets(wrong[0]),
    ):
        with pytest.raises(TypeError, match=r"str|int"):
            await call
    await admin.set_topic_config(topic, {})  # nothing to do
