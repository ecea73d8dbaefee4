"""Where one subscription stands in one partition: what is out, what comes again, and how far all is finished."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import heappop, heappush, merge
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

from commons_events.kafka._raw import RawMessage
from commons_events.message import Headers, Message
from commons_events.transport import Delivery, Outcome, Settler, TopicPartition

if TYPE_CHECKING:
    from commons_events.kafka._subscription import KafkaSubscription

__all__ = ["KafkaDelivery", "PartitionState", "Redelivery", "Run"]


class KafkaDelivery(Delivery):
    """A delivery whose `Message` is made when somebody asks for it. It holds little: many are made a second."""

    __slots__ = ("_message", "is_open", "raw", "run")

    attempt = 1
    raw: RawMessage
    run: Run
    """Those that it was handed out with."""
    is_open: bool
    """Whether it is not finished, and still this subscription's: what is said of it counts."""

    @property
    def message(self) -> Message:  # type: ignore[override]  # made late
        """The message as it lies in the log."""
        try:
            return self._message
        except AttributeError:
            self._message: Message = to_message(self.raw)
            return self._message

    @property
    def subscription(self) -> KafkaSubscription:
        """Whose delivery it is."""
        return self.run.state.subscription

    topic = property(attrgetter("run.state.id.topic"), doc="See `Delivery`.")
    partition = property(attrgetter("run.state.id.partition"), doc="See `Delivery`.")

    @property
    def key(self) -> bytes | None:
        """See `Delivery`."""
        return self.raw.key()

    @property
    def value(self) -> bytes:
        """See `Delivery`."""
        return self.raw.value() or b""

    data = value
    body = value


class Redelivery(KafkaDelivery):
    """One that comes again, or waits behind one of its key that does."""

    __slots__ = ("attempt",)

    def __init__(self, raw: RawMessage, run: Run, offset: int, attempt: int = 1) -> None:
        self.raw = raw
        self.run = run
        self.settler = run.state.settler
        self.offset = offset
        self.attempt = attempt
        self.outcome: Outcome | None = None
        self.is_open = True


class Run:
    """Deliveries of one partition that were handed out together, in the order of the log.

    Most often they are also finished together, so they are counted; each knows for itself whether it is finished.
    """

    __slots__ = ("deliveries", "left", "state")

    def __init__(self, state: PartitionState) -> None:
        self.state = state
        self.deliveries: list[KafkaDelivery] = []
        self.left = 0
        """How many are with the user, unfinished."""


def to_message(raw: RawMessage) -> Message:
    """Librdkafka's message as ours."""
    kind, milliseconds = raw.timestamp()
    timestamp = None if kind == TIMESTAMP_NOT_AVAILABLE else datetime.fromtimestamp(milliseconds / 1000, UTC)
    given = raw.headers()
    headers: Headers = tuple([(name, value or b"") for name, value in given]) if given else ()
    return Message(raw.topic(), raw.value(), raw.key(), headers, timestamp)


