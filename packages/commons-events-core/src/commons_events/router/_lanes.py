"""Lanes: one key in order, different keys side by side, all of it bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextvars import Context, copy_context
from decimal import getcontext
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol

from commons_events.errors import HandlerCancelledError
from commons_events.router._consumer import RouterConsumer
from commons_events.router._cut_off import CutOff
from commons_events.router._settling import settle
from commons_events.runtime import Runtime
from commons_events.transport import DONE, Delivery, Outcome, TopicPartition

__all__ = ["Lane", "LaneWorkers", "release"]

_LAST_WORD = 5.0
"""Seconds that the broker has at the end to be told what was given back."""

_PARTITION = attrgetter("partition")

_TURN = 16
"""Messages of one key that are handled before another key gets its turn."""


class Lane:
    """The messages of one key that are in this process, in order; a message without a key has one for itself.

    What a lane that has never failed says of its first message is the class's, so that making one costs little.
    """

    taken: int = 0
    """How many of the first messages are being handled: one, or what a batch has of them; none while it waits."""
    tries: int = 0
    """Tries of the first message in this process that failed and count."""
    first_try: float | None = None
    """The runtime's clock at the first try of the first message."""
    timer: asyncio.TimerHandle | None = None
    last_step: Callable[[], Awaitable[None]] | None = None
    """What is left to do for the first message, whose handler must not run again: keep it, or forward it."""
    troubles: int = 0
    """How often that has failed."""

    def __init__(self, key: bytes | None, first: Delivery) -> None:
        self.key = key
        self.deliveries = [first]  # mostly the only one, and a deque of one costs much more

    def next_message(self) -> None:
        """The first message is done with."""
        del self.deliveries[0]
        if self.tries or self.first_try is not None or self.last_step is not None or self.troubles:
            self.forget_tries()

    def forget_tries(self) -> None:
        """The first message is another one."""
        self.tries = self.troubles = 0
        self.first_try = self.last_step = None


Step = Callable[[Lane], Awaitable[float | None]]
"""Handles a lane's first message: None when it is done with, else after how many seconds to try again."""


def release(deliveries: Iterable[Delivery]) -> list[Awaitable[None]]:
    """Give messages back as if they had never been delivered."""
    return [settle(delivery, Outcome.RELEASE) for delivery in deliveries]


def _is_now(context: Context) -> bool:
    """Whether nothing was set in the current context since ``context`` was copied from it."""
    try:
        return copy_context() == context
    except Exception:  # noqa: BLE001  # of values that cannot be compared, such as arrays
        return False


class Plain(Protocol):
    """Handles messages about which nothing but the call of their handler is to be done: see `Processor`."""

    def read_plain(self, delivery: Delivery) -> tuple[Any, Any] | None:
        """The handler and the event for it; None where there is more to do, or to find out."""
        ...

    async def publish(self, one: Any, result: Any, event: Any, delivery: Delivery) -> None:
        """Publish what the handler returned."""
        ...

    async def failed(self, lane: Lane, one: Any, error: BaseException) -> float | None:
        """The seconds to wait after a handler has failed; None where its message is done with."""
        ...


