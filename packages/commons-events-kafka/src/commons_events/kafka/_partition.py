"""Where one subscription stands in one partition: what is out, what comes again, and how far all is finished."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from heapq import merge
from itertools import chain, repeat
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

from commons_events.kafka._raw import HEADERS, KEY, OFFSET, TIMESTAMP, VALUE, RawMessage
from commons_events.message import Headers, Message
from commons_events.transport import Delivery, Outcome, RedeliverySchedule, Settler, TopicPartition

if TYPE_CHECKING:
    from commons_events.kafka._subscription import KafkaSubscription

__all__ = ["KafkaDelivery", "Part", "PartitionState", "Redelivery", "Run", "handed_out", "to_message"]


class Part(NamedTuple):
    """Messages of one partition in the order of the log, by columns.

    librdkafka's objects are let go of as soon as they are read: thousands of them at a time would keep Python's garbage
    collector busier than everything else is.
    """

    id: TopicPartition
    offsets: list[int]
    values: list[bytes | None]
    keys: list[bytes | None]
    timestamps: list[int | None]
    """Milliseconds since 1970."""
    raws: list[RawMessage] | None
    """The objects themselves where they have headers, which are read when somebody asks for them."""
    is_plain: bool
    """Whether they have values, and no headers."""

    @classmethod
    def of(cls, id: TopicPartition, raws: list[RawMessage]) -> Part:
        """These messages, which are all of one partition."""
        values = list(map(VALUE, raws))
        has_headers = any(map(HEADERS, raws))
        return cls(
            id,
            list(map(OFFSET, raws)),
            values,
            list(map(KEY, raws)),
            [None if kind == TIMESTAMP_NOT_AVAILABLE else time for kind, time in map(TIMESTAMP, raws)],
            raws if has_headers else None,
            not has_headers and all(values),
        )

    def cut(self, start: int, end: int) -> Part:
        """A part of it."""
        place = slice(start, end)
        return Part(
            self.id,
            self.offsets[place],
            self.values[place],
            self.keys[place],
            self.timestamps[place],
            None if self.raws is None else self.raws[place],
            self.is_plain,
        )

    def only(self, places: list[int]) -> Part:
        """The messages at these places."""
        return Part(
            self.id,
            [self.offsets[place] for place in places],
            [self.values[place] for place in places],
            [self.keys[place] for place in places],
            [self.timestamps[place] for place in places],
            None if self.raws is None else [self.raws[place] for place in places],
            self.is_plain,
        )


class KafkaDelivery(Delivery):
    """A delivery whose `Message` is made when somebody asks for it. It holds little: many are made a second."""

    __slots__ = ("is_open", "is_tombstone", "key", "made", "raw", "run", "time", "value")

    attempt = 1
    key: bytes | None
    value: bytes
    is_tombstone: bool
    """Set where it is one."""
    time: int | None
    """Milliseconds since 1970."""
    raw: RawMessage | None
    """Who knows the headers; None where there are none."""
    run: Run
    """Those that it was handed out with."""
    is_open: bool
    """Whether it is not finished, and still this subscription's: what is said of it counts."""
    made: Message | None
    """The message, once somebody has asked for it."""

    @property
    def message(self) -> Message:  # type: ignore[override]  # made late
        """The message as it lies in the log."""
        made = self.made
        if made is None:
            value = None if getattr(self, "is_tombstone", False) else self.value
            self.made = made = Message(self.topic, value, self.key, self.headers, _timestamp(self.time))
        return made

    @property
    def headers(self) -> Headers:
        """See `Delivery`."""
        made = self.made
        if made is not None:
            return made.headers
        return () if self.raw is None else _headers(self.raw)

    @property
    def subscription(self) -> KafkaSubscription:
        """Whose delivery it is."""
        return self.run.state.subscription

    topic = property(attrgetter("run.state.id.topic"), doc="See `Delivery`.")
    data = property(attrgetter("value"), doc="See `Delivery`.")
    body = property(attrgetter("value"), doc="See `Delivery`.")


_NEW = KafkaDelivery.__new__


class Redelivery(KafkaDelivery):
    """One that comes again, or waits behind one of its key that does."""

    __slots__ = ("attempt",)

    def __init__(self, of: KafkaDelivery, run: Run, attempt: int) -> None:
        self.raw, self.time, self.key, self.value = of.raw, of.time, of.key, of.value
        if getattr(of, "is_tombstone", False):
            self.is_tombstone = True
        self.made = None
        self.run = run
        self.settler = run.state.settler
        self.partition, self.offset = of.partition, of.offset
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


