"""Where one subscription stands in one partition: what is out, what comes again, and how far all is finished."""

from __future__ import annotations

from datetime import UTC, datetime
from heapq import heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

from commons_events.kafka._raw import RawMessage
from commons_events.message import Headers, Message
from commons_events.transport import Delivery, Outcome, Settler, TopicPartition

if TYPE_CHECKING:
    from commons_events.kafka._subscription import KafkaSubscription

__all__ = ["KafkaDelivery", "PartitionState"]


class KafkaDelivery(Delivery):
    """A delivery whose `Message` is made when somebody asks for it. It holds little: many are made a second."""

    __slots__ = ("_message", "raw", "state")

    def __init__(self, raw: RawMessage, state: PartitionState, offset: int, attempt: int = 1) -> None:
        self.raw = raw
        self.state = state
        self.settler: Settler = state.subscription
        self.offset = offset
        self.attempt = attempt
        self.outcome: Outcome | None = None

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
        return self.state.subscription

    topic = property(attrgetter("state.id.topic"), doc="See `Delivery`.")
    partition = property(attrgetter("state.id.partition"), doc="See `Delivery`.")

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
    not counted up to; ``unfinished`` holds what was received and is not finished, in the order of the log, and the
    position is the first of it.
    """

    __slots__ = (
        "assignment",
        "attempts",
        "committed",
        "due",
        "held",
        "id",
        "next",
        "out",
        "owned",
        "parked",
        "schedule",
        "subscription",
        "unfinished",
    )

    def __init__(
        self, id: TopicPartition, subscription: KafkaSubscription, next: int | None = None, assignment: int = 0
    ) -> None:
        self.id = id
        self.subscription = subscription
        self.assignment = assignment
        """The number of the assignment with which it came."""
        self.owned = True
        """False once the partition is to go elsewhere, or is being sought in: nothing of it is handed out any more."""
        self.next = next
        """The offset behind the last one that was received; None before the first."""
        self.committed: int | None = None
        """What the broker was told last."""
        self.unfinished: dict[int, KafkaDelivery] = {}
        """The delivery of each offset that counts: one that is not in here is stale."""
        self.out = 0
        """How many of them are with the user."""
        self.attempts: dict[int, int] = {}
        """The attempt that comes next, where it is not the first."""
        self.schedule: list[tuple[float, int]] = []
        """Heap of (time, offset) of what comes again."""
        self.held: dict[bytes, list[int]] = {}
        """For each key with something to come again: a heap of its offsets, which are delivered in that order."""
        self.due: dict[int, float] = {}
        self.parked = 0
        """How many were never handed out, since an earlier one of their key comes again first."""

    def position(self) -> int | None:
        """The offset at which the group goes on: all before it are finished."""
        for offset in self.unfinished:
            return offset
        return self.next

    def is_out(self, delivery: KafkaDelivery) -> bool:
        """Whether settling this delivery has any effect."""
        return delivery.offset is not None and self.unfinished.get(delivery.offset) is delivery

    def finish(self, delivery: KafkaDelivery) -> bool:
        """Count a delivery as finished; False where it is stale, and counts no more."""
        offset = delivery.offset
        assert offset is not None
        if self.unfinished.get(offset) is not delivery:
            return False
        del self.unfinished[offset]
        self.out -= 1
        if self.attempts:
            self.attempts.pop(offset, None)
        return True

    def put_back(self, delivery: KafkaDelivery, due: float, attempt: int) -> None:
        """Let a delivery come again at ``due``, before anything of its key that was not delivered yet."""
        offset = delivery.offset
        assert offset is not None
        again = KafkaDelivery(delivery.raw, self, offset, attempt)
        self.unfinished[offset] = again
        key = delivery.raw.key()
        if key is not None:
            heappush(self.held.setdefault(key, []), offset)
            self.due[offset] = due
        heappush(self.schedule, (due, offset))

    def park(self, delivery: KafkaDelivery, key: bytes) -> None:
        """Keep a delivery behind what comes again of its key."""
        assert delivery.offset is not None
        self.unfinished[delivery.offset] = delivery
        heappush(self.held[key], delivery.offset)
        self.parked += 1

    def pop_due(self, now: float) -> KafkaDelivery | None:
        """The next delivery that comes again by now, or None."""
        while self.schedule and self.schedule[0][0] <= now:
            offset = heappop(self.schedule)[1]
            delivery = self.unfinished.get(offset)
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
        self.unfinished = {}
        self.out = self.parked = 0
        self.attempts, self.held, self.due, self.schedule = {}, {}, {}, []
