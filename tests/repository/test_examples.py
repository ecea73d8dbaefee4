"""The examples in the documents run as they are printed, and print what they say they do: ``# → what is printed``."""

from __future__ import annotations

import re
import shlex
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

PAGES_WITH_COMMANDS = [
    path
    for path in sorted((ROOT / "docs").glob("**/*.md"))
    if "```console\n$ commons-events " in path.read_text("utf-8")
]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2
    assert PAGES_WITH_COMMANDS


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: str, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(example, "utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", program], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    for text in re.findall(r"# → (.*)$", example, re.MULTILINE):
        assert text in run.stdout


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_a_command_prints_what_is_printed(page: Path, tmp_path: Path) -> None:
    """The files are the page's own, by their titles."""
    text = page.read_text("utf-8")
    for name, content in re.findall(r'^```\w+ title="([\w.-]+)"\n(.*?)^```', text, re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(content, "utf-8")
    commands = re.findall(r"^```console\n\$ commons-events (.*?)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for arguments, printed in commands:
        program = [sys.executable, "-c", "from commons_events.cli import main; main()", *shlex.split(arguments)]
        run = subprocess.run(program, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
        assert run.stdout == printed, run.stderr