def handed_out(state: PartitionState, part: Part) -> Run:
    """Deliveries of these messages, for the first time."""
    run, settler, partition, new = Run(state), state.settler, state.id.partition, _NEW
    run.deliveries = deliveries = []
    if part.is_plain:  # the most frequent case, in which every instruction counts
        for offset, value, key, time in zip(part.offsets, part.values, part.keys, part.timestamps, strict=True):
            delivery = new(KafkaDelivery)  # what an __init__ would do, without the call
            delivery.run, delivery.offset, delivery.key, delivery.time = run, offset, key, time
            delivery.settler, delivery.outcome, delivery.is_open, delivery.partition = settler, None, True, partition
            delivery.made, delivery.raw, delivery.value = None, None, value  # type: ignore[assignment]  # none is None
            deliveries.append(delivery)
    else:
        raws: Iterable[RawMessage | None] = repeat(None) if part.raws is None else part.raws
        columns = zip(part.offsets, part.values, part.keys, part.timestamps, raws, strict=False)
        for offset, value, key, time, raw in columns:
            delivery = new(KafkaDelivery)
            delivery.run, delivery.offset, delivery.key, delivery.time = run, offset, key, time
            delivery.settler, delivery.outcome, delivery.is_open, delivery.partition = settler, None, True, partition
            delivery.made, delivery.raw, delivery.value = None, raw, value or b""
            if value is None:
                delivery.is_tombstone = True
            deliveries.append(delivery)
    run.left = len(deliveries)
    state.runs[run] = None
    return run


def to_message(raw: RawMessage) -> Message:
    """Librdkafka's message as ours."""
    kind, milliseconds = raw.timestamp()
    timestamp = _timestamp(None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds)
    return Message(raw.topic(), raw.value(), raw.key(), _headers(raw), timestamp)


def _timestamp(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _headers(raw: RawMessage) -> Headers:
    given = raw.headers()
    if not given:
        return ()
    if all(map(_VALUE, given)):
        return tuple(given)  # type: ignore[arg-type]  # no value is None
    return tuple([(name, value or b"") for name, value in given])


_VALUE = itemgetter(1)


class PartitionState:
    """Where one subscription stands in one partition. Belongs to the event loop.

    A log has gaps: transaction markers, aborted and compacted messages have offsets that nobody ever receives. So it is
    not counted up to; the position is the first offset of what was received and is not finished.
    """

    __slots__ = (
        "again",
        "assignment",
        "committed",
        "id",
        "next",
        "owned",
        "redeliveries",
        "returned",
        "runs",
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
        self.redeliveries = RedeliverySchedule()

    @property
    def out(self) -> int:
        """How many deliveries are with the user."""
        return self.again.left + sum(run.left for run in self.runs)

    def unfinished(self) -> Iterator[int]:
        """The offsets that were received and are not finished, in the order of the log."""
        first = (delivery.offset for run in self.runs for delivery in run.deliveries if delivery.is_open)
        return merge(first, sorted(self.returned))  # type: ignore[arg-type]  # ours have an offset

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
        self.returned[offset] = Redelivery(delivery, self.again, attempt)
        self.redeliveries.put_back(offset, delivery.key, due)

    def admit(self, part: Part) -> Part:
        """What of new messages may be handed out: those that were not received before, nor wait behind their key."""
        admitted: list[int] = []
        waiting: list[int] = []
        held = self.redeliveries.held
        for place, (offset, key) in enumerate(zip(part.offsets, part.keys, strict=True)):
            if self.next is not None and offset < self.next:
                continue
            self.next = offset + 1
            (waiting if key is not None and key in held else admitted).append(place)
        if waiting:
            # They wait until those of their keys that come again are finished with.
            apart = handed_out(self, part.only(waiting))
            del self.runs[apart]
            for delivery in apart.deliveries:
                assert delivery.offset is not None
                assert delivery.key is not None
                self.returned[delivery.offset] = Redelivery(delivery, self.again, 1)
                self.redeliveries.park(delivery.offset, delivery.key)
        return part.only(admitted)

    def pop_due(self, now: float) -> Redelivery | None:
        """The next delivery that comes again by now, which is then with the user; or None."""
        offset = self.redeliveries.pop_due(now)
        if offset is None:
            return None
        self.again.left += 1
        return self.returned[offset]

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
        self.redeliveries = RedeliverySchedule()