class PartitionState:
    """Where one subscription stands in one partition. Belongs to the event loop.

    A log has gaps: transaction markers, aborted and compacted messages have offsets that nobody ever receives. So it is
    not counted up to; the position is the first offset of what was received and is not finished.
    """

    __slots__ = (
        "again",
        "assignment",
        "committed",
        "due",
        "held",
        "id",
        "next",
        "owned",
        "parked",
        "returned",
        "runs",
        "schedule",
        "settler",
        "subscription",
    )

    def __init__(
        self, id: TopicPartition, subscription: KafkaSubscription, next: int | None = None, assignment: int = 0
    ) -> None:
        self.id = id
        self.subscription = subscription
        self.settler: Settler = subscription.settler
        self.assignment = assignment
        """The number of the assignment with which it came."""
        self.owned = True
        """False once the partition is to go elsewhere, or is being sought in: nothing of it is handed out any more."""
        self.next = next
        """The offset behind the last one that was received; None before the first."""
        self.committed: int | None = None
        """What the broker was told last."""
        self.runs: dict[Run, None] = {}
        """What was handed out for the first time, and of which something is unfinished, in the order of the log."""
        self.again = Run(self)
        """What was handed out again."""
        self.returned: dict[int, Redelivery] = {}
        """By their offsets: what comes again, was handed out again, or is parked."""
        self.schedule: list[tuple[float, int]] = []
        """Heap of (time, offset) of what comes again."""
        self.held: dict[bytes, list[int]] = {}
        """For each key with something to come again: a heap of its offsets, which are delivered in that order."""
        self.due: dict[int, float] = {}
        self.parked = 0
        """How many were never handed out, since an earlier one of their key comes again first."""

    @property
    def out(self) -> int:
        """How many deliveries are with the user."""
        return self.again.left + sum(run.left for run in self.runs)

    def unfinished(self) -> Iterator[int]:
        """The offsets that were received and are not finished, in the order of the log."""
        first = (delivery.offset for run in self.runs for delivery in run.deliveries if delivery.is_open)
        return merge(first, sorted(self.returned))  # type: ignore[return-value]  # ours have an offset

    def position(self) -> int | None:
        """The offset at which the group goes on: all before it are finished."""
        return next(self.unfinished(), self.next)

    def finished(self, run: Run, count: int) -> None:
        """That many deliveries of ``run``, which has those of the first time, have been closed."""
        run.left = left = run.left - count
        if not left:
            del self.runs[run]
            run.deliveries = []

    def close(self, delivery: KafkaDelivery) -> None:
        """Count one that is open as finished."""
        delivery.is_open = False
        if delivery.run is self.again:
            self.again.left -= 1
            del self.returned[delivery.offset]  # type: ignore[arg-type]  # ours have an offset
        else:
            self.finished(delivery.run, 1)

    def put_back(self, delivery: KafkaDelivery, due: float, attempt: int) -> None:
        """Let a delivery come again at ``due``, before anything of its key that was not delivered yet."""
        offset = delivery.offset
        assert offset is not None
        self.close(delivery)
        self.returned[offset] = Redelivery(delivery.raw, self.again, offset, attempt)
        key = delivery.raw.key()
        if key is not None:
            heappush(self.held.setdefault(key, []), offset)
            self.due[offset] = due
        heappush(self.schedule, (due, offset))

    def admit(self, messages: list[RawMessage], offsets: list[int]) -> tuple[list[RawMessage], list[int]]:
        """Which of new messages may be handed out: those that were not received before, nor wait behind their key."""
        admitted: list[RawMessage] = []
        places: list[int] = []
        for raw, offset in zip(messages, offsets, strict=True):
            if self.next is not None and offset < self.next:
                continue
            self.next = offset + 1
            key = raw.key() if self.held else None
            if key is not None and key in self.held:
                # It waits until those of its key that come again are finished with.
                self.returned[offset] = Redelivery(raw, self.again, offset)
                heappush(self.held[key], offset)
                self.parked += 1
            else:
                admitted.append(raw)
                places.append(offset)
        return admitted, places

    def pop_due(self, now: float) -> Redelivery | None:
        """The next delivery that comes again by now, or None."""
        while self.schedule and self.schedule[0][0] <= now:
            offset = heappop(self.schedule)[1]
            delivery = self.returned.get(offset)
            if delivery is None:
                continue
            key = delivery.raw.key()
            if key is None:
                return delivery
            queue = self.held.get(key)
            if queue is None or queue[0] != offset or self.due.get(offset, 0.0) > now:
                continue  # an earlier one of its key goes first, or it has an entry for a later time
            heappop(queue)
            if self.due.pop(offset, None) is None:
                self.parked -= 1
            if queue:
                heappush(self.schedule, (self.due.get(queue[0], 0.0), queue[0]))
            else:
                del self.held[key]
            return delivery
        return None

    def at(self, offset: int) -> PartitionState:
        """The same partition, to go on at ``offset``."""
        return PartitionState(self.id, self.subscription, offset, self.assignment)

    def forget(self) -> None:
        """Nothing of it is handed out any more, what is out is stale, and there is no position to commit."""
        self.owned = False
        self.next = None
        for delivery in chain(self.returned.values(), *(run.deliveries for run in self.runs)):
            delivery.is_open = False
        for run in self.runs:
            run.deliveries = []
        self.runs, self.again, self.returned = {}, Run(self), {}
        self.parked = 0
        self.held, self.due, self.schedule = {}, {}, []
