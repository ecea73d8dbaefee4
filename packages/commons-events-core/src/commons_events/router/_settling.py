"""Settling that gets through: a broker that was out of reach for a moment is told again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from commons_events.errors import ClosedError, TransportError
from commons_events.log import logger
from commons_events.retries import Retry
from commons_events.runtime import current_runtime
from commons_events.transport import DONE, Delivery, Outcome, Subscription

__all__ = ["TROUBLE", "acknowledge", "acknowledge_all", "settle"]

TROUBLE = Retry(attempts=None, endless=True, delay=0.1, max_delay=30.0)
"""For a broker that does not take what it has to take: without an end, since the message is safe meanwhile."""


def acknowledge(delivery: Delivery) -> Awaitable[None]:
    """Finish a message that was handled; as `settle`, at the least cost."""
    if delivery.outcome is not None:
        return DONE
    delivery.outcome = _ACK
    settler = delivery.settler
    try:
        told = settler.settle_delivery(delivery, _ACK, None)
    except (TransportError, ClosedError) as error:
        return _tell_again(delivery, lambda: settler.settle_delivery(delivery, _ACK, None), error)
    if told is DONE:
        return DONE
    return _told(delivery, lambda: settler.settle_delivery(delivery, _ACK, None), told)


def acknowledge_all(subscription: Subscription, deliveries: Sequence[Delivery]) -> Awaitable[None]:
    """As `acknowledge`, for those whose outcome is stated already, in one go."""

    def tell() -> Awaitable[None]:
        return subscription.settle_deliveries(deliveries, _ACK)

    try:
        told = tell()
    except (TransportError, ClosedError) as error:
        return _tell_again(deliveries[0], tell, error)
    return DONE if told is DONE else _told(deliveries[0], tell, told)


def settle(
    delivery: Delivery,
    outcome: Outcome,
    delay: float | None = None,
    *,
    on_its_way: Callable[[], None] | None = None,
) -> Awaitable[None]:
    """Hand an outcome over when called, unless the message has one; the awaitable returns once the broker has it.

    ``on_its_way`` is called once the outcome is handed over: now, if nothing is in the way.

    As long as the broker is out of reach it is told again, since a consumer that lives keeps what is out: without
    that the message would not come again before the consumer is gone. Where it cannot be told any more, because the
    consumer is closed or was put out, the message comes again elsewhere.
    """
    if delivery.outcome is not None:
        return DONE
    delivery.outcome = outcome

    def tell() -> Awaitable[None]:
        nonlocal on_its_way
        told = delivery.settler.settle_delivery(delivery, outcome, delay)
        if on_its_way is not None:
            on_its_way()
            on_its_way = None
        return told

    try:
        told = tell()
    except (TransportError, ClosedError) as error:
        return _tell_again(delivery, tell, error)
    return told if told is DONE else _told(delivery, tell, told)


_ACK = Outcome.ACK  # see `Delivery.ack`


async def _told(delivery: Delivery, tell: Callable[[], Awaitable[None]], told: Awaitable[None]) -> None:
    try:
        await told
    except (TransportError, ClosedError) as error:
        await _tell_again(delivery, tell, error)


async def _tell_again(delivery: Delivery, tell: Callable[[], Awaitable[None]], error: Exception) -> None:
    runtime = current_runtime()
    failures = 0
    while isinstance(error, TransportError) and error.retriable:
        failures += 1
        wait = TROUBLE.seconds(failures, runtime.random())
        logger().warning(
            "the broker was not told what became of a message, and is told again",
            delivery=repr(delivery), seconds=round(wait, 3), error=str(error),
        )  # fmt: skip
        await runtime.sleep(wait)
        try:
            await tell()
        except (TransportError, ClosedError) as next_error:
            error = next_error
        else:
            return
    logger().warning(
        "the broker could not be told what became of a message; it comes again elsewhere",
        delivery=repr(delivery), error=str(error),
    )  # fmt: skip
