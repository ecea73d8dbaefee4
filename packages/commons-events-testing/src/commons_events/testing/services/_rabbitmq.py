"""RabbitMQ: a private node with an Erlang port mapper of its own."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from commons_events.testing.services._certificates import CLIENT, write_certificates
from commons_events.testing.services._errors import ServiceError, ServiceStartError, WayUnavailableError
from commons_events.testing.services._process import ServerProcess, accepts, free_port, wait_until
from commons_events.testing.services._restartable import Restartable
from commons_events.testing.services._service import ENVIRONMENT, Place, RunningService

__all__ = [
    "CAPABILITIES",
    "PLUGINS",
    "LocalRabbitMQ",
    "RabbitMQOptions",
    "RabbitMQSecurity",
    "RunningRabbitMQ",
    "given",
    "serves",
]

CAPABILITIES = {
    "alarms": "the alarm that blocks who publishes, raised and cleared",
    "consistent-hash": "exchanges of the type x-consistent-hash",
    "durability": "confirmed persistent messages outlive a kill -9 of the node",
    "security": "a listener for TLS, and signing in by a certificate",
    "management": "the management API, and with it virtual hosts of a test's own",
    "signals": "the node killed, paused and started again",
    "streams": "queues of the type stream",
}
PLUGINS = ("rabbitmq_management", "rabbitmq_stream", "rabbitmq_consistent_hash_exchange")


@dataclass(frozen=True)
class RabbitMQOptions:
    """What a node is asked for.

    Args:
        secured: with a listener for TLS, see `RunningRabbitMQ.security`.
    """

    secured: bool = False


@dataclass(frozen=True)
class RabbitMQSecurity:
    """A listener for TLS, which signs in by password, or by the certificate (EXTERNAL)."""

    url: str
    """``amqps://user:password@host:port/vhost``."""
    ca: Path
    """The authority's certificate, which clients trust; PEM, as the others."""
    certificate: Path
    """A client's, whose common name is a user."""
    key: Path


class RunningRabbitMQ(RunningService):
    """A RabbitMQ node; tests keep apart by virtual host.

    Args:
        management_url: ``http://user:password@host:port`` of the management API.
        control: runs ``rabbitmqctl`` with these arguments, where the node is ours.
        security: its listener for TLS, if it was asked for.
        stated: as `RunningService`.
    """

    def __init__(
        self,
        *,
        management_url: str,
        control: Callable[[Sequence[str]], None] | None = None,
        security: RabbitMQSecurity | None = None,
        **stated: Any,
    ) -> None:
        super().__init__(service="rabbitmq", **stated)
        self.management_url = management_url
        self.security = security
        self._control = control
        if control is None:
            self.lacks.setdefault("alarms", "its rabbitmqctl isn't ours to call")
        if security is None:
            self.lacks.setdefault("security", "it was not asked for a listener for TLS")

    @property
    def url(self) -> str:
        """``amqp://user:password@host:port/vhost`` of the virtual host that is always there."""
        return self.address

    @classmethod
    def capabilities(cls) -> frozenset[str]:
        """The words of `CAPABILITIES`."""
        return frozenset(CAPABILITIES)

    def url_of(self, vhost: str) -> str:
        """The AMQP address of another virtual host."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{quote(vhost, safe='')}"))

    @contextmanager
    def vhost(self, name: str = "test") -> Iterator[str]:
        """A virtual host that nobody else has; gives its AMQP address, and deletes it at the end.

        Raises:
            ServiceError: the management API doesn't answer, or refuses.
        """
        unique = self.unique(name)
        user = quote(unquote(urlsplit(self.url).username or "guest"), safe="")
        self.manage("PUT", f"/api/vhosts/{unique}")
        try:
            everything = {"configure": ".*", "write": ".*", "read": ".*"}
            self.manage("PUT", f"/api/permissions/{unique}/{user}", everything)
            yield self.url_of(unique)
        finally:
            self.manage("DELETE", f"/api/vhosts/{unique}")

    @contextmanager
    def alarm(self) -> Iterator[None]:
        """The memory alarm, for a block: the node takes no messages meanwhile.

        Raises:
            ServiceError: rabbitmqctl isn't ours to call, or refuses.
        """
        if self._control is None:
            raise ServiceError("RabbitMQ: an alarm is raised by rabbitmqctl, which isn't ours to call")
        self._control(["set_vm_memory_high_watermark", "0.00001"])
        try:
            yield
        finally:
            self._control(["set_vm_memory_high_watermark", "0.8"])

    def close_connections(self, name: str = "") -> int:
        """Force connections closed whose client names itself like this; returns how many there were.

        Raises:
            ServiceError: the management API doesn't answer.
        """
        closed = 0
        for connection in self.manage("GET", "/api/connections"):
            given = connection.get("client_properties", {}).get("connection_name", "")
            if given.startswith(name):
                with suppress(ServiceError):  # it is gone already
                    self.manage("DELETE", f"/api/connections/{quote(connection['name'], safe='')}")
                    closed += 1
        return closed

    def manage(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call the management API: ``manage("GET", "/api/connections")``.

        Returns:
            The decoded JSON, or None where the answer is empty.

        Raises:
            ServiceError: it doesn't answer, or refuses.
        """
        try:
            return _http(self.management_url, method, path, body)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            raise ServiceError(f"RabbitMQ's management API: {method} {path}: {error.code} {said}") from None
        except OSError as error:
            raise ServiceError(f"RabbitMQ's management API: {method} {path}: {error}") from error


