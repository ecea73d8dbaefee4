"""Seeking where the client cannot, yet."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from commons_events.kafka._subscription import KafkaSubscription


def test_a_seek_that_nobody_waits_for_any_more_does_not_hold_up_the_end() -> None:
    asked = 0

    def seek(place: TopicPartition) -> None:
        nonlocal asked
        asked += 1
        poller.is_ending = asked == 3
        raise KafkaException(KafkaError(KafkaError._STATE))  # it is not fetched yet

    poller = SimpleNamespace(consumer=SimpleNamespace(seek=seek), is_ending=False)
    subscription: Any = object.__new__(KafkaSubscription)
    subscription._poller = poller
    with pytest.raises(KafkaException):
        subscription._seek_one(TopicPartition("topic", 0, 0))
    assert asked == 3
