"""`RabbitMQProducer`: an `EventProducer` that speaks RabbitMQ's words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from commons_events.errors import ConfigurationError, InvalidTopicError, MessageTooLargeError
from commons_events.event import Event
from commons_events.message import Headers, Message, Receipt
from commons_events.producers import EventProducer, ProducerConfig
from commons_events.producers._producer import _headers, _key_bytes
from commons_events.rabbitmq._errors import RoutingKeyError
from commons_events.rabbitmq._frames import Properties, check_routing_key
from commons_events.rabbitmq._keywords import rabbitmq_config
from commons_events.rabbitmq._publisher import Route
from commons_events.rabbitmq._transport import RabbitMQTransport
from commons_events.transport import Transport

__all__ = ["RabbitMQProducer"]

_MOST_ROUTES = 10_000


class RabbitMQProducer(EventProducer):
    """Publishes events to RabbitMQ's exchanges, confirmed; `send` and `send_batch` serve topics as on every broker.

    Args:
        url: ``amqp://user:password@host:5672/vhost``, or ``amqps://``; a list of such for a cluster's nodes.
        config: a `ProducerConfig`, in place of everything else.
        transport: use this one, which stays its maker's to close.
        settings: those of `ProducerConfig`, and RabbitMQ's: ``heartbeat=30``, ``cacertfile="ca.pem"``,
            ``max_in_flight=10_000``.

    Raises:
        ConfigurationError: a setting is unknown, with the nearest right one, or wrong.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        config: ProducerConfig | None = None,
        transport: Transport | None = None,
        **settings: Any,
    ) -> None:
        if config is None:
            if url is None and transport is None and "broker" not in settings:
                url = "amqp://localhost"
            config = rabbitmq_config(ProducerConfig, "RabbitMQProducer", url, settings)
        elif url is not None or settings:
            raise ConfigurationError("RabbitMQProducer: give a config or settings, not both.")
        super().__init__(config, transport=transport)
        if not isinstance(self._transport, RabbitMQTransport):
            raise ConfigurationError(f"RabbitMQProducer needs RabbitMQ, and the broker is {self._transport.name!r}.")
        self._rabbitmq: RabbitMQTransport = self._transport
        self._routes: dict[tuple[Any, ...], Route] = {}

    def publish(
        self,
        exchange: str,
        routing_key: str,
        event: Event | bytes,
        *,
        persistent: bool = True,
        mandatory: bool | None = None,
        key: str | bytes | None = None,
        headers: Mapping[str, str | bytes] | None = None,
        timestamp: datetime | None = None,
        priority: int | None = None,
        expiration: float | timedelta | None = None,
    ) -> asyncio.Future[Receipt]:
        """Hand an event over, now; the future returns once RabbitMQ has confirmed it.

        Thousands may be in flight: keep the futures, and await them later. A message that was not confirmed when the
        connection broke is sent again, so that it may be there twice.

        Args:
            exchange: where to; it has to be there. ``""`` is the default exchange, which takes a queue's name for
                a routing key.
            routing_key: at most 255 bytes.
            event: what happened; or bytes, which are sent as they are, without any headers of ours.
            persistent: whether the message outlives a restart of RabbitMQ, in a durable queue.
            mandatory: whether a message that no queue takes is an error; None as the option says, which is True.
            key: kept with the message (header ``x-key``): a consumer keeps the order of a key when it says no to one.
            headers: more headers; a str stands for its UTF-8 bytes.
            timestamp: aware; by default now.
            priority: 0 to 255, for queues that have priorities.
            expiration: seconds, or a timedelta, after which a queue drops the message, or hands it to its dead-letter
                exchange.

        Raises:
            RoutingKeyError: the routing key is over 255 bytes.
            InvalidHeaderError: AMQP cannot carry a header.
            SerializationError: the event holds a value that its format cannot carry.
            MessageTooLargeError: the message is over the limit.
            ClosedError: the producer is closed.
            WrongEventLoopError: this is not the producer's event loop.
            UnroutableError: (from the future) no queue takes the routing key.
            UnknownExchangeError: (from the future) there is no such exchange.
            TransportError: (from the future) RabbitMQ refused or failed; PublishTimeoutError if it never answered.
        """
        self._check_usable()
        route = self._routes.get((exchange, routing_key, persistent, mandatory, priority, expiration))
        if route is None:
            route = self._route(exchange, routing_key, persistent, mandatory, priority, expiration)
        given = _headers(headers) if headers else ()
        label = exchange or routing_key
        if self._telemetry.tracing:
            with self._telemetry.send(label) as context:
                message = self._made(label, event, key, (*given, *context), timestamp)
        else:
            message = self._made(label, event, key, given, timestamp)
        sent = self._rabbitmq.publish_one(message, route, self.config.delivery_timeout)
        self._telemetry.sent(label)
        return sent

    def _route(
        self,
        exchange: str,
        routing_key: str,
        persistent: bool,
        mandatory: bool | None,
        priority: int | None,
        expiration: float | timedelta | None,
    ) -> Route:
        check_routing_key(routing_key)
        if not isinstance(exchange, str) or len(exchange.encode()) > 255:  # type: ignore[redundant-expr]
            raise InvalidTopicError(f"An exchange's name is a str of at most 255 bytes, not {exchange!r:.60}.")
        if not exchange and not routing_key:
            raise RoutingKeyError("The default exchange ('') takes a queue's name for a routing key, and it is empty.")
        if not (priority is None or (isinstance(priority, int) and 0 <= priority <= 255)):  # type: ignore[redundant-expr]
            raise ValueError(f"publish: priority is a number from 0 to 255, not {priority!r}.")
        seconds = expiration.total_seconds() if isinstance(expiration, timedelta) else expiration
        if not (seconds is None or (isinstance(seconds, (int, float)) and 0 <= seconds < 4_294_967)):  # type: ignore[redundant-expr]
            raise ValueError(f"publish: expiration is a number of seconds from 0 to 4,294,966, not {expiration!r}.")
        settings = self._rabbitmq.settings
        route = Route(
            exchange,
            routing_key,
            settings.mandatory if mandatory is None else mandatory,
            Properties(persistent, priority, None if seconds is None else round(seconds * 1000)),
        )
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.clear()
        self._routes[exchange, routing_key, persistent, mandatory, priority, expiration] = route
        return route

    def _made(
        self, label: str, event: Event | bytes, key: str | bytes | None, headers: Headers, timestamp: datetime | None
    ) -> Message:
        if timestamp is not None and timestamp.tzinfo is None:
            raise ValueError(f"publish: the timestamp {timestamp!r} is naive; give an aware datetime.")
        if not isinstance(event, bytes):
            if not isinstance(event, (bytearray, memoryview)):
                return self._message(
                    label, event, key, None, headers, self._runtime.now() if timestamp is None else timestamp
                )
            event = bytes(event)
        if key is not None:
            key = _key_bytes(key)
        message = Message(label, event, key, headers, timestamp)
        limit = self.config.max_message_bytes
        if limit is not None and message.size > limit:
            raise MessageTooLargeError(
                f"A message of {message.size:,} bytes for {label!r}; max_message_bytes is {limit:,}. Send less."
            )
        return message

    async def _settle_in_flight(self, timeout: float | None) -> int:
        return await super()._settle_in_flight(timeout) + await self._rabbitmq.give_up(timeout)
