"""The pytest plugin ``commons_events``: fixtures, and what the contract suite says in pytest's summary.

It loads at every start of pytest where the package is installed, so it imports nothing of the framework by itself.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from commons_events.event import EventRegistry
    from commons_events.memory import MemoryBroker
    from commons_events.testing._harness import EventTestHarness

__all__ = ["event_harness", "event_registry", "memory_broker"]

_CONTRACTS = "commons_events.testing.contracts"

pytest.register_assert_rewrite(_CONTRACTS)


@pytest.fixture
def memory_broker() -> Iterator[MemoryBroker]:
    """The process's default in-process broker (``memory://``), empty before the test and after it."""
    from commons_events.memory import MemoryBroker

    MemoryBroker.reset_all()
    yield MemoryBroker.get()
    MemoryBroker.reset_all()


@pytest.fixture
def event_registry() -> Iterator[EventRegistry]:
    """The process's event classes; those that the test defines are forgotten after it."""
    from commons_events.event import registry

    with registry.isolated():
        yield registry


@pytest.fixture
def event_harness() -> Iterator[EventTestHarness]:
    """An `EventTestHarness` with an in-process broker that belongs to this test alone."""
    from commons_events.testing._harness import EventTestHarness

    with EventTestHarness() as harness:
        yield harness


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse to run a contract of which a test is marked away without a reason, wherever the mark stands.

    Raises:
        pytest.UsageError: a test of a contract has a ``skip``, ``skipif`` or ``xfail`` without ``reason=``.
    """
    if _CONTRACTS not in sys.modules:
        return
    from commons_events.testing.contracts._contract import Contract, check, missing_reasons

    checked: set[type] = set()
    for item in items:
        cls = getattr(item, "cls", None)
        if not isinstance(cls, type) or not issubclass(cls, Contract):
            continue
        if cls not in checked:
            checked.add(cls)
            try:
                check(cls)
            except TypeError as error:
                raise pytest.UsageError(str(error)) from None
        silent = missing_reasons(item.iter_markers())
        if silent:
            raise pytest.UsageError(
                f"{item.nodeid} belongs to a contract and is marked {silent[0]} without a reason; add reason=..."
            )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the capabilities for which tests of a contract were skipped, class by class."""
    skipped: Counter[tuple[str, str]] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report, pytest.TestReport) and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if reason.startswith("capability "):
                skipped[report.nodeid.rpartition("::")[0], reason] += 1
    if not skipped:
        return
    terminalreporter.section("contracts: what is not claimed")
    for (cls, reason), count in sorted(skipped.items()):
        terminalreporter.line(f"{cls}: {reason} ({count} {'test' if count == 1 else 'tests'} skipped)")
