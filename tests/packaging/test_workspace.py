"""The root as one editable install with plain pip, and how a new package is taken up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.environments import Environment
from tools.workspace import packages, with_modules

ENTRY_POINTS = """
import importlib.metadata, json
points = importlib.metadata.distribution("commons-events-workspace").entry_points
print(json.dumps(sorted([point.group, point.name, point.value] for point in points)))
"""

NEW_PACKAGE = """
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "commons-events-carrier"
version = "0.3.1"
description = "Events by carrier pigeon"
dependencies = ["commons-events-core~=0.1.0", "packaging>=24"]

[project.optional-dependencies]
loft = ["iniconfig>=2"]

[project.entry-points."commons_events.transports"]
pigeon = "commons_events.carrier:PigeonTransport"

[tool.commons-events.services.pigeon]
apt = ["pigeon-server"]

[tool.hatch.build.targets.wheel]
only-include = ["src/commons_events/carrier"]
sources = ["src"]
"""


@pytest.fixture
def tree_with_new_package(tree: Path) -> Path:
    folder = tree / "packages" / "commons-events-carrier"
    module = folder / "src" / "commons_events" / "carrier"
    module.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(NEW_PACKAGE)
    (module / "__init__.py").write_text("class PigeonTransport: ...\n")
    (module / "py.typed").touch()
    return tree


def declared(root: Path) -> list[list[str]]:
    """The entry points and scripts of all packages, as an installation lists them."""
    found = []
    for package in packages(root):
        groups = {
            **package.project.get("entry-points", {}),
            "console_scripts": package.project.get("scripts", {}),
        }
        found += [[group, name, value] for group, entries in groups.items() for name, value in entries.items()]
    return sorted(found)


@pytest.mark.slow
def test_the_root_installs_editable_with_plain_pip(tree_with_new_package: Path, tmp_path: Path) -> None:
    tree = tree_with_new_package
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    environment = Environment(tmp_path / "venv")
    # Without `dev`, whose tools would take most of the time. A package that isn't there yet is no error.
    extras = {"kafka", "rabbitmq", "pubsub", "streaming"} | {package.short for package in with_modules(tree)}
    environment.run("-m", "pip", "install", "-q", "-e", f"{tree}[{','.join(sorted(extras - {'core'}))}]")
    assert json.loads(environment.run("-c", ENTRY_POINTS)) == declared(tree)
    for package in with_modules(tree):
        path = environment.run("-c", f"import {package.module} as m; print(m.__file__)").strip()
        assert Path(path) == package.src.joinpath(*package.module.split("."), "__init__.py")
    environment.run("-c", "import iniconfig")  # a package's extra comes along

    edited = tree / "packages/commons-events-core/src/commons_events/just_written.py"
    edited.write_text("SEEN = 'without a reinstall'\n")
    code = "from commons_events.just_written import SEEN; print(SEEN)"
    assert environment.run("-c", code).strip() == "without a reinstall"


def tool(tree: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tools.{name}", *arguments]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


def test_a_new_package_is_taken_up_by_its_folder(tree_with_new_package: Path) -> None:
    tree = tree_with_new_package
    drift = tool(tree, "sync", "--check")
    assert drift.returncode == 1
    assert "packages/commons-events/pyproject.toml differs" in drift.stdout
    assert tool(tree, "sync").returncode == 0
    assert tool(tree, "sync", "--check").returncode == 0

    bundle = next(package for package in packages(tree) if package.name == "commons-events")
    assert bundle.extras["carrier"] == ["commons-events-carrier~=0.3.0"]
    assert "commons-events-carrier~=0.3.0" in bundle.extras["all"]
    assert '"carrier"' in (tree / "hatch.toml").read_text()
    assert '"carrier | ' in (tree / "pyproject.toml").read_text()
    assert "`commons_events.carrier`" in (tree / "docs" / "packages.md").read_text()

    matrix = tool(tree, "ci.matrix").stdout.splitlines()
    assert '{"package": "carrier", "python": "3.12", "deps": "oldest"}' in matrix[0]
    assert '{"package": "carrier", "service": "pigeon"}' in matrix[1]
