"""One server in a container, which can be killed, frozen and started again as a process can."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commons_events.testing.services import _docker
from commons_events.testing.services._errors import ServiceError, ServiceStartError
from commons_events.testing.services._process import log_tail

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

__all__ = ["ContainerServer", "make_container"]

_READY = 120.0
_ENDS = 60
"""Seconds that a server has to shut down, before SIGKILL."""


def make_container(
    image: str,
    *,
    ports: Mapping[int, int],
    bind: str,
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
    entrypoint: Sequence[str] | None = None,
    files: Mapping[str, bytes] | None = None,
    network: Network | None = None,
    hostname: str | None = None,
) -> DockerContainer:
    """A container that isn't started yet.

    Args:
        image: its image, which the engine pulls if it has to.
        ports: the container's ports, each with the engine's port that it is published at.
        bind: the engine's address that the ports are bound to.
        environment: variables of its server.
        command: what its entry point is given; nothing leaves the image's own.
        entrypoint: in place of the image's.
        files: content by path, which are there when the server starts.
        network: besides the usual one; others in it reach this container by its ``hostname``.
        hostname: the container's name for itself.
    """
    from testcontainers.core.container import DockerContainer

    stated: dict[str, Any] = {"labels": {_docker.OWNER: _docker.owner()}}
    if entrypoint is not None:
        stated["entrypoint"] = list(entrypoint)
    if hostname is not None:
        stated["hostname"] = hostname
    container = DockerContainer(image, env=dict(environment or {}), **stated)
    for inside, outside in ports.items():
        # The SDK takes the address with the port, though testcontainers speaks of ports alone.
        container.ports[f"{inside}/tcp"] = (bind, outside)  # type: ignore[assignment]
    if command:
        container.with_command(list(command))
    for path, content in (files or {}).items():
        container.with_copy_into_container(content, path)
    if network is not None:
        container.with_network(network)
        container.with_network_aliases(hostname or image)
    return container


class ContainerServer:
    """What starts a container and what tells that its server serves; it does for `Restartable`.

    Args:
        what: the server's name in errors.
        container: the container, not started.
        serves: whether clients are served; asked again and again, with what this start has logged.
        log: the file that the container's output is appended to.
    """

    def __init__(self, what: str, container: DockerContainer, serves: Callable[[bytes], bool], log: Path) -> None:
        self.what = what
        self.log = log
        self._container = container
        self._serves = serves
        self._made = False
        self._stopped = False
        self._begins = 0
        self._copied = 0
        self._copier: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether its container runs, frozen or not."""
        return self._made and self._status() in {"running", "paused", "restarting"}

    @property
    def pid(self) -> int:
        """Nothing here: the process is the engine's, on a machine that may be another.

        Raises:
            ServiceError: always.
        """
        raise ServiceError(f"{self.what} runs in a container; its process is the Docker engine's")

    def start(self, *, wait: bool = True) -> None:
        """Start the container, with what it had written if it ran before.

        Raises:
            ServiceError: it runs already.
            ServiceStartError: the engine can't start it, or it ended, or did not serve in time.
        """
        from docker.errors import DockerException
        from requests.exceptions import RequestException

        if self.running:
            raise ServiceError(f"{self.what} runs already, in container {self._wrapped.short_id}")
        self._join()
        self.log.touch()
        self._begins = self.log.stat().st_size
        try:
            if self._made:
                self._wrapped.start()
            else:
                self._container.start()
                self._made = True
        except (DockerException, RequestException) as error:
            raise ServiceStartError(f"the Docker engine can't start {self.what}: {_docker.short(error)}") from error
        self._copier = threading.Thread(target=self._copy, name=f"log of {self.what}", daemon=True)
        self._copier.start()
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Return once it serves.

        Raises:
            ServiceStartError: it ended, or did not serve in time.
        """
        deadline = time.monotonic() + _READY
        while not self._serves(self._logged()):
            if not self.running:
                self._join()
                raise ServiceStartError(f"{self.what} ended; {self.log} says:{log_tail(self.log)}")
            if time.monotonic() > deadline:
                raise ServiceStartError(
                    f"{self.what} is not ready after {_READY:g} s; {self.log} says:{log_tail(self.log)}"
                )
            time.sleep(0.05)

    def kill(self) -> None:
        """End it by SIGKILL, and return once it is gone."""
        self._call(lambda container: container.kill("SIGKILL"))
        self._ended()

    def terminate(self) -> None:
        """Shut it down orderly, by the signal that its image names, and return once it is gone."""
        self._call(lambda container: container.stop(timeout=_ENDS))
        self._ended()

    def pause(self) -> None:
        """Freeze all its processes."""
        if self._status() != "paused":
            self._call(lambda container: container.pause())

    def resume(self) -> None:
        """Let it go on."""
        if self._status() == "paused":
            self._call(lambda container: container.unpause())

    def stop(self) -> None:
        """Remove the container with its data, however it is; calling it again does nothing."""
        from docker.errors import NotFound

        # A client that is used once more after its end would leave a connection open.
        if self._stopped:
            return
        self._stopped, self._made = True, False
        try:
            with suppress(NotFound):
                self._container.stop()
        finally:
            self._container.get_docker_client().client.close()
            self._join()

    def _status(self) -> str:
        from docker.errors import NotFound

        try:
            self._wrapped.reload()
        except NotFound:
            return "removed"
        return str(self._wrapped.status)

    @property
    def _wrapped(self) -> Any:
        return self._container.get_wrapped_container()

    def _call(self, call: Callable[[Any], object]) -> None:
        from docker.errors import APIError

        if not self.running:
            raise ServiceError(f"{self.what} doesn't run; start it first")
        try:
            call(self._wrapped)
        except APIError as error:
            raise ServiceError(f"{self.what}: the Docker engine refuses: {_docker.short(error)}") from error

    def _ended(self) -> None:
        self._wrapped.wait(timeout=_ENDS)
        self._join()

    def _copy(self) -> None:
        """Append to the log what the container writes, until it ends."""
        # The engine gives the whole output of all its starts.
        known = self._copied
        with self.log.open("ab") as log:
            for chunk in self._wrapped.logs(stream=True, follow=True):
                fresh, known = chunk[known:], max(0, known - len(chunk))
                if fresh:
                    log.write(fresh)
                    log.flush()
                    self._copied += len(fresh)

    def _logged(self) -> bytes:
        with self.log.open("rb") as log:
            log.seek(self._begins)
            return log.read()

    def _join(self) -> None:
        copier, self._copier = self._copier, None
        if copier is not None:
            copier.join(10)
