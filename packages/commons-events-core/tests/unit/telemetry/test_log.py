"""The log: silent as a library's until the program configures logging, then in the program's own format."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from commons_events.log import logger


@pytest.fixture
def own_structlog() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_the_log_is_silent_by_default(python: Callable[..., str]) -> None:
    code = """
from commons_events.log import logger
logger().warning("w", a=1); logger().error("e"); logger().debug("d")
print("end")
"""
    assert python(code) == "end\n"


def test_a_stalled_consumer_warns_nobody_who_has_not_asked(python: Callable[..., str]) -> None:
    code = """
import asyncio
from commons_events import Event, EventConsumer, EventProducer
class Happened(Event):
    event_type = "happened"
async def main():
    async with EventProducer(broker="memory") as producer:
        for _ in range(3):
            await producer.send("t", Happened())
    async with EventConsumer(broker="memory", topics=["t"], max_unsettled=1) as consumer:
        await consumer.receive(1)
        await consumer.receive(1, timeout=0.01)
asyncio.run(main())
print("end")
"""
    assert python(code) == "end\n"


def test_standard_logging_gets_the_words_and_the_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "commons_events"):
        logger().warning("what happened", topic="t", n=3)
        logger().debug("not this")
    (record,) = caplog.records
    assert (record.name, record.levelname, record.message) == ("commons_events", "WARNING", "what happened")
    assert (record.topic, record.n) == ("t", 3)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("own_structlog")
def test_a_configured_structlog_gets_the_events() -> None:
    from structlog.testing import LogCapture

    capture = LogCapture()
    structlog.configure(processors=[capture])
    logger().warning("what happened", topic="t")
    assert capture.entries == [{"event": "what happened", "log_level": "warning", "topic": "t"}]


@pytest.mark.usefixtures("own_structlog")
def test_structlog_may_be_configured_after_the_import_and_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    from structlog.testing import LogCapture

    with caplog.at_level(logging.INFO, "commons_events"):
        logger().warning("before")
        capture = LogCapture()
        structlog.configure(processors=[capture])
        logger().warning("during")
        structlog.reset_defaults()
        logger().warning("after")
    assert [record.message for record in caplog.records] == ["before", "after"]
    assert [entry["event"] for entry in capture.entries] == ["during"]


def test_the_library_configures_nothing(python: Callable[..., str]) -> None:
    code = """
import logging, structlog
from commons_events import *
import commons_events.log
assert not structlog.is_configured()
assert not logging.getLogger().handlers
print([type(h).__name__ for h in logging.getLogger("commons_events").handlers])
"""
    assert python(code).strip() == "['NullHandler']"
