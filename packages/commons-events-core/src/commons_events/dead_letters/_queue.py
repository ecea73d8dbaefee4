"""`DeadLetterQueue`: look through the letters of a topic, redrive them, or discard them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from commons_events.dead_letters._journal import NOWHERE, Entry, Journal, Mark
from commons_events.dead_letters._letter import MARK, DeadLetter
from commons_events.errors import CapabilityError
from commons_events.message import Message, Receipt
from commons_events.runtime import current_runtime
from commons_events.transport import Browsable, Delivery, Outcome, Settlement, SubscribeRequest, Transport

__all__ = ["DeadLetterQueue", "DeadLetterReport", "LetterFilter"]

_QUIET = 2.0
"""Seconds of silence after which such a queue counts as read."""
_AT_ONCE = 100

Action = Literal["redrive", "discard"]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters are meant: those that fit all that is stated. Texts are found anywhere, case aside."""

    ids: frozenset[str] = frozenset()
    topic: str | None = None
    """The original's topic."""
    group: str | None = None
    key: bytes | None = None
    reason: str | None = None
    error: str | None = None
    """In the error's type or message."""

    def matches(self, letter: DeadLetter) -> bool:
        """Whether the letter is meant."""
        error = f"{letter.error_type or ''}: {letter.error_message or ''}"
        return (
            (not self.ids or letter.id in self.ids)
            and self.topic in (None, letter.topic)
            and self.group in (None, letter.group)
            and self.key in (None, letter.key)
            and (self.reason is None or self.reason.lower() in letter.reason.lower())
            and (self.error is None or self.error.lower() in error.lower())
        )


@dataclass(slots=True)
class DeadLetterReport:
    """What was done."""

    done: int = 0
    held_back: int = 0
    """Selected letters that stand behind one of their key that was not."""
    without_origin: list[str] = field(default_factory=list)
    """Ids of letters that do not say where they came from, and so cannot be redriven."""


