"""Where one subscription stands in one partition: what is out, what comes again, and how far all is finished."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from heapq import merge
from itertools import chain
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

from commons_events.kafka._raw import RawMessage
from commons_events.message import Headers, Message
from commons_events.transport import Delivery, Outcome, RedeliverySchedule, Settler, TopicPartition

if TYPE_CHECKING:
    from commons_events.kafka._subscription import KafkaSubscription

__all__ = ["KafkaDelivery", "Part", "PartitionState", "Redelivery", "Run", "handed_out", "to_message"]


class Part(NamedTuple):
    """Messages of one partition in the order of the log."""

    id: TopicPartition
    raws: list[RawMessage]


class KafkaDelivery(Delivery):
    """A delivery that reads of librdkafka's message what somebody asks for. It holds little: many are made a second."""

    __slots__ = ("is_open", "made", "raw", "run")

    attempt = 1
    raw: RawMessage
    """The message, as librdkafka gave it."""
    run: Run
    """Those that it was handed out with."""
    is_open: bool
    """Whether it is not finished, and still this subscription's: what is said of it counts."""
    made: Message
    """The message, once somebody has asked for it; unset before."""

    @property
    def message(self) -> Message:  # type: ignore[override]  # made late
        """The message as it lies in the log."""
        try:
            return self.made
        except AttributeError:
            self.made = made = to_message(self.raw)
            return made

    @property
    def value(self) -> bytes:
        """See `Delivery`."""
        return self.raw.value() or b""

    @property
    def key(self) -> bytes | None:
        """See `Delivery`."""
        return self.raw.key()

    @property
    def headers(self) -> Headers:
        """See `Delivery`."""
        return _headers(self.raw)

    @property
    def timestamp(self) -> datetime | None:
        """See `Delivery`."""
        return _timestamp(self.raw)

    @property
    def offset(self) -> int:  # type: ignore[override]  # it stands in the message
        """See `Delivery`."""
        return self.raw.offset()

    @property
    def subscription(self) -> KafkaSubscription:
        """Whose delivery it is."""
        return self.run.state.subscription

    topic = property(attrgetter("run.state.id.topic"), doc="See `Delivery`.")
    partition = property(attrgetter("run.state.id.partition"), doc="See `Delivery`.")
    data = value
    body = value


_NEW = KafkaDelivery.__new__


class Redelivery(KafkaDelivery):
    """One that comes again, or waits behind one of its key that does."""

    __slots__ = ("attempt",)

    def __init__(self, raw: RawMessage, run: Run, attempt: int) -> None:
        self.raw, self.run, self.settler, self.attempt = raw, run, run.state.settler, attempt
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


def handed_out(state: PartitionState, raws: list[RawMessage]) -> Run:
    """Deliveries of these messages, for the first time."""
    run, settler, new = Run(state), state.settler, _NEW
    deliveries = run.deliveries
    for raw in raws:  # every instruction counts
        delivery = new(KafkaDelivery)  # what an __init__ would do, without the call
        delivery.raw, delivery.run, delivery.settler = raw, run, settler
        delivery.outcome, delivery.is_open = None, True
        deliveries.append(delivery)
    run.left = len(deliveries)
    state.runs[run] = None
    return run


def to_message(raw: RawMessage) -> Message:
    """Librdkafka's message as ours."""
    return Message(raw.topic(), raw.value(), raw.key(), _headers(raw), _timestamp(raw))


def _timestamp(raw: RawMessage) -> datetime | None:
    kind, milliseconds = raw.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else datetime.fromtimestamp(milliseconds / 1000, UTC)


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
        return merge(first, sorted(self.returned))

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
            del self.returned[delivery.offset]
        else:
            self.finished(delivery.run, 1)

    def put_back(self, delivery: KafkaDelivery, due: float, attempt: int) -> None:
        """Let a delivery come again at ``due``, before anything of its key that was not delivered yet."""
        offset = delivery.offset
        self.close(delivery)
        self.returned[offset] = Redelivery(delivery.raw, self.again, attempt)
        self.redeliveries.put_back(offset, delivery.key, due)

    def admit(self, raws: list[RawMessage]) -> list[RawMessage]:
        """What of new messages may be handed out: those that were not received before, nor wait behind their key."""
        admitted: list[RawMessage] = []
        held = self.redeliveries.held
        for raw in raws:
            offset, key = raw.offset(), raw.key()
            if self.next is not None and offset < self.next:
                continue
            self.next = offset + 1
            if key is not None and key in held:  # it waits until those of its key that come again are finished with
                self.returned[offset] = Redelivery(raw, self.again, 1)
                self.redeliveries.park(offset, key)
            else:
                admitted.append(raw)
        return admitted

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
