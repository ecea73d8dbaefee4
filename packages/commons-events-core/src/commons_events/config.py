"""Settings of clients: from arguments, then environment variables, then a file; secrets never shown."""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from commons_events.errors import ConfigurationError, MissingDistributionError, UnknownBrokerError
from commons_events.event import describe
from commons_events.plugins import TRANSPORTS, install_hint, load, names
from commons_events.transport import Transport, TransportSettings

__all__ = ["CONFIG_FILE", "ClientConfig", "open_transport"]

CONFIG_FILE = "COMMONS_EVENTS_CONFIG"
"""The environment variable that names a TOML file with settings."""


_PREFIX = "COMMONS_EVENTS_"


class ClientConfig(BaseSettings):
    """What producers and consumers have in common.

    A setting comes from the argument; else from the environment variable ``COMMONS_EVENTS_PRODUCER_<NAME>`` (or
    ``…_CONSUMER_<NAME>``), else ``COMMONS_EVENTS_<NAME>``; else from the table ``[producer]`` (``[consumer]``), else
    the top, of the TOML file that ``COMMONS_EVENTS_CONFIG`` names; else it has its default.

    Raises:
        ConfigurationError: (a ValueError) settings are unknown or wrong; the message names all of them.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, env_prefix=_PREFIX)
    role: ClassVar[str] = ""

    broker: str = "memory"
    """The transport's name, such as ``memory`` or ``kafka``; or a whole URL."""
    url: SecretStr | None = None
    """The broker's address, whose scheme names the transport; may hold a password. By default ``<broker>://``."""
    client_id: str = "commons-events"
    """How this client names itself to the broker."""
    max_message_bytes: int | None = Field(default=None, gt=0)
    """A limit on value, key and headers together that is below the broker's own; None for the broker's."""
    close_timeout: float = Field(default=30.0, ge=0)
    """Seconds that closing waits for the broker."""
    options: dict[str, Any] = Field(default_factory=dict, repr=False, exclude=True)
    """Settings in the broker's own words; they may hold secrets, and stand in no dump."""

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            said = f"{type(self).__name__}: {describe(error)}."
            if any(problem["type"] == "extra_forbidden" for problem in error.errors(include_input=False)):
                said += " Settings of a broker's own go into the url's query, or options={…}."
            raise ConfigurationError(said) from None  # it shows what it read
        except SettingsError as error:
            raise ConfigurationError(f"{type(self).__name__}: {error}.") from None

    @model_validator(mode="before")
    @classmethod
    def _split_broker_and_url(cls, data: Any) -> Any:
        broker = data.get("broker")
        if isinstance(broker, str) and "://" in broker:
            if data.get("url") is not None:
                raise ValueError("broker and url are both URLs; give one of them")
            return {**data, "broker": _scheme(broker), "url": broker}
        url = data.get("url")
        if url is not None:
            address = url.get_secret_value() if isinstance(url, SecretStr) else str(url)
            scheme, separator, _ = address.partition("://")
            if not separator or not scheme:
                raise ValueError("url is SCHEME://…, such as memory:// or kafka://host:9092; it has no :// as given")
            _scheme(address)
            return {**data, "broker": broker or scheme}
        return data

    @model_validator(mode="after")
    def _broker_is_named(self) -> Self:
        if not self.broker:
            raise ValueError("broker is empty; give a name such as 'memory', or a URL")
        return self

    @property
    def address(self) -> str:
        """The broker's URL in the clear: for connecting, never for showing."""
        return self.url.get_secret_value() if self.url is not None else f"{self.broker}://"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, the role's environment variables, the common ones, the file."""
        if not any(name.upper().startswith(_PREFIX) for name in os.environ):
            return (init_settings,)  # looking each setting up takes milliseconds, and a program may make many clients
        own, common = (_EnvSource(settings_cls, env_prefix=p) for p in (f"{_PREFIX}{cls.role.upper()}_", _PREFIX))
        sources = init_settings, own, common, _FileSource(settings_cls, cls.role)
        return (_OneAddress(settings_cls, sources),)


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:  # whose words may hold a password
        raise ValueError("the url cannot be read: its host has a [ without ], or characters that none has") from None


