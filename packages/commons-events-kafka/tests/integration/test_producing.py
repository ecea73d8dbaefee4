"""What `KafkaProducer` promises on a real broker: where messages land, what they hold, and what is refused."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import confluent_kafka
import pytest

from commons_events.errors import (
    BatchError,
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    FencedError,
    InvalidTopicError,
    MessageTooLargeError,
    PublishError,
    PublishTimeoutError,
    TopicFullError,
    TransportError,
    UnknownPartitionError,
    UnknownTopicError,
)
from commons_events.event import Event
from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer, KafkaTransport
from commons_events.message import Message, Receipt
from commons_events.testing.services import KafkaCluster, RunningKafka
from commons_events.transport import Delivery

pytestmark = pytest.mark.asyncio

SOON = 60.0
"""Seconds that something may take on a busy machine."""


class Produced(Event):
    event_type = "kafka-tests.produced"
    number: int


async def new_topic(kafka: RunningKafka, partitions: int = 1, **config: str) -> str:
    topic = kafka.unique("produced")
    named = {name.replace("_", "."): value for name, value in config.items()}
    async with KafkaAdmin(kafka.bootstrap_servers) as admin:
        await admin.create_topic(topic, partitions=partitions, config=named)
    return topic


async def stored(kafka: RunningKafka, topic: str, count: int) -> list[Delivery]:
    """The first messages of a topic."""
    found: list[Delivery] = []
    async with (
        asyncio.timeout(SOON),
        KafkaConsumer(kafka.bootstrap_servers, kafka.unique("group"), topic) as consumer,
    ):
        while len(found) < count:
            found += await consumer.receive(count - len(found))
    return found


# --- where messages land -------------------------------------------------------------------------------------------


async def test_messages_without_a_key_spread_over_all_partitions(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service, partitions=3)
    async with KafkaProducer(kafka_service.bootstrap_servers, sticky_partitioning_linger_ms=0) as producer:
        receipts = [*await producer.send_batch(topic, [b"%d" % number for number in range(300)])]
        receipts += await asyncio.gather(*(producer.send(topic, Produced(number=number)) for number in range(300)))
        # An empty key is a key.
        empty = {(await producer.send(topic, b"x", key=key)).partition for key in (b"", "", b"")}
    spread = Counter(receipt.partition for receipt in receipts)
    assert spread.keys() == {0, 1, 2}
    assert min(spread.values()) > 100, spread
    assert len(empty) == 1


async def test_a_partition_that_is_asked_for(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service, partitions=3)
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
        for partition in (2, 0, 1):
            receipt = await producer.send(topic, b"x", key="the same", partition=partition)
            assert receipt.partition == partition
        with pytest.raises(UnknownPartitionError, match=topic):
            await producer.send(topic, b"x", partition=3)
        with pytest.raises(UnknownPartitionError, match=topic):
            await producer.send(topic, Produced(number=1), partition=3)


# --- what they hold ------------------------------------------------------------------------------------------------


async def test_a_timestamp_of_the_beginning_of_1970_is_refused(kafka_service: RunningKafka) -> None:
    """librdkafka takes it for none, and would put the present in its place."""
    topic, first = await new_topic(kafka_service), datetime(1970, 1, 1, tzinfo=UTC)
    then = first + timedelta(milliseconds=1)
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
        with pytest.raises(ValueError, match="1970"):
            producer.send(topic, Produced(number=0), timestamp=first)
        await producer.send(topic, Produced(number=1), timestamp=then)
    [message] = await stored(kafka_service, topic, 1)
    assert message.timestamp == then


async def test_a_timestamp_that_kafka_cannot_have_is_the_present_where_it_comes_from_elsewhere(
    kafka_service: RunningKafka,
) -> None:
    """As through a bridge: an AMQP timestamp of 0 is no reason to lose a message."""
    topic, before = await new_topic(kafka_service), datetime.now(UTC) - timedelta(minutes=5)
    transport = KafkaTransport(f"kafka://{kafka_service.bootstrap_servers}")
    for seconds in (0, -1):
        stamp = datetime.fromtimestamp(seconds, UTC)
        [result] = await transport.publish([Message(topic, b"value", timestamp=stamp)])
        assert isinstance(result, Receipt)
    await transport.close()
    for message in await stored(kafka_service, topic, 2):
        assert message.timestamp is not None
        assert message.timestamp > before


async def test_tombstones_have_no_value(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service)
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
        await producer.send(topic, b"", key="a")
        await producer.send(topic, None, key="b", headers={"why": "gone"})
        await producer.send_batch(topic, [b"value", None, Produced(number=1)], key="c")
        async with producer.transaction():
            await producer.send(topic, None, key="d")
    found = [(d.key, d.message.value) for d in await stored(kafka_service, topic, 6)]
    assert [*found[:4], found[5]] == [(b"a", b""), (b"b", None), (b"c", b"value"), (b"c", None), (b"d", None)]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_what_is_compressed_is_smaller_on_disk_and_the_same_when_read(
    kafka_service: RunningKafka, codec: str
) -> None:
    topic = await new_topic(kafka_service)
    values = [b"%d" % number * 500 for number in range(10, 60)]
    async with KafkaProducer(kafka_service.bootstrap_servers, compression_type=codec, linger_ms=200) as producer:
        await producer.send_batch(topic, values)
    assert [d.value for d in await stored(kafka_service, topic, len(values))] == values
    if isinstance(kafka_service, KafkaCluster):
        size = sum(log.stat().st_size for log in kafka_service.data().glob(f"{topic}-0/*.log"))
        assert (size < 25_000) == (codec != "none"), size  # of 50,000 bytes


async def test_other_clients_read_the_event_in_headers(kafka_service: RunningKafka) -> None:
    """CloudEvents' Kafka binding, in binary mode, as a plain client sees it."""
    topic = await new_topic(kafka_service)
    event = Produced(number=7, correlation_id="order-9")
    at = datetime(2026, 5, 4, 3, 2, 1, 5000, UTC)
    async with KafkaProducer(kafka_service.bootstrap_servers, source="urn:tests") as producer:
        await producer.send(topic, event, key="key", headers={"own": b"\xff"}, timestamp=at)
    plain = confluent_kafka.Consumer(
        {
            "bootstrap.servers": kafka_service.bootstrap_servers,
            "group.id": kafka_service.unique("plain"),
            "auto.offset.reset": "earliest",
        }
    )
    plain.subscribe([topic])
    try:
        message = await asyncio.to_thread(plain.poll, SOON)
    finally:
        plain.close()
    assert message is not None
    assert message.error() is None
    headers = dict(message.headers())
    assert {name: value for name, value in headers.items() if name in ("ce_type", "ce_source", "ce_id", "own")} == {
        "ce_type": b"kafka-tests.produced",
        "ce_source": b"urn:tests",
        "ce_id": event.event_id.encode(),
        "own": b"\xff",
    }
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_correlationid"] == b"order-9"
    assert headers["content-type"].startswith(b"application/json")
    assert message.key() == b"key"
    assert message.timestamp() == (confluent_kafka.TIMESTAMP_CREATE_TIME, round(at.timestamp() * 1000))
    assert Produced.from_json(message.value()).number == 7


