"""`RabbitMQAdmin`: exchanges, queues, bindings and policies as code, and how the server's differ."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote, unquote, urlsplit

from commons_events.config import ClientConfig
from commons_events.errors import (
    AuthorizationError,
    ClosedError,
    ConfigurationError,
    ConnectionLostError,
    TransportError,
)
from commons_events.rabbitmq._connection import IO, Link
from commons_events.rabbitmq._errors import TopologyMismatchError
from commons_events.rabbitmq._keywords import rabbitmq_config
from commons_events.rabbitmq._settings import RabbitMQSettings
from commons_events.rabbitmq._topology import Step, Steps
from commons_events.transport import TransportSettings

__all__ = ["Binding", "Difference", "Exchange", "Policy", "Queue", "QueueInfo", "RabbitMQAdmin", "Topology"]

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


class QueueInfo(NamedTuple):
    """A queue as it is now."""

    name: str
    messages: int
    """Ready to be delivered."""
    consumers: int


class RabbitMQAdmin:
    """Declares exchanges, queues, bindings and policies; nothing that is there is changed or deleted by declaring.

    Args:
        url: as of `RabbitMQProducer`.
        management_url: ``http://user:password@host:15672`` of the management API, which `diff` and policies need.
        settings: RabbitMQ's, as of `RabbitMQProducer`.
    """

    def __init__(
        self, url: str | Sequence[str] = "amqp://localhost", management_url: str | None = None, **settings: Any
    ) -> None:
        config = rabbitmq_config(ClientConfig, "RabbitMQAdmin", url, settings)
        self._settings = RabbitMQSettings.of(
            TransportSettings(url=config.address, client_id=config.client_id, options=config.options)
        )
        self._management = management_url
        self._io: IO | None = None
        self._link: Link | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # --- topologies --------------------------------------------------------------------------------------------------

    async def declare(self, topology: Topology, *, passive: bool = False) -> None:
        """Make what is missing of a topology; what is there as it was asked for stays, however often this is called.

        Args:
            topology: what has to be there.
            passive: only look whether exchanges and queues are there, for those who may not declare; bindings and
                policies cannot be looked for this way.

        Raises:
            TopologyMismatchError: some of it is there with other arguments: the message lists every difference, and
                nothing of those was changed. The rest is declared.
            UnknownQueueError: with ``passive``: a queue is missing; UnknownExchangeError for an exchange.
            AuthorizationError: the user may not declare it.
            ConfigurationError: there are policies, and no ``management_url``.
        """
        if topology.policies and not passive and self._management is None:
            raise ConfigurationError("RabbitMQAdmin: policies are set by the management API; give its management_url.")
        mismatches: list[TopologyMismatchError] = []
        for steps in _declarations(topology, passive):
            try:
                await self._run(steps)
            except TopologyMismatchError as error:
                mismatches.append(error)
        if mismatches:
            raise TopologyMismatchError(await self._explain(topology, mismatches)) from mismatches[0]
        if not passive:
            for policy in topology.policies:
                await self._set(policy)

    async def diff(self, topology: Topology) -> list[Difference]:
        """How the server's exchanges, queues, bindings and policies differ from a topology; ``str`` of each reads well.

        What the topology does not name is not looked at.

        Raises:
            ConfigurationError: there is no ``management_url``.
            ConnectionLostError: the management API does not answer.
        """
        found: list[Difference] = []
        for exchange in topology.exchanges:
            there = await self._ask(f"exchanges/{self._vhost}/{_quoted(exchange.name)}")
            asked = {
                "type": exchange.type,
                "durable": exchange.durable,
                "auto_delete": exchange.auto_delete,
                "internal": exchange.internal,
            }
            found += _compare(f"exchange {exchange.name!r}", there, asked, exchange.arguments)
        for queue in topology.queues:
            there = await self._ask(f"queues/{self._vhost}/{_quoted(queue.name)}")
            asked = {"durable": queue.durable, "auto_delete": queue.auto_delete, "exclusive": queue.exclusive}
            if there is not None and "x-queue-type" not in there["arguments"]:
                there["arguments"]["x-queue-type"] = there.get("type", "classic")
            found += _compare(f"queue {queue.name!r}", there, asked, queue.all_arguments)
        for binding in topology.bindings:
            kind, target = ("q", binding.queue) if binding.queue is not None else ("e", binding.to_exchange)
            path = f"bindings/{self._vhost}/e/{_quoted(binding.exchange)}/{kind}/{_quoted(target or '')}"
            listed = await self._ask(path) or []
            if not any(
                one["routing_key"] == binding.routing_key and one["arguments"] == dict(binding.arguments)
                for one in listed
            ):
                what = f"binding of {target!r} to exchange {binding.exchange!r} by routing key {binding.routing_key!r}"
                found.append(Difference(what, None, None, binding))
        for policy in topology.policies:
            there = await self._ask(f"policies/{self._vhost}/{_quoted(policy.name)}")
            asked = {"pattern": policy.pattern, "apply-to": policy.apply_to, "priority": policy.priority}
            if there is not None:
                there["arguments"] = there["definition"]
            found += _compare(f"policy {policy.name!r}", there, asked, policy.definition)
        return found

    # --- queues and exchanges ----------------------------------------------------------------------------------------

    async def queue(self, name: str) -> QueueInfo:
        """A queue as it is now.

        Raises:
            UnknownQueueError: there is none of this name.
        """
        frame = await self._run(
            [
                (
                    f"Looking for queue {name!r}",
                    lambda channel, done: channel.queue_declare(name, passive=True, callback=done),
                )
            ]
        )
        return QueueInfo(name, frame.method.message_count, frame.method.consumer_count)

    async def delete_queue(self, name: str, *, if_empty: bool = False) -> None:
        """Delete a queue with its messages; one that is not there is none.

        Raises:
            TransportError: it is not empty, and ``if_empty`` was asked for.
        """
        await self._run(
            [
                (
                    f"Deleting queue {name!r}",
                    lambda channel, done: channel.queue_delete(name, if_empty=if_empty, callback=done),
                )
            ]
        )

    async def delete_exchange(self, name: str) -> None:
        """Delete an exchange with its bindings; one that is not there is none."""
        await self._run(
            [(f"Deleting exchange {name!r}", lambda channel, done: channel.exchange_delete(name, callback=done))]
        )

    async def purge(self, name: str) -> int:
        """Delete the messages of a queue that are ready; returns how many there were.

        Raises:
            UnknownQueueError: there is none of this name.
        """
        frame = await self._run(
            [(f"Purging queue {name!r}", lambda channel, done: channel.queue_purge(name, callback=done))]
        )
        return int(frame.method.message_count)

    async def close(self) -> None:
        """Disconnect; harmless twice."""
        self._closed = True
        io, self._io = self._io, None
        if io is not None:
            if self._link is not None:
                await io.ask(self._link.close)
            await io.stop()

    # --- how ---------------------------------------------------------------------------------------------------------

    @property
    def _vhost(self) -> str:
        return _quoted(self._settings.vhost)

    async def _run(self, steps: Iterable[Step]) -> Any:
        if self._closed:
            raise ClosedError("This RabbitMQAdmin is closed; make a new one.")
        if self._io is None:
            self._io = IO(asyncio.get_running_loop())
            self._link = Link(self._io, self._settings, "administration")
        io, link = self._io, self._link
        assert link is not None
        return await io.ask(lambda future: link.use(_Once(io, link, iter(steps), future)))

    async def _explain(self, topology: Topology, mismatches: Sequence[TopologyMismatchError]) -> str:
        words = [str(error) for error in mismatches]
        if self._management is not None:
            words = [str(difference) for difference in await self.diff(topology) if difference.setting is not None]
            words.append(
                "Nothing of this was changed: ask for what is there, or delete it (its messages go too) and declare it "
                "anew; arguments that a policy can set, set by a policy."
            )
        return "\n".join(["What is there was declared otherwise:", *words])

    async def _set(self, policy: Policy) -> None:
        body = {
            "pattern": policy.pattern,
            "definition": dict(policy.definition),
            "apply-to": policy.apply_to,
            "priority": policy.priority,
        }
        await self._ask(f"policies/{self._vhost}/{_quoted(policy.name)}", method="PUT", body=body)

    async def _ask(self, path: str, *, method: str = "GET", body: Mapping[str, Any] | None = None) -> Any:
        if self._management is None:
            raise ConfigurationError(
                "RabbitMQAdmin: AMQP itself lists nothing; give the management_url (http://user:password@host:15672)."
            )
        return await asyncio.to_thread(_http, self._management, method, path, body)


class _Once:
    """Runs steps on a link once it is up."""

    def __init__(self, io: IO, link: Link, steps: Iterator[Step], future: asyncio.Future[Any]) -> None:
        self._io = io
        self._link = link
        self._steps = steps
        self._future = future

    def on_up(self, connection: Any) -> None:
        """See `User`."""
        self._link.leave(self)
        Steps(connection, self._steps, self._done)

    def _done(self, error: TransportError | None, frame: Any) -> None:
        if error is not None:
            self._io.fail(self._future, error)
        else:
            self._io.answer(self._future, frame)

    def on_failed(self, error: TransportError) -> None:
        """See `User`."""
        self._link.leave(self)
        self._io.fail(self._future, error)

    def on_down(self, error: TransportError) -> None:
        """See `User`."""

    def on_blocked(self, reason: str | None) -> None:
        """See `User`."""


def _declarations(topology: Topology, passive: bool) -> Iterator[list[Step]]:
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


def _compare(
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


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _http(base: str, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
    """Call the management API; None for what is not there, and for an empty answer."""
    parts = urlsplit(base)
    login = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
    host = parts.hostname or "localhost"
    url = f"{parts.scheme}://{host}:{parts.port or 15672}{parts.path.rstrip('/')}/api/{path}"
    request = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}",
            "Content-Type": "application/json",
        },
    )
    where = f"RabbitMQ's management API at {host}:{parts.port or 15672}"
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
            read = response.read()
    except urllib.error.HTTPError as error:
        with error:
            said = error.read().decode(errors="replace")
        if error.code == 404:
            return None
        if error.code == 401:
            raise AuthorizationError(
                f"{where} does not let this user in: 401 {said}. Check the login, and that it has the tag management."
            ) from None
        raise TransportError(f"{where} refused {method} {path}: {error.code} {said}.") from None
    except OSError as error:
        raise ConnectionLostError(f"{where} does not answer: {error}. Check the management_url.") from error
    return json.loads(read) if read else None
