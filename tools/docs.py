"""Builds the site from docs/ into site/, the API's reference from the packages' docstrings: `make docs`."""

from __future__ import annotations

import os
import subprocess
import sys

from tools.merge import merge
from tools.workspace import ROOT


def main() -> int:
    merge()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    # Material announces its successor at every build.
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode == 0
    if built:
        print("built site/index.html")
    return 0 if built else 1


if __name__ == "__main__":
    sys.exit(main())
