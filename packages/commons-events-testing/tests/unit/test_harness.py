"""The harness, the fixtures and `eventually`."""

from __future__ import annotations

import sys
from subprocess import run
from typing import Literal

import pytest

import commons_events.testing
from commons_events.event import Event, EventRegistry
from commons_events.memory import MemoryBroker
from commons_events.retries import Retry
from commons_events.router import EventRouter
from commons_events.testing import EventTestHarness, eventually


class Noticed(Event):
    event_type = "testing.harness.noticed"
    number: int


@pytest.mark.asyncio
async def test_a_harness_has_a_broker_of_its_own() -> None:
    async with EventTestHarness() as harness, EventTestHarness() as other:
        await harness.publish("topic", Noticed(number=1), Noticed(number=2), key="key")
        async with harness.consumer("topic", group_id="group") as consumer:
            assert len(await consumer.receive(5, timeout=60)) == 2
        events = await harness.events("topic", count=2)
        assert [event.number for event in events if isinstance(event, Noticed)] == [1, 2]
        with pytest.raises(AssertionError, match="1 messages on topic 'topic'"):
            await other.events("topic", timeout=0.02)
        harness.reset()
        assert harness.broker.topics() == []


@pytest.mark.asyncio
@pytest.mark.parametrize("by", ["in-place", "redelivery", "topic"])
async def test_idle_waits_for_retries_also_in_the_broker(by: Literal["in-place", "redelivery", "topic"]) -> None:
    router = EventRouter()
    tries: list[int] = []

    @router.subscribe("topic", group="g", retry=Retry(delay=50, by=by))
    async def handle(event: Noticed) -> None:
        tries.append(event.number)
        if len(tries) < 3:
            raise OSError

    async with EventTestHarness() as harness, harness.run(router) as t:
        await t.send("topic", Noticed(number=1))
        await t.idle()
        assert tries == [1, 1, 1]


@pytest.mark.asyncio
async def test_idle_says_that_the_router_has_stopped() -> None:
    router = EventRouter()

    @router.subscribe("topic", group="g", retry=Retry(attempts=1))
    async def handle(event: Noticed) -> None:
        raise OSError

    with pytest.raises(AssertionError, match="The router stopped: HandlerFailedError"):
        async with EventTestHarness() as harness, harness.run(router) as t:
            await t.send("topic", Noticed(number=1), Noticed(number=2))
            await t.idle()


@pytest.mark.asyncio
async def test_eventually() -> None:
    asked: list[int] = []

    async def third() -> int:
        asked.append(1)
        return len(asked) > 2 and 7

    assert await eventually(third) == 7
    assert await EventTestHarness().wait_until(lambda: "yes") == "yes"
    with pytest.raises(AssertionError, match=r"the light did not hold within 0\.01 s; the last value was 0"):
        await eventually(lambda: 0, timeout=0.01, what="the light")


def test_the_fixture_resets_the_default_broker(memory_broker: MemoryBroker, event_harness: EventTestHarness) -> None:
    assert MemoryBroker.get() is memory_broker
    assert memory_broker.topics() == []
    assert event_harness.broker is not memory_broker


@pytest.mark.parametrize("number", [1, 2])
def test_the_fixture_forgets_event_classes(event_registry: EventRegistry, number: int) -> None:
    assert event_registry.get("testing.harness.passing") is None

    class Passing(Event):
        event_type = "testing.harness.passing"

    assert event_registry.get("testing.harness.passing") is Passing


def test_public_names_are_there() -> None:
    for name in commons_events.testing.__all__:
        assert getattr(commons_events.testing, name).__name__ == name
        assert name in dir(commons_events.testing)
    with pytest.raises(AttributeError, match="no_such_name"):
        commons_events.testing.no_such_name  # noqa: B018


def _python(code: str) -> str:
    return run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_mocks_need_no_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = sys.modules['pytest_asyncio'] = None\n"
        "from commons_events.testing import EventTestHarness, MockConsumer, MockProducer, eventually\n"
        "try: import commons_events.testing.contracts\n"
        "except ImportError as error: print(error)"
    )
    assert 'pip install "commons-events-testing[contracts]"' in _python(code)


def test_the_plugin_loads_no_framework() -> None:
    code = (
        "import sys, pytest; import commons_events.testing.pytest_plugin\n"
        "print([name for name in ('pydantic', 'structlog', 'opentelemetry', 'hypothesis') if name in sys.modules])"
    )
    assert _python(code).strip() == "[]"
