"""Every error that Commons Events raises, in one tree.

A message says what was wrong, where, and what to do about it. Where a built-in exception already names the
kind of mistake (``ValueError``, ``LookupError`` …), the error is one of those too, so that ``except ValueError``
catches bytes that do not decode. ``retriable`` tells whether the same call may succeed later, unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from commons_events.message import PublishResult

__all__ = [
    "AggregateDefinitionError",
    "AggregateNotFoundError",
    "AmbiguousMigrationError",
    "AmbiguousStreamError",
    "AuthenticationError",
    "AuthorizationError",
    "BatchError",
    "BatchHandlerError",
    "CapabilityError",
    "CheckpointError",
    "ClosedError",
    "CommonsEventsError",
    "ConfigurationError",
    "ConnectionLostError",
    "DependentObjectsError",
    "DeserializationError",
    "DuplicateEventTypeError",
    "DuplicatePluginError",
    "EventDefinitionError",
    "EventOrderError",
    "EventStoreError",
    "EventTooLargeError",
    "FencedError",
    "ForeignAggregateError",
    "ForeignEventError",
    "FrozenEventError",
    "HandlerCancelledError",
    "HandlerDefinitionError",
    "HandlerError",
    "HandlerFailedError",
    "HandlerResultError",
    "HandlerTimeoutError",
    "InvalidAggregateIdError",
    "InvalidSchemaError",
    "InvalidStreamError",
    "InvalidTopicError",
    "InvalidVersionError",
    "LeaseLostError",
    "MessageTooLargeError",
    "MigrationError",
    "MissingDistributionError",
    "MissingHandlerError",
    "MissingMigrationError",
    "NewerStoreError",
    "OlderStoreError",
    "PluginError",
    "PluginLoadError",
    "ProjectionDefinitionError",
    "ProjectionVersionError",
    "PublishError",
    "PublishTimeoutError",
    "SerializationError",
    "SnapshotError",
    "StaleDeliveryError",
    "StoreSchemaError",
    "StoreUnavailableError",
    "StreamDeletedError",
    "StreamNotFoundError",
    "TooManyDeliveriesError",
    "TopicFullError",
    "TransactionAbortedError",
    "TransactionError",
    "TransportError",
    "UnchangedAggregateError",
    "UndecodableEventError",
    "UnhandledEventError",
    "UnknownBrokerError",
    "UnknownDatabaseError",
    "UnknownEventTypeError",
    "UnknownPartitionError",
    "UnknownProjectionError",
    "UnknownSchemaError",
    "UnknownTopicError",
    "VersionConflictError",
    "WrongEventLoopError",
]


class CommonsEventsError(Exception):
    """Root of the tree: ``except CommonsEventsError`` catches whatever the framework raises by itself."""

    retriable: ClassVar[bool] = False


# --- what the program says -------------------------------------------------------------------------------------


class ConfigurationError(CommonsEventsError, ValueError):
    """A setting is missing, unknown or does not fit."""


class UnknownBrokerError(ConfigurationError, LookupError):
    """No installed transport has this ``broker=`` name or URL scheme."""


class CapabilityError(CommonsEventsError):
    """The broker cannot do what was asked of it, see `Capabilities`."""


class ClosedError(CommonsEventsError, RuntimeError):
    """A producer, consumer, subscription or transport was used after it was closed."""


class WrongEventLoopError(CommonsEventsError, RuntimeError):
    """A client was used outside the event loop that it belongs to."""


# --- plugins ---------------------------------------------------------------------------------------------------


class PluginError(CommonsEventsError):
    """A plugin could not be found or used."""


class DuplicatePluginError(PluginError):
    """Two distributions offer a plugin of the same group and name."""


class PluginLoadError(PluginError, ImportError):
    """A plugin is installed, but importing it failed; the cause is chained."""


class MissingDistributionError(PluginError, ImportError):
    """The class or codec lives in a distribution that is not installed; the message has the line to type."""


# --- events and their bytes ------------------------------------------------------------------------------------


class EventDefinitionError(CommonsEventsError, TypeError):
    """An event class cannot keep what the framework promises; raised when the class is created."""


class DuplicateEventTypeError(EventDefinitionError):
    """Another class already has this event type and version."""


class AmbiguousMigrationError(EventDefinitionError):
    """Two shortest chains of migrations lead from one event class to another."""


class MissingMigrationError(EventDefinitionError, LookupError):
    """An older version of an event cannot be read as the class that was asked for."""


class FrozenEventError(CommonsEventsError, AttributeError):
    """An event is a fact: once made, it does not change."""


class SerializationError(CommonsEventsError, ValueError):
    """An event holds a value that its format cannot carry exactly."""


class DeserializationError(CommonsEventsError, ValueError):
    """Bytes are not the event that they were read as; the reason is in the message, its cause is chained."""


class MigrationError(DeserializationError):
    """A migration raised, or returned something else than it says; its exception is chained."""


class UnknownEventTypeError(DeserializationError, LookupError):
    """No class is known for the event type and version that the bytes or headers name."""


class InvalidSchemaError(CommonsEventsError, ValueError):
    """A text is not a schema of the format that it was read as; the message says where and why."""


class UnknownSchemaError(DeserializationError, LookupError):
    """The schema that some bytes were written with is known only by its fingerprint, and found nowhere."""


# --- brokers ---------------------------------------------------------------------------------------------------


class TransportError(CommonsEventsError):
    """A broker refused or failed."""


class ConnectionLostError(TransportError):
    """The broker is out of reach, or the connection to it broke."""

    retriable = True


class AuthenticationError(TransportError):
    """The broker does not accept who this client says it is, or the client not the broker's certificate."""


