"""The mocks behave as what they stand in for, and remember."""

from __future__ import annotations

from typing import Any

import pytest

from commons_events.errors import BatchError, ClosedError, InvalidTopicError, PublishError, SerializationError
from commons_events.event import Event
from commons_events.message import Message, Receipt
from commons_events.testing import MockConsumer, MockDelivery, MockProducer
from commons_events.transport import Delivery

pytestmark = pytest.mark.asyncio


class Placed(Event):
    event_type = "testing.mocks.placed"
    number: int
    price: float = 0.0


async def test_the_producer_remembers_what_was_sent() -> None:
    producer = MockProducer(source="urn:shop")
    event = Placed(number=1)
    receipt = await producer.send("topic", event, key="k", partition=2, headers={"x": "y"})
    assert isinstance(receipt, Receipt)
    [sent] = producer.sent_events
    assert (sent.topic, sent.event, sent.key, sent.partition) == ("topic", event, b"k", 2)
    assert sent.event is event
    assert ("x", b"y") in sent.headers
    assert ("ce_source", b"urn:shop") in sent.headers
    assert b"urn:shop" in sent.value
    assert sent.timestamp is not None
    assert sent.receipt is receipt
    assert producer.events("topic") == [event]
    assert producer.events("other") == []


async def test_the_producer_refuses_what_production_refuses() -> None:
    producer = MockProducer()
    with pytest.raises(InvalidTopicError):
        producer.send("", Placed(number=1))
    with pytest.raises(SerializationError):
        producer.send("topic", Placed(number=1, price=float("nan")))
    with pytest.raises(TypeError):
        producer.send("topic", {"number": 1})  # type: ignore[arg-type]
    assert producer.sent_events == []
    async with producer:
        pass
    assert producer.closed
    with pytest.raises(ClosedError):
        producer.send("topic", Placed(number=1))


@pytest.mark.parametrize("binding", ["binary", "structured"])
async def test_a_batch_keeps_its_order_around_failures(binding: str) -> None:
    producer = MockProducer(binding=binding)
    events = [Placed(number=0), Placed(number=1, price=float("inf")), Placed(number=2), Placed(number=3)]
    producer.fail_with(OSError("cable"))
    with pytest.raises(BatchError) as caught:
        await producer.send_batch("topic", events, key=lambda event: f"{event.number}")  # type: ignore[attr-defined]
    assert caught.value.failed == (0, 1)
    assert [(sent.event, sent.key) for sent in producer.sent_events] == [(events[2], b"2"), (events[3], b"3")]


async def test_the_producer_can_be_told_to_fail() -> None:
    producer = MockProducer()
    producer.fail_with(PublishError("no room"), times=2)
    for _ in range(2):
        with pytest.raises(PublishError, match="no room"):
            await producer.send("topic", Placed(number=1))
    await producer.send("topic", Placed(number=2))
    assert producer.events() == [Placed(number=2, **_same(producer.events()[0]))]
    producer.fail_with(PublishError("no room"))
    producer.clear()
    await producer.send("topic", Placed(number=3))
    assert len(producer.sent_events) == 1
    with pytest.raises(ValueError, match="times"):
        producer.fail_with(PublishError("never"), times=0)


def _same(event: Event) -> dict[str, object]:
    return {"event_id": event.event_id, "timestamp": event.timestamp}


async def test_the_consumer_ends_after_the_last_event() -> None:
    events = [Placed(number=number) for number in range(3)]
    consumer = MockConsumer(events)
    processed = []
    async for event in consumer:
        processed.append(event)
        if len(processed) == 2:
            await consumer.commit()
    assert all(one is other for one, other in zip(processed, events, strict=True))
    assert consumer.committed == events[:2]
    assert consumer.unsettled == events[2:]
    await consumer.commit(events[2], wait=True)
    await consumer.commit(events[2])
    assert consumer.committed == events
    with pytest.raises(ValueError, match="did not hand out"):
        await consumer.commit(Placed(number=9))
    assert await consumer.receive(1) == []


async def test_the_consumer_yields_deliveries() -> None:
    events = [Placed(number=number) for number in range(3)]
    async with MockConsumer(events, as_deliveries=True, topic="orders") as consumer:
        attempts = []
        async for delivery in consumer:
            assert isinstance(delivery, Delivery)
            assert delivery.topic == "orders"
            attempts.append((delivery.event(Placed).number, delivery.attempt))
            if delivery.attempt == 1 and attempts[-1][0] == 0:
                await delivery.nack(5)
            elif attempts[-1][0] == 1:
                await delivery.reject("unwanted")
                await delivery.ack()
            else:
                await delivery.ack()
        assert attempts == [(0, 1), (1, 1), (2, 1), (0, 2)]
        assert [d.event(Placed).number for d in consumer.committed] == [2, 0]
        assert [d.reason for d in consumer.rejected] == ["unwanted"]
        assert [d.delay for d in consumer.nacked] == [5]
        assert consumer.unsettled == []
    assert consumer.closed
    with pytest.raises(ClosedError):
        await consumer.commit()


async def test_a_message_is_a_delivery_with_any_bytes() -> None:
    consumer = MockConsumer([Message("orders", b"\xff")], as_deliveries=True)
    [delivery] = await consumer.receive(5)
    assert isinstance(delivery, MockDelivery)
    with pytest.raises(ValueError, match=r"JSON|UTF-8|type"):
        delivery.event()


async def test_breaking_and_going_on() -> None:
    consumer = MockConsumer([Placed(number=number) for number in range(3)])
    async for _ in consumer:
        break
    assert len([event async for event in consumer]) == 2
    consumer.add(Placed(number=4))
    assert len([event async for event in consumer]) == 1


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda: MockConsumer(Placed(number=1)), r"MockConsumer\(\[event\]\)"),
        (lambda: MockConsumer([Placed]), "'.*Placed'> is neither"),
        (lambda: MockConsumer([Placed(number=1), None]), "None is neither"),
        (lambda: MockProducer().fail_with(OSError), r"make one: OSError\(…\)"),
        (lambda: MockProducer().fail_with("boom"), "'boom' is none"),
    ],
)
async def test_what_is_no_event_and_no_error_is_refused_at_once(misuse: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        misuse()
