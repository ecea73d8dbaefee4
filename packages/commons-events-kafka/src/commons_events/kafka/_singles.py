"""Messages that are sent by themselves: who waits for each, and the callbacks that take their reports.

Ten thousand of them may be in flight, so a message makes nothing here that the garbage collector would have to look
at but its future: what takes a report is used again for another message.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from confluent_kafka import KafkaError
from confluent_kafka import Message as Report

from commons_events.kafka._raw import RawMessage
from commons_events.message import Headers, Message, Receipt

if TYPE_CHECKING:
    from commons_events.kafka._publisher import Publisher

__all__ = ["Singles", "Slot"]

Slot = list[Any]
"""A message's future, None while the slot is free; its topic; what librdkafka calls back for it; its headers, since a
report has none."""

_receipt = tuple.__new__
"""A named tuple's own ``__new__`` is a Python function."""


def taken_back(topic: str, headers: Headers, report: RawMessage) -> Message:
    """The message that a report is of, which was not sent; neither its key nor its value is empty."""
    kind, milliseconds = report.timestamp()
    stamp = datetime.fromtimestamp(milliseconds / 1000, UTC) if kind else None
    return Message(topic, report.value(), report.key(), headers, stamp)


class Singles:
    """The slots of one publisher."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._all: list[Slot] = []
        """As many as were ever in flight together, which the client's queue bounds."""
        self.free: list[Slot] = []
        release, at_odds = self.free.append, self._at_odds

        def new() -> Slot:
            slot: Slot = [None, None, None, ()]

            def report(error: KafkaError | None, message: Report, slot: Slot = slot) -> None:
                if error is None and (not publisher.polled_elsewhere or publisher.in_loop()):
                    future, topic, _, _ = slot
                    slot[0] = None
                    release(slot)
                    if not future.done():
                        future.set_result(_receipt(Receipt, (topic, message.partition(), message.offset(), None)))
                else:
                    at_odds(slot, error, message)

            slot[2] = report
            return slot

        self._new = new

    def new_slot(self) -> Slot:
        """One more; a free one is taken first."""
        slot = self._new()
        self._all.append(slot)
        return slot

    def _at_odds(self, slot: Slot, error: KafkaError | None, report: Report) -> None:
        """Take a report that came in another thread, or of a message that was not sent."""
        publisher = self._publisher
        if error is not None and publisher.moving:
            publisher.move(taken_back(slot[1], slot[3], cast("RawMessage", report)), slot[2], report)
        elif not publisher.in_loop():
            publisher.leave_to_loop(lambda: self._finish(slot, error, report))
        else:
            self._finish(slot, error, report)

    def _finish(self, slot: Slot, error: KafkaError | None, report: Report) -> None:
        """In the event loop: tell whoever waits."""
        future, topic, _, _ = slot
        slot[0] = None
        self.free.append(slot)
        if future.done():
            return
        if error is None:
            future.set_result(_receipt(Receipt, (topic, report.partition(), report.offset(), None)))
        else:
            future.set_exception(self._publisher.failure_of(topic, error))

    def waiting(self) -> list[asyncio.Future[Receipt]]:
        """The futures of those that are in flight."""
        return [slot[0] for slot in self._all if slot[0] is not None]

    def __len__(self) -> int:
        return len(self._all) - len(self.free)
