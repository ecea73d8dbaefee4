"""Whether a client of librdkafka has a broker left to ask.

A cluster that counts all its brokers out, as after a freeze, says that it has none. librdkafka gives up those it knew
then, and may never go back to the bootstrap servers (its issue 5301), nor does it say so. It has to be asked, and
where it has none for a while, made anew.
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException

from commons_events.kafka._errors import kafka_error

__all__ = ["CUT_OFF", "LOOK_AGAIN", "LOOK_FOR_BROKERS", "has_a_broker"]

LOOK_FOR_BROKERS = 5.0
"""Seconds of silence after which a client is asked whether it has a broker at all …"""
LOOK_AGAIN = 1.0
"""… and again, while it has none …"""
CUT_OFF = 5
"""… and how many such answers it takes until the client is made anew."""


def has_a_broker(client: Any, topic: str | None) -> bool:
    """Whether the client knows a broker that can be asked, for instance of ``topic``; takes up to a second.

    One that is slow to answer counts.
    """
    try:
        client.list_topics(topic, 1.0)
    except KafkaException as error:
        return kafka_error(error).code() != KafkaError._TRANSPORT
    return True
