"""What a user hands to the demo: a file of JSON lines and an event class. Every complaint says where and what to do."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeGuard

from commons_events.event import Event

__all__ = ["MAX_LINE", "InputError", "Line", "LineFile", "load_event_class", "open_lines"]

MAX_LINE = 1 << 20
"""The most bytes of a line; more than many brokers take in one message."""
_LINES_AT_ONCE = 200
_BYTES_AT_ONCE = 4 * MAX_LINE
_UTF8_MARK = b"\xef\xbb\xbf"


class InputError(Exception):
    """The input or the event class cannot be used; the message says why, and what to do."""


class Line(NamedTuple):
    """One line of the file, without its end."""

    number: int
    data: bytes


@dataclass
class LineFile:
    """An open file of JSON lines, which is read piece by piece, however large it is."""

    name: str
    """As the user gave it."""
    size: int
    stream: BinaryIO
    blank: int = 0
    """Lines without anything in them, which are passed over."""

    @property
    def position(self) -> int:
        """How many bytes have been read."""
        return self.stream.tell()

    def chunks(self) -> Iterator[list[Line]]:
        """Some lines at a time.

        Raises:
            InputError: a line is too long.
        """
        chunk: list[Line] = []
        size = number = 0
        while data := self.stream.readline(MAX_LINE + 1):
            number += 1
            if number == 1:
                data = data.removeprefix(_UTF8_MARK)
            if len(data) > MAX_LINE and not data.endswith(b"\n"):
                raise InputError(
                    f"{self.name}:{number}: the line is longer than {MAX_LINE:,} bytes. JSON lines have one object a "
                    "line: write a list as its members, one a line (jq -c '.[]')."
                )
            data = data.rstrip(b"\r\n")
            if not data.strip():
                self.blank += 1
                continue
            chunk.append(Line(number, data))
            size += len(data)
            if len(chunk) >= _LINES_AT_ONCE or size >= _BYTES_AT_ONCE:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk


@contextmanager
def open_lines(path: Path | None) -> Generator[LineFile]:
    """The file at ``path``, or the one that ships with the demo.

    Raises:
        InputError: it is no file of text that can be read.
    """
    with ExitStack() as stack:
        if path is None:
            path = stack.enter_context(as_file(files("commons_events.cli").joinpath("data", "orders.jsonl")))
            name = path.name
        else:
            name = str(path)
        try:
            _check_file(path)
            stream = stack.enter_context(path.open("rb"))
            start = stream.read(4096)
            stream.seek(0)
        except OSError as error:
            raise InputError(f"{name}: the file can't be read: {error.strerror}. Check its permissions.") from error
        if not start:
            raise InputError(f"{name}: the file is empty. It needs one event a line, as a JSON object.")
        _check_text(start, name)
        yield LineFile(name, path.stat().st_size, stream)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: this is a directory. Name a file in it, such as {path / 'events.jsonl'}.")
    if not path.exists():
        raise InputError(f"{path}: there is no such file, seen from {Path.cwd()}. Check the path.")
    if not path.is_file():
        raise InputError(f"{path}: this is not a regular file. Write its content to a file, and name that.")


def _check_text(start: bytes, name: str) -> None:
    """Refuse a file that is no UTF-8 as a whole; a single line that is none becomes a dead letter like others."""
    if start.startswith(b"\x1f\x8b"):
        raise InputError(f"{name}: the file is compressed, and not UTF-8 text. Unpack it first: gunzip {name}")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(
            f"{name}: the file is UTF-16, and JSON lines are UTF-8. Convert it: iconv -f UTF-16 -t UTF-8 {name}"
        )
    if b"\0" in start:
        line = start[: start.index(b"\0")].count(b"\n") + 1
        raise InputError(f"{name}:{line}: the file is not UTF-8 text, but binary. It needs one JSON object a line.")


# --- the event class -------------------------------------------------------------------------------------------


def load_event_class(name: str, *, option: str = "--event ") -> type[Event]:
    """The event class called ``module:Class``; modules are found in the current directory, too.

    ``option`` is what stands before the name on the command line, for complaints; empty where it is an argument.

    Raises:
        InputError: there is no such class.
    """
    given = f"{option}{name}"
    module_name, _, class_name = name.partition(":")
    if not class_name or not all(part.isidentifier() for part in f"{module_name}.{class_name}".split(".")):
        hint = "shop.events:OrderPlaced"
        if "/" in module_name or module_name.endswith(".py"):
            hint = f"{'.'.join(Path(module_name).with_suffix('').parts)}:{class_name or 'OrderPlaced'}"
        raise InputError(f"{given}: this is not of the form MODULE:CLASS. Write, for example, {option}{hint}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module, and whatever it raises is said to its user
        raise InputError(_import_complaint(given, module_name, here, error)) from error
    try:
        found = attrgetter(class_name)(module)
    except AttributeError as error:
        there = sorted(key for key, value in vars(module).items() if _is_event_class(value) and value is not Event)
        known = f"Its event classes: {', '.join(there)}." if there else "It has no event classes."
        raise InputError(f"{given}: {module_name} has no {class_name}. {known}") from error
    if _is_event_class(found):
        return found
    if isinstance(found, type):
        fix = f"Derive it from commons_events.Event: class {found.__name__}(Event)"
    else:
        fix = "Name a class that derives from commons_events.Event."
    raise InputError(f"{given}: {class_name} is not an event class. {fix}")


def _is_event_class(value: object) -> TypeGuard[type[Event]]:
    return isinstance(value, type) and issubclass(value, Event)


def _import_complaint(given: str, module_name: str, here: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}."):
        return (
            f"{given}: there is no module {error.name}, neither in {here} nor installed here ({sys.prefix}). "
            "Run this where the module is, or install it."
        )
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, SyntaxError) else f" ({place.filename}, line {place.lineno})"
    return (
        f"{given}: importing {module_name} failed: {type(error).__name__}: {error}{where}. "
        f'Correct that first; python -c "import {module_name}" shows it, too.'
    )
