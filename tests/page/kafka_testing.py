from commons_events.testing import EventTestHarness, MockProducer, MockConsumer

# Test event processing
harness = EventTestHarness()

# Integration testing
async with harness.kafka_container() as kafka:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.send("test-topic", event)
