"""The error tree: who is whose child, and what built-in each one is too."""

from __future__ import annotations

import builtins
import inspect
import pickle
from typing import Any

import pytest

from commons_events import errors
from commons_events.errors import (
    BatchError,
    BatchHandlerError,
    CommonsEventsError,
    PublishError,
    PublishTimeoutError,
    VersionConflictError,
)
from commons_events.message import Receipt

TREE = {
    "CommonsEventsError": ("Exception",),
    "ConfigurationError": ("CommonsEventsError", "ValueError"),
    "UnknownBrokerError": ("ConfigurationError", "LookupError"),
    "CapabilityError": ("CommonsEventsError",),
    "ClosedError": ("CommonsEventsError", "RuntimeError"),
    "WrongEventLoopError": ("CommonsEventsError", "RuntimeError"),
    "PluginError": ("CommonsEventsError",),
    "DuplicatePluginError": ("PluginError",),
    "PluginLoadError": ("PluginError", "ImportError"),
    "MissingDistributionError": ("PluginError", "ImportError"),
    "EventDefinitionError": ("CommonsEventsError", "TypeError"),
    "DuplicateEventTypeError": ("EventDefinitionError",),
    "AmbiguousMigrationError": ("EventDefinitionError",),
    "MissingMigrationError": ("EventDefinitionError", "LookupError"),
    "FrozenEventError": ("CommonsEventsError", "AttributeError"),
    "SerializationError": ("CommonsEventsError", "ValueError"),
    "DeserializationError": ("CommonsEventsError", "ValueError"),
    "MigrationError": ("DeserializationError",),
    "UnknownEventTypeError": ("DeserializationError", "LookupError"),
    "InvalidSchemaError": ("CommonsEventsError", "ValueError"),
    "UnknownSchemaError": ("DeserializationError", "LookupError"),
    "TransportError": ("CommonsEventsError",),
    "ConnectionLostError": ("TransportError",),
    "AuthenticationError": ("TransportError",),
    "AuthorizationError": ("TransportError",),
    "InvalidTopicError": ("TransportError", "ValueError"),
    "UnknownTopicError": ("TransportError", "LookupError"),
    "UnknownPartitionError": ("UnknownTopicError",),
    "StaleDeliveryError": ("TransportError",),
    "PublishError": ("TransportError",),
    "PublishTimeoutError": ("PublishError", "TimeoutError"),
    "MessageTooLargeError": ("PublishError", "ValueError"),
    "TopicFullError": ("PublishError",),
    "TransactionError": ("TransportError",),
    "TransactionAbortedError": ("TransactionError",),
    "FencedError": ("TransactionError",),
    "BatchError": ("PublishError",),
    "HandlerDefinitionError": ("ConfigurationError", "TypeError"),
    "HandlerError": ("CommonsEventsError",),
    "HandlerTimeoutError": ("HandlerError", "TimeoutError"),
    "HandlerCancelledError": ("HandlerError",),
    "HandlerResultError": ("HandlerError", "TypeError"),
    "TooManyDeliveriesError": ("HandlerError",),
    "UnhandledEventError": ("HandlerError", "LookupError"),
    "HandlerFailedError": ("HandlerError",),
    "BatchHandlerError": ("HandlerError",),
    "EventStoreError": ("CommonsEventsError",),
    "VersionConflictError": ("EventStoreError",),
    "StreamNotFoundError": ("EventStoreError", "LookupError"),
    "StreamDeletedError": ("EventStoreError",),
    "AmbiguousStreamError": ("EventStoreError", "LookupError"),
    "InvalidStreamError": ("EventStoreError", "ValueError"),
    "InvalidVersionError": ("EventStoreError", "ValueError"),
    "EventTooLargeError": ("EventStoreError", "ValueError"),
    "UndecodableEventError": ("EventStoreError", "DeserializationError"),
    "CheckpointError": ("EventStoreError",),
    "LeaseLostError": ("EventStoreError",),
    "UnknownDatabaseError": ("EventStoreError", "LookupError"),
    "StoreUnavailableError": ("EventStoreError",),
    "StoreSchemaError": ("EventStoreError",),
    "OlderStoreError": ("StoreSchemaError",),
    "NewerStoreError": ("StoreSchemaError",),
    "AggregateDefinitionError": ("CommonsEventsError", "TypeError"),
    "MissingHandlerError": ("AggregateDefinitionError", "LookupError"),
    "InvalidAggregateIdError": ("InvalidStreamError",),
    "ForeignEventError": ("CommonsEventsError", "ValueError"),
    "EventOrderError": ("CommonsEventsError", "ValueError"),
    "AggregateNotFoundError": ("StreamNotFoundError",),
    "UnchangedAggregateError": ("CommonsEventsError", "ValueError"),
    "ForeignAggregateError": ("CommonsEventsError", "ValueError"),
    "SnapshotError": ("CommonsEventsError", "ValueError"),
    "ProjectionDefinitionError": ("HandlerDefinitionError",),
    "UnknownProjectionError": ("EventStoreError", "LookupError"),
    "DependentObjectsError": ("EventStoreError",),
    "ProjectionVersionError": ("EventStoreError",),
}
RETRIABLE = {
    "ConnectionLostError",
    "PublishTimeoutError",
    "StoreUnavailableError",
    "TopicFullError",
    "TransactionAbortedError",
}

