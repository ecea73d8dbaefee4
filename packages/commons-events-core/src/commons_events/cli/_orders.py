"""The demo's events: the life of an order in a web shop, as the lines of ``data/orders.jsonl`` have it."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, Field

from commons_events import Event, EventSchema

__all__ = ["Address", "Item", "OrderCancelled", "OrderPaid", "OrderPlaced", "OrderShipped", "Packed"]

Money = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]
"""ISO 4217."""
OrderId = Annotated[str, Field(min_length=1, max_length=40)]
Quantity = Annotated[int, Field(gt=0, le=10_000)]


class Item(BaseModel):
    """One position of an order."""

    sku: str
    title: str
    quantity: Quantity
    unit_price: Money


class Address(BaseModel):
    """Where an order goes."""

    name: str
    street: str
    city: str
    postal_code: str
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]
    """ISO 3166-1."""


class Packed(BaseModel):
    """What of a position lies in a parcel."""

    sku: str
    quantity: Quantity


@EventSchema(name="order.placed")
class OrderPlaced(Event):
    """A customer has ordered."""

    order_id: OrderId
    customer_id: str
    items: Annotated[list[Item], Field(min_length=1)]
    total: Money
    currency: Currency
    shipping_address: Address
    note: str | None = None

    def __post_init__(self) -> None:
        """Refuse a total that is not the sum of the items."""
        super().__post_init__()
        expected = sum(item.unit_price * item.quantity for item in self.items)
        if expected != self.total:
            raise ValueError(f"total is {self.total}, and the items come to {expected}")


@EventSchema(name="order.paid")
class OrderPaid(Event):
    """The payment for an order has arrived."""

    order_id: OrderId
    payment_id: str
    method: str
    amount: Money
    currency: Currency


@EventSchema(name="order.shipped")
class OrderShipped(Event):
    """A parcel has left; an order may come in several."""

    order_id: OrderId
    carrier: str
    tracking_number: str
    parcel: Annotated[list[Packed], Field(min_length=1)]
    estimated_delivery: date | None = None


@EventSchema(name="order.cancelled")
class OrderCancelled(Event):
    """An order was called off; what had been paid goes back."""

    order_id: OrderId
    reason: str
    refund: Money | None = None
    currency: Currency | None = None

    def __post_init__(self) -> None:
        """Refuse an amount of no currency."""
        super().__post_init__()
        if self.refund is not None and self.currency is None:
            raise ValueError("refund has an amount, and currency is missing")
