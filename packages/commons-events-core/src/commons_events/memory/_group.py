"""Consumer groups: who has which partition, what is out, what comes again and when."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from itertools import count, repeat

from commons_events.memory._log import Partition, Topic
from commons_events.memory._loops import Signal, call_in_loop
from commons_events.message import Message
from commons_events.transport import Delivery, OffsetTracker, RedeliverySchedule, Settler, TopicPartition

__all__ = ["Group", "Member", "MemoryDelivery", "PartitionState"]

_tokens = count(1)


class MemoryDelivery(Delivery):
    """A delivery that knows where its group's state is, without keeping its subscription alive through it."""

    __slots__ = ("state", "token")

    def __init__(
        self,
        message: Message,
        settler: Settler,
        partition: int,
        offset: int,
        attempt: int,
        state: PartitionState,
        token: int,
    ) -> None:
        self.message = message  # as `Delivery` does, whose own constructor would be a second call
        self.settler = settler
        self.partition = partition
        self.offset = offset
        self.attempt = attempt
        self.outcome = None
        self.state = state
        self.token = token


class PartitionState:
    """Where one group stands in one partition."""

    __slots__ = (
        "attempts", "group", "in_flight", "next_owner", "owner", "partition", "position", "redeliveries",
        "revoke_deadline", "tracker",
    )  # fmt: skip

    def __init__(self, group: Group, partition: Partition, start: int) -> None:
        self.group = group
        self.partition = partition
        self.owner: Member | None = None
        self.next_owner: Member | None = None
        """Set while the owner still has deliveries out: it gets no more, and the partition moves when they are in."""
        self.revoke_deadline = 0.0
        self.reset(start)

    def reset(self, start: int) -> None:
        """Begin at ``start``, with nothing out and nothing to come again."""
        self.tracker = OffsetTracker(start)
        self.position = start
        """The next offset that was never delivered."""
        self.in_flight: dict[int, int] = {}
        """Offset and token of each delivery that is out; a settlement with another token is stale."""
        self.attempts: dict[int, int] = {}
        """The attempt that comes next, where it is not the first."""
        self.redeliveries = RedeliverySchedule()

    def put_back(self, offset: int, due: float) -> None:
        """Let ``offset`` come again at ``due``, before anything of its key that has not been delivered yet."""
        self.redeliveries.put_back(offset, self.partition.messages[offset - self.partition.base].key, due)


@dataclass(eq=False, slots=True)
class Member:
    """One subscription's place in a group."""

    topics: frozenset[str]
    loop: asyncio.AbstractEventLoop
    signal: Signal
    max_unsettled: int
    on_revoke: Callable[[frozenset[TopicPartition]], None] | None
    owned: list[PartitionState] = field(default_factory=list)
    unsettled: int = 0
    paused: bool = False
    gone: bool = False

    def take(self, limit: int, now: float, settler: Settler) -> list[MemoryDelivery]:
        """Up to ``limit`` deliveries: first what comes again, then new messages in the order of publishing."""
        limit = min(limit, self.max_unsettled - self.unsettled)
        if limit <= 0 or self.paused:
            return []
        batch: list[MemoryDelivery] = []
        token = next(_tokens)  # one for all, since no offset is in a batch twice
        heads: list[PartitionState] = []
        topics: set[Topic] = set()
        in_runs = True
        for state in self.owned:
            if state.next_owner is not None:
                continue
            if state.redeliveries:
                in_runs = False
                while len(batch) < limit and (again := state.redeliveries.pop_due(now)) is not None:
                    batch += _deliver(state, again, again + 1, settler, token)
            partition = state.partition
            if state.position < partition.end:
                heads.append(state)
                topics.add(partition.topic)
        if heads and in_runs and len(topics) == 1:
            while heads and len(batch) < limit:
                batch += _take_runs(heads, limit - len(batch), settler, token)
                heads = [state for state in heads if state.position < state.partition.end]
        elif heads and len(batch) < limit:
            _take_new(batch, heads, limit, settler, token)
        self.unsettled += len(batch)
        return batch

    def next_due(self) -> float | None:
        """When something of this member's comes again or a partition is taken over, at the earliest."""
        times = (state.redeliveries.next_due for state in self.owned if state.next_owner is None)
        return min((time for time in times if time is not None), default=None)


