"""Settings: a URL and options in librdkafka's words, checked by name and value, as configurations of clients."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from confluent_kafka import Consumer, KafkaException, Producer

from commons_events.errors import ConfigurationError
from commons_events.kafka._errors import kafka_error
from commons_events.kafka._names import COMMON, CONSUMER, PRODUCER
from commons_events.message import is_text
from commons_events.transport import TransportSettings

__all__ = ["LOGGER", "OWN", "KafkaSettings", "is_setting", "nearest_setting", "option_name"]

LOGGER = logging.getLogger("commons_events.kafka")
"""Where librdkafka's log goes; silent until the program configures logging."""
LOGGER.addHandler(logging.NullHandler())

OWN: Mapping[str, float] = {
    "connect.timeout.ms": 10_000,
    "busy.poll.ms": 1,
    "commit.interval.ms": 1_000,
    "revoke.timeout.ms": 10_000,
    "transaction.commit.timeout.ms": 30_000,
}
"""Settings that librdkafka does not have, and their defaults: how long a broker is looked for before it counts as out
of reach; how long the event loop looks for a message's report by itself, before a thread waits for it; how long
finished offsets are gathered until they are committed; how long a partition that is to leave waits for the deliveries
that are out; how long the end of a transaction may take."""

AUTO_CREATE = "COMMONS_EVENTS_KAFKA_AUTO_CREATE_TOPICS"
"""The environment variable by which a process asks for topics that are made on first use: for tests."""

_MANAGED = {
    "enable.auto.commit": "offsets are committed as messages are settled",
    "enable.auto.offset.store": "offsets are committed as messages are settled",
    "auto.offset.reset": "use start='earliest' or 'latest'",
    "group.id": "use group_id",
    "client.id": "use client_id",
    "bootstrap.servers": "they are the URL's hosts: kafka://host:9092,other:9092",
    "metadata.broker.list": "they are the URL's hosts: kafka://host:9092,other:9092",
    "delivery.report.only.error": "every message is confirmed",
    "log.queue": "the log goes to the standard logger commons_events.kafka",
    "enable.partition.eof": "it is needed here, and set",
}
"""Settings that are decided here, and what to use in their place."""

