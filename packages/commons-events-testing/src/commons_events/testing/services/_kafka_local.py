"""Apache Kafka itself, from its jars: one or more processes, each broker and controller (KRaft)."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commons_events.testing.services import _kafka_security
from commons_events.testing.services._errors import ServiceStartError, WayUnavailableError
from commons_events.testing.services._kafka import KafkaOptions, RunningKafka, answers
from commons_events.testing.services._kafka_settings import STARTED, cluster_id, lacks
from commons_events.testing.services._kafka_settings import settings as kafka_settings
from commons_events.testing.services._process import ServerProcess, free_port, log_tail, wait_until
from commons_events.testing.services._restartable import Restartable
from commons_events.testing.services._service import Place, cache_folder

__all__ = ["ApacheKafka", "KafkaCluster"]

_OLDEST_JAVA = 17
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

    def server(self, command: list[str], place: Place) -> Restartable:
        """What starts the broker on these files."""
        begins = [0]

        def launch() -> ServerProcess:
            begins[0] = self.log.stat().st_size
            arguments = [*command, "kafka.Kafka", str(self.properties)]
            return ServerProcess(arguments, log=self.log, folder=place.folder)

        def serves() -> bool:
            # Clients are listened to before the cluster counts the broker in; this line comes after that.
            with self.log.open("rb") as log:
                log.seek(begins[0])
                return STARTED in log.read() and answers(f"127.0.0.1:{self.plain}")

        what = f"broker {self.id} of Apache Kafka"
        return Restartable(what, launch, lambda process: wait_until(serves, what=what, process=process))


class KafkaCluster(RunningKafka):
    """Apache Kafka in processes of ours, which can be killed, frozen and started again by the brokers' ids, from 1.

    A broker serves only once most of the cluster's controllers run, and each broker is a controller.
    """

    def __init__(self, nodes: list[_Node], command: list[str], place: Place, **stated: Any) -> None:
        servers = {node.id: node.server(command, place) for node in nodes}
        super().__init__(way="local", log=nodes[0].log, servers=servers, place=place, **stated)
        self._files = {node.id: node for node in nodes}
        self.session_timeout_ms = 3000

    @property
    def logs(self) -> dict[str, Path]:
        """Each broker's log, as ``kafka broker 1``."""
        return {f"kafka broker {node.id}": node.log for node in self._files.values()}

    def data(self, node: int = 1) -> Path:
        """The folder of a broker's partitions."""
        return self._files[node].folder / "data"


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
        settings = kafka_settings(options.brokers)
        settings["controller.quorum.voters"] = ",".join(f"{node.id}@127.0.0.1:{node.controller}" for node in nodes)
        security = None
        if options.secured:
            # It may find its library missing.
            security = _kafka_security.prepare(
                place.folder,
                sasl=",".join(f"127.0.0.1:{node.secured[0]}" for node in nodes if node.secured),
                mtls=",".join(f"127.0.0.1:{node.secured[1]}" for node in nodes if node.secured),
            )
            settings |= _kafka_security.settings(security, broker=str(place.folder / "broker.pem"), ca=str(security.ca))
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
            lacks=lacks(options),
        )
        cluster.security = security
        return cluster.started()


def _format(command: list[str], nodes: list[_Node], users: list[str]) -> None:
    """Write each node's metadata, all at once; a process for each takes a second."""
    cluster = cluster_id()
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