class _EnvSource(EnvSettingsSource):
    """Environment variables, in which one of several needs no JSON: ``COMMONS_EVENTS_CONSUMER_TOPICS=orders``."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            if not value or value[0] in '[{"' or "," in value:  # JSON that is broken, or several without it
                raise
            return value  # what it has to be, the field says


class _WholeSource(PydanticBaseSettingsSource):
    """A source that gives all its values at once, when it is called."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not asked for: `__call__` answers."""
        raise KeyError(field_name)


class _OneAddress(_WholeSource):
    """Sources by rank, but that ``broker`` and ``url`` are one setting: the first that states either states both."""

    def __init__(self, settings_cls: type[BaseSettings], sources: tuple[PydanticBaseSettingsSource, ...]) -> None:
        super().__init__(settings_cls)
        self._sources = sources

    def __call__(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for source in self._sources:
            stated = source()
            if settings.keys() & _ADDRESS:
                stated = {name: value for name, value in stated.items() if name not in _ADDRESS}
            settings = {**stated, **settings}
        return settings


class _FileSource(_WholeSource):
    """The TOML file that `CONFIG_FILE` names."""

    def __init__(self, settings_cls: type[BaseSettings], role: str) -> None:
        super().__init__(settings_cls)
        self._role = role

    def __call__(self) -> dict[str, Any]:
        path = os.environ.get(CONFIG_FILE)
        if not path:
            return {}
        try:
            content = tomllib.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{CONFIG_FILE}={path}: cannot be read as TOML: {error}.") from error
        own = content.pop(self._role, {})
        if not isinstance(own, dict):
            raise ConfigurationError(f"{CONFIG_FILE}={path}: {self._role} has to be a table: [{self._role}].")
        common = {name: value for name, value in content.items() if name not in _ROLES}
        unknown = sorted((common.keys() - _common_names()) | (own.keys() - self.settings_cls.model_fields.keys()))
        if unknown:
            raise ConfigurationError(
                f"{CONFIG_FILE}={path}: unknown settings for a {self._role}: {', '.join(unknown)}."
            )
        return {**common, **own}


_ROLES = frozenset({"producer", "consumer"})
_ADDRESS = frozenset({"broker", "url"})


def _common_names() -> set[str]:
    return set(ClientConfig.model_fields)


def open_transport(config: ClientConfig) -> Transport:
    """The transport that a configuration asks for, not connected yet.

    Raises:
        UnknownBrokerError: no installed transport has this name; the message names those there are, and the line
            that installs the one that is meant.
        ConfigurationError: the transport refuses a setting.
    """
    try:
        transport_class: type[Transport] = load(TRANSPORTS, config.broker)
    except MissingDistributionError as error:
        there = names(TRANSPORTS)
        near = get_close_matches(config.broker, [*there, *_OURS], n=1)
        hint = install_hint(TRANSPORTS, config.broker) or (f"Did you mean {near[0]!r}?" if near else "")
        if near and near[0] not in there and not install_hint(TRANSPORTS, config.broker):
            hint += f" {install_hint(TRANSPORTS, near[0])}"
        raise UnknownBrokerError(
            f"Unknown broker {config.broker!r}; installed: {', '.join(there) or 'none'}. {hint}".rstrip()
        ) from error
    scheme = urlsplit(config.address).scheme
    if scheme != config.broker and (scheme not in names(TRANSPORTS) or load(TRANSPORTS, scheme) is not transport_class):
        raise ConfigurationError(
            f"broker={config.broker!r} and the url's scheme {scheme!r} are not the same; give one of them."
        )
    return transport_class.from_settings(
        TransportSettings(
            url=config.address,
            client_id=config.client_id,
            max_message_bytes=config.max_message_bytes,
            close_timeout=config.close_timeout,
            options=config.options,
        )
    )


_OURS = ("memory", "kafka", "amqp", "rabbitmq", "pubsub", "sns", "sqs")
