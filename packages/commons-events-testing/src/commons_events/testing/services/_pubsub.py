"""Google Pub/Sub: the emulator of Google's SDK."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from commons_events.testing.services._errors import ServiceStartError, WayUnavailableError
from commons_events.testing.services._process import ServerProcess, accepts, free_port, wait_until
from commons_events.testing.services._restartable import Restartable
from commons_events.testing.services._service import ENVIRONMENT, Place, RunningService

__all__ = ["CAPABILITIES", "EMULATOR_LACKS", "LocalPubsub", "RunningPubsub", "given"]

CAPABILITIES = {
    "durability": "published messages outlive a kill -9 of the server",
    "filters": "subscriptions that get only what their filter matches",
    "ordered-redelivery": "after a nack of an ordered message, it and all later ones of its key come again",
    "signals": "the server killed, paused and started again",
    "stale-ack-error": "the error of an exactly-once subscription for an ack that came too late",
}
EMULATOR_LACKS = {
    "durability": "the emulator keeps messages in memory",
    "filters": "the emulator ignores them",
    "ordered-redelivery": "after a nack of an ordered message the emulator sends that one alone again",
    "stale-ack-error": "the emulator answers InvalidArgument",
}


class RunningPubsub(RunningService):
    """A Pub/Sub emulator; tests keep apart by project, which needs no making: ``pubsub.unique("project")``."""

    def __init__(self, **stated: Any) -> None:
        super().__init__(service="pubsub", **stated)

    @property
    def environment(self) -> dict[str, str]:
        """What Google's client libraries find the emulator by."""
        return {"PUBSUB_EMULATOR_HOST": self.address}

    @classmethod
    def capabilities(cls) -> frozenset[str]:
        """The words of `CAPABILITIES`."""
        return frozenset(CAPABILITIES)


def given(address: str) -> RunningPubsub:
    """The emulator whose ``host:port`` the environment holds.

    Raises:
        ServiceStartError: nobody accepts connections there.
    """
    host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
    if not host or not port.isdigit() or not accepts(int(port), host):
        raise ServiceStartError(f"COMMONS_EVENTS_TEST_PUBSUB={address}: nobody accepts connections at that host:port")
    lacks = EMULATOR_LACKS | {"signals": "its process belongs to somebody else"}
    return RunningPubsub(
        way=ENVIRONMENT, description="a Pub/Sub emulator of yours", address=f"{host}:{port}", lacks=lacks
    )


def _emulator() -> Path:
    """The folder of the emulator, in the SDK that gcloud belongs to or where Debian puts it."""
    roots = [Path("/usr/lib/google-cloud-sdk")]
    gcloud = shutil.which("gcloud")
    if gcloud is not None:
        roots.insert(0, Path(gcloud).resolve().parent.parent)
    for root in roots:
        folder = root / "platform" / "pubsub-emulator"
        if (folder / "bin" / "cloud-pubsub-emulator").exists():
            return folder
    raise WayUnavailableError(
        "no Pub/Sub emulator in Google's SDK (gcloud components install pubsub-emulator, or Google's package "
        "google-cloud-cli-pubsub-emulator)"
    )


class LocalPubsub:
    """The way ``local``: the emulator in a process of ours."""

    name = "local"

    def find(self) -> str:
        """The emulator's version and folder.

        Raises:
            WayUnavailableError: it or Java is missing.
        """
        folder = _emulator()
        home = os.environ.get("JAVA_HOME")
        if shutil.which("java", path=str(Path(home) / "bin") if home else None) is None:
            raise WayUnavailableError("the Pub/Sub emulator needs Java, and there is none")
        jars = [match[1] for jar in folder.glob("lib/*.jar") if (match := re.search(r"emulator-([\d.]+)", jar.name))]
        return f"Google's Pub/Sub emulator {max(jars, default='of no known version')}, in {folder}"

    def start(self, place: Place, options: object = None) -> RunningPubsub:
        """Start it, and return once it accepts connections."""
        del options
        port, log = free_port(), place.log("pubsub")
        command = [str(_emulator() / "bin" / "cloud-pubsub-emulator"), "--host=127.0.0.1", f"--port={port}"]

        def ready(process: ServerProcess) -> None:
            wait_until(lambda: accepts(port), what="the Pub/Sub emulator", process=process)

        running = RunningPubsub(
            way=self.name,
            description=self.find().partition(", in ")[0],
            address=f"127.0.0.1:{port}",
            lacks=EMULATOR_LACKS,
            log=log,
            servers={
                1: Restartable(
                    "the Pub/Sub emulator", lambda: ServerProcess(command, log=log, folder=place.folder), ready
                )
            },
            place=place,
        )
        return running.started()