def _take_runs(heads: list[PartitionState], limit: int, settler: Settler, token: int) -> list[MemoryDelivery]:
    """New messages of one topic's partitions, in the order of publishing: each partition's in one go.

    A topic numbers its messages, so those of a span of numbers are the next ones: each has its place in it.
    """
    if len(heads) == 1:
        position = heads[0].position
        return _deliver(heads[0], position, min(position + limit, heads[0].partition.end), settler, token)
    first = min(state.partition.sequence[state.position - state.partition.base] for state in heads)
    span = min(limit, sum(state.partition.end - state.position for state in heads))
    places: list[MemoryDelivery | None] = [None] * span
    for state in heads:
        numbers, base = state.partition.sequence, state.partition.base
        at = state.position - base
        end = bisect_left(numbers, first + span, at, min(at + span, len(numbers)))
        if end == at:
            continue
        run = _deliver(state, base + at, base + end, settler, token)
        place = numbers[at] - first
        if numbers[end - 1] - first == place + end - at - 1:
            places[place : place + end - at] = run
        else:
            for number, delivery in zip(numbers[at:end], run, strict=True):
                places[number - first] = delivery
    return [delivery for delivery in places if delivery is not None]


def _take_new(
    batch: list[MemoryDelivery], states: list[PartitionState], limit: int, settler: Settler, token: int
) -> None:
    """The same for several topics, by the place that each message has in its own; and where something comes again."""
    heads = [
        (state.partition.sequence[state.position - state.partition.base], index, state)
        for index, state in enumerate(states)
    ]
    heapify(heads)
    while heads and len(batch) < limit:
        _, index, state = heads[0]
        partition = state.partition
        offset = state.position
        state.position = offset + 1
        at = offset + 1 - partition.base
        if at < len(partition.sequence):
            heapreplace(heads, (partition.sequence[at], index, state))
        else:
            heappop(heads)
        held = state.redeliveries.held
        if held:
            key = partition.messages[at - 1].key
            if key is not None and key in held:
                state.redeliveries.park(offset, key)
                continue
        batch += _deliver(state, offset, offset + 1, settler, token)


def _deliver(state: PartitionState, start: int, end: int, settler: Settler, token: int) -> list[MemoryDelivery]:
    """Deliveries of the offsets from ``start`` up to ``end``, which are out from now on."""
    partition = state.partition
    offsets = range(start, end)
    state.in_flight.update(dict.fromkeys(offsets, token))
    state.position = max(state.position, end)
    return list(
        map(
            MemoryDelivery,
            partition.messages[start - partition.base : end - partition.base],
            repeat(settler),
            repeat(partition.id.partition),
            offsets,
            [state.attempts.get(offset, 1) for offset in offsets] if state.attempts else repeat(1),
            repeat(state),
            repeat(token),
        )
    )


