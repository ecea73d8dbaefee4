"""What a service is, what a way to it is, and what has been started."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from commons_events.log import logger
from commons_events.testing.services._errors import (
    ServiceError,
    ServiceStartError,
    ServiceUnavailableError,
    WayUnavailableError,
)
from commons_events.testing.services._owner import gone, owner
from commons_events.testing.services._restartable import Startable

__all__ = ["ENVIRONMENT", "Place", "RunningService", "Service", "Way", "cache_folder"]

ENVIRONMENT = "environment"
"""The way of a service whose address somebody put into the environment."""

_FOLDERS, _OWNER = "commons-events-", "owner"
_unique = itertools.count(1)
_logs = itertools.count(1)


def cache_folder() -> Path:
    """Where ``make services`` puts what it downloads: ``~/.cache/commons-events``, or below ``XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "commons-events"


def _remove_left() -> None:
    """Remove the folders of processes that were killed before they had a server, whose supervisor would do it."""
    for mark in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*/{_OWNER}"):
        try:
            left = gone(mark.read_text(encoding="utf-8"))
        except OSError:
            continue  # somebody else's, or just removed
        if left:
            shutil.rmtree(mark.parent, ignore_errors=True)


@dataclass(frozen=True)
class Place:
    """Where a server keeps its files.

    Args:
        folder: a temporary folder of its own; it goes with the server.
        logs: folder of its logs, which stay if it is another one.
    """

    folder: Path
    logs: Path

    def log(self, name: str) -> Path:
        """A log's path that no other server of this process has."""
        return self.logs / f"{name}-{next(_logs)}.log"

    def remove(self) -> None:
        """Remove the folder; logs that lie elsewhere stay."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    @contextmanager
    def make(service: str, logs: Path | None = None) -> Iterator[Place]:
        """A new place, which stays unless the block fails; then only its logs do, if they lie elsewhere."""
        _remove_left()
        folder = Path(tempfile.mkdtemp(prefix=_FOLDERS + f"{service}-"))
        (folder / _OWNER).write_text(owner(), encoding="utf-8")
        place = Place(folder, logs or folder)
        try:
            place.logs.mkdir(parents=True, exist_ok=True)
            yield place
        except BaseException:
            place.remove()
            raise


class RunningService:
    """A server that can be used, and how it came to be. Used in ``with``, it is stopped at the end.

    Args:
        service: `Service.name`.
        way: `Way.name` of the way it came.
        description: what it is, in a few words, with its version.
        address: where clients find it, in the form that they take.
        lacks: what it can't serve, as capability and reason.
        log: the file that it logs to; None if that is not known here.
        servers: its processes or containers, by a number from 1, if they are ours.
        place: where its files are, if they are ours; `stop` removes it.
        stop: called by `stop`, after the processes' end, for what else has to go.
    """

    def __init__(
        self,
        *,
        service: str,
        way: str,
        description: str,
        address: str,
        lacks: Mapping[str, str] | None = None,
        log: Path | None = None,
        servers: Mapping[int, Startable] | None = None,
        place: Place | None = None,
        stop: Callable[[], None] | None = None,
    ) -> None:
        self.service = service
        self.way = way
        self.description = description
        self.address = address
        self.lacks: dict[str, str] = dict(lacks or {})
        self.log = log
        self.passed_over: dict[str, str] = {}
        """The ways that come before this one, each with the reason why it was not taken."""
        self._servers = dict(servers or {})
        self._place = place
        self._stop = stop

    @property
    def nodes(self) -> tuple[int, ...]:
        """The numbers of the processes that `kill` and the like take; none where they aren't ours."""
        return tuple(self._servers)

    def pid(self, node: int = 1) -> int:
        """The process id of a node.

        Raises:
            ServiceError: it doesn't run, or isn't a process of ours; the methods below raise that too.
        """
        return self._server(node).pid

    def kill(self, node: int = 1) -> None:
        """End a node by SIGKILL, and return once it is gone. Its files stay."""
        self._server(node).kill()

    def terminate(self, node: int = 1) -> None:
        """Shut a node down orderly, by SIGTERM, and return once it is gone. Its files stay."""
        self._server(node).terminate()

    def start(self, node: int = 1, *, wait: bool = True) -> None:
        """Start a node again on its files and ports; return once it serves, or at once without ``wait``.

        Raises:
            ServiceError: it runs already.
            ServiceStartError: it ended, or did not serve in time.
        """
        self._server(node).start(wait=wait)

    def pause(self, node: int = 1) -> None:
        """Freeze a node by SIGSTOP: its connections stay open and silent."""
        self._server(node).pause()

    def resume(self, node: int = 1) -> None:
        """Let a paused node go on, by SIGCONT."""
        self._server(node).resume()

    def start_all(self) -> None:
        """Start every node that doesn't run, let every paused one go on, and return once all serve."""
        for server in self._servers.values():
            if server.running:
                server.resume()
            else:
                server.start(wait=False)
        for server in self._servers.values():
            server.wait_ready()

    def started(self) -> Self:
        """This, with all its nodes started; for a `Way`, whose server is stopped again if that fails."""
        try:
            self.start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def _server(self, node: int) -> Startable:
        if not self._servers:
            raise ServiceError(f"{self.service} by {self.way} ({self.description}): its processes aren't ours")
        try:
            return self._servers[node]
        except KeyError:
            raise ServiceError(
                f"no node {node} of {self.service}; there are: {', '.join(map(str, self.nodes))}"
            ) from None

    @property
    def logs(self) -> dict[str, Path]:
        """Every log of this service, by the name of what wrote it."""
        return {} if self.log is None else {self.service: self.log}

    def why_not(self, *capabilities: str) -> str | None:
        """Why this server can't serve one of these; None if it serves all.

        Raises:
            ValueError: nobody knows such a capability; a misspelled one would never be missing.
        """
        for capability in capabilities:
            if capability not in self.capabilities():
                known = ", ".join(sorted(self.capabilities()))
                raise ValueError(f"{self.service} has no capability {capability!r}; there are: {known}")
            if capability in self.lacks:
                return f"{self.service} by {self.way} can't serve {capability}: {self.lacks[capability]}"
        return None

    def require(self, *capabilities: str) -> None:
        """Skip the running pytest test, with the reason, unless this server can serve all of these.

        Raises:
            ValueError: nobody knows such a capability.
        """
        reason = self.why_not(*capabilities)
        if reason is not None:
            import pytest

            pytest.skip(reason)

    @classmethod
    def capabilities(cls) -> frozenset[str]:
        """What a server of this kind may be asked for."""
        return frozenset()

    def unique(self, name: str) -> str:
        """A name that no other call returns, in this process or another: for topics, groups, databases."""
        stem = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:40]
        return f"{stem or 'x'}-{os.getpid():x}-{os.urandom(3).hex()}-{next(_unique)}"

    def stop(self) -> None:
        """End the server and remove its data. Calling it again does nothing; a server of others stays."""
        for server in self._servers.values():
            server.stop()
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()
        if self._place is not None:
            self._place.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{self.service} {self.address} by {self.way}: {self.description}>"


