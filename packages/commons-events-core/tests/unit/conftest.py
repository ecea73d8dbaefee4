"""What the unit tests share: event types that a test defines end with it, and a bare interpreter to ask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from commons_events.event import registry

_SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("unit", deadline=None, max_examples=60, derandomize=True, suppress_health_check=_SLOW_IS_FINE)
# For a search with other values: COMMONS_EVENTS_HYPOTHESIS=explore
settings.register_profile("explore", deadline=None, max_examples=500, suppress_health_check=_SLOW_IS_FINE)
settings.load_profile(os.environ.get("COMMONS_EVENTS_HYPOTHESIS", "unit"))

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
            variables["PYTHONPATH"] = os.pathsep.join(str(path) for path in paths)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=variables,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", done.stderr
        return done.stdout

    return run
