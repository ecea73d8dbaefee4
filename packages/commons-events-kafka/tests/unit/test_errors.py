"""What Kafka reports, as errors of our own."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from commons_events.errors import FencedError, TransactionAbortedError, TransactionError
from commons_events.kafka._errors import transaction_error


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (KafkaError.ILLEGAL_GENERATION, TransactionAbortedError),
        (KafkaError.UNKNOWN_MEMBER_ID, TransactionAbortedError),
        (KafkaError.STALE_MEMBER_EPOCH, TransactionAbortedError),
        (KafkaError.REBALANCE_IN_PROGRESS, TransactionAbortedError),
        (KafkaError.PRODUCER_FENCED, FencedError),
        (KafkaError.INVALID_TXN_STATE, TransactionError),
    ],
)
def test_what_ends_a_transaction_by_a_rebalance_passes(code: int, error: type[TransactionError]) -> None:
    assert type(transaction_error(KafkaError(code), "Kafka")) is error
