"""Exchanges, queues, bindings and policies as code, on a real server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from commons_events.errors import ConfigurationError, ConnectionLostError
from commons_events.message import Receipt
from commons_events.rabbitmq import (
    Binding,
    Exchange,
    Policy,
    Queue,
    RabbitMQAdmin,
    RabbitMQProducer,
    Topology,
    TopologyMismatchError,
    UnknownExchangeError,
    UnknownQueueError,
)
from commons_events.testing.services import RunningRabbitMQ

pytestmark = pytest.mark.asyncio

TOPOLOGY = Topology(
    exchanges=[
        Exchange(name="orders"),
        Exchange(name="by-key", type="x-consistent-hash", arguments={"hash-header": "x-key"}),
    ],
    queues=[
        Queue(name="orders", delivery_limit=5, dead_letter_exchange="", dead_letter_routing_key="dead"),
        Queue(name="dead", type="classic", message_ttl=86_400),
        Queue(name="first"),
        Queue(name="second"),
    ],
    bindings=[
        Binding(exchange="orders", queue="orders", routing_key="order.*"),
        Binding(exchange="orders", to_exchange="by-key", routing_key="#"),
        Binding(exchange="by-key", queue="first", routing_key="1"),
        Binding(exchange="by-key", queue="second", routing_key="1"),
    ],
    policies=[Policy(name="length", pattern="^dead$", definition={"max-length": 1000}, apply_to="queues")],
)


async def test_declaring_is_idempotent_and_a_difference_is_told(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str
) -> None:
    rabbitmq_service.require("management", "consistent-hash")
    async with RabbitMQAdmin(rabbitmq_vhost, rabbitmq_service.management_url) as admin:
        missing = await admin.diff(TOPOLOGY)
        assert [str(one) for one in missing][:3] == [
            "+ exchange 'orders' is missing",
            "+ exchange 'by-key' is missing",
            "+ queue 'orders' is missing",
        ]
        assert len(missing) == 11
        for _ in range(2):
            await admin.declare(TOPOLOGY)
            assert await admin.diff(TOPOLOGY) == []
        other = Topology(
            exchanges=[Exchange(name="orders", type="direct"), Exchange(name="new")],
            queues=[Queue(name="orders", delivery_limit=7), Queue(name="dead", type="quorum", message_ttl=60)],
            bindings=[Binding(exchange="orders", queue="orders", routing_key="other")],
            policies=[Policy(name="length", pattern="^dead$", definition={"max-length": 5}, apply_to="queues")],
        )
        assert [str(one) for one in await admin.diff(other)] == [
            "~ exchange 'orders': type is 'topic' there, and 'direct' was asked for",
            "+ exchange 'new' is missing",
            "~ queue 'orders': x-delivery-limit is 5 there, and 7 was asked for",
            "~ queue 'orders': x-dead-letter-exchange is '' there, and None was asked for",
            "~ queue 'orders': x-dead-letter-routing-key is 'dead' there, and None was asked for",
            "~ queue 'dead': x-queue-type is 'classic' there, and 'quorum' was asked for",
            "~ queue 'dead': x-message-ttl is 86400000 there, and 60000 was asked for",
            "+ binding of 'orders' to exchange 'orders' by routing key 'other' is missing",
            "~ policy 'length': max-length is 1000 there, and 5 was asked for",
        ]
        with pytest.raises(TopologyMismatchError) as caught:
            await admin.declare(other)
        said = str(caught.value).splitlines()
        assert "~ queue 'dead': x-queue-type is 'classic' there, and 'quorum' was asked for" in said
        assert "Nothing of this was changed" in said[-1]
        left = {str(one) for one in await admin.diff(other)}
        assert "+ exchange 'new' is missing" not in left, "what could be declared was"
        assert await admin.diff(TOPOLOGY) == []
    async with RabbitMQAdmin(rabbitmq_vhost) as admin:
        with pytest.raises(TopologyMismatchError, match="406.*'x-queue-type'|406.*'x-dead-letter") as caught:
            await admin.declare(Topology(queues=other.queues))
        assert "inequivalent arg" in str(caught.value)


async def test_a_consistent_hash_keeps_a_key_in_one_queue(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str
) -> None:
    rabbitmq_service.require("consistent-hash")
    async with RabbitMQAdmin(rabbitmq_vhost) as admin, RabbitMQProducer(rabbitmq_vhost) as producer:
        await admin.declare(replace(TOPOLOGY, policies=()))
        for _ in range(2):
            for number in range(20):
                await producer.publish("orders", "order.placed", b"", key=f"key-{number}")
        first, second = [(await admin.queue(name)).messages for name in ("first", "second")]
        assert first + second == 40
        assert first % 2 == second % 2 == 0
        assert first
        assert second
        assert await admin.purge("first") == first
        assert (await admin.queue("first")).messages == 0
        await admin.delete_queue("first")
        await admin.delete_queue("first")
        with pytest.raises(UnknownQueueError, match="first"):
            await admin.queue("first")


async def test_who_may_not_declare_looks(rabbitmq_vhost: str) -> None:
    async with RabbitMQAdmin(rabbitmq_vhost) as admin:
        with pytest.raises(UnknownExchangeError, match="orders"):
            await admin.declare(Topology(exchanges=[Exchange(name="orders")]), passive=True)
        with pytest.raises(UnknownQueueError, match="orders"):
            await admin.declare(Topology(queues=[Queue(name="orders")]), passive=True)
        await admin.declare(Topology(exchanges=[Exchange(name="orders")], queues=[Queue(name="orders")]))
        await admin.declare(Topology(exchanges=[Exchange(name="orders")], queues=[Queue(name="orders")]), passive=True)


async def test_what_needs_the_management_api_says_so(rabbitmq_vhost: str) -> None:
    async with RabbitMQAdmin(rabbitmq_vhost) as admin:
        with pytest.raises(ConfigurationError, match="management_url"):
            await admin.diff(TOPOLOGY)
        with pytest.raises(ConfigurationError, match="management_url"):
            await admin.declare(TOPOLOGY)
        with pytest.raises(UnknownQueueError):
            await admin.queue("orders")
    async with RabbitMQAdmin(rabbitmq_vhost, "http://127.0.0.1:1") as admin:
        with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1:1"):
            await admin.diff(TOPOLOGY)
    with pytest.raises(ConfigurationError, match="one of the two"):
        Binding(exchange="orders")


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        (Topology(queues=[Queue(name="q" * 256)]), "255"),
        (Topology(queues=[Queue(name="amq.mine")]), "reserved prefix"),
        (Topology(queues=[Queue(name="q", message_ttl=-1)]), "x-message-ttl"),
        (Topology(queues=[Queue(name="q", durable=False)]), "non-durable"),
        (Topology(queues=[Queue(name="q", type="lazy")]), "x-queue-type"),  # type: ignore[arg-type]
        (Topology(queues=[Queue(name="q", arguments={"x-any": object()})]), "AMQP cannot carry it"),
        (Topology(queues=[Queue(name="q", arguments={"x-any": 1 << 70})]), "AMQP cannot carry it"),
        (Topology(exchanges=[Exchange(name="e", type="lazy")]), "exchange type 'lazy'"),
        (Topology(bindings=[Binding(exchange="", queue="q", routing_key="k")]), "default exchange"),
    ],
)
async def test_what_rabbitmq_does_not_have_is_told(rabbitmq_vhost: str, topology: Topology, said: str) -> None:
    async with RabbitMQAdmin(rabbitmq_vhost) as admin, asyncio.timeout(60):
        with pytest.raises(ConfigurationError, match=said) as caught:
            await admin.declare(topology)
        assert not isinstance(caught.value, TopologyMismatchError | ConnectionLostError)
        await admin.declare(Topology(queues=[Queue(name="q")]))


async def test_a_difference_that_the_api_does_not_show_is_told_in_the_brokers_words(
    rabbitmq_service: RunningRabbitMQ, rabbitmq_vhost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_difference(_: object, __: object) -> list[object]:
        return []

    monkeypatch.setattr(RabbitMQAdmin, "diff", no_difference)
    async with RabbitMQAdmin(rabbitmq_vhost, rabbitmq_service.management_url) as admin:
        await admin.declare(Topology(queues=[Queue(name="q")]))
        with pytest.raises(TopologyMismatchError, match="inequivalent arg"):
            await admin.declare(Topology(queues=[Queue(name="q", max_length=5)]))


async def test_nobody_publishes_to_an_internal_exchange(rabbitmq_vhost: str) -> None:
    async with RabbitMQAdmin(rabbitmq_vhost) as admin, RabbitMQProducer(rabbitmq_vhost) as producer:
        await admin.declare(Topology(exchanges=[Exchange(name="inner", internal=True)], queues=[Queue(name="q")]))
        sent = [producer.publish(*where, b"") for where in (("", "q"), ("inner", "key"), ("", "q"))]
        first, refused, last = await asyncio.gather(*sent, return_exceptions=True)
        assert isinstance(refused, ConfigurationError)
        assert "internal exchange 'inner'" in str(refused)
        assert type(first) is type(last) is Receipt
