"""Kafka: what a running one offers, whichever way it came."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commons_events.testing.services._errors import ServiceStartError
from commons_events.testing.services._service import ENVIRONMENT, RunningService, unsupported

__all__ = ["CAPABILITIES", "KafkaOptions", "KafkaSecurity", "RunningKafka", "answers", "given"]

CAPABILITIES: dict[str, str] = {
    "admin": "topics created, described and deleted through the Admin API",
    "alter-configs": "configurations of topics described and altered",
    "benchmark": "rates that mean something",
    "cluster": "three brokers",
    "consumer-protocol": "the consumer rebalance protocol of KIP-848 (`group.protocol=consumer`)",
    "create-partitions": "partitions added to a topic",
    "durability": "messages that outlive a kill -9 of the broker",
    "fencing": "a producer fenced by a newer one of its transactional id",
    "group-offsets": "group offsets listed and altered through the Admin API",
    "latest-offset": "the end offset right after batches of several records",
    "offsets-for-times": "offsets looked up by timestamp",
    "read-committed": "aborted records hidden under `isolation.level=read_committed`",
    "security": "listeners with SASL_SSL and with client certificates",
    "size-limit": "a message over `max.message.bytes` refused by the broker",
    "signals": "brokers killed, paused and started again",
    "transactional-offsets": "offsets committed in a transaction",
    "transactions": "transactions committed and aborted",
}
"""What a test may ask of its Kafka; each way says which of them it lacks, and why."""


@dataclass(frozen=True)
class KafkaOptions:
    """What is asked for.

    Args:
        brokers: 1, or 3 and more for a cluster; each is broker and controller.
        secured: with listeners for SASL_SSL and mutual TLS beside the plain one, and with an authorizer.
        settings: lines of every broker's server.properties beside ours, or in place of ours.
        heap: megabytes of each broker's heap.
    """

    brokers: int = 1
    secured: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    heap: int = 512

    @property
    def plain(self) -> bool:
        """Whether any single broker serves."""
        return self.brokers == 1 and not self.secured and not self.settings


@dataclass(frozen=True)
class KafkaSecurity:
    """The listeners of a cluster that ask who you are.

    ``username`` is an ordinary user: what it may do, access control lists say. The plain listener's clients and the
    holder of the client certificate are super users.
    """

    sasl_bootstrap_servers: str
    mtls_bootstrap_servers: str
    username: str
    password: str
    ca: Path
    """The authority's certificate, which clients trust; PEM, as the others."""
    certificate: Path
    key: Path

    mechanisms = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")

    def sasl(self, mechanism: str) -> dict[str, str]:
        """Settings in librdkafka's words of a client that signs in over TLS; a token comes from its own callback."""
        if mechanism not in self.mechanisms:
            raise ValueError(f"no mechanism {mechanism!r}; there are: {', '.join(self.mechanisms)}")
        settings = {
            "bootstrap.servers": self.sasl_bootstrap_servers,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "ssl.ca.location": str(self.ca),
        }
        if mechanism != "OAUTHBEARER":
            settings |= {"sasl.username": self.username, "sasl.password": self.password}
        return settings

    def mtls(self) -> dict[str, str]:
        """Settings in librdkafka's words of a client that shows its certificate."""
        return {
            "bootstrap.servers": self.mtls_bootstrap_servers,
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.ca),
            "ssl.certificate.location": str(self.certificate),
            "ssl.key.location": str(self.key),
        }


class RunningKafka(RunningService):
    """A Kafka that creates topics by themselves when a producer names one."""

    def __init__(self, **stated: Any) -> None:
        super().__init__(service="kafka", **stated)
        self.security: KafkaSecurity | None = None
        """The secured listeners, if they were asked for."""
        self.session_timeout_ms = 6000
        """A ``session.timeout.ms`` with which groups form soon and aren't thrown out on a busy machine."""

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` of each broker's plain listener, with commas between."""
        return self.address

    @classmethod
    def capabilities(cls) -> frozenset[str]:
        """The words of `CAPABILITIES`."""
        return frozenset(CAPABILITIES)

    @property
    def nodes(self) -> tuple[int, ...]:
        """The brokers' ids, as far as they can be told to stop."""
        return ()

    def pid(self, node: int = 1) -> int:
        """The process id of a broker.

        Raises:
            ServiceError: this way's brokers aren't processes of ours; all methods below raise that too.
        """
        raise unsupported(self, f"tell broker {node}'s process")

    def kill(self, node: int = 1) -> None:
        """End a broker by SIGKILL, and return once it is gone. Its files stay."""
        raise unsupported(self, f"kill broker {node}")

    def terminate(self, node: int = 1) -> None:
        """Shut a broker down orderly, by SIGTERM, and return once it is gone."""
        raise unsupported(self, f"terminate broker {node}")

    def start(self, node: int = 1, *, wait: bool = True) -> None:
        """Start a broker again on its files and ports; return once it serves, or at once without ``wait``."""
        raise unsupported(self, f"start broker {node}")

    def pause(self, node: int = 1) -> None:
        """Freeze a broker by SIGSTOP: its connections stay open and silent."""
        raise unsupported(self, f"pause broker {node}")

    def resume(self, node: int = 1) -> None:
        """Let a paused broker go on, by SIGCONT."""
        raise unsupported(self, f"resume broker {node}")


def answers(address: str, timeout: float = 1.0) -> bool:
    """Whether a Kafka broker answers an ApiVersions request there (KIP-35), with no error."""
    host, _, port = address.rpartition(":")
    # Key 18, version 0, correlation id 1, no client id.
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as stream:
                head = stream.read(10)
    except OSError:
        return False
    return len(head) == 10 and struct.unpack(">iih", head)[1:] == (1, 0)


def given(address: str) -> RunningKafka:
    """The Kafka whose address the environment holds.

    Raises:
        ServiceStartError: no broker answers there.
    """
    servers = address.removeprefix("kafka://").rstrip("/")
    for server in servers.split(","):
        if not _has_port(server):
            raise ServiceStartError(f"COMMONS_EVENTS_TEST_KAFKA={address}: {server!r} is no host:port")
    # A listener that asks for a sign-in answers ApiVersions too, but tests have nothing to sign in with.
    if not any(answers(server, timeout=5) for server in servers.split(",")):
        raise ServiceStartError(f"COMMONS_EVENTS_TEST_KAFKA={address}: no Kafka broker answers there")
    lacks = dict.fromkeys(("signals", "durability"), "its processes belong to somebody else")
    lacks["security"] = "only the address of a plain listener is given"
    if "," not in servers:
        lacks["cluster"] = "the address names one broker"
    # What it is good for, whoever runs it may say: COMMONS_EVENTS_TEST_KAFKA_LACKS=transactions,cluster.
    for capability in os.environ.get("COMMONS_EVENTS_TEST_KAFKA_LACKS", "").replace(",", " ").split():
        if capability not in CAPABILITIES:
            known = ", ".join(CAPABILITIES)
            raise ServiceStartError(
                f"COMMONS_EVENTS_TEST_KAFKA_LACKS: no capability {capability!r}; there are: {known}"
            )
        lacks[capability] = "COMMONS_EVENTS_TEST_KAFKA_LACKS says so"
    return RunningKafka(way=ENVIRONMENT, description="a Kafka of yours", address=servers, lacks=lacks)


def _has_port(server: str) -> bool:
    host, colon, port = server.rpartition(":")
    return bool(host and colon) and port.isdigit()
