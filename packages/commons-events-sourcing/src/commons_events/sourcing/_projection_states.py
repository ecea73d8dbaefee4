"""What a store's database knows of projections: versions, pauses, rebuilds, and the events that were parked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, func, insert, select, text, update

from commons_events.errors import UnknownProjectionError
from commons_events.runtime import current_runtime
from commons_events.sourcing import _tables as t
from commons_events.sourcing._backend import LogQuery
from commons_events.sourcing._sql import as_utc
from commons_events.sourcing._store import BaseEventStore
from commons_events.sourcing._store_transaction import StoreTransaction
from commons_events.sourcing._types import StoredEvent, StreamId

if TYPE_CHECKING:
    from commons_events.sourcing._projection import Projection

__all__ = [
    "ParkedEvent",
    "ProjectionStates",
    "ProjectionStatus",
    "checkpoint_name",
    "take_turns",
]

_ID = 255

_CREATING = 4_912_207_355_110_943_471
"""An advisory lock's number: two workers that start at once must not both make the tables."""


def checkpoint_name(name: str, *, rebuild: bool = False) -> str:
    """What a projection's position is saved under; whatever it is called, no other's rebuild has the same."""
    return f"projection rebuild:{name}" if rebuild else f"projection:{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedEvent:
    """An event that a projection could not handle, or that waits behind such a one."""

    position: int
    stream: StreamId
    aggregate_version: int
    event_id: str
    event_type: str
    behind: int | None
    """The position of the event of its stream that it waits for; None where it failed itself."""
    error_type: str | None
    reason: str
    attempts: int
    parked_at: datetime
    """In UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectionStatus:
    """How a projection is."""

    name: str
    version: int
    position: int
    """All up to it is handled, parked, or not wanted."""
    head: int
    """The store's highest position."""
    lag: int
    """How many positions it is behind."""
    lag_seconds: float
    """How long the next event has waited for it; 0 where there is none."""
    parked: int
    """Events that are parked, those included that wait behind others."""
    paused: bool
    rebuild_version: int | None
    """What a rebuild is making; None for no rebuild."""
    rebuild_position: int | None
    error: str | None
    """Why the last try failed; None while all is well."""
    error_position: int | None

    @property
    def state(self) -> str:
        """``failing``, ``paused``, ``rebuilding``, ``behind`` or ``live``: the first of these that holds."""
        if self.error is not None:
            return "failing"
        if self.paused:
            return "paused"
        if self.rebuild_version is not None:
            return "rebuilding"
        return "behind" if self.lag else "live"

    def is_healthy(self, max_lag_seconds: float = 60.0) -> bool:
        """Whether nobody has to look: no error, nothing parked, and not further behind than this."""
        return self.error is None and not self.parked and (self.paused or self.lag_seconds <= max_lag_seconds)


