"""Whether a client of librdkafka has a broker left to ask.

A cluster that counts all its brokers out, as after a freeze, says that it has none. librdkafka gives up those it knew
then, and may never go back to the bootstrap servers (its issue 5301), nor does it say so. It has to be asked, and
where it has none for a while, made anew.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from commons_events.errors import CommonsEventsError
from commons_events.kafka._errors import kafka_error

__all__ = ["CUT_OFF", "LEAVING", "LOOK_AGAIN", "LOOK_FOR_BROKERS", "ask_about_topics", "dispose_of", "has_a_broker"]

LOOK_FOR_BROKERS = 5.0
"""Seconds of silence after which a client is asked whether it has a broker at all …"""
LOOK_AGAIN = 1.0
"""… and again, while it has none …"""
CUT_OFF = 5
"""… and how many such answers it takes until the client is made anew."""
LEAVING = 60.0
"""Seconds in which a client that was replaced may yet find a broker, to leave its group. Else its session runs out."""


def ask_about_topics(
    client: Any, topic: str | None, seconds: float, refusal: Callable[[], CommonsEventsError | None]
) -> Any:
    """What a broker says of ``topic``, or of all; looks for one so long, but no longer once they refuse the sign-in.

    Args:
        client: one that calls an error callback when it is polled.
        topic: one topic; None for all.
        seconds: how long a broker is looked for.
        refusal: what that callback has heard of a sign-in that was refused.

    Raises:
        KafkaException: no broker was found.
    """
    deadline, wait = monotonic() + seconds, LOOK_AGAIN
    while True:
        left = deadline - monotonic()
        try:
            return client.list_topics(topic, timeout=max(min(left, wait), 0.001))
        except KafkaException:
            client.poll(0)
            if (refused := refusal()) is not None:
                raise refused from None
            if left <= wait:
                raise
        wait *= 2  # a slow broker has to have the time as well


def has_a_broker(client: Any, topic: str | None) -> bool:
    """Whether the client knows a broker that can be asked, for instance of ``topic``; takes up to a second.

    One that is slow to answer counts.
    """
    try:
        client.list_topics(topic, 1.0)
    except KafkaException as error:
        return kafka_error(error).code() != KafkaError._TRANSPORT
    return True


def dispose_of(clients: list[Any], *, leaves: bool = False) -> threading.Thread:
    """Destroy a client in a thread of its own, without waiting for brokers that may never answer.

    A client's ``close`` waits without end for brokers to take its last commits, or to abort its transaction. Its
    destructor does neither, so this lets go of the last reference.

    Args:
        clients: the client is taken out of this list, which has to hold the only reference to it.
        leaves: it is a member of a group, which it leaves where it finds a broker within `LEAVING` after all.
    """

    def dispose() -> None:
        deadline = monotonic() + LEAVING
        while leaves and monotonic() < deadline:
            if has_a_broker(clients[0], None):
                clients[0].close()
                break
        clients.clear()

    thread = threading.Thread(target=dispose, name="commons-events-kafka-dispose", daemon=True)
    thread.start()
    return thread
