"""Certificates, users and settings of a Kafka that asks who you are."""

from __future__ import annotations

from pathlib import Path

from commons_events.testing.services._errors import WayUnavailableError
from commons_events.testing.services._kafka import KafkaSecurity

__all__ = ["prepare", "settings", "users"]

_USER = "alice"
_PASSWORD = "alice-secret"
_CLIENT = "client.commons-events.test"
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
    try:
        import trustme
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise WayUnavailableError(
            'trustme is not installed, which makes certificates: pip install "commons-events-testing[tls]"'
        ) from None

    def write(name: str, certificate: trustme.LeafCert) -> tuple[Path, Path]:
        # Kafka reads keys as PKCS #8 alone (KIP-651).
        key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), password=None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
        (folder / f"{name}.key").write_bytes(key)
        (folder / f"{name}.crt").write_bytes(chain)
        (folder / f"{name}.pem").write_bytes(key + chain)
        return folder / f"{name}.crt", folder / f"{name}.key"

    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    write("broker", authority.issue_cert(*dict.fromkeys((host, "127.0.0.1", "localhost"))))
    certificate, key = write("client", authority.issue_cert(_CLIENT, common_name=_CLIENT))
    return KafkaSecurity(sasl, mtls, _USER, _PASSWORD, folder / "ca.crt", certificate, key)


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
        "super.users": f"User:ANONYMOUS;User:CN={_CLIENT}",
        "ssl.principal.mapping.rules": f"RULE:^.*CN={_CLIENT.replace('.', '[.]')}.*$/CN={_CLIENT}/,DEFAULT",
    } | {f"listener.name.sasl_ssl.{name}.sasl.jaas.config": line for name, line in modules.items()}


def users(security: KafkaSecurity) -> list[str]:
    """What the storage tool is told of the users that sign in by SCRAM."""
    words = []
    for mechanism in _SCRAM:
        words += ["--add-scram", f"{mechanism}=[name={security.username},password={security.password}]"]
    return words
