"""Real servers for tests: found, or started on 127.0.0.1 and never left running.

A test asks for a service, not for a way to get it. For each, the ways are tried in this order: an address in the
environment (``COMMONS_EVENTS_TEST_KAFKA=host:port``), a container where a Docker engine answers, a private local
server, an embedded one. What came says which
way it came, and what it can't serve.
"""

from commons_events.testing.services._aws import RunningAws
from commons_events.testing.services._catalog import (
    AWS,
    KAFKA,
    POSTGRES,
    PUBSUB,
    RABBITMQ,
    SERVICES,
    SharedServices,
    shared,
    start_kafka,
    start_rabbitmq,
)
from commons_events.testing.services._errors import (
    ServiceError,
    ServiceStartError,
    ServiceUnavailableError,
    WayUnavailableError,
)
from commons_events.testing.services._kafka import CAPABILITIES as KAFKA_CAPABILITIES
from commons_events.testing.services._kafka import KafkaOptions, KafkaSecurity, RunningKafka
from commons_events.testing.services._kafka_local import KafkaCluster
from commons_events.testing.services._postgres import RunningPostgres
from commons_events.testing.services._process import ServerProcess, free_port
from commons_events.testing.services._pubsub import RunningPubsub
from commons_events.testing.services._rabbitmq import RabbitMQOptions, RabbitMQSecurity, RunningRabbitMQ
from commons_events.testing.services._restartable import Restartable
from commons_events.testing.services._service import Place, RunningService, Service, Way

__all__ = [
    "AWS",
    "KAFKA",
    "KAFKA_CAPABILITIES",
    "POSTGRES",
    "PUBSUB",
    "RABBITMQ",
    "SERVICES",
    "KafkaCluster",
    "KafkaOptions",
    "KafkaSecurity",
    "Place",
    "RabbitMQOptions",
    "RabbitMQSecurity",
    "Restartable",
    "RunningAws",
    "RunningKafka",
    "RunningPostgres",
    "RunningPubsub",
    "RunningRabbitMQ",
    "RunningService",
    "ServerProcess",
    "Service",
    "ServiceError",
    "ServiceStartError",
    "ServiceUnavailableError",
    "SharedServices",
    "Way",
    "WayUnavailableError",
    "free_port",
    "shared",
    "start_kafka",
    "start_rabbitmq",
]