def _http(base: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    parts = urlsplit(base)
    plain = f"{parts.scheme}://{parts.hostname}:{parts.port}{path}"
    login = f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}"
    request = urllib.request.Request(
        plain,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Basic {base64.b64encode(login.encode()).decode()}",
            "Content-Type": "application/json",
        },
    )
    # A proxy of the environment has no way to a private port.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as response:
        read = response.read()
    return json.loads(read) if read else None


def serves(base: str) -> bool:
    """Whether the management API answers there, for the login that the address holds."""
    try:
        _http(base, "GET", "/api/overview")
    except (OSError, ValueError):
        return False
    return True


def given(address: str) -> RunningRabbitMQ:
    """The node whose address the environment holds; its management API is at the usual port beside it.

    ``COMMONS_EVENTS_TEST_RABBITMQ_MANAGEMENT`` holds that API's address if it is elsewhere.

    Raises:
        ServiceStartError: nobody accepts connections there.
    """
    parts = urlsplit(address if "://" in address else f"amqp://{address}")
    host, port = parts.hostname or "127.0.0.1", parts.port or 5672
    if not accepts(port, host):
        raise ServiceStartError(f"COMMONS_EVENTS_TEST_RABBITMQ={address}: nobody accepts connections there")
    login = f"{parts.username or 'guest'}:{parts.password or 'guest'}"
    management = os.environ.get("COMMONS_EVENTS_TEST_RABBITMQ_MANAGEMENT") or f"http://{login}@{host}:15672"
    lacks = dict.fromkeys(("signals", "durability"), "its process belongs to somebody else")
    if not serves(management):
        lacks["management"] = f"it doesn't answer at {urlsplit(management).hostname}:{urlsplit(management).port}"
    url = urlunsplit(
        parts._replace(netloc=f"{login}@{host}:{port}", path=parts.path if len(parts.path) > 1 else "/%2F")
    )
    return RunningRabbitMQ(
        way=ENVIRONMENT, description="a RabbitMQ of yours", address=url, management_url=management, lacks=lacks
    )


def _server() -> Path:
    """The script that starts a node, of the newest version; not Debian's wrapper, which changes the user."""
    found = shutil.which("rabbitmq-server")
    scripts = list(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    if scripts:
        return max(scripts, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])])
    if found is not None:
        return Path(found)
    raise WayUnavailableError("no rabbitmq-server on the PATH (Debian: apt-get install rabbitmq-server)")


def _epmd() -> Path:
    """Erlang's port mapper; it is on the PATH, or in the folder of the run-time system."""
    found = shutil.which("epmd")
    if found is not None:
        return Path(found)
    for path in sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd")):
        return path
    raise WayUnavailableError("no epmd, Erlang's port mapper, which comes with Erlang")


