"""The demo's handlers: what a shop computes from its orders' events."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from decimal import Decimal

from rich.console import Group, RenderableType
from rich.table import Table

from commons_events.cli._orders import OrderCancelled, OrderPaid, OrderPlaced, OrderShipped
from commons_events.cli._text import plain
from commons_events.event import Event

__all__ = ["OrderDesk", "Turnover"]

_SHOWN = 8


@dataclass
class Turnover:
    """What was ordered and paid in one currency."""

    orders: int = 0
    ordered: Decimal = Decimal(0)
    paid: Decimal = Decimal(0)
    refunded: Decimal = Decimal(0)

    @property
    def revenue(self) -> Decimal:
        """What was paid and not given back."""
        return self.paid - self.refunded


class OrderDesk:
    """The handlers. They add up and remember no single order, so their memory stays bounded."""

    def __init__(self) -> None:
        self.turnover: defaultdict[str, Turnover] = defaultdict(Turnover)
        self.parcels: Counter[str] = Counter()
        """By carrier."""
        self.cancellations: Counter[str] = Counter()
        """By reason."""

    def handle(self, event: Event) -> None:
        """Take note of one event; those of other types are passed over."""
        match event:
            case OrderPlaced():
                turnover = self.turnover[event.currency]
                turnover.orders += 1
                turnover.ordered += event.total
            case OrderPaid():
                self.turnover[event.currency].paid += event.amount
            case OrderShipped():
                self.parcels[event.carrier] += 1
            case OrderCancelled():
                self.cancellations[event.reason] += 1
                if event.refund is not None and event.currency is not None:
                    self.turnover[event.currency].refunded += event.refund
            case _:
                pass

    def summary(self) -> RenderableType:
        """What was computed, for the terminal."""
        table = Table(title="What the handlers computed", title_justify="left")
        table.add_column("Currency")
        for heading in ("Orders", "Ordered", "Paid", "Refunded", "Revenue"):
            table.add_column(heading, justify="right")
        currencies = sorted(self.turnover.items(), key=lambda item: (-item[1].orders, item[0]))
        for currency, t in currencies[:_SHOWN]:
            amounts = (f"{amount:,.2f}" for amount in (t.ordered, t.paid, t.refunded, t.revenue))
            table.add_row(currency, f"{t.orders:,}", *amounts)
        return Group(
            table,
            plain(f"Parcels: {_most(self.parcels)}"),
            plain(f"Cancelled: {_most(self.cancellations)}"),
        )


def _most(counter: Counter[str]) -> str:
    named = [f"{name} {count:,}" for name, count in counter.most_common(_SHOWN)]
    others = counter.total() - sum(count for _, count in counter.most_common(_SHOWN))
    return ", ".join([*named, f"others {others:,}"] if others else named) or "none"