class Group:
    """Members that share the partitions of their topics. All methods are called under the broker's lock."""

    def __init__(self, id: str, *, start: str, lasting: bool, revoke_timeout: float) -> None:
        self.id = id
        self.lasting = lasting
        """Whether the group's positions outlive its members."""
        self.members: list[Member] = []
        self.states: dict[TopicPartition, PartitionState] = {}
        self._start = start
        self._revoke_timeout = revoke_timeout

    def open_topic(self, topic: Topic) -> None:
        """Give the group a position in each partition of ``topic``, if it has none yet."""
        for partition in topic.partitions:
            if partition.id not in self.states:
                state = PartitionState(self, partition, partition.base if self._start == "earliest" else partition.end)
                self.states[partition.id] = state
                partition.group_states.append(state)

    def close_topic(self, topic: Topic) -> None:
        """Forget the group's positions in ``topic``."""
        for partition in topic.partitions:
            state = self.states.pop(partition.id, None)
            if state is not None:
                partition.group_states.remove(state)
                if state.owner is not None:
                    state.owner.owned.remove(state)
                    state.owner.unsettled -= len(state.in_flight)
                state.in_flight = {}  # settling one of these does nothing any more

    def join(self, member: Member, now: float) -> None:
        """Take a member in."""
        self.members.append(member)
        self.rebalance(now)

    def leave(self, member: Member, now: float) -> None:
        """Let a member go; what it had out comes again at once, as its next attempt."""
        if member.gone:
            return
        member.gone = True
        self.members.remove(member)
        for state in self.states.values():
            if state.next_owner is member:
                state.next_owner = None
        for state in list(member.owned):
            self._return_in_flight(state, now)
            self._move(state, None)
        self.rebalance(now)
        member.signal.set()

    def rebalance(self, now: float) -> None:
        """Share the partitions out evenly, moving as few as possible."""
        for member in [m for m in self.members if m.loop.is_closed()]:
            self.leave(member, now)  # its asyncio.run has ended: nobody will ever settle what it has
        revoked: dict[int, tuple[Member, set[TopicPartition]]] = {}
        for topic in sorted({id.topic for id in self.states}):
            states = [state for id, state in self.states.items() if id.topic == topic]
            for state, target in _assign(states, [m for m in self.members if topic in m.topics]):
                if state.owner is None or (state.owner is not target and not state.in_flight):
                    state.next_owner = None
                    self._move(state, target)
                elif state.owner is target:
                    state.next_owner = None
                elif state.next_owner is None and target is not None:
                    state.next_owner = target
                    state.revoke_deadline = now + self._revoke_timeout
                    _, ids = revoked.setdefault(id(state.owner), (state.owner, set()))
                    ids.add(state.partition.id)
                else:
                    state.next_owner = target
        for owner, ids in revoked.values():
            if owner.on_revoke is not None:
                call_in_loop(owner.loop, _bind(owner.on_revoke, frozenset(ids)))

    def hand_over(self, state: PartitionState) -> None:
        """Give the partition to its next owner, now that nothing of it is out any more."""
        target, state.next_owner = state.next_owner, None
        self._move(state, target)

    def take_over_late(self, now: float) -> float | None:
        """Move what its owner did not finish in time; returns when to look again."""
        deadline: float | None = None
        for state in self.states.values():
            if state.next_owner is None:
                continue
            if state.revoke_deadline <= now:
                self._return_in_flight(state, now)
                self.hand_over(state)
            elif deadline is None or state.revoke_deadline < deadline:
                deadline = state.revoke_deadline
        return deadline

    def wake(self, topic: str) -> None:
        """Let the members look that may have something new in ``topic``."""
        for member in self.members:
            if topic in member.topics:
                member.signal.set()

    def _return_in_flight(self, state: PartitionState, now: float) -> None:
        if state.owner is not None:
            state.owner.unsettled -= len(state.in_flight)
        for offset in state.in_flight:
            state.attempts[offset] = state.attempts.get(offset, 1) + 1
            state.put_back(offset, now)
        state.in_flight = {}

    def _move(self, state: PartitionState, target: Member | None) -> None:
        if state.owner is not None:
            state.owner.owned.remove(state)
        state.owner = target
        if target is not None:
            target.owned.append(state)
            target.signal.set()


def _bind(callback: Callable[[frozenset[TopicPartition]], None], ids: frozenset[TopicPartition]) -> Callable[[], None]:
    return lambda: callback(ids)


def _assign(states: list[PartitionState], members: list[Member]) -> Iterable[tuple[PartitionState, Member | None]]:
    """Each partition's owner to be: as even as can be, and the present one where that stays even."""
    if not members:
        return [(state, None) for state in states]
    least, extra = divmod(len(states), len(members))
    room = {id(m): least for m in members}
    assigned: list[tuple[PartitionState, Member | None]] = []
    homeless: list[PartitionState] = []
    for state in states:
        owner = state.owner
        if owner is None or id(owner) not in room:
            homeless.append(state)
        elif room[id(owner)] > 0:
            room[id(owner)] -= 1
            assigned.append((state, owner))
        elif room[id(owner)] == 0 and extra > 0:
            room[id(owner)] = -1
            extra -= 1
            assigned.append((state, owner))
        else:
            homeless.append(state)
    for member in members:
        while room[id(member)] > 0 and homeless:
            room[id(member)] -= 1
            assigned.append((homeless.pop(), member))
    for member in members:
        if homeless and room[id(member)] == 0:
            room[id(member)] = -1
            assigned.append((homeless.pop(), member))
    return assigned
