"""`RabbitMQTransport`: the contract's words for RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, ClassVar

from commons_events.errors import (
    ConfigurationError,
    InvalidTopicError,
    TransportError,
)
from commons_events.message import Message, PublishResult, Receipt
from commons_events.rabbitmq._connection import IO, Link
from commons_events.rabbitmq._errors import UnknownQueueError
from commons_events.rabbitmq._frames import Properties
from commons_events.rabbitmq._places import position_queue
from commons_events.rabbitmq._publisher import Publisher, Route
from commons_events.rabbitmq._queue import RabbitMQDelivery
from commons_events.rabbitmq._receiver import Source
from commons_events.rabbitmq._settings import LOGGER, RabbitMQSettings
from commons_events.rabbitmq._stream import RabbitMQStreamSubscription
from commons_events.rabbitmq._subscription import RabbitMQSubscription
from commons_events.rabbitmq._topology import (
    Step,
    Steps,
    group_queue,
    group_steps,
    place_steps,
    retry_queue,
    retry_steps,
    stream_steps,
)
from commons_events.runtime import current_runtime
from commons_events.transport import (
    CONTRACT_VERSION,
    Capabilities,
    ConnectedTransport,
    Settler,
    SubscribeRequest,
    TransportSettings,
    check_topic_name,
)

__all__ = ["RabbitMQTransport"]

_LONGEST_DELAY = 4_000_000
"""Seconds that RabbitMQ holds messages back at most: its queues count 32 bits of milliseconds."""
_TEMPORARY = 600_000
"""Milliseconds that the queue of a subscription without a group outlives a lost connection."""


class RabbitMQTransport(ConnectedTransport):
    """Connections to RabbitMQ: ``amqp://user:password@host:5672,other:5672/vhost?option=value``.

    A topic is an exchange of the type ``topic``, and a group's place in it a queue, ``TOPIC.GROUP``, that is bound to
    it. Both are durable, made on first use, and stay. Belongs to the event loop of its first use; pika runs in a thread
    of its own, with one connection for publishing and one for consuming.

    Args:
        url: the address; ``amqps://`` for TLS.
        options: settings, in the words of RabbitMQ's URIs and of AMQP.

    Raises:
        ConfigurationError: a setting is unknown or wrong; the message names the nearest right one.
    """

    name: ClassVar[str] = "rabbitmq"
    header_prefix: ClassVar[str] = "cloudEvents_"

    def __init__(self, url: str = "amqp://localhost", **options: object) -> None:
        self._open(TransportSettings(url=url, options=options))

    def _open(self, settings: TransportSettings) -> None:
        super()._open(settings)
        self.settings = RabbitMQSettings.of(settings)
        """What the connections are made from."""
        self._io: IO | None = None
        self._publishing: Link | None = None
        self._consuming: Link | None = None
        self._publisher: Publisher | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What holds on RabbitMQ with these settings."""
        settings = self.settings
        in_order = settings.single_active_consumer and not settings.retry_queues
        stream = settings.queue_type == "stream"  # one member of a group reads it: in order, and from its begin
        return Capabilities(
            contract=CONTRACT_VERSION,
            # Consumers that compete for a queue get a key's messages side by side; one that is alone, in order.
            ordering="key" if in_order or stream else "none",
            durability="broker" if settings.persistent else "process",
            consumer_groups=True,
            # A group's queue has what was published since it was made.
            new_group_start="earliest" if stream else "latest",
            redelivery=True,
            redelivery_delay=True,
            # A classic queue keeps no count; a quorum queue counts what was given back unseen, too.
            attempts="member",
            settles_each=not stream,
            publish_delay=True,
            pause=True,
            seek=stream,
            # A confirmation has no offset, so nobody could tell where a message of his lies.
            browse=False,
            # AMQP can make exchanges and queues, and list none: see `RabbitMQAdmin`.
            declare=False,
            transactions=False,
            binary_headers=True,
            repeated_headers=False,
            binary_keys=True,
            tombstones=True,
            # A queue with a limit drops or refuses, and never makes wait.
            back_pressure=False,
            max_message_bytes=settings.max_message_bytes,
        )

    def check_topic(self, topic: str) -> None:
        """RabbitMQ's rule: a name of at most 255 bytes of UTF-8 that does not start with ``amq.``."""
        check_topic_name(topic)
        size = len(topic.encode())
        if size > 255:
            raise InvalidTopicError(f"The topic name {topic[:40]!r}… has {size} bytes of UTF-8; RabbitMQ takes 255.")
        if topic.startswith("amq."):
            raise InvalidTopicError(f"RabbitMQ keeps names that start with 'amq.' for itself: {topic!r}. Take another.")

    # --- publishing ------------------------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishResult]]:
        """See `Transport.publish`. What no group would get is an `UnroutableError`, unless ``mandatory`` is off.

        A message's routing key is its CloudEvents type, so that other queues can be bound to some types alone.
        """
        return self._usable_publisher().publish(_stamped(messages), self.check_topic)

    def publish_delayed(self, messages: Sequence[Message], delay: float) -> asyncio.Future[Sequence[PublishResult]]:
        """See `Delaying`: by a queue whose messages expire into the topic, up to a 32nd of the delay later than asked.

        Confirmed once that queue has them. A group that is there by then gets them; with none they are kept by quorum
        queues, and lost by classic ones.
        """
        if not 0 <= delay <= _LONGEST_DELAY:
            raise ValueError(
                f"publish_delayed: delay is a number of seconds from 0 to {_LONGEST_DELAY:,}, not {delay!r}."
            )
        return self._usable_publisher().publish(_stamped(messages), self.check_topic, delay)

    def publish_one(
        self, message: Message, route: Route | None = None, timeout: float | None = None
    ) -> asyncio.Future[Receipt]:
        """As `publish`, for one message at the least cost; what is wrong with it raises.

        Args:
            message: what to publish.
            route: the exchange, routing key and properties; None for the topic's.
            timeout: seconds until it counts as failed, at least; None waits.
        """
        publisher = self._usable_publisher()
        return publisher.publish_one(message, route or publisher.topic_route(message), timeout)

    def _usable_publisher(self) -> Publisher:
        publisher = self._publisher
        if publisher is None or self._closing is not None or asyncio._get_running_loop() is not self._loop:
            io = self._usable_io()
            if self._publishing is None:
                self._publishing = Link(io, self.settings, "publishing")
            publisher = self._publisher = Publisher(io, self._publishing, self.settings)
        return publisher

    async def give_up(self, seconds: float | None) -> int:
        """Wait for what was published; returns how many were not confirmed within ``seconds``."""
        return 0 if self._publisher is None else await self._publisher.give_up(seconds)

    def retry(self, delivery: RabbitMQDelivery, delay: float) -> asyncio.Future[Receipt]:
        """Send a delivery to the queue that hands it back to its own after ``delay``, with the attempt counted."""
        name, milliseconds = retry_queue(delivery.state.name, delay)
        lasting = not delivery.state.subscription.temporary
        publisher = self._usable_publisher()
        return publisher.publish_again(
            delivery.message,
            Route("", name, True, Properties(True)),
            delivery.attempt,
            lambda: retry_steps(self.settings, name, delivery.state.name, milliseconds, lasting),
        )

    # --- receiving -------------------------------------------------------------------------------------------------

    async def subscribe(self, request: SubscribeRequest) -> RabbitMQSubscription | RabbitMQStreamSubscription:
        """See `Transport.subscribe`. Without a group the queue is one of its own, and goes with it.

        Raises:
            ConfigurationError: RabbitMQ takes no queue of the topic's and group's name, or no ``exclusive`` consumer.
            TopologyMismatchError: the topic or queue is there with other arguments.
            UnknownQueueError: with ``passive``, it is not there.
            ExclusiveQueueError: somebody has it for himself.
            ConnectionLostError: nobody answered within ``connection_timeout``.
            AuthorizationError: the user may not consume or declare it.
        """
        self._check_usable()
        if not request.topics:
            raise ConfigurationError("A subscription needs at least one topic.")
        for topic in request.topics:
            self.check_topic(topic)
        if self.settings.queue_type == "stream":
            for topic in request.topics:
                check_queue_name(position_queue(topic, request.group_id or ""))
            return await self._begin(RabbitMQStreamSubscription(self, request))
        if self.settings.exclusive and self.settings.queue_type == "quorum":
            raise ConfigurationError(
                "RabbitMQ setting exclusive has no effect on quorum queues, which groups have here: use "
                "single_active_consumer=True, with which the others stand by, or queue_type='classic'."
            )
        group = request.group_id
        expires = None if group is not None else _TEMPORARY
        name = group if group is not None else f"temporary-{current_runtime().new_id()}"
        sources = []
        for topic in request.topics:
            queue = group_queue(topic, name)
            check_queue_name(queue)
            sources.append(self._source(topic, queue, group_steps, (topic, queue, expires)))
        return await self._start(sources, request.max_unsettled, request.settler, temporary=group is None)

    async def read_stream(
        self,
        topic: str,
        offset: int | str | datetime,
        max_unsettled: int,
        settler: Settler | None,
        woken: Callable[[], object] | None,
    ) -> RabbitMQSubscription:
        """Read a topic that is a stream from an offset on, as AMQP's ``x-stream-offset`` has it."""
        source = Source(topic, topic, lambda: stream_steps(self.settings, topic), arguments={"x-stream-offset": offset})
        return await self._start([source], max_unsettled, settler, inner=True, woken=woken)

    async def hold_places(self, queues: Sequence[tuple[str, str]], lost: Callable[[], object]) -> RabbitMQSubscription:
        """Consume the queues that hold a group's places in streams, with their topics; the queues are the topics."""

        def made(topic: str, queue: str) -> Callable[[], Iterator[Step]]:
            return lambda: place_steps(self.settings, topic, queue)

        sources = [Source(queue, queue, made(topic, queue)) for topic, queue in queues]
        return await self._start(sources, 1_000_000, None, inner=True, lost=lost)

    def publish_to_queue(self, queue: str, value: bytes) -> asyncio.Future[Receipt]:
        """Put something into a queue, durably; also while the transport closes, for subscriptions that do."""
        publisher = self._publisher if self._publisher is not None else self._usable_publisher()
        return publisher.publish_one(Message(queue, value), Route("", queue, True, Properties(True)))

    async def consume(
        self, queues: Sequence[str], *, max_unsettled: int, settler: Settler | None = None
    ) -> RabbitMQSubscription:
        """Consume queues that are there, whatever is bound to them; their names stand for the topic.

        Raises:
            UnknownQueueError: one is not there.
            ExclusiveQueueError: somebody has it for himself.
            ConnectionLostError: nobody answered within ``connection_timeout``.
            AuthorizationError: the user may not read it.
        """
        self._check_usable()
        sources = [self._source(queue, queue, queue_is_there, (queue,)) for queue in queues]
        return await self._start(sources, max_unsettled, settler, temporary=False)

    def _source(self, topic: str, queue: str, steps: Any, arguments: tuple[Any, ...]) -> Source:
        settings = self.settings

        def made() -> Iterator[Step]:
            found: Iterator[Step] = steps(settings, *arguments)
            return found

        given: dict[str, Any] = {}
        if settings.stream_offset is not None:
            given["x-stream-offset"] = settings.stream_offset
        if settings.consumer_priority is not None:
            given["x-priority"] = settings.consumer_priority
        return Source(topic, queue, made, settings.exclusive, given)

    async def _start(
        self,
        sources: Sequence[Source],
        max_unsettled: int,
        settler: Settler | None,
        *,
        temporary: bool = False,
        inner: bool = False,
        woken: Callable[[], object] | None = None,
        lost: Callable[[], object] | None = None,
    ) -> RabbitMQSubscription:
        io = self._usable_io()
        if self._consuming is None:
            self._consuming = Link(io, self.settings, "consuming")
        subscription = RabbitMQSubscription(
            self,
            io,
            self._consuming,
            sources,
            prefetch=0 if lost is not None else min(self.settings.prefetch_count, max_unsettled, 65_535),
            max_unsettled=max_unsettled,
            temporary=temporary,
            settler=settler,
            woken=woken,
            lost=lost,
        )
        if not inner:
            return await self._begin(subscription)
        await subscription.start()
        return subscription

    async def delete_queues(self, queues: Sequence[str]) -> None:
        """Delete what a subscription without a group had; what cannot be deleted goes by itself later."""

        def steps() -> Iterator[Step]:
            for queue in queues:
                yield f"Deleting queue {queue!r}", lambda channel, done: channel.queue_delete(queue, callback=done)  # noqa: B023  # it runs before the next

        try:
            await self._do(steps())
        except TransportError as error:
            LOGGER.info("a temporary queue is left to expire: %s", error)

    async def look_at(self, queue: str) -> tuple[int, int]:
        """How many messages and active consumers a queue has; none where there is no such queue, or nobody to ask.

        What is in a stream counts some seconds late.
        """
        look: Step = (
            f"Looking for queue {queue!r}",
            lambda channel, done: channel.queue_declare(queue, passive=True, callback=done),
        )
        try:
            frame = await self._do(iter([look]))
        except UnknownQueueError:
            return 0, 0
        return (0, 0) if frame is None else (int(frame.method.message_count), int(frame.method.consumer_count))

    async def _do(self, steps: Iterator[Step]) -> Any:
        """Do something over the connection for consuming; what it brought, or None where the connection is down."""
        io, link = self._io, self._consuming
        if io is None or link is None:
            return None

        def begin(future: asyncio.Future[Any]) -> None:
            if link.connection is None:
                io.answer(future)
            else:
                Steps(link.connection, steps, lambda error, frame: done(error, frame, future))

        def done(error: TransportError | None, frame: Any, future: asyncio.Future[Any]) -> None:
            if error is not None:
                io.fail(future, error)
            else:
                io.answer(future, frame)

        return await io.ask(begin)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """See `Transport.flush`."""
        if self._publisher is not None:
            await self._publisher.flush()

    async def _disconnect(self) -> None:
        if self._publisher is not None:
            await self._publisher.close()
        if self._io is not None:
            for link in (self._publishing, self._consuming):
                if link is not None:
                    await self._io.ask(link.close)
            await self._io.stop()

    def _usable_io(self) -> IO:
        loop = self._check_usable()
        if self._io is None:
            self._io = IO(loop)
        return self._io


def _stamped(messages: Sequence[Message]) -> Sequence[Message]:
    """With a timestamp each: RabbitMQ itself stamps nothing."""
    if all(message.timestamp is not None for message in messages):
        return messages
    now = current_runtime().now()
    return [m if m.timestamp is not None else m._replace(timestamp=now) for m in messages]


def check_queue_name(queue: str) -> None:
    """Raise `ConfigurationError` where RabbitMQ takes no queue of this name."""
    if len(queue.encode()) > 255:
        raise ConfigurationError(
            f"The queue {queue[:60]!r}… of topic and group has over the 255 bytes that RabbitMQ takes. Shorten the "
            "topic or the group_id."
        )


def queue_is_there(settings: RabbitMQSettings, queue: str) -> Iterator[Step]:
    """Look for a queue, so that one that is not there is an error of its own."""
    del settings
    yield (
        f"Consuming queue {queue!r}",
        lambda channel, done: channel.queue_declare(queue, passive=True, callback=done),
    )
