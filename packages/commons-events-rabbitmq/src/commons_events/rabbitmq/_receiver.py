"""The receiving side of a subscription in the I/O thread: a channel that comes again, its consumers, what arrives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from pika import exceptions as pika
from pika.channel import Channel
from pika.spec import BasicProperties

from commons_events.errors import AuthorizationError, ClosedError, ConnectionLostError, TransportError
from commons_events.rabbitmq._connection import IO, Link, close_channel
from commons_events.rabbitmq._errors import TopologyMismatchError, UnknownQueueError, channel_error
from commons_events.rabbitmq._frames import short
from commons_events.rabbitmq._reading import Arrived, FastConnection, Taker
from commons_events.rabbitmq._settings import LOGGER
from commons_events.rabbitmq._topology import Step, Steps
from commons_events.transport import OffsetTracker

__all__ = ["Lost", "Owner", "Receiver", "Source", "Told"]

_TRIES = 40
"""How often a subscription that was there is taken up again, every half a second, where RabbitMQ refuses."""
_FINAL = (UnknownQueueError, TopologyMismatchError, AuthorizationError)
"""What does not pass by itself."""


@dataclass(frozen=True)
class Source:
    """A queue that is consumed.

    Args:
        topic: what its messages are of.
        queue: its name.
        steps: makes what is done before: declaring, or looking whether it is there.
        exclusive: whether nobody else may consume it.
        arguments: of the consumer, such as ``x-priority``.
        resume: see below.
    """

    topic: str
    queue: str
    steps: Callable[[], Iterator[Step]]
    exclusive: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    resume: list[int] = field(default_factory=list)
    """Where a stream goes on that was read before: the first offset that is not finished."""


class Lost(NamedTuple):
    """The channel is gone, and all that came over it comes again; stands where the channel ended."""

    epoch: int


class Told(NamedTuple):
    """What the event loop says of a delivery that it does not acknowledge."""

    tag: int
    requeue: bool


class Owner(Protocol):
    """Who gets what arrives."""

    def on_arrival(self) -> None:
        """In the event loop: there is something in `Receiver.arrived`."""
        ...


class Receiver:
    """One channel of a subscription, and another one where it is lost. Methods with "on" belong to the I/O thread."""

    def __init__(self, io: IO, link: Link, sources: Sequence[Source], prefetch: int, owner: Owner) -> None:
        self._io = io
        self._link = link
        self._sources = sources
        self._prefetch = prefetch
        self._owner = owner
        self.arrived: deque[Arrived | Lost | TransportError] = deque()
        """What came, for the event loop to take."""
        self.epoch = 1
        """The channel that messages come over now; the event loop counts `Lost` itself."""
        self._settlements: deque[int | Told | Lost] = deque()
        """What the event loop says: a tag that is finished, something else, or that it counts another epoch now."""
        self._settling = False
        self._arriving = False
        # Of the I/O thread from here on.
        self._told_epoch = 1
        self._taker: Taker | None = None
        self._channel: Channel | None = None
        self._starting: asyncio.Future[Any] | None = None
        self._to_consume = 0
        self._tries = 0
        self._acked = OffsetTracker(1)
        self._unflushed = False
        self._dropped = False
        """Whether outcomes were lost with a channel since the last flush."""
        self._flushing: list[asyncio.Future[Any]] = []
        self._closing: asyncio.Future[Any] | None = None
        self._ended = False

    # --- from the event loop -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Consume, and return once RabbitMQ has confirmed it."""

        def start(future: asyncio.Future[Any]) -> None:
            self._starting = future
            self._link.use(self)

        await self._io.ask(start)

    def settle(self, told: int | Told | Lost) -> None:
        """Say what became of a delivery, or that what follows is of another epoch; it is on its way then."""
        self._settlements.append(told)
        if not self._settling:
            self._settling = True
            self._io.call(self._on_settlements)

    async def flush(self) -> None:
        """Return once RabbitMQ has every outcome.

        Raises:
            ConnectionLostError: some were lost with the connection; their messages come again.
        """
        await self._io.ask(self._on_flush)

    async def close(self, *, settle: bool = True) -> None:
        """Close the channel, which gives back what is unsettled; without ``settle`` also what was settled just now."""
        await self._io.ask(lambda future: self._on_end(future, settle))

    def abandon(self) -> None:
        """End, whatever is under way, without waiting: nobody takes what would arrive."""
        nobody = self._io.loop.create_future()
        self._io.call(lambda: self._on_end(nobody, settle=False))

    def take(self) -> None:
        """The event loop has heard that something arrived."""
        self._arriving = False

    def again(self) -> None:
        """Connect again, where that was given up."""
        self._io.call(self._on_again)

    # --- arriving ----------------------------------------------------------------------------------------------------

    def _arrive(self, what: Arrived | Lost | TransportError) -> None:
        self.arrived.append(what)
        self._tell()

    def _tell(self) -> None:
        if not self._arriving:
            self._arriving = True
            self._io.tell(self._owner.on_arrival)

    def on_up(self, connection: FastConnection) -> None:
        """See `User`."""
        if not self._ended:
            self._prepare(connection)

    def _prepare(self, connection: FastConnection) -> None:
        def steps() -> Iterator[Step]:
            for source in self._sources:
                yield from source.steps()

        Steps(connection, steps(), lambda error, _: self._prepared(connection, error))

    def _prepared(self, connection: FastConnection, error: TransportError | None) -> None:
        if self._ended or self._channel is not None or connection is not self._link.connection:
            return  # or it was asked for twice: by the connection that came, and by who received meanwhile
        if error is not None:
            self._refused(error)
            return
        try:
            self._channel = connection.channel(on_open_callback=self._on_channel)
            self._channel.add_on_close_callback(self._on_channel_closed)
        except pika.AMQPError as raised:
            LOGGER.debug("no channel: %s", raised)

    def _on_channel(self, channel: Channel) -> None:
        if not channel.is_open:  # it was closed meanwhile, and so it is below
            return
        self._acked = OffsetTracker(1)
        channel.add_on_cancel_callback(lambda frame: self._on_cancelled(channel, frame))
        channel.basic_qos(prefetch_count=self._prefetch, callback=lambda _: self._consume(channel))

    def _consume(self, channel: Channel) -> None:
        if not channel.is_open:
            return
        self._to_consume = len(self._sources)
        connection = self._link.connection
        assert connection is not None
        self._taker = taker = Taker({}, self.arrived, self._tell)
        connection.takers[channel.channel_number] = taker
        for place, source in enumerate(self._sources):
            tag = channel.basic_consume(
                source.queue,
                self._taker_of(place),
                exclusive=source.exclusive,
                arguments={**source.arguments, **({"x-stream-offset": source.resume[-1]} if source.resume else {})},
                callback=lambda _: self._on_consuming(),
            )
            taker.places[tag.encode()] = place

    def _on_consuming(self) -> None:
        self._to_consume -= 1
        if not self._to_consume:
            self._tries = 0
            starting, self._starting = self._starting, None
            if starting is not None:
                self._io.answer(starting)

    def _taker_of(self, place: int) -> Callable[[Channel, Any, BasicProperties, bytes], None]:
        """What pika calls for messages that came in parts."""

        def take(_: Channel, method: Any, properties: BasicProperties, body: bytes) -> None:
            route = short(method.exchange) + short(method.routing_key)
            self._arrive(Arrived(place, method.delivery_tag, method.redelivered, route, properties, body))

        return take

    # --- settling ----------------------------------------------------------------------------------------------------

    def _on_settlements(self) -> None:
        """Acknowledge all that was finished, by as few words as possible."""
        self._settling = False
        settlements, channel = self._settlements, self._channel
        open_ = self._told_epoch == self.epoch and channel is not None and channel.is_open
        acked: list[int] = []
        while settlements:
            told = settlements.popleft()
            if isinstance(told, Lost):
                self._told_epoch = told.epoch
                open_ = told.epoch == self.epoch and channel is not None and channel.is_open
            elif not open_ or channel is None:
                self._dropped = True
            elif isinstance(told, int):
                acked.append(told)
            else:
                self._acked.finish(told.tag)
                self._unflushed = True
                channel.basic_reject(told.tag, requeue=told.requeue)
        if not acked or channel is None:
            return
        self._unflushed = True
        tracker = self._acked
        acked.sort()
        last = acked[-1]
        if not tracker.held_back and acked[0] == tracker.committed and last - acked[0] + 1 == len(acked):
            tracker.committed = last + 1  # mostly all so far, in one
            channel.basic_ack(last, multiple=True)
            return
        for tag in acked:
            tracker.finish(tag)
        prefix = 0
        for tag in acked:
            if tag >= tracker.committed:
                channel.basic_ack(tag)
            else:
                prefix = tag
        if prefix:
            channel.basic_ack(prefix, multiple=True)

    def _on_flush(self, future: asyncio.Future[Any]) -> None:
        self._on_settlements()
        channel = self._channel
        if self._dropped:
            self._dropped = False
            self._io.fail(future, _lost_outcomes())
        elif channel is None or not channel.is_open or not self._unflushed:
            self._io.answer(future)
        else:
            self._unflushed = False
            self._flushing.append(future)
            # Its answer comes behind all that went over the channel before.
            channel.basic_qos(prefetch_count=self._prefetch, callback=lambda _: self._flushed(future))

    def _flushed(self, future: asyncio.Future[Any]) -> None:
        if future in self._flushing:
            self._flushing.remove(future)
            self._io.answer(future)

    # --- channels that end -------------------------------------------------------------------------------------------

    def _on_channel_closed(self, channel: Channel, error: BaseException) -> None:
        connection = self._link.connection
        taker = self._taker
        if connection is not None and taker and connection.takers.get(channel.channel_number) is taker:
            del connection.takers[channel.channel_number]
        if channel is not self._channel:
            return
        self._channel = None
        if self._ended or self._link.ended:
            closing, self._closing = self._closing, None
            self._fail_flushing()
            if closing is not None:
                self._io.answer(closing)
            return
        self._forget()
        if isinstance(error, (pika.ChannelClosedByBroker, pika.ChannelClosedByClient)):
            doing = "Consuming " + ", ".join(f"queue {source.queue!r}" for source in self._sources)
            self._refused(channel_error(error, doing))

    def _forget(self) -> None:
        self._dropped = self._dropped or self._unflushed
        self._unflushed = False
        self._fail_flushing()
        self.arrived.clear()
        self.epoch += 1
        self._arrive(Lost(self.epoch))

    def _fail_flushing(self) -> None:
        flushing, self._flushing = self._flushing, []
        for future in flushing:
            self._io.fail(future, _lost_outcomes())

    def _on_cancelled(self, channel: Channel, frame: Any) -> None:
        """RabbitMQ has ended a consumer, mostly since its queue was deleted."""
        LOGGER.warning("RabbitMQ cancelled a consumer (%s); taking it up again", frame.method.consumer_tag)
        close_channel(channel)

    def _refused(self, error: TransportError) -> None:
        """RabbitMQ did not let us consume: say so, or try again where we did before."""
        starting, self._starting = self._starting, None
        if starting is not None:
            self._link.leave(self)
            self._ended = True
            self._io.fail(starting, error)
            return
        self._tries += 1
        if isinstance(error, _FINAL) or self._tries > _TRIES:
            self._arrive(error)
            return
        LOGGER.warning("consuming is taken up again: %s", error)
        self._io.later(0.0 if self._tries == 1 else 0.5, self._on_again)

    def _on_again(self) -> None:
        if self._ended or self._channel is not None:
            return
        if self._link.connection is not None:
            self._prepare(self._link.connection)
        else:
            self._link.want()

    def on_down(self, error: TransportError) -> None:
        """See `User`."""
        if self._channel is not None:
            self._channel = None
            self._forget()

    def on_failed(self, error: TransportError) -> None:
        """See `User`."""
        starting, self._starting = self._starting, None
        if starting is not None:
            self._link.leave(self)
            self._ended = True
            self._io.fail(starting, error)
        else:
            self._arrive(error)

    def on_blocked(self, reason: str | None) -> None:
        """See `User`: consumers are never blocked."""

    def _on_end(self, future: asyncio.Future[Any], settle: bool) -> None:
        if settle:
            self._on_settlements()
        self._ended = True
        self._link.leave(self)
        starting, self._starting = self._starting, None
        if starting is not None:
            self._io.fail(starting, ClosedError("It was closed before RabbitMQ had confirmed the subscription."))
        channel = self._channel
        if channel is None or channel.is_closed:
            self._channel = None
            self._io.answer(future)
            return
        self._closing = future
        if not channel.is_closing:
            try:
                channel.close()
            except pika.AMQPError:
                self._channel, self._closing = None, None
                self._io.answer(future)
                return
        self._io.later(5.0, lambda: self._give_up_closing(future))  # a frozen server never says goodbye

    def _give_up_closing(self, future: asyncio.Future[Any]) -> None:
        if self._closing is future:
            self._closing = self._channel = None
            self._io.answer(future)


def _lost_outcomes() -> ConnectionLostError:
    return ConnectionLostError(
        "The connection to RabbitMQ broke before it had every acknowledgement; those messages are delivered again."
    )