class DeadLetterQueue:
    """The letters of one dead-letter topic.

    Where the broker can browse, looking has no effect, and what was redriven or discarded is written down in the
    topic itself (see `Mark`), so that a command that was interrupted goes on where it stopped. On other brokers the
    letters are taken by a group of this tool's own: whatever is not redriven or discarded is given back.

    Args:
        transport: the broker; stays its maker's to close.
        topic: the dead-letter topic.
    """

    group: ClassVar[str] = "commons-events-dlq"
    """The group that takes letters where a broker cannot browse."""

    def __init__(self, transport: Transport, topic: str) -> None:
        transport.check_target(topic)
        self.topic = topic
        self._transport = transport
        self.browses = bool(transport.capabilities.browse) and isinstance(transport, Browsable)
        """Whether looking has no effect on the letters."""
        if not self.browses and not transport.capabilities.consumer_groups:
            raise CapabilityError(f"The broker {transport.name!r} can neither browse, nor has it groups to read by.")

    async def letters(self, wanted: LetterFilter | None = None) -> AsyncIterator[DeadLetter]:
        """The letters that stand, in their order.

        Raises:
            TransportError: the broker failed.
        """
        wanted = wanted or LetterFilter()
        if self.browses:
            journal = await self._journal()
            for entry in list(journal.entries.values()):
                letter = await journal.letter(entry)
                if letter is not None and wanted.matches(letter):
                    yield letter
            return
        async with aclosing(self._taken()) as taken:
            async for letter, _, _ in taken:
                if wanted.matches(letter):
                    yield letter

    async def redrive(
        self, wanted: LetterFilter | None = None, *, rate: float | None = None, progress: Progress | None = None
    ) -> DeadLetterReport:
        """Publish letters to their original topics again, key by key in their order.

        A letter of an ordered key goes only with all those before it. It stands, as redriven, until its router has
        handled it.

        Args:
            wanted: which ones; by default all.
            rate: the most letters a second.
            progress: is told how many are done.

        Raises:
            TransportError: the broker refused or failed; what was done is written down.
        """
        return await self._work("redrive", wanted or LetterFilter(), rate, progress)

    async def discard(
        self, wanted: LetterFilter | None = None, *, rate: float | None = None, progress: Progress | None = None
    ) -> DeadLetterReport:
        """Drop letters for good. Followers of a discarded one's key stay, and can then be redriven.

        Args and Raises as for `redrive`.
        """
        return await self._work("discard", wanted or LetterFilter(), rate, progress)

    async def _work(
        self, action: Action, wanted: LetterFilter, rate: float | None, progress: Progress | None
    ) -> DeadLetterReport:
        report = DeadLetterReport()
        runtime = current_runtime()
        due = runtime.monotonic()
        # What goes together counts at once, so that a rate is kept from one tenth of a second to the next.
        at_once = _AT_ONCE if rate is None else min(_AT_ONCE, max(1, round(rate / 10)))
        if self.browses:
            work = self._browsed(action, wanted, report, at_once)
        else:
            work = self._consumed(action, wanted, report)
        async with aclosing(work) as steps:
            async for _ in steps:
                report.done += 1
                if progress is not None:
                    progress(report.done)
                if rate is not None:
                    due = max(due, runtime.monotonic()) + 1 / rate
                    await runtime.sleep(max(0.0, due - runtime.monotonic()))
        return report

    async def _browsed(
        self, action: Action, wanted: LetterFilter, report: DeadLetterReport, at_once: int
    ) -> AsyncGenerator[None, None]:
        journal = await self._journal()
        stopped: set[object] = set()
        together: list[tuple[Entry, Message]] = []
        for entry in list(journal.entries.values()):
            letter = await journal.letter(entry)
            if letter is None:
                continue
            if not wanted.matches(letter):
                stopped.add(entry.sequence)
            elif action == "discard":
                together.append((entry, letter.message))
            elif entry.redriven:
                pass  # under way: its router says what becomes of it
            elif entry.sequence is not None and entry.sequence in stopped:
                report.held_back += 1
            elif letter.topic is None:
                report.without_origin.append(letter.id)
            else:
                together.append((entry, letter.original()))
            if len(together) >= at_once:
                async for _ in self._do(action, journal, together):
                    yield
                together = []
        async for _ in self._do(action, journal, together):
            yield

    async def _do(
        self, action: Action, journal: Journal, together: Sequence[tuple[Entry, Message]]
    ) -> AsyncGenerator[None, None]:
        """Redrive or discard letters, and write that down; yields for each. What failed is raised behind the others."""
        if action == "discard":
            await journal.mark([(entry, Mark.DISCARDED, NOWHERE) for entry, _ in together])
            for _ in together:
                yield
            return
        results = await self._transport.publish([message for _, message in together]) if together else ()
        sent = list(zip(together, results, strict=True))
        await journal.mark(
            [
                (entry, Mark.REDRIVEN, (receipt.partition, receipt.offset))
                for (entry, _), receipt in sent
                if isinstance(receipt, Receipt)
            ]
        )
        for _, result in sent:
            if isinstance(result, Receipt):
                yield
        for _, result in sent:
            if not isinstance(result, Receipt):
                raise result

    async def _consumed(
        self, action: Action, wanted: LetterFilter, report: DeadLetterReport
    ) -> AsyncGenerator[None, None]:
        async with aclosing(self._taken()) as taken:
            async for letter, delivery, settle in taken:
                if not wanted.matches(letter):
                    continue
                if action == "redrive":
                    if letter.topic is None:
                        report.without_origin.append(letter.id)
                        continue
                    await self._publish(letter.original())
                await settle(delivery)
                yield

    async def _taken(
        self,
    ) -> AsyncGenerator[tuple[DeadLetter, Delivery, Callable[[Delivery], asyncio.Future[None]]], None]:
        subscription = await self._transport.subscribe(SubscribeRequest(topics=(self.topic,), group_id=self.group))
        runtime = current_runtime()

        def settle(delivery: Delivery) -> asyncio.Future[None]:
            delivery.outcome = Outcome.ACK
            settled = subscription.settle([Settlement(delivery, Outcome.ACK)])

            async def wait() -> None:
                await settled
                await subscription.flush()

            return asyncio.ensure_future(wait())

        try:
            while True:
                receiving = asyncio.ensure_future(subscription.receive(_AT_ONCE))
                timer = runtime.call_later(_QUIET, receiving.cancel)
                await asyncio.wait([receiving])
                timer.cancel()
                if receiving.cancelled() or not receiving.result():
                    return
                for delivery in receiving.result():
                    if delivery.message.header(MARK) is None:
                        yield DeadLetter.read(delivery.message, delivery.partition, delivery.offset), delivery, settle
        finally:
            await subscription.close()  # gives back what was not settled

    async def _journal(self) -> Journal:
        journal = Journal(self._transport, self.topic)
        await journal.refresh()
        return journal

    async def _publish(self, message: Message) -> None:
        (result,) = await self._transport.publish([message])
        if not isinstance(result, Receipt):
            raise result
