"""What is wrong with a setting is said when the client is made, with the nearest right one, and no secret in it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from commons_events import EventConsumer, EventProducer
from commons_events.errors import ConfigurationError, ConnectionLostError, InvalidTopicError
from commons_events.event import Event
from commons_events.rabbitmq import (
    InvalidHeaderError,
    RabbitMQAdmin,
    RabbitMQConsumer,
    RabbitMQProducer,
    RabbitMQTransport,
    RoutingKeyError,
)
from commons_events.transport import SubscribeRequest, TransportSettings


class Happened(Event):
    event_type = "rabbitmq-tests.happened"
    number: int


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hartbeat": 5}, "Did you mean 'heartbeat'"),
        ({"heartbeat": "often"}, "heartbeat.*whole number"),
        ({"heartbeat": True}, "heartbeat.*whole number"),
        ({"prefetch_count": 0}, "prefetch_count.*from 1 to 65535"),
        ({"queue_type": "lazy"}, "quorum or classic or stream"),
        ({"passive": "maybe"}, "true or false"),
        ({"options": {"queue_typ": "quorum"}}, "Did you mean 'queue_type'"),
        ({"cacertfile": "ca.pem"}, "amqps://"),
        ({"auth_mechanism": "external"}, "amqps://"),
        ({"auth_mechanism": "gssapi"}, "plain or external"),
        ({"credentials": ("guest", "guest")}, "function"),
        ({"broker": "amqp"}, "not both"),
        ({"stream_offset": "beginning"}, "'first', 'last', 'next'"),
        ({"stream_offset": datetime(2026, 1, 1)}, "naive"),
        ({"stream_offset": 1 << 63}, "an offset"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        RabbitMQProducer("amqp://localhost", **settings)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://localhost", "amqp://"),
        ("amqp://localhost/a/b", "%2F"),
        ("amqp://localhost/a#b", "%23"),
        ("amqp://localhost:port", "HOST:PORT"),
        ("amqp://localhost:0", "HOST:PORT"),
        ("amqp://one,,two", "HOST:PORT"),
        ("amqps://localhost?cacertfile=/not/there.pem", "/not/there.pem"),
        ("amqps://localhost?verify=sometimes", "verify_peer"),
    ],
)
def test_a_wrong_address_is_named(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        RabbitMQTransport(url)


@pytest.mark.parametrize("url", ["localhost:15672", "user:hunter2@localhost", "amqp://localhost"])
def test_the_management_api_is_at_an_address_of_http(url: str) -> None:
    with pytest.raises(ConfigurationError, match="http://") as caught:
        RabbitMQAdmin("amqp://localhost", url)
    assert "hunter" not in str(caught.value)


def test_an_address_is_taken_apart() -> None:
    settings = RabbitMQTransport("amqps://us%40er:pass%2Fword@one,two:1234,[::1]/a%2Fb?heartbeat=7").settings
    assert settings.hosts == (("one", 5671), ("two", 1234), ("::1", 5671))
    assert (settings.user, settings.password, settings.vhost, settings.heartbeat) == ("us@er", "pass/word", "a/b", 7)
    assert RabbitMQTransport("amqp://localhost").settings.vhost == "/"
    assert RabbitMQTransport("amqp://localhost/").settings.vhost == "/"


def test_several_urls_are_one_cluster() -> None:
    producer = RabbitMQProducer(["amqp://user:secret@one/v", "amqp://user:secret@two:5673/v"])
    assert producer.config.address == "amqp://user:secret@one,two:5673/v"
    assert RabbitMQProducer(["amqp://one/", "amqp://two"]).config.address == "amqp://one,two/"
    wrong: list[Any] = [[], ["amqp://one/v", "amqp://two/w"], ["amqp://a@one", "amqp://b@two"], b"amqp://one", 5, [5]]
    for others in wrong:
        with pytest.raises(ConfigurationError):
            RabbitMQProducer(others)


def test_the_unified_clients_take_them_too() -> None:
    with pytest.raises(ConfigurationError, match="heartbeat"):
        EventProducer(broker="amqp://localhost", options={"heart_beat": 5})
    with pytest.raises(ConfigurationError, match="heartbeat"):
        EventConsumer(broker="amqps://localhost?heart.beat=5", topics=["a"])
    assert EventProducer(broker="rabbitmq").config.address == "rabbitmq://"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "one of the two"),
        ({"queue": "q", "topics": ["t"]}, "one of the two"),
        ({"queue": ""}, "1 to 255 bytes"),
        ({"queue": ["q", "ü" * 128]}, "1 to 255 bytes"),
        ({"queue": []}, "1 to 255 bytes"),
        ({"queue": 5}, "a str"),
        ({"queue": "q", "prefetch_count": 0}, "prefetch_count"),
        ({"queue": "q", "group_id": "g"}, "belongs to topics"),
    ],
)
def test_a_consumer_needs_a_queue_or_topics(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        RabbitMQConsumer("amqp://localhost", **settings)


@pytest.mark.parametrize("topic", ["", "two words", "amq.topic", "ü" * 200])
def test_rabbitmq_takes_no_such_topic(topic: str) -> None:
    with pytest.raises(InvalidTopicError):
        RabbitMQTransport().check_topic(topic)
    with pytest.raises(InvalidTopicError):
        EventConsumer(broker="amqp://localhost", topics=[topic])


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["quorum", "stream"])
async def test_a_topic_and_a_group_that_make_no_queue_name_are_refused(kind: str) -> None:
    transport = RabbitMQTransport("amqp://localhost:1", queue_type=kind)
    with pytest.raises(ConfigurationError, match="Shorten the topic or the group_id"):
        await transport.subscribe(SubscribeRequest(topics=("t" * 200,), group_id="g" * 60))
    await transport.close()


@pytest.mark.asyncio
async def test_quorum_queues_know_no_exclusive_consumer() -> None:
    transport = RabbitMQTransport("amqp://localhost:1", exclusive=True)
    with pytest.raises(ConfigurationError, match="single_active_consumer"):
        await transport.subscribe(SubscribeRequest(topics=("t",), group_id="g"))
    await transport.close()


def test_a_wrong_value_shows_no_secret() -> None:
    url = "amqps://user:hunter2@localhost"
    transport = RabbitMQTransport.from_settings(TransportSettings(url=url))
    shown = f"{transport!r} {vars(transport)!r} {transport.settings!r}"
    with pytest.raises(ConfigurationError) as caught:
        RabbitMQTransport(url, keyfile_password="hunter3", certfile="/not/there")
    assert "hunter" not in shown + str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:hunter/2@host/v",
        "amqp://user:12/hunter@host",
        "amqp://hunter:pass/word@host",
        "amqp://user:hun?ter@host",
        "amqp://user:1?heartbeat=hunter@host",
        "amqp://user:1#hunter@host",
        "amqp://user:hunter@[::1",
    ],
)
def test_a_password_that_ends_the_address_is_not_shown(url: str) -> None:
    for make in (RabbitMQTransport, lambda url: RabbitMQProducer([url, url])):
        with pytest.raises(ConfigurationError, match="%2F|cannot be read") as caught:
            make(url)
        assert "hunter" not in str(caught.value)
        assert "word" not in str(caught.value).replace("password", "")


@pytest.mark.asyncio
async def test_bad_input_is_refused_at_once() -> None:
    producer = RabbitMQProducer("amqp://localhost:1", connection_timeout=500)
    event = Happened(number=1)
    with pytest.raises(RoutingKeyError, match="256 bytes"):
        producer.publish("events", "k" * 256, event)
    with pytest.raises(RoutingKeyError, match="empty"):
        producer.publish("", "", event)
    with pytest.raises(InvalidTopicError, match="255"):
        producer.publish("e" * 256, "key", event)
    with pytest.raises(InvalidHeaderError, match="CC"):
        producer.publish("events", "key", event, headers={"CC": "other"})
    with pytest.raises(InvalidHeaderError, match="x-delivery-count"):
        producer.publish("events", "key", event, headers={"x-delivery-count": "1"})
    with pytest.raises(InvalidHeaderError, match="256 bytes"):
        producer.publish("events", "key", event, headers={"h" * 256: ""})
    with pytest.raises(ValueError, match="priority"):
        producer.publish("events", "key", event, priority=256)
    with pytest.raises(ValueError, match="priority"):
        producer.publish("events", "key", event, priority="5")  # type: ignore[arg-type]
    for expiration in (-1, timedelta(seconds=-1), timedelta(days=50), "5", float("nan")):
        with pytest.raises(ValueError, match="expiration"):
            producer.publish("events", "key", event, expiration=expiration)  # type: ignore[arg-type]
    for sent in (event, b""):
        with pytest.raises(TypeError, match="A key is str or bytes"):
            producer.publish("events", "key", sent, key=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="headers of a message"):
        producer.publish("events", "key", b"", headers={"big": "x" * 200_000})
    await producer.close()


@pytest.mark.asyncio
async def test_nobody_at_the_address_is_an_error_and_no_hang() -> None:
    async with asyncio.timeout(60):
        producer = RabbitMQProducer(url="amqp://127.0.0.1:1", connection_timeout=300)
        for _ in range(2):
            with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:1"):
                await producer.publish("events", "key", Happened(number=1))
        await producer.close()
        transport = RabbitMQTransport("amqp://127.0.0.1:1?connection_timeout=300")
        with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:1"):
            await transport.subscribe(SubscribeRequest(topics=("topic",), group_id="g"))
        await transport.close()
