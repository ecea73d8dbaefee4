"""A lint: core asks `Runtime` for time, sleep, randomness and ids, and nobody else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import commons_events

ROOT = Path(commons_events.__file__).parent
PACKAGES = (
    "binding", "consumers", "event", "memory", "producers", "serialization", "transport", "middleware", "cli",
    "router", "dead_letters",
)  # fmt: skip
MODULES = sorted(
    path
    for path in [*ROOT.glob("*.py"), *(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))]
    if path.name != "runtime.py" or path.parent != ROOT
)

WHOLE_MODULES = {"time", "random", "secrets"}
"""Modules of which nothing may be used."""
NAMES = {
    ("uuid", "uuid1"), ("uuid", "uuid4"), ("uuid", "uuid6"), ("uuid", "uuid7"),
    ("os", "urandom"), ("os", "getrandom"),
    ("asyncio", "sleep"), ("asyncio.tasks", "sleep"),
}  # fmt: skip
METHODS = {"now", "utcnow", "today"}
"""Of datetime and date."""


def offences(source: str) -> Iterator[tuple[int, str]]:
    """Lines and names of what asks the machine itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in WHOLE_MODULES:
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            for alias in node.names:
                if node.module.split(".")[0] in WHOLE_MODULES or (node.module, alias.name) in NAMES:
                    yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Attribute):
            owner = node.value
            owner_name = (
                owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            )
            if (owner_name, node.attr) in NAMES or (owner_name in ("datetime", "date") and node.attr in METHODS):
                yield node.lineno, f"{owner_name}.{node.attr}"
            is_loop = "loop" in ast.unparse(owner).lower()
            if is_loop and node.attr in ("time", "call_later", "call_at"):
                yield node.lineno, f"loop.{node.attr}"


def test_the_lint_sees_core() -> None:
    assert {"config.py", "_event.py", "_broker.py", "_producer.py", "_consumer.py"} <= {path.name for path in MODULES}
    runtime = (ROOT / "runtime.py").read_text("utf-8")
    assert {name for _, name in offences(runtime)} >= {"time", "random", "datetime.now", "os.urandom", "asyncio.sleep"}


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import random as r",
        "from time import monotonic",
        "from datetime import datetime\ndatetime.now()",
        "import datetime\ndatetime.datetime.utcnow()",
        "from datetime import date\ndate.today()",
        "import uuid\nuuid.uuid4()",
        "from uuid import uuid1",
        "import os\nos.urandom(3)",
        "import asyncio\nasyncio.sleep(1)",
        "from asyncio import sleep",
        "import asyncio\nasyncio.get_running_loop().time()",
        "self.loop.call_later(1, f)",
        "import secrets",
    ],
)
def test_the_lint_finds(source: str) -> None:
    assert list(offences(source))


@pytest.mark.parametrize(
    "source", ["from datetime import datetime, time\ntime(1)", "runtime.sleep(1)", "runtime.now()"]
)
def test_the_lint_lets_pass(source: str) -> None:
    assert not list(offences(source))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_but_runtime_asks_the_machine_itself(path: Path) -> None:
    found = [f"{path.name}:{line}: {name}" for line, name in offences(path.read_text("utf-8"))]
    assert not found, f"{found}: use commons_events.runtime.current_runtime() instead"
