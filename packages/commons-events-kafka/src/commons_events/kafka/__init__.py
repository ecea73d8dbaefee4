"""Apache Kafka: at the raw client's speed, with asyncio's comfort, at least once and, in transactions, exactly once.

``broker="kafka"`` or ``kafka://host:9092`` in `EventProducer` and `EventConsumer`; `KafkaProducer` and `KafkaConsumer`
speak Kafka's own words; `KafkaAdmin` makes topics and looks after groups. The client is librdkafka.
"""

from commons_events.kafka._admin import KafkaAdmin, PartitionDescription, TopicDescription
from commons_events.kafka._consumer import KafkaConsumer
from commons_events.kafka._deliveries import KafkaDelivery
from commons_events.kafka._producer import KafkaProducer
from commons_events.kafka._subscription import KafkaSubscription
from commons_events.kafka._transactions import KafkaTransaction
from commons_events.kafka._transport import KafkaTransport

__all__ = [
    "KafkaAdmin",
    "KafkaConsumer",
    "KafkaDelivery",
    "KafkaProducer",
    "KafkaSubscription",
    "KafkaTransaction",
    "KafkaTransport",
    "PartitionDescription",
    "TopicDescription",
]