R_co = TypeVar("R_co", bound=RunningService, covariant=True)
R = TypeVar("R", bound=RunningService)


class Way(Protocol[R_co]):
    """One way to a service."""

    @property
    def name(self) -> str:
        """A word: ``local``, or what the embedded server is called."""
        ...

    def find(self) -> str:
        """What this way would start, without starting it.

        Raises:
            WayUnavailableError: this machine lacks what it needs; the message says what, and how to get it.
        """
        ...

    def start(self, place: Place, options: Any) -> R_co:
        """Start the server, and return once clients can use it.

        Args:
            place: where its files go. `RunningService.stop` of the result removes it.
            options: what the caller asked for, in the service's own form.

        Raises:
            WayUnavailableError: this machine lacks what it needs, or this way doesn't serve these options.
            ServiceStartError: it is there and did not start.
        """
        ...


@dataclass(frozen=True)
class Service(Generic[R]):
    """A kind of server that tests use, and the ways to one, best first.

    Args:
        name: a word, as in ``commons_events.testing up kafka``.
        given: makes a running service of the address that somebody put into the environment, after having looked
            whether anybody answers there.
        ways: the ways to start one.
    """

    name: str
    given: Callable[[str], R]
    ways: Sequence[Way[R]] = field(default_factory=tuple)

    @property
    def variable(self) -> str:
        """The variable of the environment that holds an address, or the name of the only way to be tried."""
        return f"COMMONS_EVENTS_TEST_{self.name.upper()}"

    def address(self) -> str | None:
        """The address that the environment holds, if it holds one."""
        value = os.environ.get(self.variable, "").strip()
        return value if value and value not in {way.name for way in self.ways} else None

    def _passed_over(self, way: Way[R]) -> str | None:
        """Why the environment leaves this way out, if it does."""
        value = os.environ.get(self.variable, "").strip()
        return None if value in ("", way.name) else f"{self.variable}={value} asks for another"

    def survey(self) -> dict[str, tuple[bool, str]]:
        """Every way with whether it is there, and what it would start or why it isn't; nothing is started."""
        address = self.address()
        found = {ENVIRONMENT: (address is not None, address or f"{self.variable} holds no address")}
        for way in self.ways:
            reason = self._passed_over(way)
            try:
                found[way.name] = (True, way.find()) if reason is None else (False, reason)
            except WayUnavailableError as error:
                found[way.name] = (False, str(error))
        return found

    def start(self, options: Any = None, *, logs: Path | None = None) -> R:
        """Start one, by the first way that is there; the caller stops it.

        Args:
            options: what is asked for, in the service's own form.
            logs: folder that keeps the logs; None keeps them with the data, which go when the server is stopped.

        Raises:
            ServiceUnavailableError: no way is there.
            ServiceStartError: the first way that is there failed twice; a server that is broken is no reason to take
                another.
        """
        address = self.address()
        if address is not None:
            running = self.given(address)
            _announce(running)
            return running
        reasons = {ENVIRONMENT: f"{self.variable} holds no address"}
        for way in self.ways:
            left_out = self._passed_over(way)
            if left_out is not None:
                reasons[way.name] = left_out
                continue
            try:
                way.find()
                try:
                    running = self._begin(way, options, logs)
                except ServiceStartError as error:
                    # Somebody took one of its ports meanwhile, or a busy machine kept it waiting for too long.
                    logger().warning("service for tests did not start, trying once more", error=str(error))
                    running = self._begin(way, options, logs)
            except WayUnavailableError as error:
                reasons[way.name] = str(error)
                continue
            running.passed_over = reasons
            _announce(running)
            return running
        raise ServiceUnavailableError(self.name, reasons)

    def _begin(self, way: Way[R], options: Any, logs: Path | None) -> R:
        with Place.make(self.name, logs) as place:
            return way.start(place, options)


def _announce(running: RunningService) -> None:
    logger().info(
        "service for tests",
        service=running.service,
        way=running.way,
        description=running.description,
        address=running.address,
        log_file=str(running.log),
    )
