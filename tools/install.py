"""Installs every package, editable and with all extras, and all tools beside it: `make install`."""

from __future__ import annotations

import subprocess
import sys

from tools.merge import merge
from tools.workspace import Package, dependency_group, packages


def editable(package: Package) -> str:
    """The package's folder with all its extras, as an installer takes it."""
    extras = f"[{','.join(package.extras)}]" if package.extras else ""
    return f"{package.folder}{extras}"


def uv(command: str, *arguments: str) -> None:
    """Runs uv on this environment, whichever other one may be active."""
    options = ["--quiet", "--python", sys.executable]
    subprocess.run([sys.executable, "-m", "uv", "pip", command, *options, *arguments], check=True)


def main() -> int:
    # The workspace's own editable install declares the same entry points: together each would be there twice.
    uv("uninstall", "commons-events-workspace")
    folders = [argument for package in packages() for argument in ("--editable", editable(package))]
    uv("install", *dependency_group("dev"), *folders)
    merge()
    return 0


if __name__ == "__main__":
    sys.exit(main())
