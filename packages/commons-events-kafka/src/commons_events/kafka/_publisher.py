"""Producing: librdkafka's client, and the way of a delivery report into the event loop.

librdkafka calls back once a message, from whichever thread polls it, and each call takes the interpreter's lock. A
thread that polls beside a busy event loop waits for that lock once a message, so the thread here only waits for the
first report, and the loop itself takes all that are ready: one hop for each bundle of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import get_ident
from time import monotonic
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Report

from commons_events.errors import (
    AuthenticationError,
    ClosedError,
    ConnectionLostError,
    InvalidTopicError,
    MessageTooLargeError,
    PublishTimeoutError,
    TopicFullError,
    TransportError,
    UnknownPartitionError,
)
from commons_events.kafka._brokers import CUT_OFF, LOOK_AGAIN, LOOK_FOR_BROKERS, has_a_broker
from commons_events.kafka._errors import is_fenced, publish_error, transport_error
from commons_events.kafka._settings import LOGGER, KafkaSettings
from commons_events.message import Message, PublishResult, Receipt

__all__ = ["Publisher"]

Confirmation = asyncio.Future[Sequence[PublishResult]]

_IDLE = 0.1
"""Seconds that the thread waits for a report before it looks whether it should end."""
_TAKING_BACK = 10.0
"""Seconds that a client may take to give back what it has not sent."""
_LARGEST_POOLED = 512
_POOLED = 60_000
"""Places of each size of batch that are kept for the next ones."""


class _WakeError(Exception):
    """Ends a poll in the waiting thread at its first report; librdkafka keeps the others."""


class _Batch:
    """Reports of the messages of one `Publisher.publish`, each in its place. Used again once they are complete."""

    __slots__ = ("callbacks", "future", "left", "messages", "partitions", "publisher", "results", "topics")

    def __init__(self, capacity: int, publisher: Publisher) -> None:
        self.publisher = publisher
        self.results: list[Any] = [None] * capacity
        """The offset of each that was confirmed, None where the broker gave none (acks=0); else its error."""
        self.partitions = [0] * capacity
        self.callbacks = [_Place(self, place) for place in range(capacity)]
        self.left = 0
        self.topics: list[str] = []
        self.messages: Sequence[Message] = ()
        self.future: Confirmation


class _Place:
    """Takes the report of one message of a batch, and keeps numbers of it: objects would be the collector's work."""

    __slots__ = ("batch", "place")

    def __init__(self, batch: _Batch, place: int) -> None:
        self.batch = batch
        self.place = place

    def __call__(self, error: KafkaError | None, report: Report) -> None:
        batch = self.batch
        if error is None:
            batch.partitions[self.place] = report.partition()  # type: ignore[assignment]  # a report has one
            batch.results[self.place] = report.offset()
        elif batch.publisher.moving:
            batch.publisher.move(batch.messages[self.place], self, report)
            return
        else:
            batch.results[self.place] = error
        batch.left = left = batch.left - 1
        if get_ident() == batch.publisher.loop_thread:
            if not left:
                batch.publisher.complete(batch)
        else:
            batch.publisher.reported_elsewhere(batch)


class _One:
    """The report of a message that was sent by itself. Few objects a message: thousands are in flight."""

    __slots__ = ("future", "message", "outcome", "publisher")

    def __init__(self, publisher: Publisher, message: Message, future: asyncio.Future[Receipt]) -> None:
        self.publisher = publisher
        self.message = message
        self.future = future

    def __call__(self, error: KafkaError | None, report: Report) -> None:
        if error is not None and self.publisher.moving:
            self.publisher.move(self.message, self, report)
            return
        self.outcome = report if error is None else error
        if get_ident() == self.publisher.loop_thread:
            self.finish()
        else:
            self.publisher.reported_elsewhere(self)

    def finish(self) -> None:
        """In the event loop: tell whoever waits."""
        future, outcome = self.future, self.outcome
        self.publisher.singles.discard(future)
        if future.done():
            return
        if isinstance(outcome, Report):
            future.set_result(Receipt(self.message[0], outcome.partition(), outcome.offset()))
        else:
            future.set_exception(self.publisher.failed(self.message[0], outcome))


