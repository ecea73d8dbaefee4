"""`RabbitMQConsumer`: an `EventConsumer` that speaks RabbitMQ's words."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

from commons_events.consumers import ConsumerConfig, EventConsumer
from commons_events.errors import ConfigurationError, StaleDeliveryError
from commons_events.rabbitmq._keywords import rabbitmq_config
from commons_events.rabbitmq._queue import RabbitMQDelivery
from commons_events.rabbitmq._transport import RabbitMQTransport
from commons_events.transport import Delivery, Transport

__all__ = ["RabbitMQConsumer"]


class RabbitMQConsumer(EventConsumer):
    """Receives the messages of queues that are there, at least once; or, with a group, those of topics.

    Its messages are `RabbitMQDelivery`: ``nack(requeue=True)`` and ``reject(requeue=False)`` are RabbitMQ's own.

    Args:
        url: ``amqp://user:password@host:5672/vhost``, or ``amqps://``; a list of such for a cluster's nodes.
        queue: the queue, or several. It is never declared here: one that is not there is an error.
        prefetch_count: the most messages that are with this consumer and not acknowledged.
        topics: in place of queues, what to receive as on every broker, with ``group_id``.
        config: a `ConsumerConfig`, in place of everything else; its topics are topics.
        transport: use this one, which stays its maker's to close.
        settings: those of `ConsumerConfig`, and RabbitMQ's: ``exclusive=True``, ``consumer_priority=5``.

    Raises:
        ConfigurationError: the queue is missing, or a setting is unknown, with the nearest right one, or wrong.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        queue: str | Sequence[str] | None = None,
        prefetch_count: int | None = None,
        *,
        topics: str | Sequence[str] | None = None,
        config: ConsumerConfig | None = None,
        transport: Transport | None = None,
        **settings: Any,
    ) -> None:
        self._queues: tuple[str, ...] = ()
        if config is None:
            if (queue is None) == (topics is None):
                raise ConfigurationError(
                    "RabbitMQConsumer: give the queue to consume, or topics with a group_id; one of the two."
                )
            if queue is not None:
                self._queues = _names(queue)
                if settings.get("group_id") is not None:
                    raise ConfigurationError(
                        "RabbitMQConsumer: consumers of a queue share it; a group_id belongs to topics."
                    )
            if url is None and transport is None and "broker" not in settings:
                url = "amqp://localhost"
            if prefetch_count is not None:
                settings["prefetch_count"] = prefetch_count
                if isinstance(prefetch_count, int) and prefetch_count > 0:  # type: ignore[redundant-expr]
                    settings.setdefault("max_unsettled", prefetch_count)
            given = {**settings, "topics": self._queues or topics}
            config = rabbitmq_config(ConsumerConfig, "RabbitMQConsumer", url, given)
        elif url is not None or queue is not None or topics is not None or prefetch_count is not None or settings:
            raise ConfigurationError("RabbitMQConsumer: give a config or settings, not both.")
        super().__init__(config, transport=transport)
        if not isinstance(self._transport, RabbitMQTransport):
            raise ConfigurationError(f"RabbitMQConsumer needs RabbitMQ, and the broker is {self._transport.name!r}.")
        self._rabbitmq: RabbitMQTransport = self._transport

    def _check_topics(self, topics: Iterable[str]) -> None:
        """A queue that is there may have any name, so that only the others are checked as topics."""
        super()._check_topics(topic for topic in topics if topic not in self._queues)

    async def start(self) -> None:
        """Consume, if that has not happened.

        Raises:
            UnknownQueueError: the queue is not there.
            ExclusiveQueueError: another consumer or connection has it for itself.
            TransportError: RabbitMQ refused; ConnectionLostError where it is out of reach.
        """
        if not self._queues:
            await super().start()
            return
        self._check_usable()
        if self._subscription is None:
            self._subscription = await self._rabbitmq.consume(
                self._queues, max_unsettled=self.config.max_unsettled, settler=self
            )

    def commit(self, delivery: Delivery | None = None, *, wait: bool = False) -> Awaitable[None]:
        """See `EventConsumer.commit`; with ``wait`` it returns once RabbitMQ has the acknowledgement.

        Raises:
            StaleDeliveryError: the connection that the message came over is lost, and the message is delivered again.
                Go on with the next; ``message.ack()`` passes it over without an error.
            ConnectionLostError: (from the awaitable) the connection broke before RabbitMQ had it.
            ValueError: the message came from another consumer.
            ClosedError: the consumer is closed.
        """
        if isinstance(delivery, RabbitMQDelivery) and delivery.settler is self and not self._closed:
            stale = delivery.state.unfinished.get(delivery.arrived.tag) is not delivery
            if delivery.outcome is None and stale:
                raise StaleDeliveryError(
                    f"commit: {delivery!r} came over a connection that is lost since. It is delivered again; go on "
                    "with the next message."
                )
        return super().commit(delivery, wait=wait)


def _names(queue: str | Sequence[str]) -> tuple[str, ...]:
    names = (queue,) if isinstance(queue, str) else tuple(queue) if isinstance(queue, (list, tuple)) else ()
    for name in names or (queue,):
        if not isinstance(name, str) or not 0 < len(name.encode()) <= 255:
            raise ConfigurationError(
                f"RabbitMQConsumer: a queue's name is a str of 1 to 255 bytes, or several in a list, not {name!r:.80}."
            )
    return names
