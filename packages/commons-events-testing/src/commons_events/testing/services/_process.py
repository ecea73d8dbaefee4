"""Server processes that never outlive the process that started them."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from commons_events.testing.services._errors import ServiceStartError

__all__ = ["ServerProcess", "accepts", "free_port", "wait_until"]

_SUPERVISOR = Path(__file__).with_name("_supervisor.py")
_PORTS = range(20_000, 32_000)
"""Below the ports that systems give to outgoing connections, one of which might take the port meanwhile."""
_LINES = 20
_TROUBLE = re.compile(r"(?:error|exception)\b|\b(?:fatal|panic|caused by)\b", re.IGNORECASE)
"""What servers mark the lines with that say why they end; many lines of their shutdown come after it."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    # By the system's randomness: tests seed the other one, and processes seeded alike would find the same port.
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceStartError(f"no port of 127.0.0.1 between {_PORTS.start} and {_PORTS.stop} is free")


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts TCP connections there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def log_tail(log: Path) -> str:
    """The last lines of a log, and before them the last that tell of an error, to be shown in an error."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    before = [line for line in lines[:-_LINES] if _TROUBLE.search(line)]
    return "".join(f"\n    {line[:300]}" for line in before[-_LINES:] + lines[-_LINES:])


class ServerProcess:
    """A running server in a process group of its own, whose output is appended to ``log``.

    A small supervisor stands between: it ends the server's process group as soon as this process is gone, even by
    SIGKILL, and then removes ``folder``. Signals from the terminal reach neither.

    Args:
        command: program and arguments.
        log: file that the output is appended to.
        folder: removed if this process goes without having called `stop`; None removes nothing.
        environment: in place of this process's environment.
        stop_signal: what the server is asked with to end.
        grace: seconds that it then has, before SIGKILL.

    Raises:
        ServiceStartError: the program can't be started.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        stop_signal: int = signal.SIGKILL,
        grace: float = 5.0,
    ) -> None:
        self.command = [os.fspath(part) for part in command]
        self.log = log
        arguments = ["--parent", str(os.getpid()), "--signal", str(int(stop_signal)), "--grace", str(grace)]
        if folder is not None:
            arguments += ["--folder", str(folder)]
        with log.open("ab") as output:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SUPERVISOR), *arguments, "--", *self.command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        answer = self._line()
        if not answer.isdigit():
            self._close()
            raise ServiceStartError(f"{self.command[0]}: {answer or 'its supervisor ended at once'}{log_tail(log)}")
        self.pid = int(answer)
        """The server's process id, which is its process group's too."""
        self._status: int | None = None

    def _line(self) -> str:
        assert self._supervisor.stdout is not None
        return self._supervisor.stdout.readline().decode().strip()

    def _close(self) -> None:
        assert self._supervisor.stdin is not None
        assert self._supervisor.stdout is not None
        self._supervisor.stdin.close()
        self._supervisor.stdout.close()
        self._supervisor.wait()

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while the server runs."""
        if self._status is None and self._supervisor.poll() is not None:
            self._status = int(self._line() or -signal.SIGKILL)
            self._close()
        return self._status

    def signal(self, number: int) -> None:
        """Send a signal to the server's process group; nothing happens when it has ended."""
        if self.poll() is None:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                self._supervisor.wait()

    def kill(self) -> None:
        """End the server by SIGKILL, and return once it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Return the exit status once the server has ended by itself or by a signal."""
        self._supervisor.wait()
        status = self.poll()
        assert status is not None
        return status

    def stop(self) -> None:
        """End the server by its ``stop_signal``, and return once it is gone. Calling it again does nothing."""
        if self.poll() is not None:
            return
        assert self._supervisor.stdin is not None
        try:
            self._supervisor.stdin.write(b"q")
            self._supervisor.stdin.flush()
        except BrokenPipeError:
            pass  # it ended in this moment
        self.wait()


def wait_until(
    ready: Callable[[], bool], *, what: str, process: ServerProcess, timeout: float = 180.0, interval: float = 0.03
) -> None:
    """Return once ``ready()``.

    Raises:
        ServiceStartError: the process ended before, or ``timeout`` seconds passed; the log's last lines are in it.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        status = process.poll()
        if status is not None:
            raise ServiceStartError(f"{what} ended with status {status}; {process.log} says:{log_tail(process.log)}")
        if time.monotonic() > deadline:
            raise ServiceStartError(
                f"{what} is not ready after {timeout:g} s; {process.log} says:{log_tail(process.log)}"
            )
        time.sleep(interval)
