"""Which engine is taken, and how soon it is known that none answers or that it can't have an image."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from commons_events.testing.services import SERVICES, ServiceUnavailableError, _docker, free_port

pytest.importorskip("testcontainers", reason='needs pip install "commons-events-testing[containers]"')


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is remembered of engines and registries, and no context of this machine's is the current one."""
    monkeypatch.setattr(_docker, "_silent", {})
    monkeypatch.setattr(_docker, "_unreached", {})
    monkeypatch.setattr(_docker, "_ANSWER", 60)  # the engine of a test is in this busy process
    monkeypatch.setattr(_docker, "_REGISTRY_ANSWER", 60)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for variable in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(variable, raising=False)
    for service in SERVICES:
        monkeypatch.setenv(f"COMMONS_EVENTS_TEST_{service.upper()}", "docker")
        monkeypatch.delenv(f"COMMONS_EVENTS_TEST_{service.upper()}_IMAGE", raising=False)


def why_not(service: str = "kafka") -> str:
    there, reason = SERVICES[service].survey()["docker"]
    assert not there
    with pytest.raises(ServiceUnavailableError, match="docker: "):
        SERVICES[service].start()
    return reason


@contextmanager
def engine(answer: Callable[[str], tuple[int, Any] | None]) -> Iterator[str]:
    """Something that answers as an engine: status and JSON by path, or nothing at all until the end."""
    over = threading.Event()
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            given = (200, {"ApiVersion": "1.41", "Version": "0"}) if path.endswith("/version") else answer(path)
            if given is None:
                over.wait(60)
                return
            content = json.dumps(given[1]).encode()
            self.send_response(given[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_address[1]}"
        finally:
            over.set()
            server.shutdown()
            serving.join()


def test_no_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert why_not().startswith(f"no Docker engine answers at unix://{tmp_path}/none.sock: ")
    assert "No such file" in why_not("postgres")


def test_no_engine_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(_docker, "_USUAL", f"unix://{tmp_path}/none.sock")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # what other tests have left open
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert f"at unix://{tmp_path}/none.sock" in why_not()
        gc.collect()
    assert [warning.message for warning in caught if warning.category is ResourceWarning] == []


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{free_port()}")
    assert "no Docker engine answers at tcp://127.0.0.1:" in why_not()


def test_a_listener_that_says_nothing_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_docker, "_ANSWER", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        for service in SERVICES:
            assert "no Docker engine answers at tcp://127.0.0.1:" in why_not(service)
        silent.settimeout(60)
        silent.accept()[0].close()
        silent.settimeout(0.1)
        with pytest.raises(TimeoutError):
            silent.accept()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((500, {"message": "no such host"}), "and can't reach its registry: no such host"),
        ((404, {"message": "manifest unknown"}), "and its registry refuses it: manifest unknown"),
        ((401, {"message": "sign in first"}), "and its registry refuses it: sign in first"),
        (None, "and its registry gave no answer within 0.3 s"),
    ],
)
def test_an_image_that_can_t_be_had(
    answer: tuple[int, Any] | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(path: str) -> tuple[int, Any] | None:
        return answer if "/distribution/" in path else (404, {"message": "No such image"})

    if answer is None:
        monkeypatch.setattr(_docker, "_REGISTRY_ANSWER", 0.3)
    monkeypatch.setenv("COMMONS_EVENTS_TEST_POSTGRES_IMAGE", "mine/postgres:1")
    with engine(answers) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        assert why_not("postgres").startswith(f"the engine has no image mine/postgres:1, {reason}")


def test_a_registry_that_can_t_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answers(path: str) -> tuple[int, Any]:
        if "/distribution/" not in path:
            return 404, {"message": "No such image"}
        asked.append(path)
        return 500, {"message": "no such host"}

    with engine(answers) as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        for service in ("kafka", "postgres", "rabbitmq"):
            assert "can't reach its registry: no such host" in why_not(service)
        assert len(asked) == 1
        # Another registry is another matter.
        monkeypatch.setenv("COMMONS_EVENTS_TEST_KAFKA_IMAGE", "registry.test:5000/kafka")
        why_not()
        assert len(asked) == 2


def test_an_image_that_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def has(path: str) -> tuple[int, Any]:
        return 200, {"Id": "sha256:0"}

    def could_have(path: str) -> tuple[int, Any]:
        return (200, {"Descriptor": {}}) if "/distribution/" in path else (404, {"message": "No such image"})

    for answers in (has, could_have):
        with engine(answers) as host:
            monkeypatch.setenv("DOCKER_HOST", host)
            assert SERVICES["postgres"].survey()["docker"] == (True, "postgres:17 on Docker 0")


def test_only_what_belongs_to_an_ended_process_is_removed() -> None:
    assert not _docker.gone(_docker.owner())
    ended = subprocess.run(
        [sys.executable, "-c", "from commons_events.testing.services import _docker; print(_docker.owner())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert _docker.gone(ended)
    assert not _docker.gone(ended.replace(socket.gethostname(), "another-machine"))
    assert not _docker.gone("")
    if Path("/proc/self/stat").exists():
        # Another process has got its id since.
        assert _docker.gone(f"{socket.gethostname()}/{os.getpid()}/1")