# --- what is refused -----------------------------------------------------------------------------------------------


async def test_a_topic_that_is_not_there_is_not_made(kafka_service: RunningKafka) -> None:
    topic = kafka_service.unique("nowhere")
    async with (
        KafkaProducer(kafka_service.bootstrap_servers, topic_metadata_propagation_max_ms=500) as producer,
        KafkaAdmin(kafka_service.bootstrap_servers) as admin,
        asyncio.timeout(SOON),
    ):
        with pytest.raises(UnknownTopicError, match=topic) as caught:
            await producer.send(topic, Produced(number=1))
        assert not caught.value.retriable
        with pytest.raises(BatchError) as batch:
            await producer.send_batch(topic, [b"1", b"2"])
        assert [type(result) for result in batch.value.results] == [UnknownTopicError] * 2
        with pytest.raises(UnknownTopicError):
            async with KafkaConsumer(kafka_service.bootstrap_servers, "group", topic):
                pass
        assert topic not in [info.topic for info in await admin.topics()]


async def test_a_message_that_is_too_large(kafka_service: RunningKafka) -> None:
    """Here for the configuration, or there for the topic; what was sent beside it is confirmed."""
    if reason := kafka_service.why_not("size-limit"):
        pytest.skip(reason)
    topic = await new_topic(kafka_service, max_message_bytes="20000")
    large, larger = os.urandom(30_000), os.urandom(1_100_000)
    # Each message goes by itself: the broker refuses as one what is sent as one.
    async with KafkaProducer(kafka_service.bootstrap_servers, batch_size=1) as producer:
        for value, said in ((large, "max.message.bytes of the topic"), (larger, "the limit is 1,000,000")):
            with pytest.raises(MessageTooLargeError, match=said) as caught:
                await producer.send(topic, value)
            assert not caught.value.retriable
            with pytest.raises(BatchError) as batch:
                await producer.send_batch(topic, [b"before", value, b"after"], key="key")
            assert [type(result) for result in batch.value.results] == [Receipt, MessageTooLargeError, Receipt]
    assert [d.value for d in await stored(kafka_service, topic, 4)] == [b"before", b"after"] * 2


