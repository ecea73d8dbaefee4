"""One server process that can be killed, frozen and started again on the same files and ports."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Protocol

from commons_events.testing.services._errors import ServiceError
from commons_events.testing.services._process import ServerProcess

__all__ = ["Restartable", "Startable"]


class Startable(Protocol):
    """A server that can be killed, frozen and started again; `Restartable` says what each method does."""

    what: str

    @property
    def running(self) -> bool: ...
    @property
    def pid(self) -> int: ...
    def start(self, *, wait: bool = True) -> None: ...
    def wait_ready(self) -> None: ...
    def kill(self) -> None: ...
    def terminate(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def stop(self) -> None: ...


class Restartable:
    """What starts a server and what tells that it serves, together with its process.

    Args:
        what: the server's name in errors.
        launch: starts a process; it is called anew at each start.
        ready: returns once that process serves, or raises `ServiceStartError`.
    """

    def __init__(self, what: str, launch: Callable[[], ServerProcess], ready: Callable[[ServerProcess], None]) -> None:
        self.what = what
        self._launch = launch
        self._ready = ready
        self.process: ServerProcess | None = None

    @property
    def running(self) -> bool:
        """Whether its process is alive, frozen or not."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            ServiceError: it doesn't run.
        """
        return self._alive().pid

    def start(self, *, wait: bool = True) -> None:
        """Start it; return once it serves, or at once without ``wait``.

        Raises:
            ServiceError: it runs already.
            ServiceStartError: it ended, or did not serve in time.
        """
        if self.running:
            raise ServiceError(f"{self.what} runs already, as process {self.pid}")
        self.process = self._launch()
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Return once it serves.

        Raises:
            ServiceError: nobody has ever started it.
            ServiceStartError: it ended, or did not serve in time.
        """
        # One that has ended already is looked at, too: that error says why.
        self._ready(self.process or self._alive())

    def kill(self) -> None:
        """End it by SIGKILL, and return once it is gone."""
        self._alive().kill()

    def terminate(self) -> None:
        """Shut it down orderly, by SIGTERM, and return once it is gone."""
        process = self._alive()
        process.signal(signal.SIGTERM)
        process.wait()

    def pause(self) -> None:
        """Freeze it by SIGSTOP."""
        self._alive().signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on, by SIGCONT."""
        self._alive().signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it however it is; calling it again does nothing."""
        if self.process is not None:
            self.process.stop()

    def _alive(self) -> ServerProcess:
        if self.process is None or self.process.poll() is not None:
            raise ServiceError(f"{self.what} doesn't run; start it first")
        return self.process
