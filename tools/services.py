"""Installs the servers that the packages' tests use and the machine lacks: `make services`, never by itself.

A package names its servers in its pyproject.toml, with the Debian packages that bring each:

    [tool.commons-events.services.rabbitmq]
    apt = ["rabbitmq-server"]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tools.workspace import packages


def wanted(only: list[str]) -> list[str]:
    """The Debian packages of all services, or of the named packages' services alone."""
    chosen = [package for package in packages() if not only or package.short in only]
    return sorted(
        {deb for package in chosen for service in package.services.values() for deb in service.get("apt", [])}
    )


def installed(deb: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", deb]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"


def main(only: list[str]) -> int:
    debs = wanted(only)
    if not debs:
        print("No package asks for a server: nothing to install.")
        return 0
    if shutil.which("apt-get") is None:
        print(f"This machine has no apt-get; the tests can use: {' '.join(debs)}")
        return 1
    missing = [deb for deb in debs if not installed(deb)]
    if not missing:
        print(f"Already installed: {' '.join(debs)}")
        return 0
    if os.geteuid() != 0:
        print(f"Missing; as root: apt-get install --no-install-recommends {' '.join(missing)}")
        return 1
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        subprocess.run(["apt-get", "--quiet", *command], check=True, env=environment)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
