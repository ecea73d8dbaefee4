"""``commons-events projections``: what operators see and do, and what they are told when it cannot be done."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the command line is commons-events-core's extra [cli]")
pytest.importorskip("rich", reason="the command line is commons-events-core's extra [cli]")

from typer.testing import CliRunner

from commons_events.sourcing import EventStore
from commons_events.sourcing._commands import projections

VIEWS = """
from sqlalchemy import Column, MetaData, String, Table
from commons_events.sourcing import DomainEvent, EventStore, StoreTransaction
from commons_events.sourcing.projections import Projection, Projector

class CommandNamed(DomainEvent):
    event_type = "command.named"
    name: str

names = Table("names", MetaData(), Column("name", String(50), primary_key=True))
projection = Projection("names", tables=[names], parking="event")
broken = ["bad"]

@projection.handler
async def named(event: CommandNamed, transaction: StoreTransaction) -> None:
    if event.name in broken:
        raise ValueError("this is bad")
    await transaction.execute(names.insert().values(name=event.name))

def made():
    from commons_events.retries import Retry
    return Projector(EventStore("sqlite:///events.db"), [projection], retry=Retry(attempts=1))

projector = made()
other = 7

async def fill():
    async with EventStore("sqlite:///events.db") as store:
        for name in ("Ann", "bad", "Bob"):
            await store.append(name, [CommandNamed(aggregate_id=name, name=name)])
        await Projector(store, [projection], retry=projector._retry).catch_up()
"""


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(projections, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


@pytest.fixture
def views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a module of a projection and a store of three events, one of them parked."""
    (tmp_path / "command_views.py").write_text(VIEWS, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "command_views", raising=False)
    monkeypatch.setenv("COMMONS_EVENTS_STORE", "sqlite:///events.db")
    import command_views  # type: ignore[import-not-found,unused-ignore]

    asyncio.run(command_views.fill())
    return tmp_path


def test_status_shows_state_and_health(views: Path) -> None:
    code, output = run("status")
    assert code == 1  # an event is parked
    heading, row = output.splitlines()
    assert heading.split()[:4] == ["PROJECTION", "VERSION", "STATE", "POSITION"]
    assert row.split()[:5] == ["names", "1", "live", "3", "0"]
    code, output = run("status", "--json")
    (status,) = json.loads(output)
    assert (code, status["parked"], status["healthy"], status["head"]) == (1, 1, False, 3)


def test_status_shows_how_far_a_rebuild_has_come(views: Path) -> None:
    with sqlite3.connect(views / "events.db") as connection:
        connection.execute("UPDATE commons_events_projections SET rebuild_version = 2, rebuild_position = 2")
    connection.close()
    row = run("status")[1].splitlines()[1]
    assert "rebuilding" in row
    assert "version 2: 2 of 3" in row


def test_pause_and_resume(views: Path) -> None:
    assert run("pause", "names") == (0, "names: paused.\n")
    assert "paused" in run("status")[1]
    assert run("resume", "names") == (0, "names: goes on.\n")
    assert "live" in run("status")[1]


def test_parked_events_are_listed_and_tried_again(views: Path) -> None:
    code, output = run("parked", "names")
    assert code == 0
    assert output.splitlines()[1].split() == ["2", "bad", "command.named", "1", "ValueError:", "this", "is", "bad"]
    assert json.loads(run("parked", "names", "--json")[1])[0]["stream"] == "bad"
    assert run("retry", "command_views:projector", "names") == (1, "names: 0 handled, 1 still parked.\n")
    import command_views

    command_views.broken.clear()
    command_views.projector = command_views.made()
    assert run("retry", "command_views:projector", "names") == (0, "names: 1 handled, 0 still parked.\n")
    assert run("parked", "names") == (0, "Nothing is parked.\n")
    assert run("status")[0] == 0


def test_rebuild(views: Path) -> None:
    code, output = run("rebuild", "command_views:projector", "names")
    assert (code, output) == (1, "names: 3 events read, 1 parked; the new tables are live.\n")
    assert sorted(path.name for path in views.glob("*rebuild*")) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["pause", "nobody"], 2, "no projection 'nobody'; there are: names"),
        (["status", "--store", "oracle://x"], 2, "oracle"),
        (["status", "--store", "memory://"], 2, "no SQL"),
        (["status", "--store", "postgresql://localhost:abc/x"], 2, "no URL"),
        (["status", "--store", "sqlite:///nowhere.db"], 2, "there is no such file"),
        (["rebuild", "command_views", "names"], 2, "not of the form MODULE:PROJECTOR"),
        (["rebuild", "nowhere:projector", "names"], 2, "No module named 'nowhere'"),
        (["rebuild", "command_views:other", "names"], 2, "this is a int, and no Projector"),
        (["rebuild", "command_views:projector", "nobody"], 2, "no projection 'nobody'; it has: names"),
    ],
)
def test_what_cannot_be_done_says_why(views: Path, arguments: list[str], code: int, message: str) -> None:
    exit_code, output = run(*arguments)
    assert exit_code == code
    assert message in output


@pytest.mark.parametrize("command", ["rebuild", "retry"])
def test_in_the_wrong_directory_no_new_store_is_made(
    views: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere := views / "else where").mkdir()
    monkeypatch.chdir(elsewhere)
    code, output = run(command, "command_views:projector", "names")
    assert (code, list(elsewhere.iterdir())) == (2, [])
    assert "events.db: there is no such file, seen from" in output


def test_a_store_without_projections_says_so(tmp_path: Path) -> None:
    async def make() -> None:
        async with EventStore(url):
            pass

    url = f"sqlite:///{tmp_path}/new.db"
    asyncio.run(make())
    assert run("status", "--store", url) == (0, "No projection has run on this store.\n")


def test_the_command_is_found_by_its_entry_point() -> None:
    from commons_events.plugins import COMMANDS, load

    assert load(COMMANDS, "projections") is projections
