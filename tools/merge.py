"""Links all packages into one tree, .build/merged/, as an installation has them.

Pyright, import-linter and the docs don't follow a namespace that several editable packages share; they read
this tree.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.workspace import NAMESPACE, ROOT, with_modules

MERGED = ROOT / ".build" / "merged"


def merge(target: Path = MERGED) -> Path:
    """Makes the tree anew (real folders, linked files) and returns its path."""
    shutil.rmtree(target, ignore_errors=True)
    for package in with_modules():
        for path in sorted(package.src.glob(f"{NAMESPACE}/**/*")):
            if path.is_file() and "__pycache__" not in path.parts:
                link = target / path.relative_to(package.src)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
    return target


if __name__ == "__main__":
    print(merge())
