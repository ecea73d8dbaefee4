"""``commons-events projections``: how the projections of a store are, and what an operator does with them."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from commons_events.sourcing.projections import ProjectionStates, ProjectionStatus, Projector, RebuildProgress

__all__ = ["projections"]

T = TypeVar("T")

projections = typer.Typer(
    help="Look at an event store's projections; pause, rebuild and repair them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Store = Annotated[
    str,
    typer.Option("--store", metavar="URL", envvar="COMMONS_EVENTS_STORE", help="The event store's connection string."),
]
Name = Annotated[str, typer.Argument(metavar="PROJECTION", help="Its name.")]
Code = Annotated[
    str, typer.Argument(metavar="MODULE:PROJECTOR", help="A Projector; modules in the current directory are found.")
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")]

_FAILED, _UNUSABLE, _INTERRUPTED = 1, 2, 130


@projections.command()
def status(
    store: Store,
    as_json: Json = False,
    max_lag: Annotated[
        float, typer.Option(min=0.0, help="Seconds of lag from which a projection is not healthy.")
    ] = 60.0,
) -> None:
    """Show where each projection is: state, lag, parked events and the last error.

    Exits with 0 if all are healthy, with 1 if one is not or the store failed, with 2 if the store can't be used.
    """

    async def work(states: ProjectionStates) -> int:
        found = await states.status()
        healthy = [one.is_healthy(max_lag) for one in found]
        if as_json:
            shown = [
                {**asdict(one), "state": one.state, "healthy": well} for one, well in zip(found, healthy, strict=True)
            ]
            typer.echo(json.dumps(shown, indent=2))
        elif not found:
            typer.echo("No projection has run on this store.")
        else:
            _table(
                [
                    ["PROJECTION", "VERSION", "STATE", "POSITION", "LAG", "SECONDS", "PARKED", "REBUILD", "ERROR"],
                    *(
                        [
                            one.name, one.version, one.state, one.position, one.lag, f"{one.lag_seconds:.1f}",
                            one.parked, _rebuild_of(one), one.error or "",
                        ]
                        for one in found
                    ),
                ]
            )  # fmt: skip
        return 0 if all(healthy) else _FAILED

    _run_states(store, work)


@projections.command()
def pause(name: Name, store: Store) -> None:
    """Let workers leave a projection alone, from their next batch on; its tables stay as they are."""
    _set_paused(store, name, True)


@projections.command()
def resume(name: Name, store: Store) -> None:
    """Let workers go on with a paused projection, from where it was."""
    _set_paused(store, name, False)


@projections.command()
def parked(
    name: Name,
    store: Store,
    as_json: Json = False,
    limit: Annotated[int, typer.Option(min=1, help="The most events that are shown.")] = 100,
) -> None:
    """List the events that a projection could not handle, with the reason, and those that wait behind them."""

    async def work(states: ProjectionStates) -> int:
        found = await states.parked(name, limit=limit)
        if as_json:
            typer.echo(json.dumps([{**asdict(one), "stream": str(one.stream)} for one in found], indent=2, default=str))
        elif not found:
            typer.echo("Nothing is parked.")
        else:
            rows = [[one.position, one.stream, one.event_type, one.attempts, one.reason] for one in found]
            _table([["POSITION", "STREAM", "TYPE", "ATTEMPTS", "REASON"], *rows])
        return 0

    _run_states(store, work)


@projections.command()
def rebuild(projector: Code, name: Name) -> None:
    """Fill new tables beside the live ones from the first event on, and swap them in; readers notice nothing.

    A rebuild that was broken off is gone on with when the command runs again. Exits with 1 if it failed or events are
    parked in what it made, with 2 if the projector can't be used, with 130 if it was interrupted.
    """

    async def work(found: Projector) -> int:
        if sys.stderr.isatty():
            from rich.progress import Progress

            with Progress(transient=True) as bar:
                task = bar.add_task(f"Rebuilding {name}", total=None)

                def moved(progress: RebuildProgress) -> None:
                    bar.update(task, completed=progress.position, total=progress.head)

                done = await found.rebuild(name, on_progress=moved)
        else:
            done = await found.rebuild(name)
        typer.echo(f"{name}: {done.events} events read, {done.parked} parked; the new tables are live.")
        return _FAILED if done.parked else 0

    _run_projector(projector, work)


@projections.command()
def retry(projector: Code, name: Name) -> None:
    """Try parked events again, in order; those of a stream up to the first one that fails again.

    Exits with 1 if events are still parked.
    """

    async def work(found: Projector) -> int:
        done, left = await found.retry_parked(name)
        typer.echo(f"{name}: {done} handled, {left} still parked.")
        return _FAILED if left else 0

    _run_projector(projector, work)


def _rebuild_of(one: ProjectionStatus) -> str:
    if one.rebuild_version is None:
        return "-"
    return f"version {one.rebuild_version}: {one.rebuild_position or 0} of {one.head}"


def _set_paused(store: str, name: str, paused: bool) -> None:
    async def work(states: ProjectionStates) -> int:
        await states.set_paused(name, paused)
        typer.echo(f"{name}: {'paused' if paused else 'goes on'}.")
        return 0

    _run_states(store, work)


def _run_states(url: str, work: Callable[[ProjectionStates], Awaitable[int]]) -> None:
    async def opened() -> int:
        from commons_events.sourcing import EventStore
        from commons_events.sourcing._url import check_file
        from commons_events.sourcing.projections import ProjectionStates

        check_file(url)
        async with EventStore(url) as store:
            return await work(ProjectionStates(store))

    _exit(opened)


def _run_projector(name: str, work: Callable[[Projector], Awaitable[int]]) -> None:
    async def opened() -> int:
        from commons_events.sourcing._url import check_file

        projector = _load_projector(name)
        match projector.store.backend.place:
            case "sqlite", Path() as file:  # seen from another directory a relative one is another file
                check_file(f"sqlite:///{quote(str(file))}")
            case _:
                pass
        async with projector.store:
            return await work(projector)

    _exit(opened)


def _exit(work: Callable[[], Awaitable[int]]) -> None:
    from commons_events.errors import (
        CapabilityError,
        CommonsEventsError,
        ConfigurationError,
        StoreSchemaError,
        UnknownDatabaseError,
        UnknownProjectionError,
    )

    async def awaited() -> int:
        return await work()

    try:
        raise typer.Exit(asyncio.run(awaited()))
    except (
        ConfigurationError,
        CapabilityError,
        UnknownDatabaseError,
        UnknownProjectionError,
        StoreSchemaError,
    ) as error:
        code, problem = _UNUSABLE, str(error)
    except CommonsEventsError as error:
        code, problem = _FAILED, str(error)
    except KeyboardInterrupt:
        code, problem = _INTERRUPTED, "interrupted; the same command goes on."
    typer.echo(f"commons-events projections: {problem}", err=True)
    raise typer.Exit(code)


def _load_projector(name: str) -> Projector:
    """The projector called ``module:name``; modules are found in the current directory, too."""
    from commons_events.errors import ConfigurationError
    from commons_events.sourcing.projections import Projector

    module_name, _, attribute = name.partition(":")
    if not attribute or not all(part.isidentifier() for part in f"{module_name}.{attribute}".split(".")):
        raise ConfigurationError(
            f"{name}: this is not of the form MODULE:PROJECTOR. Write, for example, shop.views:projector"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        found: Any = attrgetter(attribute)(importlib.import_module(module_name))
    except Exception as error:  # a user's module, and whatever it raises is said to its user
        raise ConfigurationError(
            f"{name}: it can't be loaded: {type(error).__name__}: {error}. "
            f'python -c "import {module_name}" shows more.'
        ) from error
    if not isinstance(found, Projector):
        raise ConfigurationError(f"{name}: this is a {type(found).__name__}, and no Projector.")
    return found


def _table(rows: list[list[Any]]) -> None:
    from commons_events.cli._text import printable

    texts = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    for row in texts:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
