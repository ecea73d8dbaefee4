"""What `RabbitMQProducer` and `RabbitMQConsumer` add to the contracts, and what each bad input is told."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest

from commons_events.consumers import EventConsumer
from commons_events.errors import (
    AuthenticationError,
    AuthorizationError,
    CapabilityError,
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    MessageTooLargeError,
    PublishTimeoutError,
    TopicFullError,
    TransportError,
)
from commons_events.event import Event, registry
from commons_events.message import Message, Receipt
from commons_events.producers import EventProducer
from commons_events.rabbitmq import (
    Binding,
    Exchange,
    ExclusiveQueueError,
    Queue,
    RabbitMQAdmin,
    RabbitMQConsumer,
    RabbitMQDelivery,
    RabbitMQProducer,
    RabbitMQTransport,
    Topology,
    TopologyMismatchError,
    UnknownExchangeError,
    UnknownQueueError,
    UnknownVirtualHostError,
    UnroutableError,
    _connection,
    _topology,
)
from commons_events.rabbitmq._receiver import Receiver
from commons_events.rabbitmq._topology import delay_exchange, retry_queue
from commons_events.runtime import Runtime, use_runtime
from commons_events.testing import TcpProxy
from commons_events.testing.services import RunningRabbitMQ
from commons_events.transport import SubscribeRequest

pytestmark = pytest.mark.asyncio


async def declare(url: str, *queues: Queue, exchange: str | None = None) -> None:
    """Queues, each bound to the exchange by its own name."""
    bindings = [Binding(exchange=exchange, queue=queue.name, routing_key=queue.name) for queue in queues if exchange]
    async with RabbitMQAdmin(url) as admin:
        exchanges = [Exchange(name=exchange, type="direct")] if exchange else []
        await admin.declare(Topology(exchanges=exchanges, queues=queues, bindings=bindings))


async def declare_topic(url: str, queue: str) -> None:
    """The exchange "topics", all of which goes to a queue that is there."""
    binding = Binding(exchange="topics", queue=queue, routing_key="#")
    async with RabbitMQAdmin(url) as admin:
        await admin.declare(Topology(exchanges=[Exchange(name="topics")], bindings=[binding]))


async def messages_in(url: str, queue: str, count: int) -> None:
    """Wait until a queue has so many messages ready."""
    async with RabbitMQAdmin(url) as admin, asyncio.timeout(60):
        while (await admin.queue(queue)).messages != count:  # noqa: ASYNC110  # it is about another process
            await asyncio.sleep(0.05)


async def take(consumer: EventConsumer, count: int = 1) -> list[RabbitMQDelivery]:
    taken: list[RabbitMQDelivery] = []
    async with asyncio.timeout(60):
        while len(taken) < count:
            for delivery in await consumer.receive(count - len(taken)):
                assert isinstance(delivery, RabbitMQDelivery)
                taken.append(delivery)
    return taken


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_a_message_arrives_with_all_that_amqp_says_of_it(rabbitmq_vhost: str, kind: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q", type=kind), exchange="events")  # type: ignore[arg-type]
    async with (
        RabbitMQProducer(rabbitmq_vhost) as producer,
        RabbitMQConsumer(rabbitmq_vhost, queue="q", prefetch_count=5) as consumer,
    ):
        receipt = await producer.publish(
            "events", "q", b"raw", key="k", headers={"h": "v"}, priority=3, expiration=500, persistent=False
        )
        assert receipt.topic == "events"
        (message,) = await take(consumer)
        assert (message.body, message.key, message.headers) == (b"raw", b"k", (("h", b"v"),))
        assert (message.exchange, message.routing_key, message.topic) == ("events", "q", "q")
        assert (message.redelivered, message.attempt) == (False, 1)
        properties = message.properties
        assert properties.message_id == receipt.message_id
        assert (properties.priority, properties.expiration, properties.delivery_mode) == (3, "500000", 1)
        await message.ack()


async def test_events_follow_the_amqp_binding_of_cloudevents(rabbitmq_vhost: str) -> None:
    """Seen by pika alone: a property for the content type, cloudEvents_… for the rest; and the colon is read too."""
    await declare(rabbitmq_vhost, Queue(name="q"))
    with registry.isolated():

        class Happened(Event):
            event_type = "rabbitmq-tests.cloud"
            number: int

        event = Happened(number=1)
        async with RabbitMQProducer(rabbitmq_vhost, source="urn:tests") as producer:
            await producer.publish("", "q", event)
        connection = await asyncio.to_thread(pika.BlockingConnection, pika.URLParameters(rabbitmq_vhost))
        channel = connection.channel()
        while True:
            method, properties, _ = channel.basic_get("q", auto_ack=True)
            if method is not None:
                break
        assert properties is not None
        assert properties.content_type == "application/json"
        assert properties.headers is not None
        assert properties.headers["cloudEvents_type"] == "rabbitmq-tests.cloud"
        assert properties.headers["cloudEvents_specversion"] == "1.0"
        assert properties.headers["cloudEvents_id"] == event.event_id
        assert properties.headers["cloudEvents_source"] == "urn:tests"
        assert isinstance(properties.headers["cloudEvents_time"], str)
        colon = {
            name.replace("cloudEvents_", "cloudEvents:"): value
            for name, value in properties.headers.items()
            if name.startswith("cloudEvents_")
        }
        channel.basic_publish(
            "",
            "q",
            b'{"number": 2}',
            pika.BasicProperties(content_type="application/json", headers=colon),  # type: ignore[no-untyped-call]
        )
        connection.close()
        async with RabbitMQConsumer(rabbitmq_vhost, queue="q") as consumer:
            (message,) = await take(consumer)
            found = message.event()
            assert isinstance(found, Happened)
            assert (found.number, found.event_id, found.source) == (2, event.event_id, "urn:tests")
            await message.ack()


async def test_requeued_messages_come_again_to_whoever_is_first(rabbitmq_vhost: str) -> None:
    await declare(
        rabbitmq_vhost, Queue(name="q", type="quorum", dead_letter_exchange="", dead_letter_routing_key="dead")
    )
    await declare(rabbitmq_vhost, Queue(name="dead"))
    async with RabbitMQProducer(rabbitmq_vhost) as producer:
        await producer.publish("", "q", b"value")
    async with RabbitMQConsumer(rabbitmq_vhost, queue="q") as consumer:
        (message,) = await take(consumer)
        await message.nack(requeue=True)
        (message,) = await take(consumer)
        assert message.redelivered
        assert (message.attempt, message.delivery_count) == (1, 1)
        with pytest.raises(ValueError, match="not both"):
            await message.nack(1.0, requeue=True)
        with pytest.raises(ConfigurationError, match="dead_letter_topic"):
            await message.reject("bad")
        with pytest.raises(ConfigurationError, match="requeue=False"):
            await message.reject()
        await message.nack(0.01)
        (message,) = await take(consumer)
        assert message.attempt == 2
        await message.reject(requeue=False)
        await message.reject(requeue=True)  # the first one wins
    async with RabbitMQConsumer(rabbitmq_vhost, queue="dead") as undertaker:
        (letter,) = await take(undertaker)
        assert letter.body == b"value"
        assert letter.properties.headers is not None
        assert letter.properties.headers["x-death"][0]["reason"] == "rejected"
        assert letter.headers == ()
        await letter.ack()


async def test_a_delivery_limit_leads_to_the_dead_letters_at_least_once(rabbitmq_vhost: str) -> None:
    limited = Queue(
        name="q",
        delivery_limit=2,
        dead_letter_exchange="",
        dead_letter_routing_key="dead",
        dead_letter_strategy="at-least-once",
        overflow="reject-publish",
    )
    await declare(rabbitmq_vhost, limited, Queue(name="dead"))
    async with RabbitMQProducer(rabbitmq_vhost) as producer:
        await producer.publish("", "q", b"poison")
    async with RabbitMQConsumer(rabbitmq_vhost, queue="q") as consumer:
        for before in (0, 1, 2):
            (message,) = await take(consumer)
            assert message.delivery_count == before
            await message.nack(requeue=True)
    async with RabbitMQConsumer(rabbitmq_vhost, queue="dead") as undertaker:
        (letter,) = await take(undertaker)
        assert letter.body == b"poison"
        await letter.ack()


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_what_was_fetched_and_never_seen_is_at_its_first_attempt(rabbitmq_vhost: str, kind: str) -> None:
    """However often it was given back: a consumer's restarts bring no message nearer to the dead letters."""
    await declare(rabbitmq_vhost, Queue(name="q", type=kind))  # type: ignore[arg-type]
    async with RabbitMQProducer(rabbitmq_vhost) as producer:
        for number in range(5):
            await producer.publish("", "q", b"%d" % number)
    for _ in range(3):
        async with RabbitMQConsumer(rabbitmq_vhost, queue="q") as consumer:
            (first,) = await take(consumer)
            await first.ack()
    async with RabbitMQConsumer(rabbitmq_vhost, queue="q") as consumer:
        unseen = await take(consumer, 2)
        assert [(message.body, message.attempt, message.redelivered) for message in unseen] == [
            (b"3", 1, True),
            (b"4", 1, True),
        ]


