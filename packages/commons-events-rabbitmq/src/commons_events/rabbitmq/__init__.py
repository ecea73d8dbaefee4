"""RabbitMQ: confirmed and never lost, at the raw client's speed, with asyncio's comfort.

``broker="amqp://host"`` in `EventProducer` and `EventConsumer`; `RabbitMQProducer` and `RabbitMQConsumer` speak
RabbitMQ's own words. The client is pika, in a thread of its own.
"""

from commons_events.rabbitmq._admin import QueueInfo, RabbitMQAdmin
from commons_events.rabbitmq._consumer import RabbitMQConsumer
from commons_events.rabbitmq._declared import Binding, Difference, Exchange, Policy, Queue, Topology
from commons_events.rabbitmq._errors import (
    ExclusiveQueueError,
    InvalidHeaderError,
    NotYetRoutableError,
    RoutingKeyError,
    TopologyMismatchError,
    UnknownExchangeError,
    UnknownQueueError,
    UnknownVirtualHostError,
    UnroutableError,
)
from commons_events.rabbitmq._producer import RabbitMQProducer
from commons_events.rabbitmq._queue import RabbitMQDelivery
from commons_events.rabbitmq._stream import RabbitMQStreamSubscription
from commons_events.rabbitmq._subscription import RabbitMQSubscription
from commons_events.rabbitmq._transport import RabbitMQTransport

__all__ = [
    "Binding",
    "Difference",
    "Exchange",
    "ExclusiveQueueError",
    "InvalidHeaderError",
    "NotYetRoutableError",
    "Policy",
    "Queue",
    "QueueInfo",
    "RabbitMQAdmin",
    "RabbitMQConsumer",
    "RabbitMQDelivery",
    "RabbitMQProducer",
    "RabbitMQStreamSubscription",
    "RabbitMQSubscription",
    "RabbitMQTransport",
    "RoutingKeyError",
    "Topology",
    "TopologyMismatchError",
    "UnknownExchangeError",
    "UnknownQueueError",
    "UnknownVirtualHostError",
    "UnroutableError",
]
