"""What importing the package loads, and what it does not."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

Python = Callable[..., str]

BARE = {"commons_events", "pkgutil"}
"""All that `import commons_events` loads, but for what those need of the standard library."""
HEAVY = {
    "pydantic", "pydantic_core", "pydantic_settings", "structlog", "opentelemetry", "rich", "typer", "asyncio",
    "logging", "typing_extensions", "importlib.metadata", "zoneinfo",
}  # fmt: skip
BROKER_CLIENTS = {
    "confluent_kafka", "pika", "google", "boto3", "botocore", "avro", "fastavro", "fastjsonschema", "sqlalchemy",
    "psycopg", "testcontainers", "aiokafka", "aio_pika", "kafka",
}  # fmt: skip

LOADED = """
import sys
before = set(sys.modules)
{statement}
import json
print(json.dumps(sorted(set(sys.modules) - before - {{"json"}})))
"""


def loaded(python: Python, statement: str) -> set[str]:
    return set(json.loads(python(LOADED.format(statement=statement))))


def test_the_bare_import_loads_just_this(python: Python) -> None:
    standard = loaded(python, "import pkgutil, typing")
    assert loaded(python, "import commons_events") - standard == BARE - standard


def test_the_bare_import_loads_nothing_heavy(python: Python) -> None:
    found = loaded(python, "import commons_events")
    assert not {name for name in found if name.split(".")[0] in HEAVY or name in HEAVY}


def test_the_bare_import_has_all_public_names_without_loading_them(python: Python) -> None:
    found = loaded(python, "import commons_events\nassert 'EventProducer' in dir(commons_events)")
    assert not {name for name in found if name.split(".")[0] in HEAVY}


def test_bytes_that_are_refused_load_no_format_that_no_class_has(python: Python) -> None:
    statement = """
from commons_events import Event

class Made(Event):
    n: int

for cls, data in [(Made, b"{"), (Made, b'{"n": "x"}'), (Made, b"\\xc3\\x01" + bytes(20)), (Event, Made(n=1).to_json())]:
    try:
        cls.deserialize(data)
    except ValueError:
        pass
"""
    found = loaded(python, statement)
    assert not {
        name for name in found if name.split(".")[0] in BROKER_CLIENTS or name.startswith("commons_events.avro")
    }


@pytest.mark.parametrize(
    "statement",
    [
        "from commons_events import Event",
        "from commons_events import *",
        "import commons_events.producers, commons_events.consumers, commons_events.memory",
    ],
)
def test_importing_core_loads_no_broker_client_and_no_sibling(python: Python, statement: str) -> None:
    found = loaded(python, statement)
    assert not {name for name in found if name.split(".")[0] in BROKER_CLIENTS}
    siblings = {"kafka", "rabbitmq", "pubsub", "aws", "streaming", "sourcing", "schemas", "testing"}
    assert not {name for name in found if name.startswith("commons_events.") and name.split(".")[1] in siblings}
    assert not {name for name in found if name.split(".")[0] in {"typer", "click", "pytest", "hypothesis"}}


def test_event_needs_neither_settings_nor_logging_nor_telemetry(python: Python) -> None:
    found = loaded(python, "from commons_events import Event")
    assert not {name for name in found if name.split(".")[0] in {"pydantic_settings", "structlog", "opentelemetry"}}
    assert not {"commons_events.producers", "commons_events.consumers", "commons_events.memory"} & found


def test_an_unknown_name_is_python_s_own_error(python: Python) -> None:
    code = """
import commons_events
try:
    commons_events.Evnt
except AttributeError as error:
    print(error)
try:
    from commons_events import Evnt
except ImportError as error:
    print(type(error).__name__)
"""
    text = python(code).splitlines()
    assert text == ["module 'commons_events' has no attribute 'Evnt'", "ImportError"]


def test_every_module_can_be_the_first_one_imported(python: Python) -> None:
    code = """
import importlib, pkgutil, sys
import commons_events
names = [module.name for module in pkgutil.iter_modules(commons_events.__path__)]
for name in sorted(set(names) - {"cli", "testing"}):
    for loaded in [key for key in sys.modules if key.partition(".")[0] == "commons_events"]:
        del sys.modules[loaded]
    module = importlib.import_module(f"commons_events.{name}")
    for public in module.__all__:
        getattr(module, public)
print(*names)
"""
    assert {"binding", "config", "errors", "event", "memory", "message", "transport"} <= set(python(code).split())


def test_importing_everything_prints_nothing_and_starts_no_thread(python: Python) -> None:
    code = "from commons_events import *\nimport threading\nprint(threading.active_count())"
    assert python(code).strip() == "1"
