"""Apache Kafka itself, from its jars: one or more processes, each broker and controller (KRaft)."""

from __future__ import annotations

import base64
import functools
import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commons_events.testing.services import _kafka_security
from commons_events.testing.services._errors import ServiceError, ServiceStartError, WayUnavailableError
from commons_events.testing.services._kafka import KafkaOptions, RunningKafka, answers
from commons_events.testing.services._process import ServerProcess, free_port, log_tail, wait_until
from commons_events.testing.services._service import Place, cache_folder

__all__ = ["ApacheKafka", "KafkaCluster"]

_OLDEST_JAVA = 17
_STARTED = b"Kafka Server started"
_LOGGING = {
    "defaultLogLevel": "info",
    "showDateTime": "true",
    "dateTimeFormat": "HH:mm:ss.SSS",
    "showThreadName": "false",
    # These print every setting, hundreds of lines at each start.
    "log.kafka.server.KafkaConfig": "warn",
    "log.org.apache.kafka.common.config": "warn",
    "log.org.apache.kafka.server.config": "warn",
}
_SETTINGS = {
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "process.roles": "broker,controller",
    "auto.create.topics.enable": "true",
    # Internal topics as small as they can be.
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
    "share.coordinator.state.topic.num.partitions": "1",
    "log.cleaner.dedupe.buffer.size": "4194304",
    # Groups form at once, and tests may ask for short sessions.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.consumer.min.session.timeout.ms": "500",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "500",
    # A transaction whose producer died is aborted soon after its timeout.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    # A broker that died is noticed soon, and one that comes again doesn't wait long for its former life's session.
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "controlled.shutdown.enable": "true",
}


def _per_broker(brokers: int) -> dict[str, str]:
    """What depends on how many there are: every internal topic survives the loss of one broker of three."""
    replicas, in_sync = str(min(brokers, 3)), "2" if brokers > 2 else "1"
    return {
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def _java() -> tuple[str, int]:
    """The Java that runs brokers, and its major version."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if found is None:
        where = f"no bin/java in JAVA_HOME={home}" if home else "no java on the PATH"
        raise WayUnavailableError(f"{where}; brokers need Java {_OLDEST_JAVA} or newer")
    version = _java_version(found)
    if version < _OLDEST_JAVA:
        raise WayUnavailableError(f"{found} is Java {version or 'of no known version'}, not {_OLDEST_JAVA} or newer")
    return found, version


@functools.cache
def _java_version(java: str) -> int:
    try:
        shown = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', shown)
    return int(match[1]) if match else 0


def _jars() -> tuple[Path, str]:
    """The folder of the newest Kafka's jars, and its version."""
    cache = cache_folder()
    folders = {path.name.removeprefix("kafka-"): path for path in cache.glob("kafka-*") if any(path.glob("*.jar"))}
    if not folders:
        raise WayUnavailableError(f"no {cache}/kafka-VERSION with Apache Kafka's jars (`make services` fetches them)")
    newest = max(folders, key=lambda version: [int(part) for part in re.findall(r"\d+", version)])
    return folders[newest], newest


@dataclass
class _Node:
    """One broker's files and ports, which outlive its process."""

    id: int
    folder: Path
    log: Path
    plain: int
    controller: int
    secured: tuple[int, int] | None
    process: ServerProcess | None = None

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"

    def listeners(self) -> str:
        ports = {"PLAINTEXT": self.plain, "CONTROLLER": self.controller}
        if self.secured is not None:
            ports |= dict(zip(("SASL_SSL", "SSL"), self.secured, strict=True))
        return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())

    def write(self, settings: Mapping[str, str]) -> None:
        own = {"node.id": str(self.id), "log.dirs": str(self.folder / "data"), "listeners": self.listeners()}
        lines = [f"{name}={value}" for name, value in {**own, **settings}.items()]
        self.properties.write_text("\n".join(lines) + "\n", encoding="utf-8")


