"""Finding plugins: by real entry points of distributions on the path, and by `register`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from commons_events import Event, EventSchema, plugins
from commons_events.binding import BinaryBinding, to_event
from commons_events.errors import DuplicatePluginError, MissingDistributionError, PluginError
from commons_events.plugins import CONSUMERS, PRODUCERS, SERIALIZERS, TRANSPORTS, register, unregister
from commons_events.serialization import JsonSerializer

Distribution = Callable[..., Path]
Python = Callable[..., str]


@pytest.fixture
def distribution(tmp_path: Path) -> Distribution:
    """Makes a folder that looks to Python like an installed distribution with entry points and one module."""

    def make(name: str, entry_points: dict[str, dict[str, str]], modules: dict[str, str] | None = None) -> Path:
        root = tmp_path / f"site-{name}"
        info = root / f"{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", "utf-8")
        lines = [
            line
            for group, points in entry_points.items()
            for line in (f"[{group}]", *(f"{key} = {target}" for key, target in points.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")
        for module, source in (modules or {}).items():
            (root / f"{module}.py").write_text(source, "utf-8")
        return root

    return make


@pytest.fixture
def registered() -> Iterator[None]:
    yield
    unregister(TRANSPORTS, "mine")
    unregister(SERIALIZERS, "mine")


def test_a_distribution_s_plugin_is_found_by_its_entry_point_and_loaded_when_asked_for(
    distribution: Distribution, python: Python
) -> None:
    root = distribution(
        "third-party", {TRANSPORTS: {"third": "third_party:Third"}}, {"third_party": "class Third: pass"}
    )
    code = """
import sys
from commons_events import plugins
assert plugins.names(plugins.TRANSPORTS) == sorted(plugins.names(plugins.TRANSPORTS))
assert "third" in plugins.names(plugins.TRANSPORTS)
assert "third_party" not in sys.modules
print(plugins.load(plugins.TRANSPORTS, "third").__name__)
"""
    assert python(code, paths=(root,)).strip() == "Third"


def test_two_distributions_with_one_name_are_refused_and_both_are_named(
    distribution: Distribution, python: Python
) -> None:
    one = distribution("dist-one", {TRANSPORTS: {"same": "one_module:T"}})
    two = distribution("dist-two", {TRANSPORTS: {"same": "two_module:T"}})
    code = """
from commons_events import plugins
from commons_events.errors import DuplicatePluginError
try:
    plugins.load(plugins.TRANSPORTS, "same")
except DuplicatePluginError as error:
    print(error)
"""
    text = python(code, paths=(one, two))
    for word in ("'same'", "dist-one", "dist-two", "one_module:T", "two_module:T", "Uninstall"):
        assert word in text


def test_a_duplicate_in_one_group_spares_the_others(distribution: Distribution, python: Python) -> None:
    one = distribution("dist-one", {TRANSPORTS: {"same": "one_module:T"}})
    two = distribution("dist-two", {TRANSPORTS: {"same": "two_module:T"}})
    code = "from commons_events import plugins; print(plugins.serializer('json').name)"
    assert python(code, paths=(one, two)).strip() == "json"


def test_one_distribution_found_twice_on_the_path_is_no_duplicate(distribution: Distribution, python: Python) -> None:
    root = distribution(
        "third-party", {TRANSPORTS: {"third": "third_party:Third"}}, {"third_party": "class Third: pass"}
    )
    code = "from commons_events import plugins; print(plugins.load(plugins.TRANSPORTS, 'third').__name__)"
    assert python(code, paths=(root, root)).strip() == "Third"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("raise ImportError('no client library')", "ImportError"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError"),
        ("x = 1", "AttributeError"),
        ("raise RuntimeError('broken inside')", "RuntimeError"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_plugin_that_does_not_load_is_an_error_with_its_cause_chained(
    distribution: Distribution, python: Python, source: str, cause: str
) -> None:
    root = distribution("broken-dist", {TRANSPORTS: {"broken": "broken_plugin:T"}}, {"broken_plugin": source})
    code = """
from commons_events import plugins
from commons_events.errors import PluginLoadError
try:
    plugins.load(plugins.TRANSPORTS, "broken")
except PluginLoadError as error:
    assert isinstance(error, ImportError)
    print(type(error.__cause__).__name__, "|", error)
"""
    text = python(code, paths=(root,))
    assert text.startswith(f"{cause} |")
    assert "'broken'" in text
    assert "broken-dist" in text
    assert "broken_plugin:T" in text


def test_the_listing_shows_what_is_installed_from_where_and_what_fails(
    distribution: Distribution, python: Python
) -> None:
    good = distribution("good-dist", {SERIALIZERS: {"good": "good_plugin:S"}}, {"good_plugin": "class S: pass"})
    bad = distribution("bad-dist", {PRODUCERS: {"Bad": "bad_plugin:P"}}, {"bad_plugin": "raise OSError('disk')"})
    code = """
