"""Apache Kafka in containers: one or more brokers of the published image, each broker and controller (KRaft)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commons_events.testing.services import _docker, _kafka_security
from commons_events.testing.services._container import ContainerServer, make_container
from commons_events.testing.services._errors import ServiceStartError
from commons_events.testing.services._kafka import KafkaOptions, RunningKafka, answers
from commons_events.testing.services._kafka_settings import STARTED, cluster_id, lacks
from commons_events.testing.services._kafka_settings import settings as kafka_settings
from commons_events.testing.services._process import free_port
from commons_events.testing.services._service import Place

if TYPE_CHECKING:
    from testcontainers.core.network import Network

__all__ = ["DockerKafka"]

IMAGE = "apache/kafka:4.1.0"
_PORTS = {"PLAINTEXT": 9092, "SASL_SSL": 9095, "SSL": 9096}
"""The listeners of clients; these ports are published."""
_INTERNAL, _CONTROLLER = 9094, 9093
_PROPERTIES, _BROKER, _CA = "/tmp/server.properties", "/tmp/broker.pem", "/tmp/ca.crt"
_DATA = "/tmp/kafka-data"
# The image's own start makes the properties of its environment, and knows no users of SCRAM.
_START = f"""
test -f {_DATA}/meta.properties || /opt/kafka/bin/kafka-storage.sh format --config {_PROPERTIES} "$@" || exit
exec /opt/kafka/bin/kafka-server-start.sh {_PROPERTIES}
"""


@dataclass
class _Node:
    """A broker's names and ports."""

    id: int
    name: str
    log: Path
    published: dict[str, int]

    def properties(self, host: str, settings: Mapping[str, str]) -> bytes:
        inside = {name: _PORTS[name] for name in self.published} | {"INTERNAL": _INTERNAL, "CONTROLLER": _CONTROLLER}
        outside = [f"{name}://{host}:{port}" for name, port in self.published.items()]
        own = {
            "node.id": str(self.id),
            "log.dirs": _DATA,
            "listeners": ",".join(f"{name}://0.0.0.0:{port}" for name, port in inside.items()),
            "advertised.listeners": ",".join([*outside, f"INTERNAL://{self.name}:{_INTERNAL}"]),
        }
        return "".join(f"{name}={value}\n" for name, value in {**own, **settings}.items()).encode()


class _DockerCluster(RunningKafka):
    def __init__(self, nodes: list[_Node], **stated: object) -> None:
        super().__init__(way=_docker.DOCKER, log=nodes[0].log, **stated)
        self._files = nodes
        self.session_timeout_ms = 3000

    @property
    def logs(self) -> dict[str, Path]:
        """Each broker's log, as ``kafka broker 1``."""
        return {f"kafka broker {node.id}": node.log for node in self._files}


class DockerKafka:
    """The way ``docker``."""

    name = _docker.DOCKER

    @property
    def image(self) -> str:
        """The image, which has Kafka's scripts in /opt/kafka/bin as Apache's has."""
        return _docker.image_of("kafka", IMAGE)

    def find(self) -> str:
        """The image and the engine.

        Raises:
            WayUnavailableError: no engine answers, or it can't get the image.
        """
        return _docker.describe(self.image)

    def start(self, place: Place, options: KafkaOptions | None) -> RunningKafka:
        """Start a container for each broker, in a network of their own, and return once all serve."""
        options = options or KafkaOptions()
        if options.brokers < 1:
            raise ValueError(f"brokers must be 1 or more, not {options.brokers}")
        names = ["PLAINTEXT", *(("SASL_SSL", "SSL") if options.secured else ())]
        nodes = [
            _Node(
                id=number,
                name=f"broker-{number}" if options.brokers > 1 else "localhost",
                log=place.log(f"kafka-{number}"),
                # Chosen beforehand, since a broker tells its clients where it is found.
                published={name: free_port() for name in names},
            )
            for number in range(1, options.brokers + 1)
        ]
        with _docker.engine() as client:
            _docker.tidy(client)
            host, bind = _docker.published_at(client)
            network = _network() if options.brokers > 1 else None

        def addresses(listener: str) -> str:
            return ",".join(f"{host}:{node.published[listener]}" for node in nodes)

        settings = kafka_settings(options.brokers) | {
            "inter.broker.listener.name": "INTERNAL",
            "controller.quorum.voters": ",".join(f"{node.id}@{node.name}:{_CONTROLLER}" for node in nodes),
        }
        settings["listener.security.protocol.map"] += ",INTERNAL:PLAINTEXT"
        arguments, files, security = ["--cluster-id", cluster_id()], {}, None
        with contextlib.ExitStack() as undo:
            if network is not None:
                undo.callback(_remove, network)
            if options.secured:
                sasl, mtls = addresses("SASL_SSL"), addresses("SSL")
                security = _kafka_security.prepare(place.folder, sasl=sasl, mtls=mtls, host=host)
                settings |= _kafka_security.settings(security, broker=_BROKER, ca=_CA)
                files = {_BROKER: (place.folder / "broker.pem").read_bytes(), _CA: security.ca.read_bytes()}
                arguments += _kafka_security.users(security)
            settings |= options.settings
            environment = {
                "KAFKA_HEAP_OPTS": f"-Xms64m -Xmx{options.heap}m",
                "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:+UseSerialGC",
                # Without a log of the garbage collector.
                "EXTRA_ARGS": "-name kafkaServer",
            }
            servers = {}
            for node in nodes:
                container = make_container(
                    self.image,
                    ports={_PORTS[name]: port for name, port in node.published.items()},
                    bind=bind,
                    environment=environment,
                    entrypoint=["/bin/sh", "-c", _START, "start"],
                    command=arguments,
                    files={**files, _PROPERTIES: node.properties(host, settings)},
                    network=network,
                    hostname=node.name if network is not None else None,
                )
                servers[node.id] = ContainerServer(
                    f"broker {node.id} of Apache Kafka",
                    container,
                    _serving(f"{host}:{node.published['PLAINTEXT']}"),
                    node.log,
                )
            cleaning = undo.pop_all()
        many = f"{options.brokers} brokers" if options.brokers > 1 else "one broker"
        cluster = _DockerCluster(
            nodes,
            description=f"{self.image}, {many}",
            address=addresses("PLAINTEXT"),
            lacks={"benchmark": "a proxy of the Docker engine stands between"} | lacks(options),
            servers=servers,
            place=place,
            stop=cleaning.close,
        )
        cluster.security = security
        return cluster.started()


def _serving(address: str) -> Callable[[bytes], bool]:
    return lambda logged: STARTED in logged and answers(address)


def _network() -> Network:
    from docker.errors import APIError
    from testcontainers.core.network import Network

    network = Network(docker_network_kw={"labels": {_docker.OWNER: _docker.owner()}})
    try:
        return network.create()
    except APIError as error:
        raise ServiceStartError(f"the Docker engine makes no network: {_docker.short(error)}") from error


def _remove(network: Network) -> None:
    from docker.errors import APIError

    # What stays, because the engine is gone for instance, has the label by which it is removed later.
    with contextlib.suppress(APIError):
        network.remove()
    network._docker.client.close()
