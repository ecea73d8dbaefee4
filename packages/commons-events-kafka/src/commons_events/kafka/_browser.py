"""Reading a partition without a group: clients of librdkafka that are kept, since a new one costs more than a page."""

from __future__ import annotations

import asyncio
from typing import cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from commons_events.errors import ConnectionLostError
from commons_events.kafka._deliveries import to_message
from commons_events.kafka._errors import transport_error
from commons_events.kafka._raw import RawMessage
from commons_events.kafka._settings import KafkaSettings
from commons_events.runtime import current_runtime
from commons_events.transport import StoredMessage

__all__ = ["Browser"]

_KEPT = 4
"""Clients that are kept for the next page; more are made where more pages are read at once."""
_TIMEOUT = 30.0
_GROUP = "commons-events-browsing"
"""A client needs a group's name; this one's is never joined."""


class Browser:
    """Reads pages of partitions, each in a thread, as no group's member.

    Args:
        settings: of the transport.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._idle: list[Consumer] = []
        self._closed = False

    async def read(self, topic: str, partition: int, offset: int, limit: int) -> list[StoredMessage]:
        """Up to ``limit`` messages from ``offset`` on; none where there is nothing at all.

        Raises:
            UnknownTopicError: the topic is not there.
            ConnectionLostError: the messages that are there did not come in time.
        """
        return await asyncio.to_thread(self._read, topic, partition, offset, limit)

    async def close(self) -> None:
        """Close the clients that are kept; one that is reading closes its own."""
        self._closed = True
        await asyncio.to_thread(self._close_idle)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Consumer:
        try:
            return self._idle.pop()
        except IndexError:
            return Consumer(
                {
                    **self._settings.consumer(_GROUP),
                    # Pages are small: nothing is fetched ahead of them, and none waits for another one's fetch.
                    "fetch.wait.max.ms": 10,
                    "queued.min.messages": 1,
                }
            )

    def _read(self, topic: str, partition: int, offset: int, limit: int) -> list[StoredMessage]:
        consumer = self._take()
        healthy = False
        try:
            stored = _page(consumer, topic, partition, offset, limit)
            consumer.unassign()
            healthy = True
        except KafkaException as error:
            raise transport_error(error, f"Browsing topic {topic!r}") from error
        finally:
            if healthy and not self._closed and len(self._idle) < _KEPT:
                self._idle.append(consumer)
            else:
                consumer.close()
        if self._closed:
            self._close_idle()  # the transport was closed while this one was put back
        return stored


def _page(consumer: Consumer, topic: str, partition: int, offset: int, limit: int) -> list[StoredMessage]:
    deadline = current_runtime().monotonic() + _TIMEOUT
    stored: list[StoredMessage] = []
    # A broker that has nothing more says so only after a while, so it is asked where the end is.
    place = TopicPartition(topic, partition, offset or OFFSET_BEGINNING)
    first, end = consumer.get_watermark_offsets(place, timeout=_TIMEOUT)
    following = max(first, offset)
    if following >= end:
        return stored
    consumer.assign([place])
    while len(stored) < limit and following < end:
        raw = consumer.poll(0.1)
        if raw is None:
            if current_runtime().monotonic() > deadline:
                if stored:
                    break
                raise ConnectionLostError(
                    f"Browsing topic {topic!r}: partition {partition} has messages from {following} to {end - 1}, and "
                    f"none of them came within {_TIMEOUT:g} s. Check that the brokers run; it may pass by itself."
                )
            continue
        error = raw.error()
        if (raw.topic(), raw.partition()) not in ((topic, partition), (None, None), (None, -1)):
            continue  # left over from the client's last page
        if error is None:
            message = cast("RawMessage", raw)
            if message.offset() >= following:
                stored.append(StoredMessage(to_message(message), partition, message.offset()))
                following = message.offset() + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            break  # what is left are marks of transactions
        elif not error.retriable():
            raise KafkaException(error)
    return stored
