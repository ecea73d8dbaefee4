"""The demo's part: real orders become aggregates, and what is read back is checked."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from commons_events.sourcing._demo import demo


def event(event_type: str, **fields: Any) -> Any:
    return SimpleNamespace(event_type=event_type, **fields)


def test_the_shop_s_events_are_sourced_and_projected() -> None:
    lines = demo(
        [
            event("order.placed", order_id="o-1", currency="EUR"),
            event("order.placed", order_id="o-2", currency="SEK"),
            event("order.paid", order_id="o-1", amount=Decimal("10.50"), currency="EUR"),
            event("order.paid", order_id="o-2", amount=Decimal("7"), currency="SEK"),
            event("page.seen"),
            event("order.shipped", order_id="o-1"),
            event("order.cancelled", order_id="o-2", refund=Decimal("2"), currency="SEK"),
        ]
    )
    assert len(lines) == 3
    assert "2 orders saved as 7 events" in lines[0]
    assert "1 shipped" in lines[0]
    assert "1 cancelled" in lines[0]
    assert "expected version 3, found 4" in lines[1]
    assert "EUR 10.50, SEK 5.00" in lines[2]


def test_without_orders_there_is_nothing_to_show() -> None:
    assert demo([event("page.seen")]) == []
