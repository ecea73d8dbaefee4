"""Certificates for servers that speak TLS, and for the clients that they let in."""

from __future__ import annotations

from pathlib import Path

from commons_events.testing.services._errors import WayUnavailableError

__all__ = ["CLIENT", "write_certificates"]

CLIENT = "client.commons-events.test"
"""The common name of the client's certificate."""


def write_certificates(folder: Path, server: str, *, host: str = "127.0.0.1") -> None:
    """Write an authority's certificate, and one each for the server and a client, into the folder; all are PEM.

    They are ``ca.crt``, and for the server and for ``client`` each a ``.key`` (PKCS #8, the one form that Kafka reads,
    KIP-651), a ``.crt`` with its chain, and a ``.pem`` of both.

    Args:
        folder: where to.
        server: what the server's files are called.
        host: where clients find it, beside 127.0.0.1 and localhost.

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
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    for name, leaf in (
        (server, authority.issue_cert(*dict.fromkeys((host, "127.0.0.1", "localhost")))),
        ("client", authority.issue_cert(CLIENT, common_name=CLIENT)),
    ):
        key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), password=None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = b"".join(part.bytes() for part in leaf.cert_chain_pems)
        (folder / f"{name}.key").write_bytes(key)
        (folder / f"{name}.crt").write_bytes(chain)
        (folder / f"{name}.pem").write_bytes(key + chain)
