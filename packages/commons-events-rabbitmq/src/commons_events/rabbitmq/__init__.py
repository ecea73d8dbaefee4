"""RabbitMQ: confirmed and never lost, at the raw client's speed, with asyncio's comfort.

``broker="amqp://host"`` in `EventProducer` and `EventConsumer`; `RabbitMQProducer` and `RabbitMQConsumer` speak
RabbitMQ's own words. The client is pika, in a thread of its own.
"""

from commons_events.rabbitmq._errors import (
    ExclusiveQueueError,
    InvalidHeaderError,
    RoutingKeyError,
    TopologyMismatchError,
    UnknownExchangeError,
    UnknownQueueError,
    UnknownVirtualHostError,
    UnroutableError,
)
from commons_events.rabbitmq._queue import RabbitMQDelivery
from commons_events.rabbitmq._subscription import RabbitMQSubscription
from commons_events.rabbitmq._transport import RabbitMQTransport

__all__ = [
    "ExclusiveQueueError",
    "InvalidHeaderError",
    "RabbitMQDelivery",
    "RabbitMQSubscription",
    "RabbitMQTransport",
    "RoutingKeyError",
    "TopologyMismatchError",
    "UnknownExchangeError",
    "UnknownQueueError",
    "UnknownVirtualHostError",
    "UnroutableError",
]
