"""The sending half of `Publisher`, in the I/O thread: what may be in flight, its confirmations, and what is sent again.

It writes as many messages as may be in flight, in one piece, and hands confirmations back, one hop for all that came
meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, NamedTuple

from pika import exceptions as pika
from pika.channel import Channel
from pika.spec import Basic, BasicProperties

from commons_events.errors import (
    AuthorizationError,
    ConnectionLostError,
    MessageTooLargeError,
    PublishTimeoutError,
    TopicFullError,
    TransportError,
)
from commons_events.message import PublishResult, Receipt
from commons_events.rabbitmq._connection import IO, Link, close_channel
from commons_events.rabbitmq._errors import (
    NotYetRoutableError,
    RefusedSettingError,
    UnknownExchangeError,
    UnroutableError,
    channel_error,
    forbidden_key,
    name_of_exchange,
)
from commons_events.rabbitmq._frames import Properties, content, publish_method
from commons_events.rabbitmq._reading import FastConnection
from commons_events.rabbitmq._settings import LOGGER, RabbitMQSettings
from commons_events.rabbitmq._topology import KEPT, Step, Steps, delay_steps, topic_steps

__all__ = ["Batch", "Item", "Route", "Sender"]

_MOST_BYTES = 64 * 1024 * 1024
"""Bytes that may be in flight."""
_PIECE = 256 * 1024
"""Bytes that are given to the socket at once."""
_CAREFUL, _PATIENCE = 3, 6
"""How often in a row the channel may break, without any confirmation, before messages are sent one by one; and before
the one that is alone in flight is blamed."""
_COMING_BACK = 10.0
"""Seconds after a connection was made anew in which a server that was started again may miss some of its queues."""


class Route(NamedTuple):
    """Where a message goes, and how."""

    exchange: str
    routing_key: str
    mandatory: bool = True
    properties: Properties = Properties()
    declare: bool = False
    """Whether the exchange is a topic, which is made on first use."""
    delayed: tuple[str, int] | None = None
    """The topic that the exchange holds messages back from, and for how many milliseconds."""


class Batch:
    """Results of the messages of one `Publisher.publish`, each in its place."""

    __slots__ = ("future", "left", "results", "single")

    def __init__(self, future: asyncio.Future[Any], count: int, single: bool = False) -> None:
        self.future = future
        self.left = count
        self.results: list[Any] = [None] * count
        self.single = single
        """Whether the future is of the one message's receipt, and raises."""


class Item:
    """A message that is on its way, in the form that it is sent in, and sent again."""

    __slots__ = ("batch", "body", "place", "properties", "receipt", "returned", "route")

    def __init__(
        self, batch: Batch, place: int, receipt: Receipt, route: Route, properties: tuple[int, bytes], body: bytes
    ) -> None:
        self.batch = batch
        self.place = place
        self.receipt = receipt
        self.route = route
        self.properties = properties
        self.body = body
        self.returned: str | None = None
        """Why RabbitMQ returned it."""


