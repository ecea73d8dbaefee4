"""The demo's scenario: how lines of a file become events, travel over a broker and are handled.

1. Each line is read as an event. A line that is one is sent by an `EventProducer`, its key the order's id.
2. A line that is none is published as it is, straight through the transport, as a foreign system would put it there:
   not everything that lies on a topic was made by this framework.
3. Two consumers of one group share the topic. Each message is decoded; an event goes to the handlers and is then
   acknowledged; what does not decode is rejected, into the dead-letter topic.
4. The dead letters are read back from their topic. Their headers say why, and from which line they come.

A line counts as done when its event was handled or its dead letter was read back. Only so many lines are under way at
once, so memory does not grow with the file.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from commons_events.cli._input import Line, LineFile
from commons_events.config import open_transport
from commons_events.consumers import ConsumerConfig, EventConsumer
from commons_events.dead_letters import ERROR_MESSAGE, REASON
from commons_events.errors import CommonsEventsError, DeserializationError, TransportError
from commons_events.event import Event
from commons_events.message import Message, PublishResult, Receipt
from commons_events.producers import EventProducer, ProducerConfig
from commons_events.runtime import current_runtime
from commons_events.transport import Declaring, Delivery, Transport

__all__ = ["DeadLetter", "Handlers", "Result", "Scenario", "SendError"]

CONSUMERS = 2
LETTERS_KEPT = 20
"""Dead letters that are shown one by one; the others are counted."""
_LINE, _RUN = "demo-line", "demo-run"
_LINES_UNDER_WAY = 2_000
_BYTES_UNDER_WAY = 64 << 20
_PATIENCE = 30.0
"""Seconds without any progress after which the lines that are still under way count as lost."""


class SendError(Exception):
    """A line could not be handed to the broker."""


class Handlers(Protocol):
    """What is done with the events."""

    def handle(self, event: Event) -> None:
        """Handle one event."""
        ...


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A line that nobody could handle, as it was found in the dead-letter topic."""

    line: int
    reason: str


@dataclass
class Result:
    """What has happened so far; the counters go by event type."""

    lines: int = 0
    made: Counter[str] = field(default_factory=Counter[str])
    sent: Counter[str] = field(default_factory=Counter[str])
    received: Counter[str] = field(default_factory=Counter[str])
    handled: Counter[str] = field(default_factory=Counter[str])
    raw: int = 0
    """Lines that are no events and were published as they are."""
    rejected: int = 0
    dead: int = 0
    letters: list[DeadLetter] = field(default_factory=list[DeadLetter])
    by_consumer: list[int] = field(default_factory=lambda: [0] * CONSUMERS)
    seconds: float = 0.0
    missing: tuple[int, ...] = ()
    """Lines that were neither handled nor found in the dead letters."""

    @property
    def done(self) -> int:
        """How many lines have reached their end."""
        return self.handled.total() + self.dead


