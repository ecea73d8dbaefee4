"""A virtual environment that tests install into and run Python in."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LIMIT = 600.0
"""Seconds after which what runs in an environment counts as hanging."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment in a temporary folder."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def uv(self, *arguments: str | Path) -> None:
        command = [sys.executable, "-m", "uv", "pip", *arguments, "--quiet", "--python", self.python]
        subprocess.run(command, check=True)

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """What the environment's Python prints, run where the tree is out of sight unless told otherwise."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COVERAGE", "PYTEST"))}
        result = subprocess.run(
            [self.python, *arguments],
            cwd=cwd or self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        assert result.returncode == 0, f"{arguments} failed:\n{result.stdout}{result.stderr}"
        return result.stdout

    def distributions(self) -> set[str]:
        """The names of the distributions of ours that are installed."""
        names = "import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
        return {name for name in self.run("-c", names).split() if name.startswith("commons-events")}
