"""`AggregateStore`: aggregates in and out of streams of events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from commons_events.errors import (
    AggregateNotFoundError,
    ConfigurationError,
    ForeignAggregateError,
    InvalidVersionError,
    MissingHandlerError,
    SnapshotError,
    UnchangedAggregateError,
)
from commons_events.event import Event
from commons_events.log import logger
from commons_events.runtime import current_runtime
from commons_events.sourcing._aggregate import A, AggregateRoot, fresh, replay
from commons_events.sourcing._decoding import decode, place_of, readers
from commons_events.sourcing._snapshots import state_codec
from commons_events.sourcing._state import set_state
from commons_events.sourcing._store import BaseEventStore
from commons_events.sourcing._store_transaction import MAX_POSITION
from commons_events.sourcing._types import Append, StoredEvent, StoredSnapshot, StreamId

__all__ = ["AggregateStore", "KnownSnapshot", "events_of", "stream_of"]

_PAGE = 2_000
"""Events that loading holds in memory at once, besides the aggregate."""


class KnownSnapshot(NamedTuple):
    """What an aggregate knows of the newest snapshot of it that fits its class.

    Before the first one it is what a new aggregate begins from: version 0, when the first event happened.
    """

    version: int
    taken_at: datetime | None


class AggregateStore(BaseEventStore):
    """What an event store does for aggregates."""

    async def save(self, *aggregates: AggregateRoot) -> None:
        """Store the events that these aggregates have applied: all of them in one transaction, or none.

        An aggregate's stream has to be where the aggregate left it. After an error nothing was stored, and the events
        still wait; saving again what was stored after all, when only the answer was lost, does nothing more.

        Args:
            aggregates: one or several, of whatever classes.

        Raises:
            VersionConflictError: somebody else has changed one since it was loaded, or a new one exists already.
            UnchangedAggregateError: one has applied nothing since it was loaded or saved.
            ForeignAggregateError: one belongs to another store, comes twice, or is no aggregate.
            EventTooLargeError: an event is larger than the store takes.
            SnapshotError: a snapshot is due, and an attribute cannot be kept in it.
        """
        appends = self._appends(aggregates)
        snapshots = [snapshot for aggregate in aggregates if (snapshot := _due_after_save(aggregate)) is not None]
        if snapshots:
            async with self.transaction() as transaction:
                await transaction.append_many(appends)
                for snapshot in snapshots:
                    await transaction.save_snapshot(snapshot)
        else:
            await self.append_many(appends)
        for aggregate, append in zip(aggregates, appends, strict=True):
            stored: Any = append.expected  # an int: see _appends
            # Two tasks may have saved the same events: what was applied meanwhile still waits.
            record = aggregate._commons_events
            del record.pending[: max(stored + len(append.events) - aggregate.saved_version, 0)]
            record.origin = self
        kept = {(snapshot.stream, snapshot.kind): snapshot for snapshot in snapshots}
        for aggregate in aggregates if kept else ():
            snapshot = kept.get((stream_of(type(aggregate), aggregate.id), _kind(type(aggregate))))
            if snapshot is not None:
                aggregate._commons_events.snapshot = KnownSnapshot(snapshot.version, snapshot.taken_at)

    async def load(self, aggregate_class: type[A], id: str, *, version: int | None = None) -> A:
        """The aggregate, from its events; from its newest snapshot on, where the class has a ``snapshot_policy``.

        Args:
            aggregate_class: is called with the id.
            id: the aggregate's.
            version: as it was after this event; None for now.

        Raises:
            AggregateNotFoundError: it has no event, or none up to ``version``.
            StreamDeletedError: it was deleted.
            MissingHandlerError: the class has no handler for an event in its stream.
            UnknownEventTypeError: no class is known for the type of an event.
            UndecodableEventError: an event's bytes do not decode.
            AggregateDefinitionError: the class cannot be made from the id alone.
            InvalidVersionError: the version is less than 1.
        """
        given: Any = version
        if given is not None and (
            isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MAX_POSITION
        ):
            raise InvalidVersionError(
                f"An aggregate's version is a whole number from 1 on, and below 2⁶³, not {version!r}."
            )
        aggregate = fresh(aggregate_class, id)
        record = aggregate._commons_events
        stream = stream_of(aggregate_class, id)
        backend = await self._ready()
        last = MAX_POSITION if version is None else version
        page: Sequence[StoredEvent] | None = None
        if aggregate_class.snapshot_policy is not None:
            page = await self._from_snapshot(aggregate, stream, last)
        start, final_id = record.version, ""
        while True:
            if page is None:
                page = await backend.fetch_stream(stream, record.version + 1, last, _PAGE, False)
            if page:
                if page[0].aggregate_version == 1:
                    record.snapshot = KnownSnapshot(0, page[0].timestamp)
                _replay(aggregate, page)
                final_id = page[-1].event_id
            if len(page) < _PAGE - 1:  # after a snapshot, the first one of the page is in it
                break
            page = None
        if not record.version or (version is not None and record.version < version):
            await self._refuse_missing(aggregate, stream, version)
        record.origin = self
        if version is None and record.version > start:
            await self._keep_snapshot_if_due(aggregate, stream, final_id)
        return aggregate

    def _appends(self, aggregates: Sequence[AggregateRoot]) -> list[Append]:
        if not aggregates:
            raise ConfigurationError("save() takes one aggregate or several, and was given none.")
        appends: list[Append] = []
        streams: set[StreamId] = set()
        for aggregate in aggregates:
            if not isinstance(aggregate, AggregateRoot):
                raise ForeignAggregateError(
                    f"save() takes aggregates, and {aggregate!r:.100} is none. Derive its class from AggregateRoot; "
                    "events by themselves go to append()."
                )
            name = f"{type(aggregate).__qualname__} {aggregate.id!r}"
            record = aggregate._commons_events
            if record.origin is not None and record.origin is not self:
                raise ForeignAggregateError(
                    f"{name} belongs to another store, which it was loaded from or saved to. Load it from this store."
                )
            if not record.pending:
                raise UnchangedAggregateError(
                    f"{name} has applied no event since it was loaded or saved, so there is nothing to save. Ask "
                    "pending_events before, or let a UnitOfWork save what has changed."
                )
            stream = stream_of(type(aggregate), aggregate.id)
            if stream in streams:
                raise ForeignAggregateError(
                    f"{name} comes twice in one save(); the events of two objects of one aggregate do not fit together."
                )
            streams.add(stream)
            appends.append(Append(stream, tuple(record.pending), aggregate.saved_version))
        return appends

    async def _from_snapshot(
        self, aggregate: AggregateRoot, stream: StreamId, last: int
    ) -> Sequence[StoredEvent] | None:
        """Bring a fresh aggregate to its newest snapshot, if that fits its class and its stream.

        Returns:
            the events that follow what the aggregate is now; None where they are still to be read.
        """
        backend = await self._ready()
        stored, page = await backend.fetch_from_snapshot(stream, _kind(type(aggregate)), last, _PAGE)
        if stored is None:
            # Where the first snapshot was made between the look at it and at the events, these begin after it.
            return page if not page or page[0].aggregate_version == 1 else None
        if _restore(aggregate, stored, page):
            return page[1:]
        if not page:  # the stream ends before it, as that of an older backup does: none that is made now replaces it
            try:
                await self.delete_snapshots(stream)
            except Exception as error:  # noqa: BLE001  # as in _keep_snapshot_if_due
                _warn("a snapshot was not deleted", stream, error)
        return None

    async def _keep_snapshot_if_due(self, aggregate: AggregateRoot, stream: StreamId, event_id: str) -> None:
        try:
            snapshot = _snapshot_if_due(aggregate, stream, event_id)
            if snapshot is None:
                return
            async with self.transaction() as transaction:
                await transaction.save_snapshot(snapshot)
        except Exception as error:  # noqa: BLE001  # what was read is whole without it, also from a read-only database
            _warn("a snapshot was not kept", stream, error)
            return
        aggregate._commons_events.snapshot = KnownSnapshot(snapshot.version, snapshot.taken_at)

    async def _refuse_missing(self, aggregate: AggregateRoot, stream: StreamId, version: int | None) -> None:
        name = f"{type(aggregate).__qualname__} {aggregate.id!r}"
        there = await self.stream_version(stream)
        if there:
            raise AggregateNotFoundError(f"{name} is at version {there}, and has no version {version} yet.")
        others = [other.category for other in await (await self._ready()).streams_of(aggregate.id)]
        hint = f" Its id is that of streams of {', '.join(map(repr, others))}." if others else ""
        raise AggregateNotFoundError(f"There is no {name}: its stream {str(stream)!r} has no event.{hint}")


def _warn(what: str, stream: StreamId, error: Exception) -> None:
    logger().warning(what, stream=str(stream), error=f"{type(error).__name__}: {error}")


def stream_of(aggregate_class: type[AggregateRoot], id: str) -> StreamId:
    """The stream that an aggregate's events lie in."""
    return StreamId(id, aggregate_class.category or aggregate_class.__name__)


