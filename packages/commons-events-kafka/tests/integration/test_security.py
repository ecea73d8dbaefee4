"""Signing in to Apache Kafka by SCRAM over TLS and by a client's certificate, and what it then refuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from commons_events.errors import AuthenticationError, AuthorizationError
from commons_events.kafka import KafkaAdmin, KafkaTransport
from commons_events.message import Message, Receipt
from commons_events.testing.services import KafkaSecurity, RunningKafka, ServiceUnavailableError, start_kafka
from commons_events.transport import SubscribeRequest

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def secured() -> Iterator[RunningKafka]:
    try:
        kafka = start_kafka(secured=True)
    except ServiceUnavailableError as error:
        pytest.skip(str(error))
    with kafka:
        if reason := kafka.why_not("security"):
            pytest.skip(reason)
        yield kafka


@pytest.fixture
def security(secured: RunningKafka) -> KafkaSecurity:
    assert secured.security is not None
    return secured.security


def connect(settings: dict[str, str]) -> KafkaTransport:
    options = dict(settings)
    servers = options.pop("bootstrap.servers")
    return KafkaTransport(f"kafka://{servers}", **options)


async def make_topic(kafka: RunningKafka) -> str:
    topic = kafka.unique("secured")
    async with KafkaAdmin(kafka.bootstrap_servers) as admin:
        await admin.create_topic(topic, partitions=1)
    return topic


async def allow(kafka: RunningKafka, username: str, topic: str, group: str) -> None:
    client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    bindings = [
        AclBinding(
            kind, name, ResourcePatternType.LITERAL, f"User:{username}", "*", AclOperation.ALL, AclPermissionType.ALLOW
        )
        for kind, name in ((ResourceType.TOPIC, topic), (ResourceType.GROUP, group))
    ]
    for future in client.create_acls(bindings).values():
        await asyncio.wrap_future(future)


async def round_trip(transport: KafkaTransport, topic: str, group: str) -> None:
    (result,) = await transport.publish([Message(topic, b"secret")])
    assert isinstance(result, Receipt), result
    member = await transport.subscribe(SubscribeRequest(topics=(topic,), group_id=group))
    async with asyncio.timeout(60):
        (delivery,) = await member.receive(1)
    assert delivery.value == b"secret"
    await delivery.ack()
    await member.flush()
    await transport.close()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_user_signs_in_by_password_over_tls(
    secured: RunningKafka, security: KafkaSecurity, mechanism: str
) -> None:
    topic, group = await make_topic(secured), secured.unique("group")
    await allow(secured, security.username, topic, group)
    await round_trip(connect(security.sasl(mechanism)), topic, group)


async def test_a_client_signs_in_by_its_certificate(secured: RunningKafka, security: KafkaSecurity) -> None:
    await round_trip(connect(security.mtls()), await make_topic(secured), secured.unique("group"))


async def test_a_user_without_leave_is_refused(secured: RunningKafka, security: KafkaSecurity) -> None:
    topic, group = await make_topic(secured), secured.unique("group")
    await allow(secured, "somebody-else", topic, group)
    transport = connect(security.sasl("SCRAM-SHA-512"))
    async with asyncio.timeout(60):
        (result,) = await transport.publish([Message(topic, b"")])
        assert isinstance(result, AuthorizationError), result
        with pytest.raises(AuthorizationError):
            await transport.subscribe(SubscribeRequest(topics=(topic,), group_id=group))
        await transport.close()


async def test_a_wrong_password_is_an_error_that_does_not_show_it(
    secured: RunningKafka, security: KafkaSecurity, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await make_topic(secured)
    transport = connect({**security.sasl("SCRAM-SHA-512"), "sasl.password": "not-the-right-one"})
    with caplog.at_level(logging.DEBUG):
        async with asyncio.timeout(60):
            (result,) = await transport.publish([Message(topic, b"")])
            await transport.close()
    assert isinstance(result, AuthenticationError), result
    assert "not-the-right-one" not in f"{result!r} {caplog.text} {transport!r} {transport._settings!r}"