import json
from dataclasses import asdict
from commons_events import plugins
print(json.dumps([asdict(info) for info in plugins.installed()]))
"""
    listed = {(info["group"], info["name"]): info for info in json.loads(python(code, paths=(good, bad)))}
    assert listed[TRANSPORTS, "memory"]["distribution"] == "commons-events-core"
    assert listed[TRANSPORTS, "memory"]["problem"] is None
    assert listed[SERIALIZERS, "good"] == {
        "group": SERIALIZERS,
        "name": "good",
        "target": "good_plugin:S",
        "distribution": "good-dist",
        "version": "1.2",
        "problem": None,
    }
    assert listed[PRODUCERS, "Bad"]["problem"] == "OSError: disk"


def test_a_third_party_s_producer_class_appears_beside_ours(distribution: Distribution, python: Python) -> None:
    root = distribution(
        "nats-dist",
        {
            PRODUCERS: {"NatsProducer": "nats_plugin:NatsProducer"},
            CONSUMERS: {"NatsConsumer": "nats_plugin:NatsConsumer"},
        },
        {"nats_plugin": "class NatsProducer: pass\nclass NatsConsumer: pass"},
    )
    code = """
import commons_events.consumers, commons_events.producers
from commons_events.producers import NatsProducer
from commons_events.consumers import NatsConsumer
assert "NatsProducer" in dir(commons_events.producers) and "NatsConsumer" in dir(commons_events.consumers)
assert "NatsProducer" not in commons_events.producers.__all__
print(NatsProducer.__module__, NatsConsumer.__module__)
"""
    assert python(code, paths=(root,)).split() == ["nats_plugin", "nats_plugin"]


MISSING = {
    "KafkaProducer": ("producers", "kafka"),
    "KafkaConsumer": ("consumers", "kafka"),
    "RabbitMQProducer": ("producers", "rabbitmq"),
    "RabbitMQConsumer": ("consumers", "rabbitmq"),
    "PubSubProducer": ("producers", "pubsub"),
    "PubSubConsumer": ("consumers", "pubsub"),
    "SNSProducer": ("producers", "aws"),
    "SQSConsumer": ("consumers", "aws"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_broker_s_class_whose_distribution_is_missing_says_the_line_that_brings_it(name: str) -> None:
    module, distribution = MISSING[name]
    if name in plugins.names(getattr(plugins, module.upper())):
        pytest.skip(f"{name} is installed here")
    with pytest.raises(ImportError, match=rf'pip install "commons-events-{distribution}"') as caught:
        exec(f"from commons_events.{module} import {name}")
    assert isinstance(caught.value, MissingDistributionError)
    assert caught.value.name == name
    assert name in str(caught.value)


@pytest.mark.parametrize("module", ["producers", "consumers"])
def test_a_name_that_is_no_plugin_of_ours_is_python_s_own_error(module: str) -> None:
    with pytest.raises(ImportError, match="cannot import name 'KafkaProducr'"):
        exec(f"from commons_events.{module} import KafkaProducr")


@pytest.mark.parametrize("module", ["streaming", "sourcing", "kafka", "schemas", "no_such"])
def test_a_missing_module_is_python_s_own_error(module: str) -> None:
    import importlib.util

    if importlib.util.find_spec(f"commons_events.{module}") is not None:
        pytest.skip(f"commons_events.{module} is installed here")
    with pytest.raises(ModuleNotFoundError) as caught:
        exec(f"import commons_events.{module}")
    assert type(caught.value) is ModuleNotFoundError
    assert caught.value.name == f"commons_events.{module}"


def test_an_unknown_plugin_names_those_there_are() -> None:
    with pytest.raises(MissingDistributionError, match=r"'nope'.*installed: .*memory"):
        plugins.load(TRANSPORTS, "nope")
    with pytest.raises(MissingDistributionError, match="none"):
        plugins.load("commons_events.nothing_here", "x")


@pytest.mark.parametrize(("name", "extra"), [("avro", "avro"), ("protobuf", "protobuf")])
def test_a_missing_format_says_the_line_that_brings_it(name: str, extra: str) -> None:
    if name in plugins.names(SERIALIZERS):
        pytest.skip(f"{name} is installed here")
    with pytest.raises(MissingDistributionError, match=rf'pip install "commons-events-core\[{extra}\]"'):
        plugins.serializer(name)


# --- register ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("registered")
def test_register_offers_a_plugin_and_unregister_takes_it_back() -> None:
    class Mine:
        pass

    with pytest.raises(MissingDistributionError):
        plugins.load(TRANSPORTS, "mine")
    register(TRANSPORTS, "mine", Mine)
    assert plugins.load(TRANSPORTS, "mine") is Mine
    assert "mine" in plugins.names(TRANSPORTS)
    unregister(TRANSPORTS, "mine")
    assert "mine" not in plugins.names(TRANSPORTS)
    with pytest.raises(MissingDistributionError):
        plugins.load(TRANSPORTS, "mine")
    unregister(TRANSPORTS, "mine")


@pytest.mark.usefixtures("registered")
def test_register_refuses_a_name_that_is_taken() -> None:
    register(TRANSPORTS, "mine", int)
    with pytest.raises(DuplicatePluginError, match="'mine'"):
        register(TRANSPORTS, "mine", str)
    with pytest.raises(DuplicatePluginError, match="'memory'"):
        register(TRANSPORTS, "memory", str)
    assert plugins.load(TRANSPORTS, "mine") is int
    assert issubclass(DuplicatePluginError, PluginError)


@pytest.mark.usefixtures("registered")
def test_a_serializer_that_was_unregistered_is_gone() -> None:
    from commons_events.serialization import JsonSerializer

    class Mine(JsonSerializer):
        name = "mine"

    register(SERIALIZERS, "mine", Mine)
    assert isinstance(plugins.serializer("mine"), Mine)
    unregister(SERIALIZERS, "mine")
    with pytest.raises(MissingDistributionError):
        plugins.serializer("mine")

    class Other(JsonSerializer):
        name = "mine"

    register(SERIALIZERS, "mine", Other)
    assert isinstance(plugins.serializer("mine"), Other)


@pytest.mark.usefixtures("registered")
def test_a_registered_format_serves_events() -> None:
    from commons_events import Event, EventSchema
    from commons_events.serialization import JsonSerializer

    class Reversed(JsonSerializer):
        name = "mine"
        content_type = "application/x-reversed"

        def encode(self, event: Event) -> bytes:
            return super().encode(event)[::-1]

        def decode(self, data: bytes, event_class: type) -> Event:  # type: ignore[override]
            return super().decode(data[::-1], event_class)

    register(SERIALIZERS, "mine", Reversed)

    @EventSchema(name="reversed", schema_type="mine")
    class Backwards(Event):
        n: int = 1

    event = Backwards(n=5)
    assert event.serialize() == event.to_json()[::-1]
    assert Backwards.deserialize(event.serialize()) == event
    assert Backwards.from_json(event.to_json()) == event


def test_a_plugin_of_ours_whose_library_is_not_installed_names_the_extra(
    distribution: Distribution, python: Python
) -> None:
    root = distribution("ours", {TRANSPORTS: {"pubsub": "ours_module:T"}}, {"ours_module": "import pubsub_of_nowhere"})
    code = """