class ProjectionStates:
    """What operators see and do, without the projections' code.

    Args:
        store: whose projections. It has to be one with SQL.
    """

    def __init__(self, store: BaseEventStore) -> None:
        self._store = store

    async def status(self) -> list[ProjectionStatus]:
        """All projections of the store, by name.

        Raises:
            CapabilityError: the store is in memory, and has no SQL.
        """
        async with self._store.transaction() as transaction:
            rows = (await transaction.execute(select(t.projections).order_by(t.projections.c.name))).all()
            counts = await transaction.execute(
                select(t.parked.c.projection, func.count())
                .where(t.parked.c.rebuild.is_(False))
                .group_by(t.parked.c.projection)
            )
            parked: dict[str, int] = dict(tuple(row) for row in counts.all())
        saved = await self._store.checkpoints(checkpoint_name(""))
        positions = [saved.get(checkpoint_name(row.name), 0) for row in rows]
        head = await self._store.head()
        behind = [position for position in dict.fromkeys(positions) if position < head]
        waited = dict(zip(behind, await asyncio.gather(*(self._waited(one, head) for one in behind)), strict=True))
        return [
            ProjectionStatus(
                name=row.name,
                version=row.version,
                position=position,
                head=head,
                lag=max(0, head - position),
                lag_seconds=waited.get(position, 0.0),
                parked=parked.get(row.name, 0),
                paused=row.paused,
                rebuild_version=row.rebuild_version,
                rebuild_position=row.rebuild_position,
                error=row.error,
                error_position=row.error_position,
            )
            for row, position in zip(rows, positions, strict=True)
        ]

    async def _waited(self, position: int, head: int) -> float:
        """For how many seconds the first event after this position has been there."""
        page = await (await self._store._ready()).fetch_log(LogQuery(), position + 1, head, 1, False)
        if not page.events or page.events[0].recorded_at is None:
            return 0.0
        return max(0.0, (current_runtime().now() - page.events[0].recorded_at).total_seconds())

    async def set_paused(self, name: str, paused: bool) -> None:
        """Let workers leave a projection alone from their next batch on, or go on with it.

        Raises:
            UnknownProjectionError: the store has none of this name.
        """
        async with self._store.transaction() as transaction:
            await self.require(transaction, name)
            await self.write(transaction, name, paused=paused)

    async def parked(self, name: str, *, limit: int = 1000) -> list[ParkedEvent]:
        """The events that are parked, in the order of their positions.

        Raises:
            UnknownProjectionError: the store has no projection of this name.
        """
        async with self._store.transaction() as transaction:
            await self.require(transaction, name)
            return await self.parked_in(transaction, name, rebuild=False, limit=limit)

    # --- for the workers ---------------------------------------------------------------------------------------

    async def enter(self, transaction: StoreTransaction, projection: Projection) -> Any:
        """The projection's row; where it is new here, its tables are made, and it is entered at the log's beginning."""
        await transaction.run_sync(take_turns)
        row = await self.row(transaction, projection.name)
        if row is not None:
            return row
        await transaction.run_sync(_maker_of_tables(projection))
        # The row is there from now on, so that it can be locked.
        await transaction.save_checkpoint(checkpoint_name(projection.name), 0, backwards=True)
        await transaction.execute(
            insert(t.projections).values(
                name=projection.name, version=projection.version, paused=False, changed_at=current_runtime().now()
            )
        )
        return await self.row(transaction, projection.name)

    async def row(self, transaction: StoreTransaction, name: str) -> Any:
        """The projection's row; None where there is none."""
        return (await transaction.execute(select(t.projections).where(t.projections.c.name == name))).one_or_none()

    async def require(self, transaction: StoreTransaction, name: str) -> Any:
        """The projection's row.

        Raises:
            UnknownProjectionError: there is none.
        """
        row = await self.row(transaction, name)
        if row is None:
            names = (
                (await transaction.execute(select(t.projections.c.name).order_by(t.projections.c.name))).scalars().all()
            )
            raise UnknownProjectionError(
                f"The store knows of no projection {name!r}; there are: {', '.join(names) or 'none'}. A projection is "
                "entered when it first runs."
            )
        return row

    async def write(self, transaction: StoreTransaction, name: str, **values: Any) -> None:
        """Change the projection's row."""
        values["changed_at"] = current_runtime().now()
        await transaction.execute(update(t.projections).where(t.projections.c.name == name).values(**values))

    async def park(
        self,
        transaction: StoreTransaction,
        name: str,
        stored: StoredEvent,
        *,
        rebuild: bool,
        error: Exception | None,
        behind: int | None = None,
        attempts: int = 1,
    ) -> None:
        """Put an event aside, with the reason."""
        reason = f"waits behind position {behind}, of the same stream" if error is None else _reason(error)
        await transaction.execute(
            insert(t.parked).values(
                projection=name,
                rebuild=rebuild,
                position=stored.position,
                stream_category=stored.stream.category,
                stream_id=stored.stream.id,
                aggregate_version=stored.aggregate_version,
                event_id=stored.event_id,
                event_type=stored.event_type,
                behind=behind,
                error_type=None if error is None else type(error).__qualname__[:_ID],
                reason=reason,
                attempts=attempts,
                parked_at=current_runtime().now(),
            )
        )

    async def parked_in(
        self, transaction: StoreTransaction, name: str, *, rebuild: bool, limit: int
    ) -> list[ParkedEvent]:
        """As `parked`, in a transaction."""
        wanted = (t.parked.c.projection == name) & t.parked.c.rebuild.is_(rebuild)
        rows = await transaction.execute(select(t.parked).where(wanted).order_by(t.parked.c.position).limit(limit))
        return [
            ParkedEvent(
                position=row.position,
                stream=StreamId(row.stream_id, row.stream_category),
                aggregate_version=row.aggregate_version,
                event_id=row.event_id,
                event_type=row.event_type,
                behind=row.behind,
                error_type=row.error_type,
                reason=row.reason,
                attempts=row.attempts,
                parked_at=as_utc(row.parked_at),
            )
            for row in rows.all()
        ]

    async def blocked(
        self, transaction: StoreTransaction, name: str, streams: Sequence[StreamId], *, rebuild: bool
    ) -> dict[StreamId, int]:
        """Those of the streams that have a parked event, with the position of the first."""
        ids = sorted({stream.id for stream in streams})
        rows = await transaction.execute(
            select(t.parked.c.stream_id, t.parked.c.stream_category, func.min(t.parked.c.position))
            .where(t.parked.c.projection == name, t.parked.c.rebuild.is_(rebuild), t.parked.c.stream_id.in_(ids))
            .group_by(t.parked.c.stream_id, t.parked.c.stream_category)
        )
        found: list[Any] = list(rows.all())
        return {StreamId(id, category): position for id, category, position in found}

    async def unpark(self, transaction: StoreTransaction, name: str, position: int) -> bool:
        """Take an event out that is handled after all; False where somebody else has done so."""
        result = await transaction.execute(
            delete(t.parked).where(
                t.parked.c.projection == name, t.parked.c.rebuild.is_(False), t.parked.c.position == position
            )
        )
        return bool(result.rowcount)

    async def failed_again(self, transaction: StoreTransaction, name: str, position: int, error: Exception) -> None:
        """Note why a parked event failed once more."""
        await transaction.execute(
            update(t.parked)
            .where(t.parked.c.projection == name, t.parked.c.rebuild.is_(False), t.parked.c.position == position)
            .values(
                attempts=t.parked.c.attempts + 1,
                reason=_reason(error),
                error_type=type(error).__qualname__[:_ID],
                behind=None,
            )
        )

    async def forget_parked(self, transaction: StoreTransaction, name: str, *, rebuild: bool) -> None:
        """Forget what is parked; the tables that lacked it go, too."""
        await transaction.execute(
            delete(t.parked).where(t.parked.c.projection == name, t.parked.c.rebuild.is_(rebuild))
        )

    async def promote_parked(self, transaction: StoreTransaction, name: str) -> None:
        """Let what a rebuild has parked be what is parked."""
        await self.forget_parked(transaction, name, rebuild=False)
        await transaction.execute(
            update(t.parked).where(t.parked.c.projection == name, t.parked.c.rebuild.is_(True)).values(rebuild=False)
        )


def take_turns(connection: Connection) -> None:
    """Let no other transaction make tables until this one ends; SQLite has one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _CREATING})


def _maker_of_tables(projection: Projection) -> Callable[[Connection], None]:
    """What makes those of the projection's tables that are missing."""

    def make(connection: Connection) -> None:
        for metadata in dict.fromkeys(table.metadata for table in projection.tables):
            tables = [table for table in projection.tables if table.metadata is metadata]
            metadata.create_all(connection, tables=tables, checkfirst=True)

    return make


def _reason(error: Exception) -> str:
    # A NUL is no text to PostgreSQL.
    return f"{type(error).__qualname__}: {error}".replace("\0", "\\0")[:4000]
