"""The command line ``commons-events``. It needs the extra ``[cli]``; each sub-command loads only when it is used."""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["main"]

_EXTRA = frozenset({"click", "rich", "typer"})


def main() -> None:
    """Run the command line, and exit the process with its code: what the console script calls."""
    try:
        import_module("rich")  # typer does without, our tables don't
        from commons_events.cli._app import app
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        sys.stderr.write(
            f"commons-events: the command line needs {error.name}, which is not installed. "
            'Type: pip install "commons-events-core[cli]"\n'
        )
        sys.exit(1)
    app(prog_name="commons-events")