class LaneWorkers:
    """Fetches from a consumer into lanes, and runs up to ``concurrency`` of them at once. It is a `Flow`.

    Partitions take turns, and so do the keys of one. A lane that waits for a retry takes no worker's place.

    Args:
        consumer: has joined its group.
        step: see `Step`.
        concurrency: the most keys whose handlers run at once.
        prefetch: the most messages that are in the lanes; beyond it nothing is fetched.
        runtime: its clock.
        fail: is told what must stop the router.
    """

    def __init__(
        self,
        consumer: RouterConsumer,
        step: Step,
        *,
        concurrency: int,
        prefetch: int,
        runtime: Runtime,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.consumer = consumer
        self.step = step
        self.concurrency = concurrency
        self.prefetch = prefetch
        self.buffered = 0
        """Messages in the lanes, those that are handled included."""
        self.paused = False
        self._runtime = runtime
        self.fail = fail
        self._lanes: dict[bytes, Lane] = {}
        self._waiting: set[Lane] = set()
        self._ready: dict[int | None, deque[Lane | Delivery]] = {}
        """By partition: lanes that may begin, and messages that have not come to a lane yet. One that has none is not
        among them."""
        self._turns: deque[tuple[int | None, deque[Lane | Delivery]]] = deque()
        """The same, in the order of their turns."""
        self._ready_count = 0
        """How many there are. A message whose key is being handled is among them, too, until its turn comes."""
        self._workers: set[asyncio.Task[None]] = set()
        self._context = copy_context()
        """What each worker begins with. One whose handler has set something in its own is followed by another."""
        self._starting = False
        """Whether a worker is about to take its first lane."""
        self._active = 0
        """Not how many tasks there are: one that has ended stays among them until the loop comes round to it."""
        self._room: asyncio.Future[None] | None = None
        self._settling: set[asyncio.Future[None]] = set()
        self._open = True
        self.cut_off = CutOff()
        self._permits = 0
        self._pauses = 0
        self.plain: Plain | None = None
        """The short way for messages that can take it."""
        self.on_new: Callable[[], None] | None = None
        """Called instead of starting workers where batches are made."""
        self.also_revoked: Callable[[frozenset[TopicPartition]], None] | None = None
        consumer.on_revoked = self._revoked
        consumer.see_to = self._see_to

    @property
    def running(self) -> int:
        """Workers that are at it."""
        return self._active

    # --- fetching ----------------------------------------------------------------------------------------------

    async def fetch(self) -> None:
        """Fetch until the consumer is closed; a full buffer or a pause waits."""
        self.cut_off.fetching = asyncio.current_task()
        while self._open:
            while self.buffered >= self.prefetch or self.paused:
                self._room = asyncio.get_running_loop().create_future()
                await self._room
            deliveries = await self.consumer.receive(self.prefetch - self.buffered)
            if not deliveries:
                return
            self._add(deliveries)

    def _add(self, deliveries: Sequence[Delivery]) -> None:
        self.buffered += len(deliveries)
        if self.on_new is None:
            for partition, some in groupby(deliveries, _PARTITION):
                self._queue(partition).extend(some)
            self._ready_count += len(deliveries)
        else:  # which counts the messages that may begin
            for delivery in deliveries:
                lane = self._lane(delivery)
                if lane is not None:
                    self._put(lane)
        self._start_workers()

    def _lane(self, delivery: Delivery) -> Lane | None:
        """A lane for this message; None where it waits behind another one of its key."""
        key = delivery.key
        if key is None:
            return Lane(None, delivery)
        present = self._lanes.get(key)
        if present is not None:
            present.deliveries.append(delivery)
            return None
        self._lanes[key] = lane = Lane(key, delivery)
        return lane

    def _queue(self, partition: int | None) -> deque[Lane | Delivery]:
        queue = self._ready.get(partition)
        if queue is None:
            self._ready[partition] = queue = deque()
            self._turns.append((partition, queue))
        return queue

    def _put(self, lane: Lane) -> None:
        self._queue(lane.deliveries[0].partition).append(lane)
        self._ready_count += 1

    def take(self) -> Lane | None:
        """The next lane in turn, which is then running; None where none is ready or may begin."""
        if not self._open or (self.paused and not self._permits):
            return None
        turns = self._turns
        while turns:
            partition, queue = turns[0]
            next_one = queue.popleft()
            if not queue:
                turns.popleft()
                del self._ready[partition]
            elif len(turns) > 1:
                turns.rotate(-1)
            self._ready_count -= 1
            lane = next_one if type(next_one) is Lane else self._lane(next_one)  # type: ignore[arg-type]
            if lane is not None:
                if self.paused:
                    self._permits -= 1
                lane.taken = 1
                return lane
        return None

    @property
    def ready_lanes(self) -> int:
        """Lanes that could begin."""
        return self._ready_count

    @property
    def may_begin(self) -> bool:
        """Whether a lane that is ready may be taken."""
        return self._open and (not self.paused or self._permits > 0)

    def count_ready(self, enough: int) -> int:
        """How many messages are in lanes that could begin, counted up to ``enough``."""
        if self._ready_count >= enough:  # each has one at least
            return enough
        count = 0
        for queue in self._ready.values():
            for one in queue:
                count += len(one.deliveries) if isinstance(one, Lane) else 1
                if count >= enough:
                    return count
        return count

    # --- working -----------------------------------------------------------------------------------------------

    def _start_workers(self) -> None:
        if self.on_new is not None:
            self.on_new()
            return
        if self._starting or not self._ready_count or self._active >= self.concurrency:
            return
        if self.paused and not self._permits:
            return
        # One at a time: it starts the next one before it begins. Handlers that never wait need no second worker.
        self._starting = True
        self.spawn(self._work())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as one of the workers."""
        self._active += 1
        task = asyncio.get_running_loop().create_task(self._counted(work), context=self._context.copy())
        self._workers.add(task)
        task.add_done_callback(self._workers.discard)

    async def _counted(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            self._active -= 1
            if self._open:
                self._start_workers()

    def broke(self, error: BaseException) -> None:
        """A worker ends by an error, which must stop the router.

        Raises:
            CancelledError: it is none, but the worker's being cut off.
        """
        if isinstance(error, asyncio.CancelledError):
            if self.cut_off.is_on:
                raise error
            error = HandlerCancelledError(
                "A worker of the router was cancelled while it ran no handler, and not by the router: a handler, or a "
                "library that it uses, must have cancelled its task after it had ended. The message stays unsettled."
            )
        self.fail(error)

    async def _work(self) -> None:
        self._starting = False
        getcontext()  # else the first Decimal makes one, which would pass for something that a handler has set
        step, clean = self.step, copy_context()
        lane = self.take()
        if lane is not None:
            self._start_workers()
        while lane is not None:
            try:
                if self.plain is not None:
                    lane = await self._work_plainly(self.plain, lane)
                    if lane is None:
                        return
                probing = self.probing
                deliveries = lane.deliveries
                wait: float | None = None
                for _ in range(_TURN):
                    if deliveries[0].outcome is None:  # else it was given back meanwhile
                        wait = await step(lane)
                        if wait is not None:
                            break
                    lane.next_message()
                    self.buffered -= 1
                    if not deliveries or not self._open or self.paused or not _is_now(clean):
                        break
            except BaseException as error:  # noqa: BLE001  # also SystemExit: the router ends, and raises it where it runs
                self.broke(error)
                return
            self.put_back(lane, wait)
            self.probed(probing)
            lane = self.take() if _is_now(clean) else None

    async def _work_plainly(self, plain: Plain, lane: Lane | None) -> Lane | None:
        """Handle a lane's message, and those of the next ones, as long as each can take the short way.

        Returns:
            the first lane that cannot, which is running; None where none is left that may begin.
        """
        consumer, lanes, cut_off, task = self.consumer, self._lanes, self.cut_off, asyncio.current_task()
        rejected, clean = consumer.rejected, copy_context()
        assert task is not None
        while lane is not None:
            deliveries = lane.deliveries
            delivery = deliveries[0]
            if (
                len(deliveries) != 1
                or delivery.outcome is not None
                or lane.last_step is not None
                or consumer.recorded
                or self.paused
                or (found := plain.read_plain(delivery)) is None
            ):
                return lane
            one, event = found
            wait: float | None = None
            try:
                result = await one.call(event, delivery)
                if cut_off.begun or task.cancelling():
                    await cut_off.clear()
                if rejected and delivery in rejected:
                    raise rejected[delivery]
                if result is not None:
                    await plain.publish(one, result, event, delivery)
            except BaseException as error:  # noqa: BLE001  # a user's code; whatever it raises, the policy decides
                wait = await plain.failed(lane, one, error)
            else:
                told = consumer.finish(delivery)
                if told is not DONE:
                    await told
            if wait is None and len(deliveries) == 1:
                self.buffered -= 1
                if lane.key is not None:
                    del lanes[lane.key]
                if self._room is not None and self.buffered <= self.prefetch // 2:
                    self._let_fetch()
            else:
                if wait is None:
                    lane.next_message()
                    self.buffered -= 1
                self.put_back(lane, wait)
            lane = self.take() if _is_now(clean) else None
        return None

    def put_back(self, lane: Lane, wait: float | None) -> None:
        """A lane's turn is over: it is done with, has more, or has to wait ``wait`` seconds."""
        lane.taken = 0
        if wait is not None:
            self._waiting.add(lane)
            lane.timer = self._runtime.call_later(wait, lambda: self._wake(lane))
        elif lane.deliveries:
            self._put(lane)  # whoever puts it back looks for the next one, and finds it
            if self.on_new is not None:
                self.on_new()
        elif lane.key is not None:
            del self._lanes[lane.key]
        if self._room is not None and self.buffered <= self.prefetch // 2:
            self._let_fetch()

    def _wake(self, lane: Lane) -> None:
        self._waiting.discard(lane)
        lane.timer = None
        if self._open:
            self._put(lane)
            self._start_workers()

    def _let_fetch(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # --- giving back -------------------------------------------------------------------------------------------

    def release_followers(self, lane: Lane) -> None:
        """Give back all but the first message of a running lane: they come again behind it."""
        followers = lane.deliveries[1:]
        del lane.deliveries[1:]
        if lane.key is not None:
            unseen = [delivery for delivery in self._in_no_lane() if delivery.key == lane.key]
            self._withdraw(*unseen)
            followers += unseen
        self.buffered -= len(followers)
        self._see_to(release(followers))

    def _revoked(self, revoked: frozenset[TopicPartition]) -> None:
        """Partitions are about to go to another member: what has not begun goes with them, what runs may finish."""
        if self.also_revoked is not None:
            self.also_revoked(revoked)
        gone: list[Delivery] = []

        def goes(delivery: Delivery) -> bool:
            return delivery.partition is not None and (delivery.topic, delivery.partition) in revoked

        for lane in [*self._all_lanes()]:
            kept = lane.deliveries[: lane.taken]
            for delivery in lane.deliveries[lane.taken :]:
                (gone if goes(delivery) else kept).append(delivery)
            if len(kept) == len(lane.deliveries):
                continue
            self.buffered -= len(lane.deliveries) - len(kept)
            if not lane.taken and (not kept or kept[0] is not lane.deliveries[0]):
                lane.forget_tries()
            lane.deliveries.clear()  # in place: its worker has it at hand
            lane.deliveries.extend(kept)
            if not kept:
                self._drop(lane)
        unseen = [delivery for delivery in self._in_no_lane() if goes(delivery)]
        self.buffered -= len(unseen)
        self._withdraw(*unseen)
        gone += unseen
        self._see_to(release(gone))
        if self.buffered <= self.prefetch // 2:
            self._let_fetch()

    def _all_lanes(self) -> Iterable[Lane]:
        yield from self._lanes.values()
        yield from (one for queue in self._ready.values() for one in queue if isinstance(one, Lane) and one.key is None)
        yield from (lane for lane in self._waiting if lane.key is None)

    def _in_no_lane(self) -> Iterable[Delivery]:
        """The messages that have not come to a lane yet, in order; they stand behind those of their keys that have."""
        yield from (one for queue in self._ready.values() for one in queue if not isinstance(one, Lane))

    def _drop(self, lane: Lane) -> None:
        if lane.key is not None:
            del self._lanes[lane.key]
        if lane.timer is not None:
            lane.timer.cancel()
        self._waiting.discard(lane)
        self._withdraw(lane)

    def _withdraw(self, *gone: Lane | Delivery) -> None:
        """Take these out of the queues of those that may begin, where they are in them."""
        left = frozenset(gone)
        for partition, queue in list(self._ready.items()):
            kept = [one for one in queue if one not in left]
            if len(kept) == len(queue):
                continue
            self._ready_count -= len(queue) - len(kept)
            queue.clear()  # in place: it is among the turns, too
            queue.extend(kept)
            if not kept:
                del self._ready[partition]
                self._turns.remove((partition, queue))

    # --- the tap (see Flow) ------------------------------------------------------------------------------------

    def pause(self) -> None:
        """See `Flow`."""
        self.paused = True
        self._permits = 0
        self._pauses += 1

    def probe(self) -> None:
        """See `Flow`."""
        if self.paused and not self._permits:
            self._permits = 1
            self._start_workers()

    @property
    def probing(self) -> int | None:
        """What to tell `probed` after messages that begin now; None where they are no probe."""
        return self._pauses if self.paused else None

    def probed(self, probing: int | None) -> None:
        """Probe once more where those messages said nothing of what is being probed."""
        if probing is not None and self.paused and probing == self._pauses:
            self.probe()

    def resume(self) -> None:
        """See `Flow`."""
        self.paused = False
        self._start_workers()
        if self.buffered < self.prefetch:
            self._let_fetch()

    # --- the end -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin no more handlers."""
        self._open = False
        for lane in self._waiting:
            if lane.timer is not None:
                lane.timer.cancel()

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The workers that run."""
        return set(self._workers)

    def cancel(self) -> None:
        """Cut the workers off, once `stop` was called."""
        self.cut_off.begun = True
        for task in self._workers:
            task.cancel()

    def give_back(self) -> None:
        """Give back what is in the lanes and is not being handled, once `stop` was called.

        What failed and waited for its retry goes back as failed, so that a broker that counts attempts counts it.
        """
        for lane in list(self._all_lanes()):
            left = lane.deliveries[lane.taken :]
            if not lane.taken and lane.tries and left[0].outcome is None:
                self._see_to([settle(left[0], Outcome.NACK)])
            self._see_to(release(left))
        self._see_to(release(self._in_no_lane()))

    def _see_to(self, settling: Iterable[Awaitable[None]]) -> None:
        """Let settlements that are on their way end by themselves."""
        for one in settling:
            if one is not DONE:
                task = asyncio.ensure_future(one)
                self._settling.add(task)
                task.add_done_callback(self._settling.discard)

    async def all_settled(self) -> None:
        """Wait for those; what the broker cannot be told in time comes again once the consumer has left."""
        if self._settling:
            _, untold = await asyncio.wait(self._settling, timeout=_LAST_WORD)
            for task in untold:
                task.cancel()
