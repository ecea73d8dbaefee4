"""Python source that is made for one schema, run once, and then called for every event.

Each line remembers which place of the data it is about: what a function raises is placed by its traceback, so that
the functions themselves need not keep track of where they are.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from itertools import count
from types import FunctionType
from typing import Any

__all__ = ["Choices", "Source"]

_numbers = count(1)


class Choices(dict[Any, Any]):
    """A look-up whose failure says what was looked for."""

    def __init__(self, items: Mapping[Any, Any], what: str) -> None:
        super().__init__(items)
        self._what = what

    def __missing__(self, key: object) -> Any:
        raise ValueError(f"{key!r:.100} is not {self._what}")


class Source:
    """Lines of Python that grow, with the objects that they use and the places that they are about."""

    def __init__(self, title: str, names: Mapping[str, Any]) -> None:
        self.filename = f"<avro {title} {next(_numbers)}>"
        self.names: dict[str, Any] = dict(names)
        self.place = ""
        """What the lines that come now are about."""
        self._lines: list[str] = []
        self._places: list[str] = []
        self._indent = 0
        self._number = 0

    def line(self, text: str) -> None:
        """Add one line."""
        self._lines.append("    " * self._indent + text)
        self._places.append(self.place)

    @contextmanager
    def block(self, head: str) -> Generator[None]:
        """Add a line that opens a block; what comes inside the ``with`` lies in it."""
        self.line(head)
        self._indent += 1
        yield
        self._indent -= 1

    @contextmanager
    def at(self, place: str) -> Generator[None]:
        """Let the lines inside the ``with`` be about a place."""
        before, self.place = self.place, place
        yield
        self.place = before

    def new(self, stem: str = "v") -> str:
        """A name that is not taken yet."""
        self._number += 1
        return f"{stem}{self._number}"

    def constant(self, value: Any, stem: str = "K") -> str:
        """The name of an object that the lines use."""
        name = self.new(stem)
        self.names[name] = value
        return name

    def replace(self, number: int, text: str) -> None:
        """Give a line that was added other words."""
        self._lines[number] = text

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def text(self) -> str:
        """The whole source."""
        return "\n".join(self._lines) + "\n"

    def function(self, name: str) -> Any:
        """Run the source and return the function of this name."""
        exec(compile(self.text, self.filename, "exec"), self.names)  # no text of others is in it
        function = self.names[name]
        assert isinstance(function, FunctionType)
        return function

    def whereabouts(self, error: BaseException) -> tuple[str, int | None]:
        """The place that an error is about, and the position in the bytes where it was raised, where it has one."""
        path, position = "", None
        traceback = error.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            if frame.f_code.co_filename == self.filename and frame.f_code.co_name != "<listcomp>":
                path = _joined(path, self._places[traceback.tb_lineno - 1])
            if path or position is not None or frame.f_code.co_filename == self.filename:
                found = frame.f_locals.get("pos")
                position = found if isinstance(found, int) else position
            traceback = traceback.tb_next
        return path if len(path) <= 200 else f"{path[:80]} … {path[-80:]}", position


def _joined(path: str, place: str) -> str:
    return path + place if not path or not place or place.startswith("[") else f"{path}.{place}"
