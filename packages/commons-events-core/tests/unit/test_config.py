"""Where settings come from, which win, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from commons_events import ConsumerConfig, EventConsumer, EventProducer, ProducerConfig
from commons_events.config import CONFIG_FILE, open_transport
from commons_events.errors import ConfigurationError, UnknownBrokerError
from commons_events.memory import MemoryTransport


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("COMMONS_EVENTS"):
            monkeypatch.delenv(name)


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "events.toml"
        path.write_text(text, "utf-8")
        monkeypatch.setenv(CONFIG_FILE, str(path))
        return path

    return write


def test_the_defaults_need_nothing() -> None:
    config = ProducerConfig()
    assert (config.broker, config.url, config.client_id, config.source) == ("memory", None, "commons-events", None)
    assert config.address == "memory://"
    assert ConsumerConfig(topics=["a"]).start == "earliest"


def test_arguments_win_over_the_role_s_variable_over_the_common_one_over_the_file(
    monkeypatch: pytest.MonkeyPatch, config_file: Any
) -> None:
    config_file('client_id = "file"\nclose_timeout = 1.0\n[producer]\nclient_id = "file-producer"\nsource = "s"\n')
    assert ProducerConfig().client_id == "file-producer"
    assert ConsumerConfig(topics=["a"]).client_id == "file"
    monkeypatch.setenv("COMMONS_EVENTS_CLIENT_ID", "common")
    assert ProducerConfig().client_id == ConsumerConfig(topics=["a"]).client_id == "common"
    monkeypatch.setenv("COMMONS_EVENTS_PRODUCER_CLIENT_ID", "role")
    assert ProducerConfig().client_id == "role"
    assert ConsumerConfig(topics=["a"]).client_id == "common"
    assert ProducerConfig(client_id="argument").client_id == "argument"
    assert (ProducerConfig().close_timeout, ProducerConfig().source) == (1.0, "s")


def test_every_setting_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "TOPICS": '["a", "b"]',
        "GROUP_ID": "g",
        "START": "latest",
        "BATCH_SIZE": "7",
        "RETRY_DELAY": "0.5",
        "DEAD_LETTER_TOPIC": "dead",
    }.items():
        monkeypatch.setenv(f"COMMONS_EVENTS_CONSUMER_{name}", text)
    monkeypatch.setenv("COMMONS_EVENTS_URL", "memory://here")
    monkeypatch.setenv("COMMONS_EVENTS_OPTIONS", '{"partitions": 3}')
    config = ConsumerConfig()
    assert config.topics == ("a", "b")
    assert (config.group_id, config.start, config.batch_size) == ("g", "latest", 7)
    assert (config.retry_delay, config.dead_letter_topic) == (0.5, "dead")
    assert (config.address, config.options) == ("memory://here", {"partitions": 3})


@pytest.mark.parametrize("text", ["", "a,b", '["a"'])
def test_what_names_no_topic_of_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_CONSUMER_TOPICS", text)
    with pytest.raises(ConfigurationError, match="topics"):
        ConsumerConfig()


@pytest.mark.parametrize(("text", "topics"), [("orders", ("orders",)), ('["orders", "b"]', ("orders", "b"))])
def test_one_topic_of_the_environment_needs_no_json(
    monkeypatch: pytest.MonkeyPatch, text: str, topics: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_CONSUMER_TOPICS", text)
    assert ConsumerConfig().topics == topics
    monkeypatch.setenv("COMMONS_EVENTS_OPTIONS", text)  # which cannot be one word
    with pytest.raises(ConfigurationError, match="options"):
        ConsumerConfig()


def test_a_broker_from_the_environment_and_a_url_as_argument_do_not_fight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_URL", "kafka://from-env:9092")
    config = ProducerConfig(broker="memory://mine")
    assert config.address == "memory://mine"


def test_an_argument_broker_wins_over_a_url_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_URL", "kafka://from-env:9092")
    config = ProducerConfig(broker="memory")
    assert isinstance(open_transport(config), MemoryTransport)


def test_an_argument_url_wins_over_a_broker_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_BROKER", "kafka")
    config = ProducerConfig(url="memory://mine")
    assert isinstance(open_transport(config), MemoryTransport)


def test_one_topic_is_a_list_too() -> None:
    assert ConsumerConfig(topics="orders").topics == ("orders",)


def test_a_config_does_not_change() -> None:
    with pytest.raises(ValidationError):
        ProducerConfig().client_id = "x"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"brokr": "memory"}, ["brokr"]),
        ({"close_timeout": -1, "client_id": 5, "nope": 1}, ["close_timeout", "client_id", "nope"]),
        ({"max_message_bytes": 0}, ["max_message_bytes"]),
        ({"binding": "loose"}, ["binding", "binary", "structured"]),
        ({"delivery_timeout": 0}, ["delivery_timeout"]),
        ({"source": ""}, ["source"]),
        ({"broker": ""}, ["broker is empty"]),
        ({"url": "localhost:9092"}, ["SCHEME://"]),
        ({"url": "://x"}, ["SCHEME://"]),
        ({"url": ""}, ["SCHEME://"]),
        ({"broker": "memory://a", "url": "memory://b"}, ["both URLs"]),
    ],
)
def test_wrong_settings_are_a_configuration_error_that_names_all_of_them(
    settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigurationError, match="^ProducerConfig: ") as caught:
        ProducerConfig(**settings)
    assert isinstance(caught.value, ValueError)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "topics"),
        ({"topics": []}, "topics"),
        ({"topics": ["a"], "group_id": ""}, "group_id"),
        ({"topics": ["a"], "start": "middle"}, "start"),
        ({"topics": ["a"], "batch_size": 0}, "batch_size"),
        ({"topics": ["a", "d"], "dead_letter_topic": "d"}, "feed itself"),
        ({"topics": 5}, "topics"),
    ],
)
def test_a_consumer_s_wrong_settings_are_named(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        ConsumerConfig(**settings)


def test_a_wrong_variable_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_CLOSE_TIMEOUT", "soon")
    with pytest.raises(ConfigurationError, match="close_timeout"):
        ProducerConfig()


def test_a_variable_that_should_hold_json_and_does_not_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COMMONS_EVENTS_OPTIONS", "{not json")
    with pytest.raises(ConfigurationError, match="options"):
        ProducerConfig()


def test_unknown_settings_in_the_file_are_named_with_the_file(config_file: Any) -> None:
    path = config_file('colour = "red"\n[producer]\ntopics = ["a"]\n')
    with pytest.raises(ConfigurationError, match="colour, topics") as caught:
        ProducerConfig()
    assert str(path) in str(caught.value)


def test_the_other_role_s_table_is_nobody_s_business(config_file: Any) -> None:
    config_file('[consumer]\ntopics = ["a"]\n[producer]\nsource = "s"\n')
    assert ProducerConfig().source == "s"
    assert ConsumerConfig().topics == ("a",)


@pytest.mark.parametrize("text", ["broker = ", "[producer", "\ud7ff = 1 2"])
def test_a_file_that_is_no_toml_is_a_configuration_error(config_file: Any, text: str) -> None:
    config_file(text)
    with pytest.raises(ConfigurationError, match="TOML"):
        ProducerConfig()


def test_a_file_whose_table_is_no_table_is_a_configuration_error(config_file: Any) -> None:
    config_file('producer = "x"\n')
    with pytest.raises(ConfigurationError, match="producer"):
        ProducerConfig()


def test_a_file_that_is_missing_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CONFIG_FILE, str(tmp_path / "none.toml"))
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        ProducerConfig()


# --- brokers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"broker": "memory"}, {"url": "memory://"}, {"broker": "memory://x"}, {}])
def test_the_in_process_broker_is_found_by_name_and_url(settings: dict[str, Any]) -> None:
    assert isinstance(open_transport(ProducerConfig(**settings)), MemoryTransport)


@pytest.mark.parametrize("settings", [{"broker": "kafak"}, {"url": "kafak://host:1"}, {"broker": "kafak://host:1"}])
def test_an_unknown_broker_names_the_installed_ones_and_the_one_that_is_meant(settings: dict[str, Any]) -> None:
    with pytest.raises(UnknownBrokerError) as caught:
        EventProducer(**settings)
    text = str(caught.value)
    assert "'kafak'" in text
    assert "memory" in text
    assert "'kafka'" in text
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize(
    ("broker", "distribution"),
    [("kafka", "kafka"), ("rabbitmq", "rabbitmq"), ("amqp", "rabbitmq"), ("pubsub", "pubsub"), ("sqs", "aws")],
)
def test_a_known_broker_that_is_not_installed_says_the_line_to_type(
    broker: str, distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from commons_events import plugins

    present = plugins.names(plugins.TRANSPORTS)
    if broker in present:
        pytest.skip(f"{broker} is installed here")
    with pytest.raises(UnknownBrokerError, match=rf'pip install "commons-events-{distribution}"'):
        EventConsumer(broker=broker, topics=["a"])


def test_a_word_like_no_broker_gets_no_guess() -> None:
    with pytest.raises(UnknownBrokerError) as caught:
        EventProducer(broker="zzzzzz")
    assert "Did you mean" not in str(caught.value)


def test_a_broker_and_the_url_of_another_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not the same"):
        EventProducer(broker="memory", url="kafka://host:9092")


def test_a_config_and_settings_together_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        EventProducer(ProducerConfig(), broker="memory")
    with pytest.raises(ConfigurationError, match="not both"):
        EventConsumer(ConsumerConfig(topics=["a"]), group_id="g")


# --- secrets -----------------------------------------------------------------------------------------------------

SECRET = "hunter2"
URL = f"memory://user:{SECRET}@host?token={SECRET}"


@pytest.mark.parametrize("settings", [{"url": URL}, {"broker": URL}])
def test_a_secret_shows_in_no_text_of_a_config(settings: dict[str, Any]) -> None:
    config = ProducerConfig(**settings, options={"password": SECRET})
    for text in (repr(config), str(config), f"{config}", repr(config.url), str(config.url)):
        assert SECRET not in text
    assert SECRET in config.address


@pytest.mark.parametrize("settings", [{"url": URL}, {"broker": URL}, {"options": {"password": SECRET}}])
def test_a_secret_shows_in_no_dump_of_a_config(settings: dict[str, Any]) -> None:
    config = ProducerConfig(**settings)
    assert SECRET not in config.model_dump_json()
    assert SECRET not in str(config.model_dump())


@pytest.mark.parametrize(
    "settings",
    [
        {"url": f"user:{SECRET}@host:9092"},
        {"url": URL, "nope": 1},
        {"url": URL, "broker": URL},
        {"broker": URL, "close_timeout": "x"},
        {"url": URL, "close_timeout": SECRET},
        {"options": f"password={SECRET}"},
        {"url": [SECRET]},
        {"broker": f"kafka://u:{SECRET}@h", "url": f"kafka://u:{SECRET}@h"},
        {"url": f"//u:{SECRET}@h"},
        {"url": f"host?password={SECRET}"},
    ],
)
def test_a_secret_shows_in_no_configuration_error(settings: dict[str, Any]) -> None:
    import traceback

    with pytest.raises(ConfigurationError) as caught:
        ProducerConfig(**settings)
    assert SECRET not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "settings",
    [
        {"url": URL},
        {"broker": f"kafak://u:{SECRET}@h"},
        {"broker": "memory", "url": f"kafka://u:{SECRET}@h"},
    ],
)
def test_a_secret_shows_in_no_error_of_opening_a_broker(settings: dict[str, Any]) -> None:
    import traceback

    with pytest.raises(ConfigurationError) as caught:
        EventProducer(**settings)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_secret_shows_in_no_repr_of_a_transport_s_settings() -> None:
    from commons_events.transport import TransportSettings

    assert SECRET not in repr(TransportSettings(url=URL, options={"password": SECRET}))


def test_a_secret_in_the_environment_shows_in_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import traceback

    monkeypatch.setenv("COMMONS_EVENTS_URL", f"user:{SECRET}@host")
    with pytest.raises(ConfigurationError) as caught:
        ProducerConfig()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_config_may_cross_to_another_process_whole() -> None:
    import pickle

    config = ProducerConfig(url="memory://u", client_id="c")
    again = pickle.loads(pickle.dumps(config))
    assert again.address == "memory://u"
    assert again == config


def test_an_unknown_setting_may_be_the_brokers_own() -> None:
    with pytest.raises(ConfigurationError, match=r"queue_type.*url's query, or options"):
        ProducerConfig(broker="memory", queue_type="stream")  # type: ignore[call-arg]


@pytest.mark.parametrize("setting", ["broker", "url"])
@pytest.mark.parametrize("host", ["[::1", "\u2100"])
def test_a_url_that_cannot_be_read_shows_no_secret(setting: str, host: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        ProducerConfig(**{setting: f"amqp://user:hunter2@{host}"})
    assert "hunter" not in str(caught.value)
