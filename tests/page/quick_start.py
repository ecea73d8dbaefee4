import asyncio
from commons_events import Event, EventProducer, ProducerConfig
from datetime import datetime

# Define an event
class UserRegistered(Event):
    event_type = "user.registered"
    user_id: str
    email: str
    registered_at: datetime

async def main():
    # Create event
    event = UserRegistered(
        user_id="user_123",
        email="john@example.com",
        registered_at=datetime.now(),
        source="auth-service"
    )
    
    # Send event
    config = ProducerConfig(broker="memory")  # For demo
    producer = EventProducer(config)
    
    await producer.send("user-events", event)
    print(f"Sent event: {event.event_type}")
    
    await producer.close()

asyncio.run(main())
