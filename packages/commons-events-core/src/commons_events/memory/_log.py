"""What a topic keeps: a log a partition, appended at one end and reclaimed at the other."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from zlib import crc32

from commons_events.memory._loops import complete
from commons_events.message import Message, PublishResult, Receipt, Receipts
from commons_events.runtime import Runtime
from commons_events.transport import TopicPartition

if TYPE_CHECKING:
    from commons_events.memory._group import PartitionState

__all__ = ["Partition", "PendingBatch", "Topic"]


class Partition:
    """Messages in offset order; the first stored one has offset ``base``."""

    __slots__ = ("base", "group_states", "id", "messages", "sequence", "topic")

    def __init__(self, topic: Topic, index: int) -> None:
        self.topic = topic
        self.id = TopicPartition(topic.name, index)
        self.base = 0
        self.messages: list[Message] = []
        self.sequence = array("Q")
        """For each message its place among all of the topic, so that who reads several partitions can merge them."""
        self.group_states: list[PartitionState] = []
        """Where each group stands in this partition."""

    @property
    def end(self) -> int:
        """The offset that the next message will get."""
        return self.base + len(self.messages)

    def finished_by_all(self) -> int:
        """How many of the stored messages, from the first on, every group has finished; 0 where there is no group."""
        if not self.group_states:
            return 0
        return max(0, min(state.tracker.committed for state in self.group_states) - self.base)

    def drop(self, count: int) -> int:
        """Forget the first ``count`` messages; returns the bytes that were freed."""
        freed = sum(payload_size(message) for message in self.messages[:count])
        del self.messages[:count]
        del self.sequence[:count]
        self.base += count
        return freed

    def offset_at(self, time: datetime) -> int:
        """The offset of the first message with a timestamp at or after ``time``, else the end."""
        for index, message in enumerate(self.messages):
            if message.timestamp is not None and message.timestamp >= time:
                return self.base + index
        return self.end


class PendingBatch:
    """A publish call that is not confirmed yet: results fill in as its messages find room."""

    __slots__ = ("_missing", "future", "results")

    def __init__(self, future: asyncio.Future[Sequence[PublishResult]]) -> None:
        self.results: list[PublishResult] = []
        """One a message that was looked at, in their order."""
        self._missing = 0
        self.future = future

    def postpone(self) -> int:
        """Leave a place for the next message's result; returns the place, for `confirm`."""
        self.results.append(_UNKNOWN)
        self._missing += 1
        return len(self.results) - 1

    def confirm(self, index: int, result: PublishResult) -> None:
        """Note the result of a message that was postponed."""
        self.results[index] = result
        self._missing -= 1

    def complete(self) -> None:
        """Hand the results over once they are all there."""
        if self._missing == 0:
            complete(self.future, self.results)


_UNKNOWN = Receipt("")
_tuple = tuple.__new__  # half the time that a NamedTuple's own constructor takes


class Topic:
    """Partitions, their bounds, and the publishers that wait for room."""

    __slots__ = ("bytes", "count", "name", "partitions", "reclaim_at", "reserved", "round_robin", "sequence", "waiting")

    def __init__(self, name: str, partitions: int) -> None:
        self.name = name
        self.partitions = [Partition(self, index) for index in range(partitions)]
        self.count = 0
        self.bytes = 0
        self.reserved = 0
        """Delayed messages that are confirmed but not visible yet; they have their room already."""
        self.sequence = 0
        self.round_robin = 0
        self.reclaim_at = 0
        """The count at which finished messages are looked for again."""
        self.waiting: deque[tuple[PendingBatch, int, Message, float | None]] = deque()
        """What found no room, in order: its batch and place there, the message, and when it is due if delayed."""

    def append(self, message: Message, runtime: Runtime) -> Receipt:
        """Store a message at the end of the partition that it asks for, else of its key's, else of the next in turn."""
        partitions = self.partitions
        _, value, key, _, timestamp, asked_for = message
        if asked_for is not None:
            index = asked_for
        elif key is not None:
            index = crc32(key) % len(partitions)
        else:
            self.round_robin = index = (self.round_robin + 1) % len(partitions)
        if timestamp is None:
            message = message._replace(timestamp=runtime.now())
        partition = partitions[index]
        stored = partition.messages
        offset = partition.base + len(stored)
        stored.append(message)
        self.sequence = sequence = self.sequence + 1
        partition.sequence.append(sequence)
        self.count += 1
        self.bytes += len(value or b"") + len(key or b"")  # `payload_size`
        return _tuple(Receipt, (self.name, index, offset, None))

    def append_all(self, messages: Sequence[Message], keys: Sequence[bytes] | None, size: int) -> Receipts:
        """`append` for several that ask for no partition and are stamped.

        Those without keys, of which no order is promised, lie together: an equal part in each partition.

        Args:
            messages: all of this topic.
            keys: theirs; None where none has one.
            size: bytes of values and keys together.
        """
        offsets: list[int] = []
        indices: list[int] = []
        number = self.sequence + 1
        if keys is None:
            part = -(-len(messages) // len(self.partitions))
            for start in range(0, len(messages), part):
                self.round_robin = index = (self.round_robin + 1) % len(self.partitions)
                partition, run = self.partitions[index], messages[start : start + part]
                end = partition.end
                offsets += range(end, end + len(run))
                indices += [index] * len(run)
                partition.messages += run
                partition.sequence.extend(range(number + start, number + start + len(run)))
        else:
            count = len(self.partitions)
            for message, key in zip(messages, keys, strict=True):
                index = crc32(key) % count
                partition = self.partitions[index]
                stored = partition.messages
                indices.append(index)
                offsets.append(partition.base + len(stored))
                stored.append(message)
                partition.sequence.append(number)
                number += 1
        self.sequence += len(messages)
        self.count += len(messages)
        self.bytes += size
        return Receipts(self.name, indices, offsets)

    def reclaim(self, keep: int) -> int:
        """Forget finished messages, all but about ``keep`` of them; returns how many."""
        finished = [partition.finished_by_all() for partition in self.partitions]
        excess = sum(finished) - keep
        before = self.count
        for partition, count in zip(self.partitions, finished, strict=True):
            if excess <= 0:
                break
            dropped = min(count, -(-excess * count // sum(finished)))
            self.bytes -= partition.drop(dropped)
            self.count -= dropped
        return before - self.count


def payload_size(message: Message) -> int:
    """The bytes that count towards a topic's bound: those of value and key."""
    return len(message.value or b"") + len(message.key or b"")
