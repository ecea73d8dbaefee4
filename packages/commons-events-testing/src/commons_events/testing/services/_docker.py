"""The way ``docker``: which engine answers, which images it can have, and what dead test runs left with it."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from commons_events.testing.services._errors import ServiceStartError, WayUnavailableError
from commons_events.testing.services._owner import gone, owner

if TYPE_CHECKING:
    from testcontainers.core.docker_client import DockerClient

__all__ = [
    "DOCKER",
    "OWNER",
    "available",
    "describe",
    "engine",
    "gone",
    "image_of",
    "owner",
    "published_at",
    "short",
    "tidy",
]

DOCKER = "docker"
"""The name of the way."""
OWNER = "commons-events.owner"
"""The label of containers and networks that says which process they belong to."""

_ANSWER = 5
"""Seconds that an engine has to answer."""
_REGISTRY_ANSWER = 5
"""Seconds that a registry has to answer an engine that asks it."""
_USUAL = "unix:///var/run/docker.sock" if os.name == "posix" else "the usual pipe"
_LOCAL = {"localhost", "127.0.0.1", "::1"}
_silent: dict[str, str] = {}
"""Engines that gave no answer, with the reason: the next service doesn't wait for them again."""
_unreached: dict[str, str] = {}
"""Registries that couldn't be reached, likewise."""
_tidied: set[str] = set()


def image_of(service: str, default: str) -> str:
    """The image of a service: what ``COMMONS_EVENTS_TEST_KAFKA_IMAGE`` says, or the usual one."""
    return os.environ.get(f"COMMONS_EVENTS_TEST_{service.upper()}_IMAGE", "").strip() or default


@contextmanager
def engine() -> Iterator[DockerClient]:
    """A client of the engine that testcontainers would use: ``DOCKER_HOST``, the current context, or the usual socket.

    Raises:
        WayUnavailableError: testcontainers isn't installed, or no engine answers; that is known within seconds.
    """
    if importlib.util.find_spec("testcontainers") is None:
        raise WayUnavailableError('testcontainers is not installed (pip install "commons-events-testing[containers]")')
    from docker.errors import DockerException
    from testcontainers.core.docker_client import DockerClient, get_docker_host

    host = get_docker_host() or _USUAL
    if host in _silent:
        raise WayUnavailableError(_silent[host])
    try:
        _knock(host)
        # Nothing but the first answer is waited for so shortly.
        client = DockerClient(timeout=_ANSWER)
        client.client.api.timeout = 60
    except (DockerException, OSError) as error:
        _silent[host] = f"no Docker engine answers at {host}: {short(error)}"
        raise WayUnavailableError(_silent[host]) from None
    try:
        yield client
    finally:
        client.client.close()


def _knock(host: str) -> None:
    """Connect to an engine's socket file: the SDK leaves its own socket open where that fails, which warns later."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(_ANSWER)
            door.connect(host.removeprefix("unix://"))


def short(error: BaseException) -> str:
    """The first line of what an engine or its client said."""
    lines = str(getattr(error, "explanation", None) or error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


def describe(image: str) -> str:
    """The image and the engine that would run it.

    Raises:
        WayUnavailableError: no engine answers, or it has no such image and can't get it.
    """
    with engine() as client:
        reason = available(client, image)
        if reason is not None:
            raise WayUnavailableError(reason)
        return f"{image} on Docker {client.client.version().get('Version', 'of no known version')}"


def available(client: DockerClient, image: str) -> str | None:
    """Why an image can't be had; None if the engine has it, or its registry offers it. Nothing is pulled."""
    from docker.errors import APIError, DockerException, ImageNotFound
    from requests.exceptions import RequestException

    try:
        client.client.images.get(image)
    except ImageNotFound:
        pass
    else:
        return None
    first, slash, _ = image.partition("/")
    registry = first if slash and ("." in first or ":" in first) else "docker.io"
    if registry in _unreached:
        return f"the engine has no image {image}, and {_unreached[registry]}"
    api = client.client.api
    patience, api.timeout = api.timeout, _REGISTRY_ANSWER
    try:
        client.client.images.get_registry_data(image)
    except APIError as error:
        if error.status_code in {401, 403, 404}:
            return f"the engine has no image {image}, and its registry refuses it: {short(error)}"
        _unreached[registry] = f"can't reach its registry: {short(error)}"
    except (DockerException, RequestException) as error:
        _unreached[registry] = f"its registry gave no answer within {_REGISTRY_ANSWER} s: {short(error)}"
    else:
        return None
    finally:
        api.timeout = patience
    return f"the engine has no image {image}, and {_unreached[registry]}"


def published_at(client: DockerClient) -> tuple[str, str]:
    """Where clients find the ports that containers publish, and the address that these are bound to."""
    host = client.host()
    return ("127.0.0.1", "127.0.0.1") if host in _LOCAL else (host, "0.0.0.0")


def tidy(client: DockerClient) -> None:
    """Prepare an engine, once a process: remove what ended test runs left, and see whether Ryuk can run.

    Ryuk, the container by which testcontainers removes what a killed process leaves, takes an image of its own. Where
    it can't be had, the next test run on this machine removes it.

    Raises:
        ServiceStartError: the engine refuses.
    """
    from docker.errors import APIError, NotFound
    from testcontainers.core.config import testcontainers_config

    host = str(client.client.api.base_url)
    if host in _tidied:
        return
    _tidied.add(host)
    labelled: dict[str, Any] = {"filters": {"label": OWNER}}
    try:
        for container in client.client.containers.list(all=True, ignore_removed=True, **labelled):
            if gone(container.labels.get(OWNER, "")):
                _quietly(lambda container=container: container.remove(force=True, v=True), NotFound)
        for network in client.client.networks.list(**labelled):
            if gone((network.attrs.get("Labels") or {}).get(OWNER, "")):
                _quietly(network.remove, NotFound)
    except APIError as error:
        raise ServiceStartError(f"the Docker engine refuses: {short(error)}") from error
    if not testcontainers_config.ryuk_disabled and not _ryuk(client):
        testcontainers_config.ryuk_disabled = True


def _ryuk(client: DockerClient) -> bool:
    """Whether Ryuk runs, after having been started."""
    from docker.errors import DockerException
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import Reaper
    from testcontainers.core.exceptions import ContainerConnectException, ContainerStartException

    if available(client, testcontainers_config.ryuk_image) is not None:
        return False
    try:
        Reaper.get_instance()
    except (ContainerConnectException, ContainerStartException, DockerException, OSError):
        # Where it may not have the engine's socket, for one.
        Reaper.delete_instance()
        return False
    return True


def _quietly(call: Any, gone: type[Exception]) -> None:
    # Two runs may tidy up at once.
    try:
        call()
    except gone:
        return