class Scenario:
    """One run over one file.

    Args:
        lines: the file.
        event_class: what its lines are; `Event` lets each line's ``event_type`` say it.
        handlers: what is done with the events.
        broker: name or URL.
        topic: where the lines go.
    """

    def __init__(
        self,
        lines: LineFile,
        event_class: type[Event],
        handlers: Handlers,
        *,
        broker: str,
        topic: str,
    ) -> None:
        self.result = Result()
        self._lines = lines
        self._event_class = event_class
        self._handlers = handlers
        self._broker = broker
        self._topic = topic
        self._letters_topic = f"{topic}.dead-letters"
        self._run = current_runtime().new_id().encode()
        self._under_way = _UnderWay()

    async def run(self, on_progress: Callable[[Result], None] = lambda result: None) -> Result:
        """Read, send, handle, and return once every line has reached its end, or none moves any more.

        Args:
            on_progress: called now and then.

        Raises:
            InputError: the file cannot be read on.
            SendError: the broker did not take a line.
            CommonsEventsError: the broker is unknown, out of reach, or failed.
        """
        config = ProducerConfig(broker=self._broker, source="urn:commons-events:demo")
        transport = open_transport(config)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(transport.close)
            for topic in (self._topic, self._letters_topic):
                transport.check_topic(topic)
                if isinstance(transport, Declaring):
                    await transport.declare(topic)
            producer = await stack.enter_async_context(EventProducer(config, transport=transport))
            workers = [
                await stack.enter_async_context(self._consumer(self._topic, dead_letter_topic=self._letters_topic))
                for _ in range(CONSUMERS)
            ]
            letters = await stack.enter_async_context(self._consumer(self._letters_topic))
            runtime = current_runtime()
            started = runtime.monotonic()
            try:
                async with asyncio.TaskGroup() as tasks:
                    for place, worker in enumerate(workers):
                        tasks.create_task(self._work(worker, place))
                    tasks.create_task(self._collect(letters))
                    await self._feed(producer, transport, on_progress)
                    for consumer in (*workers, letters):
                        await consumer.close()
            except ExceptionGroup as group:
                raise group.exceptions[0] from group
            self.result.seconds = runtime.monotonic() - started
        on_progress(self.result)
        return self.result

    def _consumer(self, topic: str, dead_letter_topic: str | None = None) -> EventConsumer:
        return EventConsumer(
            ConsumerConfig(
                broker=self._broker, topics=(topic,), group_id=f"{topic}.group", dead_letter_topic=dead_letter_topic
            )
        )

    # --- from the file to the broker ---------------------------------------------------------------------------

    async def _feed(self, producer: EventProducer, transport: Transport, on_progress: Callable[[Result], None]) -> None:
        try:
            for chunk in self._lines.chunks():
                await self._under_way.room()
                self.result.lines += len(chunk)
                for sending in [self._send(line, producer, transport) for line in chunk]:
                    await self._confirm(sending)
                on_progress(self.result)
            await self._under_way.end()
        except _StalledError:
            self.result.missing = tuple(self._under_way.lines)

    def _send(self, line: Line, producer: EventProducer, transport: Transport) -> _Sending:
        """Hand a line over, as an event if it is one."""
        self._under_way.add(line)
        marks = {_RUN: self._run, _LINE: str(line.number).encode()}
        try:
            event = self._event_class.from_json(line.data)
        except DeserializationError:
            headers = (("content-type", b"application/json"), *marks.items())
            return _Sending(line, None, transport.publish([Message(self._topic, line.data, headers=headers)]))
        self.result.made[event.event_type] += 1
        try:
            sent = producer.send(self._topic, event, key=_key(event), headers=marks)
        except CommonsEventsError as error:
            raise SendError(f"{self._lines.name}:{line.number}: the event can't be sent: {error}") from error
        return _Sending(line, event.event_type, sent)

    async def _confirm(self, sending: _Sending) -> None:
        try:
            outcome = await sending.future
            refused = None if isinstance(outcome, Receipt) else _refusal(outcome)
        except TransportError as error:
            refused = error
        if refused is not None:
            place = f"{self._lines.name}:{sending.line.number}"
            raise SendError(f"{place}: the broker did not take the line: {refused}") from refused
        if sending.event_type is None:
            self.result.raw += 1
        else:
            self.result.sent[sending.event_type] += 1

    # --- from the broker to the handlers -----------------------------------------------------------------------

    async def _work(self, consumer: EventConsumer, place: int) -> None:
        async for delivery in consumer:
            number = self._number(delivery)
            if number is None:
                await delivery.ack()
                continue
            try:
                event = delivery.event(self._event_class)
            except DeserializationError as error:
                await delivery.reject("not a valid event", error)
                self.result.rejected += 1
                continue
            self.result.received[event.event_type] += 1
            self._handlers.handle(event)
            await delivery.ack()
            self._under_way.finish(number)
            self.result.handled[event.event_type] += 1
            self.result.by_consumer[place] += 1

    async def _collect(self, consumer: EventConsumer) -> None:
        async for delivery in consumer:
            number = self._number(delivery)
            if number is not None:
                if len(self.result.letters) < LETTERS_KEPT:
                    message = delivery.message
                    reason = message.header(ERROR_MESSAGE) or message.header(REASON) or "no reason is given"
                    # A JSON parser counts lines, too; here each text has one, and the file's number says which.
                    reason = reason.replace(" at line 1 column ", " at column ")
                    self.result.letters.append(DeadLetter(number, reason))
                self.result.dead += 1
                self._under_way.finish(number)
            await delivery.ack()

    def _number(self, delivery: Delivery) -> int | None:
        """The line that a message is of; None where another run left it, or where it came before."""
        headers = dict(delivery.headers)
        if headers.get(_RUN) != self._run:
            return None
        number = int(headers[_LINE])
        return number if number in self._under_way.lines else None


class _UnderWay:
    """The lines between the file and their end."""

    def __init__(self) -> None:
        self.lines: dict[int, int] = {}
        """Number and size of each."""
        self._bytes = 0
        self._moved = asyncio.Event()

    def add(self, line: Line) -> None:
        self.lines[line.number] = len(line.data)
        self._bytes += len(line.data)

    def finish(self, number: int) -> None:
        self._bytes -= self.lines.pop(number)
        self._moved.set()

    async def room(self) -> None:
        """Wait until there is room for more lines."""
        while len(self.lines) >= _LINES_UNDER_WAY or self._bytes >= _BYTES_UNDER_WAY:
            await self._move()

    async def end(self) -> None:
        """Wait until no line is under way."""
        while self.lines:
            await self._move()

    async def _move(self) -> None:
        self._moved.clear()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._moved.wait()
        except TimeoutError as error:
            raise _StalledError from error


class _StalledError(Exception):
    """No line has moved for a long time."""


class _Sending(NamedTuple):
    """A line that was handed over; ``event_type`` is None where it is no event."""

    line: Line
    event_type: str | None
    future: asyncio.Future[Receipt] | asyncio.Future[Sequence[PublishResult]]


def _key(event: Event) -> str | None:
    """An order's events keep their order; others of the user's have no key that is known here."""
    key = getattr(event, "order_id", None)
    return key if isinstance(key, str) else None


def _refusal(results: Sequence[PublishResult]) -> TransportError | None:
    return next((result for result in results if isinstance(result, TransportError)), None)