from commons_events import plugins
from commons_events.errors import MissingDistributionError
try:
    plugins.load(plugins.TRANSPORTS, "pubsub")
except MissingDistributionError as error:
    print(error)
"""
    text = python(code, paths=(root,))
    assert "'pubsub' needs pubsub_of_nowhere, which is not installed" in text
    assert 'pip install "commons-events-pubsub"' in text


def test_a_name_that_two_distributions_offer_costs_no_other(distribution: Distribution, python: Python) -> None:
    one = distribution("dist-one", {TRANSPORTS: {"same": "one_module:T"}})
    two = distribution("dist-two", {TRANSPORTS: {"same": "two_module:T"}})
    code = """
from commons_events import plugins
print(plugins.names(plugins.TRANSPORTS), plugins.load(plugins.TRANSPORTS, "memory").name)
"""
    text = python(code, paths=(one, two))
    assert "'memory'" in text
    assert "'same'" in text
    assert text.endswith("memory\n")


def replaced_while_it_is_made(name: str) -> tuple[type[JsonSerializer], type[JsonSerializer]]:
    """A serializer that another one takes the place of, in another thread, while it is being made; and that one."""

    class Second(JsonSerializer):
        pass

    class First(JsonSerializer):
        def __init__(self) -> None:
            def replace() -> None:
                unregister(SERIALIZERS, name)
                register(SERIALIZERS, name, Second)

            thread = Thread(target=replace)
            thread.start()
            thread.join()

    First.name = Second.name = name
    First.content_type = Second.content_type = "application/x-mine"
    return First, Second


def test_an_answer_that_was_being_worked_out_during_a_change_is_not_kept(registered: None) -> None:
    first, second = replaced_while_it_is_made("mine")
    register(SERIALIZERS, "mine", first)
    assert type(plugins.serializer("mine")) is first
    assert plugins.load(SERIALIZERS, "mine") is second
    assert type(plugins.serializer("mine")) is second
    assert type(plugins.serializer_for("application/x-mine")) is second


def test_neither_end_of_the_way_goes_on_with_a_serializer_that_was_replaced(
    registered: None, own_registry: None
) -> None:
    first, second = replaced_while_it_is_made("mine")

    @EventSchema(name="mine.happened", version="1.0.0", schema_type="mine")
    class Happened(Event):
        number: int

    used: list[str] = []
    for serializer in (first, second):
        serializer.encode = _noting(serializer.encode, serializer.__name__, used)  # type: ignore[method-assign]
        serializer.decode = _noting(serializer.decode, serializer.__name__, used)  # type: ignore[method-assign]
    register(SERIALIZERS, "mine", first)
    binding, event = BinaryBinding(), Happened(number=1, source="s")
    messages = [binding.to_message(event, "t"), binding.to_message(event, "t")]
    assert used == ["First", "Second"]

    unregister(SERIALIZERS, "mine")
    register(SERIALIZERS, "mine", first)
    used.clear()
    for message in messages:
        assert to_event(message, Happened) == event
    assert used[-1] == "Second"


def _noting(method: Callable[..., Any], name: str, used: list[str]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        used.append(name)
        return method(*arguments)

    return noted
