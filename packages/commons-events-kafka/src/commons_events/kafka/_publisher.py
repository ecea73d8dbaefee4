"""Producing: what is handed to librdkafka, and what becomes of it where no broker is left."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
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
    PublishError,
    PublishTimeoutError,
    TopicFullError,
    TransportError,
)
from commons_events.kafka._batches import Batch, Confirmation, MessageBatch, ValueBatch, milliseconds
from commons_events.kafka._brokers import CUT_OFF, LOOK_AGAIN, LOOK_FOR_BROKERS, dispose_of, has_a_broker
from commons_events.kafka._errors import is_fenced, publish_error, transport_error
from commons_events.kafka._reports import Reported
from commons_events.kafka._settings import LOGGER, KafkaSettings
from commons_events.kafka._singles import Singles
from commons_events.message import Headers, Message, Receipt, is_text

__all__ = ["Confirmation", "Publisher"]

_TAKING_BACK = 10.0
"""Seconds that a client may take to give back what it has not sent."""
_HURRY = 0.1
"""Seconds of a flush that is to reach librdkafka's threads on the busiest machine."""
_LARGEST_POOLED = 512
_NAMES = 1_000
"""Names of headers that are remembered."""
_POOLED = 60_000
"""Places of each size of batch that are kept for the next ones."""


