"""Text that came from elsewhere, made fit for a terminal."""

from __future__ import annotations

from rich.text import Text

__all__ = ["plain", "printable"]


def printable(text: str) -> str:
    """``text`` on one line, where what does not print (a terminal's control sequences) stands escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def plain(text: str, style: str = "") -> Text:
    """As `printable`, for rich: brackets in it are no markup."""
    return Text(printable(text), style=style)
