from commons_events.consumers import RabbitMQConsumer

# RabbitMQ consumer with prefetch
async with RabbitMQConsumer(
    url="amqp://localhost",
    queue="user-events",
    prefetch_count=10,
) as consumer:
    async for message in consumer:
        event = UserCreatedEvent.deserialize(message.body)
        await handle_event(event)
        await message.ack()
