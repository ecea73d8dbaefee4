"""Nothing that has to agree with packages/ says otherwise."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from commons_events import plugins
from tools import release, sync
from tools.ci import matrix
from tools.workspace import BUNDLE, PYTHONS, ROOT, Package, packages, siblings, with_modules

WORKFLOWS = ROOT / ".github" / "workflows"

every_package = pytest.mark.parametrize("package", packages(), ids=lambda package: package.name)


def workflow(name: str) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load((WORKFLOWS / name).read_text())
    return loaded


def test_generated_lists_are_up_to_date() -> None:
    assert sync.drifted() == [], "run `python -m tools.sync`"


def test_the_bundle_has_an_extra_for_each_package() -> None:
    bundle = next(package for package in packages() if package.name == BUNDLE)
    assert set(bundle.extras) == {"all", "dev"} | {package.short for package in siblings()}


@every_package
def test_a_package_is_declared_like_its_neighbours(package: Package) -> None:
    assert package.folder.name == package.name
    assert package.project["requires-python"] == f">={PYTHONS[0]}"
    named = [c.rpartition(" ")[2] for c in package.project["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
    assert tuple(named) == PYTHONS
    assert (package.folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert f"# Changelog of {package.name}\n" in (package.folder / "CHANGELOG.md").read_text()
    assert f"## {package.version} (" in (package.folder / "CHANGELOG.md").read_text()


@every_package
def test_what_a_package_asks_of_the_others_the_tree_fulfils(package: Package) -> None:
    versions = {other.name: other.version for other in packages()}
    asked = [*package.dependencies, *(r for extra in package.extras.values() for r in extra)]
    for requirement in map(Requirement, asked):
        if requirement.name in versions:
            assert requirement.specifier.contains(versions[requirement.name]), str(requirement)


@every_package
def test_entry_points_and_scripts_load(package: Package) -> None:
    groups = {**package.project.get("entry-points", {}), "scripts": package.project.get("scripts", {})}
    for group, entries in groups.items():
        for name, value in entries.items():
            importlib.metadata.EntryPoint(name, value, group).load()


@every_package
def test_the_hint_for_a_missing_plugin_names_its_package(package: Package) -> None:
    hinted = (plugins.TRANSPORTS, plugins.SERIALIZERS, plugins.PRODUCERS, plugins.CONSUMERS)
    for group in hinted:
        for name in package.project.get("entry-points", {}).get(group, {}):
            assert f'pip install "{package.name}' in plugins.install_hint(group, name), (group, name)


def test_the_matrix_has_every_package_python_and_age() -> None:
    cells = {(cell["package"], cell["python"], cell["deps"]) for cell in matrix.tests()}
    expected = {(p.short, python, deps) for p in with_modules() for python in PYTHONS for deps in ("oldest", "latest")}
    assert cells == expected
    assert {cell["package"] for cell in matrix.brokers()} == {p.short for p in packages() if p.services}


def test_the_workflow_runs_the_generated_matrix() -> None:
    jobs = workflow("ci.yml")["jobs"]
    for job in ("tests", "brokers"):
        assert jobs["matrix"]["outputs"][job] == f"${{{{ steps.matrix.outputs.{job} }}}}"
        assert jobs[job]["strategy"]["matrix"] == {"include": f"${{{{ fromJSON(needs.matrix.outputs.{job}) }}}}"}
    assert jobs["matrix"]["steps"][-1]["run"] == 'python -m tools.ci.matrix >> "$GITHUB_OUTPUT"'


def test_the_gate_waits_for_every_job() -> None:
    jobs = workflow("ci.yml")["jobs"]
    assert set(jobs["all-green"]["needs"]) == set(jobs) - {"all-green"}
    assert jobs["all-green"]["if"] == "always()"


def test_workflows_call_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {
        step["run"].split()[1]
        for job in workflow("ci.yml")["jobs"].values()
        for step in job["steps"]
        if step.get("run", "").startswith("make ")
    }
    assert {"demo", "test", "lint", "types", "wheels", "docs"} <= called <= targets


def test_only_publishing_has_the_identity_that_the_index_trusts() -> None:
    jobs = workflow("release.yml")["jobs"]
    assert workflow("release.yml")["permissions"] == {"contents": "read"}
    assert {name for name, job in jobs.items() if "permissions" in job} == {"publish"}
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"] == "release"
    assert jobs["publish"]["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")


@pytest.fixture
def dated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """The only package of a tree, ready for its release."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "commons-events-x"\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (2027-01-31)\n")
    package = Package(tmp_path)
    monkeypatch.setattr(release, "packages", lambda: [package])
    return package


@pytest.mark.parametrize("tag", ["commons-events-x-v1.2.3", "all-v1.2.3"])
def test_a_tag_names_what_it_releases(dated: Package, tag: str) -> None:
    assert release.released(tag) == [dated]


@pytest.mark.parametrize(
    ("tag", "complaint"),
    [
        ("v1.2.3", "is not a release's tag"),
        ("commons-events-y-v1.2.3", "names no package"),
        ("commons-events-x-v1.2.4", "whose pyproject.toml says 1.2.3"),
    ],
)
@pytest.mark.usefixtures("dated")
def test_a_tag_that_does_not_fit_is_refused(tag: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        release.released(tag)


def test_a_release_without_a_dated_changelog_is_refused(dated: Package) -> None:
    (dated.folder / "CHANGELOG.md").write_text("## 1.2.3 (unreleased)\n")
    with pytest.raises(ValueError, match="no heading"):
        release.released("commons-events-x-v1.2.3")
