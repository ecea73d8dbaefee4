"""What the documents tell people to type is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tools.workspace import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
DOCUMENTS = [path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if path.name != "CHANGELOG.md"]


def targets() -> set[str]:
    """The targets that the Makefile declares as names to type."""
    declared = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert declared is not None
    return set(declared[1].split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_targets_that_a_document_names_exist(document: Path) -> None:
    named = re.findall(r"(?:^|`)make ([a-z -]+)", document.read_text(), re.MULTILINE)
    assert {target for words in named for target in words.split()} <= targets()


def test_every_target_is_in_the_help() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make ([a-z-]+) ", shown, re.MULTILINE)) == targets()
