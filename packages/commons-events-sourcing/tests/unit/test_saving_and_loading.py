import asyncio
from datetime import datetime
import pytest
from commons_events.sourcing import *
class UserCreated(DomainEvent):
    email: str
class UserActivated(DomainEvent): pass
class UserAggregate(AggregateRoot):
    def __init__(self, user_id: str):
        super().__init__(user_id)
        self.email = None
        self.active = False
    def create(self, email: str) -> None:
        self.apply(UserCreated(aggregate_id=self.id, email=email, timestamp=datetime.utcnow()))
    def activate(self) -> None:
        if self.active:
            raise ValueError("Already active")
        self.apply(UserActivated(aggregate_id=self.id, timestamp=datetime.utcnow()))
    def handle_user_created(self, event: UserCreated) -> None:
        self.email = event.email
    def handle_user_activated(self, event: UserActivated) -> None:
        self.active = True

@pytest.mark.asyncio
async def test_page():
    store = EventStore("memory://")
    user = UserAggregate("user_123")
    user.create("user@example.com")
    user.activate()
    await store.save(user)
    loaded = await store.load(UserAggregate, "user_123")
    assert loaded.email == "user@example.com"
    assert loaded.active is True
    events = await store.get_events(aggregate_id="user_123", from_version=0)
    assert events == list(events) and len(events) == 2
    await store.close()
