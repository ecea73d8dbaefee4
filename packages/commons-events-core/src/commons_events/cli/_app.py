"""The sub-commands: those of core, and those that other distributions bring by their entry points."""

from __future__ import annotations

from importlib.metadata import version as distribution_version
from pathlib import Path
from platform import python_version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from commons_events.cli._log import LogLevel
from commons_events.cli._schema import app as schema_app
from commons_events.errors import PluginError
from commons_events.plugins import COMMANDS, load, names

__all__ = ["app"]


class _Commands(TyperGroup):
    """Core's own commands, and the plugins' ones, each of which is imported when it is invoked or help lists it.

    A plugin that does not load keeps its place: help says so, and invoking it says why.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *(name for name in names(COMMANDS) if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in names(COMMANDS):
            return own
        try:
            command = _as_command(cmd_name, load(COMMANDS, cmd_name))
        except Exception as error:  # noqa: BLE001  # one broken plugin must not take the other commands away
            return _stand_in(cmd_name, error)
        # A typer app takes its help from its only command or callback, and its name from here.
        command.name = cmd_name
        return command


def _as_command(name: str, plugin: object) -> Any:
    if isinstance(plugin, typer.Typer):
        return typer.main.get_command(plugin)
    if not callable(plugin):
        raise TypeError(f"a command is a typer.Typer or a function, not a {type(plugin).__name__}")
    single = typer.Typer(add_completion=False)
    single.command(name)(plugin)
    return typer.main.get_command(single)


def _stand_in(name: str, error: Exception) -> Any:
    problem = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
    cause = error.__cause__ or error  # help has room for the beginning of a line
    broken = typer.Typer(add_completion=False, rich_markup_mode=None)

    @broken.command(
        name,
        help=f"(failed to load: {type(cause).__name__}: {cause})",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def fail() -> None:
        typer.echo(f"commons-events {name}: this plugin does not load. {problem}", err=True)
        typer.echo("Reinstall or uninstall its distribution; `commons-events plugins` says which it is.", err=True)
        raise typer.Exit(1)

    return typer.main.get_command(broken)


app = typer.Typer(
    cls=_Commands,
    help="Typed events over every broker.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # help is plain text: a plugin's failure may have brackets in it
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


from commons_events.cli._dlq import dlq  # noqa: E402  # it imports nothing heavy by itself

app.add_typer(dlq, name="dlq")


def _version_text() -> str:
    return f"commons-events-core {distribution_version('commons-events-core')}, Python {python_version()}"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(_version_text())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    input: Annotated[
        Path | None,
        typer.Argument(metavar="INPUT", show_default=False, help="Your own JSON lines: one event a line, in UTF-8."),
    ] = None,
    event: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:CLASS",
            help="The event class of the lines; the module is found in the current directory, too. A base class "
            "stands for all of its subclasses. Without it each line's event_type names one of the demo's classes.",
        ),
    ] = None,
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="Another broker than an in-process one, by name or URL.")
    ] = None,
    topic: Annotated[
        str, typer.Option(help="Where the lines go; their dead letters go to TOPIC.dead-letters.")
    ] = "commons-events-demo",
) -> None:
    """Run a small real scenario: events from a file to a broker, to handlers in a group; broken lines to dead letters.

    Exits with 0 if every line was handled or lies in the dead letters with its reason; with 1 if one is missing, if
    none could be handled or if the broker failed; with 2 if the input, the class or the broker can't be used; with
    130 if it was interrupted.
    """
    from commons_events.cli._demo import run_demo

    raise typer.Exit(run_demo(input, event_name=event, broker=broker, topic=topic))


@app.command()
def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """List the installed plugins, from which distribution they come, and why one does not load.

    Exits with 1 if there is one that does not load.
    """
    from commons_events.cli._plugins import list_plugins

    raise typer.Exit(list_plugins(as_json=as_json))


app.add_typer(schema_app, name="schema")


@app.command()
def run(
    router: Annotated[
        str,
        typer.Argument(metavar="MODULE:ROUTER", help="An EventRouter; modules in the current directory are found."),
    ],
    broker: Annotated[
        str | None, typer.Option(metavar="URL", help="The broker of handlers that name none, by name or URL.")
    ] = None,
    brokers: Annotated[
        list[str] | None,
        typer.Option("--named-broker", metavar="NAME=URL", help="A broker that handlers name; repeat it for several."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the work.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when a file changes: for development.")] = False,
    grace: Annotated[float, typer.Option(min=0.0, help="Seconds that running handlers get to end.")] = 30.0,
    health_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Answer GET /health on this port: 200 while all is well, else 503."),
    ] = None,
    health_host: Annotated[str, typer.Option(help="The address that health is answered on.")] = "127.0.0.1",
    log_level: Annotated[
        LogLevel,
        typer.Option(help="What is told on stderr; a module that configures structlog or logging decides by itself."),
    ] = LogLevel.INFO,
) -> None:
    """Run a router until SIGTERM or Ctrl+C, which let its handlers finish; a second one cuts them off.

    Exits with 0 after such an end; with 1 if the router failed; with 2 if it can't be used.
    """
    from commons_events.cli._run import RunOptions, run_router

    options = RunOptions(
        router, broker, tuple(brokers or ()), workers, reload, grace, health_host, health_port, log_level
    )
    raise typer.Exit(run_router(options))


@app.command()
def version() -> None:
    """Show the version."""
    typer.echo(_version_text())
