"""Signing in to RabbitMQ over TLS, by password and by a client's certificate."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

import pytest

from commons_events.errors import AuthenticationError, TransportError
from commons_events.message import Message, Receipt
from commons_events.rabbitmq import RabbitMQTransport
from commons_events.testing.services import (
    RabbitMQSecurity,
    RunningRabbitMQ,
)
from commons_events.transport import SubscribeRequest

pytestmark = pytest.mark.asyncio


@pytest.fixture
def security(rabbitmq_secured: RunningRabbitMQ) -> RabbitMQSecurity:
    assert rabbitmq_secured.security is not None
    return rabbitmq_secured.security


async def round_trip(transport: RabbitMQTransport, topic: str) -> None:
    async with asyncio.timeout(60):
        member = await transport.subscribe(SubscribeRequest(topics=(topic,), group_id="group"))
        (result,) = await transport.publish([Message(topic, b"secret")])
        assert isinstance(result, Receipt), result
        (delivery,) = await member.receive(1)
        assert delivery.value == b"secret"
        await delivery.ack()
        await member.flush()
        await transport.close()


async def test_a_user_signs_in_by_password_over_tls(
    rabbitmq_secured: RunningRabbitMQ, security: RabbitMQSecurity
) -> None:
    await round_trip(RabbitMQTransport(security.url, cacertfile=str(security.ca)), rabbitmq_secured.unique("tls"))


async def test_a_client_signs_in_by_its_certificate(
    rabbitmq_secured: RunningRabbitMQ, security: RabbitMQSecurity
) -> None:
    address = urlsplit(security.url)
    url = address._replace(netloc=f"nobody:wrong@{address.hostname}:{address.port}").geturl()
    options = {"cacertfile": security.ca, "certfile": security.certificate, "keyfile": security.key}
    given = {name: str(path) for name, path in options.items()}
    transport = RabbitMQTransport(url, auth_mechanism="external", **given)
    await round_trip(transport, rabbitmq_secured.unique("mtls"))


async def test_what_is_wrong_with_tls_is_said(security: RabbitMQSecurity, caplog: pytest.LogCaptureFixture) -> None:
    plain = security.url.replace("amqps", "amqp")
    wrong = security.url.replace("guest:guest", "guest:not-the-right-one")
    elsewhere = {"cacertfile": str(security.ca), "server_name_indication": "elsewhere.test"}
    with caplog.at_level(logging.DEBUG):
        for url, options, error, said in (
            (security.url, {}, AuthenticationError, "certificate"),
            (security.url, elsewhere, AuthenticationError, "elsewhere.test"),
            (wrong, {"cacertfile": str(security.ca)}, AuthenticationError, "403"),
            (plain, {"connection_timeout": 2_000}, TransportError, "127.0.0.1"),
        ):
            transport = RabbitMQTransport(url, **options)
            async with asyncio.timeout(60):
                (result,) = await transport.publish([Message("topic", b"")])
                await transport.close()
            assert isinstance(result, error), result
            assert said in str(result)
    assert "not-the-right-one" not in caplog.text
