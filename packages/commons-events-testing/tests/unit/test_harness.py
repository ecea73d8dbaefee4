"""The harness, the fixtures and `eventually`."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from subprocess import run
from typing import Any, Literal

import pytest

import commons_events.testing
from commons_events.errors import InvalidTopicError
from commons_events.event import Event, EventRegistry
from commons_events.memory import MemoryBroker
from commons_events.message import Message
from commons_events.retries import Retry
from commons_events.router import EventRouter
from commons_events.testing import EventTestHarness, MockProducer, _wait, eventually
from commons_events.testing._virtual_time import virtual_time
from commons_events.testing.services import shared


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
@pytest.mark.parametrize("shared", [True, False], ids=["one harness", "two harnesses"])
async def test_routers_run_side_by_side_in_one_virtual_time(shared: bool) -> None:
    handled: list[str] = []

    def router(name: str) -> EventRouter:
        made = EventRouter()

        @made.subscribe(name, group=name)
        async def handle(event: Noticed) -> None:
            await asyncio.sleep(100)
            handled.append(name)

        return made

    async with EventTestHarness() as harness, EventTestHarness() as other:
        second = harness if shared else other
        async with harness.run(router("a")) as t:
            async with second.run(router("b")) as u:
                await asyncio.gather(t.send("a", Noticed(number=1)), u.send("b", Noticed(number=1)))
                await asyncio.gather(t.idle(), u.idle())
                assert sorted(handled) == ["a", "b"]
                await t.send("a", Noticed(number=2))
            await t.idle()  # the time of the outer one is still virtual
            assert sorted(handled) == ["a", "a", "b"]
        assert u.time.passed >= 100
        assert t.time.passed >= 200


@pytest.mark.asyncio
async def test_routers_of_several_tasks_share_the_virtual_time() -> None:
    async def run(seconds: float) -> None:
        router = EventRouter()

        @router.subscribe("topic", group="g")
        async def handle(event: Noticed) -> None:
            await asyncio.sleep(seconds)

        async with EventTestHarness() as harness, harness.run(router) as t:
            await t.send("topic", Noticed(number=1))
            await t.handled(handle)
            assert t.time.passed >= seconds

    await asyncio.gather(*(run(seconds) for seconds in (200, 300, 100)))


@pytest.mark.asyncio
async def test_what_waits_goes_on_from_where_virtual_time_was() -> None:
    loop = asyncio.get_running_loop()
    with virtual_time() as time:
        await asyncio.sleep(5000)
        waiting = asyncio.create_task(asyncio.sleep(0.01))
        await asyncio.sleep(0)
        virtual = loop.time(), time.monotonic(), time.now()
    assert time.passed == 5000
    async with asyncio.timeout(60):
        await waiting
    assert loop.time() >= virtual[0]
    assert time.monotonic() >= virtual[1]
    assert time.now() >= virtual[2]


@pytest.mark.asyncio
async def test_handlers_of_one_name_are_told_apart() -> None:
    router = EventRouter()

    class Service:
        async def handle(self, event: Noticed) -> None: ...

    def declare(topic: str) -> Callable[..., Any]:
        @router.subscribe(topic, group="g")
        async def handle(event: Noticed) -> None: ...

        return handle

    functions, services = [declare("a"), declare("b")], [Service(), Service()]
    for topic, service in zip(("c", "d"), services, strict=True):
        router.subscribe(topic, group="g")(service.handle)
    async with EventTestHarness() as harness, harness.run(router) as t:
        for topic in ("a", "c"):
            await t.send(topic, Noticed(number=1))
        await t.idle()
        for handlers in (functions, [service.handle for service in services]):
            assert [event.number for event in await t.handled(handlers[0])] == [1]
            assert await t.handled(handlers[1], 0) == []
            with pytest.raises(AssertionError, match="handled 0 of 1 times"):
                await t.handled(handlers[1], timeout=1)
        with pytest.raises(ValueError, match="2 handlers of this router have the name"):
            await t.handled(Service.handle)
        with pytest.raises(ValueError, match="is no handler of this router, which has: .*declare"):
            await t.failed(test_eventually)


@pytest.mark.asyncio
async def test_a_handler_is_known_by_what_a_decorator_made_of_it() -> None:
    router = EventRouter()

    @router.subscribe("topic", group="g")
    async def handle(event: Noticed) -> None: ...

    @wraps(handle)
    async def decorated(event: Noticed) -> None: ...

    async with EventTestHarness() as harness, harness.run(router) as t:
        await t.send("topic", Noticed(number=1))
        assert len(await t.handled(decorated)) == 1


@pytest.mark.asyncio
async def test_nobody_waits_for_a_router_that_has_ended() -> None:
    router = EventRouter()

    @router.subscribe("topic", group="g")
    async def handle(event: Noticed) -> None: ...

    async with EventTestHarness() as harness, asyncio.timeout(60):
        async with harness.run(router) as t:
            await t.send("topic", Noticed(number=1))
            await t.handled(handle)
        assert len(await t.handled(handle)) == 1
        with pytest.raises(AssertionError, match=r"handled 1 of 2 times\. The router has ended"):
            await t.handled(handle, 2)
        with pytest.raises(AssertionError, match="The router has ended"):
            await t.idle()


@pytest.mark.asyncio
async def test_brokers_that_handlers_name_are_at_hand() -> None:
    router = EventRouter()
    tries: list[int] = []
    router.bridge("orders", group="to-archive", to_broker="archive")

    @router.subscribe("orders", group="g", broker="archive", retry=Retry(delay=50, by="redelivery"), dead_letter="dead")
    async def handle(event: Noticed) -> None:
        tries.append(event.number)
        if event.number == 9 or len(tries) < 3:
            raise OSError

    async with EventTestHarness() as harness, harness.run(router) as t:
        await t.send("orders", Noticed(number=1))
        await t.idle()
        assert tries == [1, 1, 1]
        assert len(t.messages("orders", broker="archive")) == 1
        await t.send("orders", Noticed(number=9), broker="archive")
        await t.publish(Message("orders", b"?"), broker="archive")
        await t.idle()
        assert len(t.messages("orders")) == 1
        assert len(t.dead_letters("dead", broker="archive")) == 2
        with pytest.raises(ValueError, match="No handler names the broker 'archives'; those that are named: 'archive'"):
            t.messages("orders", broker="archives")
        with pytest.raises(TypeError, match="publish\\(\\) takes Messages"):
            await t.publish(Noticed(number=1))  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_a_forgotten_topic_is_noticed() -> None:
    router = EventRouter()

    @router.subscribe("topic", group="g")
    async def handle(event: Noticed) -> None: ...

    async with EventTestHarness() as harness, harness.run(router) as t:
        for send in (harness.publish, t.send, lambda topic: MockProducer().send_batch(topic, [])):
            with pytest.raises(InvalidTopicError, match="A topic name is a str, not Noticed"):
                await send(Noticed(number=1))  # type: ignore[operator]


@pytest.mark.asyncio
@pytest.mark.parametrize("before", [None, "false"])
async def test_topics_are_made_while_any_block_of_a_kafka_is_open(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = "COMMONS_EVENTS_KAFKA_AUTO_CREATE_TOPICS"
    monkeypatch.setattr(shared, "get", lambda name: name)
    monkeypatch.delenv(variable, raising=False)
    if before is not None:
        monkeypatch.setenv(variable, before)
    one, other = EventTestHarness().kafka_container(), EventTestHarness().kafka_container()
    await one.__aenter__()
    await other.__aenter__()
    await one.__aexit__(None, None, None)
    assert os.environ[variable] == "true"
    await other.__aexit__(None, None, None)
    assert os.environ.get(variable) == before


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


@pytest.mark.asyncio
async def test_a_thread_that_one_block_began_and_another_ends_stops_no_time() -> None:
    may_end = threading.Event()
    with virtual_time():
        working = asyncio.create_task(asyncio.to_thread(may_end.wait, 60))
        await asyncio.sleep(0)
    with virtual_time() as time:
        may_end.set()
        await working
        await asyncio.sleep(1000)
        assert time.passed == 1000


@pytest.mark.asyncio
async def test_a_condition_may_ask_a_thread_or_a_server_in_virtual_time() -> None:
    async def answer() -> str:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[str] = loop.create_future()
        threading.Timer(0.05, loop.call_soon_threadsafe, (answered.set_result, "there")).start()
        return await answered

    with virtual_time():
        assert await eventually(answer) == "there"


@pytest.mark.parametrize("block", [nullcontext, virtual_time])
@pytest.mark.asyncio
async def test_a_condition_without_an_answer_is_not_waited_for_without_an_end(
    block: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EventTestHarness() as harness, harness.consumer("topic", group_id="g") as consumer:
        with monkeypatch.context() as patched:
            patched.setattr(_wait, "_AN_ANSWER", 0.1)
            with block(), pytest.raises(AssertionError, match="a message did not hold: .* no answer within 0.5 s"):
                await eventually(lambda: consumer.receive(1), timeout=0.5, what="a message")
        await harness.publish("topic", Noticed(number=1))
        assert len(await eventually(lambda: consumer.receive(1), timeout=60)) == 1

    async def out_of_time() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await eventually(out_of_time)


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
