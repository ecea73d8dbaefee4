"""`Backend`: what a database does for an `EventStore`. Thin, batch-shaped; the policy is the store's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from commons_events.sourcing._nesting import Nesting
from commons_events.sourcing._types import AppendResult, PreparedAppend, StoredEvent, StoredSnapshot, StreamId

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Result
    from sqlalchemy.sql import Executable

__all__ = ["Backend", "BackendTransaction", "Lease", "LogPage", "LogQuery"]

T = TypeVar("T")


class LogQuery(NamedTuple):
    """Which events of the whole store are wanted. An empty tuple stands for all; several words of one are an "or"."""

    categories: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    """All of these have to be there."""


class LogPage(NamedTuple):
    """A part of the log."""

    events: Sequence[StoredEvent]
    safe_position: int
    """Reading on after this position misses nothing: all up to it is in this page or is not wanted, and no
    transaction that is still open can bring anything at or before it."""


class Lease(NamedTuple):
    """A part of a group's work that a worker has for itself for some time."""

    group: str
    partition: int
    owner: str
    epoch: int
    """Counts up with every owner: who holds an older one has lost it."""


class BackendTransaction(ABC):
    """What is done through it is seen together, or not at all."""

    @abstractmethod
    async def append(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        """See `Backend.append`."""

    @abstractmethod
    async def fetch_stream(
        self, stream: StreamId, first: int, last: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        """See `Backend.fetch_stream`."""

    @abstractmethod
    async def checkpoint(self, name: str) -> int:
        """The position that was saved under this name; 0 where there is none. Locked until the transaction's end."""

    @abstractmethod
    async def save_checkpoint(self, name: str, position: int, *, backwards: bool) -> None:
        """Save it.

        Raises:
            CheckpointError: it is not ahead of the one that is there, and ``backwards`` was not allowed.
        """

    @abstractmethod
    async def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        """Keep it in the place of the stream's older one of the same kind; a newer one stays."""

    @abstractmethod
    async def check_lease(self, lease: Lease) -> None:
        """Hold the lease until the end of the transaction.

        Raises:
            LeaseLostError: another worker has it.
        """

    @abstractmethod
    async def execute(self, statement: Executable, parameters: Any = None) -> Result[Any]:
        """Execute a SQLAlchemy statement in the transaction; the result is wholly read."""

    @abstractmethod
    async def run_sync(self, function: Callable[[Connection], T]) -> T:
        """Call ``function`` with the transaction's SQLAlchemy connection."""

    def check(self) -> None:  # noqa: B027  # a database may have nothing that ends it
        """Say whether what was done so far can still be committed; without asking the database.

        Raises:
            TransactionError: a statement has failed, or somebody has ended the transaction.
        """


class Backend(ABC):
    """A database that keeps events. Made without waiting and without network; opened once, in one event loop.

    The store in front of it has checked what it is given, and refuses writes past an open transaction in that
    transaction's own block. `MemoryBackend` is the shortest whole one: to be read beside this, or derived from.
    """

    name: ClassVar[str]
    reads_ahead: ClassVar[bool] = False
    """Whether another process reads while this one works, so that it pays to ask for the next page early."""

    @property
    def place(self) -> object:
        """What two backends on the same database have in common, as far as can be told without asking it."""
        return self

    @cached_property
    def _blocks(self) -> Nesting:
        """The blocks of its transactions, which the stores in front of it keep: several may share it."""
        return Nesting()

    @abstractmethod
    async def open(self) -> None:
        """Connect; make the tables in a database that has none of them; check that they are this version's.

        Raises:
            StoreUnavailableError: the database is out of reach.
            UnknownDatabaseError: there is no such database.
            StoreSchemaError: the tables are older or newer than this code.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what was handed over, and disconnect. Harmless twice."""

    @abstractmethod
    async def append(self, appends: Sequence[PreparedAppend]) -> list[AppendResult]:
        """Store all of these, each stream once, in one transaction, or nothing of them.

        The order of the appends is that of the positions. An append whose events, by their ids, the stream has already
        in just this order, where they would stand, is done without storing anything: with an exact version just behind
        that version, with `NO_STREAM` at the stream's beginning, with `ANY` and `STREAM_EXISTS` anywhere side by side.
        Else what is expected decides, and not the ids: with the stream's present version an event that the stream has
        is stored again. With `ANY` and `STREAM_EXISTS` it is a conflict if the stream has only some of the events.

        Raises:
            VersionConflictError: a stream is not as expected; it takes ``append.expected`` as it is.
            StreamDeletedError: a stream was deleted.
        """

    @abstractmethod
    async def fetch_stream(
        self, stream: StreamId, first: int, last: int, limit: int, backwards: bool
    ) -> list[StoredEvent]:
        """Up to ``limit`` of the stream's events of the versions from ``first`` to ``last``, both included."""

    @abstractmethod
    async def fetch_log(
        self, query: LogQuery, first: int, last: int, limit: int, backwards: bool, *, scan: int | None = None
    ) -> LogPage:
        """Up to ``limit`` events at the positions from ``first`` to ``last``, both included, that fit the query.

        Forwards it stops before what an open transaction may yet fill.
        """

    @abstractmethod
    async def stream_version(self, stream: StreamId) -> int:
        """The version of the stream's last event; 0 where it does not exist.

        Raises:
            StreamDeletedError: it was deleted.
        """

    @abstractmethod
    async def streams_of(self, id: str) -> list[StreamId]:
        """The streams of this id, of whatever category."""

    @abstractmethod
    async def head(self) -> int:
        """The highest position that is stored; 0 in an empty store."""

    @abstractmethod
    async def delete_stream(self, stream: StreamId, expected: int | None) -> None:
        """Delete the stream's events and snapshots for good, and refuse its name from now on.

        Raises:
            VersionConflictError: it is not at the expected version.
            StreamNotFoundError: there is none.
            StreamDeletedError: it was deleted before.
        """

    @abstractmethod
    async def snapshot(self, stream: StreamId, kind: str, at_most: int) -> StoredSnapshot | None:
        """The stream's latest snapshot of this kind that is of no later version than ``at_most``."""

    async def fetch_from_snapshot(
        self, stream: StreamId, kind: str, last: int, limit: int
    ) -> tuple[StoredSnapshot | None, list[StoredEvent]]:
        """The stream's snapshot as by `snapshot`, and up to ``limit`` events from its version on, that one included.

        Without a snapshot the events are those from the first one on.
        """
        found = await self.snapshot(stream, kind, last)
        return found, await self.fetch_stream(stream, found.version if found else 0, last, limit, False)

    @abstractmethod
    async def delete_snapshots(self, stream: StreamId) -> None:
        """Forget the stream's snapshots."""

    @abstractmethod
    async def checkpoints(self, prefix: str) -> Mapping[str, int]:
        """The saved positions whose names begin so."""

    @abstractmethod
    async def delete_checkpoint(self, name: str) -> None:
        """Forget a saved position."""

    @abstractmethod
    async def lease(
        self, group: str, partitions: int, owner: str, seconds: float, release: Sequence[int] = ()
    ) -> list[Lease]:
        """Renew this worker's leases, take a fair share of those that are free, give back ``release``.

        Who asks is a worker of the group from then on, also with nothing in hand; who says nothing for ``seconds``, by
        the database's clock, is none any more and loses what it holds. The fair share of ``partitions`` among the
        workers is even: where that leaves a rest, so many of them may have one more. A worker that has more than its
        share gives the surplus back in this call, for others to take in theirs; it keeps the rest, with their epochs.
        Each taking counts the partition's epoch up. With ``seconds`` of 0 the worker leaves the group, and holds
        nothing.

        Returns:
            what it holds now.

        Raises:
            ConfigurationError: the group has another number of partitions, which it has for good.
        """

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[BackendTransaction]:
        """Commit when the block ends; roll back, and let the exception pass, when it raises.

        Other writes may wait meanwhile; reads in the block do not.
        """

    @abstractmethod
    async def wait(self, position: int, seconds: float) -> None:
        """Return once something after ``position`` may be there, at the latest after ``seconds``."""
