"""`RabbitMQAdmin`: exchanges, queues, bindings and policies as code, and how the server's differ."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from commons_events.config import ClientConfig
from commons_events.errors import ClosedError, ConfigurationError, TransportError
from commons_events.rabbitmq._connection import IO, Link
from commons_events.rabbitmq._declared import Difference, Policy, Topology, compare, declarations
from commons_events.rabbitmq._errors import TopologyMismatchError
from commons_events.rabbitmq._keywords import rabbitmq_config
from commons_events.rabbitmq._management import call, quoted
from commons_events.rabbitmq._settings import RabbitMQSettings
from commons_events.rabbitmq._topology import Step, Steps
from commons_events.transport import TransportSettings

__all__ = ["QueueInfo", "RabbitMQAdmin"]


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
        if management_url is not None and not management_url.startswith(("http://", "https://")):
            raise ConfigurationError(
                "RabbitMQAdmin: management_url is http://USER:PASSWORD@HOST:15672, or https://; this is neither."
            )
        self._management = management_url
        self._io: IO | None = None
        self._link: Link | None = None
        self._closed = False
        self._closing: asyncio.Future[None] | None = None

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
            ConfigurationError: there are policies, and no ``management_url``; or RabbitMQ has no such thing: an
                argument, a type or a name that it does not take. What follows it is not declared.
        """
        if topology.policies and not passive and self._management is None:
            raise ConfigurationError("RabbitMQAdmin: policies are set by the management API; give its management_url.")
        mismatches: list[TopologyMismatchError] = []
        for steps in declarations(topology, passive):
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
            there = await self._ask(f"exchanges/{self._vhost}/{quoted(exchange.name)}")
            asked = {
                "type": exchange.type,
                "durable": exchange.durable,
                "auto_delete": exchange.auto_delete,
                "internal": exchange.internal,
            }
            found += compare(f"exchange {exchange.name!r}", there, asked, exchange.arguments)
        for queue in topology.queues:
            there = await self._ask(f"queues/{self._vhost}/{quoted(queue.name)}")
            asked = {"durable": queue.durable, "auto_delete": queue.auto_delete, "exclusive": queue.exclusive}
            if there is not None and "x-queue-type" not in there["arguments"]:
                there["arguments"]["x-queue-type"] = there.get("type", "classic")
            found += compare(f"queue {queue.name!r}", there, asked, queue.all_arguments)
        for binding in topology.bindings:
            kind, target = ("q", binding.queue) if binding.queue is not None else ("e", binding.to_exchange)
            path = f"bindings/{self._vhost}/e/{quoted(binding.exchange)}/{kind}/{quoted(target or '')}"
            listed = await self._ask(path) or []
            if not any(
                one["routing_key"] == binding.routing_key and one["arguments"] == dict(binding.arguments)
                for one in listed
            ):
                what = f"binding of {target!r} to exchange {binding.exchange!r} by routing key {binding.routing_key!r}"
                found.append(Difference(what, None, None, binding))
        for policy in topology.policies:
            there = await self._ask(f"policies/{self._vhost}/{quoted(policy.name)}")
            asked = {"pattern": policy.pattern, "apply-to": policy.apply_to, "priority": policy.priority}
            if there is not None:
                there["arguments"] = there["definition"]
            found += compare(f"policy {policy.name!r}", there, asked, policy.definition)
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
        """Disconnect; harmless twice, and goes on where its caller is cancelled."""
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._disconnect())
        await asyncio.shield(self._closing)

    async def _disconnect(self) -> None:
        if self._io is not None:
            if self._link is not None:
                await self._io.ask(self._link.close)
            await self._io.stop()

    # --- how ---------------------------------------------------------------------------------------------------------

    @property
    def _vhost(self) -> str:
        return quoted(self._settings.vhost)

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
            found = [str(difference) for difference in await self.diff(topology) if difference.setting is not None]
            words = (found or words) + [
                "Nothing of this was changed: ask for what is there, or delete it (its messages go too) and declare it "
                "anew; arguments that a policy can set, set by a policy."
            ]
        return "\n".join(["What is there was declared otherwise:", *words])

    async def _set(self, policy: Policy) -> None:
        body = {
            "pattern": policy.pattern,
            "definition": dict(policy.definition),
            "apply-to": policy.apply_to,
            "priority": policy.priority,
        }
        await self._ask(f"policies/{self._vhost}/{quoted(policy.name)}", method="PUT", body=body)

    async def _ask(self, path: str, *, method: str = "GET", body: Mapping[str, Any] | None = None) -> Any:
        if self._management is None:
            raise ConfigurationError(
                "RabbitMQAdmin: AMQP itself lists nothing; give the management_url (http://user:password@host:15672)."
            )
        return await asyncio.to_thread(call, self._management, method, path, body)


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
