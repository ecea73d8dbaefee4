"""What a `Topology` is made of, how it is declared, and how what is there differs from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from commons_events.errors import ConfigurationError
from commons_events.rabbitmq._topology import Step

__all__ = ["Arguments", "Binding", "Difference", "Exchange", "Policy", "Queue", "Topology", "compare", "declarations"]

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An exchange. ``type`` is ``topic``, ``direct``, ``fanout``, ``headers``, or a plugin's."""

    name: str
    type: str = "topic"
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue. What stands here beside ``arguments`` is the ``x-`` argument of that name; None leaves it out."""

    name: str
    type: Literal["quorum", "classic", "stream"] = "quorum"
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    dead_letter_strategy: Literal["at-most-once", "at-least-once"] | None = None
    """Of quorum queues: ``at-least-once`` loses no dead letter, and needs ``overflow="reject-publish"``."""
    delivery_limit: int | None = None
    """Of quorum queues: how often a message is delivered again before it is dead-lettered."""
    message_ttl: float | None = None
    """Seconds."""
    expires: float | None = None
    """Seconds without a consumer, after which the queue goes."""
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: Literal["drop-head", "reject-publish", "reject-publish-dlx"] | None = None
    single_active_consumer: bool | None = None
    max_priority: int | None = None
    arguments: Arguments = field(default_factory=dict)

    @property
    def all_arguments(self) -> dict[str, Any]:
        """What the queue is declared with."""
        named = {
            "x-queue-type": self.type,
            "x-dead-letter-exchange": self.dead_letter_exchange,
            "x-dead-letter-routing-key": self.dead_letter_routing_key,
            "x-dead-letter-strategy": self.dead_letter_strategy,
            "x-delivery-limit": self.delivery_limit,
            "x-message-ttl": None if self.message_ttl is None else round(self.message_ttl * 1000),
            "x-expires": None if self.expires is None else round(self.expires * 1000),
            "x-max-length": self.max_length,
            "x-max-length-bytes": self.max_length_bytes,
            "x-overflow": self.overflow,
            "x-single-active-consumer": self.single_active_consumer,
            "x-max-priority": self.max_priority,
        }
        return {name: value for name, value in named.items() if value is not None} | dict(self.arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What brings messages from an exchange to a queue, or to another exchange."""

    exchange: str
    queue: str | None = None
    to_exchange: str | None = None
    routing_key: str = ""
    arguments: Arguments = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.queue is None) == (self.to_exchange is None):
            raise ConfigurationError("Binding: give the queue or the exchange that it leads to, one of the two.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What RabbitMQ applies to queues and exchanges by their names. Declaring one needs the management API."""

    name: str
    pattern: str
    definition: Mapping[str, Any]
    apply_to: Literal["all", "queues", "exchanges", "classic_queues", "quorum_queues", "streams"] = "all"
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What has to be there for a program to run."""

    exchanges: Sequence[Exchange] = ()
    queues: Sequence[Queue] = ()
    bindings: Sequence[Binding] = ()
    policies: Sequence[Policy] = ()


class Difference(NamedTuple):
    """One thing that is not as it was asked for."""

    what: str
    """Such as ``queue 'orders'``."""
    setting: str | None
    """What differs; None where the whole of it is missing."""
    there: object
    """The server's; None where it has none."""
    asked: object

    def __str__(self) -> str:
        if self.setting is None:
            return f"+ {self.what} is missing"
        return f"~ {self.what}: {self.setting} is {self.there!r} there, and {self.asked!r} was asked for"


def declarations(topology: Topology, passive: bool) -> Iterator[list[Step]]:
    """The steps for each exchange, queue and binding."""
    for exchange in topology.exchanges:

        def declare_exchange(channel: Any, done: Any, exchange: Exchange = exchange) -> None:
            channel.exchange_declare(
                exchange.name,
                exchange.type,
                passive=passive,
                durable=exchange.durable,
                auto_delete=exchange.auto_delete,
                internal=exchange.internal,
                arguments=dict(exchange.arguments) or None,
                callback=done,
            )

        yield [(f"Declaring exchange {exchange.name!r}", declare_exchange)]
    for queue in topology.queues:

        def declare_queue(channel: Any, done: Any, queue: Queue = queue) -> None:
            channel.queue_declare(
                queue.name,
                passive=passive,
                durable=queue.durable,
                exclusive=queue.exclusive,
                auto_delete=queue.auto_delete,
                arguments=queue.all_arguments,
                callback=done,
            )

        yield [(f"Declaring queue {queue.name!r}", declare_queue)]
    if passive:
        return
    for binding in topology.bindings:

        def bind(channel: Any, done: Any, binding: Binding = binding) -> None:
            arguments = dict(binding.arguments) or None
            if binding.queue is not None:
                channel.queue_bind(binding.queue, binding.exchange, binding.routing_key, arguments, callback=done)
            else:
                target = binding.to_exchange
                channel.exchange_bind(target, binding.exchange, binding.routing_key, arguments, callback=done)

        target = binding.queue if binding.queue is not None else binding.to_exchange
        yield [(f"Binding {target!r} to exchange {binding.exchange!r}", bind)]


def compare(
    what: str, there: Mapping[str, Any] | None, asked: Mapping[str, Any], arguments: Arguments
) -> list[Difference]:
    if there is None:
        return [Difference(what, None, None, {**asked, **arguments})]
    found = [
        Difference(what, name, there.get(name), value) for name, value in asked.items() if there.get(name) != value
    ]
    has: Mapping[str, Any] = there["arguments"]
    found += [
        Difference(what, name, has.get(name), arguments.get(name))
        for name in [*arguments, *(name for name in has if name not in arguments)]
        if has.get(name) != arguments.get(name)
    ]
    return found
