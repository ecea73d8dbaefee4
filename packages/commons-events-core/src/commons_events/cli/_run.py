"""``commons-events run``: a router in one process or several, with health, and reloading for development."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import typer

from commons_events.cli._log import LogLevel, show_log
from commons_events.errors import CapabilityError, CommonsEventsError, ConfigurationError, EventDefinitionError
from commons_events.router import EventRouter, RunningRouter
from commons_events.runtime import current_runtime

__all__ = ["RunOptions", "load_router", "run_router"]

_FAILED, _UNUSABLE = 1, 2
_RESTART_AFTER = 1.0
"""Seconds before a worker that has died is started again; doubled up to a minute while it goes on dying."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says."""

    router: str
    broker: str | None
    brokers: tuple[str, ...]
    workers: int
    reload: bool
    grace: float
    health_host: str
    health_port: int | None
    log_level: LogLevel

    def command(self, *, health: bool = False) -> list[str]:
        """The command line of one worker, which answers health itself if told so."""
        line = [sys.executable, "-m", "commons_events.cli", "run", self.router, "--grace", str(self.grace)]
        line += ["--log-level", self.log_level]
        if self.broker is not None:
            line += ["--broker", self.broker]
        for named in self.brokers:
            line += ["--named-broker", named]
        if health and self.health_port is not None:
            line += ["--health-host", self.health_host, "--health-port", str(self.health_port)]
        return line


class _UnusableError(Exception):
    """The router cannot be run; the message says why."""


def run_router(options: RunOptions) -> int:
    """Run it; returns the exit code that the command's help explains."""
    try:
        if options.reload:
            return asyncio.run(_reload(options))
        if options.workers > 1:
            load_router(options.router)
            return asyncio.run(_supervise(options))
        return asyncio.run(_run(options))
    except (_UnusableError, ConfigurationError, CapabilityError, EventDefinitionError) as error:
        typer.echo(f"commons-events run: {error}", err=True)
        return _UNUSABLE
    except CommonsEventsError as error:
        typer.echo(f"commons-events run: {type(error).__name__}: {error}", err=True)
        return _FAILED


def load_router(name: str) -> EventRouter:
    """The router called ``module:name``."""
    module_name, _, attribute = name.partition(":")
    if not attribute or not all(part.isidentifier() for part in f"{module_name}.{attribute}".split(".")):
        raise _UnusableError(f"{name}: this is not of the form MODULE:ROUTER. Write, for example, shop.handlers:router")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module, and whatever it raises is said to its user
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        raise _UnusableError(
            f"{name}: importing {module_name} failed: {type(error).__name__}: {error} ({where})"
        ) from error
    try:
        found = attrgetter(attribute)(module)
    except AttributeError as error:
        there = sorted(key for key, value in vars(module).items() if isinstance(value, EventRouter))
        raise _UnusableError(
            f"{name}: {module_name} has no {attribute}. Its routers: {', '.join(there) or 'none'}."
        ) from error
    if not isinstance(found, EventRouter):
        raise _UnusableError(f"{name}: {attribute} is a {type(found).__name__}, not an EventRouter.")
    return found


def _named(options: RunOptions) -> dict[str, str]:
    brokers: dict[str, str] = {}
    for one in options.brokers:
        name, separator, url = one.partition("=")
        if not separator or not name or not url:
            raise _UnusableError(f"--named-broker {one.partition('=')[0]}: write NAME=URL.")
        brokers[name] = url
    return brokers


async def _run(options: RunOptions) -> int:
    router = load_router(options.router)
    show_log(options.log_level)
    running = router.running(broker=options.broker, brokers=_named(options), grace=options.grace)
    with running.stopped_by_signals():
        server = await _health_server(options, lambda: _status(running))
        try:
            async with running:
                await running.wait()
        finally:
            if server is not None:
                server.close()
    return 0


def _status(running: RunningRouter) -> tuple[bool, dict[str, Any]]:
    return running.state == "running", running.status()


# --- several processes -------------------------------------------------------------------------------------------


