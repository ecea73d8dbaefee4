"""docs/protobuf.md says what the code does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("google.protobuf", reason="the extra [protobuf] is not installed")

from tools.protobuf_table import TABLE


def test_its_example_runs_as_printed(tmp_path: Path) -> None:
    code = TABLE.page.read_text("utf-8").split("```python\n")[1].split("```")[0]
    (tmp_path / "shop.py").write_text(code, "utf-8")
    command = [sys.executable, "-c", "from commons_events.cli import main; main()", "schema", "lock", "shop"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "wrote events.lock.json\n"), done.stderr
    shown = TABLE.page.read_text("utf-8").split("```json\n")[1].split("```")[0]
    assert (tmp_path / "events.lock.json").read_text("utf-8") == shown
