"""Signing in to Apache Kafka by SCRAM over TLS and by a client's certificate, and what it then refuses."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
import traceback
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from commons_events import EventConsumer, EventProducer
from commons_events.errors import AuthenticationError, AuthorizationError
from commons_events.event import Event
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer, KafkaTransport
from commons_events.message import Message, Receipt
from commons_events.testing import eventually
from commons_events.testing.services import KafkaSecurity, RunningKafka
from commons_events.transport import SubscribeRequest

pytestmark = pytest.mark.asyncio


class Signed(Event):
    event_type = "kafka-tests.signed"


@pytest.fixture
def security(kafka_secured: RunningKafka) -> KafkaSecurity:
    assert kafka_secured.security is not None
    return kafka_secured.security


def connect(settings: Mapping[str, Any]) -> KafkaTransport:
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
    of_user = AclBindingFilter(
        ResourceType.ANY,
        None,
        ResourcePatternType.ANY,
        f"User:{username}",
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )

    async def heard() -> bool:
        return set(bindings) <= set(await asyncio.wrap_future(client.describe_acls(of_user)))

    await eventually(heard, timeout=60, interval=0.05, what="the broker's word that they may")  # the controller knows


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
    kafka_secured: RunningKafka, security: KafkaSecurity, mechanism: str
) -> None:
    topic, group = await make_topic(kafka_secured), kafka_secured.unique("group")
    await allow(kafka_secured, security.username, topic, group)
    await round_trip(connect(security.sasl(mechanism)), topic, group)


def token(user: str, seconds: float) -> tuple[str, float]:
    """A JSON Web Token without a signature, as Kafka's validator for tests takes it, and when it expires."""
    expires = time.time() + seconds

    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    claims = {"sub": user, "iat": time.time(), "exp": expires}
    return f"{part({'alg': 'none'})}.{part(claims)}.", expires


async def test_a_user_signs_in_by_a_token_that_is_asked_for_again(
    kafka_secured: RunningKafka, security: KafkaSecurity
) -> None:
    """A token lives for seconds, and the clients go on beyond that: each asks for another in time."""
    topic, group = await make_topic(kafka_secured), kafka_secured.unique("group")
    await allow(kafka_secured, "bearer", topic, group)
    asked = 0

    def oauth_cb(config: str) -> tuple[str, float]:
        nonlocal asked
        asked += 1
        assert config == "scope=events"
        return token("bearer", 5.0)

    settings = {**security.sasl("OAUTHBEARER"), "oauth_cb": oauth_cb, "sasl.oauthbearer.config": "scope=events"}
    servers = settings.pop("bootstrap.servers")
    keywords = {option.replace(".", "_"): value for option, value in settings.items()}
    async with (
        KafkaProducer(servers, **keywords) as producer,
        KafkaConsumer(servers, group, [topic], **keywords) as consumer,
        asyncio.timeout(90),
    ):
        number = 0
        while asked < 5:
            await producer.send(topic, b"%d" % number)
            (message,) = await consumer.receive(1)
            assert message.value == b"%d" % number
            await consumer.commit(message, wait=True)
            number += 1
            await asyncio.sleep(0.1)


