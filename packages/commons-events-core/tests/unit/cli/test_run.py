"""``commons-events run``: a router in a process of its own, stopped by a signal, with health."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from commons_events.testing.services import free_port

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
    return free_port()  # none of those that the system gives to other tests' clients meanwhile


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "commons_events.cli", "run", *arguments]


def health(port: int) -> tuple[int, dict[str, Any]]:
    for _ in range(1200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            time.sleep(0.05)
    raise AssertionError("no answer")


@contextmanager
def started(line: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is gone after the block, whatever happens in it."""
    options = {"text": True, **options}
    with subprocess.Popen(line, **options) as process:
        try:
            yield process
        finally:
            while process.poll() is None:  # only where something went wrong
                process.terminate()  # again and again: workers end with the one that started them
                time.sleep(0.5)


def until(condition: Callable[[], object], every: float = 0.05, most: float = 60.0) -> None:
    deadline = time.monotonic() + most
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(every)


def test_a_router_runs_until_sigterm_and_lets_its_handler_finish(folder: Path, port: int) -> None:
    line = command("shop:router", "--health-port", str(port))
    with started(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        assert process.stdout.readline() == "handling\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("handled\nended\n", 0)
    assert re.search(r"\[info *\] subscribed .*topic=pings", err)


def test_what_is_told_can_be_chosen(folder: Path) -> None:
    line = command("shop:router", "--log-level", "warning")
    with started(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert err == ""


def test_a_module_that_configures_logging_decides_what_is_told(folder: Path) -> None:
    own = "import logging, sys\nlogging.basicConfig(stream=sys.stderr, level='INFO', format='mine %(message)s')\n"
    (folder / "shop.py").write_text(own + MODULE, "utf-8")
    with started(command("shop:router"), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert "mine subscribed" in err.splitlines()


def test_health_tells_of_the_subscriptions(folder: Path, port: int) -> None:
    line = command("shop:router", "--health-port", str(port))
    with started(line, cwd=folder, stdout=subprocess.DEVNULL) as process:
        until(lambda: health(port)[0] == 200)  # it answers before it has begun
        code, body = health(port)
        process.terminate()
        process.wait(60)
    assert code == 200
    assert body["state"] == "running"
    assert [each["topic"] for each in body["subscriptions"]] == ["pings"]


def test_several_workers_are_kept_and_stopped_together(folder: Path, port: int) -> None:
    line = command("shop:router", "--workers", "2", "--health-port", str(port))
    with started(line, cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        began = 0
        while began < 2:
            began += process.stdout.readline() == "began\n"
        assert health(port) == (200, {"workers": 2, "alive": 2})
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.count("ended\n") == 2


STUBBORN = """
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
    yield

router = EventRouter(lifespan=lifespan)

@router.subscribe("pings", group="g")
async def on_ping(event: Ping) -> None:
    print("handling", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cut off", flush=True)
"""


def test_a_second_signal_cuts_off_a_handler_that_does_not_end(folder: Path, port: int) -> None:
    (folder / "stubborn.py").write_text(STUBBORN, "utf-8")
    line = command("stubborn:router", "--grace", "600", "--health-port", str(port))
    with started(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "handling\n"
        process.send_signal(signal.SIGTERM)
        until(lambda: health(port)[1]["state"] == "stopping")
        assert process.poll() is None, "the first signal lets handlers end"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("cut off\n", 0)
    assert "handlers are cut off; their messages come again" in err


def test_a_second_signal_reaches_the_workers(folder: Path, port: int) -> None:
    (folder / "stubborn.py").write_text(STUBBORN, "utf-8")
    line = command("stubborn:router", "--grace", "600", "--workers", "2", "--health-port", str(port))
    with started(line, cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == ["handling\n"] * 2
        process.send_signal(signal.SIGINT)
        until(lambda: health(port)[0] == 503)
        # A worker that has not heard of the first one yet takes it for that, so it is said until all have ended.
        until(lambda: process.poll() is not None or process.send_signal(signal.SIGTERM), every=1.0)
        out, _ = process.communicate(timeout=60)
    assert out == "cut off\n" * 2
    assert process.returncode in (0, -signal.SIGTERM), "the last one may have come when all was over"


DYING = """
import os
from contextlib import asynccontextmanager
from pathlib import Path
from commons_events import Event
from commons_events.router import EventRouter

class Ping(Event):
    n: int = 0

@asynccontextmanager
async def lifespan():
    print("began", os.getpid(), flush=True)
    yield
    if Path("fail").exists():
        raise RuntimeError("cannot end")

router = EventRouter(lifespan=lifespan)

@router.subscribe("pings", group="g")
async def on_ping(event: Ping) -> None: ...
"""


def test_a_worker_that_dies_is_started_again_and_a_failed_end_is_the_exit_code(folder: Path) -> None:
    (folder / "dying.py").write_text(DYING, "utf-8")
    line = command("dying:router", "--workers", "2")
    with started(line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        first, _ = (int(process.stdout.readline().split()[1]) for _ in range(2))
        os.kill(first, signal.SIGKILL)
        assert process.stdout.readline().startswith("began "), "another one takes its place"
        (folder / "fail").touch()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert "a worker ended with 137; started again in 1 s" in err
    assert process.returncode == 1


def test_a_worker_that_cannot_run_ends_all(folder: Path) -> None:
    code = (
        "from pathlib import Path\nif Path('once').exists():\n    raise RuntimeError('no more')\nPath('once').touch()\n"
    )
    (folder / "once_only.py").write_text(code + DYING, "utf-8")
    done = subprocess.run(
        command("once_only:router", "--workers", "2"),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "RuntimeError: no more" in done.stderr
    assert "started again" not in done.stderr


def test_reload_starts_anew_when_a_file_changes(folder: Path, port: int) -> None:
    pytest.importorskip("watchfiles", reason="--reload needs watchfiles")
    module = folder / "changing.py"

    def write(version: str) -> None:
        text = DYING.replace('"began", os.getpid()', f'"began {version}"').replace(
            "yield", "yield\n    print('ended', flush=True)"
        )
        module.write_text(text + ("" if version != "broken" else "\nthis is no Python"), "utf-8")
        os.utime(module, (1_000_000_000, 1_000_000_000))  # as if all were within a second

    write("1")
    line = command("changing:router", "--reload", "--health-port", str(port))
    output = folder / "output.txt"
    with output.open("w") as out, started(line, cwd=folder, stdout=out, stderr=out) as process:

        def said(words: str) -> bool:
            return words in output.read_text()

        def change(version: str, words: str) -> None:
            restarts = output.read_text().count("starting anew")
            while output.read_text().count("starting anew") == restarts:
                write(version)  # whoever has only begun to watch may miss a change
                with suppress(AssertionError):
                    until(lambda: output.read_text().count("starting anew") > restarts, most=5.0)
            until(lambda: said(words))

        until(lambda: said("began 1"))
        change("2", "began 2")
        assert output.read_text().index("ended") < output.read_text().index("began 2"), "the old one ends first"
        change("broken", "SyntaxError")
        assert process.poll() is None, "a mistake is mended by the next change"
        change("3", "began 3")
        until(lambda: health(port)[0] == 200)  # it has said so before it has begun
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert output.read_text().rstrip().endswith("ended")


def test_reload_runs_one_process(folder: Path) -> None:
    line = command("shop:router", "--reload", "--workers", "2")
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "leave out --workers" in done.stderr


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