class Publisher(Reported):
    """One librdkafka producer, of one event loop. All methods are called in that loop.

    Args:
        settings: the transport's.
        transactional_id: makes it a transactional producer.
    """

    def __init__(self, settings: KafkaSettings, transactional_id: str | None = None) -> None:
        super().__init__(0 if transactional_id is not None else settings.busy)
        self._new_future: Callable[[], asyncio.Future[Receipt]] = self._loop.create_future
        if type(self._loop).create_future is asyncio.BaseEventLoop.create_future:
            self._new_future = partial(asyncio.Future, loop=self._loop)  # the same, without a call in Python
        self.takes = True
        """Whether messages may be handed over."""
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
        self.produce = self.client.produce
        self.suspicious = settings.max_message_bytes - 65_536
        """From this many bytes on a message is measured with all that belongs to it."""
        self.topics: set[str] = set()
        """Those whose names were found to be right."""
        self.header_names: set[str] = set()
        """Those that were found to be names."""
        self.moving = False
        """Whether messages are being taken back from a client, to be handed to another."""
        self._look_at_brokers = monotonic() + LOOK_FOR_BROKERS
        self._looks = 0
        self.cut_off = False
        """Whether the client has no broker left, see `has_a_broker`; the thread sees to it then."""
        self.is_lost = False
        """Whether that was the end of a transactional one: what was open in it is aborted, by whoever follows it."""
        self._room = int(str(config["queue.buffering.max.messages"]))
        self._lingers = float(str(config.get("linger.ms", 5))) >= 1
        self._hurries = False
        """Whether those under way are not to wait for more messages."""
        self._pools: dict[int, list[MessageBatch]] = {}
        self._under_way: set[Batch] = set()
        self._singles = Singles(self)
        self._lined_up: dict[asyncio.Future[Receipt], Confirmation] = {}
        """What `send_one` has returned of messages that went by `publish`, and what that returned, until they are
        reported."""
        self._waiting: deque[tuple[Batch, int]] = deque()
        """What librdkafka's queue had no room for, and from which message on."""
        self._waiting_count = 0
        self._free_slots = self._singles.free
        self._failure: TransportError | None = None
        """Why everything that is under way fails."""
        self._connected = False
        self._connecting: asyncio.Task[None] | None = None
        self.refused: AuthenticationError | None = None
        """What was heard of a sign-in that was refused."""
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
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
        topics = {message[0] for message in messages}
        for topic in topics:
            if topic not in self.topics:
                self._look_at(topic, check_topic)
        capacity = 1 if count == 1 else max(16, 1 << (count - 1).bit_length())
        pool = self._pools.get(capacity)
        batch = pool.pop() if pool else MessageBatch(self, capacity)
        batch.fill(messages, topics, future)
        self._begin(batch, messages[0].topic)
        return future

    def publish_values(
        self,
        topic: str,
        values: Sequence[bytes],
        key: bytes | None,
        headers: Headers,
        check_topic: Callable[[str], None],
    ) -> Confirmation:
        """As `publish`, for messages that differ in their values alone, none of which is large."""
        if self._closed:
            raise ClosedError("This Kafka producer is closed; make a new transport.")
        if topic not in self.topics:
            self._look_at(topic, check_topic)
            if topic not in self.topics:
                return self.publish([Message(topic, value, key, headers) for value in values], check_topic)
        batch = ValueBatch(self, topic, values, key, headers)
        batch.begin(len(values), self._loop.create_future())
        self._begin(batch, topic)
        return batch.future

    def _begin(self, batch: Batch, topic: str) -> None:
        self._under_way.add(batch)
        if not self._connected:
            self._ensure_connected(topic)
        if self._waiting:
            self._line_up(batch, 0)
            return
        reached = batch.hand_over(0)
        if reached < batch.count:
            self._line_up(batch, reached)
        if self.rests:
            self.expect_report(batch.count)

    def send_one(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
        timestamp: datetime | None,
        partition: int | None,
        check_topic: Callable[[str], None],
    ) -> asyncio.Future[Receipt]:
        """As `publish`, for one message; the future raises what was refused."""
        # A report holds neither an empty key nor an empty value, so it can't tell what was sent.
        if not value or len(value) > self.suspicious or self._waiting or topic not in self.topics or key == b"":
            return self._one_by_publish(Message(topic, value, key, headers, timestamp, partition), check_topic)
        if not self._connected:
            self._ensure_connected(topic)
        free = self._free_slots
        slot = free.pop() if free else self._singles.new_slot()
        slot[0] = future = self._new_future()
        slot[1] = topic
        slot[3] = headers
        try:
            chosen = -1 if partition is None else partition
            if timestamp is None and not headers:  # each argument that is not given saves the client some time
                self.produce(topic, value, key, chosen, slot[2])
            else:
                stamp = milliseconds(timestamp)
                self.produce(topic, value, key, chosen, slot[2], None, stamp, list(headers) if headers else None)
        except BaseException as error:
            slot[0] = None
            free.append(slot)
            if isinstance(error, BufferError):
                return self._one_by_publish(Message(topic, value, key, headers, timestamp, partition), check_topic)
            if not isinstance(error, KafkaException):
                raise
            future.set_exception(publish_error(error, topic))
        if self.rests:
            self.expect_report()
        return future

    def _one_by_publish(self, message: Message, check_topic: Callable[[str], None]) -> asyncio.Future[Receipt]:
        future: asyncio.Future[Receipt] = self._loop.create_future()

        def done(published: Confirmation) -> None:
            self._lined_up.pop(future, None)
            if not future.done():
                (result,) = published.result()
                if isinstance(result, Receipt):
                    future.set_result(result)
                else:
                    future.set_exception(result)

        published = self.publish([message], check_topic)
        self._lined_up[future] = published
        published.add_done_callback(done)
        return future

    def _look_at(self, topic: str, check_topic: Callable[[str], None]) -> None:
        try:
            check_topic(topic)
        except InvalidTopicError:
            return  # it stays unknown, and each of its messages is refused
        if not topic.startswith("^"):
            self.topics.add(topic)

    def refusal(self, message: Message) -> TransportError | None:
        """Why a message is never handed over, or None."""
        if message.topic not in self.topics:
            return InvalidTopicError(
                f"{message.topic[:40]!r} is no name of a Kafka topic: 1 to 249 of the characters A-Z a-z 0-9 . _ -"
            )
        for name, _ in message.headers:
            if not is_text(name):  # the client ends the process, or cuts it off at the zero byte
                return PublishError(
                    f"A message for topic {message.topic!r} has a header {name!r}, which is no name: it holds a zero "
                    "byte, or half of a surrogate pair."
                )
        if len(self.header_names) > _NAMES:
            self.header_names.clear()
        self.header_names.update(name for name, _ in message.headers)
        limit = self._settings.max_message_bytes
        size = message.size
        if size <= limit:
            return None
        return MessageTooLargeError(
            f"A message for topic {message.topic!r} has {size:,} bytes (value, key and headers); the limit is "
            f"{limit:,}. Send less, or raise max_message_bytes here and max.message.bytes of the topic."
        )

    def room(self) -> asyncio.Future[Any] | None:
        """See `Transport.room`."""
        return asyncio.ensure_future(asyncio.wait([self._waiting[-1][0].future])) if self._waiting else None

    def _line_up(self, batch: Batch, start: int) -> None:
        """Let the messages from ``start`` on wait for room; those for which there is no room to wait are refused."""
        count = batch.count - start
        if self._waiting_count + count > max(self._room, count) and self._waiting:
            full = TopicFullError(
                f"{self._waiting_count:,} messages wait for room in the producer's queue (queue.buffering.max.messages"
                f"={self._room}) already. Await some before sending more."
            )
            for place in range(start, batch.count):
                batch.refuse(place, full)
            return
        self._waiting.append((batch, start))
        self._waiting_count += count

    def hurry(self, *, at_once: bool) -> None:
        """Let what was handed over go out without waiting for more messages (``linger.ms``).

        Only a flush does that, and while it goes on. The thread flushes as soon as there is a moment without a report.

        Args:
            at_once: flush already now, without waiting: as a rule librdkafka's threads see it, and begin to send.
        """
        if self._lingers and self._under_way:
            self._hurries = True
            if at_once:
                self._loop.call_soon(self._send_now)

    def _send_now(self) -> None:
        if self._hurries:
            self.client.flush(0)

    # --- reports -----------------------------------------------------------------------------------------------

    def reported(self, batch: Batch) -> None:
        """The last report of a batch has come, or one that may have come in another thread than the loop's."""
        if self.in_loop():
            if not batch.left:
                self.complete(batch)
            return
        self.leave_to_loop(None if batch.left else lambda: self.complete(batch))

    def complete(self, batch: Batch) -> None:
        """All its messages are reported: tell whoever waits."""
        self._under_way.discard(batch)
        self._hurries = self._hurries and bool(self._under_way)
        if not batch.future.done():
            batch.future.set_result(batch.results())
        batch.end()
        if isinstance(batch, MessageBatch):
            capacity = len(batch.found)
            if 1 < capacity <= _LARGEST_POOLED:
                pool = self._pools.setdefault(capacity, [])
                if len(pool) * capacity < _POOLED:
                    pool.append(batch)

    def failure_of(self, topic: str, result: KafkaError | TransportError) -> TransportError:
        """The error of a message that was not confirmed."""
        if isinstance(result, TransportError):
            return result
        if self._failure is not None and result.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            return self._failure
        return publish_error(result, topic)

    def _in_flight(self) -> int:
        return len(self._singles) + len(self._under_way)

    def _reports_taken(self) -> None:
        while self._waiting:
            batch, start = self._waiting[0]
            reached = batch.hand_over(start)
            self._waiting_count -= reached - start
            if reached < batch.count:
                self._waiting[0] = batch, reached
                break
            self._waiting.popleft()

    # --- when nothing goes any more ----------------------------------------------------------------------------

    def _was_reported(self) -> None:
        self._look_at_brokers, self._looks = monotonic() + LOOK_FOR_BROKERS, 0

    def _was_silent(self) -> Callable[[], None] | None:
        if self._hurries:
            self.client.flush(_HURRY)
        if monotonic() > self._look_at_brokers:
            self._look_for_brokers()
        if not self.cut_off or self.is_lost:
            return None
        return self._lose if self._is_transactional else self._begin_again

    def _look_for_brokers(self) -> None:
        """In the thread, as nothing was reported for a while."""
        if not self._connected or not (self._under_way or self._singles):
            self._looks = 0
        elif has_a_broker(self.client, next(iter(self.topics), None)):
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
        self.produce = self.client.produce
        self._looks, self.cut_off = 0, False
        self.moving = True
        try:
            before.purge(in_queue=True, in_flight=True, blocking=True)
            before.flush(_TAKING_BACK)
        finally:
            self.moving = False
        clients = [before]
        del before
        dispose_of(clients)
        self._take_reports()

    def _lose(self) -> None:
        """In the event loop: fail what is under way. A transaction is not handed to another client: parts would miss.

        The broker aborts it as soon as a client of the same ``transactional.id`` comes.
        """
        self.is_lost = True
        servers = self._settings.bootstrap_servers
        self.fail(ConnectionLostError(f"No Kafka broker of {servers} is left, so the transaction is aborted."))
        self._take_reports()

    def _end_by(self, error: KafkaException) -> None:
        """In the event loop: a client that has a fatal error takes no message any more, nor confirms any.

        librdkafka's client for Python raises it when it is polled, and calls no error callback. What was under way
        fails; what comes after it has a new client, but for that of a transaction, which `Transactions` replaces.
        """
        mapped = transport_error(error, f"Kafka at {self._settings.bootstrap_servers}")
        failure = mapped if isinstance(mapped, TransportError) else PublishError(str(mapped))
        LOGGER.warning("a Kafka producer has to end: %s", failure)
        self.fail(failure)
        if self._is_transactional:
            self.is_lost = True
        elif not self._stop:
            before, self.client = self.client, self._new_client()
            self.produce = self.client.produce
            with suppress(KafkaException):  # the same once more
                before.flush(_TAKING_BACK)
            clients = [before]
            del before
            dispose_of(clients)
        self._take_reports()

    def move(self, message: Message, callback: Callable[[KafkaError | None, Report], None], report: Report) -> None:
        """Hand a message that one client gave back to the present one, for the partition that was chosen for it."""
        topic, value, key, headers, timestamp, _ = message
        stamp = milliseconds(timestamp)
        partition = report.partition()
        assert partition is not None
        self.produce(topic, value, key, partition, callback, None, stamp, list(headers) if headers else None)

    def _ensure_connected(self, topic: str) -> None:
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._connect(topic))

    async def _connect(self, topic: str) -> None:
        """Find a broker within connect.timeout.ms, or fail what is under way: librdkafka itself tries for ever."""
        seconds, failure = self._settings.own["connect.timeout.ms"], self._failure
        try:
            await asyncio.to_thread(self._find_a_broker, topic, seconds)
        except KafkaException as error:
            LOGGER.debug("no broker found: %s", error)
            if self._failure is not failure:
                return  # what was under way has failed, for another reason
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

    def _find_a_broker(self, topic: str, seconds: float) -> None:
        deadline, failure = monotonic() + seconds, self._failure
        while True:
            left = deadline - monotonic()
            try:
                self.client.list_topics(topic, max(min(left, LOOK_AGAIN), 0.001))
            except KafkaException:
                if left <= LOOK_AGAIN or self._stop or self._failure is not failure:
                    raise
            else:
                return

    def _on_error(self, error: KafkaError) -> None:
        """Librdkafka's error callback, in whichever thread polls."""
        if self._error_cb is not None:
            self._error_cb(error)
        mapped = transport_error(error, f"Kafka at {self._settings.bootstrap_servers}")
        refused = isinstance(mapped, AuthenticationError) and not self._connected
        if isinstance(mapped, AuthenticationError):
            self.refused = mapped
        if isinstance(mapped, TransportError) and (error.fatal() or is_fenced(error) or refused):
            self._call_in_loop(lambda: self.fail(mapped))
        else:
            LOGGER.debug("%s", error)

    def fail(self, error: TransportError) -> None:
        """Report everything that is under way as failed, and drop it."""
        self._failure = error
        while self._waiting:
            batch, start = self._waiting.popleft()
            for place in range(start, batch.count):
                batch.refuse(place, error)
        self._waiting_count = 0
        if not self._stop:
            self.client.purge(in_queue=True, in_flight=True, blocking=False)

    # --- the end -----------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Return once every message that was handed over is confirmed or failed."""
        futures: list[asyncio.Future[Any]] = [batch.future for batch in self._under_way]
        futures += self._sent_singly()
        if futures:
            await asyncio.wait(futures)

    def _sent_singly(self) -> list[asyncio.Future[Receipt]]:
        return [*self._singles.waiting(), *self._lined_up]

    async def give_up(self, seconds: float | None) -> int:
        """Wait for what was sent by `send_one`, and report what takes longer than ``seconds`` as not confirmed."""
        futures = self._sent_singly()
        if not futures:
            return 0
        _, late = await asyncio.wait(futures, timeout=seconds)
        for future in late:
            future.set_exception(
                PublishTimeoutError(
                    f"The producer was closed before the broker confirmed, within {seconds:g} s (close_timeout); the "
                    "broker may have the message all the same."
                )
            )
            if (published := self._lined_up.get(future)) is not None:
                published.cancel()  # nobody waits for it any more, nor has `close` to
        return len(late)

    async def close(self) -> None:
        """Flush within close_timeout, end the thread, and destroy the client."""
        if self._closing is None:
            self._closed = True
            self.takes = False
            self._closing = self._loop.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._connecting is not None and not self._under_way and not self._singles:
            self._connecting.cancel()
        try:
            async with asyncio.timeout(self._settings.close_timeout):
                await self.flush()
        except TimeoutError:
            self.fail(
                PublishTimeoutError(
                    f"The transport was closed before the broker confirmed, within {self._settings.close_timeout:g} s "
                    "(close_timeout); the broker may have the message all the same."
                )
            )
            await self.flush()
        self._stop = True
        self._go_on()
        await asyncio.to_thread(self._destroy)

    def _destroy(self) -> None:
        self._thread.join()
        client = self.client
        if self._is_transactional and not self.is_lost:
            try:
                client.abort_transaction(self._settings.own["transaction.commit.timeout.ms"])
            except KafkaException as error:  # none is open, as a rule
                LOGGER.debug("closing a transactional producer: %s", error)
        client.purge(in_queue=True, in_flight=True, blocking=False)
        with suppress(KafkaException):  # a fatal error
            client.flush(_TAKING_BACK)
        clients = [client]
        del client, self.client, self.produce
        dispose_of(clients).join()
