"""PostgreSQL, RabbitMQ, Pub/Sub and AWS as tests get them."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from commons_events.testing import EventTestHarness
from commons_events.testing.services import (
    SERVICES,
    RunningAws,
    RunningPostgres,
    RunningPubsub,
    RunningRabbitMQ,
    RunningService,
    ServiceUnavailableError,
)


@contextmanager
def own(name: str) -> Iterator[Any]:
    """A server of this test's own; the test is skipped where there is no way to one."""
    try:
        running = SERVICES[name].start()
    except ServiceUnavailableError as error:
        pytest.skip(str(error))
    with running:
        yield running


def given_again(running: RunningService, address: str, monkeypatch: pytest.MonkeyPatch) -> RunningService:
    """The same server, found by its address in the environment."""
    monkeypatch.setenv(SERVICES[running.service].variable, address)
    found: RunningService = SERVICES[running.service].start()
    assert found.way == "environment"
    assert found.why_not("signals") is not None
    found.stop()
    return found


# --- PostgreSQL --------------------------------------------------------------------------------------------------


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    psycopg = pytest.importorskip("psycopg", reason="needs a client of PostgreSQL (pip install psycopg)")
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


@pytest.mark.parametrize("way", ["docker", "local", "embedded"])
def test_a_killed_postgres_keeps_what_was_committed(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_TEST_POSTGRES", way)
    with own("postgres") as postgres:
        rows(postgres.url, "CREATE TABLE kept (id int)")
        rows(postgres.url, "INSERT INTO kept SELECT generate_series(1, 1000)")
        postgres.kill()
        postgres.start()
        assert rows(postgres.url, "SELECT count(*) FROM kept") == [(1000,)]
        if postgres.why_not("extensions") is None:
            rows(postgres.url, "CREATE EXTENSION pgcrypto")
        found = given_again(postgres, postgres.url, monkeypatch)
        assert rows(found.address, "SELECT count(*) FROM kept") == [(1000,)]


def test_each_test_has_an_empty_database(postgres_service: RunningPostgres, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("psycopg", reason="needs a client of PostgreSQL (pip install psycopg)")
    postgres_database: str = request.getfixturevalue("postgres_database")
    with postgres_service.database("Other") as other:
        rows(other, "CREATE TABLE mine (id int)")
        tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        assert rows(postgres_database, tables) == []
        assert rows(other, tables) == [("mine",)]
    name = other.rpartition("/")[2]
    assert (name,) not in rows(postgres_service.url, "SELECT datname FROM pg_database")


# --- RabbitMQ ----------------------------------------------------------------------------------------------------


@contextmanager
def channel(url: str) -> Iterator[Any]:
    pika = pytest.importorskip("pika", reason="needs a client of RabbitMQ (pip install pika)")
    connection = pika.BlockingConnection(pika.URLParameters(url))
    yield connection.channel()
    connection.close()


def test_a_killed_rabbitmq_keeps_what_it_confirmed() -> None:
    pika = pytest.importorskip("pika", reason="needs a client of RabbitMQ (pip install pika)")
    with own("rabbitmq") as rabbitmq:
        rabbitmq.require("signals", "durability")
        with channel(rabbitmq.url) as opened:
            opened.confirm_delivery()
            opened.queue_declare("kept", durable=True)
            opened.basic_publish("", "kept", b"body", pika.BasicProperties(delivery_mode=2))
        time.sleep(3)  # RabbitMQ confirms the message, and writes the news of the queue itself a little later
        rabbitmq.kill()
        rabbitmq.start()
        with channel(rabbitmq.url) as opened:
            assert opened.basic_get("kept", auto_ack=True)[2] == b"body"


def test_each_test_has_a_virtual_host(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rabbitmq_service.require("streams", "consistent-hash")
    with rabbitmq_service.vhost() as other:
        with channel(rabbitmq_vhost) as opened:
            opened.queue_declare("queue", durable=True, arguments={"x-queue-type": "stream"})
            opened.exchange_declare("exchange", "x-consistent-hash")
        with channel(other) as opened:
            opened.queue_declare("queue", exclusive=True)
    remaining = {vhost["name"] for vhost in rabbitmq_service.manage("GET", "/api/vhosts")}
    assert rabbitmq_vhost.rpartition("/")[2] in remaining
    assert other.rpartition("/")[2] not in remaining
    monkeypatch.setenv("COMMONS_EVENTS_TEST_RABBITMQ_MANAGEMENT", rabbitmq_service.management_url)
    found = given_again(rabbitmq_service, rabbitmq_service.url, monkeypatch)
    assert found.address == rabbitmq_service.url
    assert found.why_not("management") is None


# --- Pub/Sub -----------------------------------------------------------------------------------------------------


def rest(pubsub: RunningPubsub, method: str, path: str, body: dict[str, Any]) -> Any:
    """A call of Pub/Sub's REST interface, which the emulator serves beside gRPC."""
    request = urllib.request.Request(
        f"http://{pubsub.address}/v1/{path}",
        method=method,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as response:
        return json.loads(response.read())


def exchanged(pubsub: RunningPubsub) -> bytes:
    """Publish one message in a project of one's own, and return what a subscription gets."""
    project = f"projects/{pubsub.unique('project')}"
    topic, subscription = f"{project}/topics/topic", f"{project}/subscriptions/subscription"
    rest(pubsub, "PUT", topic, {})
    rest(pubsub, "PUT", subscription, {"topic": topic})
    rest(pubsub, "POST", f"{topic}:publish", {"messages": [{"data": base64.b64encode(b"body").decode()}]})
    pulled: list[dict[str, Any]] = []
    deadline = time.monotonic() + 60
    while not pulled and time.monotonic() < deadline:  # an answer may have none
        pulled = rest(pubsub, "POST", f"{subscription}:pull", {"maxMessages": 10}).get("receivedMessages", [])
    [received] = pulled
    return base64.b64decode(received["message"]["data"])


def test_the_pubsub_emulator(pubsub_service: RunningPubsub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exchanged(pubsub_service) == b"body"
    assert pubsub_service.environment == {"PUBSUB_EMULATOR_HOST": pubsub_service.address}
    assert given_again(pubsub_service, pubsub_service.address, monkeypatch).address == pubsub_service.address


# --- AWS ---------------------------------------------------------------------------------------------------------


def queued(aws: RunningAws) -> str:
    """Publish one message to a topic, and return what a queue that listens to it gets."""
    boto3 = pytest.importorskip("boto3", reason="needs a client of AWS (pip install boto3)")
    sns, sqs = (boto3.client(name, **aws.client_settings) for name in ("sns", "sqs"))
    queue = sqs.create_queue(QueueName=aws.unique("queue"))["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name=aws.unique("topic"))["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    sns.publish(TopicArn=topic, Message="body")
    [message] = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    body: str = message["Body"]
    for client in (sns, sqs):
        client.close()
    return body


def test_sns_and_sqs(aws_service: RunningAws, monkeypatch: pytest.MonkeyPatch) -> None:
    assert queued(aws_service) == "body"
    assert given_again(aws_service, aws_service.url, monkeypatch).address == aws_service.url


# --- the harness -------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_harness_gives_each_of_them() -> None:
    harness = EventTestHarness()
    try:
        async with harness.postgres_container() as postgres:
            assert await asyncio.to_thread(rows, postgres.url, "SELECT 1") == [(1,)]
        async with harness.rabbitmq_container() as rabbitmq:
            await asyncio.to_thread(declared, rabbitmq)
        async with harness.pubsub_container() as pubsub:
            assert await asyncio.to_thread(exchanged, pubsub) == b"body"
        async with harness.aws_container() as aws:
            assert await asyncio.to_thread(queued, aws) == "body"
    except ServiceUnavailableError as error:
        pytest.skip(str(error))
    assert {running.service for running in (postgres, rabbitmq, pubsub, aws)} == {
        "postgres",
        "rabbitmq",
        "pubsub",
        "aws",
    }


def declared(rabbitmq: RunningRabbitMQ) -> None:
    with rabbitmq.vhost() as url, channel(url) as opened:
        opened.queue_declare("queue", exclusive=True)
