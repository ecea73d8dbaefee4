"""What `KafkaProducer` and `KafkaConsumer` are called with, as a `ProducerConfig` or `ConsumerConfig`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from commons_events.config import ClientConfig
from commons_events.errors import ConfigurationError
from commons_events.kafka._settings import is_setting, nearest_setting, option_name

__all__ = ["kafka_config"]

C = TypeVar("C", bound=ClientConfig)


def kafka_config(
    config_class: type[C], who: str, bootstrap_servers: str | Sequence[str] | None, settings: Mapping[str, Any]
) -> C:
    """Sort keywords into the configuration's own and librdkafka's, whose dots are written as underscores here.

    Raises:
        ConfigurationError: a keyword is neither; the message has the nearest right one.
    """
    given = dict(settings)
    options: dict[str, Any] = dict(given.pop("options", None) or {})
    fields = config_class.model_fields
    for keyword in [keyword for keyword in given if keyword not in fields]:
        name = option_name(keyword)
        if not is_setting(name):
            raise ConfigurationError(f"{who}: unknown setting {keyword!r}.{nearest_setting(name, fields)}")
        options[name] = given.pop(keyword)
    if bootstrap_servers is not None:
        if "url" in given or "broker" in given:
            raise ConfigurationError(f"{who}: give bootstrap_servers or a url, not both.")
        try:
            servers = bootstrap_servers if isinstance(bootstrap_servers, str) else ",".join(bootstrap_servers)
        except TypeError:
            raise ConfigurationError(
                f"{who}: bootstrap_servers is 'host1:9092,host2:9092' or a list of such, not {bootstrap_servers!r}."
            ) from None
        if not servers:
            raise ConfigurationError(f"{who}: bootstrap_servers is empty; give 'host1:9092,host2:9092'.")
        given["url"] = servers if "://" in servers else f"kafka://{servers}"
    if options:
        given["options"] = options
    return config_class(**given)