_DEFAULTS: dict[str, object] = {"socket.keepalive.enable": True, "reconnect.backoff.max.ms": 2_000}
_PRODUCER_DEFAULTS: dict[str, object] = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",  # Java's: a key lies where other clients put it
    "delivery.timeout.ms": 120_000,
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 262_144,
    "topic.metadata.propagation.max.ms": 5_000,
}
_CONSUMER_DEFAULTS: dict[str, object] = {
    "partition.assignment.strategy": "cooperative-sticky",
    "allow.auto.create.topics": False,
    "fetch.queue.backoff.ms": 10,
    # Of small messages librdkafka's 100,000 a partition outgrow the processor's caches, and each takes longer.
    "queued.min.messages": 30_000,
    "isolation.level": "read_committed",
}
_CONSUMER_MANAGED: dict[str, object] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    # Where messages were deleted that the group had not read, those that are left are read, never skipped.
    "auto.offset.reset": "earliest",
}
_CLASSIC_ALONE = ("partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms")
"""Settings that the group protocol of KIP-848 leaves to the broker."""
_ALIASES = {
    "message.timeout.ms": "delivery.timeout.ms",
    "request.required.acks": "acks",
    "queue.buffering.max.ms": "linger.ms",
    "sasl.mechanism": "sasl.mechanisms",
    "compression.codec": "compression.type",
}
_TOLD = frozenset({"error_cb", "stats_cb", "throttle_cb"})
"""Functions that are told something, and asked for nothing."""
_TRANSACTIONAL = frozenset({"transactional.id", "transaction.timeout.ms"})
_WHOLE = {"message.max.bytes": (1, 1_000_000_000), "transaction.timeout.ms": (1_000, 2_147_483_647)}
"""Settings that are counted with here, and the least and the most that they can be."""
_CUT_OFF = "The URL's user or password holds a / ? or #, which has to be percent-encoded, as urllib.parse.quote does."
_LINGER = 5
"""librdkafka's own ``linger.ms``."""
_FRAMING = 65_536
"""Bytes beside value, key and headers' texts that librdkafka may count to a message."""
DEFAULT_MAX_MESSAGE_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """What the clients of one transport are made from. Holds secrets, and shows none."""

    bootstrap_servers: str
    client_id: str
    max_message_bytes: int
    close_timeout: float
    """Seconds that closing waits for confirmations."""
    options: Mapping[str, Any] = field(repr=False)
    own: Mapping[str, float]
    """Of `OWN`, in seconds."""

    @classmethod
    def of(cls, settings: TransportSettings) -> KafkaSettings:
        """Check ``settings`` and take them apart.

        Raises:
            ConfigurationError: the URL or an option is wrong; the message names it, and the right one.
        """
        parts = urlsplit(settings.url)
        servers = parts.netloc.rpartition("@")[2] or "localhost:9092"
        # A password ends at such a character, so that what looks like a host or an option is a part of it.
        cut_off = "@" in settings.url and "@" not in parts.netloc
        if parts.path.strip("/") or parts.fragment:
            if cut_off:
                raise ConfigurationError(_CUT_OFF)
            raise ConfigurationError("A Kafka URL is kafka://HOST:PORT,HOST:PORT?OPTION=VALUE, without a path.")
        try:
            _check_servers(servers)
        except ConfigurationError:
            if cut_off:
                raise ConfigurationError(_CUT_OFF) from None
            raise
        given: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.username is not None:
            given["sasl.username"] = unquote(parts.username)
            given["sasl.password"] = unquote(parts.password or "")
            given.setdefault("sasl.mechanisms", "PLAIN")
            given.setdefault("security.protocol", "SASL_SSL")
        given.update(settings.options)
        _check_text({"client_id": settings.client_id, **given})
        options: dict[str, Any] = {}
        own = dict(OWN)
        for name, value in given.items():
            if name in OWN:
                own[name] = _milliseconds(name, value)
            elif name in _MANAGED:
                raise ConfigurationError(f"Kafka setting {name!r} is not yours to set: {_MANAGED[name]}.")
            else:
                if not is_setting(name):
                    if cut_off and name not in settings.options:
                        raise ConfigurationError(_CUT_OFF)
                    raise ConfigurationError(f"Unknown Kafka setting {name!r}.{nearest_setting(name)}")
                options[_ALIASES.get(name, name)] = _whole(name, value) if name in _WHOLE else value
        limit = settings.max_message_bytes or options.pop("message.max.bytes", DEFAULT_MAX_MESSAGE_BYTES)
        found = cls(
            bootstrap_servers=servers,
            client_id=settings.client_id,
            max_message_bytes=limit,
            close_timeout=settings.close_timeout,
            options=options,
            own={name: milliseconds / 1000 for name, milliseconds in own.items()},
        )
        found._check_values()
        return found

    def producer(self, transactional_id: str | None = None) -> dict[str, Any]:
        """The configuration of a producing client; without an id it takes no part in transactions."""
        config: dict[str, Any] = {
            **_DEFAULTS,
            **_PRODUCER_DEFAULTS,
            "allow.auto.create.topics": os.environ.get(AUTO_CREATE, "").lower() in ("1", "true"),
            # What librdkafka bounds by it is a request; the size of a message is checked here.
            "message.max.bytes": min(self.max_message_bytes + _FRAMING, 1_000_000_000),
            **self._only(PRODUCER - _TRANSACTIONAL),
            **self._address(),
        }
        if transactional_id is not None:
            timeout = self.options.get("transaction.timeout.ms", 60_000)
            delivery = min(int(config["delivery.timeout.ms"]), timeout)
            more = {"transactional.id": transactional_id, "transaction.timeout.ms": timeout}
            config |= {**more, "delivery.timeout.ms": delivery}
        return config

    @property
    def busy(self) -> float:
        """Seconds that an event loop looks for a report by itself; 0 where librdkafka waits longer for messages."""
        busy = self.own["busy.poll.ms"]
        return busy if float(self.options.get("linger.ms", _LINGER)) < busy * 1000 else 0.0

    def consumer(self, group_id: str) -> dict[str, Any]:
        """The configuration of a consuming client."""
        config = {
            **_DEFAULTS,
            **_CONSUMER_DEFAULTS,
            **self._only(CONSUMER),
            **_CONSUMER_MANAGED,
            "group.id": group_id,
            **self._address(),
        }
        if config.get("group.protocol") == "consumer":
            for name in _CLASSIC_ALONE:
                if name in self.options:
                    raise ConfigurationError(
                        f"Kafka setting {name!r} belongs to group.protocol=classic; with 'consumer' the broker decides."
                    )
                config.pop(name, None)
        return config

    def admin(self) -> dict[str, Any]:
        """The configuration of an administrating client."""
        # librdkafka takes it for a producer, which by default has the broker make a topic that it asks about.
        return {**_DEFAULTS, **self._only(frozenset()), "allow.auto.create.topics": False, **self._address()}

    def _only(self, names: frozenset[str]) -> dict[str, Any]:
        others = (PRODUCER | CONSUMER) - names
        chosen = {name: value for name, value in self.options.items() if name not in others}
        return {name: _guarded(name, value) if name in _TOLD else value for name, value in chosen.items()}

    def _address(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.bootstrap_servers, "client.id": self.client_id, "logger": LOGGER}

    def _check_values(self) -> None:
        """Let librdkafka look at every value, by making clients without an address."""
        unreachable = {"bootstrap.servers": "", "log_level": 0}
        try:
            # Without callbacks: a client that is made with one for tokens asks for the first at once, and waits.
            Producer(_without_callbacks(self.producer() | unreachable))
            if "transactional.id" in self.options:
                Producer(_without_callbacks(self.producer(str(self.options["transactional.id"])) | unreachable))
            Consumer(_without_callbacks(self.consumer("check") | unreachable))
        except KafkaException as error:
            raise ConfigurationError(f"Kafka settings: {kafka_error(error).str()}.") from None  # it may show a secret
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"Kafka settings: {error}.") from None


