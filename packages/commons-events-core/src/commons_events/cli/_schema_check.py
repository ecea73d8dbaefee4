"""What ``commons-events schema`` does: reading what the arguments name, comparing, and saying what was found."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commons_events.cli._input import InputError, load_event_class
from commons_events.cli._text import plain, printable
from commons_events.compatibility import Compatibility, CompatibilityMode, SchemaText, Violation, compatibility
from commons_events.compatibility._formats import format_of
from commons_events.errors import CommonsEventsError
from commons_events.event import Event
from commons_events.plugins import serializer

__all__ = ["run_check", "run_show"]

_TYPES = {".avsc": "avro", ".proto": "protobuf"}
_SUFFIXES = (*_TYPES, ".json", ".jsonschema")
_IMPORT = re.compile(r"""(?:^|;)\s*import\s+(?:public\s+|weak\s+)?(["'])(.+?)\1""", re.MULTILINE)
_MAX_BYTES = 1 << 23

_Schema = type[Event] | SchemaText


def run_check(
    old: Sequence[str],
    new: str,
    *,
    mode: str,
    schema_type: str | None,
    import_path: Sequence[Path],
    lenient: bool,
    as_json: bool,
) -> int:
    """Compare, write what was found to stdout, and return the exit code."""
    try:
        schemas = [_load(name, import_path) for name in (*old, new)]
        stated = schema_type or _stated_type([*old, new], schemas)
        result = compatibility(schemas[:-1], schemas[-1], mode, schema_type=stated, lenient=lenient)
    except (InputError, CommonsEventsError) as error:
        return _complain("check", error)
    if as_json:
        typer.echo(json.dumps(_as_json(result, old), indent=2))
    else:
        typer.echo(_verdict(result, new, old))
        if result.violations and sys.stdout.isatty():
            Console().print(_table(result, old))
        else:
            for violation in result.violations:
                typer.echo(printable(f"{_where(violation, old)}: {violation}"))
    return int(not result)


def run_show(name: str, *, schema_type: str | None) -> int:
    """Write an event class's schema to stdout, and return the exit code."""
    try:
        event_class = load_event_class(name, option="")
        text = serializer(schema_type or event_class.schema_info().schema_type).schema(event_class)
    except (InputError, CommonsEventsError) as error:
        return _complain("show", error)
    typer.echo(text.rstrip("\n"))
    return 0


def _complain(command: str, error: Exception) -> int:
    typer.echo(f"commons-events schema {command}: {printable(str(error))}", err=True)
    return 2


# --- what the arguments name -----------------------------------------------------------------------------------


def _load(name: str, import_path: Sequence[Path]) -> _Schema:
    path = Path(name)
    if ":" in name and not path.exists() and path.suffix not in _SUFFIXES:
        return load_event_class(name, option="")
    text = _read(path)
    return SchemaText(text, _imports(path, text, import_path) if path.suffix == ".proto" else {}, str(path))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file, seen from {Path.cwd()}. Check the path.") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: this is a directory. Name a file in it.") from error
    except OSError as error:
        raise InputError(f"{path}: the file can't be read: {error.strerror}. Check its permissions.") from error
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path}: the file is larger than {_MAX_BYTES:,} bytes. Is it a schema?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: the file is not UTF-8 text, at byte {error.start:,}. Is it a schema?") from error


def _imports(path: Path, text: str, import_path: Sequence[Path]) -> dict[str, str]:
    """The texts of a .proto file's imports, and of theirs; what every implementation has need not be there."""
    folders = [*import_path, path.parent]
    found: dict[str, str] = {}
    wanted = [match[2] for match in _IMPORT.finditer(text)]
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        place = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if place is not None:
            found[name] = _read(place)
            wanted += (match[2] for match in _IMPORT.finditer(found[name]))
    return found


def _stated_type(names: Sequence[str], schemas: Sequence[_Schema]) -> str | None:
    """The format that the files' names state, where one does; a class's own is another matter.

    A text that shows its format must not show another one: a .proto file and a JSON Schema are of no one format.
    """
    stated = {_TYPES[suffix] for name in names if (suffix := Path(name).suffix) in _TYPES}
    shown = {found for one in schemas if isinstance(one, SchemaText) and (found := format_of(one.text)) is not None}
    if len(stated) > 1 or (stated and shown - stated) or len(shown) > 1:
        formats = ", ".join(sorted(stated | shown))
        raise InputError(
            f"{', '.join(names)}: these are of different formats ({formats}). Compare schemas of one format."
        )
    if not stated | shown and not any(isinstance(one, type) for one in schemas):
        raise InputError(
            f"{', '.join(names)}: these texts may be of several formats. Say which: --type avro, json or protobuf."
        )
    return stated.pop() if stated else None


# --- what was found --------------------------------------------------------------------------------------------


def _verdict(result: Compatibility, new: str, old: Sequence[str]) -> str:
    what = f"{result.mode}, {result.schema_type}"
    if result.mode is CompatibilityMode.NONE:
        return printable(f"{new} was not compared with anything ({what}).")
    older = ", ".join(old) if result.mode.is_transitive else old[-1]
    if result.is_compatible:
        return printable(f"{new} is compatible with {older} ({what}).")
    count = len(result.violations)
    return printable(f"{new} is not compatible with {older} ({what}): {count} violation{'s' * (count > 1)}.")


def _where(violation: Violation, old: Sequence[str]) -> str:
    return f"{old[violation.older or 0]} {violation.direction}"


def _table(result: Compatibility, old: Sequence[str]) -> Table:
    """For a terminal: on 80 columns, rules stay whole."""
    table = Table(show_lines=True)
    table.add_column("Where, and which rule", overflow="fold", min_width=max(len(v.rule) for v in result.violations))
    table.add_column("What is wrong, and what to do", overflow="fold")
    for violation in result.violations:
        table.add_row(
            Text.assemble(plain(violation.path), "\n", plain(violation.rule, "bold red")),
            Text.assemble(
                plain(f"{_where(violation, old)}: {violation.message}."), "\n", plain(violation.advice, "green")
            ),
        )
    return table


def _as_json(result: Compatibility, old: Sequence[str]) -> dict[str, object]:
    return {
        "compatible": result.is_compatible,
        "mode": result.mode.value,
        "schema_type": result.schema_type,
        "violations": [asdict(one) | {"older": old[one.older or 0]} for one in result.violations],
    }