class Publisher:
    """One librdkafka producer, of one event loop. All methods are called in that loop.

    Args:
        settings: the transport's.
        transactional_id: makes it a transactional producer.
    """

    def __init__(self, settings: KafkaSettings, transactional_id: str | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self.loop_thread = get_ident()
        self._settings = settings
        config = settings.producer(transactional_id)
        given = config.pop("error_cb", None)
        self._error_cb: Callable[[KafkaError], object] | None = given if callable(given) else None
        self._config = config
        self._is_transactional = transactional_id is not None
        try:
            self.client = self._new_client()
        except KafkaException as error:
            raise transport_error(error, "Making a Kafka producer") from error
        self._produce = self.client.produce
        self.moving = False
        """Whether messages are being taken back from a client, to be handed to another."""
        self._look_at_brokers = monotonic() + LOOK_FOR_BROKERS
        self._looks = 0
        self.cut_off = False
        """Whether the client has no broker left, see `has_a_broker`; the thread sees to it then."""
        self._suspicious = settings.max_message_bytes - 65_536
        """From this many bytes on a message is measured with all that belongs to it."""
        self._room = int(str(config["queue.buffering.max.messages"]))
        self._pools: dict[int, list[_Batch]] = {}
        self._under_way: set[_Batch] = set()
        self.singles: set[asyncio.Future[Receipt]] = set()
        """What `publish_one` has returned, until it is reported."""
        self._waiting: deque[tuple[_Batch, int]] = deque()
        """What librdkafka's queue had no room for, and from which message on."""
        self._waiting_count = 0
        self._reported: deque[_Batch | _One] = deque()
        self._topics: set[str] = set()
        self._stamp: tuple[datetime | None, int] = (None, 0)
        self._failure: TransportError | None = None
        """Why everything that is under way fails."""
        self._connected = False
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False
        self._stop = False
        self._taken = threading.Event()
        self._thread = threading.Thread(target=self._wait_for_reports, name="commons-events-kafka-reports", daemon=True)
        self._thread.start()

    def _new_client(self) -> Producer:
        return Producer({**self._config, "error_cb": self._on_error})

    # --- handing over ------------------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message], check_topic: Callable[[str], None]) -> Confirmation:
        """See `Transport.publish`."""
        if self._closed:
            raise ClosedError("This Kafka producer is closed; make a new transport.")
        future: Confirmation = self._loop.create_future()
        count = len(messages)
        if not count:
            future.set_result(())
            return future
        topics = [message[0] for message in messages]
        for topic in set(topics):
            if topic not in self._topics:
                self._look_at(topic, check_topic)
        batch = self._batch(count)
        batch.topics, batch.messages, batch.future, batch.left = topics, messages, future, count
        self._under_way.add(batch)
        if not self._connected and self._connecting is None:
            self._connecting = self._loop.create_task(self._connect(messages[0].topic))
        if self._waiting:
            self._line_up(batch, 0)
        else:
            reached = self._hand_over(batch, 0)
            if reached < count:
                self._line_up(batch, reached)
        return future

    def publish_one(self, message: Message, check_topic: Callable[[str], None]) -> asyncio.Future[Receipt]:
        """As `publish`, for one message; the future raises what was refused."""
        topic, value, key, headers, timestamp, partition = message
        large = value is not None and len(value) > self._suspicious
        if large or self._waiting or self._closed or topic not in self._topics or not self._connected:
            return self._one_by_publish(message, check_topic)
        future: asyncio.Future[Receipt] = self._loop.create_future()
        one = _One(self, message, future)
        stamp = 0 if timestamp is None else round(timestamp.timestamp() * 1000)
        try:
            self._produce(
                topic,
                value,
                key,
                -1 if partition is None else partition,
                one,
                None,
                stamp,
                list(headers) if headers else None,
            )
        except BufferError:
            return self._one_by_publish(message, check_topic)
        except KafkaException as error:
            future.set_exception(publish_error(error, topic))
        else:
            self.singles.add(future)
        return future

    def _one_by_publish(self, message: Message, check_topic: Callable[[str], None]) -> asyncio.Future[Receipt]:
        future: asyncio.Future[Receipt] = self._loop.create_future()

        def done(published: Confirmation) -> None:
            self.singles.discard(future)
            if not future.done():
                (result,) = published.result()
                if isinstance(result, Receipt):
                    future.set_result(result)
                else:
                    future.set_exception(result)

        published = self.publish([message], check_topic)
        self.singles.add(future)
        published.add_done_callback(done)
        return future

    def _look_at(self, topic: str, check_topic: Callable[[str], None]) -> None:
        try:
            check_topic(topic)
        except InvalidTopicError:
            return  # it stays unknown, and each of its messages is refused
        if not topic.startswith("^"):
            self._topics.add(topic)

    def _hand_over(self, batch: _Batch, start: int) -> int:
        """Give librdkafka the messages from ``start`` on, until its queue is full; returns how far that went."""
        produce, topics = self._produce, self._topics
        messages = batch.messages
        count = len(messages)  # now: a batch whose last message is refused is complete, and its messages gone
        suspicious = self._suspicious
        for place, (message, callback) in enumerate(
            zip(messages[start:] if start else messages, batch.callbacks[start:], strict=False), start
        ):
            topic, value, key, headers, timestamp, partition = message
            if partition is None:
                partition = -1
            elif partition < 0:
                self._refuse(batch, place, UnknownPartitionError(f"Topic {topic!r} has no partition {partition}."))
                continue
            if (value is not None and len(value) > suspicious) or topic not in topics:
                refused = self._refusal(message)
                if refused is not None:
                    self._refuse(batch, place, refused)
                    continue
            if timestamp is None:
                milliseconds = 0
            elif timestamp is self._stamp[0]:
                milliseconds = self._stamp[1]
            else:
                milliseconds = round(timestamp.timestamp() * 1000)
                self._stamp = timestamp, milliseconds
            try:
                produce(topic, value, key, partition, callback, None, milliseconds, list(headers) if headers else None)
            except BufferError:
                return place
            except KafkaException as error:
                self._refuse(batch, place, publish_error(error, topic))
        return count

    def _refusal(self, message: Message) -> TransportError | None:
        if message.topic not in self._topics:
            return InvalidTopicError(
                f"{message.topic[:40]!r} is no name of a Kafka topic: 1 to 249 of the characters A-Z a-z 0-9 . _ -"
            )
        limit = self._settings.max_message_bytes
        size = message.size
        if size <= limit:
            return None
        return MessageTooLargeError(
            f"A message for topic {message.topic!r} has {size:,} bytes (value, key and headers); the limit is "
            f"{limit:,}. Send less, or raise max_message_bytes here and max.message.bytes of the topic."
        )

    def _refuse(self, batch: _Batch, place: int, error: TransportError) -> None:
        batch.results[place] = error
        batch.left -= 1
        if not batch.left:
            self.complete(batch)

    def _line_up(self, batch: _Batch, start: int) -> None:
        """Let the messages from ``start`` on wait for room; those for which there is no room to wait are refused."""
        count = len(batch.messages) - start
        if self._waiting_count + count > max(self._room, count) and self._waiting:
            full = TopicFullError(
                f"{self._waiting_count:,} messages wait for room in the producer's queue (queue.buffering.max.messages"
                f"={self._room}) already. Await some before sending more."
            )
            for place in range(start, len(batch.messages)):
                self._refuse(batch, place, full)
            return
        self._waiting.append((batch, start))
        self._waiting_count += count

    def _batch(self, count: int) -> _Batch:
        capacity = 1 if count == 1 else max(16, 1 << (count - 1).bit_length())
        pool = self._pools.get(capacity)
        return pool.pop() if pool else _Batch(capacity, self)

    # --- reports -----------------------------------------------------------------------------------------------

    def complete(self, batch: _Batch) -> None:
        """All its messages are reported: tell whoever waits."""
        results, future = batch.results, batch.future
        self._under_way.discard(batch)
        if not future.done():
            future.set_result(
                [
                    Receipt(topic, partition, result)
                    if type(result) is int or result is None
                    else self.failed(topic, result)
                    for topic, partition, result in zip(batch.topics, batch.partitions, results, strict=False)
                ]
            )
        batch.topics, batch.messages = [], ()
        capacity = len(results)
        if capacity <= _LARGEST_POOLED:
            pool = self._pools.setdefault(capacity, [])
            if len(pool) * capacity < _POOLED:
                pool.append(batch)

    def failed(self, topic: str, result: KafkaError | TransportError) -> TransportError:
        """The error of a message that was not confirmed."""
        if isinstance(result, TransportError):
            return result
        if self._failure is not None and result.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            return self._failure
        return publish_error(result, topic)

    def reported_elsewhere(self, reported: _Batch | _One) -> None:
        """A report reached another thread than the event loop's: leave it to the loop, and wake that."""
        if isinstance(reported, _One) or not reported.left:
            self._reported.append(reported)
        if get_ident() == self._thread.ident:
            raise _WakeError
        self._call_in_loop(self._take_reports)

    def _take_reports(self) -> None:
        """In the event loop: take every report that is ready, then let the thread wait for the next one."""
        while self._reported:
            reported = self._reported.popleft()
            if isinstance(reported, _One):
                reported.finish()
            else:
                self.complete(reported)
        if not self._stop:
            self.client.poll(0)
        self._taken.set()
        while self._waiting:
            batch, start = self._waiting[0]
            count = len(batch.messages)
            reached = self._hand_over(batch, start)
            self._waiting_count -= reached - start
            if reached < count:
                self._waiting[0] = batch, reached
                break
            self._waiting.popleft()

    def _wait_for_reports(self) -> None:
        while not self._stop:
            try:
                self.client.poll(_IDLE)
                if monotonic() > self._look_at_brokers:
                    self._look_for_brokers()
                if self.cut_off:
                    self._in_loop_and_wait(self._begin_again)
            except _WakeError:
                self._look_at_brokers, self._looks = monotonic() + LOOK_FOR_BROKERS, 0
                self._in_loop_and_wait(self._take_reports)

    def _in_loop_and_wait(self, callback: Callable[[], object]) -> None:
        """In the thread: let the loop run ``callback``, which sets ``_taken``."""
        self._taken.clear()
        called = self._call_in_loop(callback)
        while called and not self._taken.wait(1.0):
            called = not self._loop.is_closed()
        self._stop = self._stop or not called

    def _call_in_loop(self, callback: Callable[[], object]) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            return False
        return True

    # --- when nothing goes any more ----------------------------------------------------------------------------

    def _look_for_brokers(self) -> None:
        """In the thread, as nothing was reported for a while."""
        if not self._connected or self._is_transactional or not (self._under_way or self.singles):
            self._looks = 0
        elif has_a_broker(self.client, next(iter(self._topics), None)):
            self._look_at_brokers, self._looks = monotonic() + LOOK_FOR_BROKERS, 0
        else:
            self._look_at_brokers = monotonic() + LOOK_AGAIN
            self._looks += 1
        self.cut_off = self._looks >= CUT_OFF

    def _begin_again(self) -> None:
        """In the event loop: put a new client in place of this one, and hand it what was not confirmed, in order.

        What the broker had written and not confirmed is written twice by this: the new client is a new producer to it.
        """
        LOGGER.warning("no Kafka broker is left: connecting anew to %s", self._settings.bootstrap_servers)
        before, self.client = self.client, self._new_client()
        self._produce = self.client.produce
        self._looks, self.cut_off = 0, False
        self.moving = True
        try:
            before.purge(in_queue=True, in_flight=True, blocking=True)
            before.flush(_TAKING_BACK)
        finally:
            self.moving = False
        threading.Thread(target=before.close, name="commons-events-kafka-close", daemon=True).start()
        self._take_reports()

    def move(self, message: Message, callback: _Place | _One, report: Report) -> None:
        """Hand a message that one client gave back to the present one, for the partition that was chosen for it."""
        topic, value, key, headers, timestamp, _ = message
        milliseconds = 0 if timestamp is None else round(timestamp.timestamp() * 1000)
        partition = report.partition()
        assert partition is not None
        self._produce(topic, value, key, partition, callback, None, milliseconds, list(headers) if headers else None)

    async def _connect(self, topic: str) -> None:
        """Find a broker within connect.timeout.ms, or fail what is under way: librdkafka itself tries for ever."""
        seconds = self._settings.own["connect.timeout.ms"]
        try:
            await asyncio.to_thread(self.client.list_topics, topic, seconds)
        except KafkaException as error:
            LOGGER.debug("no broker found: %s", error)
            self.fail(
                ConnectionLostError(
                    f"No Kafka broker answered at {self._settings.bootstrap_servers} within {seconds:g} s "
                    "(connect.timeout.ms). Check the address, and that the broker runs."
                )
            )
        else:
            self._connected = True
        finally:
            self._connecting = None

    def _on_error(self, error: KafkaError) -> None:
        """Librdkafka's error callback, in whichever thread polls."""
        if self._error_cb is not None:
            self._error_cb(error)
        mapped = transport_error(error, f"Kafka at {self._settings.bootstrap_servers}")
        refused = isinstance(mapped, AuthenticationError) and not self._connected
        if isinstance(mapped, TransportError) and (error.fatal() or is_fenced(error) or refused):
            self._call_in_loop(lambda: self.fail(mapped))
        else:
            LOGGER.debug("%s", error)

    def fail(self, error: TransportError) -> None:
        """Report everything that is under way as failed, and drop it."""
        self._failure = error
        while self._waiting:
            batch, start = self._waiting.popleft()
            for place in range(start, len(batch.messages)):
                self._refuse(batch, place, error)
        self._waiting_count = 0
        self.client.purge(in_queue=True, in_flight=True, blocking=False)

    # --- the end -----------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Return once every message that was handed over is confirmed or failed."""
        futures: list[asyncio.Future[Any]] = [batch.future for batch in self._under_way]
        futures += self.singles
        if futures:
            await asyncio.wait(futures)

    async def give_up(self, seconds: float | None) -> int:
        """Wait for what was sent by `publish_one`, and report what takes longer than ``seconds`` as not confirmed."""
        if not self.singles:
            return 0
        _, late = await asyncio.wait(list(self.singles), timeout=seconds)
        for future in late:
            future.set_exception(
                PublishTimeoutError(
                    f"The producer was closed before the broker confirmed, within {seconds:g} s (close_timeout); the "
                    "broker may have the message all the same."
                )
            )
        return len(late)

    async def close(self) -> None:
        """Flush, end the thread, and destroy the client."""
        if self._closed:
            return
        self._closed = True
        if self._connecting is not None and not self._under_way and not self.singles:
            self._connecting.cancel()
        await self.flush()
        self._stop = True
        self._taken.set()
        await asyncio.to_thread(self._destroy)

    def _destroy(self) -> None:
        self._thread.join()
        self.client.purge(in_queue=True, in_flight=True, blocking=False)
        self.client.close()
