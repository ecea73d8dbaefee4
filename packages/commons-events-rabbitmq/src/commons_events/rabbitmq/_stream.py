"""Topics that are streams: one member of a group reads, the others stand by, and the group's place is in a queue.

Over AMQP 0-9-1 RabbitMQ keeps no place for who reads a stream, and every consumer gets all of it. So each group has a
queue, ``TOPIC.GROUP.position``, with a single active consumer. Who that is reads the stream; the queue's messages say
where the group stands, as a term, which grows with whoever takes over or seeks, and an offset. The newest of them stays
with the reader, unacknowledged, and comes to the next one when the reader is gone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from commons_events.errors import ConnectionLostError, TransportError, UnknownPartitionError, UnknownTopicError
from commons_events.rabbitmq._places import Place, position_queue
from commons_events.rabbitmq._queue import RabbitMQDelivery
from commons_events.rabbitmq._settings import LOGGER
from commons_events.rabbitmq._subscription import RabbitMQSubscription
from commons_events.runtime import current_runtime
from commons_events.transport import (
    DONE,
    Delivery,
    Outcome,
    SeekTarget,
    Settlement,
    Settler,
    SubscribeRequest,
    Subscription,
    check_seek,
)

if TYPE_CHECKING:
    from commons_events.rabbitmq._transport import RabbitMQTransport

__all__ = ["RabbitMQStreamSubscription"]

Offset = int | str | datetime
"""As AMQP's ``x-stream-offset`` has it: an offset, "first", "next", or a time."""
_ENDS: dict[str, Offset] = {"beginning": "first", "end": "next"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST = (1 << 63) - 1
_PAUSE = 0.1
"""Seconds between two reports of a group's place, at least."""
_TURN, _LONGEST_TURN = 2.0, 60.0
"""Seconds that subscribing waits for its turn where nobody seemed to have it: for its beginning, and for all of it."""
_CLOSING = 10.0
_LAST_PATIENCE, _LAST_QUIET = 1.0, 0.2
"""Seconds for which the last messages of a stream are waited for: for the first of them, and for another one."""
_LONGEST_PATIENCE = 30.0
"""Seconds for the first of them, where the stream is known not to be empty."""


class _Part:
    """One topic of the subscription. ``reader`` is there while this member reads it."""

    def __init__(self, topic: str, queue: str) -> None:
        self.topic = topic
        self.queue = queue
        """Of the group's place; "" without a group."""
        self.place: Place | None = None
        self.token: tuple[Place, RabbitMQDelivery] | None = None
        """What holds the place in the queue: unacknowledged as long as this member reads."""
        self.fence: str | None = None
        self.gathered: list[tuple[Place, RabbitMQDelivery]] = []
        """What the queue held when our turn began, see `RabbitMQStreamSubscription._gather`."""
        self.reader: RabbitMQSubscription | None = None
        self.prepared: RabbitMQSubscription | None = None
        """A reader from the latest message on, for a group that turns out to be new."""
        self.first: Place | None = None
        """What was said of a new group."""
        self.begins = False
        """Whether something has come from the queue, which it does to one member alone."""
        self.turn = asyncio.Event()
        """Set once it has been this member's turn."""
        self.reported = -1
        """The offset that was sent to the queue last."""
        self.reporting: asyncio.Task[None] | None = None

    @property
    def offset(self) -> int | None:
        """The first offset that is not finished; None as long as nothing was received."""
        reader = self.reader
        return reader.stream_position if reader is not None else None


class RabbitMQStreamSubscription(Subscription):
    """A member of a group that reads streams. Belongs to its event loop."""

    header_prefix = "cloudEvents_"

    def __init__(self, transport: RabbitMQTransport, request: SubscribeRequest) -> None:
        group = request.group_id
        self._transport = transport
        self._runtime = current_runtime()
        self._max_unsettled = request.max_unsettled
        self._start = request.start
        self.settler: Settler = request.settler or self
        self._parts = {
            topic: _Part(topic, position_queue(topic, group) if group is not None else "") for topic in request.topics
        }
        self._of_queue = {part.queue: part for part in self._parts.values() if part.queue}
        self._places: RabbitMQSubscription | None = None
        self._holding: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: TransportError | None = None
        self._dropped = False
        """Whether something was finished and not reported when the turn was lost."""
        self._paused = False
        self._seeking = 0
        """How many seeks are under way: nothing is handed out meanwhile."""
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        """Readers come and go one at a time."""

    async def start(self) -> None:
        """Read, or stand by; called once, by the transport."""
        try:
            offset = "first" if self._start == "earliest" else "next"
            if not self._of_queue:
                for part in self._parts.values():
                    part.reader = await self._read(part, offset)
                return
            if offset == "next":
                for part in self._parts.values():
                    part.prepared = await self._read(part, offset)
            alone = [part for part in self._parts.values() if not (await self._transport.look_at(part.queue))[1]]
            queues = [(part.topic, part.queue) for part in self._parts.values()]
            self._places = await self._transport.hold_places(queues, self._lost)
            # It says that the group is new, where nothing else is in the queue.
            for part in self._parts.values():
                prepared = part.prepared.stream_position if part.prepared is not None else None
                part.first = Place(0, "first" if prepared is None else prepared)
                await self._send(part, part.first)
            self._holding = asyncio.create_task(self._hold(self._places))
            # Who is alone has its turn soon, and can seek then.
            await asyncio.gather(*map(self._wait_for_turn, alone))
        except BaseException:
            self._closed = True
            for subscription in self._all():
                subscription.drop()
            raise

    async def _wait_for_turn(self, part: _Part) -> None:
        """Return once it is our turn, or nothing has told that it will be."""
        waited = 0.0
        turn = asyncio.create_task(part.turn.wait())
        try:
            while not turn.done() and waited < _LONGEST_TURN and self._error is None:
                await asyncio.wait([turn], timeout=_TURN)
                waited += _TURN
                if not part.begins:
                    return
        finally:
            turn.cancel()

    def _all(self) -> list[RabbitMQSubscription]:
        found = [self._places]
        for part in self._parts.values():
            found += [part.reader, part.prepared]
        return [subscription for subscription in found if subscription is not None]

    async def _read(self, part: _Part, offset: Offset) -> RabbitMQSubscription:
        """Read from an offset on. Of "next" RabbitMQ does not say where that is, so it is looked for before."""
        least = await self._last_offset(part) + 1 if offset == "next" else None
        reader = await self._transport.read_stream(part.topic, offset, self._max_unsettled, self.settler, self._wake)
        if least is not None:
            reader.go_on_at(least)
        return reader

    # --- whose turn it is ----------------------------------------------------------------------------------------

    async def _hold(self, places: RabbitMQSubscription) -> None:
        """Take what the groups' queues say, as long as this member is the active consumer of them."""
        while not self._closed:
            try:
                deliveries = await places.receive(100)
                self._error = None
                for delivery in deliveries:
                    assert isinstance(delivery, RabbitMQDelivery)
                    await self._told(self._of_queue[delivery.topic], delivery)
            except TransportError as error:
                if not error.retriable:
                    self._error = error
                    self._wake()
                else:
                    LOGGER.warning("a group's place in a stream: %s", error)
                await self._runtime.sleep(0.5)

    async def _told(self, part: _Part, delivery: RabbitMQDelivery) -> None:
        part.begins = True
        if part.place is None:
            await self._gather(part, delivery)
            return
        place = Place.decode(delivery.value)
        if place is None or place.order < part.place.order or (part.token is not None and place == part.token[0]):
            await delivery.ack()  # a fence, or of who had the turn before, or what was said already
            return
        if place.term == part.place.term:  # our own report, which has come back
            part.place = place
        else:
            await self._take_over(part, place)
        before, part.token = part.token, (place, delivery)
        if before is not None:
            await before[1].ack()

    async def _gather(self, part: _Part, delivery: RabbitMQDelivery) -> None:
        """Our turn begins: take all that is in the queue, up to a fence that we put behind it; the newest counts."""
        if part.fence is None:
            part.fence = self._runtime.new_id()
            await self._transport.publish_to_queue(part.queue, json.dumps({"fence": part.fence}).encode())
        place = Place.decode(delivery.value)
        if place is not None:
            part.gathered.append((place, delivery))
            return
        await delivery.ack()
        if part.fence.encode() not in delivery.value:
            return
        gathered, part.gathered, part.fence = part.gathered, [], None
        if not gathered:  # somebody has purged the queue
            await self._take_over(part, part.first or Place(0, "first"))
            return
        newest = max(gathered, key=lambda one: one[0].order)
        await self._take_over(part, newest[0])
        part.token = newest
        for one in gathered:
            if one is not newest:
                await one[1].ack()

    async def _take_over(self, part: _Part, place: Place) -> None:
        """Read on from a place, in a term of its own."""
        async with self._changing:
            prepared, part.prepared = part.prepared, None
            before, part.reader = part.reader, None
            if before is not None:
                before.drop()
            if place == part.first and prepared is not None:
                part.reader = prepared
            else:
                if prepared is not None:
                    prepared.drop()
                part.reader = await self._read(part, place.offset)
            part.place = place = Place(place.term + 1, place.offset)
            part.reported = -1
        part.turn.set()
        self._wake()
        await self._send(part, place)

    def _lost(self) -> None:
        """The connection is gone, and with it the turn."""
        for part in self._parts.values():
            offset = part.offset
            self._dropped = self._dropped or (offset is not None and offset > part.reported >= 0)
            part.token = part.place = part.fence = None
            part.begins = False
            part.gathered.clear()
            reader, part.reader = part.reader, None
            if reader is not None:
                reader.drop()

    # --- the group's place ---------------------------------------------------------------------------------------

    async def _send(self, part: _Part, place: Place) -> None:
        """Put a place into the group's queue; returns once it is confirmed."""
        await self._transport.publish_to_queue(part.queue, place.encode())

    def _moved(self, part: _Part) -> None:
        """Something was finished: report it, soon and one at a time."""
        if part.queue and part.reporting is None and not self._closed:
            part.reporting = asyncio.create_task(self._report(part))

    async def _report(self, part: _Part) -> None:
        """Report the place as long as it moves on."""
        try:
            await self._runtime.sleep(_PAUSE)
            while await self._report_once(part):
                await self._runtime.sleep(_PAUSE)
        except TransportError as error:
            LOGGER.warning("the place in stream %r is not reported yet: %s", part.topic, error)
        finally:
            if part.reporting is asyncio.current_task():
                part.reporting = None

    async def _report_once(self, part: _Part) -> bool:
        """Report the place as it is now; False where that was done before, or it is not this member's turn."""
        place, offset = part.place, part.offset
        if place is None or offset is None or offset <= part.reported:
            return False
        await self._send(part, Place(place.term, offset))
        if part.place is not None and part.place.term == place.term:
            part.reported = max(part.reported, offset)
        return True

    async def _last_offset(self, part: _Part) -> int:
        """The last offset of a stream, or one before it; -1 where it is empty, or as good as new and slow to answer."""
        probe = await self._transport.read_stream(part.topic, "last", 10_000, None, None)
        last = -1
        try:
            patience = _LONGEST_PATIENCE if (await self._transport.look_at(part.topic))[0] else _LAST_PATIENCE
            while True:
                async with asyncio.timeout(patience):
                    batch = await probe.receive(1000)
                if not batch:
                    return last
                last = max(last, *(delivery.offset or 0 for delivery in batch))
                await probe.settle([Settlement(delivery, Outcome.ACK) for delivery in batch])
                patience = _LAST_QUIET
        except TimeoutError:
            return last
        finally:
            probe.drop()

    # --- receiving -------------------------------------------------------------------------------------------------

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See `Subscription.receive`; a member that stands by waits."""
        await self._runtime.sleep(0)
        while self._closing is None:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            due: float | None = None
            if not self._paused and not self._seeking:
                room = min(limit, self._max_unsettled - sum(reader.out for reader in self._readers()))
                for reader in self._readers():
                    batch = reader.take(room)
                    if batch:
                        return batch
                times = [time for reader in self._readers() if (time := reader.next_due) is not None]
                due = min(times, default=None)
            self._waiter = waiter = asyncio.get_running_loop().create_future()
            if due is None:
                await waiter
                continue
            timer = self._runtime.call_later(max(0.0, due - self._runtime.monotonic()), self._wake)
            try:
                await waiter
            finally:
                timer.cancel()
        return ()

    def _readers(self) -> list[RabbitMQSubscription]:
        return [part.reader for part in self._parts.values() if part.reader is not None]

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- settling --------------------------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement]) -> Awaitable[None]:
        """See `Subscription.settle`; the group's place follows, all before the first that is not finished."""
        settled = DONE
        for part in self._parts.values():
            reader = part.reader
            mine = [one for one in settlements if _reader_of(one.delivery) is reader] if reader is not None else []
            if reader is not None and mine:
                settled = reader.settle(mine)
                self._moved(part)
        return settled

    def settle_delivery(self, delivery: Delivery, outcome: Outcome, delay: float | None) -> Awaitable[None]:
        """See `Subscription.settle_delivery`."""
        part = self._parts.get(delivery.topic)
        if part is not None and part.reader is not None and _reader_of(delivery) is part.reader:
            settled = part.reader.settle_delivery(delivery, outcome, delay)
            if part.reporting is None:
                self._moved(part)
            return settled
        return DONE

    async def flush(self) -> None:
        """See `Subscription.flush`: returns once the group's queues have its places.

        Raises:
            ConnectionLostError: the turn was lost before that; some of what was finished comes again.
            TransportError: RabbitMQ did not take one.
        """
        if self._dropped:
            self._dropped = False
            raise ConnectionLostError(
                "The connection to RabbitMQ broke before it had the group's place in a stream; messages that were "
                "finished come again."
            )
        await asyncio.gather(*(self._report_once(part) for part in self._parts.values() if part.queue))

    # --- what only some brokers can --------------------------------------------------------------------------------

    def pause(self) -> None:
        """See `Pausable`."""
        self._paused = True

    def resume(self) -> None:
        """See `Pausable`."""
        self._paused = False
        self._wake()

    async def seek(self, target: SeekTarget, *, topic: str | None = None, partition: int | None = None) -> None:
        """See `Seekable`. A time is that of a message's arrival at RabbitMQ. A member that stands by seeks nothing."""
        check_seek(target, partition)
        if topic is not None and topic not in self._parts:
            raise UnknownTopicError(f"seek: this subscription has no topic {topic!r}.")
        if partition not in (None, 0):
            raise UnknownPartitionError(f"seek: a stream has no partition {partition}, it is one, 0.")
        self._seeking += 1
        try:
            for part in self._parts.values():
                if topic in (None, part.topic):
                    await self._seek(part, _offset(target))
        finally:
            self._seeking -= 1
            self._wake()

    async def _seek(self, part: _Part, offset: Offset) -> None:
        async with self._changing:
            before, place = part.reader, part.place
            if before is None:
                return
            reader = await self._read(part, offset)
            if self._closed or part.reader is not before:  # the turn was lost meanwhile
                reader.drop()
                return
            part.reader = reader
            before.drop()
            if place is None:
                return
            # "next" has become the offset that it is, or one before it.
            place, at = part.place or place, reader.stream_position
            part.place = place = Place(place.term + 1, offset if at is None else at)
            part.reported = -1
        await self._send(part, place)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """See `Subscription.close`."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
            self._wake()
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        if self._closed:
            return
        try:
            async with asyncio.timeout(_CLOSING):
                await self.flush()
        except (TransportError, TimeoutError) as error:
            LOGGER.warning("closing a subscription of a stream: %s", str(error) or "RabbitMQ did not answer")
        await self._end(lambda subscription: subscription.close())

    async def _end(self, close: Callable[[RabbitMQSubscription], Awaitable[None]]) -> None:
        self._closed = True
        self._wake()
        self._transport.forget(self)
        for task in (self._holding, *(part.reporting for part in self._parts.values())):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        for subscription in self._all():
            await close(subscription)

    async def abandon(self) -> None:
        """End as if the process had died: nothing more is reported. For tests of redelivery."""
        self._closing = asyncio.ensure_future(self._abandon())
        await self._closing

    async def _abandon(self) -> None:
        await self._end(lambda subscription: subscription.abandon())


def _offset(target: SeekTarget) -> Offset:
    if isinstance(target, str):
        return _ENDS[target]
    # Before the first is the first; AMQP has no number for all of that.
    return max(target, _EPOCH) if isinstance(target, datetime) else min(max(target, 0), _MOST)


def _reader_of(delivery: Delivery) -> RabbitMQSubscription | None:
    return delivery.state.subscription if isinstance(delivery, RabbitMQDelivery) else None