async def test_what_no_broker_has_to_be_asked_about() -> None:
    producer = KafkaProducer("127.0.0.1:1")
    refused: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (UnknownPartitionError, "-1", {"partition": -1}),
        (UnknownPartitionError, "2147483648", {"partition": 2**31}),
        (TypeError, "partition", {"partition": "0"}),
        (TypeError, "partition", {"partition": True}),
        (TypeError, "key", {"key": 5}),
        (TypeError, "'a'", {"headers": {"a": 5}}),
        (TypeError, "timestamp", {"timestamp": 1_700_000_000}),
        (ValueError, "naive", {"timestamp": datetime(2026, 1, 1)}),
        *((InvalidTopicError, "topic", {"topic": topic}) for topic in ("", "..", "two words", "^open", "x" * 250)),
    ]
    for event in (b"raw", Produced(number=1)):
        for error, said, arguments in refused:
            with pytest.raises(error, match=said):
                producer.send(**{"topic": "topic", "event": event, **arguments})  # type: ignore[unused-awaitable]
    with pytest.raises(TypeError, match="Event"):
        producer.send("topic", "text")  # type: ignore[arg-type, unused-awaitable]
    with pytest.raises(TypeError, match="key"):
        producer.send("topic", None)  # type: ignore[unused-awaitable]
    for topic in ("", "..", "^open"):
        with pytest.raises(InvalidTopicError):
            await producer.send_batch(topic, [b"raw"])
    await producer.close()
    await producer.close()
    for call in (lambda: producer.send("topic", b"raw"), lambda: producer.send("topic", Produced(number=1))):
        with pytest.raises(ClosedError):
            call()
    with pytest.raises(ClosedError):
        await producer.send_batch("topic", [b"raw"])
    with pytest.raises(ClosedError):
        async with producer.transaction():
            pass


async def test_servers_that_are_no_text() -> None:
    for servers in (9092, ["localhost:9092", 9092]):
        with pytest.raises(ConfigurationError, match="bootstrap_servers"):
            KafkaProducer(servers)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="bootstrap_servers"):
            KafkaConsumer(servers, "group", "topic")  # type: ignore[arg-type]


# --- a full queue, and the end -------------------------------------------------------------------------------------


async def test_a_full_queue_makes_batches_wait(kafka_service: RunningKafka) -> None:
    """Several at once, each larger than the queue, in one topic and in order."""
    topic = await new_topic(kafka_service)
    batches = [[b"%d-%d" % (sender, number) for number in range(1_200)] for sender in range(3)]
    typed = [Produced(number=number) for number in range(700)]
    async with KafkaProducer(kafka_service.bootstrap_servers, queue_buffering_max_messages=100) as producer:
        results = await asyncio.gather(
            *(producer.send_batch(topic, batch, key="key") for batch in batches),
            producer.send_batch(topic, typed, key="key"),
        )
        async with producer.transaction():
            in_transaction = await producer.send_batch(topic, batches[0], key="key")
    assert [len(result) for result in results] == [1_200, 1_200, 1_200, 700]
    assert len(in_transaction) == 1_200
    found = await stored(kafka_service, topic, 4_300)
    for sender, batch in enumerate(batches):
        assert [d.value for d in found if d.value.startswith(b"%d-" % sender)] == batch


