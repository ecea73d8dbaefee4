"""``commons-events demo``: its arguments become a `Scenario`, its outcome tables and an exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

import typer
from rich.console import Console, RenderableType

from commons_events.cli import _report
from commons_events.cli._input import InputError, LineFile, load_event_class, open_lines
from commons_events.cli._scenario import CONSUMERS, Handlers, Result, Scenario, SendError
from commons_events.cli._text import plain, printable
from commons_events.errors import CommonsEventsError, ConfigurationError, InvalidTopicError
from commons_events.event import Event
from commons_events.plugins import DEMOS, load, names

__all__ = ["run_demo"]

_BROKER = "memory://commons-events-demo?retain=0"
"""Keeps nothing that is handled: a large file must not pile up."""
_FAILED, _UNUSABLE, _INTERRUPTED = 1, 2, 130
_EVENTS_KEPT = 1_000
"""For what other distributions show: a large file's others are let go."""


class _Desk(Handlers, Protocol):
    def summary(self) -> RenderableType: ...


class _TimeSpan:
    """Handlers for events that the demo does not know: when the first and the last of them happened."""

    def __init__(self) -> None:
        self.first: datetime | None = None
        self.last: datetime | None = None

    def handle(self, event: Event) -> None:
        """Take note of the event's time."""
        time = event.timestamp
        self.first = time if self.first is None or time < self.first else self.first
        self.last = time if self.last is None or time > self.last else self.last

    def summary(self) -> RenderableType:
        """What was computed, for the terminal."""
        span = " to ".join(time.isoformat(" ", "seconds") for time in (self.first, self.last) if time is not None)
        return plain(f"What the handlers computed: the events happened from {span}")


class _Keeping:
    """Handlers, and the first events that they had."""

    def __init__(self, handlers: Handlers) -> None:
        self.events: list[Event] = []
        self._handlers = handlers

    def handle(self, event: Event) -> None:
        """Pass the event on, and keep it."""
        self._handlers.handle(event)
        if len(self.events) < _EVENTS_KEPT:
            self.events.append(event)


def run_demo(path: Path | None, *, event_name: str | None, broker: str | None, topic: str) -> int:
    """Run the scenario, and show it; returns the exit code, which the command's help explains."""
    console = Console()
    try:
        with open_lines(path) as lines:
            event_class, desk = _choose(event_name)
            # Its scheme alone: a URL may hold a password.
            where = broker.partition("://")[0] if broker else "in-process broker"
            console.print(plain(f"{lines.name} → {topic} ({where}) → {CONSUMERS} consumers"))
            kept = _Keeping(desk)
            scenario = Scenario(lines, event_class, kept, broker=broker or _BROKER, topic=topic)
            try:
                with _report.progress(console, lines) as moved:
                    result = asyncio.run(scenario.run(moved))
            except KeyboardInterrupt:
                return _interrupted(scenario.result)
            if not result.lines:
                raise InputError(f"{lines.name}: the file has only blank lines. It needs one event a line, in JSON.")
    except (InputError, ConfigurationError, InvalidTopicError) as error:
        return _complain(error, _UNUSABLE)
    except (SendError, CommonsEventsError) as error:
        return _complain(error, _FAILED)
    console.print()
    _report.show(console, result, lines.name)
    if result.handled:
        console.print()
        console.print(desk.summary())
    console.print()
    for line in _report.closing_lines(result, lines.blank):
        console.print(plain(line))
    verdict = _verdict(console, result, lines, own_input=path is not None, event_name=event_name)
    return verdict or (0 if event_name is not None else _show_others(console, kept.events))


def _show_others(console: Console, events: Sequence[Event]) -> int:
    """What the other distributions that are installed make of the same events."""
    for name in names(DEMOS):
        try:
            shown: Sequence[str] = load(DEMOS, name)(events)
        except Exception as error:  # noqa: BLE001  # another distribution's code, whatever it raises
            return _complain(f"what {name!r} shows failed: {type(error).__name__}: {error}", _FAILED)
        if shown:
            console.print()
        for line in shown:
            console.print(plain(line))
    return 0


def _choose(event_name: str | None) -> tuple[type[Event], _Desk]:
    if event_name is not None:
        # The demo's own classes stay out: the user's may have the same event types.
        return load_event_class(event_name), _TimeSpan()
    from commons_events.cli._desk import OrderDesk

    return Event, OrderDesk()


def _verdict(console: Console, result: Result, lines: LineFile, *, own_input: bool, event_name: str | None) -> int:
    if result.missing or result.done != result.lines:
        shown = ", ".join(f"{lines.name}:{number}" for number in result.missing[:5]) or "none by name"
        return _complain(
            f"{result.lines - result.done:,} of {result.lines:,} lines were neither handled nor found in the dead "
            f"letters: {shown}{' …' if len(result.missing) > 5 else ''}. If others use this topic's group, choose "
            "another --topic.",
            _FAILED,
        )
    if not result.handled:
        hint = "Without --event MODULE:CLASS, each line's event_type has to be one of the demo's."
        if event_name:
            hint = f"Is {event_name} the class of these lines?"
        return _complain(f"{lines.name}: no line could be handled; the table has the reasons. {hint}", _FAILED)
    if own_input and result.dead:
        console.print("The dead letters don't make this run a failure (exit code 0): they are kept, with reasons.")
    return 0


def _interrupted(result: Result) -> int:
    return _complain(
        f"interrupted. Until then {result.lines:,} lines were read, {result.handled.total():,} handled, and "
        f"{result.dead:,} found in the dead letters.",
        _INTERRUPTED,
    )


def _complain(problem: object, code: int) -> int:
    typer.echo(f"commons-events demo: {printable(str(problem))}", err=True)
    return code
