"""SNS and SQS: moto's server."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from commons_events.testing.services._errors import ServiceStartError, WayUnavailableError
from commons_events.testing.services._process import ServerProcess, accepts, free_port, wait_until
from commons_events.testing.services._restartable import Restartable
from commons_events.testing.services._service import ENVIRONMENT, Place, RunningService

__all__ = ["CAPABILITIES", "MOTO_LACKS", "MotoServer", "RunningAws", "given"]

CAPABILITIES = {
    "durability": "messages that outlive a kill -9 of the server",
    "move-tasks": "messages moved back from a dead-letter queue (StartMessageMoveTask)",
    "redrive-source": "the queue that a dead letter came from (DeadLetterQueueSourceArn)",
    "signals": "the server killed, paused and started again",
    "subscription-dead-letters": "a dead-letter queue of a subscription's own",
}
MOTO_LACKS = {
    "durability": "moto keeps messages in memory",
    "move-tasks": "moto doesn't serve StartMessageMoveTask",
    "redrive-source": "moto doesn't tell DeadLetterQueueSourceArn",
    "subscription-dead-letters": "moto ignores a subscription's RedrivePolicy",
}


class RunningAws(RunningService):
    """A server that speaks for SNS and SQS; tests keep apart by the names of topics and queues."""

    region = "us-east-1"

    def __init__(self, **stated: Any) -> None:
        super().__init__(service="aws", **stated)

    @property
    def url(self) -> str:
        """The ``endpoint_url`` of clients."""
        return self.address

    @property
    def client_settings(self) -> dict[str, str]:
        """What boto3 takes: ``boto3.client("sqs", **aws.client_settings)``. The keys open nothing anywhere."""
        return {
            "endpoint_url": self.url,
            "region_name": self.region,
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
        }

    @classmethod
    def capabilities(cls) -> frozenset[str]:
        """The words of `CAPABILITIES`."""
        return frozenset(CAPABILITIES)


def given(address: str) -> RunningAws:
    """The server whose endpoint the environment holds.

    Raises:
        ServiceStartError: nobody accepts connections there.
    """
    url = address if "://" in address else f"http://{address}"
    parts = urlsplit(url)
    if not accepts(parts.port or (443 if parts.scheme == "https" else 80), parts.hostname or "127.0.0.1"):
        raise ServiceStartError(f"COMMONS_EVENTS_TEST_AWS={address}: nobody accepts connections there")
    lacks = dict.fromkeys(("signals", "durability"), "its process belongs to somebody else")
    return RunningAws(way=ENVIRONMENT, description="an endpoint of yours", address=url, lacks=lacks)


class MotoServer:
    """The way ``moto``: moto's server in a process of ours."""

    name = "moto"

    def find(self) -> str:
        """The version of moto.

        Raises:
            WayUnavailableError: it, or what its server needs, isn't installed.
        """
        if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask_cors") is None:
            raise WayUnavailableError('moto\'s server is not installed (pip install "moto[server]")')
        return f"moto {version('moto')}"

    def start(self, place: Place, options: object = None) -> RunningAws:
        """Start it, and return once it accepts connections."""
        del options
        port, log = free_port(), place.log("moto")
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

        def ready(process: ServerProcess) -> None:
            wait_until(lambda: accepts(port), what="moto", process=process)

        running = RunningAws(
            way=self.name,
            description=self.find(),
            address=f"http://127.0.0.1:{port}",
            lacks=MOTO_LACKS,
            log=log,
            servers={1: Restartable("moto", lambda: ServerProcess(command, log=log, folder=place.folder), ready)},
            place=place,
        )
        return running.started()