async def test_a_full_queue_lets_as_many_sends_wait_and_refuses_the_others(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service)
    async with KafkaProducer(kafka_service.bootstrap_servers, queue_buffering_max_messages=100) as producer:
        sending = [producer.send(topic, b"%d" % number, key="key") for number in range(1_000)]
        results = await asyncio.gather(*sending, return_exceptions=True)
        again = await producer.send(topic, b"again", key="key")
    receipts, refused = results[:200], results[200:]
    assert [receipt.offset for receipt in receipts if isinstance(receipt, Receipt)] == list(range(200))
    for error in refused:
        assert isinstance(error, TopicFullError)
        assert error.retriable
    assert again.offset == 200


async def test_closing_waits_so_long_and_no_longer() -> None:
    """Nobody confirms: the sends fail, and closing says how many there were."""
    producer = KafkaProducer("127.0.0.1:1", close_timeout=0.3, connect_timeout_ms=600_000)
    sends = [producer.send("topic", b"raw"), producer.send("topic", Produced(number=1))]
    batch = asyncio.ensure_future(producer.send_batch("topic", [b"1", b"2"]))
    await asyncio.sleep(0)
    async with asyncio.timeout(SOON):
        with pytest.raises(PublishTimeoutError, match=r"within 0\.3 s") as caught:
            await producer.close()
        assert caught.value.retriable
        results = await asyncio.gather(*sends, batch, return_exceptions=True)
    assert all(isinstance(result, TransportError) for result in results), results
    with pytest.raises(ClosedError):
        producer.send("topic", b"late")  # type: ignore[unused-awaitable]


async def test_a_cancelled_close_ends_the_client_all_the_same(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service)
    for transactional_id in (None, kafka_service.unique("id")):
        settings: dict[str, Any] = {} if transactional_id is None else {"transactional_id": transactional_id}
        producer = KafkaProducer(kafka_service.bootstrap_servers, linger_ms=1_000, **settings)
        before = set(threading.enumerate())
        async with asyncio.timeout(SOON):
            if settings:
                async with producer.transaction():
                    await producer.send(topic, b"seen")
            sent = producer.send(topic, b"late")
            closing = asyncio.create_task(producer.close())
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            assert closing.cancelled()
            assert not sent.done()
            await producer.close()
        assert isinstance(await sent, Receipt)
        left = [thread.name for thread in set(threading.enumerate()) - before]
        assert not [name for name in left if name.startswith("commons-events")]


# --- fencing -------------------------------------------------------------------------------------------------------


async def test_a_producer_whose_successor_runs_is_fenced_for_good(kafka_service: RunningKafka) -> None:
    if reason := kafka_service.why_not("fencing", "read-committed"):
        pytest.skip(reason)
    topic, name = await new_topic(kafka_service), kafka_service.unique("id")

    async def send(producer: KafkaProducer, value: bytes) -> None:
        async with producer.transaction():
            await producer.send(topic, value)

    async with (
        asyncio.timeout(2 * SOON),
        KafkaProducer(kafka_service.bootstrap_servers, transactional_id=name) as before,
    ):
        await send(before, b"1")
        after = KafkaProducer(kafka_service.bootstrap_servers, transactional_id=name)
        await send(after, b"2")
        for _ in range(2):  # nor does it take its place back
            with pytest.raises(FencedError, match=r"same transactional\.id") as caught:
                await send(before, b"lost")
            assert not caught.value.retriable
        await send(after, b"3")
        # What needs no transaction is not concerned.
        await before.send(topic, b"4")
        await after.close()
    assert [d.value for d in await stored(kafka_service, topic, 4)] == [b"1", b"2", b"3", b"4"]


