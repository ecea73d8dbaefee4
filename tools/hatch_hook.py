"""Makes the root an editable install of the whole workspace: `pip install -e ".[dev]"` with plain pip.

Two hatchling hooks: one generates the dependencies, extras, scripts and entry points of all packages, the
other puts every packages/*/src on the path. Relative `file:` dependencies would do neither: pip doesn't make
them editable.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

# hatchling loads this file by its path, so that `tools` isn't importable by itself.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import workspace


class WorkspaceMetadata(MetadataHookInterface):
    """Generates the root project's dynamic fields from packages/*/pyproject.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        core = workspace.package_named(workspace.CORE, root)
        metadata["dependencies"] = workspace.third_party(core.dependencies, root)
        metadata["optional-dependencies"] = self._extras(root)
        metadata["scripts"] = {
            name: target
            for package in workspace.packages(root)
            for name, target in package.project.get("scripts", {}).items()
        }
        groups: dict[str, dict[str, str]] = defaultdict(dict)
        for package in workspace.packages(root):
            for group, entries in package.project.get("entry-points", {}).items():
                groups[group].update(entries)
        metadata["entry-points"] = dict(groups)

    def _extras(self, root: Path) -> dict[str, list[str]]:
        """One extra for each sibling with all that it can use, `all`, and `dev` with the tools."""
        extras = {package.short: _all_requirements(package, root) for package in workspace.siblings(root)}
        core = _all_requirements(workspace.package_named(workspace.CORE, root), root)
        testing = _all_requirements(workspace.package_named(workspace.TESTING, root), root)
        every = sorted({*core, *(requirement for extra in extras.values() for requirement in extra)})
        return {
            **extras,
            "all": every,
            "dev": sorted({*workspace.dependency_group("dev", root), *core, *testing}),
        }


class WorkspaceBuild(BuildHookInterface[Any]):
    """Puts every packages/*/src on the path of the environment that installs the root."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            raise RuntimeError(
                "The workspace itself is never published: install it with `pip install -e .`, "
                "or build a package of its own with `make wheels`."
            )
        paths = [package.src for package in workspace.with_modules(Path(self.root))]
        pth = Path(tempfile.mkdtemp()) / "commons-events-workspace.pth"
        pth.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
        build_data["force_include_editable"][str(pth)] = pth.name


def _all_requirements(package: workspace.Package, root: Path) -> list[str]:
    extras = [requirement for extra in package.extras.values() for requirement in extra]
    return workspace.third_party([*package.dependencies, *extras], root)
