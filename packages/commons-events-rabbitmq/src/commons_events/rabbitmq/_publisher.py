"""Producing: messages over one channel in confirm mode, thousands in flight, and sent again where a connection broke.

This is the event loop's half, which encodes messages and lines them up; `Sender` is the I/O thread's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from commons_events.errors import (
    ClosedError,
    InvalidTopicError,
    MessageTooLargeError,
    PublishError,
    PublishTimeoutError,
    TopicFullError,
)
from commons_events.message import Message, PublishResult, Receipt
from commons_events.rabbitmq._connection import IO, Link
from commons_events.rabbitmq._frames import (
    Properties,
    encode_properties,
    header_size,
)
from commons_events.rabbitmq._sender import Batch, Item, Route, Sender
from commons_events.rabbitmq._settings import RabbitMQSettings
from commons_events.rabbitmq._topology import Step, delay_exchange
from commons_events.runtime import current_runtime

__all__ = ["Publisher", "Route"]

Confirmation = asyncio.Future[Sequence[PublishResult]]

_MOST_WAITING = 200_000
"""Messages that are handed over and not confirmed, beyond which more are refused."""
_TYPE = "cloudEvents_type"
_SWEEP = 5.0
"""Seconds between looks at what has waited for too long."""
_tuple = tuple.__new__  # half the time that a NamedTuple's own constructor takes


class Publisher:
    """The publishing side of a transport. Methods without "on" are called in the event loop."""

    def __init__(self, io: IO, link: Link, settings: RabbitMQSettings) -> None:
        self._io = io
        self._loop = io.loop
        self._link = link
        self._settings = settings
        self._properties = Properties(settings.persistent)
        self._suspicious = min(settings.max_message_bytes, settings.frame_max) - 8_192
        """From this many bytes of headers or value on a message is measured."""
        self._runtime = current_runtime()
        self._aging: deque[tuple[float, asyncio.Future[Receipt]]] = deque()
        """When each message of `publish_one` is given up."""
        self._ager: asyncio.TimerHandle | None = None
        self._ids = self._runtime.new_id()
        self._count = 0
        """Messages so far; with `_ids` in front it is a message's id."""
        self._routes: dict[tuple[str, str], Route] = {}
        self._topics: set[str] = set()
        self._pending = 0
        self._under_way: set[asyncio.Future[Any]] = set()
        self._closed = False
        self._sender = Sender(io, link, settings, self._take_completed)

    # --- handing over ------------------------------------------------------------------------------------------------

    def publish(
        self, messages: Sequence[Message], check_topic: Callable[[str], None], delay: float | None = None
    ) -> Confirmation:
        """See `Transport.publish`, and `Delaying.publish_delayed` for ``delay``."""
        self._check_open()
        future: Confirmation = self._loop.create_future()
        count = len(messages)
        if not count:
            future.set_result(())
            return future
        batch = Batch(future, count)
        items: list[Item] = []
        for place, message in enumerate(messages):
            try:
                if message.topic not in self._topics:
                    check_topic(message.topic)
                    self._topics.add(message.topic)
                route = self._topic_route(message)
                if delay is not None:
                    name, milliseconds = delay_exchange(message.topic, delay)
                    route = route._replace(exchange=name, delayed=(message.topic, milliseconds))
                items.append(self._item(batch, place, message, route))
            except (PublishError, InvalidTopicError) as error:
                batch.results[place] = error
                batch.left -= 1
        self._hand_over(batch, items)
        return future

    def publish_one(self, message: Message, route: Route, timeout: float | None = None) -> asyncio.Future[Receipt]:
        """As `publish`, for one message on a route of its own; what is wrong with it raises at once.

        Args:
            message: what to publish.
            route: where to.
            timeout: seconds until it counts as failed, at least; None waits.

        Raises:
            RoutingKeyError: the routing key is too long.
            InvalidHeaderError: AMQP cannot carry a header.
            MessageTooLargeError: the message, or its headers, are too large.
            ClosedError: the transport is closed.
        """
        self._check_open()
        future: asyncio.Future[Receipt] = self._loop.create_future()
        batch = Batch(future, 1, single=True)
        self._hand_over(batch, [self._item(batch, 0, message, route)])
        if timeout is not None and not future.done():
            self._aging.append((self._runtime.monotonic() + timeout, future))
            if self._ager is None:
                self._ager = self._runtime.call_later(min(timeout, _SWEEP), self._give_up_late)
        return future

    def _give_up_late(self) -> None:
        """Fail what has waited for too long; one timer for all of them."""
        self._ager = None
        aging, now = self._aging, self._runtime.monotonic()
        for _ in range(len(aging)):
            due, future = aging.popleft()
            if future.done():
                continue
            if due > now:
                aging.append((due, future))
                continue
            future.set_exception(
                PublishTimeoutError(
                    "RabbitMQ did not confirm within delivery_timeout; it may have the message all the same. The "
                    "log of commons_events.rabbitmq says whether it is out of reach, or short of memory or disk."
                )
            )
        if aging:
            self._ager = self._runtime.call_later(min(max(aging[0][0] - now, 0.05), _SWEEP), self._give_up_late)

    def publish_again(
        self, message: Message, route: Route, attempts: int, steps: Callable[[], Iterator[Step]]
    ) -> asyncio.Future[Receipt]:
        """Publish what was received before, with its attempts counted, after ``steps`` have made where it goes."""
        self._check_open()
        future: asyncio.Future[Receipt] = self._loop.create_future()
        batch = Batch(future, 1, single=True)
        id = self._new_id()
        properties = encode_properties(message, route.properties, id, attempts)
        item = Item(batch, 0, Receipt(message.topic, id=id), route, properties, message.value or b"")

        self._pending += 1
        self._under_way.add(future)
        self._sender.send_after(item, steps)
        return future

    def topic_route(self, message: Message) -> Route:
        """Where a topic's message goes: to the exchange of its name, with the event's type for a routing key."""
        return self._topic_route(message)

    def _topic_route(self, message: Message) -> Route:
        routing_key = ""
        for name, value in message.headers:
            if name == _TYPE:
                if len(value) < 256:
                    routing_key = value.decode(errors="replace")
                break
        route = self._routes.get((message.topic, routing_key))
        if route is None:
            if len(self._routes) > 10_000:
                self._routes.clear()
            if len(routing_key.encode()) > 255:
                routing_key = ""
            route = Route(message.topic, routing_key, self._settings.mandatory, self._properties, declare=True)
            self._routes[message.topic, routing_key] = route
        return route

    def _item(self, batch: Batch, place: int, message: Message, route: Route) -> Item:
        body = message.value or b""
        if len(body) > self._suspicious or message.size > self._sender.limit:
            self._check_size(message)
        self._count = number = self._count + 1
        id = f"{self._ids}-{number:x}"
        properties = encode_properties(message, route.properties, id)
        if len(properties[1]) > self._settings.frame_max - 64:
            raise MessageTooLargeError(
                f"The headers of a message for {message.topic!r} take {header_size(message):,} bytes, and AMQP carries "
                f"them in one frame of at most {self._settings.frame_max:,} (frame_max). Put them into the value."
            )
        return Item(batch, place, _tuple(Receipt, (message.topic, None, None, id)), route, properties, body)

    def _new_id(self) -> str:
        self._count += 1
        return f"{self._ids}-{self._count:x}"

    def _check_size(self, message: Message) -> None:
        size = message.size
        if size > self._sender.limit:
            raise MessageTooLargeError(
                f"A message for {message.topic!r} has {size:,} bytes (value, key and headers); the limit is "
                f"{self._sender.limit:,}. Send less, or raise max_message_bytes here and max_message_size in "
                "rabbitmq.conf."
            )

    def _hand_over(self, batch: Batch, items: list[Item]) -> None:
        if not items:
            self._complete(batch)
            return
        if self._pending + len(items) > _MOST_WAITING and self._pending:
            full = TopicFullError(
                f"{self._pending:,} messages wait for RabbitMQ's confirmation already. Await some before sending more."
            )
            for item in items:
                batch.results[item.place] = full
            self._complete(batch)
            return
        self._pending += len(items)
        batch.left = len(items)
        self._under_way.add(batch.future)
        self._sender.send(items)

    def _complete(self, batch: Batch) -> None:
        future = batch.future
        if future.done():
            return
        if not batch.single:
            future.set_result(batch.results)
        elif isinstance(batch.results[0], Exception):
            future.set_exception(batch.results[0])
        else:
            future.set_result(batch.results[0])

    def _take_completed(self) -> None:
        self._sender.take()
        completed, under_way = self._sender.completed, self._under_way
        while completed:
            batch = completed.popleft()
            self._pending -= len(batch.results)
            under_way.discard(batch.future)
            self._complete(batch)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("This RabbitMQ transport is closed; make a new one.")

    # --- the end -----------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Return once every message that was handed over is confirmed or failed."""
        if self._under_way:
            await asyncio.wait(list(self._under_way))

    async def give_up(self, seconds: float | None) -> int:
        """Wait for what was handed over, and report what takes longer than ``seconds`` as not confirmed."""
        futures = [future for future in self._under_way if not future.done()]
        if not futures:
            return 0
        _, late = await asyncio.wait(futures, timeout=seconds)
        for future in late:
            future.set_exception(
                PublishTimeoutError(
                    f"The producer was closed before RabbitMQ confirmed, within {seconds:g} s (close_timeout); it may "
                    "have the message all the same."
                )
            )
        return len(late)

    async def close(self) -> None:
        """Flush, and close the channel."""
        self._closed = True
        await self.flush()
        if self._ager is not None:
            self._ager.cancel()

        await self._sender.leave()
