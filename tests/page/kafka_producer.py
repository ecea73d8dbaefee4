from commons_events.producers import KafkaProducer

# Kafka producer
async with KafkaProducer(bootstrap_servers="localhost:9092") as producer:
    await producer.send(
        topic="user-events",
        event=event,
        key=event.user_id,
        partition=None,  # Auto-partition by key
    )
    
    # Batch send
    events = [event1, event2, event3]
    await producer.send_batch(topic="user-events", events=events)
