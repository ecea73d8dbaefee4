"""What a broker implements, and what a received message can do. All policy stands above, in producers and consumers."""

from commons_events.transport._batch import Batch
from commons_events.transport._capabilities import CONTRACT_VERSION, Capabilities
from commons_events.transport._connected import ConnectedTransport, HoldsBack, WaitingSubscription
from commons_events.transport._delivery import DONE, Delivery, Outcome, Settlement, Settler
from commons_events.transport._offsets import OffsetTracker
from commons_events.transport._redelivery import RedeliverySchedule
from commons_events.transport._transport import (
    Browsable,
    Declaring,
    Delaying,
    Pausable,
    Seekable,
    SeekTarget,
    StoredMessage,
    SubscribeRequest,
    Subscription,
    TopicInfo,
    TopicPartition,
    Transaction,
    Transactional,
    Transport,
    TransportSettings,
    check_seek,
    check_topic_name,
)

__all__ = [
    "CONTRACT_VERSION",
    "DONE",
    "Batch",
    "Browsable",
    "Capabilities",
    "ConnectedTransport",
    "Declaring",
    "Delaying",
    "Delivery",
    "HoldsBack",
    "OffsetTracker",
    "Outcome",
    "Pausable",
    "RedeliverySchedule",
    "SeekTarget",
    "Seekable",
    "Settlement",
    "Settler",
    "StoredMessage",
    "SubscribeRequest",
    "Subscription",
    "TopicInfo",
    "TopicPartition",
    "Transaction",
    "Transactional",
    "Transport",
    "TransportSettings",
    "WaitingSubscription",
    "check_seek",
    "check_topic_name",
]
