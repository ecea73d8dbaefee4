"""``commons-events run``: a router in a process of its own, stopped by a signal, with health."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

LIMIT = 60.0
"""Seconds after which what a process has to do counts as never done."""

MODULE = """
import asyncio
from contextlib import asynccontextmanager
from commons_events import Event, EventProducer
from commons_events.router import EventRouter

class Ping(Event):
    n: int = 0

@asynccontextmanager
async def lifespan():
    async with EventProducer(broker="memory") as producer:
        await producer.send("pings", Ping(n=1))
    print("began", flush=True)
    yield
    print("ended", flush=True)

router = EventRouter(lifespan=lifespan)
empty = EventRouter()
other = 1

@router.subscribe("pings", group="g")
async def on_ping(event: Ping) -> None:
    print("handling", flush=True)
    await asyncio.sleep(0.2)
    print("handled", flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(MODULE, "utf-8")
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "commons_events.cli", "run", *arguments]


@contextmanager
def started(line: list[str], folder: Path, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """The process of a command, which is gone after the block, also where the test fails."""
    with subprocess.Popen(line, cwd=folder, stdout=subprocess.PIPE, text=True, **settings) as process:
        try:
            yield process
        finally:
            process.kill()


def health(port: int, process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    deadline = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=LIMIT) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"no answer; the process's status is {process.poll()}")


def test_a_router_runs_until_sigterm_and_lets_its_handler_finish(folder: Path, port: int) -> None:
    line = command("shop:router", "--health-port", str(port))
    with started(line, folder, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        assert process.stdout.readline() == "handling\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=LIMIT)
    assert (out, err, process.returncode) == ("handled\nended\n", "", 0)


def test_health_tells_of_the_subscriptions(folder: Path, port: int) -> None:
    line = command("shop:router", "--health-port", str(port))
    with started(line, folder) as process:
        code, body = health(port, process)
        process.terminate()
        process.communicate(timeout=LIMIT)
    assert code == 200
    assert body["state"] == "running"
    assert [each["topic"] for each in body["subscriptions"]] == ["pings"]


def test_several_workers_are_kept_and_stopped_together(folder: Path, port: int) -> None:
    line = command("shop:router", "--workers", "2", "--health-port", str(port))
    with started(line, folder) as process:
        assert process.stdout is not None
        began = 0
        while began < 2:
            began += process.stdout.readline() == "began\n"
        assert health(port, process) == (200, {"workers": 2, "alive": 2})
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert out.count("ended\n") == 2


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("shop", "MODULE:ROUTER"),
        ("nowhere:router", "No module named 'nowhere'"),
        ("shop:routr", "Its routers: empty, router"),
        ("shop:other", "is a int, not an EventRouter"),
        ("shop:empty", "no handlers"),
    ],
)
def test_what_cannot_be_run_is_said(folder: Path, name: str, complaint: str) -> None:
    done = subprocess.run(command(name), cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