class AuthorizationError(TransportError):
    """The broker or database knows this client, and does not allow it what it asked for."""


class InvalidTopicError(TransportError, ValueError):
    """A topic name that the broker does not take."""


class UnknownTopicError(TransportError, LookupError):
    """The topic does not exist, and the broker does not make it by itself."""


class UnknownPartitionError(UnknownTopicError):
    """The topic has no partition of this number."""


class StaleDeliveryError(TransportError):
    """A message was to be finished that belongs to another member by now, or that was delivered again since."""


class PublishError(TransportError):
    """The broker did not take a message."""


class PublishTimeoutError(PublishError, TimeoutError):
    """The broker did not confirm a message in time; it may have it all the same."""

    retriable = True


class MessageTooLargeError(PublishError, ValueError):
    """A message is larger than the broker or the configuration allows."""


class TopicFullError(PublishError):
    """A bounded topic has no room, and none came in time."""

    retriable = True


class TransactionError(TransportError):
    """A transaction was used after its end, or could not be committed."""


class TransactionAbortedError(TransactionError):
    """A transaction was aborted for a reason that passes; nothing of it is visible, and it may be done again."""

    retriable = True


class FencedError(TransactionError):
    """Another client of the same identity has the place, most often a newer one; this one has to end."""


class BatchError(PublishError):
    """Some messages of a batch were not confirmed.

    ``results`` has one entry a message in the order of the batch: the `Receipt` of a confirmed message or the
    error of a failed one; ``failed`` has the positions of the failed ones. Confirmed messages stay sent.
    """

    def __init__(self, results: Sequence[PublishResult]) -> None:
        self.results = tuple(results)
        self.failed = tuple(i for i, result in enumerate(results) if isinstance(result, Exception))
        shown = "; ".join(f"[{i}] {results[i]}" for i in self.failed[:5])
        more = f"; and {len(self.failed) - 5} more" if len(self.failed) > 5 else ""
        super().__init__(
            f"{len(self.failed)} of {len(results)} messages were not confirmed: {shown}{more}. "
            "Send those again that `failed` lists; the others are confirmed."
        )

    def __reduce__(self) -> tuple[type[BatchError], tuple[tuple[PublishResult, ...]]]:
        return BatchError, (self.results,)


# --- handlers --------------------------------------------------------------------------------------------------


class HandlerDefinitionError(ConfigurationError, TypeError):
    """A handler, or what is said of it, cannot work; raised when the router starts, before the first message."""


class HandlerError(CommonsEventsError):
    """Handling a message went wrong in a way of its own; what a handler itself raises is not one of these."""


class HandlerTimeoutError(HandlerError, TimeoutError):
    """A handler did not return in time, and was cancelled."""

    began = True
    """False where a handler that is not async was not even called, since no thread came to it in time."""


class HandlerCancelledError(HandlerError):
    """A handler was cancelled, and not by the router: it or what it uses did that, or raised ``CancelledError``."""


class HandlerResultError(HandlerError, TypeError):
    """A handler returned something else than it may; trying again would change nothing."""


class TooManyDeliveriesError(HandlerError):
    """The broker has delivered a message more often than the policy's ``max_deliveries``; it was not tried again."""


class UnhandledEventError(HandlerError, LookupError):
    """An event of a type came that no handler of the subscription takes."""


class HandlerFailedError(HandlerError):
    """A message failed for good and there is no dead-letter topic for it: the router stops, and leaves it unsettled."""


class BatchHandlerError(HandlerError):
    """Raised by a batch handler: some events of the batch failed, and the others are done.

    Args:
        failures: the exception of each failed event by its place in the list that the handler was given.
    """

    def __init__(self, failures: Mapping[int, Exception]) -> None:
        self.failures = dict(failures)
        shown = "; ".join(f"[{place}] {error!r}" for place, error in list(self.failures.items())[:5])
        more = f"; and {len(self.failures) - 5} more" if len(self.failures) > 5 else ""
        super().__init__(f"{len(self.failures)} events of a batch failed: {shown}{more}.")

    def __reduce__(self) -> tuple[type[BatchHandlerError], tuple[dict[int, Exception]]]:
        return BatchHandlerError, (self.failures,)


