"""A server's process ends with the process that wanted it, however that went."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from commons_events.testing.services import ServerProcess, ServiceError, ServiceStartError, free_port
from commons_events.testing.services._process import accepts, wait_until
from commons_events.testing.services._restartable import Restartable

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups and SIGKILL are POSIX's")

SERVER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]
WANTING = """
import os, signal, sys, time
from pathlib import Path
from commons_events.testing.services import ServerProcess
folder = Path(sys.argv[1])
server = ServerProcess([sys.executable, "-c", {server!r}], log=folder.parent / "log", folder=folder)
{then}
print(server.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Whether a process of that id runs; one that is dead and not yet asked about does not."""
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")


def soon(condition: Callable[[], bool], timeout: float = 60) -> bool:
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_output_goes_into_the_log_and_the_status_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)"
    process = ServerProcess([sys.executable, "-c", code], log=log)
    assert process.wait() == 3
    assert process.poll() == 3
    assert log.read_text() == "before\nout\nerr\n"
    process.stop()
    process.kill()
    process.signal(signal.SIGTERM)


def test_a_killed_server_s_status_is_its_signal(tmp_path: Path) -> None:
    process = ServerProcess(SERVER, log=tmp_path / "log")
    assert process.poll() is None
    process.kill()
    assert process.poll() == -signal.SIGKILL
    assert not alive(process.pid)


@pytest.mark.parametrize(("command", "status"), [(SERVER, -signal.SIGTERM), (STUBBORN, -signal.SIGKILL)])
@pytest.mark.parametrize("frozen", [False, True])
def test_stopping_ends_even_a_server_that_does_not_want_to(
    command: list[str], status: int, frozen: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    log = tmp_path / "log"
    grace = 0.5 if command is STUBBORN else 60.0
    process = ServerProcess(command, log=log, folder=folder, stop_signal=signal.SIGTERM, grace=grace)
    wait_until(lambda: "up" in log.read_text(), what="it", process=process)
    if frozen:
        process.signal(signal.SIGSTOP)
    process.stop()
    assert process.poll() == status
    # Whoever stops it removes the folder, or doesn't.
    assert folder.exists()


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ServiceStartError, match=r"/nowhere/server: cannot start: .*No such file"):
        ServerProcess(["/nowhere/server"], log=tmp_path / "log")


def test_a_server_that_ends_at_once_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    process = ServerProcess([sys.executable, "-c", "import sys; sys.exit('no such setting')"], log=tmp_path / "log")
    with pytest.raises(ServiceStartError, match=r"(?s)the server ended with status 1; .*log says:.*no such setting"):
        wait_until(lambda: False, what="the server", process=process)


def test_a_server_that_shuts_down_with_many_words_still_tells_why(tmp_path: Path) -> None:
    program = "print('12:00 ERROR the port is taken'); [print('closing', n) for n in range(100)]; exit(1)"
    server = Restartable(
        "the server",
        lambda: ServerProcess([sys.executable, "-c", program], log=tmp_path / "log"),
        lambda process: wait_until(lambda: False, what="the server", process=process),
    )
    with pytest.raises(ServiceError, match="the server doesn't run; start it first"):
        server.wait_ready()
    server.start(wait=False)
    assert server.process is not None
    server.process.wait()
    # Also when it had ended before anybody looked.
    with pytest.raises(ServiceStartError, match=r"(?s)status 1; .* says:\n    12:00 ERROR .* taken\n    closing 80\n"):
        server.wait_ready()


def test_a_server_that_never_serves_is_an_error(tmp_path: Path) -> None:
    process = ServerProcess(SERVER, log=tmp_path / "log")
    with pytest.raises(ServiceStartError, match=r"the server is not ready after 0\.2 s"):
        wait_until(lambda: False, what="the server", process=process, timeout=0.2)
    process.stop()


THEN = {
    "plainly": "",
    "with the server frozen": "server.signal(signal.SIGSTOP)",
    # The forked process keeps its copy of the pipe open and outlives its parent by far.
    "with a forked child that lives on": "os.fork() or (time.sleep(600), os._exit(0))",
}


@pytest.mark.parametrize("then", THEN.values(), ids=THEN)
def test_a_server_ends_with_a_process_that_is_killed(then: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "file").write_text("data")
    program = WANTING.format(server=STUBBORN[2], then=then)
    command = [sys.executable, "-W", "ignore", "-c", program, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as wanting:
        assert wanting.stdout is not None
        try:
            pid = int(wanting.stdout.readline())
            assert alive(pid)
            wanting.kill()
            wanting.wait()
            assert soon(lambda: not alive(pid))
            assert soon(lambda: not folder.exists())
        finally:
            os.killpg(wanting.pid, signal.SIGKILL) if then.startswith("os.fork") else None


def test_what_a_server_has_started_goes_with_it(tmp_path: Path) -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    log = tmp_path / "log"
    process = ServerProcess([sys.executable, "-c", code], log=log)
    wait_until(lambda: log.read_text().endswith("\n"), what="it", process=process)
    grandchild = int(log.read_text())
    assert alive(grandchild)
    os.kill(process.pid, signal.SIGKILL)  # the server alone
    process.wait()
    assert soon(lambda: not alive(grandchild))


def test_a_free_port_is_nobody_s(tmp_path: Path) -> None:
    port = free_port()
    assert not accepts(port)
    process = ServerProcess(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)], log=tmp_path / "log"
    )
    wait_until(lambda: accepts(port), what="it", process=process)
    process.stop()
    assert not accepts(port)
