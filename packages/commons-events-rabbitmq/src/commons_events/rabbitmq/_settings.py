"""Settings: a URL and options in the words of RabbitMQ's URI and AMQP 0-9-1, checked by name and value."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Literal, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pika
from pika.credentials import ExternalCredentials, PlainCredentials

from commons_events.errors import ConfigurationError
from commons_events.transport import TransportSettings

__all__ = ["LOGGER", "OPTIONS", "Credentials", "RabbitMQSettings", "is_setting", "nearest_setting", "split_url"]

LOGGER = logging.getLogger("commons_events.rabbitmq")
"""Where connections, reconnections and alarms are logged; silent until the program configures logging."""
LOGGER.addHandler(logging.NullHandler())

Credentials = Callable[[], tuple[str, str] | Awaitable[tuple[str, str]]]
"""Gives user and password, anew for each connection."""

OPTIONS: Mapping[str, object] = {
    # Of RabbitMQ's URI query parameters.
    "auth_mechanism": "plain",
    "cacertfile": None,
    "certfile": None,
    "keyfile": None,
    "keyfile_password": None,
    "verify": "verify_peer",
    "server_name_indication": None,
    "heartbeat": 60,
    "connection_timeout": 10_000,
    "channel_max": 2_047,
    "frame_max": 131_072,
    # Ours.
    "credentials": None,
    "ssl_context": None,
    "passive": False,
    "queue_type": "quorum",
    "queue_arguments": None,
    "single_active_consumer": False,
    "exclusive": False,
    "consumer_priority": None,
    "stream_offset": None,
    "prefetch_count": 1_000,
    "persistent": True,
    "mandatory": True,
    "max_in_flight": 5_000,
    "retry_queues": False,
}
"""Every option and its default."""

DEFAULT_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""RabbitMQ 4's own max_message_size; 3.x takes up to 128 MiB."""
_QUEUE_TYPES = ("quorum", "classic", "stream")
_SCHEMES = {"amqp": 5672, "rabbitmq": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitMQSettings:
    """What the connections of one transport are made from. Holds secrets, and shows none."""

    hosts: tuple[tuple[str, int], ...]
    vhost: str
    user: str
    password: str = field(repr=False)
    client_id: str
    max_message_bytes: int
    tls: ssl.SSLContext | None = field(repr=False)
    external: bool
    credentials: Credentials | None = field(repr=False)
    server_name: str | None
    heartbeat: int
    connection_timeout: float
    """Seconds."""
    channel_max: int
    frame_max: int
    passive: bool
    queue_type: Literal["quorum", "classic", "stream"]
    queue_arguments: Mapping[str, Any]
    single_active_consumer: bool
    exclusive: bool
    consumer_priority: int | None
    stream_offset: int | str | datetime | None
    prefetch_count: int
    persistent: bool
    mandatory: bool
    max_in_flight: int
    retry_queues: bool

    @classmethod
    def of(cls, settings: TransportSettings) -> RabbitMQSettings:
        """Check ``settings`` and take them apart.

        Raises:
            ConfigurationError: the URL or an option is wrong; the message names it, and the right one.
        """
        parts = split_url(settings.url)
        try:
            return cls._of(settings, parts)
        except ConfigurationError:
            if "@" in parts.query + parts.fragment:
                raise ConfigurationError(_UNCLEAR) from None  # what it shows may be of the password
            raise

    @classmethod
    def _of(cls, settings: TransportSettings, parts: SplitResult) -> RabbitMQSettings:
        if parts.scheme not in _SCHEMES:
            raise ConfigurationError(
                f"A RabbitMQ URL is amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS; the scheme "
                f"{parts.scheme!r} is neither."
            )
        if parts.fragment:
            raise ConfigurationError("A RabbitMQ URL has no #; in a user, password or virtual host it is written %23.")
        path = parts.path.removeprefix("/")
        if "/" in path:
            raise ConfigurationError(
                f"The virtual host {path!r} in the RabbitMQ URL has a slash, which is written %2F there."
            )
        given: dict[str, Any] = {**dict(parse_qsl(parts.query, keep_blank_values=True)), **settings.options}
        for name in given:
            if not is_setting(name):
                raise ConfigurationError(f"Unknown RabbitMQ setting {name!r}.{nearest_setting(name)}")
        options = {**OPTIONS, **given}
        read = _Reader(options)
        secure = parts.scheme == "amqps"
        tls_options = [name for name in _TLS if given.get(name) is not None]
        if tls_options and not secure:
            raise ConfigurationError(f"RabbitMQ setting {tls_options[0]!r} belongs to TLS: use amqps://.")
        external = read.choice("auth_mechanism", ("plain", "external")) == "external"
        if external and not secure:
            raise ConfigurationError(
                "RabbitMQ setting auth_mechanism='external' signs in by a certificate: use amqps:// with certfile."
            )
        queue_type = cast('Literal["quorum", "classic", "stream"]', read.choice("queue_type", _QUEUE_TYPES))
        single = read.flag("single_active_consumer")
        credentials = options["credentials"]
        if credentials is not None and not callable(credentials):
            raise ConfigurationError(
                "RabbitMQ setting credentials is a function without arguments that returns (user, password)."
            )
        if queue_type == "stream":
            for name in ("retry_queues", "single_active_consumer", "exclusive", "consumer_priority"):
                if name in given and given[name] is not None and str(given[name]).lower() not in ("false", "0"):
                    raise ConfigurationError(
                        f"RabbitMQ setting {name} is of queues, and the topics here are streams (queue_type='stream'): "
                        "one member of a group reads a stream, and holds back what is nacked. Leave it out."
                    )
        arguments = options["queue_arguments"] or {}
        if not isinstance(arguments, Mapping):
            raise ConfigurationError("RabbitMQ setting queue_arguments is a mapping of x-… names to values.")
        priority = options["consumer_priority"]
        limit = settings.max_message_bytes or DEFAULT_MAX_MESSAGE_BYTES
        return cls(
            hosts=_hosts(parts.netloc.rpartition("@")[2], _SCHEMES[parts.scheme]),
            vhost=unquote(path) if path else "/",
            user=unquote(parts.username) if parts.username is not None else "guest",
            password=unquote(parts.password) if parts.password is not None else "guest",
            client_id=settings.client_id,
            max_message_bytes=limit,
            tls=_tls(options) if secure else None,
            external=external,
            credentials=cast("Credentials | None", credentials),
            server_name=options["server_name_indication"],
            heartbeat=read.number("heartbeat", 0, 65_535),
            connection_timeout=read.number("connection_timeout", 1, 86_400_000) / 1000,
            channel_max=read.number("channel_max", 2, 65_535),
            frame_max=read.number("frame_max", 4_096, 1 << 31),
            passive=read.flag("passive"),
            queue_type=queue_type,
            queue_arguments=dict(arguments),
            single_active_consumer=single,
            exclusive=read.flag("exclusive"),
            consumer_priority=None if priority is None else read.number("consumer_priority", -(1 << 31), 1 << 31),
            stream_offset=_stream_offset(options["stream_offset"]),
            prefetch_count=read.number("prefetch_count", 1, 65_535),
            persistent=read.flag("persistent"),
            mandatory=read.flag("mandatory"),
            max_in_flight=read.number("max_in_flight", 1, 1_000_000),
            retry_queues=read.flag("retry_queues"),
        )

    @property
    def where(self) -> str:
        """The addresses, for messages."""
        return ",".join(f"{host}:{port}" for host, port in self.hosts)

    def parameters(self, host: str, port: int, login: tuple[str, str], role: str) -> pika.ConnectionParameters:
        """Pika's parameters of one address.

        Args:
            host: name or address.
            port: of AMQP.
            login: user and password.
            role: what the connection is for; the management's list shows it behind the client's name.
        """
        parameters = pika.ConnectionParameters(
            host=host,
            port=port,
            virtual_host=self.vhost,
            credentials=ExternalCredentials() if self.external else PlainCredentials(*login),
            channel_max=self.channel_max,
            frame_max=self.frame_max,
            heartbeat=self.heartbeat,
            connection_attempts=1,
            socket_timeout=self.connection_timeout,
            stack_timeout=self.connection_timeout,
            blocked_connection_timeout=None,
            client_properties={"connection_name": f"{self.client_id} {role}", "product": "Commons Events"},
        )
        if self.tls is not None:
            parameters.ssl_options = pika.SSLOptions(self.tls, self.server_name or host)
        return parameters


_UNCLEAR = (
    "The RabbitMQ URL has an @ behind its address, as if a / or ? or # in the user or password had ended that: these "
    "are written %2F, %3F and %23 there. In a virtual host or a setting an @ is written %40."
)


def split_url(url: str) -> SplitResult:
    """A URL's parts.

    Raises:
        ConfigurationError: it has none, or it is not clear where the password ends.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # whose words may hold the password
        raise ConfigurationError(
            "The RabbitMQ URL cannot be read: a host in it has a [ without ], or characters that none has."
        ) from None
    if "@" in parts.path:
        raise ConfigurationError(_UNCLEAR)
    return parts


_TLS = ("cacertfile", "certfile", "keyfile", "keyfile_password", "server_name_indication", "ssl_context")


def _hosts(netloc: str, usual: int) -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    for server in (netloc or "localhost").split(","):
        host, separator, port = server.rpartition(":")
        if not separator or server.endswith("]"):
            host, port = server, str(usual)
        if not host.strip("[]") or not port.isdigit() or not 0 < int(port) < 65_536:
            raise ConfigurationError(
                f"RabbitMQ address {server!r} is no HOST:PORT; several are given as amqp://host1:5672,host2:5672/vhost."
            )
        found.append((host.strip("[]"), int(port)))
    return tuple(found)


def _stream_offset(given: object) -> int | str | datetime | None:
    if isinstance(given, str) and given.isdigit():
        given = int(given)
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ConfigurationError(f"RabbitMQ setting stream_offset: the time {given!r} is naive; give an aware one.")
        return given
    if given is None or given in ("first", "last", "next") or (type(given) is int and 0 <= given < 1 << 63):
        return given
    raise ConfigurationError(
        f"RabbitMQ setting stream_offset is 'first', 'last', 'next', an offset or an aware datetime, not {given!r}."
    )


def _tls(options: Mapping[str, Any]) -> ssl.SSLContext:
    given = options["ssl_context"]
    if given is not None:
        if not isinstance(given, ssl.SSLContext):
            raise ConfigurationError("RabbitMQ setting ssl_context is an ssl.SSLContext.")
        return given
    try:
        context = ssl.create_default_context(cafile=options["cacertfile"])
        if options["certfile"] is not None:
            context.load_cert_chain(options["certfile"], options["keyfile"], options["keyfile_password"])
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(f"{name}={options[name]}" for name in ("cacertfile", "certfile", "keyfile") if options[name])
        raise ConfigurationError(f"RabbitMQ's TLS settings ({files}) cannot be used: {error}.") from None
    if options["verify"] == "verify_none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif options["verify"] != "verify_peer":
        raise ConfigurationError(
            f"RabbitMQ setting verify is 'verify_peer' or 'verify_none', not {options['verify']!r}."
        )
    return context


class _Reader:
    """Values of options, which a URL holds as text."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self._options = options

    def number(self, name: str, least: int, most: int) -> int:
        value = self._options[name]
        try:
            number = int(str(value))
        except ValueError:
            number = least - 1
        if isinstance(value, bool) or not least <= number <= most:
            raise ConfigurationError(
                f"RabbitMQ setting {name!r} is a whole number from {least} to {most}, not {value!r}."
            )
        return number

    def flag(self, name: str) -> bool:
        value = str(self._options[name]).lower()
        if value not in ("true", "false", "1", "0"):
            raise ConfigurationError(f"RabbitMQ setting {name!r} is true or false, not {self._options[name]!r}.")
        return value in ("true", "1")

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = str(self._options[name]).lower()
        if value not in choices:
            raise ConfigurationError(
                f"RabbitMQ setting {name!r} is {' or '.join(choices)}, not {self._options[name]!r}."
            )
        return value


def is_setting(name: str) -> bool:
    """Whether there is a setting of this name."""
    return name in OPTIONS


def nearest_setting(name: str, more: Iterable[str] = ()) -> str:
    """A sentence that asks whether another name was meant, after a space; or nothing."""
    near = get_close_matches(name, [*OPTIONS, *more], n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""
