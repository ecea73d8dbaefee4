"""What `KafkaProducer` and `KafkaConsumer` are called with, as a `ProducerConfig` or `ConsumerConfig`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from commons_events.config import ClientConfig
from commons_events.errors import ConfigurationError
from commons_events.kafka._settings import is_setting, nearest_setting, option_name

__all__ = ["address", "check_config", "kafka_config"]

C = TypeVar("C", bound=ClientConfig)


def kafka_config(
    config_class: type[C], who: str, bootstrap_servers: str | Sequence[str] | None, settings: Mapping[str, Any]
) -> C:
    """Sort keywords into the configuration's own and librdkafka's, whose dots are written as underscores here.

    Raises:
        ConfigurationError: a keyword is neither; the message has the nearest right one.
    """
    given = dict(settings)
    options_given = given.pop("options", None) or {}
    if not isinstance(options_given, Mapping):
        raise ConfigurationError(f"{who}: options is a mapping of settings, not a {type(options_given).__name__}.")
    options: dict[str, Any] = dict(options_given)
    fields = config_class.model_fields
    for keyword in [keyword for keyword in given if keyword not in fields]:
        name = option_name(keyword)
        if not is_setting(name):
            raise ConfigurationError(f"{who}: unknown setting {keyword!r}.{nearest_setting(name, fields)}")
        options[name] = given.pop(keyword)
    if bootstrap_servers is not None:
        if "url" in given or "broker" in given:
            raise ConfigurationError(f"{who}: give bootstrap_servers or a url, not both.")
        given["url"] = address(who, bootstrap_servers)
    if options:
        given["options"] = options
    return config_class(**given)


def address(who: str, bootstrap_servers: str | Sequence[str]) -> str:
    """The URL of these servers, which may be one already.

    Raises:
        ConfigurationError: they are neither a text nor a list of such, or empty.
    """
    try:
        servers = bootstrap_servers if isinstance(bootstrap_servers, str) else ",".join(bootstrap_servers)
    except TypeError:
        raise ConfigurationError(
            f"{who}: bootstrap_servers is 'host1:9092,host2:9092' or a list of such, not {bootstrap_servers!r}."
        ) from None
    if not servers:
        raise ConfigurationError(f"{who}: bootstrap_servers is empty; give 'host1:9092,host2:9092'.")
    return servers if "://" in servers else f"kafka://{servers}"


def check_config(config_class: type[ClientConfig], who: str, config: object) -> None:
    """Refuse what is no such configuration, before anything is read from it."""
    if not isinstance(config, config_class):
        raise TypeError(f"{who}: config is a {config_class.__name__}, not a {type(config).__name__}.")
