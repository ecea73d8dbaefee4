"""Steps on a channel of their own: an error closes that channel, and none that messages go over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from pika import SelectConnection
from pika import exceptions as pika
from pika.channel import Channel

from commons_events.errors import TransportError
from commons_events.rabbitmq._connection import close_channel
from commons_events.rabbitmq._errors import RefusedSettingError, channel_error
from commons_events.rabbitmq._settings import RabbitMQSettings

__all__ = [
    "KEPT",
    "Done",
    "Step",
    "Steps",
    "delay_exchange",
    "delay_steps",
    "group_queue",
    "group_steps",
    "place_steps",
    "retry_queue",
    "retry_steps",
    "stream_steps",
    "topic_steps",
]

Done = Callable[[TransportError | None, Any], None]
"""Told at the end, in the I/O thread: the error or None, and what the last step brought."""
Step = tuple[str, Callable[[Channel, Callable[[Any], None]], object]]
"""What is done, for an error's words; and what does it and calls back."""


class Steps:
    """Runs steps one after the other, and closes its channel. Made and used in the I/O thread."""

    def __init__(self, connection: SelectConnection, steps: Iterator[Step], done: Done) -> None:
        self._steps = steps
        self._done: Done | None = done
        self._doing = "Opening a channel"
        self._last: Any = None
        self._channel: Channel | None = None
        try:
            connection.channel(on_open_callback=self._on_open).add_on_close_callback(self._on_close)
        except pika.AMQPError as error:
            self._end(channel_error(error, self._doing))

    def _on_open(self, channel: Channel) -> None:
        self._channel = channel
        self._next()

    def _next(self) -> None:
        assert self._channel is not None
        try:
            self._doing, step = next(self._steps)
        except StopIteration:
            self._end(None)
            return
        except TransportError as error:
            self._end(error)
            return
        try:
            step(self._channel, self._on_answer)
        except (pika.AMQPConnectionError, pika.AMQPChannelError) as error:
            self._end(channel_error(error, self._doing))
        except Exception as error:  # noqa: BLE001  # pika, which has sent nothing, raises what it likes
            refused = RefusedSettingError(
                f"{self._doing}: AMQP cannot carry it: {type(error).__name__}: {error}. Names have at most 255 bytes, "
                "and arguments are str, int, float, bool, datetime, or lists and dicts of them."
            )
            refused.__cause__ = error
            self._end(refused)

    def _on_answer(self, frame: Any) -> None:
        self._last = frame
        self._next()

    def _on_close(self, _: object, error: BaseException) -> None:
        self._channel = None
        self._end(channel_error(error, self._doing))

    def _end(self, error: TransportError | None) -> None:
        done, self._done = self._done, None
        with suppress(pika.AMQPError):
            close_channel(self._channel)
        if done is not None:
            done(error, self._last)


def group_queue(topic: str, group: str) -> str:
    """The queue that holds a group's messages of a topic."""
    return f"{topic}.{group}"


def topic_steps(settings: RabbitMQSettings, topic: str) -> Iterator[Step]:
    """Make a topic, which is an exchange of the type ``topic``; or look whether it is there.

    With ``queue_type=stream`` there is a stream of the topic's name too, which gets all of it.
    """
    passive = settings.passive
    doing = f"{'Looking for' if passive else 'Declaring'} exchange {topic!r}"
    if passive:
        yield doing, lambda channel, done: channel.exchange_declare(topic, passive=True, callback=done)
        return
    yield doing, lambda channel, done: channel.exchange_declare(topic, "topic", durable=True, callback=done)
    if settings.queue_type == "stream":
        yield from queue_steps(topic, topic, {"x-queue-type": "stream", **settings.queue_arguments})


def stream_steps(settings: RabbitMQSettings, topic: str) -> Iterator[Step]:
    """Make a topic that is a stream, or look whether it is there."""
    if settings.passive:
        yield (
            f"Looking for stream {topic!r}",
            lambda channel, done: channel.queue_declare(topic, passive=True, callback=done),
        )
    else:
        yield from topic_steps(settings, topic)


def place_steps(settings: RabbitMQSettings, topic: str, queue: str) -> Iterator[Step]:
    """Make a stream, and the queue that holds a group's place in it; or look whether they are there."""
    yield from stream_steps(settings, topic)
    if settings.passive:
        yield (
            f"Looking for queue {queue!r}",
            lambda channel, done: channel.queue_declare(queue, passive=True, callback=done),
        )
        return
    arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    yield (
        f"Declaring queue {queue!r}",
        lambda channel, done: channel.queue_declare(queue, durable=True, arguments=arguments, callback=done),
    )


