"""What a consumer's thread has polled, sorted into the stream that its subscription takes from."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple, cast

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as ClientMessage

from commons_events.errors import CommonsEventsError
from commons_events.kafka._deliveries import Part
from commons_events.kafka._errors import DELETED, UNREACHABLE, transport_error
from commons_events.kafka._raw import ERROR, PARTITION, RawMessage
from commons_events.kafka._settings import LOGGER
from commons_events.transport import TopicPartition as PartitionId

__all__ = ["TOGETHER", "Arrival", "Assigned", "Intake", "Reached", "Sought", "ids"]

MOST_AHEAD = 10_000
"""Messages that are handed over ahead of the user …"""
BYTES_AHEAD = 64 << 20
"""… and about their bytes."""
TOGETHER = 5_000
"""Messages that are handed over at once: each hand-over wakes the event loop, and takes the interpreter from it."""
_SAMPLED = 7
"""Of so many messages one is measured: which one moves on, since messages may come in a pattern."""
_BYTES_TOGETHER = 1 << 20
"""About how many bytes of messages are kept because one of them is unfinished."""


def ids(partitions: Iterable[TopicPartition]) -> list[PartitionId]:
    """The client's partitions as ours."""
    return [PartitionId(p.topic, p.partition) for p in partitions]


def _place(raw: RawMessage) -> tuple[str, int]:
    return raw.topic(), raw.partition()


class Assigned(NamedTuple):
    """In the stream of what arrives: from here on these partitions are ours."""

    partitions: list[PartitionId]
    number: int
    """Which assignment it is, counted from 1."""


class Sought(NamedTuple):
    """In the stream of what arrives: from here on this partition goes on at ``offset``."""

    partition: PartitionId
    offset: int
    number: int
    """Which seek it is, counted from 1."""


class Reached(NamedTuple):
    """In the stream of what arrives: the end of a partition is at ``offset``."""

    partition: PartitionId
    offset: int


Arrival = Part | Reached | Assigned | Sought | CommonsEventsError


class Intake:
    """The stream of what arrives. The consumer's user, one thread at a time, puts in; the event loop takes out."""

    def __init__(self, topics: Sequence[str]) -> None:
        self.arrived: deque[Arrival] = deque()
        self._sorted: list[Arrival] = []
        """What is to be handed over next."""
        self.handed_over = 0
        """Messages put into the stream so far."""
        self.taken = 0
        """How many of them the loop has handed out or dropped; it counts them itself."""
        self.most_together = TOGETHER
        """How many messages may be handed out as one `Run`."""
        self.most_ahead = MOST_AHEAD
        """How many may be ahead of the user: fewer once they were seen to be large."""
        self._named = frozenset(topics)
        """What a subscription is to by its name; all other topics are there by a pattern, and may go."""
        self._only_topic = topics[0] if len(topics) == 1 and topics[0][0] != "^" else None
        """What all messages are of, if that is known."""
        self._mean = 0
        """About how many bytes a message has, rather more than less."""
        self._assigned: set[PartitionId] = set()
        """All that were ever assigned …"""
        self._only: PartitionId | None = None
        """… and the one, where it is the only one: all messages are of it."""
        self.unheard: set[PartitionId] = set()
        """Partitions of which nothing was heard since they were assigned: neither a message nor their end."""

    @property
    def ahead(self) -> int:
        """Messages that the loop has yet to take."""
        return self.handed_over - self.taken

    def expect(self, partitions: Sequence[PartitionId]) -> None:
        """Messages of these may come from now on: they are assigned."""
        self._assigned.update(partitions)
        self._only = next(iter(self._assigned)) if len(self._assigned) == 1 else None
        self.unheard.update(partitions)

    def hand_over(self, *arrivals: Arrival) -> bool:
        """Put what was sorted, and these, into the stream; whether there was anything."""
        if not self._sorted and not arrivals:
            return False
        self.arrived.extend((*self._sorted, *arrivals))
        self._sorted.clear()
        return True

    def sort(self, batch: Sequence[ClientMessage]) -> None:
        """Sort what was polled, to be handed over.

        Raises:
            KafkaException: the client is at its end.
        """
        raws = cast("list[RawMessage]", batch)
        start = 0
        if any(map(ERROR, raws)):
            for place, raw in enumerate(raws):
                error = raw.error()
                if error is not None:
                    self._sort_messages(raws[start:place])
                    self._take_error(raw, error)
                    start = place + 1
        self._sort_messages(raws[start:] if start else raws)

    def _sort_messages(self, raws: list[RawMessage]) -> None:
        if not raws:
            return
        if self._only is not None:
            parts = [Part(self._only, raws)]
        elif self._only_topic and len(partitions := {*map(PARTITION, raws)}) == 1:  # as it is most often
            parts = [Part(PartitionId(self._only_topic, *partitions), raws)]
        else:
            parts = [Part(PartitionId(*place), list(same)) for place, same in groupby(raws, _place)]
        self._sorted += parts
        if self.unheard:
            self.unheard.difference_update([part.id for part in parts])
        sample = raws[self.handed_over % _SAMPLED :: _SAMPLED] or raws
        # A few that are large are not in every sample.
        self._mean = mean = max(sum(map(len, sample)) // len(sample), self._mean * 3 // 4)
        self.most_ahead = min(MOST_AHEAD, max(BYTES_AHEAD // (mean + 1), 2))
        self.most_together = min(TOGETHER, max(_BYTES_TOGETHER // (mean + 1), 1))
        self.handed_over += len(raws)

    def _is_named(self, topic: str) -> bool:
        return topic in self._named and topic[0] != "^"

    def _take_error(self, raw: RawMessage, error: KafkaError) -> None:
        code = error.code()
        topic = raw.topic()
        if code == KafkaError._PARTITION_EOF:
            reached = Reached(PartitionId(topic, raw.partition()), raw.offset())
            self.unheard.discard(reached.partition)
            self._sorted.append(reached)
        elif error.fatal() or code == KafkaError._FATAL:
            raise KafkaException(error)
        elif code in UNREACHABLE or error.retriable() or (code in DELETED and topic and not self._is_named(topic)):
            LOGGER.debug("%s", error)
        else:
            self._sorted.append(
                transport_error(error, f"Topic {topic!r}" if topic and code in DELETED else "Kafka consumer")
            )
