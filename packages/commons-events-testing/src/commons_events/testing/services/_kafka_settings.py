"""What every Apache Kafka that tests start is told, in whichever way it comes."""

from __future__ import annotations

import base64
import uuid

from commons_events.testing.services._kafka import KafkaOptions

__all__ = ["STARTED", "cluster_id", "lacks", "settings"]

STARTED = b"Kafka Server started"
"""The line of the log that comes once the cluster counts the broker in; clients are listened to before that."""
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
    # A broker that died is noticed soon, and one that comes again doesn't wait long for its former life's session; but
    # a busy machine is not taken for a dead broker.
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "6000",
    "initial.broker.registration.timeout.ms": "180000",
    "controlled.shutdown.enable": "true",
}


def settings(brokers: int) -> dict[str, str]:
    """Lines of server.properties; every internal topic of three brokers or more survives the loss of one."""
    replicas, in_sync = str(min(brokers, 3)), "2" if brokers > 2 else "1"
    return _SETTINGS | {
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


def lacks(options: KafkaOptions) -> dict[str, str]:
    """What was not asked for, as capability and reason."""
    missing = {}
    if options.brokers < 3:
        missing["cluster"] = "one broker was asked for"
    if not options.secured:
        missing["security"] = "secured listeners were not asked for"
    return missing


def cluster_id() -> str:
    """A new cluster's id: 16 bytes in URL-safe base64; one that begins with a dash would be taken for an option."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
