"""Where one subscription stands in one queue: what is out, and what comes again."""

from __future__ import annotations

from collections.abc import Awaitable
from operator import attrgetter
from typing import TYPE_CHECKING

from pika.spec import BasicProperties

from commons_events.errors import CapabilityError, ConfigurationError
from commons_events.message import Headers, Message
from commons_events.rabbitmq._frames import KEY
from commons_events.rabbitmq._reading import Arrived
from commons_events.rabbitmq._received import (
    decoded,
    read_attempts,
    read_delivery_count,
    read_offset,
    short_strings,
    to_message,
)
from commons_events.transport import DONE, Delivery, Outcome, RedeliverySchedule, Settler

if TYPE_CHECKING:
    from commons_events.rabbitmq._subscription import RabbitMQSubscription

__all__ = ["QueueState", "RabbitMQDelivery", "first_attempt"]


_KEY = KEY.encode()


class RabbitMQDelivery(Delivery):
    """A delivery whose `Message` is made when somebody asks for it."""

    __slots__ = ("_message", "arrived", "epoch", "state")

    def __init__(self, arrived: Arrived, state: QueueState, epoch: int, attempt: int = 1) -> None:
        self.arrived = arrived
        self.state = state
        self.epoch = epoch
        """Which channel it came over: delivery tags count anew in each."""
        self.settler: Settler = state.subscription.settler
        self.attempt = attempt
        self.outcome: Outcome | None = None

    partition = None

    @property
    def offset(self) -> int | None:  # type: ignore[override]  # read where it lies
        """The message's place in a stream; None for a queue, which has none."""
        return read_offset(self.arrived.properties)

    @property
    def message(self) -> Message:  # type: ignore[override]  # made late
        """The message, with its headers; RabbitMQ's own are left out."""
        try:
            return self._message
        except AttributeError:
            arrived = self.arrived
            self._message: Message = to_message(self.state.topic, arrived.properties, arrived.body)
            return self._message

    topic = property(attrgetter("state.topic"), doc="The topic, or the queue that was asked for.")

    @property
    def key(self) -> bytes | None:
        """See `Delivery`."""
        properties = self.arrived.properties
        if isinstance(properties, bytes) and _KEY not in properties:
            return None
        return self.message.key

    @property
    def headers(self) -> Headers:
        """See `Delivery`."""
        return self.message.headers

    @property
    def value(self) -> bytes:
        """See `Delivery`."""
        return self.arrived.body

    data = value
    body = value

    @property
    def exchange(self) -> str:
        """The exchange that it was published to."""
        return short_strings(self.arrived.route)[0]

    @property
    def routing_key(self) -> str:
        """The routing key that it was published with."""
        return short_strings(self.arrived.route)[1]

    @property
    def redelivered(self) -> bool:
        """Whether RabbitMQ has delivered it before, to whomever: it may have been handled then."""
        return self.arrived.redelivered

    @property
    def delivery_count(self) -> int:
        """How often its quorum queue has delivered it before, which counts for the queue's delivery limit.

        To whomever, also where it was fetched and given back without a look at it; `attempt` counts none of these.
        """
        return read_delivery_count(self.arrived.properties)

    @property
    def properties(self) -> BasicProperties:
        """AMQP's properties as pika decodes them, RabbitMQ's own headers (``x-death`` …) included."""
        return decoded(self.arrived.properties)

    def nack(self, delay: float | None = None, *, requeue: bool | None = None) -> Awaitable[None]:
        """Failed: the message comes again.

        Args:
            delay: seconds until then, at least; None lets the consumer back off by the attempt.
            requeue: None keeps the message here until then, before the others of its key. True gives it back to its
                queue at once, for whichever consumer comes first; False takes it out of the queue, as
                ``reject(requeue=False)`` does.

        Raises:
            CapabilityError: requeue was given, and the message is of a stream.
        """
        if requeue is None:
            return super().nack(delay)
        if delay is not None:
            raise ValueError("nack: RabbitMQ's requeue knows no delay; give a delay or requeue, not both.")
        return self._give_back(requeue)

    def reject(
        self, reason: str | None = None, error: BaseException | None = None, *, requeue: bool | None = None
    ) -> Awaitable[None]:
        """Never to be handled.

        Args:
            reason: why, for the dead letters of the consumer's ``dead_letter_topic``; see `Delivery.reject`.
            error: the exception behind it.
            requeue: in place of a reason, RabbitMQ's own words: False hands the message to the queue's dead-letter
                exchange, which without one drops it; True gives it back to the queue.

        Raises:
            ConfigurationError: neither a reason nor requeue was given, or there is no dead-letter topic for the reason.
            CapabilityError: requeue was given, and the message is of a stream.
        """
        if requeue is not None:
            if reason is not None:
                raise ConfigurationError("reject: give a reason, for the dead-letter topic, or requeue; not both.")
            return self._give_back(requeue)
        if reason is None:
            raise ConfigurationError(
                "reject: give a reason, which goes to the consumer's dead_letter_topic; or requeue=False for the "
                "queue's dead-letter exchange."
            )
        return super().reject(reason, error)

    def _give_back(self, requeue: bool) -> Awaitable[None]:
        if self.state.is_stream:  # RabbitMQ would close the connection
            raise CapabilityError(
                f"requeue={requeue}: {self.topic!r} is a stream, which keeps its messages and takes none back. nack() "
                "lets this one come again, ack() passes it over, reject('reason') keeps it in the dead_letter_topic."
            )
        if self.outcome is not None:
            return DONE
        self.outcome = Outcome.NACK if requeue else Outcome.ACK
        return self.state.subscription.give_back(self, requeue)


