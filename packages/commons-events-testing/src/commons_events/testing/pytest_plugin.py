"""The pytest plugin ``commons_events``: fixtures, real servers, and what the summary says of them and of contracts.

It loads at every start of pytest where the package is installed, so it imports nothing of the framework by itself.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from commons_events.event import EventRegistry
    from commons_events.memory import MemoryBroker
    from commons_events.testing._harness import EventTestHarness
    from commons_events.testing.services import RunningKafka, RunningService

__all__ = ["event_harness", "event_registry", "kafka_cluster", "kafka_service", "memory_broker"]

_CONTRACTS = "commons_events.testing.contracts"
_SERVICES = "commons_events.testing.services"

pytest.register_assert_rewrite(_CONTRACTS)

_runs: list[pytest.Config] = []


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


def _shared(factory: pytest.TempPathFactory, name: str, service: str | None = None, options: Any = None) -> Any:
    """The session's service of that name; the test is skipped, with the reasons, where there is no way to one."""
    from commons_events.testing.services import ServiceUnavailableError, shared

    if shared.logs is None:
        shared.logs = Path(factory.getbasetemp()) / "services"
    try:
        return shared.get(name, service, options)
    except ServiceUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kafka_service(tmp_path_factory: pytest.TempPathFactory) -> RunningKafka:
    """The session's Kafka, started on first use; tests keep apart by ``kafka_service.unique("topic")``."""
    return cast("RunningKafka", _shared(tmp_path_factory, "kafka"))


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> RunningKafka:
    """The session's Kafka of three brokers; whoever kills one starts it again."""
    from commons_events.testing.services import KafkaOptions

    return cast("RunningKafka", _shared(tmp_path_factory, "kafka-cluster", "kafka", KafkaOptions(brokers=3)))


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


def pytest_runtest_setup() -> None:
    """Forget which services the test before has asked for."""
    if _SERVICES in sys.modules:
        from commons_events.testing.services import shared

        shared.used.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Point a failed test's report at the logs of the servers that it used."""
    report = yield
    if report.failed and _SERVICES in sys.modules:
        logs = [f"{service.service}: {log}" for service in _services_of(item) for log in service.logs.values()]
        if logs:
            report.sections.append(("Server logs", "\n".join(logs)))
    return report


def _services_of(item: pytest.Item) -> list[RunningService]:
    """The services that a test got by its fixtures or asked for itself."""
    from commons_events.testing.services import RunningService, shared

    given = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, RunningService)]
    asked = [service for name, service in shared.running.items() if name in shared.used and service not in given]
    return [*given, *asked]


def pytest_configure(config: pytest.Config) -> None:
    """Note that a run begins; pytester's own runs inside of one share its services."""
    _runs.append(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the services once the outermost run is over."""
    _runs.remove(config)
    if not _runs and _SERVICES in sys.modules:
        from commons_events.testing.services import shared

        shared.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which way each service came, and what was skipped for want of a capability."""
    skipped: Counter[tuple[str, str]] = Counter()
    unserved: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report, pytest.TestReport) and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if reason.startswith("capability "):
                skipped[report.nodeid.rpartition("::")[0], reason] += 1
            elif " can't serve " in reason or re.match(r"no \w+ here \(", reason):
                unserved[reason] += 1
    if _SERVICES in sys.modules and len(_runs) == 1:
        _services_summary(terminalreporter, unserved)
    if not skipped:
        return
    terminalreporter.section("contracts: what is not claimed")
    for (cls, reason), count in sorted(skipped.items()):
        terminalreporter.line(f"{cls}: {reason} ({count} {'test' if count == 1 else 'tests'} skipped)")


def _services_summary(terminalreporter: pytest.TerminalReporter, unserved: Counter[str]) -> None:
    from commons_events.testing.services import shared

    if not shared.running and not unserved:
        return
    terminalreporter.section("services")
    for name, service in shared.running.items():
        terminalreporter.line(f"{name} by {service.way}: {service.description}")
        for log in service.logs.values():
            terminalreporter.line(f"    log: {log}")
        for way, reason in service.passed_over.items():
            terminalreporter.line(f"    not by {way}: {reason}")
    for reason, count in sorted(unserved.items()):
        terminalreporter.line(f"{reason} ({count} {'test' if count == 1 else 'tests'} skipped)")
