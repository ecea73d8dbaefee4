"""Where one subscription stands in one partition: what is out, what comes again, and how far all is finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import chain
from typing import TYPE_CHECKING

from commons_events.kafka._deliveries import KafkaDelivery, Piece, Redelivery, Run
from commons_events.kafka._raw import RawMessage
from commons_events.transport import RedeliverySchedule, Settler, TopicPartition

if TYPE_CHECKING:
    from commons_events.kafka._subscription import KafkaSubscription

__all__ = ["PartitionState"]


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
        "is_told",
        "least",
        "next",
        "owned",
        "redeliveries",
        "returned",
        "runs",
        "settler",
        "skips",
        "sought",
        "subscription",
    )

    def __init__(self, id: TopicPartition, subscription: KafkaSubscription, assignment: int = 0) -> None:
        self.id = id
        self.subscription = subscription
        self.settler: Settler = subscription.settler
        self.assignment = assignment
        """The number of the assignment with which it came."""
        self.owned = True
        """False once the partition is to go elsewhere: nothing of it is handed out any more."""
        self.sought = 0
        """The number of the seek by which it goes on here."""
        self.skips = False
        """Whether what arrives lies before that place yet, and is dropped."""
        self.next: int | None = None
        """The offset behind the last one that was received; None before the first."""
        self.committed: int | None = None
        """What the broker was told last."""
        self.is_told = False
        """Whether a commit of ours, outside a transaction, may still be under way."""
        self.least = 0
        """What a transaction commits, or has: less is not committed outside of it."""
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

    def hand_out(self, raws: Sequence[RawMessage]) -> Piece:
        """Hand these messages out for the first time."""
        run = Run(self, raws)
        self.runs[run] = None
        return Piece(run, raws, 0, len(raws))

    def unfinished(self) -> Iterator[int]:
        """The offsets that were received and are not finished, in the order of the log."""
        first = chain.from_iterable(run.unfinished() for run in self.runs)
        return merge(first, sorted(self.returned))

    def position(self) -> int | None:
        """The offset at which the group goes on: all before it are finished."""
        return next(self.unfinished(), self.next)

    def finished(self, run: Run, count: int) -> None:
        """That many deliveries of ``run``, which has those of the first time, have been closed."""
        run.left = left = run.left - count
        if not left:
            del self.runs[run]
            run.raws = ()

    def close(self, delivery: KafkaDelivery) -> None:
        """Count one that is open as finished."""
        if isinstance(delivery, Redelivery):
            delivery.is_open = False
            self.again.left -= 1
            del self.returned[delivery.offset]
        else:
            delivery.run.open[delivery.place] = 0
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

    def at(self, offset: int, sought: int) -> PartitionState:
        """The same partition, to go on at ``offset``, which this seek has found."""
        state = PartitionState(self.id, self.subscription, self.assignment)
        state.next, state.sought, state.skips = offset, sought, True
        return state

    def forget(self) -> None:
        """Nothing of it is handed out any more, what is out is stale, and there is no position to commit."""
        self.owned = False
        self.next = None
        for delivery in self.returned.values():
            delivery.is_open = False
        for run in self.runs:
            run.forget()
        self.runs, self.again, self.returned = {}, Run(self), {}
        self.redeliveries = RedeliverySchedule()
