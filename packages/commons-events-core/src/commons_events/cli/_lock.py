"""``commons-events schema lock``: give Protobuf's field numbers to events for good."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from commons_events.errors import EventDefinitionError
from commons_events.event import Event, registry
from commons_events.protobuf import locking

__all__ = ["write_locks"]

_REFUSED, _WRONG_USE = 1, 2


def write_locks(modules: Sequence[str], *, check: bool) -> int:
    """Write the lock files of these modules' events, or with ``check`` only say whether they are up to date.

    Returns:
        The exit code: 1 where a file would change or numbers clash, 2 where a module cannot be used.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    found: list[type[Event]] = []
    for name in modules:
        try:
            with locking.unsettled():
                imported = _import_all(name)
        except EventDefinitionError as error:
            typer.echo(f"{name}: {error}", err=True)
            return _REFUSED
        except Exception as error:  # noqa: BLE001  # a user's module, and whatever it raises is said to its user
            place = traceback.extract_tb(error.__traceback__)[-1]
            typer.echo(
                f"{name}: importing it failed: {type(error).__name__}: {error} ({place.filename}, line {place.lineno}"
                f'). Correct that first; python -c "import {name}" shows it, too.',
                err=True,
            )
            return _WRONG_USE
        classes = [
            cls
            for cls in registry.classes().values()
            if cls.__module__ in imported and cls.schema_info().schema_type == "protobuf"
        ]
        if not classes:
            typer.echo(
                f'{name}: it defines no event class with schema_type="protobuf". Name the module or package that does.',
                err=True,
            )
            return _WRONG_USE
        found += [cls for cls in classes if cls not in found]
    try:
        files = locking.updated_files(found)
    except EventDefinitionError as error:
        typer.echo(str(error), err=True)
        return _REFUSED
    return max(_settle(path, text, check=check) for path, text in files.items())


def _settle(path: Path, text: str, *, check: bool) -> int:
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    before = path.read_text("utf-8") if path.is_file() else None
    if before == text:
        typer.echo(f"{shown} is up to date")
        return 0
    if check:
        state = "does not exist" if before is None else "is out of date"
        typer.echo(f"{shown} {state}: run `commons-events schema lock` without --check, and commit the file.", err=True)
        return _REFUSED
    path.write_text(text, "utf-8")
    typer.echo(f"wrote {shown}")
    return 0


def _import_all(name: str) -> set[str]:
    """Import a module, and those below it where it is a package; returns their names."""
    module = importlib.import_module(name)
    names = {name}
    for info in pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}."):
        if not info.name.endswith(".__main__"):
            importlib.import_module(info.name)
            names.add(info.name)
    return names
