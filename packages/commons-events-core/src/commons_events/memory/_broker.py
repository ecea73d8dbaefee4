"""`MemoryBroker`: topics, groups and the lock around them, for all event loops and threads of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count as counting
from typing import TYPE_CHECKING, ClassVar

from commons_events.errors import (
    ClosedError,
    ConfigurationError,
    InvalidTopicError,
    MessageTooLargeError,
    TransactionError,
    TransportError,
    UnknownTopicError,
)
from commons_events.memory._group import Group, Member, MemoryDelivery, PartitionState
from commons_events.memory._log import PendingBatch, Topic, payload_size
from commons_events.memory._loops import complete
from commons_events.message import Message, Messages, PublishResult, Receipt, Receipts, header_bytes
from commons_events.runtime import Runtime, current_runtime
from commons_events.transport import (
    Delivery,
    Outcome,
    Settlement,
    Settler,
    StoredMessage,
    TopicInfo,
    check_topic_name,
)

if TYPE_CHECKING:
    from commons_events.memory._transport import MemorySubscription

__all__ = ["MemoryBroker", "MemoryLimits"]

_ACK = Outcome.ACK  # see `Delivery.ack`


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimits:
    """The bounds of a broker's topics; each can stand in the URL's query (``memory://name?max_messages=1000``)."""

    partitions: int = 8
    """Partitions of a topic that is made on first use."""
    max_messages: int = 2_000_000
    """Messages a topic holds, finished ones included; beyond that publishing waits."""
    max_bytes: int = 2 << 30
    """Bytes of keys and values that a topic holds; beyond that publishing waits."""
    max_message_bytes: int = 64 << 20
    """Bytes of one message's value, key and headers together."""
    retain: int = 100_000
    """Finished messages that a topic keeps, about, for groups that come later."""
    revoke_timeout: float = 30.0
    """Seconds that a member may still settle what it has of a partition that goes to another one."""

    def __post_init__(self) -> None:
        for name in ("partitions", "max_messages", "max_bytes", "max_message_bytes"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"memory broker: {name}={getattr(self, name)} has to be 1 or more.")
        for name in ("retain", "revoke_timeout"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigurationError(
                    f"memory broker: {name}={getattr(self, name)} has to be 0 or more, and finite."
                )


class MemoryBroker:
    """One broker, in this process alone. `get` gives the one of a name; the constructor makes a private one.

    All methods may be called from any thread. Everything is gone with the process.
    """

    _named: ClassVar[dict[str, MemoryBroker]] = {}
    _named_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self, name: str = "private", limits: MemoryLimits | None = None, *, runtime: Runtime | None = None
    ) -> None:
        self.name = name
        self.limits = limits or MemoryLimits()
        self.runtime = runtime or current_runtime()
        self.lock = threading.Lock()
        """Around all that the broker keeps."""
        self._topics: dict[str, Topic] = {}
        self._groups: dict[str, Group] = {}
        self._delayed: list[tuple[float, int, Message]] = []
        self._order = counting()

    @classmethod
    def get(cls, name: str = "default", limits: MemoryLimits | None = None) -> MemoryBroker:
        """The process's broker of this name, made on first use.

        Raises:
            ConfigurationError: the broker exists already with other ``limits``.
        """
        with cls._named_lock:
            broker = cls._named.get(name)
            if broker is None:
                broker = cls._named[name] = cls(name, limits)
        if limits is not None and limits != broker.limits:
            raise ConfigurationError(
                f"The in-process broker {name!r} exists with {broker.limits}, and was asked for with {limits}. "
                "Use another name, or the same limits everywhere."
            )
        return broker

    @classmethod
    def reset_all(cls) -> None:
        """Reset and forget every named broker, so that the next `get` makes a new one: for tests."""
        with cls._named_lock:
            brokers, cls._named = list(cls._named.values()), {}
        for broker in brokers:
            broker.reset()

    def reset(self) -> None:
        """Forget all topics and groups. Open subscriptions are closed, publishers that wait get a ClosedError."""
        with self.lock:
            now = self.runtime.monotonic()
            for group in self._groups.values():
                for member in list(group.members):
                    group.leave(member, now)
            for topic in self._topics.values():
                self._fail_waiting(topic, ClosedError(f"The in-process broker {self.name!r} was reset."))
            self._topics, self._groups, self._delayed = {}, {}, []

    # --- publishing ------------------------------------------------------------------------------------------

    def publish(
        self, messages: Sequence[Message], future: asyncio.Future[Sequence[PublishResult]], *, delay: float = 0.0
    ) -> None:
        """Store messages, or line them up where there is no room; ``future`` gets the results in its own loop."""
        with self.lock:
            if not delay and messages:
                receipts = self._store_all(messages) if len(messages) > 1 else self._store_one(messages[0])
                if receipts is not None:
                    complete(future, receipts)
                    return
            batch = PendingBatch(future)
            results = batch.results
            due = self.runtime.monotonic() + delay if delay else None
            max_size = self.limits.max_message_bytes
            grown: dict[str, Topic] = {}
            for message in messages:
                topic = grown.get(message.topic)
                if topic is None or message.partition is not None or message.size > max_size:
                    refused = self._refusal(message)  # any other message has nothing that could be refused
                    if refused is not None:
                        results.append(refused)
                        continue
                    topic = grown[message.topic] = self._open(message.topic)
                if topic.waiting or not self._has_room(topic):
                    topic.waiting.append((batch, batch.postpone(), message, due))
                elif due is None:
                    results.append(topic.append(message, self.runtime))
                else:
                    results.append(self._delay(topic, message, due))
            for topic in grown.values():
                self._grown(topic)
            batch.complete()

    def _store_one(self, message: Message) -> list[Receipt] | None:
        """Store a message in a topic that is there; None where that takes a closer look."""
        topic = self._topics.get(message.topic)
        if topic is None or topic.waiting or message.partition is not None:
            return None
        if message.size > self.limits.max_message_bytes or not self._has_room(topic):
            return None
        receipt = topic.append(message, self.runtime)
        self._grown(topic)
        return [receipt]

    def _store_all(self, messages: Sequence[Message]) -> Receipts | None:
        """Store a batch for one topic, in one go; None where that has to be looked at message by message."""
        names, values, keys, headers, timestamps, partitions = zip(*messages, strict=True)
        count = len(messages)
        topic = self._topics.get(names[0])
        time = timestamps[0]
        if topic is None or topic.waiting or time is None or names.count(topic.name) < count:
            return None
        if timestamps.count(time) < count or partitions.count(None) < count:
            return None  # what was handed over together has one time; others are rare
        without_keys = keys[0] is None
        if without_keys and keys.count(None) < count:
            return None
        try:
            size = sum(map(len, values)) + (0 if without_keys else sum(map(len, keys)))
        except TypeError:
            return None  # a tombstone, or one without a key among others
        if isinstance(messages, Messages):
            size_of_headers = count * messages.most_header_bytes
        else:
            size_of_headers = sum(map(header_bytes, headers))
        if size + size_of_headers > self.limits.max_message_bytes:
            return None  # all together; one of them may be too large
        if not self._has_room(topic, count, size):
            return None
        receipts = topic.append_all(messages, None if without_keys else keys, size)
        self._grown(topic)
        return receipts

    def _refusal(self, message: Message) -> TransportError | None:
        if message.size > self.limits.max_message_bytes:
            return MessageTooLargeError(
                f"A message for topic {message.topic!r} has {message.size:,} bytes (value, key and headers); the "
                f"in-process broker takes {self.limits.max_message_bytes:,}. Send less, or raise max_message_bytes."
            )
        if message.topic not in self._topics:
            try:
                check_topic_name(message.topic)
            except InvalidTopicError as error:
                return error
        if message.partition is not None:
            partitions = len(self._open(message.topic).partitions)
            if not 0 <= message.partition < partitions:
                return InvalidTopicError(
                    f"Topic {message.topic!r} has partitions 0 to {partitions - 1}, not {message.partition}."
                )
        return None

    def _delay(self, topic: Topic, message: Message, due: float) -> Receipt:
        order = next(self._order)
        heappush(self._delayed, (due, order, message))
        topic.reserved += 1
        return Receipt(topic.name, id=f"delayed-{order}")

    def _release_delayed(self, now: float) -> None:
        grown: dict[str, Topic] = {}
        while self._delayed and self._delayed[0][0] <= now:
            message = heappop(self._delayed)[2]
            topic = self._topics.get(message.topic)
            if topic is not None:  # it may have been deleted meanwhile, with all that was to come
                topic.reserved -= 1
                topic.append(message, self.runtime)
                grown[topic.name] = topic
        for topic in grown.values():
            self._grown(topic)

    def _has_room(self, topic: Topic, messages: int = 1, size: int = 1) -> bool:
        limits = self.limits
        if topic.count + topic.reserved + messages <= limits.max_messages and topic.bytes + size <= limits.max_bytes:
            return True
        if not topic.reclaim(keep=0):
            return False
        return self._has_room(topic, messages, size)

    def _grown(self, topic: Topic) -> None:
        if topic.count >= topic.reclaim_at:
            topic.reclaim(self.limits.retain)
            topic.reclaim_at = topic.count + max(self.limits.retain // 4, 256)
        for group in self._groups.values():
            group.wake(topic.name)

    def _admit_waiting(self, topic: Topic) -> None:
        admitted = False
        while topic.waiting:
            batch, index, message, due = topic.waiting[0]
            if not batch.future.done():
                if not self._has_room(topic):
                    break
                stored = topic.append(message, self.runtime) if due is None else self._delay(topic, message, due)
                batch.confirm(index, stored)
                batch.complete()
                admitted = True
            topic.waiting.popleft()
        if admitted:
            self._grown(topic)

    @staticmethod
    def _fail_waiting(topic: Topic, error: Exception) -> None:
        for batch, _, _, _ in topic.waiting:
            complete(batch.future, error)
        topic.waiting.clear()

    # --- groups ----------------------------------------------------------------------------------------------

    def join(self, group_id: str | None, topics: Sequence[str], start: str, member: Member) -> Group:
        """Take a member into its group, made on first use; None makes a group that ends with this member."""
        with self.lock:
            opened = [self._open(name) for name in topics]
            id = group_id if group_id is not None else f"anonymous-{next(self._order)}"
            group = self._groups.get(id)
            if group is None:
                group = self._groups[id] = Group(
                    id, start=start, lasting=group_id is not None, revoke_timeout=self.limits.revoke_timeout
                )
            for topic in opened:
                group.open_topic(topic)
            group.join(member, self.runtime.monotonic())
            return group

    def leave(self, group: Group, member: Member) -> None:
        """Let a member go; what it had out comes again at once."""
        with self.lock:
            group.leave(member, self.runtime.monotonic())
            if not group.lasting and self._groups.get(group.id) is group:
                del self._groups[group.id]
                for topic in self._topics.values():
                    group.close_topic(topic)
                    if topic.waiting:
                        self._admit_waiting(topic)

    def disconnect(self, subscription: MemorySubscription) -> None:
        """Drop a subscription's member as if its process had died: what it had out comes again elsewhere at once.

        For tests of redelivery. The subscription itself is not told, but for an empty `receive`.
        """
        self.leave(subscription.group, subscription.member)

    def take(
        self, group: Group, member: Member, limit: int, settler: Settler
    ) -> tuple[Sequence[MemoryDelivery], asyncio.Future[None] | None, float | None]:
        """Deliveries; or none, with a future that completes when to look again, and at most how many seconds on."""
        with self.lock:
            now = self.runtime.monotonic()
            if self._delayed:
                self._release_delayed(now)
            late = group.take_over_late(now)
            if member.gone:
                return (), None, None
            batch = member.take(limit, now, settler)
            if batch:
                return batch, None, None
            delayed = self._delayed[0][0] if self._delayed else None
            times = [time for time in (late, delayed, member.next_due()) if time is not None]
            return (), member.signal.arm(), max(0.0, min(times) - now) if times else None

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Carry out those settlements whose delivery is still out."""
        with self.lock:
            for delivery, outcome, delay in settlements:
                self.settle_locked(delivery, outcome, delay)

    def settle_deliveries(self, deliveries: Sequence[Delivery], outcome: Outcome) -> None:
        """Carry out one outcome of several deliveries, of those that are still out."""
        with self.lock:
            for delivery in deliveries:
                self.settle_locked(delivery, outcome, 0.0)

    def settle_locked(self, delivery: Delivery, outcome: Outcome, delay: float) -> None:
        """Carry out one settlement, if its delivery is still out. Called under the `lock`."""
        if not isinstance(delivery, MemoryDelivery):
            raise _foreign(delivery)
        state, offset = delivery.state, delivery.offset or 0
        owner, in_flight = state.owner, state.in_flight
        if owner is None or in_flight.get(offset) != delivery.token:
            return  # stale
        del in_flight[offset]
        if owner.unsettled >= owner.max_unsettled:
            owner.signal.set()
        owner.unsettled -= 1
        if outcome is _ACK:
            state.tracker.finish(offset)
            if state.attempts:
                state.attempts.pop(offset, None)
            topic = state.partition.topic
            if topic.waiting:
                self._admit_waiting(topic)
        else:
            if outcome is Outcome.NACK:
                state.attempts[offset] = delivery.attempt + 1
            state.put_back(offset, self.runtime.monotonic() + delay)
            owner.signal.set()
        if state.next_owner is not None and not in_flight:
            state.group.hand_over(state)

    def seek(self, member: Member, targets: dict[PartitionState, int]) -> None:
        """Let a member's partitions go on at other offsets; what is out of them is forgotten."""
        with self.lock:
            for state, offset in targets.items():
                if state.owner is member:
                    member.unsettled -= len(state.in_flight)
                    state.reset(min(max(offset, state.partition.base), state.partition.end))
            member.signal.set()

    # --- transactions ----------------------------------------------------------------------------------------

    def commit(self, messages: Sequence[Message], settlements: Sequence[Settlement]) -> None:
        """Publish and settle all of it, or raise a TransactionError and do nothing."""
        with self.lock:
            for delivery, _, _ in settlements:
                if not _is_out(delivery):
                    raise TransactionError(
                        f"{delivery!r} is no longer this consumer's (revoked, or settled before), so nothing was "
                        "committed. It is delivered again, or was finished already."
                    )
            by_topic: dict[str, list[Message]] = {}
            for message in messages:
                refused = self._refusal(message)
                if refused is not None:
                    raise TransactionError(f"Nothing was committed: {refused}") from refused
                by_topic.setdefault(message.topic, []).append(message)
            for name, own in by_topic.items():
                topic = self._open(name)
                if topic.waiting or not self._has_room(topic, len(own), sum(map(payload_size, own))):
                    raise TransactionError(
                        f"Nothing was committed: topic {name!r} has no room for {len(own):,} messages now."
                    )
            for message in messages:
                self._topics[message.topic].append(message, self.runtime)
            for delivery, outcome, delay in settlements:
                self.settle_locked(delivery, outcome, delay)
            for name in by_topic:
                self._grown(self._topics[name])

    # --- topics ----------------------------------------------------------------------------------------------

    def declare(self, name: str, partitions: int | None) -> TopicInfo:
        """Make a topic, or check that it is as asked for."""
        check_topic_name(name)
        if partitions is not None and partitions < 1:
            raise ConfigurationError(f"Topic {name!r} was declared with {partitions} partitions; give 1 or more.")
        with self.lock:
            topic = self._open(name, partitions)
            if partitions is not None and partitions != len(topic.partitions):
                raise ConfigurationError(
                    f"Topic {name!r} has {len(topic.partitions)} partitions, and was declared with {partitions}. "
                    "Declare it as it is, or delete it first."
                )
            return TopicInfo(name, len(topic.partitions))

    def topics(self) -> list[TopicInfo]:
        """All topics, by name."""
        with self.lock:
            return sorted(TopicInfo(topic.name, len(topic.partitions)) for topic in self._topics.values())

    def delete(self, name: str) -> None:
        """Delete a topic with its messages and the groups' positions in it."""
        with self.lock:
            topic = self._existing(name)
            for group in self._groups.values():
                group.close_topic(topic)
            del self._topics[name]
            self._delayed = [entry for entry in self._delayed if entry[2].topic != name]
            heapify(self._delayed)
            self._fail_waiting(
                topic, UnknownTopicError(f"Topic {name!r} was deleted while a message waited for room in it.")
            )

    def browse(self, name: str, partition: int, offset: int, limit: int) -> list[StoredMessage]:
        """Stored messages of a partition, from ``offset`` on."""
        with self.lock:
            partitions = self._existing(name).partitions
            if not 0 <= partition < len(partitions):
                raise InvalidTopicError(f"Topic {name!r} has partitions 0 to {len(partitions) - 1}, not {partition}.")
            log = partitions[partition]
            start = max(offset - log.base, 0)
            stored = log.messages[start : start + limit]
            return [StoredMessage(message, partition, log.base + start + i) for i, message in enumerate(stored)]

    def lag(self, groups: Collection[str] | None = None) -> int:
        """How many messages are not finished, summed over groups and the topics that they read.

        Args:
            groups: which; None for all.
        """
        with self.lock:
            counted = [group for name, group in self._groups.items() if groups is None or name in groups]
            states = [state for group in counted for state in group.states.values()]
            delayed = sum(topic.reserved for topic in self._topics.values())
            return delayed + sum(s.partition.end - s.tracker.committed - s.tracker.held_back for s in states)

    def _existing(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            known = ", ".join(sorted(self._topics)) or "none"
            raise UnknownTopicError(f"The in-process broker {self.name!r} has no topic {name!r}; it has: {known}.")
        return topic

    def _open(self, name: str, partitions: int | None = None) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic(name, partitions or self.limits.partitions)
            for group in self._groups.values():  # a group whose topic was deleted and comes back
                if any(name in member.topics for member in group.members):
                    group.open_topic(topic)
                    group.rebalance(self.runtime.monotonic())
        return topic


def _is_out(delivery: Delivery) -> bool:
    if not isinstance(delivery, MemoryDelivery):
        raise _foreign(delivery)
    state = delivery.state
    return state.owner is not None and state.in_flight.get(delivery.offset or 0) == delivery.token


def _foreign(delivery: Delivery) -> TypeError:
    return TypeError(f"{delivery!r} does not come from an in-process broker; settle it where it was received.")
