"""What this monorepo consists of, read from the one list that exists: the folders under packages/.

Everything that has to know the packages (the bundle's extras, the CI matrix, the editable install of the
whole workspace, the wheels' check, the docs) asks here, so that a new package is taken up by its folder
being there.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "commons_events"
BUNDLE = "commons-events"
CORE = "commons-events-core"
TESTING = "commons-events-testing"
PYTHONS = ("3.11", "3.12", "3.13")


@dataclass(frozen=True)
class Package:
    """One distribution: a folder under packages/ with a pyproject.toml."""

    folder: Path

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text(encoding="utf-8"))

    @property
    def project(self) -> dict[str, Any]:
        project: dict[str, Any] = self.pyproject["project"]
        return project

    @property
    def name(self) -> str:
        return str(self.project["name"])

    @property
    def short(self) -> str:
        """The name in extras and matrices: `kafka` for `commons-events-kafka`."""
        return self.name.removeprefix(f"{BUNDLE}-")

    @property
    def version(self) -> str:
        return str(self.project["version"])

    @property
    def compatible(self) -> str:
        """A requirement that takes any release compatible with the one in the tree: `name~=0.1.0`."""
        major, minor = self.version.split(".")[:2]
        return f"{self.name}~={major}.{minor}.0"

    @property
    def src(self) -> Path:
        return self.folder / "src"

    @property
    def is_sibling(self) -> bool:
        """Whether this package stands on core: neither core itself nor the bundle."""
        return self.name not in (BUNDLE, CORE)

    @property
    def module(self) -> str:
        """What the package ships: `commons_events.schemas` for `commons-events-registry`."""
        included: list[str] = self.pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
        return included[0].removeprefix("src/").replace("/", ".")

    @property
    def dependencies(self) -> list[str]:
        return list(self.project.get("dependencies", []))

    @property
    def extras(self) -> dict[str, list[str]]:
        return dict(self.project.get("optional-dependencies", {}))

    @property
    def services(self) -> dict[str, dict[str, list[str]]]:
        """The servers that the package's tests use, and what installs each."""
        return dict(self.pyproject.get("tool", {}).get(BUNDLE, {}).get("services", {}))


def packages(root: Path = ROOT) -> list[Package]:
    """Every package of the tree, the bundle and core included, by name."""
    found = [Package(path.parent) for path in (root / "packages").glob("*/pyproject.toml")]
    return sorted(found, key=lambda package: package.name)


def with_modules(root: Path = ROOT) -> list[Package]:
    """Every package that ships modules: all but the bundle, core first."""
    return sorted((p for p in packages(root) if p.name != BUNDLE), key=lambda p: (p.is_sibling, p.name))


def siblings(root: Path = ROOT) -> list[Package]:
    """Every package that stands on core."""
    return [package for package in packages(root) if package.is_sibling]


def package_named(name: str, root: Path = ROOT) -> Package:
    """The package of that full or short name; a LookupError names the ones there are."""
    for package in packages(root):
        if name in (package.name, package.short):
            return package
    raise LookupError(f"no package {name!r} under packages/; there are: {', '.join(p.name for p in packages(root))}")


def requirement_name(requirement: str) -> str:
    """The normalized distribution name that a requirement starts with."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    if match is None:
        raise ValueError(f"not a requirement: {requirement!r}")
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def third_party(requirements: list[str], root: Path = ROOT) -> list[str]:
    """The requirements that no package of this tree satisfies, sorted and without repetition."""
    ours = {package.name for package in packages(root)}
    return sorted({requirement for requirement in requirements if requirement_name(requirement) not in ours})


def dependency_group(name: str, root: Path = ROOT) -> list[str]:
    """The requirements of one of the root's [dependency-groups], its included groups resolved."""
    groups = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    found: list[str] = []
    for entry in groups[name]:
        found += [entry] if isinstance(entry, str) else dependency_group(entry["include-group"], root)
    return found
