"""What a user's type checker makes of the Quick Start; checked by `make types`, never run."""

from datetime import datetime
from typing import assert_type

from commons_events import Event, EventProducer, ProducerConfig


class UserRegistered(Event):
    """The page's event."""

    event_type = "user.registered"
    user_id: str
    email: str
    registered_at: datetime


async def main() -> None:
    """Makes, encodes, decodes and sends one."""
    event = UserRegistered(
        user_id="user_123", email="john@example.com", registered_at=datetime.now(), source="auth-service"
    )
    assert_type(event.user_id, str)
    assert_type(event.source, str | None)
    assert_type(event.to_json(), bytes)
    assert_type(UserRegistered.from_json(event.to_json()), UserRegistered)

    async with EventProducer(ProducerConfig(broker="memory")) as producer:
        await producer.send("user-events", event)
