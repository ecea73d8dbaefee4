"""How a contract reaches a broker: what a subclass says, and the helpers that the tests are written with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from commons_events.errors import TransportError
from commons_events.message import Message, PublishResult, Receipt
from commons_events.runtime import current_runtime
from commons_events.testing._wait import eventually
from commons_events.testing.contracts._contract import Contract
from commons_events.transport import (
    Declaring,
    Delivery,
    Outcome,
    Settlement,
    SubscribeRequest,
    Subscription,
    Transport,
)

__all__ = ["FULL", "SHORT", "BrokerContract", "Scale"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much the tests send. `FULL` is for a real broker, `SHORT` for a slow emulator."""

    messages: int = 100
    """Where the number does not matter."""
    concurrent: int = 5000
    """Messages of many publishers to many subscribers."""
    publishers: int = 50
    subscribers: int = 50
    topics: int = 20
    ordered: int = 1000
    """Messages whose order is watched, over ``keys`` keys, by ``readers`` consumers."""
    keys: int = 16
    readers: int = 10
    closing: int = 10_000
    """Messages under way while ``closers`` publishers close."""
    closers: int = 20
    nackers: int = 3
    nacks: int = 100
    """How often each of ``nackers`` consumers says no before one takes the messages."""
    big: int = 1_000_000
    """Bytes of a big message."""
    in_flight: int = 10_000
    """Sends that are under way at once."""


FULL = Scale()
SHORT = Scale(
    messages=30,
    concurrent=100,
    publishers=10,
    subscribers=10,
    topics=10,
    ordered=100,
    keys=4,
    readers=3,
    closing=100,
    closers=5,
    nackers=1,
    nacks=5,
    big=100_000,
    in_flight=200,
)


