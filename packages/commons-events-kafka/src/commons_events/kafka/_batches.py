"""What a producer has handed to librdkafka at once, and how its delivery reports become results.

A report costs a call from C into Python, and what that call does is most of what a message costs here. So it notes
numbers and counts down; everything else is done once a batch.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import itemgetter, length_hint
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Report

from commons_events.errors import TransportError, UnknownPartitionError
from commons_events.kafka._errors import publish_error
from commons_events.message import Headers, Message, Messages, PublishResult, Receipt, Receipts

if TYPE_CHECKING:
    from commons_events.kafka._publisher import Publisher

__all__ = ["Batch", "Confirmation", "MessageBatch", "ValueBatch", "milliseconds"]

Confirmation = asyncio.Future[Sequence[PublishResult]]
ReportCallback = Callable[[KafkaError | None, Report], None]

_TOPIC = _NAME = itemgetter(0)
_OFFSET = Report.offset
_PARTITION = Report.partition
_VALUE = Report.value
_BLOCK = 64
"""Reports that are looked at together."""


def milliseconds(timestamp: datetime | None) -> int:
    """A message's timestamp as librdkafka takes it, to which 0 is none, and the message's time the present.

    So is one that Kafka can't have, which comes from elsewhere, as through a bridge: it is no reason to lose a message.
    """
    return 0 if timestamp is None else max(round(timestamp.timestamp() * 1000), 0)


class Batch(ABC):
    """Messages that are confirmed together."""

    __slots__ = ("count", "failed", "future", "left", "publisher")

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.future: Confirmation
        self.count = 0
        self.left = 0
        """How many are neither confirmed nor failed."""
        self.failed = False
        """Whether one of them is not confirmed."""

    def begin(self, count: int, future: Confirmation) -> None:
        """Stand for ``count`` messages."""
        self.count = self.left = count
        self.future = future
        self.failed = False

    @abstractmethod
    def hand_over(self, start: int) -> int:
        """Give librdkafka the messages from ``start`` on, until its queue is full; returns how far that went."""

    @abstractmethod
    def note_refusal(self, place: int, error: TransportError) -> None:
        """Remember why a message was never handed over."""

    @abstractmethod
    def results(self) -> Sequence[PublishResult]:
        """One a message, once none is left."""

    @abstractmethod
    def end(self) -> None:
        """Hold nothing any more."""

    def refuse(self, place: int, error: TransportError) -> None:
        """Count a message as failed."""
        self.note_refusal(place, error)
        self.failed = True
        self.left -= 1
        if not self.left:
            self.publisher.complete(self)


class MessageBatch(Batch):
    """Any messages: each has a callback that knows its place. Used again once they are complete."""

    __slots__ = ("callbacks", "found", "messages", "partitions", "topics")

    def __init__(self, publisher: Publisher, capacity: int) -> None:
        super().__init__(publisher)
        self.found: list[Any] = [None] * capacity
        """The offset of each that was confirmed, None where the broker gave none (acks=0); else its error."""
        self.partitions = [0] * capacity
        self.callbacks = _callbacks(self, capacity)
        self.topics: str | list[str] = ""
        self.messages: Sequence[Message] = ()

    def hand_over(self, start: int) -> int:
        """See `Batch`."""
        publisher = self.publisher
        produce, topics, suspicious = publisher.produce, publisher.topics, publisher.suspicious
        messages, names = self.messages, publisher.header_names
        looks = type(messages) is not Messages  # else they were made by a producer, which has looked at the headers
        count = len(messages)  # now: a batch whose last message is refused is complete, and its messages gone
        stamped: datetime | None = None
        stamp = 0
        for place, (message, callback) in enumerate(
            zip(messages[start:] if start else messages, self.callbacks[start:], strict=False), start
        ):
            topic, value, key, headers, timestamp, partition = message
            if partition is None:
                partition = -1
            elif partition < 0:
                self.refuse(place, UnknownPartitionError(f"Topic {topic!r} has no partition {partition}."))
                continue
            if (
                (value is not None and len(value) > suspicious)
                or topic not in topics
                or (looks and headers and not names.issuperset(map(_NAME, headers)))
            ):
                refused = publisher.refusal(message)
                if refused is not None:
                    self.refuse(place, refused)
                    continue
            if timestamp is not stamped:
                stamp = milliseconds(timestamp)
                stamped = timestamp
            try:
                produce(topic, value, key, partition, callback, None, stamp, list(headers) if headers else None)
            except BufferError:
                return place
            except KafkaException as error:
                self.refuse(place, publish_error(error, topic))
        return count

    def fill(self, messages: Sequence[Message], topics: set[str], future: Confirmation) -> None:
        """Stand for these."""
        self.messages = messages
        self.topics = next(iter(topics)) if len(topics) == 1 else list(map(_TOPIC, messages))
        self.begin(len(messages), future)

    def note_refusal(self, place: int, error: TransportError) -> None:
        """See `Batch`."""
        self.found[place] = error

    def results(self) -> Sequence[PublishResult]:
        """See `Batch`."""
        count = self.count
        found, partitions, topics = self.found[:count], self.partitions[:count], self.topics
        if not self.failed:
            return Receipts(topics, partitions, found)
        names = [topics] * count if isinstance(topics, str) else topics
        failure = self.publisher.failure_of
        return [
            Receipt(topic, partition, result) if type(result) is int or result is None else failure(topic, result)
            for topic, partition, result in zip(names, partitions, found, strict=True)
        ]

    def end(self) -> None:
        """See `Batch`."""
        self.topics, self.messages = "", ()


def _callbacks(batch: MessageBatch, capacity: int) -> list[ReportCallback]:
    """For each place a function: a call of it takes half as long as that of an object."""
    callbacks: list[ReportCallback] = []
    publisher, found, partitions = batch.publisher, batch.found, batch.partitions
    for place in range(capacity):

        def report(error: KafkaError | None, message: Report, place: int = place) -> None:
            if error is None:
                found[place] = message.offset()
                partitions[place] = message.partition()  # type: ignore[assignment]  # a report has one
            elif publisher.moving:
                publisher.move(batch.messages[place], batch.callbacks[place], message)
                return
            else:
                found[place] = error
                batch.failed = True
            batch.left = left = batch.left - 1
            if not left or publisher.polled_elsewhere:
                publisher.reported(batch)

        callbacks.append(report)
    return callbacks


class ValueBatch(Batch):
    """Values alone, with one topic, key and headers for all: one callback serves them.

    Which message a report is of is told by the value that it holds: messages that are alike in everything may stand for
    each other. As a rule reports come in the order of the values, which is seen for many of them at once.
    """

    __slots__ = ("headers", "key", "mixed", "offsets", "partitions", "refused", "reports", "topic", "values")

    def __init__(
        self, publisher: Publisher, topic: str, values: Sequence[bytes], key: bytes | None, headers: Headers
    ) -> None:
        super().__init__(publisher)
        self.topic = topic
        self.values = list(values)
        self.key = key
        self.headers: Any = list(headers) if headers else None
        self.offsets: list[int | None] = []
        """Of the first values, all of them confirmed: of those whose reports came in their order …"""
        self.partitions: list[int] = []
        """… and where they are."""
        self.mixed = False
        """Whether the other reports are not in the order of the other values."""
        self.reports: list[Report] = []
        self.refused: dict[int, TransportError] = {}

    def _callback(self) -> ReportCallback:
        publisher, batch, note = self.publisher, self, self.reports.append

        def report(error: KafkaError | None, message: Report) -> None:
            if error is not None:
                if publisher.moving:
                    taken_back = Message(batch.topic, batch.value_of(message), batch.key, batch.headers or ())
                    publisher.move(taken_back, report, message)
                    return
                batch.failed = True
            note(message)
            batch.left = left = batch.left - 1
            if publisher.polled_elsewhere:
                publisher.reported(batch)
            elif not left % _BLOCK:
                batch.look_at_reports()
                if not left:
                    publisher.reported(batch)

        return report

    def look_at_reports(self) -> None:
        """In the event loop: keep what those say that came in the order of the values, and let go of them.

        Memory that is used again while it is in the processor's cache saves a third of a batch's time.
        """
        reports, known = self.reports, len(self.offsets)
        if self.mixed or self.failed or list(map(_VALUE, reports)) != self.values[known : known + len(reports)]:
            self.mixed = True
            return
        self.offsets += map(_OFFSET, reports)
        self.partitions += map(_PARTITION, reports)  # type: ignore[arg-type]  # a report has one
        reports.clear()

    def hand_over(self, start: int) -> int:
        """See `Batch`."""
        produce, topic, key, headers, report = (
            self.publisher.produce,
            self.topic,
            self.key,
            self.headers,
            self._callback(),
        )
        count = len(self.values)
        values = iter(self.values[start:] if start else self.values)
        while True:
            try:
                if headers is None:  # each argument that is not given saves the client some time
                    for value in values:
                        produce(topic, value, key, -1, report)
                else:
                    for value in values:
                        produce(topic, value, key, -1, report, None, 0, headers)
            except BufferError:
                return count - length_hint(values) - 1
            except KafkaException as error:
                self.refuse(count - length_hint(values) - 1, publish_error(error, topic))
            else:
                return count

    @staticmethod
    def value_of(report: Report) -> bytes:
        """The value that a report is of."""
        return report.value() or b""

    def note_refusal(self, place: int, error: TransportError) -> None:
        """See `Batch`."""
        self.refused[place] = error

    def results(self) -> Sequence[PublishResult]:
        """See `Batch`."""
        if self.reports:
            self.look_at_reports()
        if self.reports or self.refused:
            return self._results_by_value()
        partitions = set(self.partitions)
        return Receipts(self.topic, partitions.pop() if len(partitions) == 1 else self.partitions, self.offsets)

    def _results_by_value(self) -> Sequence[PublishResult]:
        reported: defaultdict[bytes, deque[Report]] = defaultdict(deque)
        for report in self.reports:
            reported[self.value_of(report)].append(report)
        partitions, offsets = self.partitions, self.offsets
        results: list[PublishResult] = [
            Receipt(self.topic, partition, offset) for partition, offset in zip(partitions, offsets, strict=True)
        ]
        for place, value in enumerate(self.values[len(offsets) :], len(offsets)):
            refused = self.refused.get(place)
            if refused is not None:
                results.append(refused)
                continue
            report = reported[value].popleft()
            error = report.error()
            if error is not None:
                results.append(self.publisher.failure_of(self.topic, error))
            elif self.failed:
                results.append(Receipt(self.topic, report.partition(), report.offset()))
            else:
                partitions.append(report.partition())  # type: ignore[arg-type]  # a report has one
                offsets.append(report.offset())
        return results if self.failed else Receipts(self.topic, partitions, offsets)

    def end(self) -> None:
        """See `Batch`."""
        self.values, self.reports, self.offsets, self.partitions = [], [], [], []
