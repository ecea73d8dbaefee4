"""Installs one package as its users have it: its wheel and core's, with nothing but their dependencies.

-testing's contract suite comes beside them, since the package's tests run on it.
`hatch run alone:test` calls this.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.wheels import build
from tools.workspace import CORE, TESTING, Package, package_named, third_party


def beside(package: Package) -> list[Package]:
    """The packages that the package's tests need: core, -testing and itself."""
    return list({p.name: p for p in (package_named(CORE), package_named(TESTING), package)}.values())


def requirements(chosen: list[Package], wheels: Path) -> list[str]:
    """The packages' wheels in the folder as requirements, each with all its extras."""
    found = []
    for package in chosen:
        stem = f"{package.name.replace('-', '_')}-{package.version}"
        extras = f"[{','.join(package.extras)}]" if package.extras else ""
        found.append(f"{package.name}{extras} @ {(wheels / f'{stem}-py3-none-any.whl').resolve().as_uri()}")
    return found


def install(python: Path | str, chosen: list[Package], wheels: Path, *options: str) -> None:
    """Installs the packages' wheels into the environment of that Python."""
    # Reinstalled, since uv would keep an installed or cached wheel that has the same version.
    own = [argument for package in chosen for argument in ("--reinstall-package", package.name)]
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        str(python),
        *own,
        *options,
    ]
    subprocess.run([*command, *requirements(chosen, wheels)], check=True)


def oldest(chosen: list[Package]) -> list[str]:
    """What makes uv take the oldest release of each dependency that the packages allow.

    Uv lowers only what is asked for directly, so that the wheels' own dependencies are repeated.
    """
    direct = [requirement for package in chosen for requirement in package.dependencies]
    optional = [r for package in chosen for extra in package.extras.values() for r in extra]
    return ["--resolution", "lowest-direct", *third_party([*direct, *optional])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", help="a folder's name under packages/, or its last part")
    parser.add_argument("--deps", choices=("oldest", "latest"), default="latest")
    arguments = parser.parse_args()
    chosen = beside(package_named(arguments.package))
    # Upgraded, since uv would keep what an earlier run installed.
    options = ["--upgrade", *(oldest(chosen) if arguments.deps == "oldest" else [])]
    with tempfile.TemporaryDirectory() as wheels:
        build(Path(wheels), chosen)
        install(sys.executable, chosen, Path(wheels), *options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
