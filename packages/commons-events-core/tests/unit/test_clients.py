"""`EventProducer` and `EventConsumer` where time matters or a broker fails, on virtual time and scripted transports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from commons_events import ConsumerConfig, Delivery, Event, EventConsumer, EventProducer, Message
from commons_events.errors import (
    BatchError,
    CapabilityError,
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    MessageTooLargeError,
    PublishTimeoutError,
    SerializationError,
    TransportError,
)
from commons_events.memory import MemoryBroker, MemorySubscription, MemoryTransport
from commons_events.message import PublishResult, Receipt
from commons_events.runtime import use_runtime
from commons_events.transport import Capabilities, SubscribeRequest


class Happened(Event):
    event_type = "unit.clients.happened"
    n: int = 0
    ratio: float = 0.0


class Silent(MemoryTransport):
    """Confirms nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker())
        self.held: list[tuple[Sequence[Message], asyncio.Future[Sequence[PublishResult]]]] = []

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        future: asyncio.Future[Sequence[PublishResult]] = asyncio.get_running_loop().create_future()
        self.held.append((messages, future))
        return future

    def confirm(self) -> None:
        for messages, future in self.held:
            if not future.done():
                future.set_result([Receipt(message.topic, 0, index) for index, message in enumerate(messages)])


class Flaky(MemoryTransport):
    """Its subscriptions raise what stands in ``failures`` first."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__(MemoryBroker())
        self.failures = list(failures)

    async def subscribe(self, request: SubscribeRequest) -> MemorySubscription:
        subscription = await super().subscribe(request)
        receive = subscription.receive

        async def failing(limit: int) -> Sequence[Delivery]:
            if self.failures:
                raise self.failures.pop(0)
            return await receive(limit)

        subscription.receive = failing  # type: ignore[method-assign]
        return subscription


async def let_others_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# --- producers -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_send_that_is_never_confirmed_fails_after_the_delivery_timeout(clock: Any) -> None:
    with use_runtime(clock):
        producer = EventProducer(transport=Silent(), delivery_timeout=60)
        sent = producer.send("t", Happened())
        clock.advance(59.9)
        await let_others_run()
        assert not sent.done()
        clock.advance(0.2)
        with pytest.raises(PublishTimeoutError, match=r"within 60 s \(delivery_timeout\)") as caught:
            await sent
        assert caught.value.retriable
        await producer.close()


@pytest.mark.asyncio
async def test_a_confirmed_send_leaves_no_timer_behind(clock: Any) -> None:
    with use_runtime(clock):
        transport = Silent()
        async with EventProducer(transport=transport) as producer:
            sent = producer.send("t", Happened())
            transport.confirm()
            assert (await sent).offset == 0
            await let_others_run()
            assert all(timer.cancelled for timer in clock.timers)


@pytest.mark.asyncio
async def test_a_batch_that_is_never_confirmed_says_so_for_each_of_its_events(clock: Any) -> None:
    with use_runtime(clock):
        producer = EventProducer(transport=Silent(), delivery_timeout=5)
        batch = asyncio.ensure_future(producer.send_batch("t", [Happened(), Happened(ratio=float("nan"))]))
        await let_others_run()
        clock.advance(5)
        with pytest.raises(BatchError) as caught:
            await batch
        late, broken = caught.value.results
        assert isinstance(late, PublishTimeoutError)
        assert isinstance(broken, Exception)
        assert isinstance(broken.__cause__, SerializationError)
        assert caught.value.failed == (0, 1)
        await producer.close()


@pytest.mark.asyncio
async def test_closing_a_producer_reports_what_was_never_confirmed_and_closes_all_the_same() -> None:
    producer = EventProducer(transport=Silent(), close_timeout=0.01)
    sent = producer.send("t", Happened())
    with pytest.raises(PublishTimeoutError, match=r"1 .*not confirmed within 0\.01 s"):
        await producer.close()
    await asyncio.wait([sent], timeout=60)
    assert not sent.cancelled(), "whoever awaits it was not cancelled"
    assert isinstance(sent.exception(), PublishTimeoutError)
    with pytest.raises(ClosedError):
        producer.send("t", Happened())
    await producer.close()


@pytest.mark.asyncio
async def test_closing_again_after_a_cancelled_close_reports_what_was_never_confirmed() -> None:
    producer = EventProducer(transport=Silent(), close_timeout=0.01)
    sent = producer.send("t", Happened())
    closing = asyncio.create_task(producer.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    with pytest.raises(PublishTimeoutError, match="1 "):
        await producer.close()
    await asyncio.wait([sent], timeout=60)
    assert isinstance(sent.exception(), PublishTimeoutError)
    await producer.close()


@pytest.mark.asyncio
async def test_the_timeouts_of_clients_pass_on_the_runtime_s_clock(clock: Any) -> None:
    with use_runtime(clock):
        producer = EventProducer(transport=Silent(), close_timeout=3600, delivery_timeout=10_000)
        sent = producer.send("t", Happened())
        closing = asyncio.ensure_future(producer.close())
        consumer = EventConsumer(transport=MemoryTransport(MemoryBroker("quiet")), topics=["t"])
        receiving = asyncio.ensure_future(consumer.receive(1, timeout=3600))
        await let_others_run()
        clock.advance(3599)
        await let_others_run()
        assert not closing.done()
        assert not receiving.done()
        clock.advance(1)
        with pytest.raises(PublishTimeoutError, match="within 3600 s"):
            await asyncio.wait_for(closing, 60)
        assert await asyncio.wait_for(receiving, 60) == []
        with pytest.raises(PublishTimeoutError):
            await sent
        await consumer.close()


@pytest.mark.asyncio
async def test_a_send_that_nobody_awaits_any_more_does_not_disturb_the_others() -> None:
    transport = Silent()
    async with EventProducer(transport=transport) as producer:
        dropped, kept = producer.send("t", Happened()), producer.send("t", Happened())
        dropped.cancel()
        transport.confirm()
        assert isinstance(await kept, Receipt)


@pytest.mark.asyncio
async def test_a_message_over_the_configured_limit_is_refused_before_it_is_sent() -> None:
    transport = Silent()
    async with EventProducer(transport=transport, max_message_bytes=400) as producer:
        with pytest.raises(MessageTooLargeError, match="max_message_bytes is 400"):
            producer.send("t", Happened(metadata={"text": "x" * 400}))
    assert transport.held == []


@pytest.mark.asyncio
async def test_an_event_that_cannot_be_written_is_refused_when_send_is_called() -> None:
    transport = Silent()
    async with EventProducer(transport=transport) as producer:
        with pytest.raises(SerializationError, match="ratio is NaN"):
            producer.send("t", Happened(ratio=float("nan")))
    assert transport.held == []


@pytest.mark.asyncio
@pytest.mark.parametrize("key", [5, 1.5, ["k"], ("a",)])
async def test_a_key_that_is_neither_str_nor_bytes_is_a_type_error(key: Any) -> None:
    async with EventProducer(transport=Silent()) as producer:
        with pytest.raises(TypeError, match="key"):
            producer.send("t", Happened(), key=key)


@pytest.mark.asyncio
@pytest.mark.parametrize("headers", [[("name", "value")], "name", 5, {"name": 5}, {5: "value"}])
async def test_headers_that_are_no_names_and_words_are_a_type_error(headers: Any) -> None:
    async with EventProducer(transport=Silent()) as producer:
        with pytest.raises(TypeError, match="headers: "):
            producer.send("t", Happened(), headers=headers)
        with pytest.raises(TypeError, match="headers: "):
            await producer.send_batch("t", [Happened()], headers=headers)


@pytest.mark.parametrize("client", [EventProducer, EventConsumer])
def test_an_address_without_its_name_is_a_type_error(client: Any) -> None:
    with pytest.raises(TypeError, match=r"such as url=…, not a str"):
        client("memory://")


@pytest.mark.asyncio
@pytest.mark.parametrize("event", [None, {}, "event", Happened, 5])
async def test_what_is_no_event_is_a_type_error(event: Any) -> None:
    async with EventProducer(transport=Silent()) as producer:
        with pytest.raises(TypeError, match="takes an Event"):
            producer.send("t", event)


@pytest.mark.asyncio
async def test_the_event_that_was_sent_is_not_changed_by_sending() -> None:
    transport = Silent()
    event = Happened()
    async with EventProducer(transport=transport, source="urn:me") as producer:
        producer.send("t", event)
        transport.confirm()
    assert event.source is None
    ((message,), _) = transport.held[0]
    assert message.value is not None
    assert Happened.from_json(message.value).source == "urn:me"


# --- consumers -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_consumer_tries_again_with_growing_delays_while_the_broker_is_out_of_reach(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with use_runtime(clock), caplog.at_level(logging.WARNING, "commons_events"):
        transport = Flaky(*(ConnectionLostError(f"no. {n}") for n in range(5)))
        await transport.publish([Message("t", b"v")])
        config = ConsumerConfig(topics=("t",), retry_delay=1.0, max_retry_delay=4.0)
        async with EventConsumer(config, transport=transport) as consumer:
            (message,) = await consumer.receive(1)
    assert message.value == b"v"
    longest = [1.0, 2.0, 4.0, 4.0, 4.0]
    assert len(clock.slept) == 5
    for slept, bound in zip(clock.slept, longest, strict=True):
        assert bound / 2 <= slept <= bound
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 5


@pytest.mark.asyncio
async def test_an_error_that_will_not_pass_by_itself_reaches_the_caller() -> None:
    async with EventConsumer(transport=Flaky(TransportError("refused")), topics=["t"]) as consumer:
        with pytest.raises(TransportError, match="refused"):
            await consumer.receive(1)


@pytest.mark.asyncio
async def test_a_nack_without_a_delay_backs_off_by_the_attempt(clock: Any) -> None:
    with use_runtime(clock):
        transport = MemoryTransport(MemoryBroker())
        await transport.publish([Message("t", b"v")])
        async with EventConsumer(transport=transport, topics=["t"], retry_delay=8.0, max_retry_delay=20.0) as consumer:
            (message,) = await consumer.receive(1)
            for attempt, longest in ((1, 8.0), (2, 16.0), (3, 20.0), (4, 20.0)):
                assert message.attempt == attempt
                await message.nack()
                receiving = asyncio.ensure_future(consumer.receive(1))
                await let_others_run()
                clock.advance(longest / 2 - 0.01)
                await let_others_run()
                assert not receiving.done(), "sooner than half of the backoff"
                clock.advance(longest / 2 + 0.02)
                (message,) = await receiving


@pytest.mark.asyncio
async def test_a_nack_with_a_delay_keeps_it(clock: Any) -> None:
    with use_runtime(clock):
        transport = MemoryTransport(MemoryBroker())
        await transport.publish([Message("t", b"v")])
        async with EventConsumer(transport=transport, topics=["t"], retry_delay=8.0) as consumer:
            (message,) = await consumer.receive(1)
            await message.nack(100)
            receiving = asyncio.ensure_future(consumer.receive(1))
            await let_others_run()
            clock.advance(99.9)
            await let_others_run()
            assert not receiving.done()
            clock.advance(0.1)
            assert [again.attempt for again in await receiving] == [2]


@pytest.mark.asyncio
@pytest.mark.parametrize("holds_keys", [True, False])
async def test_a_consumer_alone_keeps_a_keys_order_at_a_nack_where_its_subscription_does(holds_keys: bool) -> None:
    class Unordered(MemoryTransport):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, ordering="none")

        async def subscribe(self, request: SubscribeRequest) -> MemorySubscription:
            subscription = await super().subscribe(request)
            subscription.holds_keys = holds_keys
            return subscription

    transport = Unordered(MemoryBroker())
    await transport.publish([Message("t", b"%d" % number, key=b"ab"[number % 2 :][:1]) for number in range(4)])
    async with EventConsumer(transport=transport, topics=["t"]) as consumer, asyncio.timeout(60):
        (first,) = await consumer.receive(1)
        await first.nack(0)
        received: list[bytes | None] = []
        async for delivery in consumer:
            received.append(delivery.value)
            await delivery.ack()
            if len(received) == 4:
                break
        # Where nothing holds it back, what was fetched is not given back, to be fetched again at each nack.
        assert received == ([b"1", b"3", b"0", b"2"] if holds_keys else [b"1", b"2", b"3", b"0"])


@pytest.mark.asyncio
async def test_a_stalled_consumer_warns_once_and_names_the_oldest_message(caplog: pytest.LogCaptureFixture) -> None:
    transport = MemoryTransport(MemoryBroker())
    await transport.publish([Message("t", b"v", partition=0) for _ in range(4)])
    with caplog.at_level(logging.WARNING, "commons_events"):
        async with EventConsumer(transport=transport, topics=["t"], max_unsettled=2) as consumer:
            out = await consumer.receive(2)
            for _ in range(3):
                assert await consumer.receive(1, timeout=0.001) == []
            assert len(caplog.records) == 1
            record: Any = caplog.records[0]
            assert (record.oldest, record.unsettled, record.max_unsettled) == ("t/0/0", 2, 2)
            for message in out:
                await message.ack()
            assert len(await consumer.receive(2, timeout=60)) == 2


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", [0, -1])
async def test_receiving_none_at_all_is_a_value_error(limit: int) -> None:
    async with EventConsumer(transport=MemoryTransport(MemoryBroker()), topics=["t"]) as consumer:
        with pytest.raises(ValueError, match="limit"):
            await consumer.receive(limit)


@pytest.mark.asyncio
async def test_settling_before_the_start_and_after_the_end_is_refused() -> None:
    consumer = EventConsumer(transport=MemoryTransport(MemoryBroker()), topics=["t"])
    with pytest.raises(ClosedError, match="not started"):
        consumer.commit()
    await consumer.start()
    await consumer.close()
    with pytest.raises(ClosedError, match="closed"):
        consumer.commit()
    await consumer.close()


@pytest.mark.asyncio
async def test_what_a_broker_cannot_do_is_a_capability_error() -> None:
    class Plain(MemoryTransport):
        async def subscribe(self, request: SubscribeRequest) -> Any:
            subscription = await super().subscribe(request)

            class Bare:
                close = staticmethod(subscription.close)

            return Bare()

    async with EventConsumer(transport=Plain(MemoryBroker()), topics=["t"]) as consumer:
        with pytest.raises(CapabilityError, match="pause"):
            consumer.pause()
        with pytest.raises(CapabilityError, match="seek"):
            await consumer.seek("beginning")


@pytest.mark.asyncio
async def test_rejecting_without_a_dead_letter_topic_leaves_the_message_unsettled() -> None:
    transport = MemoryTransport(MemoryBroker())
    await transport.publish([Message("t", b"v")])
    async with EventConsumer(transport=transport, topics=["t"]) as consumer:
        (message,) = await consumer.receive(1)
        with pytest.raises(ConfigurationError, match="dead_letter_topic"):
            message.reject("bad")
        assert message.outcome is None
        await message.ack()


@pytest.mark.asyncio
@pytest.mark.parametrize("settings", [{"topics": ["two words"]}, {"topics": ["t"], "dead_letter_topic": "two words"}])
async def test_bad_topics_are_refused_when_the_consumer_is_made(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="two words"):
        EventConsumer(transport=MemoryTransport(MemoryBroker()), **settings)


@pytest.mark.asyncio
async def test_a_consumer_that_is_closed_while_it_joins_ends_its_loop() -> None:
    joining, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryTransport):
        async def subscribe(self, request: SubscribeRequest) -> MemorySubscription:
            joining.set()
            await go_on.wait()
            return await super().subscribe(request)

    async def receive_all(consumer: EventConsumer) -> str:
        async for _ in consumer:
            pass
        return "ended"

    transport = Slow(MemoryBroker())
    consumer = EventConsumer(transport=transport, topics=["t"])
    receiving = asyncio.create_task(receive_all(consumer))
    await joining.wait()
    await consumer.close()
    go_on.set()
    assert await asyncio.wait_for(receiving, 60) == "ended"
    await transport.close()