class Broken:
    """A client of librdkafka that raises a fatal error when it is polled, as confluent-kafka does, once."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.raised = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def poll(self, timeout: float) -> int:
        if not self.raised:
            self.raised = True
            error = confluent_kafka.KafkaError(
                confluent_kafka.KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "messages are missing", fatal=True
            )
            raise confluent_kafka.KafkaException(error)
        return int(self.client.poll(timeout))


async def test_a_fatal_error_fails_what_is_under_way_and_the_producer_goes_on(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service)
    full = 50
    async with (
        asyncio.timeout(SOON),
        # Nothing goes out but a full batch.
        KafkaProducer(kafka_service.bootstrap_servers, linger_ms=60_000, batch_num_messages=full) as producer,
    ):
        first = await producer.send_batch(topic, [b"%d" % number for number in range(full)])
        transport = producer._transport
        assert isinstance(transport, KafkaTransport)
        assert transport.publisher is not None
        lost = [producer.send(topic, b"lost"), producer.send(topic, Produced(number=1))]
        batch = asyncio.ensure_future(producer.send_batch(topic, [b"lost", b"lost"]))
        await asyncio.sleep(0)
        transport.publisher.client = Broken(transport.publisher.client)  # type: ignore[assignment]
        for result in await asyncio.gather(*lost, return_exceptions=True):
            assert isinstance(result, TransportError)
            assert "messages are missing" in str(result)
        with pytest.raises(BatchError, match="messages are missing"):
            await batch
        then = await producer.send_batch(topic, [b"%d" % number for number in range(full)])
    assert [receipt.offset for receipt in (*first, *then)] == list(range(2 * full))


async def test_a_header_whose_name_is_no_text_is_refused_alone(kafka_service: RunningKafka) -> None:
    """As from a broker whose clients take more: the client for Python ends the process, or cuts it at the zero byte."""
    topic = await new_topic(kafka_service)
    transport = KafkaTransport(f"kafka://{kafka_service.bootstrap_servers}")
    for name in ("half a pair \ud83c", "zero\0byte"):
        messages = [Message(topic, b"value", headers=((given, b"x"),)) for given in ("before", name, "after")]
        results = await transport.publish(messages)
        assert [type(result) for result in results] == [Receipt, PublishError, Receipt]
        assert "no name" in str(results[1])
        [alone] = await transport.publish([messages[1]])
        assert isinstance(alone, PublishError)
    await transport.close()
    found = await stored(kafka_service, topic, 4)
    assert [message.headers for message in found] == [(("before", b"x"),), (("after", b"x"),)] * 2


async def test_functions_of_the_user_s_that_fail_stop_nothing(
    kafka_service: RunningKafka, caplog: pytest.LogCaptureFixture
) -> None:
    """librdkafka's client raises what they raise where it is polled, which is in threads that nobody watches."""
    topic, called = await new_topic(kafka_service), Counter[str]()

    def failing(who: str) -> Any:
        def told(statistics: str) -> None:
            called[who] += 1
            raise LookupError(who)

        return told

    settings: dict[str, Any] = {"statistics_interval_ms": 10}
    servers, group = kafka_service.bootstrap_servers, kafka_service.unique("group")
    async with (
        asyncio.timeout(SOON),
        KafkaProducer(servers, stats_cb=failing("producer"), **settings) as producer,
        KafkaConsumer(servers, group, topic, stats_cb=failing("consumer"), **settings) as consumer,
    ):
        await producer.send(topic, b"first")
        await consumer.receive(1)
        while min(called["producer"], called["consumer"]) < 3:  # noqa: ASYNC110  # they are called in threads
            await asyncio.sleep(0.01)
        await producer.send(topic, b"second")
        [message] = await consumer.receive(1)
        assert message.value == b"second"
    assert "stats_cb" in caplog.text


async def test_a_consumer_s_error_function_is_told() -> None:
    told: list[confluent_kafka.KafkaError] = []
    consumer = KafkaConsumer("localhost:1", "group", "topic", error_cb=told.append, connect_timeout_ms=1_500)
    with pytest.raises(ConnectionLostError):
        await consumer.start()
    await consumer.close()
    assert told


async def test_a_tombstone_without_a_key_lets_nothing_of_its_batch_be_sent(kafka_service: RunningKafka) -> None:
    """Wherever it stands: the parts before it were sent."""
    topic, last = await new_topic(kafka_service), 700
    keys: dict[str, Any] = {"none": None, "of some": lambda event: "key" if event is not None else None}
    async with KafkaProducer(kafka_service.bootstrap_servers) as producer:
        for key in keys.values():
            with pytest.raises(TypeError, match="tombstone"):
                await producer.send_batch(topic, [b"value"] * last + [None], key=key)
        numbers = iter(range(last + 1))
        [*_, receipt] = await producer.send_batch(topic, [b"v"] * last + [None], key=lambda _: str(next(numbers)))
    assert receipt.offset == last
    found = await stored(kafka_service, topic, last + 1)
    assert [message.key for message in found] == [b"%d" % number for number in range(last + 1)]