async def test_only_so_many_are_out_as_prefetched(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q", type="classic"))
    async with (
        RabbitMQProducer(rabbitmq_vhost) as producer,
        RabbitMQConsumer(rabbitmq_vhost, queue="q", prefetch_count=3) as consumer,
    ):
        await asyncio.gather(*(producer.publish("", "q", b"%d" % number) for number in range(10)))
        out = await take(consumer, 3)
        await messages_in(rabbitmq_vhost, "q", 7)
        assert await consumer.receive(10, timeout=0.3) == []
        for message in out:
            await message.ack()
        assert len(await take(consumer, 3)) == 3


HOUR = 3600.0


class TimeStands(Runtime):
    """What is to happen in an hour happens when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead = 0.0
        self._in_an_hour: list[Callable[[], object]] = []

    def monotonic(self) -> float:
        return super().monotonic() + self._ahead

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        if seconds > HOUR / 2:
            self._in_an_hour.append(callback)
        return super().call_later(seconds, callback)

    def pass_an_hour(self) -> None:
        self._ahead += HOUR
        for callback in self._in_an_hour:
            callback()


@pytest.mark.parametrize("batch_size", [1, 500])
async def test_a_key_keeps_its_order_where_one_is_nacked(rabbitmq_vhost: str, batch_size: int) -> None:
    await declare(rabbitmq_vhost, Queue(name="q"))
    async with RabbitMQProducer(rabbitmq_vhost) as producer:
        for number in range(6):
            await producer.publish("", "q", b"%d" % number, key=b"ab"[number % 2 : number % 2 + 1])
    with use_runtime(runtime := TimeStands()):
        async with RabbitMQConsumer(rabbitmq_vhost, queue="q", batch_size=batch_size) as consumer:
            (first,) = await take(consumer)
            await first.nack(HOUR)
            received = [message.body for message in await take(consumer, 3)]
            receiving = asyncio.create_task(take(consumer, 3))
            await asyncio.sleep(0.1)
            assert not receiving.done()
            runtime.pass_an_hour()
            received += [message.body for message in await receiving]
    assert received == [b"1", b"3", b"5", b"0", b"2", b"4"]


async def test_bytes_are_sent_as_they_are_and_dropped_in_time(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q"))
    async with RabbitMQProducer(rabbitmq_vhost) as producer:
        await producer.publish("", "q", b"gone soon", expiration=timedelta(milliseconds=1))
        for body in (b"x", bytearray(b"y"), memoryview(b"z")):
            await producer.publish("", "q", body)
    async with RabbitMQConsumer(rabbitmq_vhost, queue="q") as consumer:
        assert [message.body for message in await take(consumer, 3)] == [b"x", b"y", b"z"]


async def test_closing_while_connecting_logs_no_error(rabbitmq_vhost: str, caplog: pytest.LogCaptureFixture) -> None:
    async with TcpProxy("127.0.0.1", urlsplit(rabbitmq_vhost).port or 5672) as proxy:
        proxy.block()
        producer = RabbitMQProducer(f"amqp://{proxy.address}", close_timeout=0.1)
        sent = producer.publish("", "q", b"")
        await asyncio.sleep(0.3)
        with pytest.raises(PublishTimeoutError):
            await producer.close()
        assert isinstance(sent.exception(), PublishTimeoutError)
    assert [one for one in caplog.records if one.name == "commons_events.rabbitmq" and one.levelname == "ERROR"] == []


async def test_who_subscribes_hears_that_the_transport_was_closed(rabbitmq_vhost: str) -> None:
    async with TcpProxy("127.0.0.1", urlsplit(rabbitmq_vhost).port or 5672) as proxy, asyncio.timeout(60):
        proxy.block()
        transport = RabbitMQTransport(f"amqp://{proxy.address}")
        subscribing = asyncio.create_task(transport.consume(["q"], max_unsettled=1))
        await asyncio.sleep(0.1)
        await transport.close()
        with pytest.raises(ClosedError):
            await subscribing


async def test_messages_of_a_higher_priority_come_first(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q", type="classic", max_priority=5))
    async with RabbitMQProducer(rabbitmq_vhost) as producer:
        for number, priority in enumerate((1, None, 5, 1, 5)):
            await producer.publish("", "q", b"%d" % number, priority=priority)
    async with RabbitMQConsumer(rabbitmq_vhost, queue="q") as consumer:
        assert [message.body for message in await take(consumer, 5)] == [b"2", b"4", b"0", b"3", b"1"]


async def test_the_highest_priority_consumes(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q", type="classic"))
    async with (
        RabbitMQProducer(rabbitmq_vhost) as producer,
        RabbitMQConsumer(rabbitmq_vhost, queue="q", prefetch_count=2) as low,
        RabbitMQConsumer(rabbitmq_vhost, queue="q", prefetch_count=2, consumer_priority=5) as high,
    ):
        for number in range(3):
            await producer.publish("", "q", b"%d" % number)
        assert [message.body for message in await take(high, 2)] == [b"0", b"1"]
        assert [message.body for message in await take(low)] == [b"2"]


async def test_a_stream_is_read_from_an_offset_and_goes_on_after_a_lost_connection(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str
) -> None:
    rabbitmq_service.require("streams", "management")
    await declare(rabbitmq_vhost, Queue(name="s", type="stream"))
    async with RabbitMQProducer(rabbitmq_vhost) as producer:
        for number in range(20):
            await producer.publish("", "s", b"%d" % number)
    for offset, first in (("first", 0), (7, 7), ("7", 7)):
        async with RabbitMQConsumer(rabbitmq_vhost, queue="s", prefetch_count=100, stream_offset=offset) as consumer:
            messages = await take(consumer, 20 - first)
            assert [message.offset for message in messages] == list(range(first, 20))
            assert [message.body for message in messages] == [b"%d" % number for number in range(first, 20)]
            for give_back in (lambda one: one.nack(requeue=True), lambda one: one.reject(requeue=False)):
                with pytest.raises(CapabilityError, match="stream"):
                    give_back(messages[0])
            await consumer.commit(wait=True)  # the connection is there
    async with RabbitMQConsumer(
        rabbitmq_vhost, queue="s", prefetch_count=100, stream_offset="first", client_id="the-reader"
    ) as consumer:
        messages = await take(consumer, 20)
        for number in (0, 1, 2, 4):  # 3 is not finished
            await messages[number].ack()
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(rabbitmq_service.close_connections, "the-reader"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        again = await take(consumer, 17)
        assert [message.offset for message in again] == list(range(3, 20))
        for message in again:
            await message.ack()
        assert await consumer.receive(10, timeout=0.2) == []


async def test_a_nacked_message_waits_in_a_retry_queue(rabbitmq_vhost: str) -> None:
    """It takes no room of the prefetch, outlives its consumer, and its attempts are counted in the group."""
    settings: dict[str, Any] = {"broker": rabbitmq_vhost, "topics": ["t"], "group_id": "g"}
    options = {"retry_queues": True, "prefetch_count": 1}
    async with EventConsumer(**settings, options=options) as consumer:
        async with RabbitMQProducer(rabbitmq_vhost) as producer:
            for value in (b"fails", b"passes"):
                await producer.publish("t", "", value, key="k", headers={"h": "v"})
        (first,) = await take(consumer)
        assert (first.body, first.attempt) == (b"fails", 1)
        assert not consumer._subscription.holds_keys, "what follows it is not fetched again at each nack"  # type: ignore[union-attr]
        await first.nack(3.0)
        (second,) = await take(consumer)
        assert second.body == b"passes", "the one that waits is not with the consumer"
        await second.ack()
    async with EventConsumer(**settings, options=options) as consumer:
        (again,) = await take(consumer)
        assert (again.body, again.key, again.headers) == (b"fails", b"k", (("h", b"v"),))
        assert again.attempt == 2
        assert again.message.timestamp == first.message.timestamp
        await again.ack()


async def test_a_nacked_message_goes_to_its_retry_queue_however_long_the_first_connection_to_publish_takes(
    rabbitmq_vhost: str,
) -> None:
    address = urlsplit(rabbitmq_vhost)
    options = {"retry_queues": True, "prefetch_count": 1}
    async with TcpProxy("127.0.0.1", address.port or 5672) as proxy:
        url = address._replace(netloc=f"guest:guest@{proxy.address}").geturl()
        async with EventConsumer(broker=url, topics=["t"], group_id="g", options=options) as consumer:
            async with RabbitMQProducer(rabbitmq_vhost) as producer:
                for value in (b"fails", b"passes"):
                    await producer.publish("t", "", value)
            (first,) = await take(consumer)
            proxy.block()
            await first.nack(600.0)
            await asyncio.sleep(1.0)
            proxy.restore()
            (second,) = await take(consumer)
            assert (first.body, second.body) == (b"fails", b"passes")
            await second.ack()


async def test_what_holds_messages_back_stays(rabbitmq_vhost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what waits for a queue that is full, or not there yet, would go with it; RabbitMQ tries again in minutes."""
    monkeypatch.setattr(_topology, "KEPT", 1_000)
    await declare(rabbitmq_vhost, Queue(name="q", max_length=1, overflow="reject-publish"))
    transport = RabbitMQTransport(rabbitmq_vhost)
    async with RabbitMQAdmin(rabbitmq_vhost) as admin, RabbitMQProducer(rabbitmq_vhost) as producer:
        async with RabbitMQConsumer(rabbitmq_vhost, queue="q", retry_queues=True) as consumer:
            await producer.publish("", "q", b"precious")
            (message,) = await take(consumer)
            await message.nack(1.0)
        with pytest.raises(TopicFullError):
            while True:
                await producer.publish("", "q", b"fills it")
        await transport.publish_delayed([Message("t", b"due before there is a group")], 1.0)
        await asyncio.sleep(8.0)  # RabbitMQ looks for what has expired every five seconds
        for queue in (retry_queue("q", 1.0)[0], delay_exchange("t", 1.0)[0]):
            await admin.queue(queue)
    await transport.close()


async def test_what_a_queue_without_a_group_held_back_goes(rabbitmq_vhost: str) -> None:
    async with (
        EventConsumer(broker=rabbitmq_vhost, topics=["t"], options={"retry_queues": True}) as consumer,
        RabbitMQProducer(rabbitmq_vhost) as producer,
        RabbitMQAdmin(rabbitmq_vhost) as admin,
    ):
        await producer.publish("t", "", b"x")
        (message,) = await take(consumer)
        await message.nack(0.5)
        (message,) = await take(consumer)
        await message.ack()
        name, milliseconds = retry_queue(message.state.name, 0.5)
        with pytest.raises(TopologyMismatchError, match="x-expires.*"):
            await admin.declare(Topology(queues=[Queue(name=name, type="classic", message_ttl=milliseconds / 1000)]))


async def test_what_is_never_confirmed_is_reported(rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str) -> None:
    rabbitmq_service.require("alarms")
    await declare(rabbitmq_vhost, Queue(name="q"))
    async with RabbitMQProducer(rabbitmq_vhost, delivery_timeout=1.0) as producer, asyncio.timeout(180):

        async def publish(value: bytes) -> None:
            while True:  # a busy server takes longer than that for others, too
                with suppress(PublishTimeoutError):
                    await producer.publish("", "q", value)
                    return

        await publish(b"before")
        with rabbitmq_service.alarm(), pytest.raises(PublishTimeoutError, match="delivery_timeout"):
            while True:  # until RabbitMQ has heard of its alarm
                await producer.publish("", "q", b"during")
        await publish(b"after")


async def test_a_cancelled_start_takes_no_messages_along(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q"))
    async with RabbitMQProducer(rabbitmq_vhost) as producer:
        await producer.publish("", "q", b"value")
    transport = RabbitMQTransport(rabbitmq_vhost)
    for turns in range(1, 60):
        starting = asyncio.create_task(transport.consume(["q"], max_unsettled=1))
        await asyncio.sleep(turns * 0.001)
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await (await starting).close()
    member = await transport.consume(["q"], max_unsettled=1)
    async with asyncio.timeout(60):
        (delivery,) = await member.receive(1)
    assert delivery.value == b"value"
    await transport.close()


# --- bad input -------------------------------------------------------------------------------------------------------


async def test_an_unroutable_message_is_an_error(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q"), exchange="events")
    async with RabbitMQProducer(rabbitmq_vhost) as producer:
        sent = [producer.publish("events", key, b"same") for key in ("q", "nowhere", "q", "nowhere", "q")]
        results = await asyncio.gather(*sent, return_exceptions=True)
        assert [type(result) for result in results] == [Receipt, UnroutableError, Receipt, UnroutableError, Receipt]
        assert "NO_ROUTE" in str(results[1])
        assert "'nowhere'" in str(results[1])
        await producer.publish("events", "nowhere", b"dropped knowingly", mandatory=False)
        with registry.isolated():

            class Happened(Event):
                event_type = "rabbitmq-tests.unroutable"

            with pytest.raises(UnroutableError, match="start a consumer of the topic first"):
                await producer.send("a-topic-without-a-group", Happened())
    await messages_in(rabbitmq_vhost, "q", 3)


async def test_the_message_that_was_returned_fails_and_none_that_looks_like_it(rabbitmq_vhost: str) -> None:
    async with RabbitMQAdmin(rabbitmq_vhost) as admin, RabbitMQProducer(rabbitmq_vhost) as producer:
        binding = Binding(exchange="by-header", queue="q", arguments={"x-match": "all", "kind": "a"})
        await admin.declare(
            Topology(
                exchanges=[Exchange(name="by-header", type="headers")], queues=[Queue(name="q")], bindings=[binding]
            )
        )
        kinds = "abba"
        sent = [producer.publish("by-header", "", b"same", headers={"kind": kind}) for kind in kinds]
        sent += [producer.publish("", "nowhere", b"same", mandatory=mandatory) for mandatory in (False, True)]
        results = await asyncio.gather(*sent, return_exceptions=True)
    expected = [Receipt, UnroutableError, UnroutableError, Receipt, Receipt, UnroutableError]
    assert [type(result) for result in results] == expected


async def test_an_unknown_exchange_is_an_error_and_harms_no_other(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q"), exchange="events")
    async with RabbitMQProducer(rabbitmq_vhost) as producer:
        before = [producer.publish("events", "q", b"before") for _ in range(50)]
        lost = producer.publish("evnts", "q", b"never")
        after = [producer.publish("events", "q", b"after") for _ in range(50)]
        with pytest.raises(UnknownExchangeError, match="404 .*evnts"):
            await lost
        await asyncio.gather(*before, *after)
        # One that was there and is deleted behind our back closes the channel, and what it takes along is sent again.
        async with RabbitMQAdmin(rabbitmq_vhost) as admin:
            await admin.declare(Topology(exchanges=[Exchange(name="gone", type="fanout")]))
            await producer.publish("gone", "", b"", mandatory=False)
            await admin.delete_exchange("gone")
        mixed = [producer.publish(("gone", "events")[number % 2], "q", b"mixed") for number in range(50)]
        results = await asyncio.gather(*mixed, return_exceptions=True)
        assert {type(result) for result in results[::2]} == {UnknownExchangeError}
        assert {type(result) for result in results[1::2]} == {Receipt}


async def test_a_queue_that_was_deleted_is_told_until_it_is_there_again(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="gone"), Queue(name="there"))
    async with (
        RabbitMQConsumer(rabbitmq_vhost, queue=["gone", "there"]) as consumer,
        RabbitMQProducer(rabbitmq_vhost) as producer,
        RabbitMQAdmin(rabbitmq_vhost) as admin,
        asyncio.timeout(60),
    ):
        await admin.delete_queue("gone")
        for _ in range(3):
            with pytest.raises(UnknownQueueError, match="gone"):
                await consumer.receive(1)
        await admin.declare(Topology(queues=[Queue(name="gone")]))
        for queue in ("gone", "there"):
            await producer.publish("", queue, queue.encode())
        assert {message.body for message in await take(consumer, 2)} == {b"gone", b"there"}


async def test_who_asks_again_while_it_is_connected_consumes_once(
    rabbitmq_vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the second of two subscriptions does, where the first one's asking has brought the connection back."""
    on_up = Receiver.on_up

    def on_up_and_again(self: Receiver, connection: Any) -> None:
        on_up(self, connection)
        self._on_again()

    monkeypatch.setattr(Receiver, "on_up", on_up_and_again)
    await declare(rabbitmq_vhost, Queue(name="q"))
    async with (
        RabbitMQConsumer(rabbitmq_vhost, queue="q") as consumer,
        RabbitMQProducer(rabbitmq_vhost) as producer,
        RabbitMQAdmin(rabbitmq_vhost) as admin,
    ):
        for _ in range(4):
            await producer.publish("", "q", b"x")
        await consumer.commit(wait=True)
        assert (await admin.queue("q")).consumers == 1
        assert len(await take(consumer, 4)) == 4


async def test_an_unknown_queue_is_an_error(rabbitmq_vhost: str) -> None:
    with pytest.raises(UnknownQueueError, match="404 .*no-such-queue"):
        async with RabbitMQConsumer(rabbitmq_vhost, queue="no-such-queue"):
            pass
    transport = RabbitMQTransport(rabbitmq_vhost, passive=True)
    with pytest.raises(UnknownQueueError, match="orders.billing"):
        await transport.subscribe(SubscribeRequest(topics=("orders",), group_id="billing"))
    (refused,) = await transport.publish([Message("orders", b"")])
    assert isinstance(refused, UnknownExchangeError)
    await transport.close()


@pytest.mark.parametrize("name", ["two words", "z" * 255])
async def test_a_queue_of_any_name_is_consumed(rabbitmq_vhost: str, name: str) -> None:
    await declare(rabbitmq_vhost, Queue(name=name))
    async with RabbitMQProducer(rabbitmq_vhost) as producer, RabbitMQConsumer(rabbitmq_vhost, queue=name) as consumer:
        await producer.publish("", name, b"x")
        (message,) = await take(consumer)
        assert message.body == b"x"
    with pytest.raises(UnknownQueueError, match=r"amq\.gen-abc"):
        async with RabbitMQConsumer(rabbitmq_vhost, queue="amq.gen-abc"):
            pass


async def test_a_second_exclusive_consumer_is_an_error(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q", type="classic"))
    async with RabbitMQConsumer(rabbitmq_vhost, queue="q", exclusive=True):
        with pytest.raises(ExclusiveQueueError, match="403 .*exclusive"):
            async with RabbitMQConsumer(rabbitmq_vhost, queue="q"):
                pass
    async with RabbitMQConsumer(rabbitmq_vhost, queue="q"):
        pass
    connection = await asyncio.to_thread(pika.BlockingConnection, pika.URLParameters(rabbitmq_vhost))
    connection.channel().queue_declare("mine", exclusive=True)
    with pytest.raises(ExclusiveQueueError, match="405 .*mine"):
        async with RabbitMQConsumer(rabbitmq_vhost, queue="mine"):
            pass
    connection.close()


async def test_a_queue_with_other_arguments_is_an_error(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="orders.billing", type="classic"))
    transport = RabbitMQTransport(rabbitmq_vhost)
    with pytest.raises(TopologyMismatchError, match="406 .*x-queue-type.*'quorum' but current is"):
        await transport.subscribe(SubscribeRequest(topics=("orders",), group_id="billing"))
    await transport.close()


async def test_who_may_not_is_told(rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str) -> None:
    name, vhost = rabbitmq_service.unique("user"), urlsplit(rabbitmq_vhost).path[1:]
    await declare(rabbitmq_vhost, Queue(name="q"), exchange="events")
    rabbitmq_service.manage("PUT", f"/api/users/{name}", {"password": "secret", "tags": ""})
    try:
        address = urlsplit(rabbitmq_vhost)
        url = address._replace(netloc=f"{name}:secret@{address.hostname}:{address.port}").geturl()
        for wrong, error in (
            (url, AuthorizationError),
            (url.replace("secret", "wrong"), AuthenticationError),
            (rabbitmq_vhost.replace(vhost, "no-such-vhost"), UnknownVirtualHostError),
        ):
            transport = RabbitMQTransport(wrong)
            with pytest.raises(error, match="403|530") as caught:
                await transport.subscribe(SubscribeRequest(topics=("t",), group_id="g"))
            await transport.close()
            producer = RabbitMQProducer(wrong)
            with pytest.raises(error):
                await producer.publish("events", "q", b"")
            await producer.close()
            assert "wrong" not in str(caught.value)
            assert "secret" not in str(caught.value)
        nothing = {"configure": "^$", "write": "^$", "read": "^$"}
        rabbitmq_service.manage("PUT", f"/api/permissions/{vhost}/{name}", nothing)
        with pytest.raises(AuthorizationError, match="403 .*access to"):
            async with RabbitMQConsumer(url, queue="q"):
                pass
        async with RabbitMQProducer(url) as producer, asyncio.timeout(60):
            with pytest.raises(AuthorizationError, match="403 .*exchange 'events'"):
                await producer.publish("events", "q", b"")
        rabbitmq_service.manage("PUT", f"/api/permissions/{vhost}/{name}", {**nothing, "write": "events"})
        async with RabbitMQProducer(url) as producer:
            await producer.publish("events", "q", b"may write, and not look")
        rabbitmq_service.manage("PUT", f"/api/permissions/{vhost}/{name}", {**nothing, "write": ".*"})
        await declare_topic(rabbitmq_vhost, "q")
        some = {"exchange": "topics", "write": "^may\\.", "read": ""}
        rabbitmq_service.manage("PUT", f"/api/topic-permissions/{vhost}/{name}", some)
        async with RabbitMQProducer(url) as producer:
            keys = ["may.1"] * 5 + ["may not"] + ["may.2"] * 5
            results = await asyncio.gather(
                *(producer.publish("topics", key, b"") for key in keys), return_exceptions=True
            )
            assert [type(result) for result in results] == [Receipt] * 5 + [AuthorizationError] + [Receipt] * 5
    finally:
        rabbitmq_service.manage("DELETE", f"/api/users/{name}")


async def test_a_message_over_a_limit_is_an_error(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q", type="classic", max_length=1, overflow="reject-publish"))
    async with RabbitMQProducer(rabbitmq_vhost, max_message_bytes=1000) as producer:
        with pytest.raises(MessageTooLargeError, match="1,000"):
            await producer.publish("", "q", b"x" * 1001)
        await producer.publish("", "q", b"fits")
        with pytest.raises(TopicFullError, match="reject-publish"):
            await producer.publish("", "q", b"no room")


async def test_a_message_over_the_servers_limit_is_an_error_and_harms_no_other(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str
) -> None:
    """RabbitMQ closes the channel over it; what was under way with it is sent again."""
    rabbitmq_service.require("alarms")  # its rabbitmqctl is ours
    control = rabbitmq_service._control
    assert control is not None
    await declare(rabbitmq_vhost, Queue(name="q"))
    await asyncio.to_thread(control, ["eval", "application:set_env(rabbit, max_message_size, 5000)."])
    try:
        async with RabbitMQProducer(rabbitmq_vhost) as producer:
            sent = [producer.publish("", "q", b"x" * (6000 if number == 10 else 10)) for number in range(20)]
            results = await asyncio.gather(*sent, return_exceptions=True)
    finally:
        await asyncio.to_thread(control, ["eval", "application:set_env(rabbit, max_message_size, 134217728)."])
    refused = results.pop(10)
    assert isinstance(refused, MessageTooLargeError)
    assert "406" in str(refused)
    assert "larger than configured max size" in str(refused)
    assert "max_message_size" in str(refused)
    assert {type(result) for result in results} == {Receipt}


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[int]:
    """Somebody who says something, or nothing, and ends the connection; yields his port."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
async def test_something_else_at_the_port(scheme: str) -> None:
    async with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        producer = RabbitMQProducer(f"{scheme}://127.0.0.1:{port}")
        with pytest.raises(TransportError, match=f"{port}.*port") as caught:
            await producer.publish("", "q", b"")
        assert not caught.value.retriable
        await producer.close()


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
async def test_what_only_ends_connections_may_be_starting(scheme: str) -> None:
    async with listening(b"") as port:
        producer = RabbitMQProducer(f"{scheme}://127.0.0.1:{port}", connection_timeout=500)
        with pytest.raises(ConnectionLostError, match=str(port)) as caught:
            await producer.publish("", "q", b"")
        assert caught.value.retriable
        await producer.close()


async def test_what_stands_before_a_server_ends_connections_while_it_is_away(
    rabbitmq_vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience in ("_LONGEST_OUTAGE", "_PATIENCE"):
        monkeypatch.setattr(_connection, patience, 1.0)
    await declare(rabbitmq_vhost, Queue(name="q"))
    address = urlsplit(rabbitmq_vhost)
    async with TcpProxy("127.0.0.1", address.port or 5672) as proxy:
        url = address._replace(netloc=f"guest:guest@{proxy.address}").geturl()
        async with RabbitMQConsumer(url, queue="q") as consumer, RabbitMQProducer(rabbitmq_vhost) as producer:
            waiting = asyncio.create_task(take(consumer))
            proxy.cut()
            await asyncio.sleep(3.0)
            assert not waiting.done()
            proxy.restore()
            await producer.publish("", "q", b"x")
            async with asyncio.timeout(60):
                (message,) = await waiting
            assert message.body == b"x"


def io_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "commons-events-rabbitmq-io"}


async def test_a_client_whose_loop_ended_takes_no_messages(
    rabbitmq_vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = io_threads()

    async def leave_open() -> None:
        await declare(rabbitmq_vhost, Queue(name="q"))
        await RabbitMQConsumer(rabbitmq_vhost, queue="q").start()

    async def go_on() -> None:
        async with (
            RabbitMQProducer(rabbitmq_vhost) as producer,
            RabbitMQConsumer(rabbitmq_vhost, queue="q") as consumer,
        ):
            for _ in range(10):
                await producer.publish("", "q", b"x")
            assert len(await take(consumer, 10)) == 10

    def run() -> None:
        asyncio.run(leave_open())
        asyncio.run(go_on())

    async def run_to_the_end() -> None:
        await asyncio.to_thread(run)
        for thread in io_threads() - before:  # it warns when it closes its connection
            await asyncio.to_thread(thread.join, 60.0)

    with pytest.warns(ResourceWarning, match="not closed before its event loop ended"):
        await run_to_the_end()
    assert [one.message for one in caplog.records if "again" in one.message] == [], "it does not connect any more"


@pytest.mark.parametrize("held", [pytest.param(2.5, id="slow"), pytest.param(8.0, id="silent")])
async def test_a_client_whose_loop_ended_leaves_no_connection_to_a_server_that_is(
    rabbitmq_vhost: str, held: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_connection, "_LOOK", 0.2)
    await declare(rabbitmq_vhost, Queue(name="q"))
    address = urlsplit(rabbitmq_vhost)
    async with (
        TcpProxy("127.0.0.1", address.port or 5672) as proxy,
        RabbitMQProducer(rabbitmq_vhost) as producer,
    ):
        url = address._replace(netloc=f"guest:guest@{proxy.address}").geturl()

        async def leave_open() -> None:
            consumer = RabbitMQConsumer(url, queue="q")
            await consumer.start()
            assert len(await take(consumer)) == 1

        await producer.publish("", "q", b"x")

        async def leave_it_to_a_server_that_is_held() -> None:
            before = io_threads()
            await asyncio.to_thread(asyncio.run, leave_open())
            (left,) = io_threads() - before
            proxy.block()
            await asyncio.sleep(held)
            proxy.restore()
            await asyncio.to_thread(left.join, 60.0)
            gc.collect()  # what was left open would be warned of here, too, and fail the test

        with pytest.warns(ResourceWarning, match="not closed before its event loop ended"):
            await leave_it_to_a_server_that_is_held()
        async with RabbitMQConsumer(rabbitmq_vhost, queue="q") as consumer:
            (again,) = await take(consumer)
            assert again.redelivered


async def test_an_admin_whose_closing_was_cancelled_is_closed(rabbitmq_vhost: str) -> None:
    before = io_threads()
    admin = RabbitMQAdmin(rabbitmq_vhost)
    await admin.declare(Topology(queues=[Queue(name="q")]))
    closing = asyncio.create_task(admin.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    await admin.close()
    assert not io_threads() - before


async def test_the_next_address_is_taken(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q"))
    dead = urlsplit(rabbitmq_vhost)
    dead = dead._replace(netloc=dead.netloc.replace(str(dead.port), "1"))
    async with RabbitMQProducer([dead.geturl(), rabbitmq_vhost]) as producer:
        await producer.publish("", "q", b"")


async def test_an_alarm_makes_publishing_wait_and_says_so(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    rabbitmq_service.require("alarms")
    await declare(rabbitmq_vhost, Queue(name="q"))
    async with RabbitMQProducer(rabbitmq_vhost) as producer, RabbitMQConsumer(rabbitmq_vhost, queue="q") as consumer:
        await producer.publish("", "q", b"before")
        with caplog.at_level(logging.WARNING, "commons_events.rabbitmq"):
            with rabbitmq_service.alarm():
                waiting = []
                async with asyncio.timeout(60):
                    while (
                        "connection.blocked" not in caplog.text
                    ):  # RabbitMQ takes some until it has heard of its alarm
                        waiting.append(producer.publish("", "q", b"early"))
                        await asyncio.sleep(0.05)
                late = [producer.publish("", "q", b"%d" % number) for number in range(100)]
                done, _ = await asyncio.wait(late, timeout=0.5)
                assert not done
                waiting += late
                (before,) = await take(consumer)  # who consumes goes on
                await before.ack()
            await asyncio.gather(*waiting)
        await until(lambda: "connection.unblocked" in caplog.text)
        bodies = [message.body for message in await take(consumer, len(waiting)) if message.body != b"early"]
        assert bodies == [b"%d" % number for number in range(100)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # it is about another process
            await asyncio.sleep(0.05)


async def test_credentials_are_asked_for_each_connection(rabbitmq_vhost: str) -> None:
    await declare(rabbitmq_vhost, Queue(name="q"))
    asked: list[str] = []

    async def credentials() -> tuple[str, str]:
        asked.append("async")
        return "guest", "guest"

    def blocking() -> tuple[str, str]:
        asked.append("blocking")
        return "guest", "guest"

    def broken() -> tuple[str, str]:
        raise OSError("the vault is sealed")

    address = urlsplit(rabbitmq_vhost)
    url = address._replace(netloc=f"nobody:wrong@{address.hostname}:{address.port}").geturl()
    for function in (credentials, blocking):
        async with RabbitMQProducer(url, credentials=function) as producer:
            await producer.publish("", "q", b"")
    assert asked == ["async", "blocking"]
    producer = RabbitMQProducer(url, credentials=broken)
    with pytest.raises(AuthenticationError, match="the vault is sealed"):
        await producer.publish("", "q", b"")
    await producer.close()


async def test_unified_clients_share_a_topics_messages_with_foreign_queues(rabbitmq_vhost: str) -> None:
    """A topic is an exchange: a queue of somebody else's can be bound to some event types of it."""
    with registry.isolated():

        class Created(Event):
            event_type = "user.created"

        class Deleted(Event):
            event_type = "user.deleted"

        async with EventConsumer(broker=rabbitmq_vhost, topics=["users"], group_id="mine") as consumer:
            await declare(rabbitmq_vhost, Queue(name="deleted"))
            async with RabbitMQAdmin(rabbitmq_vhost) as admin:
                binding = Binding(exchange="users", queue="deleted", routing_key="user.deleted")
                await admin.declare(Topology(bindings=[binding]))
            async with EventProducer(broker=rabbitmq_vhost) as producer:
                await producer.send_batch("users", [Created(), Deleted(), Created()])
            assert len(await take(consumer, 3)) == 3
        await messages_in(rabbitmq_vhost, "deleted", 1)
