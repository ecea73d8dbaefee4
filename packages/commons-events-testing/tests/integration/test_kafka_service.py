"""The Kafka that tests get: how it starts, dies, comes again and never stays behind."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from commons_events.testing import EventTestHarness
from commons_events.testing.services import (
    KafkaCluster,
    RunningKafka,
    ServiceError,
    ServiceStartError,
    ServiceUnavailableError,
    start_kafka,
)

kafka_client = pytest.importorskip("confluent_kafka", reason="needs a Kafka client (pip install confluent-kafka)")


def produced(kafka: RunningKafka, topic: str, *values: bytes, **settings: object) -> None:
    """Sends values, each once whatever has to be tried again, and asserts that each was confirmed."""
    safe = {"bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True}
    producer = kafka_client.Producer({**safe, **settings})
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


@contextmanager
def own(**options: Any) -> Iterator[RunningKafka]:
    """A Kafka of this test's own; the test is skipped where there is no way to one."""
    try:
        kafka = start_kafka(**options)
    except ServiceUnavailableError as error:
        pytest.skip(str(error))
    with kafka:
        yield kafka


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
    with own(settings={"num.partitions": "7"}) as kafka:
        kafka.require("signals", "durability")
        produced(kafka, "kept", *(b"%d" % number for number in range(100)))
        pid = kafka.pid() if isinstance(kafka, KafkaCluster) else None
        kafka.kill()
        assert pid is None or not Path(f"/proc/{pid}").exists()
        with pytest.raises(ServiceError, match="broker 1 of Apache Kafka doesn't run"):
            kafka.pause()
        with pytest.raises(ServiceError, match="no node 2 of kafka; there are: 1"):
            kafka.kill(2)
        kafka.start()
        assert pid is None or kafka.pid() != pid
        with pytest.raises(ServiceError, match="runs already"):
            kafka.start()
        assert len(consumed(kafka, "kept", 100)) == 100
        if isinstance(kafka, KafkaCluster):
            assert len(list(kafka.data().glob("kept-*"))) == 7
        log = kafka.log
        assert log is not None
        assert log.read_text().count("Kafka Server started") == 2
        kafka.terminate()
        assert "shut down completed" in log.read_text()
    assert not log.exists()
    assert not isinstance(kafka, KafkaCluster) or not kafka.data().exists()


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
        kafka_cluster.start_all()
    sent = [b"before", b"while one is dead", b"while one is frozen"]
    assert sorted(consumed(kafka_cluster, topic, 3)) == sent


def token(_: str) -> tuple[str, float]:
    """An unsigned JSON Web Token, as the broker's validator for tests takes it."""
    expires = time.time() + 3600

    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    claims = {"sub": "alice", "iat": time.time(), "exp": expires}
    return f"{part({'alg': 'none'})}.{part(claims)}.", expires


def test_secured_listeners_let_in_who_has_the_right_to() -> None:
    pytest.importorskip("trustme", reason='needs certificates (pip install "commons-events-testing[tls]")')
    with own(secured=True) as kafka:
        kafka.require("security")
        security = kafka.security
        assert security is not None
        for mechanism in security.mechanisms:
            signed_in = security.sasl(mechanism) | ({"oauth_cb": token} if mechanism == "OAUTHBEARER" else {})
            produced(kafka, "secured", mechanism.encode(), **signed_in)
        produced(kafka, "secured", b"by certificate", **security.mtls())
        assert len(consumed(kafka, "secured", 5, **security.sasl("SCRAM-SHA-256"))) == 5
        with pytest.raises(ValueError, match="no mechanism 'GSSAPI'"):
            security.sasl("GSSAPI")
        wrong = security.sasl("SCRAM-SHA-512") | {"sasl.password": "wrong"}
        refused(wrong, "_AUTHENTICATION")
        anonymous = {name: value for name, value in security.mtls().items() if "certificate" not in name}
        del anonymous["ssl.key.location"]
        refused(anonymous, "_SSL", "_TRANSPORT", "_ALL_BROKERS_DOWN")


def refused(settings: dict[str, str], *names: str) -> None:
    """Asserts that a client has one of these errors, and gets nothing sent."""
    errors: set[str] = set()
    delivered: list[Any] = []
    producer = kafka_client.Producer(
        {**settings, "error_cb": lambda error: errors.add(error.name()), "log_level": 0},
    )
    producer.produce("secured", b"", on_delivery=lambda error, _: delivered.append(error))
    deadline = time.monotonic() + 60
    while not errors & set(names) and time.monotonic() < deadline:
        producer.poll(0.1)
    assert errors & set(names), errors
    producer.purge()
    assert producer.flush(60) == 0
    assert delivered[0] is not None


@pytest.mark.parametrize("way", ["tansu", "mock"])
def test_what_stands_in_for_kafka(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_TEST_KAFKA", way)
    with own() as kafka:
        assert kafka.way == way
        produced(kafka, "topic", b"1", b"2")
        assert sorted(consumed(kafka, "topic", 2)) == [b"1", b"2"]
        address = kafka.bootstrap_servers
        # Whoever has one running names its address.
        monkeypatch.setenv("COMMONS_EVENTS_TEST_KAFKA", f"kafka://{address}")
        monkeypatch.setenv("COMMONS_EVENTS_TEST_KAFKA_LACKS", "transactions, admin")
        with own() as given:
            assert (given.way, given.bootstrap_servers) == ("environment", address)
            assert given.why_not("admin") is not None
            assert given.why_not("fencing") is None
            assert consumed(given, "topic", 1) != []
        monkeypatch.setenv("COMMONS_EVENTS_TEST_KAFKA_LACKS", "magic")
        with pytest.raises(ServiceStartError, match="no capability 'magic'; there are: admin"):
            start_kafka()
    monkeypatch.setenv("COMMONS_EVENTS_TEST_KAFKA", way)
    for options in ({"secured": True}, {"settings": {"num.partitions": "3"}}, {"brokers": 10}):
        with pytest.raises(ServiceUnavailableError, match=f"{way}: (Tansu|the mock cluster)"):
            start_kafka(**options)  # type: ignore[arg-type]


def test_the_mock_cluster_has_as_many_brokers_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_TEST_KAFKA", "mock")
    with own(brokers=3) as kafka:
        assert kafka.why_not("cluster") is None
        assert len(kafka.bootstrap_servers.split(",")) == 3


@pytest.mark.asyncio
async def test_a_fresh_container_is_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_TEST_KAFKA", "mock")
    harness = EventTestHarness()
    async with harness.kafka_container(fresh=True) as one, harness.kafka_container(fresh=True) as other:
        assert one.bootstrap_servers != other.bootstrap_servers
        await asyncio.to_thread(produced, one, "topic", b"1")
        await asyncio.to_thread(produced, other, "topic", b"2")
        assert await asyncio.to_thread(consumed, other, "topic", 1) == [b"2"]