# --- event stores ----------------------------------------------------------------------------------------------


class EventStoreError(CommonsEventsError):
    """An event store refused or failed; nothing of the call was stored."""


class VersionConflictError(EventStoreError):
    """A stream is not at the version that a writer expected: somebody else has written to it since.

    Args:
        stream: the stream, as it is shown.
        expected: the version that the writer stated: a number, or ``any``, ``no stream`` or ``stream exists``, which
            the event store's `ANY`, `NO_STREAM` and `STREAM_EXISTS` equal.
        actual: the version that the stream has; 0 where it does not exist.
        detail: what else is to be said.
    """

    def __init__(self, stream: str, expected: int | str, actual: int, detail: str = "") -> None:
        self.stream, self.expected, self.actual, self.detail = stream, expected, actual, detail
        states = {"any": "at any version", "no stream": "not to exist", "stream exists": "to exist"}
        wanted = states.get(str(expected), f"at version {expected}")
        super().__init__(
            f"Stream {stream!r} was expected {wanted} and is at version {actual}"
            f"{' (it does not exist)' if actual == 0 else ''}{f': {detail}' if detail else ''}. "
            "Nothing was stored: read it anew, decide again, and append what then holds."
        )

    def __reduce__(self) -> tuple[type[VersionConflictError], tuple[str, int | str, int, str]]:
        return VersionConflictError, (self.stream, self.expected, self.actual, self.detail)


class StreamNotFoundError(EventStoreError, LookupError):
    """There is no stream of this name."""


class StreamDeletedError(EventStoreError):
    """The stream was deleted: it takes no events any more, whatever version is expected."""


class AmbiguousStreamError(EventStoreError, LookupError):
    """Streams of several categories have this id, and the category was not said."""


class InvalidStreamError(EventStoreError, ValueError):
    """A stream's id or category that no store takes: empty, too long, or of characters that cannot be stored."""


class InvalidVersionError(EventStoreError, ValueError):
    """A version or position that cannot be: negative, or no int."""


class EventTooLargeError(EventStoreError, ValueError):
    """An event has more bytes than the store takes."""


class UndecodableEventError(EventStoreError, DeserializationError):
    """A stored event's bytes do not decode as its class; the message says where it is stored, the cause is chained."""


class CheckpointError(EventStoreError):
    """A checkpoint would not move forward: what is at this position was handled before."""


class LeaseLostError(EventStoreError):
    """Another worker has taken over the part that this one was working on; what this one did since is rolled back."""


class UnknownDatabaseError(EventStoreError, LookupError):
    """The server has no database of this name, or the file's folder does not exist."""


class StoreUnavailableError(EventStoreError):
    """The database is out of reach, or the connection to it broke."""

    retriable = True


class StoreSchemaError(EventStoreError):
    """The store's tables are not those that this version of the package needs."""


class OlderStoreError(StoreSchemaError):
    """The store's tables are those of an older version of the package; nothing alters them by itself."""


class NewerStoreError(StoreSchemaError):
    """The store's tables are those of a newer version of the package than this one."""


# --- aggregates and projections --------------------------------------------------------------------------------


class AggregateDefinitionError(CommonsEventsError, TypeError):
    """An aggregate class cannot be made from its id and its events alone."""


class MissingHandlerError(AggregateDefinitionError, LookupError):
    """An aggregate has no handler for an event that it applies or that lies in its stream, or a projection for one."""


class InvalidAggregateIdError(InvalidStreamError):
    """An aggregate's id is empty, too long or no text."""


class ForeignEventError(CommonsEventsError, ValueError):
    """An event was applied that belongs to another aggregate, or is no `DomainEvent`."""


class EventOrderError(CommonsEventsError, ValueError):
    """An event was applied twice, or in another place of its stream than its own."""


class AggregateNotFoundError(StreamNotFoundError):
    """There is no event of this aggregate, or none of this version yet."""


class UnchangedAggregateError(CommonsEventsError, ValueError):
    """An aggregate was saved that has applied no event since it was loaded or saved."""


class ForeignAggregateError(CommonsEventsError, ValueError):
    """An aggregate belongs to another store or is another object of a unit of work, or it is no aggregate."""


class SnapshotError(CommonsEventsError, ValueError):
    """An aggregate's state holds what a snapshot cannot keep exactly; the message names the attribute."""


class ProjectionDefinitionError(HandlerDefinitionError):
    """A projection, or one of its handlers, cannot work; raised when it is defined or started."""


class UnknownProjectionError(EventStoreError, LookupError):
    """The store knows of no projection of this name."""


class DependentObjectsError(EventStoreError):
    """Views or other objects of the database depend on a projection's tables, so that a rebuild cannot replace them."""


class ProjectionVersionError(EventStoreError):
    """A projection's tables are of an older or newer version than its code; only a rebuild replaces them."""