class KafkaCluster(RunningKafka):
    """Apache Kafka in processes of ours, which can be killed, frozen and started again."""

    def __init__(self, nodes: list[_Node], command: list[str], place: Place, **stated: Any) -> None:
        super().__init__(way="local", stop=self._stop_all, log=nodes[0].log, **stated)
        self._nodes = {node.id: node for node in nodes}
        self._command = command
        self._place = place
        self.session_timeout_ms = 3000

    @property
    def nodes(self) -> tuple[int, ...]:
        """The brokers' ids, from 1."""
        return tuple(self._nodes)

    @property
    def logs(self) -> dict[str, Path]:
        """Each broker's log, as ``broker-1``."""
        return {f"broker-{node.id}": node.log for node in self._nodes.values()}

    def data(self, node: int = 1) -> Path:
        """The folder of a broker's partitions."""
        return self._node(node).folder / "data"

    def pid(self, node: int = 1) -> int:
        """The process id of a broker.

        Raises:
            ServiceError: it doesn't run.
        """
        return self._running(node).pid

    def kill(self, node: int = 1) -> None:
        """End a broker by SIGKILL, and return once it is gone. Its files stay."""
        self._running(node).kill()

    def terminate(self, node: int = 1) -> None:
        """Shut a broker down orderly, by SIGTERM, and return once it is gone."""
        process = self._running(node)
        process.signal(signal.SIGTERM)
        process.wait()

    def pause(self, node: int = 1) -> None:
        """Freeze a broker by SIGSTOP: its connections stay open and silent."""
        self._running(node).signal(signal.SIGSTOP)

    def resume(self, node: int = 1) -> None:
        """Let a paused broker go on, by SIGCONT."""
        self._running(node).signal(signal.SIGCONT)

    def start(self, node: int = 1, *, wait: bool = True) -> None:
        """Start a broker again on its files and ports; return once it serves, or at once without ``wait``.

        A broker serves only once most of the cluster's controllers run.

        Raises:
            ServiceError: it runs already.
            ServiceStartError: it ended, or did not serve within a minute.
        """
        found = self._node(node)
        if found.process is not None and found.process.poll() is None:
            raise ServiceError(f"broker {node} runs already, as process {found.process.pid}")
        begins = found.log.stat().st_size if found.log.exists() else 0
        command = [*self._command, "kafka.Kafka", str(found.properties)]
        found.process = ServerProcess(command, log=found.log, folder=self._place.folder)
        if wait:
            self._await(found, begins)

    def start_all(self) -> None:
        """Start every broker that doesn't run, and return once all serve."""
        stopped = [node for node in self._nodes.values() if node.process is None or node.process.poll() is not None]
        begins = {node.id: node.log.stat().st_size if node.log.exists() else 0 for node in stopped}
        for node in stopped:
            self.start(node.id, wait=False)
        for node in stopped:
            self._await(node, begins[node.id])

    def _await(self, node: _Node, begins: int) -> None:
        assert node.process is not None

        def serves() -> bool:
            # Clients are listened to before the cluster counts the broker in; this line comes after that.
            with node.log.open("rb") as log:
                log.seek(begins)
                return _STARTED in log.read() and answers(f"127.0.0.1:{node.plain}")

        wait_until(serves, what=f"broker {node.id} of Apache Kafka", process=node.process)

    def _node(self, node: int) -> _Node:
        try:
            return self._nodes[node]
        except KeyError:
            raise ServiceError(f"no broker {node}; there are: {', '.join(map(str, self._nodes))}") from None

    def _running(self, node: int) -> ServerProcess:
        process = self._node(node).process
        if process is None or process.poll() is not None:
            raise ServiceError(f"broker {node} doesn't run; start({node}) starts it")
        return process

    def _stop_all(self) -> None:
        for node in self._nodes.values():
            if node.process is not None:
                node.process.stop()
        self._place.remove()


class ApacheKafka:
    """The way ``local``."""

    name = "local"

    def find(self) -> str:
        """The version of Kafka's jars and of Java.

        Raises:
            WayUnavailableError: one of the two is missing.
        """
        _, java = _java()
        folder, version = _jars()
        return f"Apache Kafka {version} on Java {java}, jars in {folder}"

    def start(self, place: Place, options: KafkaOptions | None) -> KafkaCluster:
        """Format the nodes' folders, start them, and return once all serve."""
        options = options or KafkaOptions()
        if options.brokers < 1:
            raise ValueError(f"brokers must be 1 or more, not {options.brokers}")
        java, java_version = _java()
        jars, version = _jars()
        nodes = [
            _Node(
                id=number,
                folder=place.folder / f"broker-{number}",
                log=place.log(f"kafka-{number}"),
                plain=free_port(),
                controller=free_port(),
                secured=(free_port(), free_port()) if options.secured else None,
            )
            for number in range(1, options.brokers + 1)
        ]
        settings = _SETTINGS | _per_broker(options.brokers)
        settings["controller.quorum.voters"] = ",".join(f"{node.id}@127.0.0.1:{node.controller}" for node in nodes)
        security = None
        if options.secured:
            # It may find its library missing.
            security = _kafka_security.prepare(
                place.folder,
                sasl=",".join(f"127.0.0.1:{node.secured[0]}" for node in nodes if node.secured),
                mtls=",".join(f"127.0.0.1:{node.secured[1]}" for node in nodes if node.secured),
            )
            settings |= _kafka_security.settings(place.folder, security)
        for node in nodes:
            node.folder.mkdir()
            node.write(settings | dict(options.settings))
        logging = [f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in _LOGGING.items()]
        memory = ["-Xms64m", f"-Xmx{options.heap}m", "-XX:+UseSerialGC"]
        command = [java, *memory, *logging, "-cp", f"{jars}/*"]
        _format(command, nodes, _kafka_security.users(security) if security else [])
        many = f"{options.brokers} brokers" if options.brokers > 1 else "one broker"
        cluster = KafkaCluster(
            nodes,
            command,
            place,
            description=f"Apache Kafka {version}, {many}, Java {java_version}",
            address=",".join(f"127.0.0.1:{node.plain}" for node in nodes),
            lacks=_lacks(options),
        )
        cluster.security = security
        try:
            cluster.start_all()
        except BaseException:
            cluster.stop()
            raise
        return cluster


def _lacks(options: KafkaOptions) -> dict[str, str]:
    lacks = {}
    if options.brokers < 3:
        lacks["cluster"] = "one broker was asked for"
    if not options.secured:
        lacks["security"] = "secured listeners were not asked for"
    return lacks


def _format(command: list[str], nodes: list[_Node], users: list[str]) -> None:
    """Write each node's metadata, all at once; a process for each takes a second."""
    # Ids are 16 bytes in URL-safe base64; one that begins with a dash would be taken for an option.
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
    running = []
    for node in nodes:
        arguments = ["kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(node.properties)]
        with node.log.open("ab") as log:
            running.append(
                subprocess.Popen([*command, *arguments, *users], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )
    statuses = [process.wait() for process in running]
    for node, status in zip(nodes, statuses, strict=True):
        if status:
            raise ServiceStartError(f"formatting broker {node.id}'s folder failed:{log_tail(node.log)}")
