"""`KafkaSubscription`: deliveries to the event loop, and their outcomes as committed offsets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicPartition

from commons_events.errors import (
    CommonsEventsError,
    TransactionAbortedError,
    TransactionError,
    TransportError,
    UnknownPartitionError,
    UnknownTopicError,
)
from commons_events.kafka._deliveries import KafkaBatch, KafkaDelivery, Part, Piece, Run
from commons_events.kafka._errors import UNREACHABLE, kafka_error, transport_error
from commons_events.kafka._intake import Assigned, Reached, Sought
from commons_events.kafka._partition import PartitionState
from commons_events.kafka._poller import Poller
from commons_events.kafka._settings import LOGGER, KafkaSettings
from commons_events.transport import (
    DONE,
    Delivery,
    Outcome,
    SeekTarget,
    Settlement,
    Settler,
    SubscribeRequest,
    WaitingSubscription,
    check_seek,
)
from commons_events.transport import TopicPartition as PartitionId

if TYPE_CHECKING:
    from commons_events.kafka._transport import KafkaTransport

__all__ = ["KafkaSubscription"]

_ACK = Outcome.ACK
_CLOSED = "The consumer of these messages is closed, so nothing is committed."
_COMMIT_TRIES = 50
_LONGEST_REBALANCE = 60.0
"""Seconds for which a commit is tried while the group is rebalanced, which takes as long as its slowest member does."""
_ASK = 1.0
"""Seconds for which the thread asks at most what is committed: meanwhile it does not poll."""
_SEEK_PATIENCE, _SEEK_AGAIN = 30.0, 0.02
"""Seconds until a partition that was assigned just now is fetched, at most; and between two tries to seek in it."""
_REBALANCING = frozenset({KafkaError.REBALANCE_IN_PROGRESS, KafkaError.STALE_MEMBER_EPOCH})
_PASSING = frozenset({*_REBALANCING, KafkaError._WAIT_COORD, *UNREACHABLE})


class KafkaSubscription(WaitingSubscription[PartitionState]):
    """A member of a group, or, without one, a reader of all partitions. Belongs to its event loop."""

    settles_at_once = True

    def __init__(self, transport: KafkaTransport, settings: KafkaSettings, request: SubscribeRequest) -> None:
        super().__init__()
        self._transport = transport
        self._request = request
        self.settler: Settler = request.settler or self
        self._interval = settings.own["commit.interval.ms"]
        self._transaction_timeout = settings.own["transaction.commit.timeout.ms"]
        self._revoke_timeout = settings.own["revoke.timeout.ms"]
        self._max_unsettled = request.max_unsettled
        self._states: dict[PartitionId, PartitionState] = {}
        self._out = 0
        self._seeks = 0
        """How many there were."""
        self._place = 0
        """How many messages of the part that has arrived first are handed out."""
        self._commit_timer: asyncio.TimerHandle | None = None
        self._revoking: dict[Future[list[TopicPartition]], list[PartitionState]] = {}
        self._poller = Poller(settings, request, self)

    async def start(self) -> None:
        """Join; called once, by the transport."""
        try:
            await self._poller.start()
        except BaseException:
            self._closed = True
            self._poller.abandon()
            raise

    # --- receiving -----------------------------------------------------------------------------------------------

    def on_arrival(self) -> None:
        """See `Owner`."""
        self._wake()

    def take(self, limit: int) -> Sequence[Delivery]:
        """Up to ``limit`` deliveries: first what comes again, then new messages in the order of the log."""
        limit = min(limit, self._max_unsettled - self._out)
        if limit <= 0 or self._paused or self._seeking:
            return []
        again: list[Delivery] = []
        if self._scheduled:
            self._take_again(again, limit)
        pieces: list[Piece] = []
        taken = len(again)
        arrived = self._poller.intake.arrived
        while taken < limit and (arrived or (not taken and self._poller.read())):
            arrival = arrived[0]
            if isinstance(arrival, Part):
                is_all, piece = self._take_new(arrival, limit - taken)
                if piece is not None:
                    pieces.append(piece)
                    taken += piece.stop
                if not is_all:
                    continue
            elif isinstance(arrival, CommonsEventsError):
                if taken:
                    break
                arrived.popleft()
                raise arrival
            elif isinstance(arrival, Reached):
                self._reach(arrival)
            else:
                self._apply(arrival)
            arrived.popleft()
        if not taken and (reason := self._poller.ended_by) is not None:
            raise type(reason)(str(reason)) from reason
        self._out += taken
        self._poller.tell_of_room()
        if again:
            return [*again, *KafkaBatch(pieces)]
        return KafkaBatch(pieces, taken) if pieces else ()

    def _take_new(self, part: Part, room: int) -> tuple[bool, Piece | None]:
        """Hand messages of ``part`` out. Returns whether that was the rest of it, and what was handed out."""
        start, raws = self._place, part.raws
        count = len(raws)
        end = min(start + min(room, self._poller.intake.most_together), count)
        all_taken = end == count
        self._place = 0 if all_taken else end
        self._poller.intake.taken += end - start
        state = self._states.get(part.id)
        if state is None or not state.owned or state.skips:
            self._poller.intake.taken += count - end
            self._place = 0
            return True, None
        if start or not all_taken:
            raws = raws[start:end]
        if state.redeliveries.held or (state.next is not None and raws[0].offset() < state.next):
            raws = state.admit(raws)
            if not raws:
                return all_taken, None
        state.next = max(raws[-1].offset() + 1, state.next or 0)
        return all_taken, state.hand_out(raws)

    def _reach(self, end: Reached) -> None:
        state = self._states.get(end.partition)
        if state is None or not state.owned or state.skips:
            return
        if state.next is None or state.next < end.offset:
            state.next = end.offset  # behind markers and aborted messages, which nobody receives
            self._changed()

    def _apply(self, arrival: Assigned | Sought) -> None:
        if isinstance(arrival, Assigned):
            # Where one is here still, its end is yet to be heard of.
            self._let_go([state for id in arrival.partitions if (state := self._states.get(id)) is not None])
            for id in arrival.partitions:
                self._states[id] = PartitionState(id, self, assignment=arrival.number)
            return
        state = self._go_on_at(arrival)
        if state is not None:
            state.skips = False

    def _go_on_at(self, sought: Sought) -> PartitionState | None:
        """Forget what came before a seek, unless a later one did; what arrives is dropped until it is reached."""
        state = self._states.get(sought.partition)
        if state is None or not state.owned or state.sought > sought.number:
            return None
        if state.sought < sought.number:
            self._let_go([state])
            self._states[sought.partition] = state = state.at(sought.offset, sought.number)
            self._changed()
        return state

    # --- settling --------------------------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        """See `Subscription.settle`; finished offsets are committed within ``commit.interval.ms``."""
        if self._closed:
            return DONE
        settled = 0
        for delivery, outcome, delay in settlements:
            if not isinstance(delivery, KafkaDelivery) or not delivery.is_open or delivery.subscription is not self:
                continue
            settled += 1
            state = delivery.run.state
            if outcome is _ACK:
                state.close(delivery)
                continue
            attempt = delivery.attempt + (outcome is Outcome.NACK)
            state.put_back(delivery, self._runtime.monotonic() + delay, attempt)
            self._scheduled[state] = None
        self._settled(settled)
        return DONE

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        """See `Subscription.settle_delivery`."""
        if outcome is not _ACK or type(delivery) is not KafkaDelivery:
            return super().settle_delivery(delivery, outcome, delay)
        run, place = delivery.run, delivery.place
        if run.open[place] and not self._closed and run.state.subscription is self:
            run.open[place] = 0
            run.left -= 1
            if not run.left:
                run.state.finished(run, 0)
            out = self._out
            self._out = out - 1
            if out >= self._max_unsettled or self._scheduled:
                self._wake()
            if self._commit_timer is None:
                self._changed()
            if self._revoking:
                self._finish_revoking()
        return DONE

    def settle_deliveries(self, deliveries: Sequence[Delivery], outcome: Outcome) -> Awaitable[None]:
        """See `Subscription.settle_deliveries`."""
        if outcome is not _ACK:
            return super().settle_deliveries(deliveries, outcome)
        if self._closed:
            return DONE
        # Deliveries of one run follow each other: each is closed, and they are counted together.
        closed: dict[Run, int] = {}
        settled = count = 0
        run: Run | None = None
        for delivery in deliveries:
            if type(delivery) is not KafkaDelivery:
                if isinstance(delivery, KafkaDelivery):
                    self.settle_delivery(delivery, outcome, None)  # type: ignore[unused-awaitable]  # it is done
                continue
            if not delivery.run.open[delivery.place]:
                continue
            if delivery.run is not run:
                if delivery.run.state.subscription is not self:
                    continue
                if run is not None:
                    closed[run] = closed.get(run, 0) + count
                run, count = delivery.run, 0
            delivery.run.open[delivery.place] = 0
            count += 1
        if run is not None:
            closed[run] = closed.get(run, 0) + count
        for run, count in closed.items():
            run.state.finished(run, count)
            settled += count
        self._settled(settled)
        return DONE

    def ack_unsettled(self, pieces: Sequence[Piece]) -> Awaitable[None]:
        """Acknowledge what of these was not settled, without looking at each."""
        settled = 0
        if not self._closed:
            for run, _, start, stop in pieces:
                if count := run.close_unsettled(start, stop):
                    run.state.finished(run, count)
                    settled += count
            self._settled(settled)
        return DONE

    def _settled(self, settled: int) -> None:
        if settled:
            room = self._out < self._max_unsettled
            self._out -= settled
            if not room or self._scheduled:
                self._wake()
            self._changed()
            if self._revoking:
                self._finish_revoking()

    def _changed(self) -> None:
        if self._commit_timer is None and self._poller.membership.grouped:
            self._commit_timer = self._runtime.call_later(self._interval, self._commit)

    def _commit(self) -> None:
        """Tell the broker the positions that have moved, without waiting."""
        self._commit_timer = None
        if self._closed:
            return
        positions = self._positions(self._states.values())
        if positions:
            self._poller.commit_soon(positions)

    def _positions(self, states: Any) -> list[TopicPartition]:
        """The positions that the broker has not been told, which count as told from now on."""
        positions = []
        if self._poller.membership.grouped:
            for state in states:
                position = state.position()
                if position is not None and position != state.committed and position >= state.least:
                    state.committed, state.is_told = position, True
                    positions.append(TopicPartition(state.id.topic, state.id.partition, position))
        return positions

    def on_commit_failed(self, partitions: Sequence[PartitionId]) -> None:
        """See `Owner`."""
        for id in partitions:
            if id in self._states:
                self._states[id].committed = None
                self._changed()

    async def flush(self) -> None:
        """See `Subscription.flush`."""
        began, tries = self._runtime.monotonic(), 0
        while not self._closed:
            positions = self._last_positions(self._states.values())
            try:
                if positions:
                    await self._poller.call(partial(self._poller.commit, positions))
            except KafkaException as error:
                self.on_commit_failed([PartitionId(p.topic, p.partition) for p in positions])
                tries += 1
                code, waited = kafka_error(error).code(), self._runtime.monotonic() - began
                if code not in _PASSING or (
                    tries >= _COMMIT_TRIES and (code not in _REBALANCING or waited > _LONGEST_REBALANCE)
                ):
                    raise transport_error(error, "Committing offsets") from error
                await self._runtime.sleep(0.1)
            else:
                return

    def _last_positions(self, states: Collection[PartitionState]) -> list[TopicPartition]:
        """All positions, also those that the broker was told without waiting: that may still fail on its way."""
        self._positions(states)
        positions = []
        for state in states:
            if state.committed is not None and state.committed >= state.least:
                state.is_told = True
                positions.append(TopicPartition(state.id.topic, state.id.partition, state.committed))
        return positions

    # --- partitions that leave -----------------------------------------------------------------------------------

    def on_revoke(
        self, partitions: Sequence[PartitionId], until: int, done: Future[list[TopicPartition]] | None
    ) -> None:
        """See `Owner`: hand out no more, give back what nobody looks at, wait a while for what is out."""
        states = [state for id in partitions if (state := self._states.get(id)) is not None]
        leaving = [state for state in states if state.assignment <= until]
        gone = frozenset(partitions)
        for arrival in list(self._poller.intake.arrived):
            if isinstance(arrival, Assigned) and arrival.number <= until:
                arrival.partitions[:] = [id for id in arrival.partitions if id not in gone]
        for state in leaving:
            state.owned = False
            self._scheduled.pop(state, None)
        if self._request.on_revoke is not None:
            self._request.on_revoke(gone)
        for state in leaving:
            self._scheduled.pop(state, None)
        if done is None:
            self._let_go(leaving)
            return
        self._revoking[done] = leaving
        self._runtime.call_later(self._revoke_timeout, lambda: self._finish_revoking(done))
        self._finish_revoking()

    def _finish_revoking(self, late: Future[list[TopicPartition]] | None = None) -> None:
        for done, leaving in list(self._revoking.items()):
            if done is late or not any(state.out for state in leaving):
                del self._revoking[done]
                done.set_result(self._last_positions(leaving))
                self._let_go(leaving)

    def _let_go(self, leaving: Sequence[PartitionState]) -> None:
        for state in leaving:
            self._out -= state.out
            state.forget()
            self._scheduled.pop(state, None)
            if self._states.get(state.id) is state:
                del self._states[state.id]
        self._wake()

    # --- what only some brokers can ------------------------------------------------------------------------------

    async def seek(self, target: SeekTarget, *, topic: str | None = None, partition: int | None = None) -> None:
        """See `Seekable`."""
        check_seek(target, partition)
        if topic is not None and topic not in self._request.topics and topic not in {id.topic for id in self._states}:
            raise UnknownTopicError(f"seek: this subscription has no topic {topic!r}.")
        while self._poller.intake.arrived and isinstance(self._poller.intake.arrived[0], Assigned):
            self._apply(self._poller.intake.arrived.popleft())  # type: ignore[arg-type]  # it was looked at
        ids = [id for id in self._states if topic in (None, id.topic) and partition in (None, id.partition)]
        # Nothing changes here before the thread has sought, and what it did is in the stream: a seek that fails or is
        # cancelled leaves all as it was, or takes effect where the stream comes to it.
        self._seeking += 1
        try:
            if partition is not None and not ids:
                await self._poller.call(partial(self._check_partition, topic, partition))
            self._seeks += 1
            found = await self._poller.call(partial(self._seek, ids, target, self._seeks))
        except KafkaException as error:
            raise transport_error(error, "Seeking") from error
        finally:
            self._seeking -= 1
            self._wake()
        for sought in found:
            self._go_on_at(sought)

    def _check_partition(self, topic: str | None, partition: int) -> None:
        """In the thread: whether there is such a partition at all, though it is not this member's."""
        topics = [topic] if topic is not None else [name for name in self._request.topics if not name.startswith("^")]
        found = [self._poller.consumer.list_topics(name, timeout=10).topics[name].partitions for name in topics]
        if found and not any(partition in partitions for partitions in found):
            raise UnknownPartitionError(f"seek: no topic of this subscription has a partition {partition}.")

    def _seek(self, ids: Sequence[PartitionId], target: SeekTarget, number: int) -> list[Sought]:
        """In the thread: find the offsets, go there, and say so in the stream of what arrives."""
        consumer = self._poller.consumer
        ours = {PartitionId(p.topic, p.partition) for p in consumer.assignment()}
        offsets = self._offsets([id for id in ids if id in ours], target)
        found = []
        for id, offset in offsets.items():
            self._seek_one(TopicPartition(id.topic, id.partition, offset))
            found.append(Sought(id, offset, number))
            self._poller.hand_over(found[-1])
        return found

    def _offsets(self, ids: Sequence[PartitionId], target: SeekTarget) -> dict[PartitionId, int]:
        if isinstance(target, str):
            return self._found(ids, OFFSET_BEGINNING if target == "beginning" else OFFSET_END)
        ends = self._found(ids, OFFSET_END)
        if isinstance(target, datetime):
            # As the messages' own times were, so that none is missed; before 1970 there are none.
            times = self._found(ids, max(round(target.timestamp() * 1000), 0))
            return {id: times[id] if times[id] >= 0 else ends[id] for id in ids}
        firsts = self._found(ids, OFFSET_BEGINNING)
        return {id: min(max(target, firsts[id]), ends[id]) for id in ids}

    def _found(self, ids: Sequence[PartitionId], time: int, timeout: float = 30) -> dict[PartitionId, int]:
        """In the thread: the first offsets from ``time`` on, in milliseconds or one of librdkafka's places.

        All are asked for at once. Asked for each by itself, each waits until the broker has answered a fetch, half a
        second where there is nothing to fetch, and the thread polls nothing meanwhile.
        """
        if not ids:
            return {}
        asked = [TopicPartition(id.topic, id.partition, time) for id in ids]
        found = self._poller.consumer.offsets_for_times(asked, timeout=timeout)
        for place in found:
            if place.error is not None:
                raise KafkaException(place.error)
        return {PartitionId(place.topic, place.partition): place.offset for place in found}

    def _seek_one(self, place: TopicPartition) -> None:
        deadline = monotonic() + _SEEK_PATIENCE
        while True:
            try:
                self._poller.consumer.seek(place)
            except KafkaException as error:
                over = monotonic() > deadline or self._poller.is_ending
                if kafka_error(error).code() != KafkaError._STATE or over:
                    raise
                sleep(_SEEK_AGAIN)  # it was assigned just now, and is not fetched yet
            else:
                return

    @property
    def assignment(self) -> frozenset[PartitionId]:
        """The partitions that this member has."""
        owned = {id for id, state in self._states.items() if state.owned}
        coming = [arrival.partitions for arrival in tuple(self._poller.intake.arrived) if isinstance(arrival, Assigned)]
        return frozenset(owned.union(*coming))

    async def lag(self) -> dict[PartitionId, int]:
        """How many messages each of this member's partitions has beyond the finished ones.

        Raises:
            TransportError: the broker did not say.
        """
        positions = {id: state.position() for id, state in self._states.items()}

        def measure() -> dict[PartitionId, int]:
            ends = self._found([*positions], OFFSET_END, timeout=10)
            unknown = [id for id, position in positions.items() if position is None]
            known = {id: position for id, position in positions.items() if position is not None}
            if unknown and self._poller.membership.grouped:
                asked = [TopicPartition(id.topic, id.partition) for id in unknown]
                told = self._poller.consumer.committed(asked, timeout=10)
                known |= {PartitionId(p.topic, p.partition): p.offset for p in told if p.offset >= 0}
            known |= self._found([id for id in unknown if id not in known], OFFSET_BEGINNING, timeout=10)
            return {id: max(0, ends[id] - known[id]) for id in positions}

        try:
            return await self._poller.call(measure)
        except KafkaException as error:
            raise transport_error(error, "Measuring the lag") from error

    # --- transactions ----------------------------------------------------------------------------------------------

    async def hold(self, settlements: Sequence[Settlement]) -> list[TopicPartition]:
        """What a transaction has to commit so that these deliveries are finished; `release` tells its end.

        Until then we commit nothing less in their partitions, and what is under way has arrived when this returns: a
        commit that reaches the broker after the transaction's offsets counts in their place.

        Raises:
            TransactionAbortedError: the partition of one is leaving us, or has left; or what is under way does not
                arrive within ``transaction.commit.timeout.ms``.
            TransactionError: one was finished before, or an earlier one of its partition would stay unfinished.
        """
        positions = self._positions_after(settlements)
        for state, position in positions.items():
            state.least = position
        try:
            await self._arrived(positions)
        except BaseException:
            self.release(settlements, committed=False)
            raise
        return [TopicPartition(state.id.topic, state.id.partition, position) for state, position in positions.items()]

    async def _arrived(self, states: Collection[PartitionState]) -> None:
        """Return once what was committed of these, outside a transaction, is with the broker, or has failed.

        Brokers do what one client asks in that order: who is told a position knows that no commit before is to come.
        """
        seconds = self._transaction_timeout
        deadline = self._runtime.monotonic() + seconds
        while under_way := [
            TopicPartition(state.id.topic, state.id.partition, state.committed)
            for state in states
            if state.is_told and state.committed is not None
        ]:
            if self._closed:
                raise TransactionError(_CLOSED)
            if not all(state.owned for state in states):
                raise TransactionAbortedError("A partition is about to leave its consumer, so nothing is committed.")
            if await self.has_committed(under_way, exactly=True, timeout=_ASK):
                for state in states:
                    state.is_told = False
                return
            if self._runtime.monotonic() > deadline:
                raise TransactionAbortedError(
                    f"What was finished before this transaction is not committed yet, after {seconds:g} s "
                    "(transaction.commit.timeout.ms), so nothing of it is. Do it again."
                )
            await self._runtime.sleep(0.01)

    def release(self, settlements: Sequence[Settlement], *, committed: bool) -> None:
        """The transaction that held these has ended."""
        for state in {delivery.run.state for delivery, _, _ in settlements}:  # type: ignore[attr-defined]
            if committed:
                state.committed = state.least
            else:
                state.least = 0
        if not self._closed:
            self._changed()

    def _positions_after(self, settlements: Sequence[Settlement]) -> dict[PartitionState, int]:
        finished: dict[PartitionState, set[int]] = {}
        for delivery, _, _ in settlements:
            assert isinstance(delivery, KafkaDelivery)
            state = delivery.run.state
            if self._closed:
                raise TransactionError(_CLOSED)
            if not state.owned:
                raise TransactionAbortedError(
                    f"{delivery!r} belongs to another member by now, or is about to, so nothing is committed; it comes "
                    "again there."
                )
            if not delivery.is_open:
                raise TransactionError(f"{delivery!r} was finished before, so nothing is committed.")
            finished.setdefault(state, set()).add(delivery.offset)
        positions = {}
        for state, offsets in finished.items():
            position = next((offset for offset in state.unfinished() if offset not in offsets), state.next)
            if position is None or position <= max(offsets):
                raise TransactionError(
                    f"Offset {position} of {state.id.topic}/{state.id.partition} is unfinished, and a log commits none "
                    f"beyond it: settle it too, or in a transaction before."
                )
            positions[state] = position
        return positions

    async def group_metadata(self) -> object:
        """Who we are in our group, for the broker to tell whether we still are."""
        if self._closed:
            raise TransactionError(_CLOSED)
        try:
            return await self._poller.call(self._poller.consumer.consumer_group_metadata)
        except (RuntimeError, KafkaException) as error:
            raise TransactionError(_CLOSED) from error

    async def has_committed(
        self, positions: Sequence[TopicPartition], *, exactly: bool = False, timeout: float = 30
    ) -> bool | None:
        """Whether the group is at these positions or, unless ``exactly``, beyond.

        None where others may have moved it, or nobody says.
        """
        asked = [TopicPartition(p.topic, p.partition) for p in positions]
        try:
            found = await self._poller.call(lambda: self._poller.consumer.committed(asked, timeout=timeout))
        except (RuntimeError, KafkaException) as error:
            LOGGER.debug("asking for committed offsets: %s", error)
            return None
        if self._closed or any(PartitionId(p.topic, p.partition) not in self.assignment for p in positions):
            return None
        offsets = [(at.offset, wanted.offset) for at, wanted in zip(found, positions, strict=True)]
        reached = {at == wanted or (at > wanted and not exactly) for at, wanted in offsets}
        return reached.pop() if len(reached) == 1 else None

    # --- the end ---------------------------------------------------------------------------------------------------

    async def _close(self) -> None:
        if self._closed:
            return
        positions = self._last_positions(self._states.values())
        self._end()
        try:
            await self._poller.close(positions)
        except TransportError as error:
            LOGGER.warning("closing a Kafka subscription: %s", error)

    def _end(self) -> None:
        self._closed = True
        if self._commit_timer is not None:
            self._commit_timer.cancel()
        for done, leaving in list(self._revoking.items()):
            done.set_result(self._last_positions(leaving))
        self._revoking.clear()
        self._wake()
        self._transport.forget(self)

    async def abandon(self) -> None:
        """End as if the process had died: nothing more is committed. For tests of redelivery."""
        self._end()
        await self._poller.close([])
