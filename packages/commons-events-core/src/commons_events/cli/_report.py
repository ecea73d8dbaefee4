"""What the demo shows: progress while it runs on a terminal, tables at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from commons_events.cli._input import LineFile
from commons_events.cli._scenario import Result
from commons_events.cli._text import plain

__all__ = ["closing_lines", "progress", "show"]

_TYPES_SHOWN = 20


@contextmanager
def progress(console: Console, lines: LineFile) -> Generator[Callable[[Result], None]]:
    """A bar that moves when the function is called; nothing at all where no one watches."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("Starting", total=lines.size)

        def moved(result: Result) -> None:
            description = f"{result.handled.total():,} handled, {result.dead:,} dead letters"
            bar.update(task, completed=lines.position, description=description)

        yield moved


def show(console: Console, result: Result, name: str) -> None:
    """The tables of events and dead letters."""
    console.print(_events(result))
    if result.dead:
        console.print()
        console.print(_letters(result, name))


def closing_lines(result: Result, blank: int) -> list[str]:
    """What it comes to: the lines' balance, the consumers' shares and the speed."""
    shares = ", ".join(f"{place + 1} handled {count:,}" for place, count in enumerate(result.by_consumer))
    speed = f", {result.lines / result.seconds:,.0f} lines/s" if result.seconds else ""
    passed = f" ({blank:,} blank, passed over)" if blank else ""
    balance = f"{result.lines:,} read = {result.handled.total():,} handled + {result.dead:,} in the dead letters"
    return [
        f"Consumers of the group: {shares}",
        f"Lines: {balance}{passed}",
        f"Time: {result.seconds:.2f} s{speed}",
    ]


def _events(result: Result) -> Table:
    table = Table(title="Events", title_justify="left", show_footer=True)
    table.add_column("Type", footer="lines", overflow="fold")
    columns = {
        "Made": result.made.total(),
        "Sent": result.sent.total() + result.raw,
        "Received": result.received.total() + result.rejected,
        "Handled": result.handled.total(),
        "Dead letters": result.dead,
    }
    for heading, total in columns.items():
        table.add_column(heading, justify="right", footer=f"{total:,}")
    for event_type, made in result.made.most_common(_TYPES_SHOWN):
        later = (counter[event_type] for counter in (result.sent, result.received, result.handled))
        table.add_row(plain(event_type), *(f"{count:,}" for count in (made, *later)), "")
    others = len(result.made) - _TYPES_SHOWN
    if others > 0:
        table.add_row(f"and {others:,} more types")
    if result.raw:
        sent, received, dead = (f"{count:,}" for count in (result.raw, result.rejected, result.dead))
        table.add_row("not an event, sent raw", "", sent, received, "", dead, style="yellow")
    return table


def _letters(result: Result, name: str) -> Table:
    shown = sorted(result.letters, key=lambda letter: letter.line)
    more = f"the first {len(shown)} of {result.dead:,}" if result.dead > len(shown) else f"{result.dead:,}"
    table = Table(title=f"Dead letters: {more}", title_justify="left", show_lines=True)
    table.add_column("Line", overflow="fold", max_width=32)
    table.add_column("Reason", overflow="fold")
    for letter in shown:
        table.add_row(plain(f"{Path(name).name}:{letter.line}"), plain(letter.reason))
    return table
