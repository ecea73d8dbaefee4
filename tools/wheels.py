"""Builds every package's wheel and sdist into dist/ and checks them: `make wheels`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tools.workspace import BUNDLE, NAMESPACE, ROOT, Package, packages


def build(target: Path, chosen: Iterable[Package] | None = None) -> list[Path]:
    """Builds the packages' sdists, and from each its wheel, into an emptied folder; returns the wheels."""
    shutil.rmtree(target, ignore_errors=True)
    for package in packages() if chosen is None else chosen:
        _build(package, target)
    return sorted(target.glob("*.whl"))


def _build(package: Package, target: Path, *options: str) -> None:
    command = [
        sys.executable,
        "-m",
        "uv",
        "build",
        "--quiet",
        *options,
        "--out-dir",
        str(target),
        str(package.folder),
    ]
    subprocess.run(command, check=True)


def problems(target: Path) -> list[str]:
    """What is wrong with the distributions in the folder; empty when they may be published."""
    found: list[str] = []
    owners: dict[str, list[str]] = defaultdict(list)
    for package in packages():
        stem = f"{package.name.replace('-', '_')}-{package.version}"
        with zipfile.ZipFile(target / f"{stem}-py3-none-any.whl") as wheel:
            names = wheel.namelist()
        with tarfile.open(target / f"{stem}.tar.gz") as sdist:
            sources = {name.removeprefix(f"{stem}/") for name in sdist.getnames()}
        for name in names:
            owners[name].append(package.name)
        found += _wheel_problems(package, names, f"{stem}.dist-info") + _sdist_problems(package, sources)
    found += [f"{name} is in several wheels: {', '.join(owner)}" for name, owner in owners.items() if len(owner) > 1]
    return found


def _wheel_problems(package: Package, names: list[str], dist_info: str) -> list[str]:
    modules = {name for name in names if not name.startswith(f"{dist_info}/")}
    expected = {f"{dist_info}/licenses/LICENSE"} | _shipped(package)
    if package.name != BUNDLE:
        expected.add(f"{package.module.replace('.', '/')}/py.typed")
    missing = [f"{package.name}: its wheel lacks {name}" for name in sorted(expected - set(names))]
    extra = [f"{package.name}: its wheel holds {name}, which isn't its own" for name in sorted(modules - expected)]
    return missing + extra


def _sdist_problems(package: Package, sources: set[str]) -> list[str]:
    expected = {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"} | {
        f"src/{name}" for name in _shipped(package)
    }
    return [f"{package.name}: its sdist lacks {name}" for name in sorted(expected - sources)]


def _shipped(package: Package) -> set[str]:
    """The files under src/, as a wheel names them."""
    files = (path for path in package.src.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(package.src)) for path in files}


def differing(target: Path) -> list[str]:
    """The wheels that come out otherwise when they are built from the tree, not through the sdist."""
    with tempfile.TemporaryDirectory() as folder:
        for package in packages():
            _build(package, Path(folder), "--wheel")
        pairs = [(path, target / path.name) for path in sorted(Path(folder).glob("*.whl"))]
        return [
            f"{path.name} differs when built from its sdist"
            for path, built in pairs
            if _content(path) != _content(built)
        ]


def _content(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def main() -> int:
    target = ROOT / "dist"
    for wheel in build(target):
        print(f"built {wheel.relative_to(ROOT)} and its sdist")
    found = problems(target) + differing(target)
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        print(f"No file is in two wheels; each has its licence, and all of {NAMESPACE} is typed.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
