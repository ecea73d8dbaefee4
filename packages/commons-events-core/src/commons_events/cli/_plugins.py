"""``commons-events plugins``: what is installed, from where, and what does not load."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commons_events.cli._text import plain, printable
from commons_events.plugins import PluginInfo, installed

__all__ = ["list_plugins"]

_COLUMNS = ("Group", "Name", "Class", "Distribution", "Version", "Status")
_Row = tuple[str, str, str, str, str, str]


def list_plugins(*, as_json: bool) -> int:
    """Write the list to stdout, and return the exit code: 1 where a plugin cannot be used."""
    infos = installed()
    statuses = _statuses(infos)
    if as_json:
        listed = [asdict(info) | {"status": status} for info, status in zip(infos, statuses, strict=True)]
        typer.echo(json.dumps(listed, indent=2))
    else:
        rows = [
            (info.group, info.name, info.target, info.distribution, info.version, printable(status))
            for info, status in zip(infos, statuses, strict=True)
        ]
        if sys.stdout.isatty():
            Console().print(_table(rows))
        else:
            _write_wide(rows)
    return int(any(status != "ok" for status in statuses))


def _statuses(infos: list[PluginInfo]) -> list[str]:
    """``ok``, or what keeps a plugin from being used: it does not load, or another one has its name."""
    loaded = Counter((group, name) for group, name, _ in {(i.group, i.name, i.target) for i in infos})
    statuses: list[str] = []
    for info in infos:
        if info.problem is not None:
            statuses.append(f"failed: {info.problem}")
        elif loaded[info.group, info.name] > 1:
            statuses.append("failed: another plugin of this group has the same name; uninstall one of them")
        else:
            statuses.append("ok")
    return statuses


def _table(rows: Sequence[_Row]) -> Table:
    """For a terminal: on 80 columns, names stay whole."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in ("Group", "Name", "Class", "Distribution\nand version", "Status"):
        table.add_column(column, overflow="fold")
    for group, name, target, distribution, version, status in rows:
        module, colon, class_name = target.partition(":")
        table.add_row(
            plain(group.removeprefix("commons_events.")),
            plain(name),
            Text.assemble(plain(module + colon), "\n", plain(class_name)),
            Text.assemble(plain(distribution), "\n", plain(version)),
            plain(status, "green" if status == "ok" else "bold red"),
        )
    return table


def _write_wide(rows: Sequence[_Row]) -> None:
    """Nothing is cut or wrapped where programs read: one line a plugin."""
    lines: list[tuple[str, ...]] = [tuple(column.upper() for column in _COLUMNS), *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_COLUMNS))]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
