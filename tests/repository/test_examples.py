"""The examples in the documents run as they are printed, and print what they say: ``print(…)  # what is printed``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.workspace import ROOT

EXAMPLES = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    )
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: str, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(example, "utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr
    printed = re.findall(r"^ *print\(.*\)  # (.+)$", example, re.MULTILINE) or ["john@example.com"]
    assert [text for text in printed if text not in run.stdout] == []