CLASSES: dict[str, Any] = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == errors.__name__
}


def test_the_module_s_errors_are_those_of_the_tree() -> None:
    assert set(CLASSES) == set(TREE) == set(errors.__all__)


@pytest.mark.parametrize("name", TREE)
def test_an_error_has_its_place_in_the_tree_and_its_built_in_base(name: str) -> None:
    bases = tuple(getattr(errors, base, None) or getattr(builtins, base) for base in TREE[name])
    assert CLASSES[name].__bases__ == bases
    assert issubclass(CLASSES[name], CommonsEventsError)


@pytest.mark.parametrize("name", TREE)
def test_an_error_says_whether_the_same_call_may_succeed_later(name: str) -> None:
    assert CLASSES[name].retriable is (name in RETRIABLE)


@pytest.mark.parametrize("name", sorted(set(TREE) - {"BatchError", "BatchHandlerError", "VersionConflictError"}))
def test_an_error_shows_its_message_and_crosses_processes(name: str) -> None:
    error = CLASSES[name]("what was wrong")
    assert str(error) == "what was wrong"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args) == (type(error), error.args)


@pytest.mark.parametrize("name", TREE)
def test_an_error_has_a_docstring(name: str) -> None:
    assert CLASSES[name].__dict__.get("__doc__")


def batch_error(failed: int) -> BatchError:
    results: list[Any] = [Receipt("t", 0, 1)]
    results += [PublishError(f"reason {index}") for index in range(failed)]
    return BatchError([*results, Receipt("t", 0, 2)])


def test_a_batch_error_says_which_failed_and_why() -> None:
    error = batch_error(2)
    assert error.failed == (1, 2)
    assert len(error.results) == 4
    text = str(error)
    assert text.startswith("2 of 4 messages were not confirmed: [1] reason 0; [2] reason 1. ")
    assert "more" not in text


def test_a_long_batch_error_is_cut() -> None:
    text = str(batch_error(1000))
    assert "and 995 more" in text
    assert len(text) < 500


def test_a_batch_error_crosses_processes() -> None:
    again = pickle.loads(pickle.dumps(batch_error(3)))
    assert again.failed == (1, 2, 3)
    assert [str(again.results[index]) for index in again.failed] == ["reason 0", "reason 1", "reason 2"]
    assert str(again) == str(batch_error(3))


def test_a_batch_handler_s_error_says_which_failed_and_crosses_processes() -> None:
    error = BatchHandlerError({n: ValueError(f"reason {n}") for n in range(7)})
    assert str(error).startswith("7 events of a batch failed: [0] ValueError('reason 0'); ")
    assert "and 2 more" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (list(again.failures), str(again)) == (list(range(7)), str(error))


def test_a_version_conflict_says_both_versions_and_crosses_processes() -> None:
    error = VersionConflictError("order-1", 3, 5)
    assert str(error).startswith("Stream 'order-1' was expected at version 3 and is at version 5. ")
    again = pickle.loads(pickle.dumps(error))
    assert (again.stream, again.expected, again.actual, str(again)) == ("order-1", 3, 5, str(error))
    for expected, said in (("no stream", "not to exist"), ("stream exists", "to exist"), ("any", "at any version")):
        assert f" was expected {said} and is at version 5. " in str(VersionConflictError("order-1", expected, 5))


def test_a_timeout_is_caught_as_python_s_own() -> None:
    with pytest.raises(TimeoutError):
        raise PublishTimeoutError("late")
