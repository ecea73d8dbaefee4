"""What Kafka and librdkafka report, as the errors of `commons_events.errors`: mapped here and nowhere else."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from commons_events.errors import (
    AuthenticationError,
    AuthorizationError,
    ConfigurationError,
    ConnectionLostError,
    FencedError,
    InvalidTopicError,
    MessageTooLargeError,
    PublishError,
    PublishTimeoutError,
    TopicFullError,
    TransactionAbortedError,
    TransactionError,
    TransportError,
    UnknownPartitionError,
    UnknownTopicError,
)

__all__ = [
    "DELETED",
    "UNREACHABLE",
    "is_fenced",
    "kafka_error",
    "publish_error",
    "transaction_error",
    "transport_error",
]

UNREACHABLE = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)
"""Codes that pass by themselves: the client goes on trying, and the same call may succeed later."""
DELETED = frozenset({KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID})
"""Codes that say that a topic is not there."""

_REBALANCED = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.STALE_MEMBER_EPOCH})
"""Codes that say that the group has given its partitions out anew."""
_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.UNRELEASED_INSTANCE_ID,
    }
)
_MAPPED: dict[int, type[TransportError]] = {
    **dict.fromkeys(UNREACHABLE, ConnectionLostError),
    **dict.fromkeys(DELETED, UnknownTopicError),
    **dict.fromkeys(_FENCED, FencedError),
    KafkaError._UNKNOWN_PARTITION: UnknownPartitionError,
    KafkaError.TOPIC_EXCEPTION: InvalidTopicError,
    KafkaError.MSG_SIZE_TOO_LARGE: MessageTooLargeError,
    KafkaError.RECORD_LIST_TOO_LARGE: MessageTooLargeError,
    KafkaError._QUEUE_FULL: TopicFullError,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: AuthorizationError,
    KafkaError.GROUP_AUTHORIZATION_FAILED: AuthorizationError,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: AuthorizationError,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: AuthorizationError,
    KafkaError.DELEGATION_TOKEN_AUTHORIZATION_FAILED: AuthorizationError,
    KafkaError._AUTHENTICATION: AuthenticationError,
    KafkaError._SSL: AuthenticationError,
    KafkaError.SASL_AUTHENTICATION_FAILED: AuthenticationError,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: AuthenticationError,
}
_WRONG = frozenset(
    {
        KafkaError._INVALID_ARG,
        KafkaError.INVALID_CONFIG,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_GROUP_ID,
    }
)
"""Codes that say that the caller asked for something that can't be."""
_TIMED_OUT = frozenset({KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError.REQUEST_TIMED_OUT})
_HINTS: dict[type[TransportError], str] = {
    UnknownTopicError: "Declare it first, or let the broker make it (allow.auto.create.topics).",
    UnknownPartitionError: "Ask for one of the topic's partitions, or for none.",
    AuthorizationError: "Grant the principal what it needs by an ACL.",
    AuthenticationError: "Check security.protocol, the sasl.* and the ssl.* settings.",
    FencedError: "Another client has the same transactional.id or group.instance.id: end one of them.",
    ConnectionLostError: "Check that the brokers run and their address is right; it may pass by itself.",
    MessageTooLargeError: "Send less, or raise message.max.bytes here and max.message.bytes of the topic.",
}
_CODE_HINTS: dict[int, str] = {
    KafkaError.MSG_SIZE_TOO_LARGE: (
        "Send less, or raise max.message.bytes of the topic. The broker measures what is sent to it together: where a "
        "topic takes less than batch.size, which is 1,000,000, small messages are refused with others; lower it then."
    ),
    KafkaError.UNKNOWN_MEMBER_ID: "Close the group's consumers first.",
    KafkaError.NON_EMPTY_GROUP: "Close the group's consumers first.",
    KafkaError.GROUP_ID_NOT_FOUND: "Check its name.",
}


def kafka_error(error: KafkaException | KafkaError) -> KafkaError:
    """The `KafkaError` inside an exception, or the error itself."""
    if isinstance(error, KafkaError):
        return error
    inner = error.args[0] if error.args else None
    return inner if isinstance(inner, KafkaError) else KafkaError(KafkaError._FAIL, str(error))


def is_fenced(error: KafkaError) -> bool:
    """Whether another client has taken this one's place."""
    return error.code() in _FENCED


def transport_error(
    error: KafkaException | KafkaError, doing: str, default: type[TransportError] = TransportError
) -> TransportError | ConfigurationError:
    """The most specific error for what was reported while ``doing`` something."""
    reported = kafka_error(error)
    said = f"{doing}: {reported.str().removesuffix('.')} ({reported.name()})."
    if reported.code() in _WRONG:
        return ConfigurationError(said)
    found = _MAPPED.get(reported.code(), default)
    if reported.code() == KafkaError._FATAL and ("fenced" in said or "instance ID is still used" in said):
        # Which it was, librdkafka says in words alone.
        found = FencedError
    hint = _CODE_HINTS.get(reported.code()) or _HINTS.get(found, "")
    return found(f"{said} {hint}".rstrip())


def publish_error(error: KafkaException | KafkaError, topic: str) -> TransportError:
    """The error of one message that was not confirmed."""
    reported = kafka_error(error)
    if reported.code() in _TIMED_OUT:
        return PublishTimeoutError(
            f"Topic {topic!r}: the broker did not confirm the message within delivery.timeout.ms "
            f"({reported.str()}); it may have it all the same."
        )
    mapped = transport_error(reported, f"Topic {topic!r}", PublishError)
    return mapped if isinstance(mapped, TransportError) else PublishError(str(mapped))


def transaction_error(error: KafkaException | KafkaError, doing: str) -> TransactionError:
    """The error of a transaction: `FencedError` where another client took over, else what failed."""
    reported = kafka_error(error)
    if reported.code() in _REBALANCED:
        return TransactionAbortedError(
            f"{doing}: the group has given its partitions out anew ({reported.name()}), so nothing is committed. Do it "
            "again with what is still this member's; the rest comes again elsewhere."
        )
    mapped = transport_error(error, doing, TransactionError)
    if isinstance(mapped, TransactionError):
        return mapped
    return TransactionAbortedError(str(mapped)) if mapped.retriable else TransactionError(str(mapped))