class Sender:
    """What is handed over goes out over one channel, and over another one where that is lost.

    Methods without "on" or an underscore are called in the event loop.

    Args:
        io: the thread.
        link: the connection.
        settings: the transport's.
        report: called in the event loop where there is something in ``completed``.
    """

    def __init__(self, io: IO, link: Link, settings: RabbitMQSettings, report: Callable[[], object]) -> None:
        self._io = io
        self._link = link
        self._settings = settings
        self._report = report
        self.completed: deque[Batch] = deque()
        """Whose results are all there."""
        self._completing = False
        self._outbox: deque[list[Item]] = deque()
        self._told = False
        self.limit = settings.max_message_bytes
        """Bytes of a message; RabbitMQ's own limit, once it has refused one."""
        # Of the I/O thread from here on.
        self._joined = False
        self._channel: Channel | None = None
        self._ready = False
        self._blocked = False
        self._window = settings.max_in_flight
        self._tag = 0
        self._lowest = 1
        self._unconfirmed: dict[int, Item] = {}
        self._bytes = 0
        self._waiting: deque[Item] = deque()
        self._beginning: list[Callable[[], None]] = []
        """What waits for the first connection, or for word that there is none."""
        self._known: set[str] = {""}
        self._held: dict[str, deque[Item]] = {}
        """What waits until its exchange is known to be there."""
        self._return_from = 0
        self._strikes = 0
        self._alone: Item | None = None
        """What was alone in flight when the channel broke."""
        self._ups, self._up_at = 0, 0.0
        """How often a connection was made, and when the last time."""
        self._methods: dict[Route, bytes] = {}

    # --- from the event loop -----------------------------------------------------------------------------------------

    def send(self, items: list[Item]) -> None:
        """Send these, in order; their batches end in ``completed``."""
        self._outbox.append(items)
        if not self._told:
            self._told = True
            self._io.call(self._on_told)

    def send_after(self, item: Item, steps: Callable[[], Iterator[Step]]) -> None:
        """Send a message after ``steps`` have made where it goes."""

        def begin() -> None:
            connection = self._link.connection
            if connection is None:  # sent without: it comes back, and is kept where it was
                self._finish(item, ConnectionLostError("The connection for publishing is down."))
            else:
                Steps(connection, steps(), lambda error, _: go(error))

        def go(error: TransportError | None) -> None:
            if error is not None:
                self._finish(item, error)
            else:
                self._waiting.append(item)
                self._pump()

        self._io.call(lambda: self._join_then(begin))

    def take(self) -> None:
        """The event loop has heard that something is completed."""
        self._completing = False

    async def leave(self) -> None:
        """Close the channel."""

        def leave(future: asyncio.Future[Any]) -> None:
            self._link.leave(self)
            channel, self._channel = self._channel, None
            close_channel(channel)
            self._io.answer(future)

        await self._io.ask(leave)

    # --- the I/O thread: sending -------------------------------------------------------------------------------------

    def _join_then(self, begin: Callable[[], None]) -> None:
        if self._joined and self._link.connection is not None:
            begin()
            return
        if self._ups:
            self._io.later(0.2, begin)  # it may be back by then
        else:
            self._beginning.append(begin)
        self._on_told()

    def _on_told(self) -> None:
        self._told = False
        outbox, waiting = self._outbox, self._waiting
        while outbox:
            waiting.extend(outbox.popleft())
        if not self._joined:
            self._joined = True
            self._link.use(self)
        elif self._link.connection is None:
            self._link.want()
        self._pump()

    def _pump(self) -> None:
        """Write what may be in flight, in large pieces."""
        channel = self._channel
        if channel is None or not channel.is_open or not self._ready or self._blocked or not self._waiting:
            return
        connection: Any = self._link.connection
        waiting, unconfirmed, known, methods = self._waiting, self._unconfirmed, self._known, self._methods
        number: int = channel.channel_number
        most: int = connection._body_max_length
        parts: list[bytes] = []
        size = 0
        while waiting and len(unconfirmed) < self._window and (self._bytes < _MOST_BYTES or not unconfirmed):
            item = waiting.popleft()
            if item.batch.future.done():
                self._finish(item, PublishTimeoutError("nobody waits for it any more"))  # it was given up before
                continue
            route = item.route
            if route.exchange not in known:
                self._hold(item)
                continue
            method = methods.get(route)
            if method is None:
                if len(methods) > 1_000:
                    methods.clear()
                method = methods[route] = publish_method(number, route.exchange, route.routing_key, route.mandatory)
            body = item.body
            self._tag += 1
            unconfirmed[self._tag] = item
            piece = content(number, item.properties, body, most)
            parts += (method, piece)
            self._bytes += len(body)
            size += len(piece)
            if size > _PIECE:
                connection._output_marshaled_frames([b"".join(parts)])
                parts, size = [], 0
        if parts:
            connection._output_marshaled_frames([b"".join(parts)])

    def _hold(self, item: Item) -> None:
        """Keep a message until its exchange was found; AMQP closes the channel over one that is not there."""
        exchange = item.route.exchange
        held = self._held.get(exchange)
        if held is not None:
            held.append(item)
            return
        self._held[exchange] = deque([item])
        connection = self._link.connection
        assert connection is not None
        doing = f"Publishing to exchange {exchange!r}"
        look: Step = (
            doing,
            lambda channel, done: channel.exchange_declare(exchange, passive=True, callback=done),
        )
        delayed = item.route.delayed
        if delayed is not None:
            steps = delay_steps(self._settings, exchange, *delayed)
        else:
            steps = topic_steps(self._settings, exchange) if item.route.declare else iter([look])
        Steps(connection, steps, lambda error, _: self._on_looked(exchange, error, delayed is not None))

    def _on_looked(self, exchange: str, error: TransportError | None, delayed: bool) -> None:
        held = self._held.get(exchange)
        if held is None:
            return
        if isinstance(error, ConnectionLostError):
            if self._link.connection is not None:  # else `on_down` has put it back
                del self._held[exchange]
                self._waiting.extendleft(reversed(held))
                self._io.later(0.5, self._pump)
            return
        if isinstance(error, AuthorizationError):
            error = None  # who may publish need not be allowed to look or declare: RabbitMQ will say
        del self._held[exchange]
        if error is not None:
            for item in held:
                self._finish(item, error)
        else:
            self._known.add(exchange)
            if delayed:  # publishing keeps no classic queue from its end: it is declared again, in time
                self._io.later(KEPT / 2000, lambda: self._known.discard(exchange))
            self._waiting.extendleft(reversed(held))
            self._pump()

    # --- the I/O thread: confirmations -------------------------------------------------------------------------------

    def _on_confirm(self, frame: Any) -> None:
        """What pika calls; see `FastConnection` for the short way."""
        method = frame.method
        self._confirm(method.delivery_tag, method.multiple, isinstance(method, Basic.Ack))

    def _confirm(self, tag: int, multiple: bool, taken: bool) -> None:
        unconfirmed = self._unconfirmed
        self._strikes = 0
        if not multiple:
            item = unconfirmed.pop(tag, None)
            if item is not None:
                self._confirmed(item, taken)
        else:
            for each in range(self._lowest, tag + 1):
                item = unconfirmed.pop(each, None)
                if item is not None:
                    self._confirmed(item, taken)
            self._lowest = tag + 1
        if self._window == 1 and not unconfirmed:
            self._window = self._settings.max_in_flight
        if self._waiting:
            self._pump()

    def _confirmed(self, item: Item, taken: bool) -> None:
        self._bytes -= len(item.body)
        if item.returned is not None:
            route = item.route
            anew = self._ups > 1 and monotonic() < self._up_at + _COMING_BACK
            error = NotYetRoutableError if anew else UnroutableError
            self._finish(
                item,
                error(
                    f"RabbitMQ returned a message for exchange {route.exchange!r} with routing key "
                    f"{route.routing_key!r}: {item.returned!r}. No queue is bound that takes it. Bind one, start a "
                    "consumer of the topic first (its group's queue stays), or send with mandatory=False to drop it."
                ),
            )
        elif taken:
            self._finish(item, item.receipt)
        else:
            self._finish(
                item,
                TopicFullError(
                    f"RabbitMQ refused a message for {item.receipt.topic!r} (basic.nack): a queue is at its limit with "
                    "overflow=reject-publish, or could not store it. Send it again later."
                ),
            )

    def _on_return(self, _: object, method: Basic.Return, properties: BasicProperties, __: bytes) -> None:
        """A message that no queue takes. It comes back before its confirmation, and in order."""
        unconfirmed = self._unconfirmed
        for tag in range(max(self._return_from, self._lowest), self._tag + 1):
            item = unconfirmed.get(tag)
            if item is not None and item.receipt.id == properties.message_id:
                item.returned = f"{method.reply_code} {method.reply_text}"
                self._return_from = tag + 1
                return
        LOGGER.error("RabbitMQ returned a message that is not in flight: %r", method)

    def _finish(self, item: Item, result: PublishResult) -> None:
        batch = item.batch
        batch.results[item.place] = result
        batch.left -= 1
        if not batch.left:
            self.completed.append(batch)
            if not self._completing:
                self._completing = True
                self._io.tell(self._report)

    # --- the I/O thread: connections that come and go ----------------------------------------------------------------

    def on_up(self, connection: FastConnection) -> None:
        """See `User`."""
        self._ups, self._up_at = self._ups + 1, monotonic()
        self._open_channel(connection)
        self._begin()

    def _open_channel(self, connection: FastConnection) -> None:
        self._ready = False
        self._methods.clear()
        try:
            self._channel = connection.channel(on_open_callback=self._on_channel)
            self._channel.add_on_close_callback(self._on_channel_closed)
        except pika.AMQPError as error:
            LOGGER.debug("no channel: %s", error)

    def _on_channel(self, channel: Channel) -> None:
        if not channel.is_open:
            return
        channel.add_on_return_callback(self._on_return)
        if self._link.connection is not None:
            self._link.connection.confirmed[channel.channel_number] = self._confirm
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._on_ready())

    def _on_ready(self) -> None:
        self._ready = True
        self._pump()

    def _take_back(self) -> None:
        """What is not confirmed is to be sent again, in its order and before anything else."""
        again = [*self._unconfirmed.values(), *(item for held in self._held.values() for item in held)]
        for item in again:
            item.returned = None
        self._waiting.extendleft(reversed(again))
        if self._unconfirmed:
            self._strikes += 1
        self._unconfirmed.clear()
        self._held.clear()
        self._bytes = 0
        self._tag, self._lowest, self._return_from = 0, 1, 0

    def _on_channel_closed(self, channel: Channel, error: BaseException) -> None:
        if self._link.connection is not None:
            self._link.connection.confirmed.pop(channel.channel_number, None)
        if channel is not self._channel:
            return
        alone = next(iter(self._unconfirmed.values())) if len(self._unconfirmed) == 1 else None
        self._channel, self._ready = None, False
        self._take_back()
        self._alone = alone
        if not isinstance(error, pika.ChannelClosedByBroker):
            return  # the connection goes too
        reason = channel_error(error, "Publishing")
        LOGGER.warning("RabbitMQ closed the channel of what was published, opening another: %s", reason)
        self._blame(reason, error.reply_text, alone)
        if self._link.connection is not None:
            self._open_channel(self._link.connection)

    def _blame(self, reason: TransportError, said: str, alone: Item | None) -> None:
        """Fail what RabbitMQ's words are about, so that the rest goes on."""
        guilty: Callable[[Item], bool] | None = None
        exchange = name_of_exchange(said)
        if isinstance(reason, UnknownExchangeError) and exchange is not None:
            self._known.discard(exchange)  # it is looked for again; a topic is made again
        elif isinstance(reason, (AuthorizationError, RefusedSettingError)) and exchange is not None:
            key = forbidden_key(said)
            guilty = lambda item: item.route.exchange == exchange and key in (None, item.route.routing_key)  # noqa: E731
        elif isinstance(reason, MessageTooLargeError):
            numbers = [int(word) for word in said.replace("'", " ").split() if word.isdigit()]
            least = min(numbers, default=0)
            self.limit = min(self.limit, least) or self.limit
            guilty = lambda item: len(item.body) > least  # noqa: E731
        if guilty is None and self._strikes >= _PATIENCE and alone is not None:
            guilty = lambda item: item is alone  # noqa: E731
        if guilty is not None:
            for item in [item for item in self._waiting if guilty(item)]:
                self._waiting.remove(item)
                self._finish(item, reason)
        elif self._strikes >= _CAREFUL:
            self._window = 1

    def on_down(self, error: TransportError) -> None:
        """See `User`: everything that is not confirmed waits, and is sent again."""
        self._channel, self._ready, self._blocked = None, False, False
        self._take_back()
        alone, self._alone = self._alone, None
        if self._strikes >= _PATIENCE and alone is not None and alone in self._waiting:
            self._waiting.remove(alone)
            self._finish(alone, error)
        elif self._strikes >= _CAREFUL:
            self._window = 1

    def on_failed(self, error: TransportError) -> None:
        """See `User`."""
        self._take_back()
        waiting, self._waiting = self._waiting, deque()
        for item in waiting:
            self._finish(item, error)
        self._begin()

    def _begin(self) -> None:
        beginning, self._beginning = self._beginning, []
        for begin in beginning:
            begin()

    def on_blocked(self, reason: str | None) -> None:
        """See `User`."""
        self._blocked = reason is not None
        self._pump()
