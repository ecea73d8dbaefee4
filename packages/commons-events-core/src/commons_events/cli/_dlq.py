"""``commons-events dlq``: what lies in a dead-letter topic, and what becomes of it."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from shutil import copymode
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

if TYPE_CHECKING:
    from commons_events.dead_letters import DeadLetter, DeadLetterQueue, DeadLetterReport, LetterFilter

__all__ = ["dlq"]

dlq = typer.Typer(
    help="Look through dead letters, redrive or discard them.", no_args_is_help=True, rich_markup_mode=None
)

Topic = Annotated[str, typer.Argument(help="The dead-letter topic.")]
BrokerUrl = Annotated[str | None, typer.Option("--broker", metavar="URL", help="The broker, by name or URL.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Only the letter of this id; may be given several times.")]
Origin = Annotated[str | None, typer.Option("--topic", help="Only letters from this topic.")]
Group = Annotated[str | None, typer.Option("--group", help="Only letters of this group.")]
Key = Annotated[str | None, typer.Option("--key", help="Only letters of this key.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only letters with this in their reason.")]
Error = Annotated[str | None, typer.Option("--error", help="Only letters with this in their error.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Rate = Annotated[float | None, typer.Option(min=0.001, help="The most letters a second.")]
All = Annotated[bool, typer.Option("--all", help="All letters: needed where no filter is given.")]


def _filter(
    ids: Ids = None,
    origin: Origin = None,
    group: Group = None,
    key: Key = None,
    reason: Reason = None,
    error: Error = None,
) -> LetterFilter:
    from commons_events.dead_letters import LetterFilter

    return LetterFilter(
        ids=frozenset(ids or ()), topic=origin, group=group, key=None if key is None else key.encode(), reason=reason,
        error=error,
    )  # fmt: skip


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_filter` in the place of its parameter ``wanted``."""
    names = {"LetterFilter": Any}
    options = inspect.signature(_filter, eval_str=True, locals=names).parameters
    own = inspect.signature(command, eval_str=True, locals=names)
    parameters: list[inspect.Parameter] = []
    for parameter in own.parameters.values():
        parameters += options.values() if parameter.name == "wanted" else [parameter]

    @wraps(command)
    def called(**given: Any) -> None:
        wanted = _filter(**{name: given.pop(name) for name in options})
        command(wanted=wanted, **given)

    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    called.__signature__ = own.replace(parameters=keywords)  # type: ignore[attr-defined]  # what typer reads
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in keywords}
    return called


def _run(broker: str | None, topic: str, work: Callable[[DeadLetterQueue], Awaitable[int]]) -> None:
    """Open the queue, do the work and exit with its code; with 1 where the broker failed, 2 where it can't be used."""
    from commons_events.config import open_transport
    from commons_events.consumers import ConsumerConfig
    from commons_events.dead_letters import DeadLetterQueue
    from commons_events.errors import CapabilityError, CommonsEventsError, ConfigurationError, InvalidTopicError

    async def opened() -> int:
        config = ConsumerConfig(topics=(topic,)) if broker is None else ConsumerConfig(topics=(topic,), broker=broker)
        transport = open_transport(config)
        try:
            queue = DeadLetterQueue(transport, topic)
            if not queue.browses:
                typer.echo(
                    "This broker can't browse: letters are taken by a group of this tool, and given back.", err=True
                )
            return await work(queue)
        finally:
            await transport.close()

    try:
        raise typer.Exit(asyncio.run(opened()))
    except (ConfigurationError, CapabilityError, InvalidTopicError) as error:
        typer.echo(f"commons-events dlq: {error}", err=True)
        raise typer.Exit(2) from error
    except CommonsEventsError as error:
        typer.echo(f"commons-events dlq: {error} Run the same command again to go on.", err=True)
        raise typer.Exit(1) from error


def _as_json(letter: DeadLetter, *, whole: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": letter.id,
        "topic": letter.topic,
        "group": letter.group,
        "key": None if letter.key is None else letter.key.decode(errors="backslashreplace"),
        "reason": letter.reason,
        "error_type": letter.error_type,
        "error_message": letter.error_message,
        "attempts": letter.attempts,
        "died_at": None if letter.died_at is None else letter.died_at.isoformat(),
        "ordered": letter.ordered,
    }
    if whole:
        value = letter.message.value
        shown["headers"] = [
            [name, content.decode(errors="backslashreplace")] for name, content in letter.message.headers
        ]
        try:
            shown["value"] = None if value is None else value.decode()
        except UnicodeDecodeError:
            shown["value_base64"] = base64.b64encode(value or b"").decode()
    return shown


