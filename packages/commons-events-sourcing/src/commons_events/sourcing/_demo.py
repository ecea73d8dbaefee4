"""What ``commons-events demo`` shows of event sourcing: the demo's orders as aggregates, on SQLite."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import Column, MetaData, String, Table, insert, select, update

from commons_events.errors import VersionConflictError
from commons_events.event import Event
from commons_events.sourcing import AggregateRoot, DomainEvent, EventStore, Repository, StoreTransaction, UnitOfWork
from commons_events.sourcing.projections import Projection, Projector

__all__ = ["demo"]

_ORDERS_AT_ONCE = 50


class DemoOrderOpened(DomainEvent):
    event_type = "demo.order-opened"
    currency: str


class DemoMoneyMoved(DomainEvent):
    event_type = "demo.money-moved"
    amount: Decimal
    """Negative where it goes back."""
    currency: str


class DemoOrderShipped(DomainEvent):
    event_type = "demo.order-shipped"


class DemoOrderCancelled(DomainEvent):
    event_type = "demo.order-cancelled"


class _Order(AggregateRoot):
    category = "demo-order"

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.state = "new"
        self.currency = ""
        self.paid = Decimal(0)

    def take_note(self, event: Any) -> None:
        """Decide what an event of the shop means for the order."""
        if event.event_type == "order.placed":
            self.apply(DemoOrderOpened(aggregate_id=self.id, currency=event.currency))
        elif event.event_type == "order.paid":
            self.move(event.amount, event.currency)
        elif event.event_type == "order.shipped":
            self.apply(DemoOrderShipped(aggregate_id=self.id))
        elif event.event_type == "order.cancelled":
            if event.refund:
                self.move(-event.refund, event.currency)
            self.apply(DemoOrderCancelled(aggregate_id=self.id))

    def move(self, amount: Decimal, currency: str) -> None:
        """Money comes in, or goes back."""
        self.apply(DemoMoneyMoved(aggregate_id=self.id, amount=amount, currency=currency))

    def handle_demo_order_opened(self, event: DemoOrderOpened) -> None:
        self.state, self.currency = "open", event.currency

    def handle_demo_money_moved(self, event: DemoMoneyMoved) -> None:
        self.paid += event.amount
        self.currency = event.currency

    def handle_demo_order_shipped(self, event: DemoOrderShipped) -> None:
        self.state = "shipped"

    def handle_demo_order_cancelled(self, event: DemoOrderCancelled) -> None:
        self.state = "cancelled"


_revenue = Table(
    "demo_revenue",
    MetaData(),
    Column("currency", String(3), primary_key=True),
    Column("amount", String, nullable=False),
)
_projection = Projection("demo-revenue", tables=[_revenue])


@_projection.handler
async def _add_up(event: DemoMoneyMoved, transaction: StoreTransaction) -> None:
    mine = _revenue.c.currency == event.currency
    before = (await transaction.execute(select(_revenue.c.amount).where(mine))).scalar_one_or_none()
    if before is None:
        await transaction.execute(insert(_revenue).values(currency=event.currency, amount=str(event.amount)))
    else:
        await transaction.execute(update(_revenue).where(mine).values(amount=str(Decimal(before) + event.amount)))


def demo(events: Iterable[Event]) -> Sequence[str]:
    """Make aggregates of the shop's events, and say what became of them, a line each.

    Args:
        events: what the demo has handled, in order.

    Raises:
        RuntimeError: what was read back is not what was saved.
    """
    with tempfile.TemporaryDirectory(prefix="commons-events-demo-") as folder:
        return asyncio.run(_run(list(events), Path(folder)))


async def _run(events: list[Event], folder: Path) -> list[str]:
    orders: dict[str, _Order] = {}
    for event in events:
        id = getattr(event, "order_id", "")
        if id:
            orders.setdefault(id, _Order(id)).take_note(event)
    changed = [order for order in orders.values() if order.pending_events]
    if not changed:
        return []
    count = sum(len(order.pending_events) for order in changed)
    async with EventStore(f"sqlite:///{folder}/events.db") as store:
        for start in range(0, len(changed), _ORDERS_AT_ONCE):
            await store.save(*changed[start : start + _ORDERS_AT_ONCE])
        loaded = [await store.load(_Order, order.id) for order in changed]
        if [vars(order) for order in loaded] != [vars(order) for order in changed]:
            raise RuntimeError("An order that was loaded from its events is not what was saved.")
        conflict = await _two_clerks(store, changed[0].id, changed[0].currency)
        projector = Projector(store, [_projection])
        handled = await projector.catch_up()
        async with store.transaction() as transaction:
            rows = (await transaction.execute(select(_revenue))).all()
    states = Counter(order.state for order in loaded)
    sums: Counter[str] = Counter()
    for order in loaded:
        sums[order.currency] += order.paid  # type: ignore[assignment]  # a Counter of amounts
    revenue = {row.currency: Decimal(row.amount) for row in rows}
    if revenue != {currency: amount for currency, amount in sums.items() if currency in revenue}:
        raise RuntimeError("The projection's revenue is not that of the aggregates.")
    shown = ", ".join(f"{currency} {amount:,.2f}" for currency, amount in sorted(revenue.items()))
    return [
        f"Event sourcing on SQLite: {len(changed):,} orders saved as {count:,} events, and loaded again from them: "
        + ", ".join(f"{number:,} {state}" for state, number in states.most_common()),
        conflict,
        f"A projection of {handled:,} events into a table: {shown}; the same as the orders' own sums",
    ]


async def _two_clerks(store: EventStore, id: str, currency: str) -> str:
    """Two change one order at the same time."""
    late = UnitOfWork(store)
    stale = await late.load(_Order, id)
    await Repository(store, _Order).execute(id, _Order.move, Decimal("1.00"), currency)
    stale.move(Decimal("-1.00"), currency)
    try:
        await late.commit()
    except VersionConflictError as conflict:
        await Repository(store, _Order).execute(id, _Order.move, Decimal("-1.00"), currency)
        final = await store.load(_Order, id)
        return (
            f"Two clerks at once: the second one was refused (expected version {conflict.expected}, found "
            f"{conflict.actual}), tried again, and the order is at version {final.version}"
        )
    raise RuntimeError("Two changes to one version of an order were both taken.")
