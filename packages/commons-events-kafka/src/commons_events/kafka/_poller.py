"""The thread of a subscription: it alone polls librdkafka's consumer, and hands over what comes, a batch at a time.

It goes on polling whatever the event loop does, so that no slow handler makes the group give this member up
(``max.poll.interval.ms``). What it may hand over ahead is bounded: beyond that it takes no more, and where that lasts
it pauses the partitions, which keeps the membership alive.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from itertools import groupby, islice
from math import inf
from time import monotonic
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as ClientMessage

from commons_events.errors import AuthenticationError, CommonsEventsError, ConnectionLostError
from commons_events.kafka._brokers import (
    CUT_OFF,
    LOOK_AGAIN,
    LOOK_FOR_BROKERS,
    ask_about_topics,
    dispose_of,
    has_a_broker,
)
from commons_events.kafka._errors import DELETED, UNREACHABLE, transport_error
from commons_events.kafka._partition import Part
from commons_events.kafka._raw import ERROR, PARTITION, RawMessage
from commons_events.kafka._settings import LOGGER, KafkaSettings
from commons_events.transport import SubscribeRequest
from commons_events.transport import TopicPartition as PartitionId

__all__ = ["Arrival", "Assigned", "Owner", "Poller", "Reached", "Sought"]

_IDLE = 0.05
"""Seconds that one poll waits, and so the most that a command or the end waits for the thread."""
_MOST_AHEAD = 10_000
"""Messages that are handed over ahead of the user …"""
_BYTES_AHEAD = 64 << 20
"""… and about their bytes."""
_TOGETHER = 5_000
"""Messages that are handed over at once: each hand-over wakes the event loop, and takes the interpreter from it …"""
_AT_ONCE = 500
"""… and those that are taken from librdkafka at once: fewer objects than the garbage collector takes notice of."""
_BYTES_TOGETHER = 1 << 20
"""About how many bytes of messages are kept because one of them is unfinished."""
_PAUSE_AFTER = 0.25
"""Seconds without room after which the partitions are paused."""
_LOOK_FOR_PARTITIONS = 30.0
"""Seconds between looks for new partitions, where no group does that."""
_UNHEARD = 20.0
"""Seconds in which each partition that was assigned has to tell of a message or of its end."""
_UNHEARD_AT_ONCE = 3
"""Of how many of them the leaders are asked, since each that does not answer takes a second."""
_SILENT_MEMBER = 1.0
"""Seconds after which a member has its place that was given nothing, where nobody says so: in a KIP-848 group, and
while no topic matches its patterns, since librdkafka joins then once there is one."""

T = TypeVar("T")


def _place(raw: RawMessage) -> tuple[str, int]:
    return raw.topic(), raw.partition()


def _ids(partitions: Iterable[TopicPartition]) -> list[PartitionId]:
    return [PartitionId(p.topic, p.partition) for p in partitions]


class Assigned(NamedTuple):
    """In the stream of what arrives: from here on these partitions are ours."""

    partitions: list[PartitionId]
    number: int
    """Which assignment it is, counted from 1."""


class Sought(NamedTuple):
    """In the stream of what arrives: from here on this partition goes on at ``offset``."""

    partition: PartitionId
    offset: int


class Reached(NamedTuple):
    """In the stream of what arrives: the end of a partition is at ``offset``."""

    partition: PartitionId
    offset: int


Arrival = Part | Reached | Assigned | Sought | CommonsEventsError


class Owner(Protocol):
    """What the thread asks of its subscription; each is called in the event loop."""

    def on_arrival(self) -> None:
        """Something lies in `Poller.arrived`."""
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
        self.grouped = request.group_id is not None
        self._config = settings.consumer(request.group_id or "commons-events-no-group")
        self._refusal: AuthenticationError | None = None
        """What was heard of a sign-in that was refused."""
        self._silent_for = inf
        """Seconds after which we have joined, where nobody says so."""
        self.consumer: Consumer
        self.arrived: deque[Arrival] = deque()
        self._gathered: list[Arrival] = []
        self.handed_over = 0
        """Messages put into ``arrived`` so far."""
        self.taken = 0
        """How many of them the loop has handed out or dropped; it counts them itself."""
        self.waits_for_room = False
        self.room = threading.Event()
        self.most_together = _TOGETHER
        """How many messages may be handed out as one `Run`."""
        self._most_ahead = _MOST_AHEAD
        self._only_topic = request.topics[0] if len(request.topics) == 1 and request.topics[0][0] != "^" else None
        """What all messages are of, if that is known."""
        self._assignments = 0
        self._joined: Future[None] = Future()
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._client = object()
        """Which of our clients is the present one."""
        self._known: dict[str, int] = {}
        """How many partitions each topic had when we came."""
        self._starts: dict[PartitionId, int] = {}
        """Without a group: where each partition began."""
        self._unheard: set[PartitionId] = set()
        """Partitions of which nothing was heard since they were assigned: neither a message nor their end …"""
        self._hear_until = inf
        """… and by when that should have been."""
        self._is_paused = False
        self._looked_for_partitions = monotonic()
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
        await asyncio.wrap_future(self._joined)

    async def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` in the thread, between two polls: the client lets one thread in, and others spin."""
        if self.ended_by is not None:
            raise self.ended_by
        future: Future[T] = Future()
        self._commands.append((function, future))
        if not self._thread.is_alive():
            self._run_commands()
        return await asyncio.wrap_future(future)

    def tell_of_room(self) -> None:
        """Wake the thread where it waits, once it may hand over a good many: a few at a time cost a wake-up each."""
        if self.waits_for_room and self.handed_over - self.taken <= self._most_ahead // 2:
            self.room.set()

    def commit_soon(self, positions: list[TopicPartition]) -> None:
        """Commit without waiting; a failure is told by `Owner.on_commit_failed`."""

        def commit() -> None:
            try:
                self.consumer.commit(offsets=positions, asynchronous=True)
            except KafkaException as error:
                LOGGER.debug("commit: %s", error)
                self._in_loop(self._owner.on_commit_failed, _ids(positions))

        self._commands.append((commit, Future()))

    async def close(self, positions: list[TopicPartition]) -> None:
        """Commit ``positions``, leave the group, and end the thread."""

        def last() -> None:
            if positions:
                self.commit(positions)

        self._stop = last
        self.room.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def abandon(self) -> None:
        """End without committing anything, as if the process had died, though the group is told."""
        self._stop = lambda: None
        self.room.set()

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.consumer = self._new_client()
        except KafkaException as error:
            self._joined.set_exception(transport_error(error, "Making a Kafka consumer"))
            return
        try:
            self._look_at_topics()
            self._join()
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
            self.consumer.close()

    def _new_client(self) -> Consumer:
        self._client = client = object()

        def on_error(error: KafkaError) -> None:
            if client is self._client:
                self._on_error(error)

        return Consumer({**self._config, "error_cb": on_error, "on_commit": self._on_commit})

    def _report(self, error: CommonsEventsError) -> None:
        if not self._joined.done():
            self._joined.set_exception(error)
        elif self._stop is None:
            self.ended_by = error
            self._in_loop(self._owner.on_arrival)
        else:
            LOGGER.warning("closing a Kafka subscription: %s", error)

    def _look_at_topics(self) -> None:
        seconds = self._settings.own["connect.timeout.ms"]
        matches = has_pattern = False
        for topic in self._request.topics:
            try:
                pattern = topic.startswith("^")
                there = ask_about_topics(
                    self.consumer, None if pattern else topic, seconds, lambda: self._refusal
                ).topics
                if pattern:
                    # librdkafka and the broker have regular expressions of their own, so this is but a guess.
                    matches = matches or any(re.match(topic, name) for name in there)
                    has_pattern = True
                    continue
                found = there[topic]
            except KafkaException as error:
                raise ConnectionLostError(
                    f"No Kafka broker answered at {self._settings.bootstrap_servers} within {seconds:g} s "
                    f"(connect.timeout.ms): {error}. Check the address, and that the broker runs."
                ) from error
            if found.error is not None and not self._creates_topics(found.error):
                raise transport_error(found.error, f"Topic {topic!r}")
            self._known[topic] = len(found.partitions)
            matches = True
        if self._config.get("group.protocol") == "consumer" or not matches:
            self._silent_for = _SILENT_MEMBER
        elif has_pattern:
            self._silent_for = seconds

    def _creates_topics(self, error: KafkaError) -> bool:
        return error.code() in DELETED and str(self._config["allow.auto.create.topics"]).lower() == "true"

    def _join(self) -> None:
        if not self.grouped:
            self._assign_all()
            self._joined.set_result(None)
            return
        self._subscribe()
        began = monotonic()
        while self._stop is None and not self._joined.done():
            self._take(self._poll_one())
            if monotonic() - began > self._silent_for and not self._joined.done():
                self._joined.set_result(None)

    def _subscribe(self) -> None:
        self.consumer.subscribe(
            list(self._request.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _assign_all(self) -> None:
        """Without a group: all partitions, those that are there now at the start that was asked for."""
        partitions = []
        for topic, count in self._known.items():
            for partition in range(count):
                offset = OFFSET_BEGINNING
                if self._request.start == "latest":
                    offset = self.consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
                partitions.append(TopicPartition(topic, partition, offset))
        self.consumer.assign(partitions)
        self._tell_assigned(partitions)

    def _assign_new(self) -> None:
        for topic, count in self._known.items():
            found = self.consumer.list_topics(topic, timeout=5).topics[topic]
            more = [TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(count, len(found.partitions))]
            if more:
                self._known[topic] = len(found.partitions)
                self.consumer.incremental_assign(more)
                self._tell_assigned(more)

    def _tell_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._assignments += 1
        self._unheard.update(_ids(partitions))
        self._hear_until = monotonic() + _UNHEARD
        self._starts |= {PartitionId(p.topic, p.partition): p.offset for p in partitions}
        self._hand_over(Assigned(_ids(partitions), self._assignments))

    def _poll(self) -> None:
        while self._stop is None:
            if self._commands:
                self._run_commands()
            ahead = self.handed_over - self.taken
            if ahead >= self._most_ahead:
                if not self._is_paused and not self._room_comes():
                    self.consumer.pause(self.consumer.assignment())
                    self._is_paused = True
                if self._is_paused:
                    self._take(self._poll_one())
                continue
            if self._is_paused and ahead <= self._most_ahead // 2:
                self.consumer.resume(self.consumer.assignment())
                self._is_paused = False
                self._hear_until = monotonic() + _UNHEARD
            if self._unheard and monotonic() > self._hear_until:
                self._look_for_unheard()
            if self._take_all(min(_TOGETHER, max(self._most_ahead - ahead, 1))):
                self._look_at = monotonic() + LOOK_FOR_BROKERS
                continue
            if monotonic() > self._look_at:
                self._look_for_brokers()
            if not self.grouped and monotonic() - self._looked_for_partitions > _LOOK_FOR_PARTITIONS:
                self._looked_for_partitions = monotonic()
                try:
                    self._assign_new()
                except KafkaException as error:
                    LOGGER.debug("looking for new partitions: %s", error)

    def _take_all(self, room: int) -> bool:
        """Hand over what there is, up to ``room`` messages; wait a little for the first."""
        batch = self.consumer.consume(min(_AT_ONCE, room), 0) or self._poll_one()
        received = 0
        while batch:
            received += len(batch)
            self._gather(batch)
            room = min(room, self._most_ahead)  # fewer, now that they were seen to be large
            batch = self.consumer.consume(min(_AT_ONCE, room - received), 0) if received < room else []
        self._hand_over()
        return received > 0

    def _poll_one(self) -> list[ClientMessage]:
        message = self.consumer.poll(_IDLE)
        return [] if message is None else [message]

    def _look_for_brokers(self) -> None:
        if has_a_broker(self.consumer, next((t for t in self._request.topics if not t.startswith("^")), None)):
            self._look_at, self._looks = monotonic() + LOOK_FOR_BROKERS, 0
            return
        self._look_at = monotonic() + LOOK_AGAIN
        self._looks += 1
        if self._looks >= CUT_OFF:
            self.begin_again("no Kafka broker is left")

    def _look_for_unheard(self) -> None:
        """Begin again where a partition's leader answers, and its messages are not fetched.

        librdkafka asks its group once where to begin, and waits without end where the answer is lost with the broker.
        """
        self._hear_until = monotonic() + _UNHEARD
        for topic, partition in islice(self._unheard, _UNHEARD_AT_ONCE):
            try:
                self.consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=LOOK_AGAIN)
            except KafkaException as error:
                LOGGER.debug("nothing is heard of %s/%d, whose leader does not answer: %s", topic, partition, error)
            else:
                self.begin_again(f"nothing was heard of {topic}/{partition} for {_UNHEARD:g} s, and its leader answers")
                return

    def begin_again(self, reason: str) -> None:
        """In the thread: put a new client in place of this one; what it had assigned is lost, and comes again."""
        LOGGER.warning("%s: connecting anew to %s", reason, self._settings.bootstrap_servers)
        before, self._looks = self.consumer, 0
        had = before.assignment()
        self._unheard.clear()
        if self.grouped:
            self._on_lost(before, had)
        else:
            had = before.position(had)
            for partition in had:
                if partition.offset < 0:
                    partition.offset = self._starts[PartitionId(partition.topic, partition.partition)]
        self.consumer = self._new_client()
        client = [before]
        del before
        dispose_of(client, leaves=self.grouped)
        self._is_paused = False
        if self.grouped:
            self._subscribe()
        else:
            self.consumer.assign(had)
            self._unheard.update(_ids(had))
            self._hear_until = monotonic() + _UNHEARD

    def _room_comes(self) -> bool:
        self.room.clear()
        self.waits_for_room = True
        try:
            return self.handed_over - self.taken <= self._most_ahead // 2 or self.room.wait(_PAUSE_AFTER)
        finally:
            self.waits_for_room = False

    def _take(self, batch: Sequence[ClientMessage]) -> None:
        """Hand over what was polled."""
        self._gather(batch)
        self._hand_over()

    def _gather(self, batch: Sequence[ClientMessage]) -> None:
        """Sort what was polled into parts, to be handed over."""
        raws = cast("list[RawMessage]", batch)
        start = 0
        if any(map(ERROR, raws)):
            for place, raw in enumerate(raws):
                error = raw.error()
                if error is not None:
                    self._gather_messages(raws[start:place])
                    self._take_error(raw, error)
                    start = place + 1
        self._gather_messages(raws[start:] if start else raws)

    def _gather_messages(self, raws: list[RawMessage]) -> None:
        if not raws:
            return
        partitions = list(map(PARTITION, raws))
        if self._only_topic and partitions.count(partitions[0]) == len(partitions):  # as it is most often
            self._gathered.append(Part(PartitionId(self._only_topic, partitions[0]), raws))
        else:
            for (topic, partition), same in groupby(raws, _place):
                self._gathered.append(Part(PartitionId(topic, partition), list(same)))
        if self._unheard:
            self._unheard.difference_update([part.id for part in self._gathered if isinstance(part, Part)])
        mean = sum(map(len, raws)) // len(raws)
        self._most_ahead = min(_MOST_AHEAD, max(_BYTES_AHEAD // (mean + 1), 2))
        self.most_together = min(_TOGETHER, max(_BYTES_TOGETHER // (mean + 1), 1))
        self.handed_over += len(raws)

    def _take_error(self, raw: RawMessage, error: KafkaError) -> None:
        code = error.code()
        topic = raw.topic()
        if code == KafkaError._PARTITION_EOF:
            reached = Reached(PartitionId(topic, raw.partition()), raw.offset())
            self._unheard.discard(reached.partition)
            self._hand_over(reached)
        elif error.fatal() or code == KafkaError._FATAL:
            raise KafkaException(error)
        elif code in UNREACHABLE or error.retriable() or (code in DELETED and topic and topic[0] == "^"):
            LOGGER.debug("%s", error)
        else:
            self._hand_over(
                transport_error(error, f"Topic {topic!r}" if topic and code in DELETED else "Kafka consumer")
            )

    def _hand_over(self, *arrivals: Arrival) -> None:
        """Put what was gathered, and these, into the stream."""
        if self._gathered or arrivals:
            self.arrived.extend((*self._gathered, *arrivals))
            self._gathered.clear()
            self._in_loop(self._owner.on_arrival)

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

    # --- what librdkafka calls back, in the thread -----------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if not self._is_current(consumer):
            return
        try:
            if self._request.start == "latest" and partitions:
                self._start_at_the_end(consumer, partitions)
        except KafkaException as error:
            LOGGER.warning("the end of a partition could not be told, so its group starts at the beginning: %s", error)
        self._tell_assigned(partitions)
        if not self._joined.done():
            self._joined.set_result(None)

    def _start_at_the_end(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Commit the end as the position of partitions that the group has never seen, but for those that are new."""
        seen = consumer.committed([TopicPartition(p.topic, p.partition) for p in partitions], timeout=10)
        ends = []
        for partition in seen:
            is_new = partition.partition >= self._known.get(partition.topic, 1 << 31)
            if partition.offset < 0 and not is_new:
                end = consumer.get_watermark_offsets(TopicPartition(partition.topic, partition.partition), timeout=10)
                ends.append(TopicPartition(partition.topic, partition.partition, end[1]))
        if ends:
            consumer.commit(offsets=ends, asynchronous=False)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if not self._is_current(consumer) or not partitions:
            return  # closing has told the broker what there is to tell
        self._unheard.difference_update(_ids(partitions))
        done: Future[list[TopicPartition]] = Future()
        self._in_loop(self._owner.on_revoke, _ids(partitions), self._assignments, done)
        try:
            positions = done.result(self._settings.own["revoke.timeout.ms"] + 5)
        except FutureTimeoutError:
            LOGGER.warning("partitions leave while the event loop is busy: what it finished since may come again")
            return
        if positions:
            try:
                self.commit(positions)
            except KafkaException as error:
                LOGGER.warning("partitions leave uncommitted, what was finished in them comes again: %s", error)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if self._is_current(consumer):
            self._unheard.difference_update(_ids(partitions))
            self._in_loop(self._owner.on_revoke, _ids(partitions), self._assignments, None)

    def _is_current(self, consumer: Consumer) -> bool:
        return self._stop is None and consumer is self.consumer

    def commit(self, positions: list[TopicPartition]) -> None:
        """Commit and wait for the broker; in the thread."""
        if self.grouped:
            for partition in self.consumer.commit(offsets=positions, asynchronous=False) or ():
                if partition.error is not None:
                    raise KafkaException(partition.error)

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        failed = [p for p in partitions if error is not None or p.error is not None]
        if failed and self._stop is None:
            LOGGER.debug("commit: %s", error or failed[0].error)
            self._in_loop(self._owner.on_commit_failed, _ids(failed))

    def _on_error(self, error: KafkaError) -> None:
        mapped = transport_error(error, f"Kafka at {self._settings.bootstrap_servers}")
        if isinstance(mapped, AuthenticationError):
            self._refusal = mapped
        if error.fatal():
            self._report(mapped)
        else:
            LOGGER.debug("%s", error)