def queue_steps(topic: str, queue: str, arguments: dict[str, Any]) -> Iterator[Step]:
    """Make a queue that gets all of a topic's messages."""
    yield (
        f"Declaring queue {queue!r}",
        lambda channel, done: channel.queue_declare(queue, durable=True, arguments=arguments, callback=done),
    )
    yield (
        f"Binding queue {queue!r} to exchange {topic!r}",
        lambda channel, done: channel.queue_bind(queue, topic, "#", callback=done),
    )


def group_steps(settings: RabbitMQSettings, topic: str, queue: str, expires: int | None) -> Iterator[Step]:
    """Make a group's queue of a topic, and the topic; or look whether the queue is there.

    Args:
        settings: the transport's.
        topic: the topic.
        queue: the queue's name.
        expires: milliseconds without a consumer after which the queue goes, or None.
    """
    if settings.passive and expires is None:
        yield (
            f"Looking for queue {queue!r}",
            lambda channel, done: channel.queue_declare(queue, passive=True, callback=done),
        )
        return
    yield from topic_steps(settings, topic)
    arguments: dict[str, Any] = {"x-queue-type": settings.queue_type, **settings.queue_arguments}
    if settings.single_active_consumer and expires is None:
        arguments["x-single-active-consumer"] = True
    if expires is not None:
        arguments["x-expires"] = expires
    yield from queue_steps(topic, queue, arguments)


def _rounded_up(delay: float, bits: int) -> int:
    """Seconds as milliseconds with so many bits that count, and no less: each delay needs a queue of its own."""
    milliseconds = max(1, round(delay * 1000 + 0.5))
    step = max(milliseconds.bit_length() - bits, 0)
    return -(-milliseconds >> step) << step


def retry_queue(queue: str, delay: float) -> tuple[str, int]:
    """The queue that holds messages back for ``delay`` seconds at least, and how many milliseconds it does.

    RabbitMQ expires messages at the head of a queue alone, so that each delay needs a queue of its own: four an octave.
    """
    milliseconds = _rounded_up(delay, 3)
    return _shortened(f"{queue}.retry.{milliseconds}"), milliseconds


def delay_exchange(topic: str, delay: float) -> tuple[str, int]:
    """The exchange, with a queue of its name, that holds messages back from a topic; see `retry_queue`.

    Of these there are 32 an octave: who says when a message is to be seen wants it no later.
    """
    milliseconds = _rounded_up(delay, 6)
    return _shortened(f"{topic}.delay.{milliseconds}"), milliseconds


def _shortened(name: str) -> str:
    if len(name.encode()) > 255:
        name = name.encode()[-255:].decode(errors="ignore")
    return name


KEPT = 60_000
"""Milliseconds that a classic queue which holds messages back stays when it is not declared again."""


def delay_steps(settings: RabbitMQSettings, name: str, topic: str, milliseconds: int) -> Iterator[Step]:
    """Make an exchange and a queue that hold messages back from a topic, with their routing keys; and the topic."""
    if settings.passive:
        yield (
            f"Looking for exchange {name!r}",
            lambda channel, done: channel.exchange_declare(name, passive=True, callback=done),
        )
        return
    yield from topic_steps(settings, topic)
    yield (
        f"Declaring queue {name!r}",
        lambda channel, done: channel.queue_declare(
            name, durable=True, arguments=_holding_back(settings, milliseconds, topic), callback=done
        ),
    )
    yield (
        f"Declaring exchange {name!r}",
        # It goes with its queue.
        lambda channel, done: channel.exchange_declare(name, "fanout", durable=True, auto_delete=True, callback=done),
    )
    yield (
        f"Binding queue {name!r} to exchange {name!r}",
        lambda channel, done: channel.queue_bind(name, name, callback=done),
    )


def _holding_back(settings: RabbitMQSettings, milliseconds: int, exchange: str, lasting: bool = True) -> dict[str, Any]:
    """Arguments of a queue that hands everything to an exchange after a while: at least once, where it can.

    A quorum queue does not expire: declaring it again would not put that off, and what it holds, also for a queue that
    is full or not there yet, would go with it.
    """
    arguments: dict[str, Any] = {"x-message-ttl": milliseconds, "x-dead-letter-exchange": exchange}
    if settings.queue_type == "classic" or not lasting:
        return arguments | {"x-expires": milliseconds + KEPT}
    return arguments | {
        "x-queue-type": "quorum",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def retry_steps(settings: RabbitMQSettings, name: str, queue: str, milliseconds: int, lasting: bool) -> Iterator[Step]:
    """Make a retry queue: what has been in it for so long goes back to the queue it came from.

    Of the type quorum, which is for a ``lasting`` queue, it hands messages over at least once: they stay in it until
    the other one has them.
    """
    arguments = {**_holding_back(settings, milliseconds, "", lasting), "x-dead-letter-routing-key": queue}
    yield (
        f"Declaring retry queue {name!r}",
        lambda channel, done: channel.queue_declare(name, durable=True, arguments=arguments, callback=done),
    )