class LocalRabbitMQ:
    """The way ``local``: a node in a process of ours."""

    name = "local"

    def find(self) -> str:
        """The server's version and place.

        Raises:
            WayUnavailableError: it or Erlang's port mapper is missing.
        """
        script = _server()
        _epmd()
        match = re.search(r"rabbitmq_server-([\d.]+)", str(script))
        return f"RabbitMQ {match[1] if match else 'of no known version'}, {script}"

    def start(self, place: Place, options: object = None) -> RunningRabbitMQ:
        """Start the port mapper and a node, and return once AMQP and the management API answer.

        Args:
            place: where its files go.
            options: a `RabbitMQOptions`, or None.
        """
        secured = isinstance(options, RabbitMQOptions) and options.secured
        script, mapper = _server(), _epmd()
        amqp, management, stream, distribution, mapping = (free_port() for _ in range(5))
        log = place.log("rabbitmq")
        for name in ("home", "data", "log"):
            (place.folder / name).mkdir()
        configuration: dict[str, object] = {
            "listeners.tcp.1": f"127.0.0.1:{amqp}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": management,
            "stream.listeners.tcp.1": f"127.0.0.1:{stream}",
            # So that a test sees its queues and connections soon.
            "collect_statistics_interval": 1000,
        }
        plugins: tuple[str, ...] = PLUGINS
        listeners = [amqp]
        security = None
        if secured:
            encrypted = free_port()
            security = _certificates(place.folder, f"amqps://guest:guest@127.0.0.1:{encrypted}/%2F")
            configuration |= _secured(place.folder, encrypted)
            listeners.append(encrypted)
            plugins = (*PLUGINS, "rabbitmq_auth_mechanism_ssl")
        lines = [f"{name} = {value}" for name, value in configuration.items()]
        (place.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (place.folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n", encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")} | {
            "HOME": str(place.folder / "home"),
            "ERL_EPMD_PORT": str(mapping),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "commons-events@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(place.folder / "data"),
            "RABBITMQ_LOG_BASE": str(place.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(place.folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(place.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(place.folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        epmd = ServerProcess(
            [mapper, "-port", str(mapping), "-address", "127.0.0.1"], log=place.log("epmd"), environment=environment
        )
        management_url = f"http://guest:guest@127.0.0.1:{management}"

        def control(arguments: Sequence[str]) -> None:
            command: list[str] = [str(script.with_name("rabbitmqctl")), "-q", *arguments]
            run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
            if run.returncode:
                raise ServiceError(f"rabbitmqctl {' '.join(arguments)}: {run.stdout}{run.stderr}")

        def launch() -> ServerProcess:
            wait_until(lambda: accepts(mapping), what="epmd", process=epmd)
            return ServerProcess([script], log=log, folder=place.folder, environment=environment)

        def ready(process: ServerProcess) -> None:
            # Seconds on an idle machine, and minutes on a busy one.
            serving = lambda: all(map(accepts, listeners)) and serves(management_url)  # noqa: E731
            wait_until(serving, what="RabbitMQ", process=process, timeout=240.0, interval=0.1)

        running = RunningRabbitMQ(
            way=self.name,
            description=self.find().partition(",")[0],
            address=f"amqp://guest:guest@127.0.0.1:{amqp}/%2F",
            management_url=management_url,
            control=control,
            security=security,
            log=log,
            servers={1: Restartable("RabbitMQ", launch, ready)},
            place=place,
            stop=epmd.stop,
        )
        running.started()
        if secured:
            # Whom a certificate names; it has no password, so that it signs in by that alone.
            running.manage("PUT", f"/api/users/{CLIENT}", {"password_hash": "", "tags": ""})
            everything = {"configure": ".*", "write": ".*", "read": ".*"}
            running.manage("PUT", f"/api/permissions/%2F/{CLIENT}", everything)
        return running


def _certificates(folder: Path, url: str) -> RabbitMQSecurity:
    """Write an authority's certificate, and one each for the node and a client, into the folder.

    Raises:
        WayUnavailableError: trustme, which makes them, isn't installed.
    """
    write_certificates(folder, "node")
    return RabbitMQSecurity(url, folder / "ca.crt", folder / "client.crt", folder / "client.key")


def _secured(folder: Path, port: int) -> dict[str, object]:
    """The lines of rabbitmq.conf of a listener for TLS that asks for a certificate, and takes clients without one."""
    return {
        "listeners.ssl.1": f"127.0.0.1:{port}",
        "ssl_options.cacertfile": folder / "ca.crt",
        "ssl_options.certfile": folder / "node.crt",
        "ssl_options.keyfile": folder / "node.key",
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "false",
        "ssl_cert_login_from": "common_name",
        "auth_mechanisms.1": "PLAIN",
        "auth_mechanisms.2": "AMQPLAIN",
        "auth_mechanisms.3": "EXTERNAL",
    }
