from commons_events.producers import RabbitMQProducer

# RabbitMQ producer
async with RabbitMQProducer(url="amqp://localhost") as producer:
    await producer.publish(
        exchange="events",
        routing_key="user.created",
        event=event,
        persistent=True,
    )
