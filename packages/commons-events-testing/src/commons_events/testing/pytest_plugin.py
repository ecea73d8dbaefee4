"""The pytest plugin ``commons_events``: fixtures, real servers, and what the summary says of them and of contracts.

It loads at every start of pytest where the package is installed, so it imports nothing of the framework by itself.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from commons_events.event import EventRegistry
    from commons_events.memory import MemoryBroker
    from commons_events.testing._harness import EventTestHarness
    from commons_events.testing.services import (
        RunningAws,
        RunningKafka,
        RunningPostgres,
        RunningPubsub,
        RunningRabbitMQ,
        RunningService,
    )

__all__ = [
    "aws_service",
    "event_harness",
    "event_registry",
    "kafka_cluster",
    "kafka_secured",
    "kafka_service",
    "memory_broker",
    "postgres_database",
    "postgres_service",
    "pubsub_service",
    "rabbitmq_secured",
    "rabbitmq_service",
    "rabbitmq_vhost",
]

_CONTRACTS = "commons_events.testing.contracts"
_SERVICES = "commons_events.testing.services"

pytest.register_assert_rewrite(_CONTRACTS)

_runs: list[pytest.Config] = []


@dataclass
class _Used:
    """What a run says of a service at its end.

    Args:
        name: what it is known by in `SharedServices`.
        by: its way and description.
        logs: the paths of its logs, of each process of the run that started one.
        passed_over: as in `RunningService.passed_over`.
        started: how many processes of the run started one.
    """

    name: str
    by: str
    logs: list[str]
    passed_over: dict[str, str]
    started: int = 1


@dataclass
class _FromWorkers:
    """What the workers of pytest-xdist, each of which has services of its own, have told the process that reports.

    Args:
        asked: whether any test has asked for services.
        used: the services, those of several workers as one.
    """

    asked: bool = False
    used: dict[tuple[str, str], _Used] = field(default_factory=dict)

    def add(self, told: list[list[Any]]) -> None:
        self.asked = True
        for name, by, logs, passed_over in told:
            if (name, by) in self.used:
                self.used[name, by].logs += logs
                self.used[name, by].started += 1
            else:
                self.used[name, by] = _Used(name, by, logs, passed_over)


_TOLD = "commons_events_services"
_from_workers = pytest.StashKey[_FromWorkers]()


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


@pytest.fixture(scope="session")
def kafka_secured(tmp_path_factory: pytest.TempPathFactory) -> RunningKafka:
    """The session's Kafka that asks who you are, see ``kafka_secured.security``; skipped where none can be had."""
    from commons_events.testing.services import KafkaOptions

    kafka = cast("RunningKafka", _shared(tmp_path_factory, "kafka-secured", "kafka", KafkaOptions(secured=True)))
    kafka.require("security")
    return kafka


@pytest.fixture(scope="session")
def postgres_service(tmp_path_factory: pytest.TempPathFactory) -> RunningPostgres:
    """The session's PostgreSQL, started on first use."""
    return cast("RunningPostgres", _shared(tmp_path_factory, "postgres"))


@pytest.fixture
def postgres_database(postgres_service: RunningPostgres) -> Iterator[str]:
    """The URL of an empty database that belongs to this test alone; needs psycopg."""
    with postgres_service.database() as url:
        yield url


@pytest.fixture(scope="session")
def rabbitmq_service(tmp_path_factory: pytest.TempPathFactory) -> RunningRabbitMQ:
    """The session's RabbitMQ, started on first use."""
    return cast("RunningRabbitMQ", _shared(tmp_path_factory, "rabbitmq"))


@pytest.fixture(scope="session")
def rabbitmq_secured(tmp_path_factory: pytest.TempPathFactory) -> RunningRabbitMQ:
    """The session's RabbitMQ with a listener for TLS, ``rabbitmq_secured.security``; skipped where none can be had."""
    from commons_events.testing.services import RabbitMQOptions

    rabbitmq = cast(
        "RunningRabbitMQ", _shared(tmp_path_factory, "rabbitmq-secured", "rabbitmq", RabbitMQOptions(secured=True))
    )
    rabbitmq.require("security")
    return rabbitmq


@pytest.fixture
def rabbitmq_vhost(rabbitmq_service: RunningRabbitMQ) -> Iterator[str]:
    """The AMQP URL of a virtual host that belongs to this test alone."""
    rabbitmq_service.require("management")
    with rabbitmq_service.vhost() as url:
        yield url


