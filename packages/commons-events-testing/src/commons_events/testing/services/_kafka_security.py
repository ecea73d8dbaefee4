"""Certificates, users and settings of a Kafka that asks who you are."""

from __future__ import annotations

from pathlib import Path

from commons_events.testing.services._certificates import CLIENT, write_certificates
from commons_events.testing.services._kafka import KafkaSecurity

__all__ = ["prepare", "settings", "users"]

_USER = "alice"
_PASSWORD = "alice-secret"
_SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")


def prepare(folder: Path, *, sasl: str, mtls: str, host: str = "127.0.0.1") -> KafkaSecurity:
    """Write an authority's certificate, and one each for the brokers and a client, into the folder.

    Args:
        folder: where they are written; the brokers' with its key is ``broker.pem``.
        sasl: the addresses of the brokers' listeners for SASL_SSL.
        mtls: those of the listeners that ask for a certificate.
        host: where clients find the brokers.

    Raises:
        WayUnavailableError: trustme, which makes them, isn't installed.
    """
    write_certificates(folder, "broker", host=host)
    files = (folder / name for name in ("ca.crt", "client.crt", "client.key"))
    return KafkaSecurity(sasl, mtls, _USER, _PASSWORD, *files)


def settings(security: KafkaSecurity, *, broker: str, ca: str) -> dict[str, str]:
    """The lines of server.properties that secure the listeners.

    Args:
        security: what `prepare` gave.
        broker: path of ``broker.pem`` as the brokers find it.
        ca: path of the authority's certificate as the brokers find it.
    """
    module = "org.apache.kafka.common.security"
    plain = f'{module}.plain.PlainLoginModule required user_{security.username}="{security.password}";'
    # Accepts JSON Web Tokens without a signature: for tests alone.
    bearer = f"{module}.oauthbearer.OAuthBearerLoginModule required;"
    modules = {"plain": plain, "oauthbearer": bearer}
    modules |= {mechanism.lower(): f"{module}.scram.ScramLoginModule required;" for mechanism in _SCRAM}
    return {
        "sasl.enabled.mechanisms": ",".join(security.mechanisms),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": broker,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": ca,
        "listener.name.ssl.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
        "super.users": f"User:ANONYMOUS;User:CN={CLIENT}",
        "ssl.principal.mapping.rules": f"RULE:^.*CN={CLIENT.replace('.', '[.]')}.*$/CN={CLIENT}/,DEFAULT",
    } | {f"listener.name.sasl_ssl.{name}.sasl.jaas.config": line for name, line in modules.items()}


def users(security: KafkaSecurity) -> list[str]:
    """What the storage tool is told of the users that sign in by SCRAM."""
    words = []
    for mechanism in _SCRAM:
        words += ["--add-scram", f"{mechanism}=[name={security.username},password={security.password}]"]
    return words
