"""Sub-commands: core's own, those of plugins, and the list of what is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from commons_events.cli._app import app
from commons_events.plugins import COMMANDS, register, unregister

Cli = Callable[..., subprocess.CompletedProcess[str]]

GREETING = """
import typer

app = typer.Typer(help="Greets people.")

@app.command()
def hello(name: str) -> None:
    "Say hello."
    typer.echo(f"hello {name}")

@app.command()
def bye() -> None:
    "Say goodbye."
    raise typer.Exit(7)
"""
ENTRY_POINTS = """\
[commons_events.commands]
greet = greeting:app
single = single_command:run
broken = broken_command:app

[commons_events.transports]
halfway = no_such_module:HalfwayTransport
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A folder with an installed distribution: two commands that work, one that does not, and a broken transport."""
    site = tmp_path / "site"
    info = site / "acme_events-1.2.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-events\nVersion: 1.2.3\n", "utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, "utf-8")
    (site / "greeting.py").write_text(GREETING, "utf-8")
    (site / "single_command.py").write_text(
        "def run(count: int = 2) -> None:\n    'Counts.'\n    print('x' * count)\n", "utf-8"
    )
    (site / "broken_command.py").write_text("print('imported!')\nraise RuntimeError('[red] no licence')\n", "utf-8")
    return site


@pytest.fixture
def registered() -> Iterator[None]:
    def shout(word: Annotated[str, typer.Argument()], times: int = 1) -> None:
        """Shout a word."""
        typer.echo(word.upper() * times)

    register(COMMANDS, "shout", shout)
    register(COMMANDS, "nothing", 3)
    yield
    unregister(COMMANDS, "shout")
    unregister(COMMANDS, "nothing")


# --- commands of plugins ---------------------------------------------------------------------------------------


def test_help_lists_all_commands_and_says_which_failed(cli: Cli, plugins: Path) -> None:
    done = cli("--help", paths=(plugins,))

    assert done.returncode == 0, done.stderr
    rows = {row.split()[0]: row for row in done.stdout.splitlines() if row.startswith("  ") and row.split()}
    assert {"demo", "plugins", "version", "greet", "single", "broken"} <= rows.keys()
    assert "Greets people." in rows["greet"]
    assert "Counts." in rows["single"]
    assert "failed to load" in rows["broken"]
    assert "no licence" in rows["broken"]


def test_commands_of_plugins_run(cli: Cli, plugins: Path) -> None:
    hello = cli("greet", "hello", "Ada", paths=(plugins,))
    assert (hello.returncode, hello.stdout) == (0, "hello Ada\n")
    assert cli("greet", "bye", paths=(plugins,)).returncode == 7
    single = cli("single", "--count", "3", paths=(plugins,))
    assert (single.returncode, single.stdout) == (0, "xxx\n")


def test_a_broken_command_is_an_error_of_its_own(cli: Cli, plugins: Path) -> None:
    done = cli("broken", "--its-own", "argument", paths=(plugins,))

    assert done.returncode == 1
    assert "broken" in done.stderr
    assert "[red] no licence" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plugin_is_imported_only_when_it_is_used(cli: Cli, plugins: Path) -> None:
    for arguments in (["version"], ["greet", "hello", "Ada"], ["demo", "--help"]):
        assert "imported!" not in cli(*arguments, paths=(plugins,)).stdout


@pytest.mark.usefixtures("registered")
def test_commands_registered_by_a_script() -> None:
    result = CliRunner().invoke(app, ["shout", "hey", "--times", "2"])
    assert (result.exit_code, result.output) == (0, "HEYHEY\n")

    result = CliRunner().invoke(app, ["nothing"])
    assert result.exit_code == 1
    assert "a command is a typer.Typer or a function, not a int" in result.output


def test_unknown_command() -> None:
    result = CliRunner().invoke(app, ["lag"])

    assert result.exit_code == 2
    assert "No such command" in result.output


# --- the list of plugins ---------------------------------------------------------------------------------------


def test_list_says_what_is_installed_and_what_failed(cli: Cli, plugins: Path) -> None:
    done = cli("plugins", paths=(plugins,))

    assert done.returncode == 1, done.stderr
    rows = [row.split(maxsplit=5) for row in done.stdout.splitlines() if "commons_events." in row]
    distribution = ["commons-events-core", version("commons-events-core")]
    assert ["commons_events.transports", "memory", "commons_events.memory:MemoryTransport", *distribution, "ok"] in rows
    assert ["commons_events.commands", "greet", "greeting:app", "acme-events", "1.2.3", "ok"] in rows
    (halfway,) = (row for row in rows if row[1] == "halfway")
    assert halfway[5].startswith("failed: ModuleNotFoundError")
    assert "no_such_module" in halfway[5]


def test_list_as_json(cli: Cli, plugins: Path) -> None:
    (plugins / "broken_command.py").write_text("raise RuntimeError('[red] no licence')\n", "utf-8")
    done = cli("plugins", "--json", paths=(plugins,))

    assert done.returncode == 1
    listed = {(plugin["group"], plugin["name"]): plugin for plugin in json.loads(done.stdout)}
    assert listed["commons_events.serializers", "json"]["problem"] is None
    broken = listed["commons_events.commands", "broken"]
    assert broken["problem"] == "RuntimeError: [red] no licence"
    assert (broken["distribution"], broken["version"]) == ("acme-events", "1.2.3")


def test_list_without_failures_exits_with_0(cli: Cli) -> None:
    done = cli("plugins")

    assert done.returncode == 0, done.stdout
    assert "MemoryTransport" in done.stdout


def test_two_plugins_of_one_name_are_failures_and_the_rest_works(cli: Cli, plugins: Path) -> None:
    info = plugins / "other_events-4.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-events\nVersion: 4.5\n", "utf-8")
    (info / "entry_points.txt").write_text("[commons_events.commands]\nsingle = greeting:bye\n", "utf-8")

    rows = [row for row in cli("plugins", paths=(plugins,)).stdout.splitlines() if " single " in row]
    assert len(rows) == 2
    assert all("the same name" in row for row in rows)
    assert cli("version", paths=(plugins,)).returncode == 0
    shown = cli("--help", paths=(plugins,)).stdout
    assert "Two plugins" in shown
    assert "Greets people" in shown


# --- the rest --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 0
    assert f"commons-events-core {version('commons-events-core')}" in result.output


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_there_is_one_line_that_says_how_to_get_it(missing: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from commons_events.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert 'pip install "commons-events-core[cli]"' in done.stderr
