"""Who takes the delivery reports: the event loop by itself where sends are few, else its thread. All are taken."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from commons_events.kafka import KafkaAdmin, KafkaConsumer, KafkaProducer, _reports
from commons_events.kafka._publisher import Publisher
from commons_events.kafka._reports import _FEW, Quicker
from commons_events.message import Receipt
from commons_events.testing.services import RunningKafka

pytestmark = pytest.mark.asyncio
PATIENCE = 60.0
LONG, NEVER, IN_VAIN = 60_000, 0, 0.001
"""Milliseconds that the loop looks for a report by itself."""
UNREPORTED = 200
"""Milliseconds of ``linger_ms`` that let a test look at what is sent before the broker can have confirmed it."""


async def new_topic(kafka: RunningKafka, partitions: int = 1) -> str:
    topic = kafka.unique("sending")
    async with KafkaAdmin(kafka.bootstrap_servers) as admin:
        await admin.create_topic(topic, partitions=partitions)
    return topic


def publisher_of(producer: KafkaProducer) -> Publisher:
    publisher = producer._kafka.publisher
    assert publisher is not None
    return publisher


class Looks(Quicker):
    """Finds it quicker to look, however long it takes."""

    def looks(self) -> bool:
        return True


async def until_it_rests(producer: KafkaProducer, topic: str) -> Publisher:
    """Send one message after the other until the thread leaves the reports to the loop, which it always does then."""
    async with asyncio.timeout(PATIENCE):
        await producer.send(topic, b"first")
        while not publisher_of(producer).rests:
            await producer.send(topic, b"another")
    publisher_of(producer)._quicker = Looks()
    return publisher_of(producer)


@pytest.mark.parametrize("busy", [LONG, IN_VAIN, NEVER])
async def test_every_message_is_confirmed_once_and_in_order_however_it_is_sent(
    kafka_service: RunningKafka, busy: float
) -> None:
    topic, random, sent = await new_topic(kafka_service), Random(busy), 0
    pending: list[asyncio.Future[Any]] = []

    def values(count: int) -> list[bytes]:
        nonlocal sent
        sent += count
        return [b"%d" % number for number in range(sent - count, sent)]

    async with KafkaProducer(kafka_service.bootstrap_servers, linger_ms=0, busy_poll_ms=busy) as producer:
        for _ in range(150):
            match random.randrange(7):
                case 0 | 1:
                    await producer.send(topic, *values(1))
                case 2:
                    await producer.send(topic, *values(1), headers={"one": "two"})
                case 3:
                    pending += [producer.send(topic, value) for value in values(random.choice([2, 30]))]
                case 4:
                    await producer.send_batch(topic, values(random.choice([3, 700])))
                case 5:
                    producer.send(topic, *values(1)).cancel()
                case 6:
                    await asyncio.sleep(0)
        await producer.flush()
        assert all(isinstance(future.result(), Receipt) for future in pending)
        async with KafkaConsumer(kafka_service.bootstrap_servers, kafka_service.unique("group"), topic) as consumer:
            found: list[bytes] = []
            while len(found) < sent:
                messages = await consumer.receive(1_000, timeout=PATIENCE)
                assert messages, f"{len(found)} of {sent} came, and nothing more in {PATIENCE:g} s"
                found += [message.value for message in messages if message.value is not None]
    assert found == [b"%d" % number for number in range(sent)]


async def test_what_is_sent_while_the_thread_rests_is_reported_without_it(
    kafka_service: RunningKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_reports, "_REST", PATIENCE)  # nothing but what is sent ends a rest
    topic = await new_topic(kafka_service)
    async with KafkaProducer(kafka_service.bootstrap_servers, linger_ms=UNREPORTED, busy_poll_ms=LONG) as producer:
        publisher = await until_it_rests(producer, topic)
        pausable = kafka_service.why_not("signals") is None
        if pausable:  # else a busy machine may let us look again only when the report is there
            await asyncio.to_thread(kafka_service.pause)
        try:
            turns, sending = 0, producer.send(topic, b"looked for")
            while not sending.done():
                assert publisher.rests
                turns += 1
                await asyncio.sleep(0)
                if pausable and turns == 20:
                    await asyncio.to_thread(kafka_service.resume)
        finally:
            if pausable:
                await asyncio.to_thread(kafka_service.resume)
        assert publisher.rests
        assert turns > 1, "others had no turn"
        await asyncio.gather(*(producer.send(topic, b"one of a few") for _ in range(3)))
        assert publisher.rests


async def test_a_rest_ends_by_itself(kafka_service: RunningKafka) -> None:
    """Errors, statistics and tokens are reported by polling, too."""
    topic = await new_topic(kafka_service)
    async with KafkaProducer(kafka_service.bootstrap_servers, linger_ms=0, busy_poll_ms=LONG) as producer:
        publisher = await until_it_rests(producer, topic)
        async with asyncio.timeout(PATIENCE):
            while publisher.rests:  # noqa: ASYNC110  # its thread sees to it
                await asyncio.sleep(0.02)


async def test_many_at_once_are_left_to_the_thread(kafka_service: RunningKafka) -> None:
    """Or nearly all were reported before the loop looked, where others had the processor meanwhile."""
    topic = await new_topic(kafka_service)
    async with KafkaProducer(kafka_service.bootstrap_servers, linger_ms=UNREPORTED, busy_poll_ms=LONG) as producer:
        publisher = await until_it_rests(producer, topic)
        sending = [producer.send(topic, b"%d" % number) for number in range(1_000)]
        await asyncio.sleep(0)
        assert not publisher.rests or publisher._in_flight() <= _FEW
        await asyncio.wait(sending)
        await until_it_rests(producer, topic)
        batch = asyncio.ensure_future(producer.send_batch(topic, [b"x"] * 1_000))
        await asyncio.sleep(0)
        assert not publisher.rests or publisher._in_flight() <= _FEW
        assert len(await batch) == 1_000


async def test_both_ways_are_tried_and_measured(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service)
    async with KafkaProducer(kafka_service.bootstrap_servers, linger_ms=0, busy_poll_ms=LONG) as producer:
        for number in range(50):
            receipt = await producer.send(topic, b"%d" % number)
            assert receipt.offset == number
        assert all(0 < seconds < PATIENCE for seconds in publisher_of(producer)._quicker._typical.values())


async def test_an_error_while_the_loop_looks_reaches_the_loops_handler_and_no_report_is_lost(
    kafka_service: RunningKafka,
) -> None:
    topic = await new_topic(kafka_service)
    caught: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: caught.append(context["exception"]))
    async with KafkaProducer(kafka_service.bootstrap_servers, linger_ms=0, busy_poll_ms=LONG) as producer:
        publisher = await until_it_rests(producer, topic)
        taken = publisher._take_reports

        def fails_once() -> None:
            publisher._take_reports = taken  # type: ignore[method-assign]
            raise RuntimeError("from a callback of the client")

        publisher._take_reports = fails_once  # type: ignore[method-assign]
        receipt = await asyncio.wait_for(producer.send(topic, b"after all"), PATIENCE)
        assert receipt.offset is not None
    assert [str(error) for error in caught] == ["from a callback of the client"]


async def test_closing_while_the_loop_looks_waits_for_the_report(kafka_service: RunningKafka) -> None:
    topic = await new_topic(kafka_service)
    async with KafkaProducer(kafka_service.bootstrap_servers, linger_ms=0, busy_poll_ms=LONG) as producer:
        await until_it_rests(producer, topic)
        last = producer.send(topic, b"last")
    assert isinstance(last.result(), Receipt)


async def test_a_large_batch_does_not_linger(kafka_service: RunningKafka) -> None:
    """A `linger.ms` of hours holds small sends back, and not a batch whose sender waits."""
    topic = await new_topic(kafka_service)
    async with KafkaProducer(
        kafka_service.bootstrap_servers, linger_ms=900_000, delivery_timeout_ms=1_000_000
    ) as producer:
        sending = producer.send(topic, b"goes with it")
        receipts = await asyncio.wait_for(producer.send_batch(topic, [b"x"] * 2_000), PATIENCE)
        assert len(receipts) == 2_000
        assert (await sending).offset == 0
