"""PostgreSQL, RabbitMQ, the Pub/Sub emulator and moto in containers of the published images."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from commons_events.testing.services import _docker, _rabbitmq
from commons_events.testing.services._aws import MOTO_LACKS, RunningAws
from commons_events.testing.services._container import ContainerServer, make_container
from commons_events.testing.services._postgres import RunningPostgres
from commons_events.testing.services._process import accepts, free_port
from commons_events.testing.services._pubsub import EMULATOR_LACKS, RunningPubsub
from commons_events.testing.services._service import Place, RunningService

__all__ = ["AWS", "POSTGRES", "PUBSUB", "RABBITMQ", "DockerWay"]

R = TypeVar("R", bound=RunningService)


@dataclass(frozen=True)
class DockerWay(Generic[R]):
    """The way ``docker`` of a service that is one container.

    Args:
        service: the service's name.
        usual: the image, where the environment names no other.
        ports: those that are published.
        serves: whether clients are served, of the host, the published port of each, and what is logged.
        running: makes the service, of the host, the published ports, and what `RunningService` takes.
        environment: variables of the server.
        command: what the image's entry point is given; nothing leaves the image's own.
        entrypoint: in place of the image's.
        hostname: the container's name for itself.
        lacks: capability and reason.
    """

    service: str
    usual: str
    ports: Sequence[int]
    serves: Callable[[str, Mapping[int, int], bytes], bool]
    running: Callable[..., R]
    environment: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()
    entrypoint: Sequence[str] | None = None
    hostname: str | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)

    name = _docker.DOCKER

    @property
    def image(self) -> str:
        """The image: ``COMMONS_EVENTS_TEST_POSTGRES_IMAGE`` or the usual one."""
        return _docker.image_of(self.service, self.usual)

    def find(self) -> str:
        """The image and the engine.

        Raises:
            WayUnavailableError: no engine answers, or it can't get the image.
        """
        return _docker.describe(self.image)

    def start(self, place: Place, options: object = None) -> R:
        """Start the container, and return once it serves."""
        del options
        with _docker.engine() as client:
            _docker.tidy(client)
            host, bind = _docker.published_at(client)
        published, log = {port: free_port() for port in self.ports}, place.log(self.service)
        container = make_container(
            self.image,
            ports=published,
            bind=bind,
            environment=self.environment,
            command=self.command,
            entrypoint=self.entrypoint,
            hostname=self.hostname,
        )
        server = ContainerServer(self.image, container, lambda logged: self.serves(host, published, logged), log)
        running = self.running(
            host,
            published,
            way=self.name,
            description=self.image,
            lacks=self.lacks,
            log=log,
            servers={1: server},
            place=place,
        )
        return running.started()


# An engine accepts connections at a published port before the server does: each is asked for more than that.


def _postgres_serves(host: str, published: Mapping[int, int], _: bytes) -> bool:
    # The start of a session: version 3.0, names and values; the answer of one that serves begins with R.
    words = b"user\0postgres\0database\0postgres\0\0"
    try:
        with socket.create_connection((host, published[5432]), timeout=5) as connection:
            connection.sendall(struct.pack(">ii", 8 + len(words), 3 << 16) + words)
            answer = connection.recv(1)
            # Goodbye, so that it logs no lost client.
            connection.sendall(b"X\0\0\0\4")
    except OSError:
        return False
    return answer == b"R"


def _postgres(host: str, published: Mapping[int, int], **stated: Any) -> RunningPostgres:
    return RunningPostgres(address=f"postgresql://postgres@{host}:{published[5432]}/postgres", **stated)


def _management(host: str, published: Mapping[int, int]) -> str:
    return f"http://guest:guest@{host}:{published[15672]}"


def _rabbitmq_serves(host: str, published: Mapping[int, int], _: bytes) -> bool:
    return accepts(published[5672], host) and _rabbitmq.serves(_management(host, published))


def _rabbitmq_running(host: str, published: Mapping[int, int], **stated: Any) -> _rabbitmq.RunningRabbitMQ:
    return _rabbitmq.RunningRabbitMQ(
        address=f"amqp://guest:guest@{host}:{published[5672]}/%2F",
        management_url=_management(host, published),
        **stated,
    )


def _pubsub(host: str, published: Mapping[int, int], **stated: Any) -> RunningPubsub:
    return RunningPubsub(address=f"{host}:{published[8085]}", **stated)


def _aws(host: str, published: Mapping[int, int], **stated: Any) -> RunningAws:
    return RunningAws(address=f"http://{host}:{published[5000]}", **stated)


# Erlang makes a table of as many files as it may open, which can be a thousand million.
_START_RABBITMQ = f"""
test "$(ulimit -n)" -le 65536 || ulimit -n 65536
rabbitmq-plugins enable --offline {" ".join(_rabbitmq.PLUGINS)} && exec docker-entrypoint.sh "$@"
"""

POSTGRES = DockerWay(
    "postgres",
    "postgres:17",
    (5432,),
    _postgres_serves,
    _postgres,
    environment={"POSTGRES_HOST_AUTH_METHOD": "trust"},
    # A killed server loses nothing by this; only a machine that loses power would.
    command=("-c", "fsync=off"),
)
RABBITMQ = DockerWay(
    "rabbitmq",
    "rabbitmq:4-management",
    (5672, 15672),
    _rabbitmq_serves,
    _rabbitmq_running,
    # So that a test sees its queues and connections soon.
    environment={"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-rabbit collect_statistics_interval 1000"},
    entrypoint=("/bin/sh", "-c", _START_RABBITMQ, "start"),
    command=("rabbitmq-server",),
    # The node's name has it, and its data have the node's.
    hostname="commons-events",
)
PUBSUB = DockerWay(
    "pubsub",
    "gcr.io/google.com/cloudsdktool/google-cloud-cli:emulators",
    (8085,),
    lambda host, published, logged: b"Server started" in logged and accepts(published[8085], host),
    _pubsub,
    command=("gcloud", "beta", "emulators", "pubsub", "start", "--host-port=0.0.0.0:8085"),
    lacks=EMULATOR_LACKS,
)
AWS = DockerWay(
    "aws",
    "motoserver/moto:5.1.0",
    (5000,),
    lambda host, published, logged: b"Running on" in logged and accepts(published[5000], host),
    _aws,
    lacks=MOTO_LACKS,
)
