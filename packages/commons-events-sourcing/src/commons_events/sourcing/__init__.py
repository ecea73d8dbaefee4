"""Event sourcing: an async event store on PostgreSQL, SQLite or in memory, whose readers miss nothing.

`EventStore` keeps streams of events; see ``docs/event-store.md``.
"""

from commons_events.sourcing._aggregate import AggregateRoot
from commons_events.sourcing._aggregate_store import AggregateStore
from commons_events.sourcing._backend import Backend, BackendTransaction, Lease, LogPage, LogQuery
from commons_events.sourcing._copy import Progress, ProgressBar, copy_events
from commons_events.sourcing._domain_event import DomainEvent
from commons_events.sourcing._facade import EventStore
from commons_events.sourcing._groups import GroupDelivery, GroupSubscription
from commons_events.sourcing._memory import MemoryBackend
from commons_events.sourcing._relay import OutboxRelay
from commons_events.sourcing._repository import Repository, run_unit
from commons_events.sourcing._snapshots import SnapshotPolicy
from commons_events.sourcing._store import BaseEventStore
from commons_events.sourcing._store_transaction import StoreTransaction
from commons_events.sourcing._subscription import Subscription
from commons_events.sourcing._types import (
    ANY,
    NO_STREAM,
    STREAM_EXISTS,
    Append,
    AppendResult,
    Expected,
    ExpectedState,
    NewEvent,
    PreparedAppend,
    PreparedEvent,
    StoredEvent,
    StoredSnapshot,
    StreamId,
    Tagged,
)
from commons_events.sourcing._unit_of_work import UnitOfWork
from commons_events.sourcing._upgrade import upgrade

__all__ = [
    "ANY",
    "NO_STREAM",
    "STREAM_EXISTS",
    "AggregateRoot",
    "AggregateStore",
    "Append",
    "AppendResult",
    "Backend",
    "BackendTransaction",
    "BaseEventStore",
    "DomainEvent",
    "EventStore",
    "Expected",
    "ExpectedState",
    "GroupDelivery",
    "GroupSubscription",
    "Lease",
    "LogPage",
    "LogQuery",
    "MemoryBackend",
    "NewEvent",
    "OutboxRelay",
    "PreparedAppend",
    "PreparedEvent",
    "Progress",
    "ProgressBar",
    "Repository",
    "SnapshotPolicy",
    "StoreTransaction",
    "StoredEvent",
    "StoredSnapshot",
    "StreamId",
    "Subscription",
    "Tagged",
    "UnitOfWork",
    "copy_events",
    "run_unit",
    "upgrade",
]
