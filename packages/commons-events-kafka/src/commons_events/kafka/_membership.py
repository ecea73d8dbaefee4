"""A consumer's place: which partitions it has, by its group or, without one, all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from itertools import islice
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from commons_events.errors import AuthenticationError, ConnectionLostError
from commons_events.kafka._brokers import LOOK_AGAIN, ask_about_topics
from commons_events.kafka._errors import DELETED, transport_error
from commons_events.kafka._intake import Assigned, ids
from commons_events.kafka._settings import LOGGER, KafkaSettings
from commons_events.transport import SubscribeRequest
from commons_events.transport import TopicPartition as PartitionId

if TYPE_CHECKING:
    from commons_events.kafka._poller import Poller

__all__ = ["UNHEARD", "Membership"]

_LOOK_FOR_PARTITIONS = 30.0
"""Seconds between looks for new partitions, where no group does that."""
UNHEARD = 20.0
"""Seconds in which each partition that was assigned has to tell of a message or of its end."""
_UNHEARD_AT_ONCE = 3
"""Of how many of them the leaders are asked, since each that does not answer takes a second."""
_SILENT_MEMBER = 1.0
"""Seconds after which a member has its place that was given nothing, where nobody says so: in a KIP-848 group, and
while no topic matches its patterns, since librdkafka joins then once there is one."""
_LEAVING = 0.05
"""Seconds for which a client is polled that is to leave its group."""


class Membership:
    """What a consumer's group gives to it and takes from it. All is called by who has the consumer's turn."""

    def __init__(self, poller: Poller, settings: KafkaSettings, request: SubscribeRequest) -> None:
        self._poller = poller
        self._settings = settings
        self._request = request
        self.grouped = request.group_id is not None
        self.config = settings.consumer(request.group_id or "commons-events-no-group")
        """Of the client."""
        self.answers_later = _is_incremental(self.config)
        """Whether what the group wants may be answered after the call that has brought it."""
        self.refusal: AuthenticationError | None = None
        """What was heard of a sign-in that was refused."""
        self.joined: Future[None] = Future()
        self._silent_for = inf
        """Seconds after which we have joined, where nobody says so."""
        self._assignments = 0
        self._known: dict[str, int] = {}
        """How many partitions each topic had when we came."""
        self._starts: dict[PartitionId, int] = {}
        """Without a group: where each partition began."""
        self._ends: dict[PartitionId, int] = {}
        """Where partitions ended when we joined, if they were not assigned by then."""
        self.hear_until = inf
        """By when something should have been heard of each partition that we have."""
        self._looked_for_partitions = monotonic()
        self._unanswered: list[tuple[Callable[[Consumer, list[TopicPartition]], None], list[TopicPartition]]] = []
        """What the group told us in the loop's turn, to be answered in the thread's."""

    # --- joining -----------------------------------------------------------------------------------------------------

    def look_at_topics(self) -> None:
        """Make sure that a broker answers, and that the topics are there.

        Raises:
            ConnectionLostError: no broker answered.
            AuthenticationError: they refused the sign-in.
            UnknownTopicError: a topic is not there.
        """
        seconds = self._settings.own["connect.timeout.ms"]
        matches = has_pattern = False
        for topic in self._request.topics:
            try:
                pattern = topic.startswith("^")
                there = ask_about_topics(
                    self._poller.consumer, None if pattern else topic, seconds, lambda: self.refusal
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
        if self.config.get("group.protocol") == "consumer" or not matches:
            self._silent_for = _SILENT_MEMBER
        elif has_pattern:
            self._silent_for = seconds

    def _creates_topics(self, error: KafkaError) -> bool:
        return error.code() in DELETED and str(self.config["allow.auto.create.topics"]).lower() == "true"

    def join(self) -> None:
        """Join the group, and go on until our place is known; without a group, take all partitions."""
        if not self.grouped:
            self._assign_all()
            self.joined.set_result(None)
            return
        self._subscribe()
        began = monotonic()
        while not self._poller.is_ending and not self.joined.done():
            self._poller.poll_one()
            if monotonic() - began > self._silent_for and not self.joined.done():
                self._note_ends()
                self.joined.set_result(None)

    def _note_ends(self) -> None:
        """Who subscribes at the end gets what is sent from now on, also where the group is slow to give anything."""
        if self._request.start == "latest":
            try:
                for topic, count in self._known.items():
                    for partition in range(count):
                        self._ends[PartitionId(topic, partition)] = self._end_of(
                            self._poller.consumer, topic, partition
                        )
            except KafkaException as error:
                LOGGER.debug("the end of a partition is told when it is assigned: %s", error)

    @staticmethod
    def _end_of(consumer: Consumer, topic: str, partition: int) -> int:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1])

    def join_again(self, before: Consumer) -> Callable[[], None]:
        """A new client comes in place of this one. Returns what is to be called once it is there."""
        had = before.assignment()
        self._poller.intake.unheard.clear()
        if self.grouped:
            self.on_lost(before, had)
            return self._subscribe
        had = before.position(had)
        for partition in had:
            if partition.offset < 0:
                partition.offset = self._starts[PartitionId(partition.topic, partition.partition)]

        def assign() -> None:
            self._poller.consumer.assign(had)
            self._expect_to_hear_of(had)

        return assign

    def leave(self) -> None:
        """The client is about to close: leave the group, where librdkafka would not.

        Of a member without partitions its close tells nobody, and the group waits until the session times out. A static
        member does not leave.
        """
        consumer = self._poller.consumer
        if self.grouped and "group.instance.id" not in self.config:
            with suppress(KafkaException):  # it is closed in any case
                if not consumer.assignment():
                    consumer.unsubscribe()
                    consumer.poll(_LEAVING)

    def _subscribe(self) -> None:
        self._poller.consumer.subscribe(
            list(self._request.topics), on_assign=self.on_assign, on_revoke=self.on_revoke, on_lost=self.on_lost
        )

    def _assign_all(self) -> None:
        """Without a group: all partitions, those that are there now at the start that was asked for."""
        consumer = self._poller.consumer
        partitions = []
        for topic, count in self._known.items():
            for partition in range(count):
                offset = OFFSET_BEGINNING
                if self._request.start == "latest":
                    offset = self._end_of(consumer, topic, partition)
                partitions.append(TopicPartition(topic, partition, offset))
        consumer.assign(partitions)
        self._tell_assigned(partitions)

    def _tell_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._assignments += 1
        self._expect_to_hear_of(partitions)
        self._starts |= {PartitionId(p.topic, p.partition): p.offset for p in partitions}
        self._poller.hand_over(Assigned(ids(partitions), self._assignments))

    # --- now and then ------------------------------------------------------------------------------------------------

    @property
    def has_to_look(self) -> bool:
        """Whether it is time for `look`."""
        now = monotonic()
        return (now > self.hear_until and bool(self._poller.intake.unheard)) or (
            not self.grouped and now > self._looked_for_partitions + _LOOK_FOR_PARTITIONS
        )

    def look(self) -> None:
        """See whether all partitions that we have are heard of, and, without a group, whether there are new ones."""
        if monotonic() > self.hear_until and self._poller.intake.unheard:
            self._look_for_unheard()
        else:
            self._looked_for_partitions = monotonic()
            try:
                self._assign_new()
            except KafkaException as error:
                LOGGER.debug("looking for new partitions: %s", error)

    def _assign_new(self) -> None:
        for topic, count in self._known.items():
            found = self._poller.consumer.list_topics(topic, timeout=5).topics[topic]
            more = [TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(count, len(found.partitions))]
            if more:
                self._known[topic] = len(found.partitions)
                self._poller.consumer.incremental_assign(more)
                self._tell_assigned(more)

    def _expect_to_hear_of(self, partitions: Sequence[TopicPartition]) -> None:
        self._poller.intake.expect(ids(partitions))
        self.hear_until = monotonic() + UNHEARD

    def _look_for_unheard(self) -> None:
        """Begin again where a partition's leader answers, and its messages are not fetched.

        librdkafka asks its group once where to begin, and waits without end where the answer is lost with the broker.
        """
        self.hear_until = monotonic() + UNHEARD
        for topic, partition in islice(self._poller.intake.unheard, _UNHEARD_AT_ONCE):
            try:
                self._poller.consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=LOOK_AGAIN)
            except KafkaException as error:
                LOGGER.debug("nothing is heard of %s/%d, whose leader does not answer: %s", topic, partition, error)
            else:
                self._poller.begin_again(
                    f"nothing was heard of {topic}/{partition} for {UNHEARD:g} s, and its leader answers"
                )
                return

    # --- what the group wants, called back where the client is polled ------------------------------------------------

    def on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """These are ours from now on."""
        if self._is_left_for_later(self.on_assign, consumer, partitions) or not self._poller.is_current(consumer):
            return
        try:
            if self._request.start == "latest" and partitions:
                self._start_at_the_end(consumer, partitions)
        except KafkaException as error:
            LOGGER.warning("the end of a partition could not be told, so its group starts at the beginning: %s", error)
        self._tell_assigned(partitions)
        if not self.joined.done():
            self.joined.set_result(None)

    def _start_at_the_end(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Commit the end as the position of partitions that the group has never seen, but for those that are new."""
        seen = consumer.committed([TopicPartition(p.topic, p.partition) for p in partitions], timeout=10)
        ends = []
        for partition in seen:
            is_new = partition.partition >= self._known.get(partition.topic, 1 << 31)
            end = self._ends.pop(PartitionId(partition.topic, partition.partition), None)
            if partition.offset < 0 and not is_new:
                if end is None:
                    end = self._end_of(consumer, partition.topic, partition.partition)
                ends.append(TopicPartition(partition.topic, partition.partition, end))
        if ends:
            consumer.commit(offsets=ends, asynchronous=False)

    def on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """These are to go to another member, once we have finished with them."""
        if self._is_left_for_later(self.on_revoke, consumer, partitions):
            return
        if not self._poller.is_current(consumer) or not partitions:
            return  # closing has told the broker what there is to tell
        self._poller.intake.unheard.difference_update(ids(partitions))
        done: Future[list[TopicPartition]] = Future()
        self._poller.tell_revoked(ids(partitions), self._assignments, done)
        try:
            positions = done.result(self._settings.own["revoke.timeout.ms"] + 5)
        except FutureTimeoutError:
            LOGGER.warning("partitions leave while the event loop is busy: what it finished since may come again")
            return
        if positions:
            try:
                self._poller.commit(positions)
            except KafkaException as error:
                LOGGER.warning("partitions leave uncommitted, what was finished in them comes again: %s", error)

    def on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """These have gone to another member."""
        if self._is_left_for_later(self.on_lost, consumer, partitions):
            return
        if self._poller.is_current(consumer):
            self._poller.intake.unheard.difference_update(ids(partitions))
            self._poller.tell_revoked(ids(partitions), self._assignments, None)

    def _is_left_for_later(
        self,
        change: Callable[[Consumer, list[TopicPartition]], None],
        consumer: Consumer,
        partitions: list[TopicPartition],
    ) -> bool:
        """In the loop's turn, leave what the group wants to the thread's, since it takes waiting."""
        if not self._poller.is_loops_turn:
            return False
        self._unanswered.append((change, partitions))
        # librdkafka may be answered later. Its client answers at once, unless one of these calls was made. The opposite
        # of an answer is none, and does nothing for no partition.
        (consumer.incremental_unassign if change == self.on_assign else consumer.incremental_assign)([])
        return True

    @property
    def has_to_answer(self) -> bool:
        """Whether `answer` has something to do."""
        return bool(self._unanswered)

    def answer(self) -> None:
        """In the thread: do what the group wanted in the loop's turn."""
        while self._unanswered:
            change, partitions = self._unanswered.pop(0)
            consumer = self._poller.consumer
            change(consumer, partitions)
            try:
                if change == self.on_assign:
                    consumer.incremental_assign(partitions)
                else:
                    consumer.incremental_unassign(partitions)
            except KafkaException as error:
                LOGGER.debug("what the group wanted was overtaken: %s", error)


def _is_incremental(config: Mapping[str, object]) -> bool:
    """Whether partitions come and go by themselves, not all at once, and nothing else is called back that may wait."""
    incremental = config.get("group.protocol") == "consumer" or (
        config.get("partition.assignment.strategy") == "cooperative-sticky"
    )
    return incremental and not any(callable(value) for name, value in config.items() if name != "logger")
