"""What the command line's tests share: it is called in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the extra [cli] is not installed")

# Imported before any test: event types that come up during one are forgotten at its end.
from commons_events.cli._orders import OrderPlaced

assert OrderPlaced.event_type == "order.placed"

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide enough that no fact is broken over lines, and without colours, wherever the tests run."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COMMONS_EVENTS_BROKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def command() -> list[str]:
    """The console script, without the current directory on the path, as a script has it.

    What was left open or never awaited shows in stderr; deprecations are those of old releases of other libraries.
    """
    shown = ["-W", "always::ResourceWarning", "-W", "always::RuntimeWarning"]
    return [sys.executable, "-P", *shown, "-c", "from commons_events.cli import main; main()"]


@pytest.fixture
def cli(tmp_path: Path, command: list[str]) -> Cli:
    """Call the command line in a process of its own, in the test's folder."""

    def run(*arguments: str, paths: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ)
        if paths:
            environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
        return subprocess.run(
            [*command, *arguments],
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            env=environment | {"PYTHONIOENCODING": "utf-8"},
            timeout=300,
            check=False,
        )

    return run
