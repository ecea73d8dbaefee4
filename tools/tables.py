"""A table that a page of the docs has from the code: between two marks, which name the module that makes it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Table"]

END = "<!-- end -->"


class Table(NamedTuple):
    """A page's generated table; run as a program, its module writes it, or with ``--check`` only tells of drift.

    Args:
        page: the page.
        module: what makes it, as ``python -m`` takes it.
        make: the table in Markdown.
    """

    page: Path
    module: str
    make: Callable[[], str]

    def text(self) -> str:
        """What the page has to be."""
        begin = f"<!-- begin: python -m {self.module} -->\n"
        before, found, rest = self.page.read_text("utf-8").partition(begin)
        _, ended, after = rest.partition(END)
        if not found or not ended:
            raise SystemExit(f"{self.page}: the marks {begin.strip()} and {END} are not in it")
        return before + begin + self.make() + END + after

    def run(self) -> int:
        """Write the page, or only say with the exit code that it differs from the code."""
        text = self.text()
        if text == self.page.read_text("utf-8"):
            return 0
        if "--check" in sys.argv[1:]:
            print(f"{self.page} differs from the code: run `python -m {self.module}`")
            return 1
        self.page.write_text(text, "utf-8")
        return 0