@pytest.fixture(scope="session")
def pubsub_service(tmp_path_factory: pytest.TempPathFactory) -> RunningPubsub:
    """The session's Pub/Sub emulator, started on first use; tests keep apart by project."""
    return cast("RunningPubsub", _shared(tmp_path_factory, "pubsub"))


@pytest.fixture(scope="session")
def aws_service(tmp_path_factory: pytest.TempPathFactory) -> RunningAws:
    """The session's server for SNS and SQS, started on first use; tests keep apart by names."""
    return cast("RunningAws", _shared(tmp_path_factory, "aws"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run a contract of which a test is marked away without a reason, wherever the mark stands.

    Raises:
        pytest.UsageError: a test of a contract has a ``skip``, ``skipif`` or ``xfail`` without ``reason=``.
    """
    if _CONTRACTS not in sys.modules:
        return
    checked: set[type] = set()
    for item in items:
        problem = _marked_away(item, checked)
        if problem is None:
            continue
        if not hasattr(config, "workeroutput"):
            raise pytest.UsageError(problem)
        # What a worker of pytest-xdist raises here, nobody gets to read; what it could not collect is shown.
        report = pytest.CollectReport(item.nodeid, "failed", problem, [])
        items.clear()
        config.hook.pytest_collectreport(report=report)
        return


def _marked_away(item: pytest.Item, checked: set[type]) -> str | None:
    """What is wrong with a contract's test that is marked away without a reason; None where nothing is.

    Args:
        item: any test.
        checked: the classes that have been looked at; the item's own is added.
    """
    from commons_events.testing.contracts._contract import Contract, check, missing_reasons

    cls = getattr(item, "cls", None)
    if not isinstance(cls, type) or not issubclass(cls, Contract):
        return None
    if cls not in checked:
        checked.add(cls)
        try:
            check(cls)
        except TypeError as error:
            return str(error)
    silent = missing_reasons(item.iter_markers())
    if silent:
        return f"{item.nodeid} belongs to a contract and is marked {silent[0]} without a reason; add reason=..."
    return None


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
        logs = [f"{name}: {log}" for service in _services_of(item) for name, log in service.logs.items()]
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
    config.stash[_from_workers] = _FromWorkers()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """As a worker of pytest-xdist, tell the process that reports of the services here."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None and _SERVICES in sys.modules:
        output[_TOLD] = [[used.name, used.by, used.logs, used.passed_over] for used in _started_here()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker of pytest-xdist has told; one that crashed tells nothing."""
    told = getattr(node, "workeroutput", {}).get(_TOLD)
    if told is not None:
        node.config.stash[_from_workers].add(told)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the services once the outermost run is over."""
    if config not in _runs:
        return  # a conftest refused the run before this plugin knew of it
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
    if len(_runs) == 1:
        _services_summary(terminalreporter, unserved)
    if not skipped:
        return
    terminalreporter.section("contracts: what is not claimed")
    for (cls, reason), count in sorted(skipped.items()):
        terminalreporter.line(f"{cls}: {reason} ({count} {'test' if count == 1 else 'tests'} skipped)")


def _started_here() -> list[_Used]:
    from commons_events.testing.services import shared

    return [
        _Used(
            name,
            f"{service.way}: {service.description}",
            [str(log) for log in service.logs.values()],
            dict(service.passed_over),
        )
        for name, service in shared.running.items()
    ]


def _services_summary(terminalreporter: pytest.TerminalReporter, unserved: Counter[str]) -> None:
    told = terminalreporter.config.stash[_from_workers]
    here = _SERVICES in sys.modules
    used = [*(_started_here() if here else []), *told.used.values()]
    if not (here or told.asked) or not (used or unserved):
        return
    terminalreporter.section("services")
    for service in used:
        several = f" ({service.started} of them, by as many workers)" if service.started > 1 else ""
        terminalreporter.line(f"{service.name} by {service.by}{several}")
        for log in service.logs:
            terminalreporter.line(f"    log: {log}")
        for way, reason in service.passed_over.items():
            terminalreporter.line(f"    not by {way}: {reason}")
    for reason, count in sorted(unserved.items()):
        terminalreporter.line(f"{reason} ({count} {'test' if count == 1 else 'tests'} skipped)")
