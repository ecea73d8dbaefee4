"""Checks types as a developer and as a user sees them: `make types`.

Developers have the tree: mypy checks all of it. Users have installed wheels: those go into a clean
environment, and mypy and pyright check tests/typing against it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tools.alone import install
from tools.wheels import build
from tools.workspace import ROOT, with_modules

USERS_VIEW = ROOT / "tests" / "typing"
OWN = ("conftest.py", "tools", "tests/packaging", "tests/repository")
TOOLS = Path(sys.executable).parent


def run(title: str, *command: str | Path, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> bool:
    print(f"== {title}", flush=True)
    return subprocess.run(command, cwd=cwd, env=os.environ | (environment or {}), check=False).returncode == 0


def clean_environment(target: Path) -> Path:
    """Makes an environment that holds the packages' wheels with all their extras, and nothing else."""
    build(target / "wheels", with_modules())
    environment = target / "venv"
    command = [sys.executable, "-m", "uv", "venv", "--quiet", "--clear", "--python", sys.executable]
    subprocess.run([*command, environment], check=True)
    install(environment / "bin" / "python", with_modules(), target / "wheels")
    return environment


def check_tree() -> bool:
    """Mypy over all sources; where each package begins, MYPYPATH says."""
    sources = [str(package.src) for package in with_modules()]
    paths = {"MYPYPATH": os.pathsep.join(sources)}
    return run("mypy --strict, the tree", TOOLS / "mypy", *sources, *OWN, environment=paths)


def check_users_view(target: Path) -> bool:
    """Mypy and pyright with nothing but the wheels in sight."""
    environment = clean_environment(target)
    python = environment / "bin" / "python"
    # A configuration of its own keeps pyright from finding the tree's, which points at the sources.
    settings = {"include": [os.path.relpath(USERS_VIEW, target)], "typeCheckingMode": "strict"}
    (target / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    mypy: list[str | Path] = [TOOLS / "mypy", "--strict", "--config-file=", "--python-executable", python]
    return all(
        [
            run("mypy --strict, users' view", *mypy, USERS_VIEW, cwd=target),
            run("pyright, users' view", TOOLS / "pyright", "--pythonpath", python, cwd=target),
        ]
    )


def main() -> int:
    passed = [check_tree(), check_users_view(ROOT / ".build" / "types")]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
