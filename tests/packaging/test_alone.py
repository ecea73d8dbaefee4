"""Each package alone, as its users install it: with core and its own dependencies, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.environments import Environment
from tools.alone import beside, install
from tools.workspace import CORE, ROOT, Package, package_named, siblings, with_modules

pytestmark = pytest.mark.slow


def imports(environment: Environment, package: Package) -> None:
    """Asserts that the package imports from its installed wheel."""
    code = f"import {package.module} as m; print(m.__file__)"
    assert "site-packages" in environment.run("-c", code)


@pytest.mark.parametrize("package", with_modules(), ids=lambda package: package.short)
def test_a_package_imports_with_its_own_dependencies_alone(
    package: Package, wheels: Path, environment: Environment
) -> None:
    environment.uv("install", "--find-links", wheels, package.name)
    assert environment.distributions() == {CORE, package.name}
    imports(environment, package)


@pytest.mark.parametrize("package", with_modules(), ids=lambda package: package.short)
def test_a_package_passes_its_own_tests(package: Package, wheels: Path, environment: Environment) -> None:
    """All of them, but for those that search for values or have real servers: they take minutes.

    They run on the tree, and alone in continuous integration; here their modules are imported.
    """
    install(environment.python, beside(package), wheels)
    tests = f"packages/{package.name}/tests" + ("/unit" if package.services else "")
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not hypothesis", tests]
    assert " passed" in environment.run(*arguments, cwd=ROOT).splitlines()[-1]


@pytest.mark.parametrize("removed", siblings(), ids=lambda package: package.short)
def test_taking_a_package_out_leaves_the_others_working(
    removed: Package, wheels: Path, environment: Environment
) -> None:
    install(environment.python, with_modules(), wheels)
    for package in with_modules():
        imports(environment, package)
    environment.uv("uninstall", removed.name)
    for package in with_modules():
        if package != removed:
            imports(environment, package)
    missing = f"import importlib.util; print(importlib.util.find_spec({removed.module!r}))"
    assert environment.run("-c", missing).strip() == "None"


def test_core_brings_no_other_package() -> None:
    assert not [r for r in package_named(CORE).dependencies if r.startswith("commons-events")]
