"""`GroupSubscription`: several workers share the log, by partitions of its streams, with leases."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from zlib import crc32

from commons_events.errors import CheckpointError, ConfigurationError, InvalidStreamError, LeaseLostError
from commons_events.event import Event
from commons_events.runtime import current_runtime
from commons_events.sourcing._backend import Lease, LogQuery
from commons_events.sourcing._types import MAX_NAME, StoredEvent, StreamId, check_count, check_name

if TYPE_CHECKING:
    from commons_events.sourcing._store import BaseEventStore
    from commons_events.sourcing._store_transaction import StoreTransaction

__all__ = ["GroupDelivery", "GroupSubscription", "check_group", "partition_of", "repartitioned"]

_LAST = 2**63 - 1
_EMPTY_HANDED = 1.0
"""Seconds after which a worker without a partition asks again."""


def partition_of(stream: StreamId, partitions: int) -> int:
    """The partition that a stream's events go to: CRC-32 of its name (ISO 3309), the same in every process."""
    return crc32(f"{stream.category}\0{stream.id}".encode()) % partitions


@dataclass(eq=False, slots=True)
class GroupDelivery:
    """An event that this worker has to handle. Finish it by `done`, or by `finish` in a transaction of your own."""

    stored: StoredEvent
    lease: Lease
    _group: GroupSubscription

    def event(self) -> Event:
        """See `StoredEvent.event`."""
        return self.stored.event()

    async def finish(self, transaction: StoreTransaction) -> None:
        """Save in the transaction that this event is handled: what the transaction wrote then happens once.

        Where the transaction then fails, the event is not finished, and the partition's next one does not come: call
        this again in another transaction, or close the subscription and let the event come again.

        Raises:
            LeaseLostError: another worker has taken over this partition; let the transaction roll back.
            CheckpointError: the event was finished before; let the transaction roll back.
        """
        await transaction.check_lease(self.lease)
        name = self._group.checkpoint_name(self.lease.partition)
        await transaction.save_checkpoint(name, self.stored.position)
        transaction._after_commit.append(lambda: self._group._finished(self))

    async def done(self) -> None:
        """Save, in a transaction of its own, that this event is handled. Called again it does nothing more.

        Raises:
            LeaseLostError: another worker has taken over this partition, and handles the event again.
        """
        try:
            async with self._group._store.transaction() as transaction:
                await self.finish(transaction)
        except CheckpointError:  # it was saved, and only the answer was lost
            self._group._finished(self)


class _Part:
    """One partition that this worker holds."""

    __slots__ = ("lease", "out", "read", "waiting")

    def __init__(self, lease: Lease, read: int) -> None:
        self.lease = lease
        self.read = read
        self.waiting: deque[StoredEvent] = deque()
        self.out: GroupDelivery | None = None


