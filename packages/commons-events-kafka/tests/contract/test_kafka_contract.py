"""Apache Kafka keeps every contract, in each of its configurations."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from commons_events.consumers import EventConsumer
from commons_events.errors import TransactionError, TransportError
from commons_events.kafka import KafkaConsumer, KafkaProducer, KafkaSubscription, KafkaTransport
from commons_events.message import Message, PublishResult
from commons_events.producers import EventProducer
from commons_events.testing.contracts import (
    ConsumerContract,
    ProducerContract,
    RouterContract,
    Scale,
    TransportContract,
)
from commons_events.testing.services import RunningKafka
from commons_events.transport import Subscription, Transport, TransportSettings


class OnKafka:
    """The session's broker; tests keep apart by their topics and groups."""

    scale: ClassVar[Scale] = Scale(subscribers=8, publishers=20, topics=8, readers=5, closing=5000, closers=10)
    timeout: ClassVar[float] = 60.0
    hang_after: ClassVar[float] = 180.0
    quiet: ClassVar[float] = 0.4
    nack_delay: ClassVar[float] = 0.3
    # Members hear of a rebalance with their next heartbeat.
    options: ClassVar[dict[str, object]] = {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 300}
    kafka: RunningKafka

    @pytest.fixture(autouse=True)
    def _kafka(self, kafka_service: RunningKafka) -> None:
        self.kafka = kafka_service

    async def make_transport(self) -> Transport:
        options = {"connect.timeout.ms": 30_000, **self.options}
        settings = TransportSettings(url=f"kafka://{self.kafka.bootstrap_servers}", options=options)
        return KafkaTransport.from_settings(settings)

    async def lose(self, subscription: Subscription) -> None:
        assert isinstance(subscription, KafkaSubscription)
        await subscription.abandon()

    async def restart_broker(self) -> None:
        if reason := self.kafka.why_not("signals", "durability"):
            pytest.skip(reason)
        await asyncio.to_thread(self.kafka.kill)
        await asyncio.to_thread(self.kafka.start)


class PublishingInTransactions(KafkaTransport):
    """Publishes each call in a transaction of its own, and what that refuses message by message."""

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        self._check_usable()
        publishing = asyncio.ensure_future(self._in_transaction(messages))
        self._under_way().add(publishing)
        publishing.add_done_callback(self._under_way().discard)
        return publishing

    async def _in_transaction(self, messages: Sequence[Message]) -> Sequence[PublishResult]:
        try:
            async with self.transaction() as transaction:
                confirmation = transaction.send(messages)
            return await confirmation
        except TransactionError as error:
            if len(messages) == 1:
                return [error.__cause__ if isinstance(error.__cause__, TransportError) else error]
            return [result for message in messages for result in await self._in_transaction([message])]

    def _under_way(self) -> set[asyncio.Future[Sequence[PublishResult]]]:
        under_way: set[asyncio.Future[Sequence[PublishResult]]] = self.__dict__.setdefault("_publishing", set())
        return under_way

    async def flush(self) -> None:
        if self._under_way():
            await asyncio.wait(self._under_way())

    async def close(self) -> None:
        await self.flush()
        await super().close()


class ConsumerProtocol(OnKafka):
    options: ClassVar[dict[str, object]] = {"group.protocol": "consumer"}


class TestClassic(OnKafka, TransportContract):
    """Groups by the classic protocol, with cooperative assignment."""


class TestConsumerProtocol(ConsumerProtocol, TransportContract):
    """Groups by the protocol of KIP-848."""


@pytest.mark.skipif(
    "COMMONS_EVENTS_CHAOS" not in os.environ,
    reason="the whole contract once more, with every message in a transaction: `make chaos` runs it",
)
class TestTransactional(OnKafka, TransportContract):
    """Everything that is published is published in a transaction, and read committed; every log has gaps."""

    scale: ClassVar[Scale] = Scale(
        messages=30,
        concurrent=200,
        publishers=5,
        subscribers=4,
        topics=4,
        ordered=200,
        readers=3,
        closing=500,
        closers=5,
    )

    async def make_transport(self) -> Transport:
        options = {"connect.timeout.ms": 30_000, **self.options}
        settings = TransportSettings(url=f"kafka://{self.kafka.bootstrap_servers}", options=options)
        return PublishingInTransactions.from_settings(settings)


class TestProducer(OnKafka, ProducerContract):
    """`EventProducer` on Kafka."""


class TestKafkaProducer(OnKafka, ProducerContract):
    def make_producer(self, transport: Transport, **settings: Any) -> EventProducer:
        if not isinstance(transport, KafkaTransport):
            return EventProducer(transport=transport, **settings)
        return KafkaProducer(transport=transport, **settings)


class TestConsumer(OnKafka, ConsumerContract):
    """`EventConsumer` on Kafka."""


class TestKafkaConsumer(ConsumerProtocol, ConsumerContract):
    def make_consumer(self, transport: Transport, *topics: str, **settings: Any) -> EventConsumer:
        if not isinstance(transport, KafkaTransport):
            return EventConsumer(transport=transport, topics=topics, **settings)
        return KafkaConsumer(transport=transport, topics=topics, **settings)


class TestRouter(OnKafka, RouterContract):
    """`EventRouter` on Kafka, in groups by the classic protocol."""

    quiet: ClassVar[float] = 1.5


@pytest.mark.skipif(
    "COMMONS_EVENTS_CHAOS" not in os.environ,
    reason="handlers once more, in groups of the other protocol: `make chaos` runs it",
)
class TestRouterInGroupsOfTheConsumerProtocol(ConsumerProtocol, RouterContract):
    """`EventRouter` on Kafka, in groups by the protocol of KIP-848."""

    quiet: ClassVar[float] = 1.5