async def test_a_token_that_the_broker_refuses_is_an_error_that_does_not_show_it(
    kafka_secured: RunningKafka, security: KafkaSecurity, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await make_topic(kafka_secured)
    secret, _ = token("bearer", -60.0)
    transport = connect({**security.sasl("OAUTHBEARER"), "oauth_cb": lambda config: (secret, time.time() + 600)})
    with caplog.at_level(logging.DEBUG):
        async with asyncio.timeout(60):
            (result,) = await transport.publish([Message(topic, b"")])
            await transport.close()
    assert isinstance(result, AuthenticationError), result
    assert secret.split(".")[1] not in f"{result!r} {caplog.text} {transport!r} {transport._settings!r}"


async def test_a_client_signs_in_by_its_certificate(kafka_secured: RunningKafka, security: KafkaSecurity) -> None:
    await round_trip(connect(security.mtls()), await make_topic(kafka_secured), kafka_secured.unique("group"))


async def test_a_user_without_leave_is_refused(kafka_secured: RunningKafka, security: KafkaSecurity) -> None:
    topic, group = await make_topic(kafka_secured), kafka_secured.unique("group")
    await allow(kafka_secured, "somebody-else", topic, group)
    transport = connect(security.sasl("SCRAM-SHA-512"))
    async with asyncio.timeout(60):
        (result,) = await transport.publish([Message(topic, b"")])
        assert isinstance(result, AuthorizationError), result
        with pytest.raises(AuthorizationError):
            await transport.subscribe(SubscribeRequest(topics=(topic,), group_id=group))
        await transport.close()


async def test_a_wrong_password_is_an_error_that_does_not_show_it(
    kafka_secured: RunningKafka, security: KafkaSecurity, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await make_topic(kafka_secured)
    settings = {**security.sasl("SCRAM-SHA-512"), "sasl.password": "not-the-right-one"}
    transport = connect(settings)
    with caplog.at_level(logging.DEBUG):
        async with asyncio.timeout(60):
            (result,) = await transport.publish([Message(topic, b"")])
            await transport.close()

        # Who receives or administers hears it as well, and sooner than that there is nobody.
        async def in_a_transaction(transport: KafkaTransport) -> None:
            async with transport.transaction():
                pytest.fail("it has begun")

        for asks in (
            connect(settings).topics(),
            connect(settings).subscribe(SubscribeRequest(topics=(topic,), group_id="group")),
            in_a_transaction(connect(settings)),
            connect(settings | {"transactional.id": "id"}).open_transactions(),
        ):
            with pytest.raises(AuthenticationError, match=r"sasl"):
                await asks
    assert isinstance(result, AuthenticationError), result
    assert "not-the-right-one" not in f"{result!r} {caplog.text} {transport!r} {transport._settings!r}"


@pytest.mark.parametrize("right", [True, False], ids=["the right one", "a wrong one"])
async def test_a_password_is_shown_nowhere(
    kafka_secured: RunningKafka,
    security: KafkaSecurity,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    right: bool,
) -> None:
    """Not in logs where librdkafka tells all, nor in reprs, errors, tracebacks and spans."""
    spans = record_spans(monkeypatch)
    topic, group = await make_topic(kafka_secured), kafka_secured.unique("group")
    await allow(kafka_secured, security.username, topic, group)
    secret = security.password if right else "zwetschgenkuchen"
    settings = security.sasl("SCRAM-SHA-256") | {"debug": "all", "ssl.key.password": "pflaumenmus"}
    options = {name: value for name, value in settings.items() if name not in ("bootstrap.servers", "sasl.password")}
    user = security.username
    url = f"kafka://{user}:{secret}@{settings['bootstrap.servers']}"
    shown: list[object] = []
    with caplog.at_level(logging.DEBUG):
        async with asyncio.timeout(90):
            producer = EventProducer(url=url, options=options)
            shown += [producer, producer.config, vars(producer), producer._transport, vars(producer._transport)]
            try:
                await producer.send(topic, Signed())
            except AuthenticationError as error:
                assert not right
                shown += [error, traceback.format_exception(error)]
            consumer = EventConsumer(url=url, group_id=group, topics=[topic], options=options)
            shown += [consumer, consumer.config, vars(consumer)]
            try:
                async with consumer:
                    shown += [consumer._transport, vars(consumer._transport), *(await consumer.receive(1))]
            except AuthenticationError as error:
                assert not right
                shown += [error, traceback.format_exception(error)]
            await producer.close()
    shown += [span.to_json() for span in spans.get_finished_spans()] if spans is not None else []
    text = "\n".join([caplog.text, *map(repr, shown), *map(str, shown)])
    assert topic in text
    for hidden in (secret, "pflaumenmus", base64.b64encode(secret.encode()).decode()):
        assert hidden not in text


def record_spans(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An exporter in memory that is in force for the test; None without OpenTelemetry's SDK."""
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    except ImportError:
        return None
    exporter, tracing = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", tracing)
    monkeypatch.setattr(trace, "get_tracer", lambda name, *_, **__: tracing.get_tracer(name))
    return exporter
