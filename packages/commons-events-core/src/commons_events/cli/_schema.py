"""``commons-events schema``: what event classes look like in their formats."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Schemas of event classes.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _schema() -> None:
    """Schemas of event classes."""


@app.command()
def lock(
    modules: Annotated[
        list[str], typer.Argument(metavar="MODULE…", help="The modules or packages that define the event classes.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 where a file would change.")
    ] = False,
) -> None:
    """Give Protobuf's field numbers to the events of modules for good, in the lock file of their package.

    Numbers that were given away stay; those of fields that are gone are reserved.

    Exits with 1 if numbers clash, or with --check if a file would change; with 2 if a module can't be used.
    """
    from commons_events.cli._lock import write_locks

    raise typer.Exit(write_locks(modules, check=check))