class _Children:
    """Processes that run routers, and are told of signals by this one alone.

    Args:
        environment: theirs; None for this one's.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self.stopping = asyncio.Event()
        self._environment = environment
        self._processes: set[asyncio.subprocess.Process] = set()

    def listen(self) -> None:
        """Pass SIGTERM and SIGINT on from now on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    def stop(self) -> None:
        """Ask all for their end; each knows what a second time means."""
        self.stopping.set()
        for process in self._processes:
            _terminate(process)

    async def start(self, command: Sequence[str]) -> asyncio.subprocess.Process:
        """Start one, of a session of its own, so that Ctrl+C comes by way of this process alone."""
        process = await asyncio.create_subprocess_exec(*command, start_new_session=True, env=self._environment)
        self._processes.add(process)
        if self.stopping.is_set():
            _terminate(process)
        return process

    async def ended(self, process: asyncio.subprocess.Process) -> int:
        """Wait for its end; its exit code as a shell gives it."""
        code = await process.wait()
        self._processes.discard(process)
        if code == -signal.SIGTERM and self.stopping.is_set():
            return 0  # it was told before it could listen
        return code if code >= 0 else 128 - code


def _terminate(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()


class _Workers(_Children):
    def __init__(self, options: RunOptions) -> None:
        super().__init__()
        self.options = options
        self.alive = 0
        self.code = 0

    async def keep(self) -> None:
        """Keep one worker running."""
        delay = _RESTART_AFTER
        while not self.stopping.is_set():
            began = current_runtime().monotonic()
            process = await self.start(self.options.command())
            self.alive += 1
            code = await self.ended(process)
            self.alive -= 1
            if self.stopping.is_set():
                self.code = self.code or code
                return
            if code == _UNUSABLE:
                self.code = code
                self.stop()
                return
            if current_runtime().monotonic() - began > 60:
                delay = _RESTART_AFTER
            typer.echo(f"commons-events run: a worker ended with {code}; started again in {delay:g} s", err=True)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), delay)
            delay = min(delay * 2, 60.0)

    def status(self) -> tuple[bool, dict[str, Any]]:
        """For health."""
        wanted = self.options.workers
        return self.alive == wanted and not self.stopping.is_set(), {"workers": wanted, "alive": self.alive}


async def _supervise(options: RunOptions) -> int:
    workers = _Workers(options)
    workers.listen()
    server = await _health_server(options, workers.status)
    try:
        await asyncio.gather(*(workers.keep() for _ in range(options.workers)))
    finally:
        if server is not None:
            server.close()
    return workers.code


async def _reload(options: RunOptions) -> int:
    if options.workers > 1:
        raise _UnusableError("--reload is for development, and runs one process: leave out --workers.")
    try:
        from watchfiles import PythonFilter, awatch
    except ImportError as error:
        raise _UnusableError(
            '--reload needs watchfiles, which is not installed. Type: pip install "commons-events-core[reload]"'
        ) from error
    # Python takes compiled code for current where a file was changed within a second and has its length still.
    children = _Children(os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    children.listen()
    process = await children.start(options.command(health=True))
    async for changes in awatch(Path.cwd(), watch_filter=PythonFilter(), stop_event=children.stopping):
        typer.echo(f"commons-events run: {len(changes)} files changed, starting anew", err=True)
        _terminate(process)
        await children.ended(process)
        if children.stopping.is_set():
            break
        process = await children.start(options.command(health=True))
    return await children.ended(process)


# --- health ------------------------------------------------------------------------------------------------------


async def _health_server(options: RunOptions, status: Any) -> asyncio.Server | None:
    if options.health_port is None:
        return None

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 5)
            known = line.startswith((b"GET /health ", b"HEAD /health "))
            well, body = status() if known else (False, {"error": "GET /health is all there is"})
            code = b"404 Not Found" if not known else b"200 OK" if well else b"503 Service Unavailable"
            content = json.dumps(body).encode()
            head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
            writer.write(head % (code, len(content)) + (b"" if line.startswith(b"HEAD") else content))
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # who asks and goes away needs no answer
        finally:
            writer.close()

    try:
        return await asyncio.start_server(answer, options.health_host, options.health_port)
    except OSError as error:
        raise _UnusableError(f"--health-port {options.health_port}: {error.strerror}.") from error
