"""What `RabbitMQProducer` and `RabbitMQConsumer` are called with, as a `ProducerConfig` or `ConsumerConfig`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlunsplit

from commons_events.config import ClientConfig
from commons_events.errors import ConfigurationError
from commons_events.rabbitmq._settings import is_setting, nearest_setting, split_url

__all__ = ["rabbitmq_config"]

C = TypeVar("C", bound=ClientConfig)


def rabbitmq_config(config_class: type[C], who: str, url: str | Sequence[str] | None, settings: Mapping[str, Any]) -> C:
    """Sort keywords into the configuration's own and RabbitMQ's.

    Raises:
        ConfigurationError: a keyword is neither; the message has the nearest right one.
    """
    given = dict(settings)
    options: dict[str, Any] = dict(given.pop("options", None) or {})
    fields = config_class.model_fields
    for keyword in [keyword for keyword in given if keyword not in fields]:
        if not is_setting(keyword):
            raise ConfigurationError(f"{who}: unknown setting {keyword!r}.{nearest_setting(keyword, fields)}")
        options[keyword] = given.pop(keyword)
    if url is not None:
        if "broker" in given:
            raise ConfigurationError(f"{who}: give url or broker, not both.")
        given["url"] = url if isinstance(url, str) else _one(who, url)
    if options:
        given["options"] = options
    return config_class(**given)


def _one(who: str, urls: Sequence[str]) -> str:
    """Several URLs of one cluster as one: they differ in the address alone."""
    if not isinstance(urls, (list, tuple)) or not all(isinstance(url, str) for url in urls):
        raise ConfigurationError(f"{who}: url is a str, or several in a list, and this is a {type(urls).__name__}.")
    if not urls:
        raise ConfigurationError(f"{who}: the list of URLs is empty; give amqp://HOST:PORT/VHOST.")
    parts = [split_url(url) for url in urls]
    first = parts[0]
    logins = {part.netloc.rpartition("@")[0] for part in parts}
    if len(logins) > 1 or len({part._replace(netloc="", path=part.path or "/") for part in parts}) > 1:
        raise ConfigurationError(
            f"{who}: the URLs of a cluster's nodes differ in host and port alone; these differ in more."
        )
    hosts = ",".join(part.netloc.rpartition("@")[2] for part in parts)
    login = first.netloc.rpartition("@")[0]
    return urlunsplit(first._replace(netloc=f"{login}@{hosts}" if login else hosts))
