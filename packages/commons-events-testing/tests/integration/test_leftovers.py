"""A test process that is killed leaves no server behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from commons_events.testing.services import SERVICES, Place

WANTING = """
import sys, time
from pathlib import Path
from commons_events.testing.services import shared
running = shared.get(sys.argv[1])
print(running.pid(), running.log.parent, flush=True)
time.sleep(600)
"""


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes that name the folder."""
    shown = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True).stdout
    return [line for line in shown.splitlines() if str(folder) in line]


@pytest.mark.parametrize("name", ["kafka", "postgres", "rabbitmq"])
def test_a_real_server_ends_with_its_killed_test_process(name: str) -> None:
    there, why = SERVICES[name].survey()["local"]
    if not there:
        pytest.skip(f"no {name} here (local: {why})")
    command = [sys.executable, "-c", WANTING, name]
    environment = {"COMMONS_EVENTS_TEST_" + name.upper(): "local"}
    with subprocess.Popen(
        ["env", *(f"{variable}={value}" for variable, value in environment.items()), *command],
        stdout=subprocess.PIPE,
        text=True,
    ) as wanting:
        assert wanting.stdout is not None
        pid, _, folder = wanting.stdout.readline().strip().partition(" ")
        assert processes_of(Path(folder)) != []
        wanting.kill()
    deadline = time.monotonic() + 60
    while (processes_of(Path(folder)) or Path(folder).exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(Path(folder)) == []
    assert not Path(folder).exists()
    assert not Path(f"/proc/{pid}").exists()


KILLED = """
import os, signal, sys, tempfile
from commons_events.testing.services import Place
tempfile.tempdir = sys.argv[1]
with Place.make("x"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_of_a_process_killed_before_its_server_goes_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    [left] = tmp_path.iterdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Place.make("x") as place, Place.make("y") as other:
        assert not left.exists()
        assert set(tmp_path.iterdir()) == {place.folder, other.folder}