def _kind(aggregate_class: type[AggregateRoot]) -> str:
    return aggregate_class.__qualname__[-255:]


def events_of(page: Sequence[StoredEvent]) -> list[Event]:
    """The events of stored ones; each aggregate's event with the version that it has in its stream."""
    events: list[Event] = []
    known = readers()
    try:
        for stored in page:
            read, of_aggregate = known[stored[4:7]]
            event = read(stored[7])
            if of_aggregate and event.aggregate_version != stored[2]:
                event.placed(stored[2])
            events.append(event)
    except Exception:
        decode(page[len(events)])  # says where the bytes lie
        raise
    return events


def _replay(aggregate: AggregateRoot, page: Sequence[StoredEvent]) -> None:
    events, record = events_of(page), aggregate._commons_events
    before = record.version
    try:
        replay(aggregate, events)
    except MissingHandlerError as error:
        raise MissingHandlerError(f"{place_of(page[record.version - before])} cannot be applied: {error}") from error
    except Exception as error:
        error.add_note(f"{place_of(page[record.version - before])} was being applied.")
        raise


def _restore(aggregate: AggregateRoot, stored: StoredSnapshot, page: Sequence[StoredEvent]) -> bool:
    """Give a fresh aggregate the state of a snapshot, if that fits; ``page`` begins with its last event."""
    event_id, _, data = stored.data.partition(b"\n")
    # A stream that was restored from elsewhere may have other events there, or none.
    if not page or page[0].aggregate_version != stored.version or page[0].event_id.encode() != event_id:
        return False
    try:
        codec = state_codec(type(aggregate))
    except SnapshotError:  # said where the next one is to be kept
        return False
    if stored.schema_version != codec.fingerprint or (state := codec.load(data)) is None:
        return False
    set_state(aggregate, state)
    record = aggregate._commons_events
    record.version = stored.version
    record.snapshot = KnownSnapshot(stored.version, stored.taken_at)
    return True


def _due_after_save(aggregate: AggregateRoot) -> StoredSnapshot | None:
    if type(aggregate).snapshot_policy is None:
        return None
    return _snapshot_if_due(
        aggregate, stream_of(type(aggregate), aggregate.id), aggregate._commons_events.pending[-1].event_id
    )


def _snapshot_if_due(aggregate: AggregateRoot, stream: StreamId, event_id: str) -> StoredSnapshot | None:
    aggregate_class = type(aggregate)
    policy, record = aggregate_class.snapshot_policy, aggregate._commons_events
    if record.snapshot is None and not aggregate.saved_version:
        record.snapshot = KnownSnapshot(0, record.pending[0].timestamp)
    known = record.snapshot
    now = current_runtime().now()
    if policy is None or not policy.is_due(
        record.version - (known.version if known else 0), known.taken_at if known else None, now
    ):
        return None
    codec = state_codec(aggregate_class)
    return StoredSnapshot(
        stream=stream,
        version=record.version,
        kind=_kind(aggregate_class),
        schema_version=codec.fingerprint,
        data=event_id.encode() + b"\n" + codec.dump(aggregate),
        taken_at=now,
    )
