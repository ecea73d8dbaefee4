"""The events that are measured, and plain pydantic models that do the same work."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel, Field

from commons_events import Event, EventSchema


class UserRole(str, Enum):  # noqa: UP042  # as on the product's page
    USER = "user"
    ADMIN = "admin"
    MODERATOR = "moderator"


def _preferences() -> dict[str, Any]:
    return {"notifications": True, "theme": "light", "language": "en"}


@EventSchema(name="user.registered", version="1.2.0", description="User registration with profile information")
class UserRegisteredEvent(Event):
    """The product page's event, in JSON."""

    user_id: str
    email: str
    username: str
    registered_at: datetime
    full_name: str | None = None
    phone_number: str | None = None
    role: UserRole = UserRole.USER
    email_verified: bool = False
    terms_accepted: bool = True
    profile: dict[str, Any] = {}  # noqa: RUF012  # each event gets its own
    preferences: dict[str, Any] = _preferences()
    tags: list[str] = []  # noqa: RUF012

    def __post_init__(self) -> None:
        super().__post_init__()
        if "@" not in self.email:
            raise ValueError("Invalid email format")
        if len(self.username) < 3:
            raise ValueError("Username too short")
        if not self.event_id:
            self.event_id = f"evt_{uuid.uuid4().hex[:12]}"
        if not self.source:
            self.source = "user-service"


class PlainEnvelope(BaseModel):
    """What every event carries, by hand."""

    event_type: str
    version: str
    event_id: str = Field(default_factory=lambda: str(uuid4()))
    source: str | None = None
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    correlation_id: str | None = None
    causation_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class UncheckedUserRegistered(PlainEnvelope):
    event_type: str = "user.registered"
    version: str = "1.2.0"
    user_id: str
    email: str
    username: str
    registered_at: datetime
    full_name: str | None = None
    phone_number: str | None = None
    role: UserRole = UserRole.USER
    email_verified: bool = False
    terms_accepted: bool = True
    profile: dict[str, Any] = {}
    preferences: dict[str, Any] = _preferences()
    tags: list[str] = []


class PlainUserRegistered(UncheckedUserRegistered):
    def model_post_init(self, context: Any, /) -> None:
        if "@" not in self.email:
            raise ValueError("Invalid email format")
        if len(self.username) < 3:
            raise ValueError("Username too short")
        if not self.event_id:
            self.event_id = f"evt_{uuid.uuid4().hex[:12]}"
        if not self.source:
            self.source = "user-service"


def user_fields() -> dict[str, Any]:
    """What the product's page gives its event."""
    return {
        "user_id": "user_12345",
        "email": "alice@example.com",
        "username": "alice_wonder",
        "registered_at": datetime.now(UTC),
        "full_name": "Alice Wonderland",
        "phone_number": "+1-555-0123",
        "role": UserRole.USER,
        "profile": {
            "age": 28,
            "location": "San Francisco, CA",
            "bio": "Software engineer passionate about distributed systems",
            "avatar_url": "https://example.com/avatars/alice.jpg",
        },
        "preferences": {
            "notifications": True,
            "theme": "dark",
            "language": "en",
            "timezone": "America/Los_Angeles",
        },
        "tags": ["engineer", "distributed-systems", "python"],
    }


class OrderPlaced(Event):
    """Five fields beside the envelope."""

    event_type = "bench.order.placed"
    order_id: UUID
    sku: str
    quantity: int
    price: float
    placed_at: datetime


class PlainOrderFields(BaseModel):
    order_id: UUID
    sku: str
    quantity: int
    price: float
    placed_at: datetime


class PlainOrderPlaced(PlainEnvelope):
    event_type: str = "bench.order.placed"
    version: str = "1.0.0"
    order_id: UUID
    sku: str
    quantity: int
    price: float
    placed_at: datetime


def order_fields(number: int) -> dict[str, Any]:
    """The ``number``-th order; no two are the same object."""
    return {
        "order_id": uuid4(),
        "sku": f"SKU-{number:06d}",
        "quantity": number % 7 + 1,
        "price": 9.5,
        "placed_at": datetime.now(UTC),
    }
