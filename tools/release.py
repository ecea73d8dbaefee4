"""Builds what a release's tag names: `commons-events-core-v0.1.0`, or `all-v0.1.0` for all at that version.

Refuses a tag whose version isn't the one in pyproject.toml, or that the package's changelog doesn't date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tools.wheels import build
from tools.workspace import ROOT, Package, packages

TAG = re.compile(r"(?P<name>[a-z-]+)-v(?P<version>\d+\.\d+\.\d+)")


def released(tag: str) -> list[Package]:
    """The packages that the tag releases; a ValueError says what doesn't fit."""
    match = TAG.fullmatch(tag)
    if match is None:
        raise ValueError(f"{tag!r} is not a release's tag such as commons-events-core-v0.1.0 or all-v0.1.0")
    chosen = [package for package in packages() if match["name"] in ("all", package.name)]
    if not chosen:
        raise ValueError(f"{tag!r} names no package under packages/")
    for package in chosen:
        if package.version != match["version"]:
            raise ValueError(f"{tag!r} doesn't fit {package.name}, whose pyproject.toml says {package.version}")
        changelog = (package.folder / "CHANGELOG.md").read_text(encoding="utf-8")
        if re.search(rf"^## {re.escape(package.version)} \(\d{{4}}-\d\d-\d\d\)$", changelog, re.MULTILINE) is None:
            raise ValueError(f"{package.name}: CHANGELOG.md has no heading `## {package.version} (YYYY-MM-DD)`")
    return chosen


def main(arguments: list[str]) -> int:
    try:
        chosen = released(*arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for wheel in build(ROOT / "dist", chosen):
        print(f"built {Path(wheel).name} and its sdist")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
