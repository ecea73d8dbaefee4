"""The product page's blocks run as printed, with the imports that a block leaves out."""

from __future__ import annotations

import runpy
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from commons_events.memory import MemoryBroker

HERE = Path(__file__).parent


def run(block: str) -> str:
    program = (
        "import runpy, sys; from datetime import timedelta;"
        "runpy.run_path(sys.argv[1], {'timedelta': timedelta}, '__main__')"
    )
    command = [sys.executable, "-W", "error", "-X", "utf8", "-c", program, str(HERE / block)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True, timeout=300).stdout


def test_the_quick_start_runs() -> None:
    assert run("quick_start.py") == "Sent event: user.registered\n"


def test_the_quick_start_runs_twice_in_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    MemoryBroker.reset_all()
    for _ in range(2):
        runpy.run_path(str(HERE / "quick_start.py"), {"timedelta": timedelta}, "__main__")
    assert capsys.readouterr().out == "Sent event: user.registered\n" * 2
    assert [info.topic for info in MemoryBroker.get().topics()] == ["user-events"]
    MemoryBroker.reset_all()


def test_the_event_modeling_block_runs() -> None:
    printed = run("event_modeling.py")
    assert "Role: UserRole.USER" in printed or "Role: user" in printed
    assert "Invalid email caught: Invalid email format" in printed
    assert "Invalid username caught: Username too short" in printed
    assert "Additional metadata: 5 fields" in printed
    assert "✓ Avro round-trip serialization successful" in printed
    assert "⚠" not in printed
    assert "Migrated v1 → v2" in printed