class BrokerContract(Contract, contract=True):
    """What a subclass says about its broker. `make_transport` is a must, the rest as the broker needs it."""

    scale: ClassVar[Scale] = FULL
    timeout: ClassVar[float] = 30.0
    """Seconds that the broker is given for one step before it counts as failed."""
    quiet: ClassVar[float] = 0.1
    """Seconds of silence after which nothing is expected to come any more."""
    nack_delay: ClassVar[float] = 0.15
    """Seconds asked for where a delay is tested; more where the broker counts in whole seconds."""
    clock_tolerance: ClassVar[float] = 0.02
    """Seconds by which the broker's clock may run ahead of ours."""
    timestamp_precision: ClassVar[float] = 0.001
    """Seconds to which the broker keeps a timestamp."""
    room: ClassVar[int] = 1000
    """A topic of `make_small_transport` is full after at most this many messages of 1000 bytes."""

    _transports: list[Transport]
    _subscriptions: list[Subscription]

    # --- what a subclass says ---------------------------------------------------------------------------------

    async def make_transport(self) -> Transport:
        """A new transport, each time to the same broker. The test closes it."""
        raise NotImplementedError(f"{type(self).__name__}.make_transport has to return a new Transport.")

    async def make_small_transport(self) -> Transport:
        """A transport whose topics are full after ``room`` messages; needed where ``back_pressure`` is claimed."""
        return await self.make_transport()

    async def make_topic(self, transport: Transport) -> str:
        """The name of a new topic that is ready for use; declared where the transport can, and empty."""
        topic = f"contract-{current_runtime().new_id()}"
        if transport.capabilities.declare and isinstance(transport, Declaring):
            await transport.declare(topic)
        return topic

    async def lose(self, subscription: Subscription) -> None:
        """Cut ``subscription`` off as if its process had died; needed where ``redelivery`` is claimed."""
        raise NotImplementedError(
            f"{type(self).__name__}.lose has to cut a subscription off its broker, as if its process had died."
        )

    async def restart_broker(self) -> None:
        """Stop the broker and start it again; needed where ``durability`` is ``broker``."""
        raise NotImplementedError(f"{type(self).__name__}.restart_broker has to stop the broker and start it again.")

    # --- what the tests are written with ------------------------------------------------------------------------

    async def open(self) -> Transport:
        """A transport that is closed after the test."""
        return self.closing(await self.make_transport())

    def closing(self, transport: Transport) -> Transport:
        """Close ``transport`` after the test."""
        self.__dict__.setdefault("_transports", []).append(transport)
        return transport

    async def subscribe(self, transport: Transport, *topics: str, **request: Any) -> Subscription:
        """A subscription that is closed after the test."""
        async with asyncio.timeout(self.timeout):
            subscription = await transport.subscribe(SubscribeRequest(topics=topics, **request))
        self.__dict__.setdefault("_subscriptions", []).append(subscription)
        return subscription

    def new_group(self) -> str:
        """A group that was never seen."""
        return f"group-{current_runtime().new_id()}"

    async def known_group(self, transport: Transport, *topics: str) -> str:
        """A group that receives what is published from now on, also where new groups start at the latest message."""
        group = self.new_group()
        if transport.capabilities.new_group_start == "latest":
            subscription = await self.subscribe(transport, *topics, group_id=group)
            await subscription.close()
        return group

    async def publish(self, transport: Transport, messages: Sequence[Message]) -> list[Receipt]:
        """Publish and demand that every message is confirmed."""
        async with asyncio.timeout(self.timeout):
            return confirmed(await transport.publish(messages))

    async def receive(self, subscription: Subscription, limit: int = 1000) -> Sequence[Delivery]:
        """One call of ``receive`` that has to bring something, called again after a passing error."""
        try:
            async with asyncio.timeout(self.timeout):
                while True:
                    try:
                        batch = await subscription.receive(limit)
                    except TransportError as error:
                        if not error.retriable:
                            raise
                        continue
                    assert batch, "receive returned an empty list though the subscription was not closed"
                    assert len(batch) <= limit, f"receive({limit}) returned {len(batch)} deliveries"
                    return batch
        except TimeoutError:
            raise AssertionError(f"No message came within {self.timeout:g} s.") from None

    async def read(
        self, subscription: Subscription, count: int, *, limit: int = 1000, ack: bool = True
    ) -> list[Delivery]:
        """Exactly the next ``count`` deliveries, acknowledged unless told otherwise."""
        deliveries: list[Delivery] = []
        try:
            while len(deliveries) < count:
                batch = await self.receive(subscription, min(limit, count - len(deliveries)))
                deliveries += batch
                if ack:
                    await settle(subscription, batch, Outcome.ACK)
        except AssertionError as error:
            raise AssertionError(f"{len(deliveries)} of {count} messages came. {error}") from None
        return deliveries

    async def read_all(self, subscription: Subscription, values: Iterable[bytes], *, limit: int = 1000) -> None:
        """Read and acknowledge until every one of ``values`` was seen; some may come twice, strangers may not."""
        expected = set(values)
        missing = set(expected)
        try:
            while missing:
                batch = await self.receive(subscription, limit)
                await settle(subscription, batch, Outcome.ACK)
                seen = {delivery.value for delivery in batch}
                assert seen <= expected, f"messages came that nobody sent here: {sorted(seen - expected)[:5]}"
                missing -= seen
        except AssertionError as error:
            raise AssertionError(
                f"{len(missing)} of {len(expected)} messages are missing, such as {sorted(missing)[:5]}. {error}"
            ) from None

    async def assert_quiet(self, subscription: Subscription, seconds: float | None = None) -> None:
        """Nothing comes for a while."""
        try:
            async with asyncio.timeout(self.quiet if seconds is None else seconds):
                batch = await subscription.receive(1000)
        except TimeoutError:
            return
        raise AssertionError(f"Messages came where none should: {list(batch)[:5]}")

    async def eventually(self, condition: Any, what: str) -> None:
        """Wait until ``condition()`` holds."""
        await eventually(condition, timeout=self.timeout, what=what)

    async def clean_up(self) -> None:
        """Close what the test left open."""
        for subscription in reversed(self.__dict__.pop("_subscriptions", [])):
            await subscription.close()
        for transport in reversed(self.__dict__.pop("_transports", [])):
            await transport.close()


def settle(
    subscription: Subscription, deliveries: Iterable[Delivery], outcome: Outcome, delay: float = 0.0
) -> Awaitable[None]:
    """Hand the same outcome over for all of them."""
    return subscription.settle([Settlement(delivery, outcome, delay) for delivery in deliveries])


def confirmed(results: Sequence[PublishResult]) -> list[Receipt]:
    """These results, all of which have to be receipts."""
    receipts: list[Receipt] = []
    for position, result in enumerate(results):
        assert isinstance(result, Receipt), f"message {position} was not confirmed: {result!r}"
        receipts.append(result)
    return receipts


def numbered(topic: str, count: int, *, start: int = 0, keys: int | None = None) -> list[Message]:
    """Messages whose value is their number, spread over ``keys`` keys where asked."""
    return [
        Message(topic, b"%d" % number, key=None if keys is None else b"key-%d" % (number % keys))
        for number in range(start, start + count)
    ]


def values(things: Iterable[Message | Delivery]) -> list[bytes]:
    """Their payloads in order."""
    return [thing.value or b"" for thing in things]


def by_key(things: Iterable[Message | Delivery]) -> dict[bytes | None, list[bytes]]:
    """The payloads of each key, in order."""
    grouped: dict[bytes | None, list[bytes]] = {}
    for thing in things:
        grouped.setdefault(thing.key, []).append(thing.value or b"")
    return grouped
