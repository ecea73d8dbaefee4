"""Which names Kafka takes for topics."""

from __future__ import annotations

import re

from commons_events.errors import InvalidTopicError
from commons_events.transport import check_topic_name

__all__ = ["check_topic"]

_LEGAL = re.compile(r"[A-Za-z0-9._-]+")


def check_topic(topic: str) -> None:
    """Kafka's rule: 1 to 249 of ``A-Z a-z 0-9 . _ -``, and neither ``.`` nor ``..``.

    Raises:
        InvalidTopicError: it is another name.
    """
    check_topic_name(topic)
    if topic in (".", "..") or not _LEGAL.fullmatch(topic):
        raise InvalidTopicError(
            f"Kafka takes no topic {topic!r}: a name has 1 to 249 of the characters A-Z a-z 0-9 . _ - and is not "
            "'.' or '..'."
        )