class GroupSubscription:
    """An endless ``async for`` over this worker's share; made by `EventStore.subscribe_group`.

    One event of a partition is out at a time; another event of the same partition comes once that one is finished, so
    several tasks may take from one subscription. What is not finished comes again to whoever holds the partition next.
    """

    def __init__(
        self,
        store: BaseEventStore,
        group: str,
        query: LogQuery,
        *,
        worker: str | None,
        partitions: int,
        after: int,
        lease_seconds: float,
        poll_interval: float,
    ) -> None:
        check_count(partitions, "partitions", 1024)
        if worker is not None:
            check_name(worker, "worker's name")
        self.worker = worker if worker is not None else current_runtime().new_id()
        self.group = group
        self.partitions = partitions
        self._store = store
        self._query = query
        self._after = after
        self._seconds = lease_seconds
        self._poll_interval = poll_interval
        self._parts: dict[int, _Part] = {}
        self._renewed = float("-inf")
        self._joined = False
        self._change = asyncio.Event()
        self._turn = asyncio.Lock()
        self._closed = False

    def checkpoint_name(self, partition: int) -> str:
        """The name under which the group saves how far a partition has come."""
        return f"{self.group}/{partition}"

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions that this worker holds, as far as it knows."""
        return frozenset(self._parts)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> GroupDelivery:
        async with self._turn:
            while not self._closed:
                await self._renew()
                found = self._take()
                if found is not None:
                    return found
                self._change.clear()
                if not await self._read():
                    await self._wait()
        raise StopAsyncIteration

    async def _renew(self) -> None:
        now = current_runtime().monotonic()
        third = self._seconds / 3
        if now - self._renewed < (third if self._parts else min(third, _EMPTY_HANDED)):
            return
        backend = await self._store._writable()
        self._joined = True  # also if this is cancelled on the way
        leases = await backend.lease(self.group, self.partitions, self.worker, self._seconds)
        self._renewed = now
        held = {lease.partition: lease for lease in leases}
        for partition in list(self._parts):
            if held.get(partition) != self._parts[partition].lease:
                del self._parts[partition]
        new = held.keys() - self._parts.keys()
        if new:
            saved = await backend.checkpoints(f"{self.group}/")
            for partition in new:
                position = saved.get(self.checkpoint_name(partition), self._after)
                self._parts[partition] = _Part(held[partition], position)

    def _take(self) -> GroupDelivery | None:
        for partition, part in list(self._parts.items()):
            if part.out is None and part.waiting:
                del self._parts[partition]  # to the end: all get their turn
                self._parts[partition] = part
                part.out = GroupDelivery(part.waiting.popleft(), part.lease, self)
                return part.out
        return None

    async def _read(self) -> bool:
        """Read on from the partition that is furthest behind, for all of those at once; whether anything came."""
        idle = [part for part in self._parts.values() if not part.waiting]
        if not idle:
            return False
        start = min(part.read for part in idle)
        backend = await self._store._ready()
        page = await backend.fetch_log(self._query, start + 1, _LAST, self._store.page_size, False)
        for stored in page.events:
            part = self._parts.get(partition_of(stored.stream, self.partitions))
            if part is not None and part in idle and stored.position > part.read:
                part.waiting.append(stored)
        for part in idle:
            part.read = max(part.read, page.safe_position)
        return page.safe_position > start

    async def _wait(self) -> None:
        """Until an event is finished, something new is stored, or leases have to be renewed."""
        backend = await self._store._ready()
        reads = [part.read for part in self._parts.values() if not part.waiting]
        seconds = min(self._poll_interval, self._seconds / 3)
        news = asyncio.ensure_future(backend.wait(min(reads), seconds) if reads else current_runtime().sleep(seconds))
        change = asyncio.ensure_future(self._change.wait())
        try:
            await asyncio.wait((news, change), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (news, change):
                task.cancel()
            await asyncio.gather(news, change, return_exceptions=True)

    def _finished(self, delivery: GroupDelivery) -> None:
        part = self._parts.get(delivery.lease.partition)
        if part is not None and part.out is delivery:
            part.out = None
            self._change.set()

    async def close(self) -> None:
        """Give this worker's partitions back, for others to go on with at once. Harmless twice."""
        if self._closed:
            return
        self._closed = True
        self._change.set()
        self._parts = {}
        if self._joined:  # also who holds nothing counts as alive, and is left a share
            backend = await self._store._writable()
            await backend.lease(self.group, self.partitions, self.worker, 0.0, range(self.partitions))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def check_group(name: str) -> None:
    """Raise `InvalidStreamError` where ``name`` is no group's: its checkpoints are called ``name/partition``."""
    check_name(name, "group's name")
    if len(name) > (most := MAX_NAME - len("/1023")):
        raise InvalidStreamError(f"The group's name {name[:40]!r}… has {len(name)} characters; at most {most}.")


def repartitioned(group: str, present: int, partitions: int) -> ConfigurationError:
    """The error for a group of another number of partitions."""
    return ConfigurationError(
        f"The group {group!r} has {present} partitions, and this worker was told {partitions}: streams would move to "
        f"partitions that have come further, and events be left out. Use partitions={present}; or a new group, with "
        "after= the lowest of the old one's checkpoints."
    )


def lost(lease: Lease) -> LeaseLostError:
    """The error of who has lost this lease."""
    return LeaseLostError(
        f"Worker {lease.owner!r} has lost partition {lease.partition} of group {lease.group!r}: another worker has "
        "taken it over, and handles again what was not finished. Let the transaction roll back."
    )
