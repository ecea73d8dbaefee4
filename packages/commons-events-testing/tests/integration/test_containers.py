"""Servers in containers: killed, frozen, started again, and gone at the end, even after a killed test run."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commons_events.testing.services import POSTGRES, ServiceError, ServiceStartError, _docker, _docker_ways

WANTING = """
import os, signal
from commons_events.testing.services import POSTGRES
from testcontainers.core.config import testcontainers_config
testcontainers_config.ryuk_disabled = True
print(POSTGRES.start(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _by_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_TEST_POSTGRES", "docker")
    there, why = POSTGRES.survey()["docker"]
    if not there:
        pytest.skip(f"no postgres here (docker: {why})")


def containers() -> dict[str, str]:
    """The state of every container of tests, by its owner."""
    with _docker.engine() as client:
        found: list[Any] = client.client.containers.list(all=True, filters={"label": _docker.OWNER})
        return {container.labels[_docker.OWNER]: container.status for container in found}


def test_a_container_dies_freezes_comes_again_and_goes(tmp_path: Path) -> None:
    with POSTGRES.start(logs=tmp_path) as postgres:
        assert postgres.nodes == (1,)
        assert containers()[_docker.owner()] == "running"
        postgres.pause()
        assert containers()[_docker.owner()] == "paused"
        postgres.resume()
        with pytest.raises(ServiceError, match="runs already, in container"):
            postgres.start()
        postgres.pause()
        postgres.kill()
        assert containers()[_docker.owner()] == "exited"
        for call in (postgres.kill, postgres.terminate, postgres.pause):
            with pytest.raises(ServiceError, match="doesn't run; start it first"):
                call()
        postgres.start_all()
        postgres.terminate()
        postgres.start()
        with pytest.raises(ServiceError, match="its process is the Docker engine's"):
            postgres.pid()
        log = postgres.log
    assert _docker.owner() not in containers()
    postgres.stop()
    # Each start's lines once, in their order.
    assert log is not None
    said = log.read_text()
    assert said.count("was interrupted; last known up at") == 1
    assert said.index("was interrupted") < said.index("database system is shut down")


def test_a_server_that_ends_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    broken = replace(_docker_ways.POSTGRES, command=("-c", "no_such_setting=1"))
    service = replace(POSTGRES, ways=(broken,))
    with pytest.raises(ServiceStartError, match='(?s)ended;.*unrecognized configuration parameter "no_such_setting"'):
        service.start(logs=tmp_path)
    assert _docker.owner() not in containers()


def test_what_a_killed_run_left_goes_at_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", WANTING]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "by docker" in killed.stdout, killed.stderr
    [left] = [owner for owner in containers() if _docker.gone(owner)]
    monkeypatch.setattr(_docker, "_tidied", set())
    with POSTGRES.start():
        assert left not in containers()
        assert _docker.owner() in containers()
