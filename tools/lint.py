"""Checks style, the direction of imports, and the lists that are generated from packages/: `make lint`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tools.merge import merge
from tools.workspace import ROOT


def main() -> int:
    tools = Path(sys.executable).parent
    # import-linter reads one folder as the package, so that it needs the packages merged.
    merged = os.environ | {"PYTHONPATH": str(merge())}
    commands: list[tuple[list[str | Path], dict[str, str] | None]] = [
        ([tools / "ruff", "check", "--quiet", "--output-format", "concise"], None),
        ([tools / "ruff", "format", "--check", "--quiet", "--output-format", "concise"], None),
        ([tools / "lint-imports", "--no-cache"], merged),
        ([sys.executable, "-m", "tools.sync", "--check"], None),
    ]
    failed = False
    for command, environment in commands:
        print(f"== {Path(command[0]).name} {' '.join(map(str, command[1:]))}", flush=True)
        failed |= subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
