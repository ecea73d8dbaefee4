"""What every test run of this repository shares: how it is spread over processes, and what its last lines say.

No example of a property has to be quick: on a busy machine none is.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Any

import pytest

with suppress(ImportError):  # a package that tests no properties does without
    from hypothesis import HealthCheck, settings

    _SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
    settings.register_profile(
        "tests", deadline=None, max_examples=60, derandomize=True, suppress_health_check=_SLOW_IS_FINE
    )
    # For a search with other values: COMMONS_EVENTS_HYPOTHESIS=explore
    settings.register_profile("explore", deadline=None, max_examples=500, suppress_health_check=_SLOW_IS_FINE)
    settings.load_profile(os.environ.get("COMMONS_EVENTS_HYPOTHESIS", "tests"))

SHOWN = 5


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    from tools.lanes import workers

    return workers(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tree's own way; another one than `-n` brings by itself has been asked for by name."""
    if config.option.dist != "load":
        return None
    from tools.lanes import Lanes

    return Lanes(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    by_reason: dict[str, Counter[str]] = defaultdict(Counter)
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        # The cases of one test count under its name.
        by_reason[reason.removeprefix("Skipped: ")][report.nodeid.partition("[")[0]] += 1
    terminalreporter.section(f"{len(skipped)} left out")
    for reason, tests in sorted(by_reason.items()):
        terminalreporter.line(f"{tests.total()} for: {reason}")
        for name, count in list(tests.items())[:SHOWN]:
            terminalreporter.line(f"    {name}" + (f" ({count} cases)" if count > 1 else ""))
        if len(tests) > SHOWN:
            terminalreporter.line(f"    and {len(tests) - SHOWN} more")
