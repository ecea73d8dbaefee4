from commons_events.consumers import KafkaConsumer

# Kafka consumer
async with KafkaConsumer(
    bootstrap_servers="localhost:9092",
    group_id="my-service",
    topics=["user-events"],
) as consumer:
    async for message in consumer:
        event = UserCreatedEvent.deserialize(message.value)
        print(f"Received: {event.user_id}")
        
        # Acknowledge message
        await consumer.commit(message)
