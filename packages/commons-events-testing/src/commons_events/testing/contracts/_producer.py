"""`ProducerContract`: what an `EventProducer` keeps on a broker."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry import trace

from commons_events.consumers import EventConsumer
from commons_events.errors import (
    BatchError,
    ClosedError,
    ConfigurationError,
    InvalidTopicError,
    MessageTooLargeError,
    PublishError,
    SerializationError,
    WrongEventLoopError,
)
from commons_events.message import Receipt
from commons_events.producers import EventProducer
from commons_events.testing.contracts._broker import BrokerContract
from commons_events.testing.contracts._contract import requires
from commons_events.testing.contracts._events import ODD_EVENTS, ContractEvent, OddEvent
from commons_events.testing.contracts._standing_in import RefusingTransport
from commons_events.transport import Delivery, Transport

__all__ = ["ProducerContract"]


def _events(count: int, start: int = 0) -> list[ContractEvent]:
    return [ContractEvent(number=number) for number in range(start, start + count)]


class ProducerContract(BrokerContract, contract=True):
    """The contract of a producer on a transport: subclass it as `TransportContract`.

    A producer of another class is tested by overriding `make_producer`.
    """

    def make_producer(self, transport: Transport, **settings: Any) -> EventProducer:
        """A producer on ``transport``; closed by the test."""
        return EventProducer(transport=transport, **settings)

    async def _reader(self, transport: Transport, topic: str) -> EventConsumer:
        """A consumer that receives what is sent from now on. It ends with its transport."""
        consumer = EventConsumer(transport=transport, topics=[topic], group_id=self.new_group())
        await consumer.start()
        return consumer

    async def _take(self, consumer: EventConsumer, count: int) -> list[Delivery]:
        taken: list[Delivery] = []
        while len(taken) < count:
            batch = await consumer.receive(count - len(taken), timeout=self.timeout)
            assert batch, f"{len(taken)} of {count} events came within {self.timeout:g} s"
            taken += batch
        await consumer.commit()
        return taken

    async def test_an_event_arrives_as_it_was_sent(self) -> None:
        """What is received equals what was sent, but for the source that the producer states."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        async with self.make_producer(transport, source="urn:contract") as producer:
            for event in ODD_EVENTS:
                receipt = await producer.send(topic, event)
                assert isinstance(receipt, Receipt)
                assert receipt.topic == topic
                [delivery] = await self._take(reader, 1)
                received = delivery.event()
                assert type(received) is OddEvent
                assert received == (event if event.source else event.with_source("urn:contract"))
                assert delivery.event(OddEvent) == received

    async def test_the_source_is_stamped(self) -> None:
        """In the bytes and in the headers; the event in hand stays as it is, and a source of its own stays too."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        without, own = ContractEvent(number=1), ContractEvent(number=2, source="urn:own")
        async with self.make_producer(transport, source="urn:contract") as producer:
            await producer.send(topic, without, key="key")
            await producer.send(topic, own, key="key")
        assert without.source is None
        header = f"{transport.header_prefix}source"
        for source in ("urn:contract", "urn:own"):
            [delivery] = await self._take(reader, 1)
            assert delivery.message.header(header) == source
            assert delivery.event().source == source
            assert json.loads(delivery.value)["source"] == source

    async def test_without_a_source_the_client_is_named(self) -> None:
        """CloudEvents requires a source; a producer that states none is one by its client id."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        async with self.make_producer(transport, client_id="contract-client") as producer:
            await producer.send(topic, ContractEvent(number=1))
        [delivery] = await self._take(reader, 1)
        assert delivery.event().source == "urn:commons-events:contract-client"

    async def test_headers_are_cloudevents(self) -> None:
        """Binary mode: the attributes stand in the headers, with the broker's prefix, and agree with the bytes."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        event = ContractEvent(number=1, correlation_id="corr-ü", causation_id="cause", source="urn:contract")
        async with self.make_producer(transport) as producer:
            await producer.send(topic, event)
        [delivery] = await self._take(reader, 1)
        prefix = transport.header_prefix
        wanted = {
            "specversion": "1.0",
            "id": event.event_id,
            "source": "urn:contract",
            "type": event.event_type,
            "eventversion": event.version,
            "correlationid": "corr-ü",
            "causationid": "cause",
        }
        for name, value in wanted.items():
            assert delivery.message.header(prefix + name) == value, name
        time = delivery.message.header(prefix + "time")
        assert time is not None
        assert datetime.fromisoformat(time) == event.timestamp
        assert delivery.message.header("content-type") == "application/json"
        names = [name for name, _ in delivery.headers]
        assert len(names) == len(set(names)), f"an attribute is stated twice: {names}"

    async def test_the_trace_of_the_sender_goes_along(self) -> None:
        """In W3C Trace Context's header ``traceparent``: the span of the send, for one message and for a batch."""
        sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")
        provider = sdk.TracerProvider(shutdown_on_exit=False)
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        with (
            pytest.MonkeyPatch.context() as patched,
            provider.get_tracer("contract").start_as_current_span("outer") as outer,
        ):
            patched.setattr(trace, "_TRACER_PROVIDER", provider)
            patched.setattr(trace, "get_tracer", lambda name, *_, **__: provider.get_tracer(name))
            async with self.make_producer(transport) as producer:
                await producer.send(topic, ContractEvent(number=0), key="key")
                await producer.send_batch(topic, _events(2, 1), key="key")
        taken = [await self._take(reader, 1) for _ in range(3)]
        parents = [(delivery.message.header("traceparent") or "").split("-") for [delivery] in taken]
        context = outer.get_span_context()
        assert [parent[:2] for parent in parents] == [["00", f"{context.trace_id:032x}"]] * 3
        one, first, second = (parent[2] for parent in parents)
        assert first == second != one != f"{context.span_id:016x}"

    async def test_structured_mode_is_one_document(self) -> None:
        """Structured mode: the value is a CloudEvents JSON document, and reads back as the same event."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        async with self.make_producer(transport, binding="structured", source="urn:contract") as producer:
            for event in ODD_EVENTS:
                await producer.send(topic, event)
                [delivery] = await self._take(reader, 1)
                content_type = delivery.message.header("content-type") or ""
                assert content_type.startswith("application/cloudevents+json")
                document = json.loads(delivery.value)
                assert document["specversion"] == "1.0"
                assert (document["id"], document["type"]) == (event.event_id, event.event_type)
                assert document["data"]["event_id"] == event.event_id
                assert delivery.event() == (event if event.source else event.with_source("urn:contract"))

    async def test_send_hands_over_when_called(self) -> None:
        """Sends that nobody has awaited yet keep their order; the futures may be awaited in any."""
        transport = await self.open()
        requires(transport.capabilities, "ordering")
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        async with self.make_producer(transport) as producer:
            futures = [producer.send(topic, event, key="key") for event in _events(self.scale.messages)]
            for future in reversed(futures):
                await future
        numbers = [d.event(ContractEvent).number for d in await self._take(reader, len(futures))]
        assert numbers == list(range(len(futures)))

    async def test_many_sends_need_no_tasks(self) -> None:
        """Ten thousand may be in flight: each is a future, none a task."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        await self._reader(transport, topic)
        async with self.make_producer(transport) as producer:
            before = len(asyncio.all_tasks())
            futures = [producer.send(topic, event, key=b"key") for event in _events(self.scale.in_flight)]
            assert len(asyncio.all_tasks()) - before <= 5, "sends that are in flight have tasks"
            receipts = await asyncio.gather(*futures)
        assert len({receipt.message_id for receipt in receipts}) == len(receipts)

    async def test_leaving_the_block_flushes(self) -> None:
        """What was sent and not awaited is confirmed when ``async with`` ends."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        async with self.make_producer(transport) as producer:
            futures = [producer.send(topic, event) for event in _events(self.scale.messages)]
        assert all(future.done() for future in futures)
        await self._take(reader, len(futures))

    async def test_flush_confirms_what_was_sent(self) -> None:
        """After ``flush`` every send is done, and the producer goes on."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        async with self.make_producer(transport) as producer:
            futures = [producer.send(topic, event) for event in _events(self.scale.messages)]
            await producer.flush()
            assert all(future.done() for future in futures)
            await producer.send(topic, ContractEvent(number=0))

    async def test_key_headers_and_timestamp_travel(self) -> None:
        """A str stands for its UTF-8 bytes; headers come behind those of CloudEvents; the time stays the moment."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        moment = datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC)
        async with self.make_producer(transport) as producer:
            event = ContractEvent(number=1)
            await producer.send(topic, event, key="schlüssel", headers={"x-a": "ü", "x-b": b"b"}, timestamp=moment)
            await producer.send(topic, event, key=b"bytes")
        first, second = sorted(await self._take(reader, 2), key=lambda d: d.key != "schlüssel".encode())
        assert first.key == "schlüssel".encode()
        assert first.headers[-2:] == (("x-a", "ü".encode()), ("x-b", b"b"))
        assert first.timestamp is not None
        assert abs(first.timestamp - moment) <= timedelta(seconds=self.timestamp_precision)
        assert second.key == b"bytes"

    async def test_a_batch_is_confirmed_as_a_whole(self) -> None:
        """One receipt an event, in their order; functions give each its key and headers, and keys keep their order."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        events = _events(self.scale.ordered)
        async with self.make_producer(transport) as producer:
            receipts = await producer.send_batch(
                topic, events, key=_key_of, headers=lambda e: {"x-number": _number_of(e)}
            )
            assert len(receipts) == len(events)
            assert all(isinstance(receipt, Receipt) for receipt in receipts)
            assert list(await producer.send_batch(topic, [])) == []
        taken = await self._take(reader, len(events))
        by_key: dict[bytes | None, list[int]] = {}
        for delivery in taken:
            number = delivery.event(ContractEvent).number
            by_key.setdefault(delivery.key, []).append(number)
            assert delivery.message.header("x-number") == str(number)
        assert {number for numbers in by_key.values() for number in numbers} == set(range(len(events)))
        if transport.capabilities.ordering == "key":
            assert all(numbers == sorted(numbers) for numbers in by_key.values())

    async def test_a_batch_says_what_failed(self) -> None:
        """`BatchError` has a result for each event; those that the broker took stay sent, in their order."""
        inner = await self.open()
        topic = await self.make_topic(inner)
        reader = await self._reader(inner, topic)
        transport = RefusingTransport(
            inner, lambda message: PublishError("refused") if message.key in (b"key-1", b"key-3") else None
        )
        events = _events(6)
        async with self.make_producer(transport) as producer:
            with pytest.raises(BatchError, match="2 of 6") as caught:
                await producer.send_batch(topic, events, key=lambda event: f"key-{event.number}")  # type: ignore[attr-defined]
        assert caught.value.failed == (1, 3)
        assert [isinstance(result, Receipt) for result in caught.value.results] == [
            True,
            False,
            True,
            False,
            True,
            True,
        ]
        numbers = sorted(d.event(ContractEvent).number for d in await self._take(reader, 4))
        assert numbers == [0, 2, 4, 5]

    async def test_a_batch_sends_what_can_be_sent(self) -> None:
        """An event that does not serialize, or is too large, is named; its neighbours are sent all the same."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        events = [
            OddEvent(text="first"),
            OddEvent(real=float("nan")),
            OddEvent(text="x" * 5000),
            OddEvent(text="last"),
        ]
        async with self.make_producer(transport, max_message_bytes=4000) as producer:
            with pytest.raises(BatchError) as caught:
                await producer.send_batch(topic, events)
        assert caught.value.failed == (1, 2)
        assert isinstance(caught.value.results[2], MessageTooLargeError)
        assert {d.event(OddEvent).text for d in await self._take(reader, 2)} == {"first", "last"}

    async def test_a_refused_message_fails_its_future(self) -> None:
        """The broker's own error comes out of the future, and the next send works."""
        inner = await self.open()
        topic = await self.make_topic(inner)
        transport = RefusingTransport(inner, lambda message: PublishError("no room") if message.key else None)
        async with self.make_producer(transport) as producer:
            with pytest.raises(PublishError, match="no room"):
                await producer.send(topic, ContractEvent(number=1), key="key")
            await producer.send(topic, ContractEvent(number=2))

    async def test_send_returns_only_when_confirmed(self) -> None:
        """While the broker has not confirmed, the future is not done."""
        inner = await self.open()
        topic = await self.make_topic(inner)
        transport = RefusingTransport(inner)
        async with self.make_producer(transport) as producer:
            transport.holding = True
            future = producer.send(topic, ContractEvent(number=1))
            await asyncio.wait([future], timeout=self.quiet)
            assert not future.done(), "send reports success before the broker did"
            await transport.release()
            assert isinstance(await future, Receipt)

    async def test_bad_input_is_refused_when_called(self) -> None:
        """`send` itself raises; nothing reaches the broker, and the producer goes on."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        good = ContractEvent(number=1)
        refusals: list[tuple[type[Exception], dict[str, Any]]] = [
            (InvalidTopicError, {"topic": ""}),
            (InvalidTopicError, {"topic": "x" * 250}),
            (InvalidTopicError, {"topic": "two words"}),
            (SerializationError, {"event": OddEvent(real=float("inf"))}),
            (MessageTooLargeError, {"event": OddEvent(text="x" * 10_000)}),
            (ValueError, {"timestamp": datetime(2024, 1, 1)}),  # a naive one
            (TypeError, {"event": {"number": 1}}),
            (TypeError, {"event": None}),
            (TypeError, {"key": 1}),
            (TypeError, {"headers": {"name": 1}}),
            (TypeError, {"headers": {1: "value"}}),
            (ConfigurationError, {"headers": {"half a pair \ud83c": "value"}}),  # which has no bytes
            (ConfigurationError, {"headers": {"zero\0byte": "value"}}),
        ]
        async with self.make_producer(transport, max_message_bytes=9000) as producer:
            for error, arguments in refusals:
                given: dict[str, Any] = {"topic": topic, "event": good, **arguments}
                with pytest.raises(error):
                    _ = producer.send(**given)
            await producer.send(topic, good)
        assert [d.event(ContractEvent).number for d in await self._take(reader, 1)] == [1]
        assert await reader.receive(1, timeout=self.quiet) == []

    async def test_a_batch_is_looked_at_before_it_is_sent(self) -> None:
        """Where one event, key or header is none, none is sent."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        count, last = 600, 599  # more than are handed over at once, and fewer than a consumer holds unsettled
        batches: list[dict[str, Any]] = [
            {"events": [*_events(last), "no event"]},
            {"events": _events(count), "key": lambda event: event.number if event.number == last else "key"},
            {"events": _events(count), "headers": lambda event: {"name": 1} if event.number == last else {}},
            {"events": _events(count), "headers": lambda event: {"zero\0byte": "x"} if event.number == last else {}},
        ]
        async with self.make_producer(transport) as producer:
            for batch in batches:
                with pytest.raises((TypeError, ConfigurationError)):
                    await producer.send_batch(topic, **batch)
            keys, places = iter(range(count)), iter(range(count))  # asked for once an event, in order
            await producer.send_batch(
                topic,
                _events(count),
                key=lambda event: f"key-{next(keys)}",
                headers=lambda event: {"n": str(next(places))},
            )
        taken = await self._take(reader, count)
        assert {delivery.event(ContractEvent).number for delivery in taken} == set(range(count))
        for delivery in taken:
            number = delivery.event(ContractEvent).number
            assert (delivery.key, delivery.message.header("n")) == (f"key-{number}".encode(), str(number))

    async def test_headers_that_the_event_fills_are_refused(self) -> None:
        """Its type, for example: the bytes would say one thing and a header another."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        async with self.make_producer(transport) as producer:
            for name in ("content-type", *(f"{transport.header_prefix}{name}" for name in ("type", "id", "time"))):
                with pytest.raises(ConfigurationError, match=name):
                    _ = producer.send(topic, ContractEvent(number=1), headers={name: "x"})
                for headers in ({name: "x"}, lambda event, name=name: {name: "x"}):
                    with pytest.raises(ConfigurationError, match=name):
                        await producer.send_batch(topic, _events(2), headers=headers)

    async def test_a_closed_producer_refuses(self) -> None:
        """`ClosedError` from everything but closing again."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        producer = self.make_producer(transport)
        await producer.send(topic, ContractEvent(number=1))
        await producer.close()
        await producer.close()
        with pytest.raises(ClosedError):
            _ = producer.send(topic, ContractEvent(number=2))
        with pytest.raises(ClosedError):
            await producer.send_batch(topic, _events(2))
        with pytest.raises(ClosedError):
            await producer.flush()
        with pytest.raises(ClosedError):
            async with producer:
                pass

    async def test_a_cancelled_close_goes_on(self) -> None:
        """What was sent is confirmed all the same, and closing again waits for it."""
        inner = await self.open()
        topic = await self.make_topic(inner)
        transport = RefusingTransport(inner)
        transport.holding = True
        producer = self.make_producer(transport)
        sent = producer.send(topic, ContractEvent(number=1))
        closing = asyncio.create_task(producer.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        again = asyncio.create_task(producer.close())
        await asyncio.wait([again], timeout=self.quiet)
        assert not again.done(), "closing again reports that all is confirmed, before the broker did"
        await transport.release()
        async with asyncio.timeout(self.timeout):
            await again
            assert isinstance(await sent, Receipt)

    async def test_a_closed_producer_leaves_the_transport_open(self) -> None:
        """A transport that was given belongs to who made it."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        for number in range(2):
            async with self.make_producer(transport) as producer:
                await producer.send(topic, ContractEvent(number=number))

    async def test_belongs_to_one_event_loop(self) -> None:
        """In another event loop, and outside of any, it says `WrongEventLoopError`; in its own it goes on."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        event = ContractEvent(number=1)
        async with self.make_producer(transport) as producer:
            await producer.send(topic, event)

            async def elsewhere() -> None:
                await producer.send(topic, event)

            with pytest.raises(WrongEventLoopError):
                await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
            with pytest.raises(WrongEventLoopError):
                _ = await asyncio.to_thread(producer.send, topic, event)
            await producer.send(topic, event)

    async def test_a_cancelled_wait_leaves_the_producer_sound(self) -> None:
        """Giving up one send harms no other."""
        transport = await self.open()
        topic = await self.make_topic(transport)
        reader = await self._reader(transport, topic)
        async with self.make_producer(transport) as producer:
            given_up = producer.send(topic, ContractEvent(number=0))
            given_up.cancel()
            await producer.send(topic, ContractEvent(number=1))
        numbers: set[int] = set()
        while 1 not in numbers:
            numbers.update(d.event(ContractEvent).number for d in await self._take(reader, 1))


def _number_of(event: Any) -> str:
    return str(event.number)


def _key_of(event: Any) -> str:
    return f"key-{event.number % 16}"
