"""What the unit tests share: event types end with their test, time that passes when told, a bare interpreter."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from commons_events.event import registry
from commons_events.runtime import Runtime

Python = Callable[..., str]


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[None]:
    """Forget the event types that a test has defined."""
    with registry.isolated():
        yield


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """Run code in a fresh interpreter; returns what it printed, and fails with what it complained of."""

    def run(code: str, *, env: Mapping[str, str] | None = None, paths: tuple[Path, ...] = ()) -> str:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("COMMONS_EVENTS")}
        variables = {**inherited, **(env or {})}
        if paths:
            present = [variables["PYTHONPATH"]] if variables.get("PYTHONPATH") else []
            variables["PYTHONPATH"] = os.pathsep.join([*(str(path) for path in paths), *present])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=variables,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", done.stderr
        return done.stdout

    return run


START = datetime(2030, 1, 1, tzinfo=UTC)


class _Timer:
    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualRuntime(Runtime):
    """Time that passes only by `sleep` and `advance`."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0
        self.timers: list[_Timer] = []
        self.slept: list[float] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        timer = _Timer(self.passed + seconds, callback)
        self.timers.append(timer)
        return cast(asyncio.TimerHandle, timer)

    async def sleep(self, seconds: float) -> None:
        if seconds:
            self.slept.append(seconds)
            self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.passed += seconds
        due = [timer for timer in self.timers if timer.due <= self.passed]
        self.timers = [timer for timer in self.timers if timer.due > self.passed]
        for timer in due:
            if not timer.cancelled:
                timer.callback()


@pytest.fixture
def clock() -> VirtualRuntime:
    """A runtime whose time passes when told."""
    return VirtualRuntime()