class QueueState:
    """Where one subscription stands in one queue. Belongs to the event loop.

    ``unfinished`` holds what was received and is not finished, by delivery tags, which follow the queue's order.
    """

    __slots__ = (
        "behind",
        "is_stream",
        "name",
        "out",
        "redeliveries",
        "resume",
        "subscription",
        "topic",
        "unfinished",
    )

    def __init__(self, topic: str, name: str, subscription: RabbitMQSubscription, resume: list[int]) -> None:
        self.topic = topic
        self.resume = resume
        """See `Source`."""
        self.name = name
        """The queue's."""
        self.subscription = subscription
        self.is_stream: bool | None = None
        """None until the first message tells."""
        self.forget()

    def forget(self) -> None:
        """The channel is gone: what is out is stale, and all of it comes again by itself."""
        self.unfinished: dict[int, RabbitMQDelivery] = {}
        """The delivery of each tag that counts: one that is not in here is stale."""
        self.out = 0
        """How many of them are with the user."""
        self.behind = 0
        """Of a stream: the offset behind all that was finished."""
        self.redeliveries = RedeliverySchedule()

    def finish(self, delivery: RabbitMQDelivery) -> bool:
        """Count a delivery as finished; False where it is stale, and counts no more."""
        tag = delivery.arrived.tag
        if self.unfinished.get(tag) is not delivery:
            return False
        del self.unfinished[tag]
        self.out -= 1
        if self.is_stream:
            self._move_on(delivery)
        return True

    def begin(self, delivery: RabbitMQDelivery) -> None:
        """The first message is here: if it has an offset, it is a stream, which goes on there."""
        offset = delivery.offset
        self.is_stream = offset is not None
        if offset is not None and not self.resume:
            self.resume.append(offset)

    def _move_on(self, delivery: RabbitMQDelivery) -> None:
        """Of a stream: let it go on behind what is finished."""
        first = next(iter(self.unfinished.values()), None)
        self.behind = max(self.behind, (delivery.offset or 0) + 1)  # it need not be the last that is finished last
        offset = first.offset if first is not None else self.behind
        if offset is not None:
            self.resume[0] = max(self.resume[0], offset)

    def put_back(self, delivery: RabbitMQDelivery, due: float, attempt: int) -> bool:
        """Let a delivery come again at ``due``, before anything of its key that was not delivered yet."""
        tag = delivery.arrived.tag
        if self.unfinished.get(tag) is not delivery:
            return False
        self.unfinished[tag] = RabbitMQDelivery(delivery.arrived, self, delivery.epoch, attempt)
        self.out -= 1
        self.redeliveries.put_back(tag, delivery.key, due)
        return True

    def park(self, delivery: RabbitMQDelivery, key: bytes) -> None:
        """Keep a delivery behind what comes again of its key."""
        tag = delivery.arrived.tag
        self.unfinished[tag] = delivery
        self.redeliveries.park(tag, key)

    def pop_due(self, now: float) -> RabbitMQDelivery | None:
        """The next delivery that comes again by now, which is then with the user; or None."""
        tag = self.redeliveries.pop_due(now)
        if tag is None:
            return None
        self.out += 1
        return self.unfinished[tag]


def first_attempt(arrived: Arrived) -> int:
    """The attempt that a delivery is, as far as we have counted.

    A quorum queue's own count is no measure of it: what a consumer fetched and gave back unseen counts there, so that
    restarts alone would bring a message to its last attempt.
    """
    return 1 + read_attempts(arrived.properties)