def option_name(keyword: str) -> str:
    """The setting that a Python keyword stands for: ``linger_ms`` is ``linger.ms``."""
    return keyword if keyword in _ALL else keyword.replace("_", ".")


def is_setting(name: str) -> bool:
    """Whether there is a setting of this name, here or in librdkafka."""
    if name in _ALL:
        return True
    if not is_text(name):
        return False
    try:
        Producer({name: ""})  # a librdkafka that is newer than the list may know it
    except KafkaException as error:
        return "No such configuration property" not in kafka_error(error).str()
    except (TypeError, ValueError):
        pass  # it is known, and wants another type
    return True


def nearest_setting(name: str, more: Iterable[str] = ()) -> str:
    """A sentence that asks whether another name was meant, after a space; or nothing."""
    near = get_close_matches(name, [*_ALL, *more], n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


_ALL = COMMON | PRODUCER | CONSUMER | OWN.keys()


def _check_text(given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if not isinstance(name, str):
            raise ConfigurationError(f"A Kafka setting's name is a str, not {name!r}.")
        if not is_text(name) or (isinstance(value, str) and not is_text(value)):
            raise ConfigurationError(
                f"Kafka setting {name!r} is no text: it holds a zero byte, or half of a surrogate pair."
            )


def _check_servers(servers: str) -> None:
    for server in servers.split(","):
        host, separator, port = server.rpartition(":")
        if not separator:
            host, port = server, "9092"
        if not host.strip("[]") or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigurationError(
                f"bootstrap servers: {server!r} is no HOST:PORT; give them as 'host1:9092,host2:9092'."
            )


def _guarded(name: str, callback: Any) -> Any:
    """``callback``, whose exceptions are logged: raised, they would end the thread that polls the client."""
    if not callable(callback):
        return callback  # librdkafka refuses it

    def call(*arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception:
            LOGGER.exception("the function given as %s failed", name)

    return call


def _without_callbacks(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if not callable(value)}


def _whole(name: str, value: object) -> int:
    least, most = _WHOLE[name]
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if not least <= number <= most:
        raise ConfigurationError(f"Kafka setting {name!r} is a whole number from {least:,} to {most:,}, not {value!r}.")
    return number


def _milliseconds(name: str, value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ConfigurationError(f"Kafka setting {name!r} is a number of milliseconds from 0 on, not {value!r}.")
    return number