@dlq.command("list")
@_filtered
def list_letters(
    topic: Topic,
    broker: BrokerUrl = None,
    *,
    wanted: LetterFilter,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object a line.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most letters that are shown.")] = 100,
) -> None:
    """List the letters that stand, one a line: id, origin, group, key, attempts, reason, error."""
    from commons_events.cli._text import printable

    async def work(queue: DeadLetterQueue) -> int:
        shown = 0
        async for letter in queue.letters(wanted):
            if shown == limit:
                typer.echo(f"There are more than {limit}; --limit shows more.", err=True)
                break
            shown += 1
            if as_json:
                typer.echo(json.dumps(_as_json(letter, whole=False)))
                continue
            fields = (
                letter.id, letter.topic or "?", letter.group or "-",
                (letter.key or b"-").decode(errors="backslashreplace"), str(letter.attempts or "?"), letter.reason,
                letter.error_message or "",
            )  # fmt: skip
            typer.echo("  ".join(printable(text) for text in fields).rstrip())
        if not shown:
            typer.echo(f"No such letters in {topic}.", err=True)
        return 0

    _run(broker, topic, work)


@dlq.command()
def show(topic: Topic, id: Annotated[str, typer.Argument(help="The letter's id.")], broker: BrokerUrl = None) -> None:
    """Show one letter whole, with its headers and bytes, as JSON. Exits with 1 if there is none of this id."""

    async def work(queue: DeadLetterQueue) -> int:
        async for letter in queue.letters(_filter([id])):
            typer.echo(json.dumps(_as_json(letter, whole=True), indent=2))
            return 0
        typer.echo(
            f"No letter {id} stands in {topic}; `commons-events dlq list {topic}` shows those that do.", err=True
        )
        return 1

    _run(broker, topic, work)


@dlq.command()
@_filtered
def export(
    topic: Topic,
    to: Annotated[Path | None, typer.Option("--to", help="The file to write; by default the standard output.")] = None,
    broker: BrokerUrl = None,
    *,
    wanted: LetterFilter,
) -> None:
    """Write letters whole, one JSON object a line. They stay where they are. A file is there once it is whole."""

    async def write(queue: DeadLetterQueue, file: TextIO) -> int:
        count = 0
        async for letter in queue.letters(wanted):
            file.write(json.dumps(_as_json(letter, whole=True)) + "\n")
            count += 1
        typer.echo(f"{count} letters written.", err=True)
        return 0

    async def work(queue: DeadLetterQueue) -> int:
        if to is None:
            return await write(queue, sys.stdout)
        if to.exists() and not to.is_file():  # a pipe, say
            with to.open("w", encoding="utf-8") as file:  # a command line has nothing else to do
                return await write(queue, file)
        whole = to.resolve()  # a link stays one
        part = whole.with_name(f".{whole.name}.part")
        try:
            with part.open("w", encoding="utf-8") as file:
                if whole.exists():
                    copymode(whole, part)
                code = await write(queue, file)
            part.replace(whole)
        finally:
            part.unlink(missing_ok=True)
        return code

    try:
        _run(broker, topic, work)
    except OSError as error:
        typer.echo(f"commons-events dlq export: {to or 'the standard output'} cannot be written: {error}", err=True)
        raise typer.Exit(2) from error


@dlq.command()
@_filtered
def redrive(
    topic: Topic,
    broker: BrokerUrl = None,
    *,
    wanted: LetterFilter,
    every: All = False,
    dry_run: DryRun = False,
    rate: Rate = None,
) -> None:
    """Publish letters to their original topics again, in order. Interrupted, the same command goes on."""
    _act(broker, topic, "redrive", wanted, every=every, dry_run=dry_run, rate=rate)


@dlq.command()
@_filtered
def discard(
    topic: Topic,
    broker: BrokerUrl = None,
    *,
    wanted: LetterFilter,
    every: All = False,
    dry_run: DryRun = False,
    rate: Rate = None,
) -> None:
    """Drop letters for good."""
    _act(broker, topic, "discard", wanted, every=every, dry_run=dry_run, rate=rate)


def _act(
    broker: str | None, topic: str, action: str, wanted: LetterFilter, *, every: bool, dry_run: bool, rate: float | None
) -> None:
    from commons_events.dead_letters import LetterFilter

    if wanted == LetterFilter() and not every:
        typer.echo(f"commons-events dlq {action}: give a filter, or --all for all letters.", err=True)
        raise typer.Exit(2)

    async def work(queue: DeadLetterQueue) -> int:
        if dry_run:
            count = 0
            async for letter in queue.letters(wanted):
                count += 1
                typer.echo(letter.id)
            typer.echo(f"{count} letters would be looked at to {action}; nothing was done.", err=True)
            return 0
        report = await _with_progress(queue, action, wanted, rate)
        typer.echo(f"{report.done} letters: {action} done.", err=True)
        if report.held_back:
            typer.echo(f"{report.held_back} stand behind one of their key that was not selected.", err=True)
        if wanted.ids and not (report.done or report.held_back or report.without_origin):
            typer.echo(f"No such letters in {topic}.", err=True)
            return 1
        for id in report.without_origin:
            typer.echo(f"{id}: does not say where it came from, and stays.", err=True)
        return 1 if report.without_origin else 0

    _run(broker, topic, work)


async def _with_progress(
    queue: DeadLetterQueue, action: str, wanted: LetterFilter, rate: float | None
) -> DeadLetterReport:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    total = 0
    if queue.browses:
        async for _ in queue.letters(wanted):
            total += 1
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(action, total=total or None)
        work = queue.redrive if action == "redrive" else queue.discard
        return await work(wanted, rate=rate, progress=lambda done: bar.update(task, completed=done))
