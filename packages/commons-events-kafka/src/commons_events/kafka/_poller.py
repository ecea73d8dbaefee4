"""The thread of a subscription: it polls librdkafka's consumer, and hands over what comes, a batch at a time.

Where much comes it leaves that to the event loop, as long as that comes for more: handing many messages from thread to
thread costs more than taking them from librdkafka.

It goes on polling whatever the event loop does, so that no slow handler makes the group give this member up
(``max.poll.interval.ms``). What it may hand over ahead is bounded: beyond that it takes no more, and where that lasts
it pauses the partitions, which keeps the membership alive.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as ClientMessage

from commons_events.errors import AuthenticationError, CommonsEventsError
from commons_events.kafka._brokers import CUT_OFF, LOOK_AGAIN, LOOK_FOR_BROKERS, dispose_of, has_a_broker
from commons_events.kafka._errors import transport_error
from commons_events.kafka._intake import TOGETHER, Arrival, Intake, ids
from commons_events.kafka._membership import UNHEARD, Membership
from commons_events.kafka._settings import LOGGER, KafkaSettings
from commons_events.transport import SubscribeRequest
from commons_events.transport import TopicPartition as PartitionId

__all__ = ["Owner", "Poller"]

_IDLE = 0.05
"""Seconds that one poll waits, and so the most that a command or the end waits for the thread."""
_AT_ONCE = 500
"""Messages that are taken from librdkafka at once: fewer objects than the garbage collector takes notice of."""
_PAUSE_AFTER = 0.25
"""Seconds without room after which the partitions are paused."""
T = TypeVar("T")


class Owner(Protocol):
    """What the thread asks of its subscription; each is called in the event loop."""

    def on_arrival(self) -> None:
        """Something lies in `Intake.arrived`."""
        ...

    def on_revoke(
        self, partitions: Sequence[PartitionId], until: int, done: Future[list[TopicPartition]] | None
    ) -> None:
        """Let go of partitions that came with assignment ``until`` or one before.

        A busy loop hears of this after they were assigned anew, and keeps them then. ``done`` gets what is to be
        committed of them, or is None where they are lost.
        """
        ...

    def on_commit_failed(self, partitions: Sequence[PartitionId]) -> None:
        """The broker did not take these positions; they have to be told again."""
        ...


class Poller:
    """The consumer and its thread. ``start``, ``call`` and ``close`` are for the event loop."""

    def __init__(self, settings: KafkaSettings, request: SubscribeRequest, owner: Owner) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._request = request
        self._owner = owner
        self.intake = Intake(request.topics)
        self.membership = Membership(self, settings, request)
        self.consumer: Consumer
        self._client = object()
        """Which of our clients is the present one."""
        self._turn = threading.Lock()
        """Held by who uses the consumer …"""
        self.is_loops_turn = False
        """… which is now and then the event loop."""
        self._is_left_to_loop = False
        self._come_back = threading.Event()
        """Ends what was left to the loop."""
        self._reads = 0
        """How often the loop has read."""
        self._failure: Exception | None = None
        """What it met there, and the thread is to end with."""
        self._waits_for_room = False
        self._room = threading.Event()
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._is_paused = False
        self._look_at = monotonic() + LOOK_FOR_BROKERS
        self._looks = 0
        self._stop: Callable[[], None] | None = None
        self.ended_by: CommonsEventsError | None = None
        """Why the thread has ended by itself."""
        self._thread = threading.Thread(target=self._run, name="commons-events-kafka-poll", daemon=True)

    # --- for the event loop --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, join, and return once our place is known."""
        self._thread.start()
        await asyncio.wrap_future(self.membership.joined)

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` in the thread, between two polls: the client lets one thread in, and others spin."""
        if self.ended_by is not None:
            raise self.ended_by
        future: Future[T] = Future()
        self._commands.append((function, future))
        self._come_back.set()
        if not self._thread.is_alive():
            self._run_commands()
        return await asyncio.wrap_future(future)

    def tell_of_room(self) -> None:
        """Wake the thread where it waits, once it may hand over a good many: a few at a time cost a wake-up each."""
        if self._waits_for_room and self.intake.ahead <= self.intake.most_ahead // 2:
            self._room.set()

    def commit_soon(self, positions: list[TopicPartition]) -> None:
        """Commit without waiting; a failure is told by `Owner.on_commit_failed`."""

        def commit() -> None:
            try:
                self.consumer.commit(offsets=positions, asynchronous=True)
            except KafkaException as error:
                LOGGER.debug("commit: %s", error)
                self._in_loop(self._owner.on_commit_failed, ids(positions))

        self._commands.append((commit, Future()))
        self._come_back.set()

    async def close(self, positions: list[TopicPartition]) -> None:
        """Commit ``positions``, leave the group, and end the thread."""

        def last() -> None:
            if positions:
                self.commit(positions)

        self._stop = last
        self._room.set()
        self._come_back.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def abandon(self) -> None:
        """End without committing anything, as if the process had died, though the group is told."""
        self._stop = lambda: None
        self._room.set()
        self._come_back.set()

    def read(self) -> bool:
        """Take what is there without the thread, where it has left that to the loop; True where something arrived."""
        if not self._is_left_to_loop or not self._turn.acquire(blocking=False):
            return False
        batch: list[ClientMessage] = []
        self.is_loops_turn = True
        try:
            batch = self.consumer.consume(min(_AT_ONCE, self.intake.most_ahead), 0)
            self._take(batch)
        except (CommonsEventsError, KafkaException) as error:
            self._failure = error
        finally:
            self.is_loops_turn = False
            self._turn.release()
        self._reads += 1
        if not batch or self.membership.has_to_answer or self._failure is not None:
            self._is_left_to_loop = False
            self._come_back.set()
        return bool(self.intake.arrived)  # of a batch of errors nothing may

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.consumer = self._new_client()
        except KafkaException as error:
            self.membership.joined.set_exception(transport_error(error, "Making a Kafka consumer"))
            return
        try:
            self.membership.look_at_topics()
            self.membership.join()
            self._poll()
        except CommonsEventsError as error:
            self._report(error)
        except KafkaException as error:
            self._report(transport_error(error, "Kafka consumer"))
        finally:
            if self._stop is None:
                self._stop = lambda: None
            # librdkafka waits for a broker without end, to commit and to leave; a program may end without this thread.
            end = partial(self._end, self._stop)
            ending = threading.Thread(target=end, name="commons-events-kafka-end", daemon=True)
            ending.start()
            ending.join(self._settings.close_timeout)
            if ending.is_alive():
                LOGGER.warning(
                    "no Kafka broker let a consumer go within %g s (close_timeout): what it had finished since its "
                    "last commit may come again",
                    self._settings.close_timeout,
                )
            self._run_commands()

    def _end(self, stop: Callable[[], None]) -> None:
        try:
            stop()
        except KafkaException as error:
            self._report(transport_error(error, "Kafka consumer"))
        finally:
            self.membership.answer()
            self.membership.leave()
            self.consumer.close()

    def _new_client(self) -> Consumer:
        self._client = client = object()

        told = self.membership.config.get("error_cb")

        def on_error(error: KafkaError) -> None:
            if told is not None:
                told(error)
            if client is self._client:
                self._on_error(error)

        return Consumer({**self.membership.config, "error_cb": on_error, "on_commit": self._on_commit})

    def _report(self, error: CommonsEventsError) -> None:
        if not self.membership.joined.done():
            self.membership.joined.set_exception(error)
        elif self._stop is None:
            self.ended_by = error
            self._in_loop(self._owner.on_arrival)
        else:
            LOGGER.warning("closing a Kafka subscription: %s", error)

    def _poll(self) -> None:
        while self._stop is None:
            with self._turn:
                more_is_there = self._poll_once()
            if more_is_there and self.membership.answers_later:
                self._leave_to_loop()

    def _leave_to_loop(self) -> None:
        """Let the event loop read for itself, until it finds nothing, asks for something, or does not come any more."""
        self._is_left_to_loop = True
        if not self.intake.arrived:  # the loop may have taken all before, found that it can't read, and be waiting
            self._in_loop(self._owner.on_arrival)
        while self._stop is None:
            reads = self._reads
            if self._come_back.wait(_IDLE) or self._reads == reads or self.membership.has_to_look:
                break
        self._is_left_to_loop = False
        self._come_back.clear()

    def _poll_once(self) -> bool:
        """Hand over what there is, and do what is due; True where there is likely more."""
        if self._failure is not None:
            raise self._failure
        self.membership.answer()
        if self._commands:
            self._run_commands()
        ahead = self.intake.ahead
        if ahead >= self.intake.most_ahead:
            if not self._is_paused and not self._room_comes():
                self.consumer.pause(self.consumer.assignment())
                self._is_paused = True
            if self._is_paused:
                self.poll_one()
            return False
        if self._is_paused and ahead <= self.intake.most_ahead // 2:
            self.consumer.resume(self.consumer.assignment())
            self._is_paused = False
            self.membership.hear_until = monotonic() + UNHEARD
        if self.membership.has_to_look:
            self.membership.look()
        received, is_all = self._take_all(min(TOGETHER, max(self.intake.most_ahead - ahead, 1)))
        if received:
            self._look_at = monotonic() + LOOK_FOR_BROKERS
        elif monotonic() > self._look_at:
            self._look_for_brokers()
        return not is_all

    def _take_all(self, room: int) -> tuple[int, bool]:
        """Hand over what there is, up to ``room`` messages; wait a little for the first.

        Returns:
            How many there were, and whether that was all.
        """
        batch = self.consumer.consume(min(_AT_ONCE, room), 0) or self._wait_for_one()
        received = 0
        while batch:
            received += len(batch)
            self.intake.sort(batch)
            room = min(room, self.intake.most_ahead)  # fewer, now that they were seen to be large
            if received >= min(_AT_ONCE, room) and self.membership.answers_later:
                break
            batch = self.consumer.consume(min(_AT_ONCE, room - received), 0) if received < room else []
        self.hand_over()
        return received, not batch

    def _wait_for_one(self) -> list[ClientMessage]:
        message = self.consumer.poll(_IDLE)
        return [] if message is None else [message]

    def poll_one(self) -> None:
        """In the thread: hand over the next message, if one comes at once or soon."""
        self._take(self._wait_for_one())

    def _look_for_brokers(self) -> None:
        if has_a_broker(self.consumer, next((t for t in self._request.topics if not t.startswith("^")), None)):
            self._look_at, self._looks = monotonic() + LOOK_FOR_BROKERS, 0
            return
        self._look_at = monotonic() + LOOK_AGAIN
        self._looks += 1
        if self._looks >= CUT_OFF:
            self.begin_again("no Kafka broker is left")

    def begin_again(self, reason: str) -> None:
        """In the thread: put a new client in place of this one; what it had assigned is lost, and comes again."""
        LOGGER.warning("%s: connecting anew to %s", reason, self._settings.bootstrap_servers)
        before, self._looks = self.consumer, 0
        go_on = self.membership.join_again(before)
        self.consumer = self._new_client()
        client = [before]
        del before
        dispose_of(client, leaves=self.membership.grouped)
        self._is_paused = False
        go_on()

    def _room_comes(self) -> bool:
        self._room.clear()
        self._waits_for_room = True
        try:
            return self.intake.ahead <= self.intake.most_ahead // 2 or self._room.wait(_PAUSE_AFTER)
        finally:
            self._waits_for_room = False

    def _take(self, batch: Sequence[ClientMessage]) -> None:
        """Hand over what was polled."""
        self.intake.sort(batch)
        self.hand_over()

    def hand_over(self, *arrivals: Arrival) -> None:
        """In the consumer's turn: put what was sorted, and these, into the stream of what arrives."""
        if self.intake.hand_over(*arrivals) and not self.is_loops_turn:
            self._in_loop(self._owner.on_arrival)

    def tell_revoked(
        self, partitions: Sequence[PartitionId], until: int, done: Future[list[TopicPartition]] | None
    ) -> None:
        """In the thread: have `Owner.on_revoke` called."""
        self._in_loop(self._owner.on_revoke, partitions, until, done)

    def _in_loop(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            if self._stop is None:  # its asyncio.run has ended: nobody will ever take anything
                self._stop = lambda: None

    def _run_commands(self) -> None:
        while self._commands:
            function, future = self._commands.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001  # it is raised where it was asked for
                future.set_exception(error)

    @property
    def is_ending(self) -> bool:
        """Whether the thread is about to end."""
        return self._stop is not None

    def is_current(self, consumer: Consumer) -> bool:
        """Whether this client is in use."""
        return self._stop is None and consumer is self.consumer

    def commit(self, positions: list[TopicPartition]) -> None:
        """Commit and wait for the broker; in the thread."""
        if self.membership.grouped:
            for partition in self.consumer.commit(offsets=positions, asynchronous=False) or ():
                if partition.error is not None:
                    raise KafkaException(partition.error)

    # --- what librdkafka calls back, where it is polled ------------------------------------------------------------

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        failed = [p for p in partitions if error is not None or p.error is not None]
        if failed and self._stop is None:
            LOGGER.debug("commit: %s", error or failed[0].error)
            self._in_loop(self._owner.on_commit_failed, ids(failed))

    def _on_error(self, error: KafkaError) -> None:
        mapped = transport_error(error, f"Kafka at {self._settings.bootstrap_servers}")
        if isinstance(mapped, AuthenticationError):
            self.membership.refusal = mapped
        if error.fatal():
            self._report(mapped)
        else:
            LOGGER.debug("%s", error)
