"""Builds the distributions once for all tests here, and makes clean environments and trees for each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.environments import Environment
from tools.wheels import build
from tools.workspace import ROOT

# What a tree needs to install and check itself; the rest (.venv, caches) would only be copied in vain.
TREE = ("pyproject.toml", "hatch.toml", "packages", "tools", "docs")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of every package."""
    target = tmp_path_factory.mktemp("dist")
    build(target)
    return target


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A clean environment."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "uv",
        "venv",
        "--quiet",
        "--python",
        sys.executable,
        tmp_path / "venv",
    ]
    subprocess.run(command, check=True)
    return Environment(tmp_path / "venv")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree that a test may change."""
    target = tmp_path / "tree"
    target.mkdir()
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target / name)
    return target
