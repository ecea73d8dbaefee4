"""The Kafka that tests get: how it starts, dies, comes again and never stays behind."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from commons_events.testing import EventTestHarness
from commons_events.testing.services import (
    KafkaCluster,
    RunningKafka,
    ServiceError,
    start_kafka,
)

kafka_client = pytest.importorskip("confluent_kafka", reason="needs a Kafka client (pip install confluent-kafka)")


def produced(kafka: RunningKafka, topic: str, *values: bytes, **settings: object) -> None:
    """Sends values and asserts that each was confirmed."""
    producer = kafka_client.Producer({"bootstrap.servers": kafka.bootstrap_servers, "acks": "all", **settings})
    errors: list[object] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(60) == 0
    assert errors == [None] * len(values)


def consumed(kafka: RunningKafka, topic: str, count: int, **settings: object) -> list[bytes]:
    """The first values of a topic, read by a group of its own."""
    consumer = kafka_client.Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": kafka.unique("group"),
            "auto.offset.reset": "earliest",
            "session.timeout.ms": kafka.session_timeout_ms,
            **settings,
        }
    )
    consumer.subscribe([topic])
    found: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        found += [message.value() for message in consumer.consume(100, 0.2) if not message.error()]
    consumer.close()
    return found


def gone(pid: int) -> bool:
    """Whether no process has that id, or a dead one that nobody has asked about yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return not Path("/proc").is_dir() or not Path(f"/proc/{pid}").exists()


def test_a_topic_is_made_by_sending_to_it(kafka_service: RunningKafka) -> None:
    topic = kafka_service.unique("made")
    produced(kafka_service, topic, b"1", b"2", b"3")
    assert sorted(consumed(kafka_service, topic, 3)) == [b"1", b"2", b"3"]


@pytest.mark.asyncio
async def test_the_page_s_block_with_a_plain_client() -> None:
    harness = EventTestHarness()
    async with harness.kafka_container() as kafka:
        assert kafka.way in {"environment", "docker", "local", "tansu", "mock"}
        topic = kafka.unique("test-topic")
        await asyncio.to_thread(produced, kafka, topic, b"event")
        assert await asyncio.to_thread(consumed, kafka, topic, 1) == [b"event"]
    async with harness.kafka_container() as again:
        assert again is kafka


def test_a_killed_broker_keeps_what_it_confirmed_and_comes_again() -> None:
    with start_kafka() as kafka:
        kafka.require("signals", "durability")
        produced(kafka, "kept", *(b"%d" % number for number in range(100)))
        pid = kafka.pid()
        kafka.kill()
        assert gone(pid)
        with pytest.raises(ServiceError, match="broker 1 doesn't run"):
            kafka.pause()
        kafka.start()
        assert kafka.pid() != pid
        assert len(consumed(kafka, "kept", 100)) == 100
        with pytest.raises(ServiceError, match="broker 1 runs already"):
            kafka.start()
        log = kafka.log
        assert isinstance(kafka, KafkaCluster)
        assert log is not None
        assert log.read_text().count("Kafka Server started") == 2
    assert not log.exists()
    assert not kafka.data().exists()


def test_three_brokers_outlive_the_loss_of_one(kafka_cluster: RunningKafka) -> None:
    kafka_cluster.require("cluster", "signals")
    assert kafka_cluster.nodes == (1, 2, 3)
    topic = kafka_cluster.unique("three")
    produced(kafka_cluster, topic, b"before")
    kafka_cluster.kill(2)
    try:
        produced(kafka_cluster, topic, b"while one is dead")
        kafka_cluster.start(2)
        kafka_cluster.pause(3)
        produced(kafka_cluster, topic, b"while one is frozen")
        kafka_cluster.resume(3)
    finally:
        assert isinstance(kafka_cluster, KafkaCluster)
        kafka_cluster.start_all()
    assert len(consumed(kafka_cluster, topic, 3)) == 3


def test_an_orderly_shutdown() -> None:
    with start_kafka(settings={"num.partitions": "7"}) as kafka:
        kafka.require("signals")
        admin = kafka_client.Producer({"bootstrap.servers": kafka.bootstrap_servers})
        admin.list_topics("seven", timeout=20)
        kafka.terminate()
        assert kafka.log is not None
        assert "shut down completed" in kafka.log.read_text()
