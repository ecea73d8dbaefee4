"""`KafkaConsumer`: an `EventConsumer` that speaks Kafka's words."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from commons_events.consumers import ConsumerConfig, EventConsumer
from commons_events.errors import ConfigurationError, StaleDeliveryError
from commons_events.kafka._deliveries import KafkaDelivery
from commons_events.kafka._keywords import check_config, kafka_config
from commons_events.kafka._subscription import KafkaSubscription
from commons_events.kafka._transport import KafkaTransport
from commons_events.transport import Delivery, TopicPartition, Transport

__all__ = ["KafkaConsumer"]


class KafkaConsumer(EventConsumer):
    """Receives messages of Kafka topics as a member of a group, at least once.

    ``commit(message)`` finishes one message. Commits go out coalesced, up to the first unfinished message of each
    partition and never past it.

    Args:
        bootstrap_servers: ``"host:9092,other:9092"``, or a list of such.
        group_id: the group that shares the messages.
        topics: what to receive; ``["^orders-.*"]`` for all topics that the regular expression matches.
        config: a `ConsumerConfig`, in place of everything else.
        transport: use this one, which stays its maker's to close.
        settings: those of `ConsumerConfig`, and librdkafka's with underscores for dots: ``group_instance_id="one"``,
            ``group_protocol="consumer"`` (KIP-848), ``isolation_level="read_uncommitted"``.

    Raises:
        ConfigurationError: the group is missing, or a setting is unknown, with the nearest right one, or wrong.
        InvalidTopicError: Kafka takes no such topic name.
    """

    def __init__(
        self,
        bootstrap_servers: str | Sequence[str] | None = None,
        group_id: str | None = None,
        topics: str | Sequence[str] | None = None,
        *,
        config: ConsumerConfig | None = None,
        transport: Transport | None = None,
        **settings: Any,
    ) -> None:
        if config is None:
            given = {"group_id": group_id, "topics": topics}
            settings.update({name: value for name, value in given.items() if value is not None})
            if bootstrap_servers is None and transport is None and not settings.keys() & {"url", "broker"}:
                settings["broker"] = "kafka"
            config = kafka_config(ConsumerConfig, "KafkaConsumer", bootstrap_servers, settings)
        elif bootstrap_servers is not None or group_id is not None or topics is not None or settings:
            raise ConfigurationError("KafkaConsumer: give a config or settings, not both.")
        check_config(ConsumerConfig, "KafkaConsumer", config)
        if config.group_id is None:
            raise ConfigurationError(
                "KafkaConsumer: group_id is missing; name the group that shares the messages. An EventConsumer without "
                "one reads everything for itself alone."
            )
        super().__init__(config, transport=transport)
        if not isinstance(self._transport, KafkaTransport):
            raise ConfigurationError(f"KafkaConsumer needs Kafka, and the broker is {self._transport.name!r}.")

    def commit(self, delivery: Delivery | None = None, *, wait: bool = False) -> Awaitable[None]:
        """See `EventConsumer.commit`.

        Raises:
            StaleDeliveryError: the message was taken to another member since, which gets it again. Go on with the next;
                ``message.ack()`` passes it over without an error.
            ValueError: the message came from another consumer.
            ClosedError: the consumer is closed.
        """
        if (
            isinstance(delivery, KafkaDelivery)
            and delivery.settler is self
            and not self._closed
            and delivery.outcome is None
            and not delivery.is_open
        ):
            raise StaleDeliveryError(
                f"commit: {delivery!r} is no longer this consumer's: its partition was revoked or sought in. It is "
                "delivered again where the partition is now; go on with the next message."
            )
        return super().commit(delivery, wait=wait)

    async def lag(self) -> dict[TopicPartition, int]:
        """How many messages each of this member's partitions has beyond the finished ones.

        Raises:
            ConnectionLostError: the broker is out of reach.
        """
        subscription = self._subscribed()
        assert isinstance(subscription, KafkaSubscription)
        return await subscription.lag()

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that this member has."""
        subscription = self._subscribed()
        assert isinstance(subscription, KafkaSubscription)
        return subscription.assignment
