"""Messages that need nothing but their handler take a short way; what is special about one is seen all the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from commons_events import Delivery, Event
from commons_events.binding import BinaryBinding
from commons_events.dead_letters import REDRIVEN_GROUP
from commons_events.message import Message
from commons_events.middleware import Middleware
from commons_events.router import EventRouter
from commons_events.testing import EventTestHarness, _router_run


class Sale(Event):
    event_type = "router.sale"
    n: int = 0


class Refund(Event):
    event_type = "router.refund"
    n: int = 0


class NoRecorder(Middleware):
    """In place of the harness's own, so that nothing is around the handlers."""

    def __init__(self, record: object) -> None: ...


@pytest.fixture(autouse=True)
def nothing_around_handlers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_router_run, "_Recorder", NoRecorder)
        yield


def message(event: Event, *more: tuple[str, bytes]) -> Message:
    return BinaryBinding("ce_").to_message(event.with_source("tests"), "sales", key=b"k", headers=more)


@pytest.mark.asyncio
async def test_types_that_alternate_reach_their_own_handlers(harness: EventTestHarness) -> None:
    router = EventRouter()
    seen: list[tuple[str, int]] = []

    @router.subscribe("sales", group="g")
    async def on_sale(event: Sale) -> None:
        seen.append((type(event).__name__, event.n))

    @router.subscribe("sales", group="g")
    async def on_refund(event: Refund, delivery: Delivery) -> None:
        seen.append((type(event).__name__, event.n))

    events: list[Event] = [Refund(n=n) if n % 3 == 2 else Sale(n=n) for n in range(30)]
    async with harness.run(router) as t:
        await t.publish(*map(message, events))
        await t.idle()
    assert seen == [("Refund" if n % 3 == 2 else "Sale", n) for n in range(30)]


@pytest.mark.asyncio
@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize("more", [(), (("traceparent", b"00-0-0-00"),)])
async def test_what_was_redriven_for_another_group_is_passed_over(
    harness: EventTestHarness, in_batches: bool, more: tuple[tuple[str, bytes], ...]
) -> None:
    router = EventRouter()
    seen: list[int] = []

    async def each(event: Sale) -> None:
        seen.append(event.n)

    async def several(events: list[Sale]) -> None:
        seen.extend(event.n for event in events)

    router.subscribe("sales", group="g")(several if in_batches else each)
    usual, mine, other = message(Sale(n=1), *more), message(Sale(n=2), *more), message(Sale(n=3), *more)
    mine = mine._replace(headers=(*mine.headers, (REDRIVEN_GROUP, b"g")))
    other = other._replace(headers=(*other.headers, (REDRIVEN_GROUP, b"another")))
    strange = message(Sale(n=4))
    strange = strange._replace(headers=(*strange.headers[:4], (REDRIVEN_GROUP, b"another"), *strange.headers[5:]))
    async with harness.run(router) as t:
        await t.publish(usual, usual, mine, other, strange, usual)
        await t.idle()
        assert t.running.error is None
    assert seen == [1, 1, 2, 1]


@pytest.mark.asyncio
async def test_bytes_that_only_begin_as_usual_are_kept_with_the_reason(harness: EventTestHarness) -> None:
    router = EventRouter()
    seen: list[int] = []

    @router.subscribe("sales", group="g", dead_letter="letters")
    async def on_sale(event: Sale) -> None:
        seen.append(event.n)

    usual = message(Sale(n=1))
    assert usual.value is not None
    cut, tombstone = usual._replace(value=usual.value[:-3]), usual._replace(value=None)
    async with harness.run(router) as t:
        await t.publish(usual, usual, cut, tombstone, usual)
        await t.idle()
        letters = t.dead_letters("letters")
    assert seen == [1, 1, 1]
    assert [letter.reason for letter in letters] == ["cannot be decoded", "cannot be decoded"]
    assert [letter.message.value for letter in letters] == [cut.value, None]


@pytest.mark.asyncio
async def test_a_type_header_that_comes_twice_does_not_mislead_those_behind_it(harness: EventTestHarness) -> None:
    router = EventRouter()
    seen: list[str] = []

    @router.subscribe("sales", group="g", dead_letter="letters")
    async def on_sale(event: Sale) -> None:
        seen.append("sale")

    @router.subscribe("sales", group="g", dead_letter="letters")
    async def on_refund(event: Refund) -> None:
        seen.append("refund")

    sale = message(Sale(n=1))
    twice = sale._replace(headers=(*sale.headers, ("ce_type", b"router.refund")))
    async with harness.run(router) as t:
        await t.publish(twice, sale, sale)
        await t.idle()
    assert seen[-2:] == ["sale", "sale"]
