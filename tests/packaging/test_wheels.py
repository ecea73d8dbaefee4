"""The distributions: what is in them, and that the bundle brings the others."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from tests.packaging.environments import Environment
from tools.wheels import differing, problems
from tools.workspace import BUNDLE, CORE, TESTING, package_named, siblings

pytestmark = pytest.mark.slow


def test_wheels_and_sdists_hold_what_is_theirs_and_nothing_overlaps(wheels: Path) -> None:
    assert problems(wheels) == []


def test_a_wheel_is_the_same_from_the_tree_and_from_its_sdist(wheels: Path) -> None:
    assert differing(wheels) == []


def test_a_file_in_two_wheels_is_found(wheels: Path, tmp_path: Path) -> None:
    doctored = shutil.copytree(wheels, tmp_path / "dist")
    wheel = next(doctored.glob(f"{TESTING.replace('-', '_')}-*.whl"))
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("commons_events/errors.py", "")
    assert problems(doctored) == [
        f"{TESTING}: its wheel holds commons_events/errors.py, which isn't its own",
        f"commons_events/errors.py is in several wheels: {CORE}, {TESTING}",
    ]


def test_the_bundle_brings_core_alone(wheels: Path, environment: Environment) -> None:
    environment.uv("install", "--find-links", wheels, BUNDLE)
    assert environment.distributions() == {BUNDLE, CORE}
    assert environment.run("-c", "import commons_events; print(commons_events.__name__)").strip() == "commons_events"


@pytest.mark.parametrize("extra", ["all", *(package.short for package in siblings())])
def test_an_extra_of_the_bundle_brings_its_packages(extra: str, wheels: Path, environment: Environment) -> None:
    brought = siblings() if extra == "all" else [package_named(extra)]
    environment.uv("install", "--find-links", wheels, f"{BUNDLE}[{extra}]")
    assert environment.distributions() == {BUNDLE, CORE, *(package.name for package in brought)}
