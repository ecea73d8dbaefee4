"""``commons-events schema``: check a schema against the older ones, and show an event class's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Check schemas against each other, and show those of event classes.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_TypeOption = Annotated[
    str | None,
    typer.Option(
        "--type",
        metavar="FORMAT",
        show_default=False,
        help="avro, json or protobuf; by default what the file's name or the text shows, and what the class states.",
    ),
]


@app.command()
def check(
    old: Annotated[
        str, typer.Argument(help="What there is: a file (.avsc, .json, .proto), or MODULE:CLASS of an event class.")
    ],
    new: Annotated[str, typer.Argument(help="What shall come, in the same forms.")],
    mode: Annotated[
        str,
        typer.Option(
            help="NONE, BACKWARD, FORWARD, FULL, or the last three with _TRANSITIVE. BACKWARD: the new schema reads "
            "what the old one wrote."
        ),
    ] = "BACKWARD",
    schema_type: _TypeOption = None,
    history: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCHEMA",
            show_default=False,
            help="One that is older than OLD, for a transitive mode; give it once for each, oldest first.",
        ),
    ] = None,
    import_path: Annotated[
        list[Path] | None,
        typer.Option(
            "--import-path",
            "-I",
            metavar="FOLDER",
            show_default=False,
            help="Where a .proto file's imports are found, as for protoc; by default beside the file.",
        ),
    ] = None,
    lenient: Annotated[
        bool,
        typer.Option(
            "--lenient",
            help="For JSON Schema: a property may be added to an object that is open, as those of event classes are.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False,
) -> None:
    """Say whether NEW may follow OLD, by the rules of Confluent's registry, and what stands in the way.

    Exits with 0 if it may; with 1 if not; with 2 if a schema can't be read or is none.
    """
    from commons_events.cli._schema_check import run_check

    raise typer.Exit(
        run_check(
            [*(history or []), old],
            new,
            mode=mode,
            schema_type=schema_type,
            import_path=import_path or [],
            lenient=lenient,
            as_json=as_json,
        )
    )


@app.command()
def show(
    event: Annotated[str, typer.Argument(metavar="MODULE:CLASS", help="The event class.")],
    schema_type: _TypeOption = None,
) -> None:
    """Write the schema of an event class, as a registry takes it.

    Exits with 2 if there is no such class, or it has no schema in that format.
    """
    from commons_events.cli._schema_check import run_show

    raise typer.Exit(run_show(event, schema_type=schema_type))


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
