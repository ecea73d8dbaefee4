"""What is wrong with a setting is said when the client is made, with the nearest right one, and no secret in it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from commons_events import ConsumerConfig, EventConsumer, EventProducer, EventRouter, ProducerConfig, Retry
from commons_events.errors import (
    ConfigurationError,
    ConnectionLostError,
    HandlerDefinitionError,
    InvalidTopicError,
    PublishTimeoutError,
    UnknownPartitionError,
)
from commons_events.event import Event
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer, KafkaTransport
from commons_events.transport import SubscribeRequest, TransportSettings


class Happened(Event):
    event_type = "kafka-tests.happened"
    number: int


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lingr_ms": 5}, "Did you mean 'linger.ms'"),
        ({"linger_ms": "soon"}, "linger|queue.buffering.max.ms"),
        ({"enable_auto_commit": True}, "not yours to set"),
        ({"acks": "1"}, "acks"),
        ({"security_protocol": "tls"}, "security.protocol"),
        ({"options": {"compresion.type": "zstd"}}, "Did you mean 'compression.type'"),
        ({"commit_interval_ms": -1}, "milliseconds"),
        ({"message_max_bytes": "many"}, "message.max.bytes"),
        ({"transaction_timeout_ms": "soon"}, "transaction.timeout.ms"),
        ({"transaction_timeout_ms": 5}, "1,000"),
        ({"transactional_id": "id", "enable_idempotence": False}, "enable.idempotence"),
        ({"url": "kafka://other:9092"}, "not both"),
        ({"client_id": "half a pair \ud83c"}, "client_id.*no text"),
        ({"transactional_id": "half a pair \ud83c"}, "transactional.id.*no text"),
        ({"half_a_pair_\ud83c": 1}, "unknown setting"),
        ({"options": {"half a pair \ud83c": 1}}, "no text"),
        ({"sasl_password": "zero\0byte"}, "sasl.password.*no text"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        KafkaProducer(bootstrap_servers="localhost:9092", **settings)


@pytest.mark.parametrize("servers", ["", "host:port", "host:0", ":9092", "host:9092,"])
def test_a_wrong_address_is_named(servers: str) -> None:
    with pytest.raises(ConfigurationError, match="bootstrap"):
        KafkaProducer(bootstrap_servers=servers)


def test_librdkafkas_settings_are_keywords() -> None:
    producer = KafkaProducer(["one:9092", "two:9092"], linger_ms=5, compression_type="zstd", client_id="me")
    assert producer.config.options == {"linger.ms": 5, "compression.type": "zstd"}
    assert producer.config.address == "kafka://one:9092,two:9092"
    assert producer.config.client_id == "me"


def test_the_unified_clients_take_them_in_librdkafkas_words() -> None:
    with pytest.raises(ConfigurationError, match="linger.ms"):
        EventProducer(broker="kafka://localhost:9092", options={"linger,ms": 5})
    with pytest.raises(ConfigurationError, match="linger.ms"):
        EventConsumer(broker="kafka://localhost:9092?linger_ms=5", topics=["a"])


def test_a_group_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="group_id is missing"):
        KafkaConsumer(bootstrap_servers="localhost:9092", topics=["user-events"])


@pytest.mark.parametrize("topic", ["", ".", "..", "two words", "ümlaut", "slash/ed", "x" * 250, "^(open"])
def test_kafka_takes_no_such_topic(topic: str) -> None:
    with pytest.raises(InvalidTopicError):
        KafkaConsumer(bootstrap_servers="localhost:9092", group_id="g", topics=[topic])
    with pytest.raises(InvalidTopicError):
        KafkaTransport().check_topic(topic)


def test_the_consumer_protocol_leaves_time_outs_to_the_broker() -> None:
    with pytest.raises(ConfigurationError, match="classic"):
        KafkaConsumer("localhost:9092", "g", ["a"], group_protocol="consumer", session_timeout_ms=6000)


def test_a_wrong_value_shows_no_secret() -> None:
    url = "kafka://user:hunter2@localhost:9092"
    transport = KafkaTransport.from_settings(TransportSettings(url=url, options={"ssl.key.password": "hunter3"}))
    shown = f"{transport!r} {vars(transport)!r} {transport._settings!r}"
    with pytest.raises(ConfigurationError) as caught:
        KafkaTransport(url, **{"security.protocol": "none", "sasl.oauthbearer.client.secret": "hunter4"})
    assert "hunter" not in shown + str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.asyncio
async def test_bad_input_is_refused_at_once() -> None:
    producer = KafkaProducer(bootstrap_servers="localhost:1", connect_timeout_ms=500)
    with pytest.raises(UnknownPartitionError):
        producer.send("topic", Happened(number=1), partition=-1)
    for timestamp in (datetime(1970, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)):  # 0 is none to librdkafka
        for event in (Happened(number=1), b"raw"):
            with pytest.raises(ValueError, match="1970"):
                producer.send("topic", event, timestamp=timestamp)
    with pytest.raises(TypeError, match="tombstone"):
        producer.send("topic", None)
    with pytest.raises(TypeError, match="key"):
        producer.send("topic", Happened(number=1), key=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="key"):
        producer.send("topic", b"raw", key=1)  # type: ignore[arg-type]
    await producer.close()


@pytest.mark.asyncio
async def test_nobody_at_the_address_is_an_error_and_no_hang() -> None:
    async with asyncio.timeout(60):
        producer = KafkaProducer(bootstrap_servers="127.0.0.1:1", connect_timeout_ms=500)
        for _ in range(2):
            with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:1"):
                await producer.send("topic", Happened(number=1))
        await producer.close()
        transport = KafkaTransport("kafka://127.0.0.1:1?connect.timeout.ms=500")
        with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:1"):
            await transport.subscribe(SubscribeRequest(topics=("topic",), group_id="g"))
        with pytest.raises(ConnectionLostError):
            await transport.topics()
        await transport.close()


def test_dead_letters_that_match_a_pattern_would_feed_themselves() -> None:
    given: dict[str, Any] = {"group_id": "group", "topics": ["others", "^orders.*"]}
    for topic in ("orders-dlq", "orders", "others"):
        with pytest.raises(ConfigurationError, match="feed itself"):
            KafkaConsumer("localhost:9092", dead_letter_topic=topic, **given)
    with pytest.raises(InvalidTopicError, match="\\^dead"):
        KafkaConsumer("localhost:9092", dead_letter_topic="^dead", **given)
    KafkaConsumer("localhost:9092", dead_letter_topic="dead-orders", **given)
    # With the newer protocol the broker matches whole names.
    KafkaConsumer("localhost:9092", "group", ["^orders"], group_protocol="consumer", dead_letter_topic="orders-dlq")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dead_letter": "orders-dlq"}, "feed itself"),
        ({"dead_letter": "^dead"}, "\\^dead"),
        ({"retry": Retry(by="topic", topic="orders-again")}, "own source"),
        ({"retry": Retry(by="topic")}, "\\^orders"),
        ({"topic": "^orders-[", "dead_letter": "dead"}, "no regular expression"),
    ],
)
def test_a_router_of_a_pattern_does_not_start_where_it_would_feed_itself(options: dict[str, Any], said: str) -> None:
    router = EventRouter()

    @router.subscribe(options.pop("topic", "^orders.*"), group="group", **options)
    async def handle(event: Happened) -> None: ...

    async def run() -> None:
        async with router.running(broker="kafka://localhost:1"):
            pass

    with pytest.raises((HandlerDefinitionError, InvalidTopicError), match=said):
        asyncio.run(run())


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("^orders.*", "orders-copy", "itself"),
        ("^orders.*", None, "\\^orders"),  # its own name
        ("orders", "^copies.*", "\\^copies"),
    ],
)
def test_a_bridge_leads_to_one_topic_which_is_not_its_source(source: str, target: str | None, said: str) -> None:
    router = EventRouter()
    router.bridge(source, group="group", to=target)

    async def run() -> None:
        async with router.running(broker="kafka://localhost:1"):
            pass

    with pytest.raises((HandlerDefinitionError, InvalidTopicError), match=said):
        asyncio.run(run())


@pytest.mark.parametrize("password", ["secret?word", "secret/word", "secret#word", "1234?secret=x", "12?secret"])
def test_a_password_that_was_not_encoded_is_not_shown(password: str) -> None:
    for make in (KafkaProducer, KafkaAdmin):
        with pytest.raises(ConfigurationError, match="percent-encode") as caught:
            make(f"kafka://alice:{password}@localhost:9092")
        assert "secret" not in str(caught.value)


def test_an_administrator_takes_servers_as_the_clients_do() -> None:
    for servers in ("one:9092,two:9092", ["one:9092", "two:9092"], "kafka://one:9092,two:9092?linger.ms=5"):
        assert KafkaAdmin(servers)._settings.bootstrap_servers == "one:9092,two:9092"
    for wrong in ("", [], ["one:port"]):
        with pytest.raises(ConfigurationError, match="bootstrap"):
            KafkaAdmin(wrong)


def test_another_config_is_no_config() -> None:
    with pytest.raises(TypeError, match="ConsumerConfig"):
        KafkaConsumer(config=ProducerConfig(broker="kafka"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ProducerConfig"):
        KafkaProducer(config=ConsumerConfig(broker="kafka", topics=("t",)))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="mapping"):
        KafkaProducer("localhost:9092", options=["linger.ms"])


@pytest.mark.parametrize("stated", ["argument", "environment", "config", "transport"])
def test_the_delivery_timeout_holds_wherever_it_is_stated(stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`send` left it to the client, which knew of the argument alone."""
    url, seconds, options = "kafka://localhost:1", 0.5, {"connect.timeout.ms": 600_000, "linger.ms": 0}

    async def run() -> None:
        match stated:
            case "argument":
                producer = KafkaProducer(url=url, delivery_timeout=seconds, options=options, close_timeout=1)
            case "environment":
                monkeypatch.setenv("COMMONS_EVENTS_PRODUCER_DELIVERY_TIMEOUT", str(seconds))
                producer = KafkaProducer(url=url, options=options, close_timeout=1)
            case "config":
                config = ProducerConfig(url=url, delivery_timeout=seconds, options=options, close_timeout=1)
                producer = KafkaProducer(config=config)
                assert config.options == options
            case _:
                settings = TransportSettings(url=url, options=options, close_timeout=1)
                transport = KafkaTransport.from_settings(settings)
                producer = KafkaProducer(transport=transport, delivery_timeout=seconds)
        for value in (b"value", Happened(number=1)):
            with pytest.raises(PublishTimeoutError, match="delivery.timeout"):
                await asyncio.wait_for(producer.send("topic", value), 60)
        await producer.close()
        await producer._transport.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "seconds", "milliseconds"),
    [
        ("kafka://localhost:1", float("inf"), 2**31 - 1),
        ("kafka://localhost:1", 3e6, 2**31 - 1),
        ("kafka://localhost:1?delivery.timeout.ms=300000", 60, 300_000),
    ],
)
def test_a_delivery_timeout_that_a_config_has_may_be_long_and_gives_way_to_the_address(
    url: str, seconds: float, milliseconds: int
) -> None:
    producer = KafkaProducer(config=ProducerConfig(url=url, delivery_timeout=seconds))
    assert int(producer._kafka._settings.options["delivery.timeout.ms"]) == milliseconds


def test_a_producer_of_another_broker_says_so_whatever_else_is_stated() -> None:
    with pytest.raises(ConfigurationError, match="needs Kafka"):
        KafkaProducer(config=ProducerConfig(broker="memory", delivery_timeout=5))


@pytest.mark.parametrize("servers", ["SSL://host:9093", "amqp://host:5672"])
def test_the_admin_takes_addresses_of_kafka_alone(servers: str) -> None:
    with pytest.raises(ConfigurationError, match="kafka://"):
        KafkaAdmin(servers)


@pytest.mark.asyncio
async def test_a_large_batch_is_looked_at_before_its_keys_are_asked_for() -> None:
    producer = KafkaProducer("localhost:1", connect_timeout_ms=500, close_timeout=0.1)
    batch: list[Any] = [*[Happened(number=1)] * 20_000, object()]
    with pytest.raises(TypeError, match="takes an Event"):
        await producer.send_batch("topic", batch, key=lambda event: str(event.number))
    await producer.close()
