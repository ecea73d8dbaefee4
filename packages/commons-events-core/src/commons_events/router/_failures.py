"""What becomes of a message that was not handled: tried again, by whom the policy says, or kept as a dead letter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from commons_events.dead_letters import RETRY_PREFIX, Mark, dead_letter
from commons_events.errors import (
    DeserializationError,
    HandlerFailedError,
    HandlerTimeoutError,
    TooManyDeliveriesError,
    TransportError,
)
from commons_events.log import logger
from commons_events.message import Message, Receipt
from commons_events.retries import Retry, RetryAfter
from commons_events.router._consumer import Rejected
from commons_events.router._handler import Handler
from commons_events.router._lanes import Lane
from commons_events.router._parked import Turn
from commons_events.router._parking import Parking
from commons_events.router._plan import Plan
from commons_events.router._settling import TROUBLE, settle
from commons_events.runtime import Runtime
from commons_events.transport import Delaying, Delivery, Outcome, Transport

__all__ = ["RETRY_ATTEMPTS", "RETRY_DUE", "RETRY_FIRST", "Failures"]

RETRY_ATTEMPTS = f"{RETRY_PREFIX}attempts"
"""In a retry topic: how many tries have failed."""
RETRY_DUE = f"{RETRY_PREFIX}due"
"""In a retry topic: when the next one is due, in ISO 8601."""
RETRY_FIRST = f"{RETRY_PREFIX}first"
"""In a retry topic: when the first one was, in ISO 8601."""


class Failures:
    """Retries and dead letters of one subscription.

    Args:
        plan: the subscription.
        transport: its broker.
        release_followers: gives back the messages behind a lane's first one.
        finish: acknowledges.
        parking: the keys that stand still, or None where none do.
        rejected: what handlers have rejected, and why.
        runtime: its clock and chance.
    """

    def __init__(
        self,
        plan: Plan,
        transport: Transport,
        *,
        release_followers: Callable[[Lane], None],
        finish: Callable[[Delivery], Awaitable[None]],
        parking: Parking | None,
        rejected: dict[Delivery, Rejected],
        runtime: Runtime,
    ) -> None:
        self._plan = plan
        self._transport = transport
        # In a retry topic the headers count the tries: to be fetched while it waits there is none, yet a delivery.
        self._counts = bool(transport.capabilities.attempts) and plan.topic == plan.origin
        self._release_followers = release_followers
        self._finish = finish
        self._parking = parking
        self._rejected = rejected
        self._runtime = runtime

    # --- counting ----------------------------------------------------------------------------------------------

    def attempt(self, lane: Lane, headers: dict[str, bytes]) -> int:
        """Which try this is: those that the headers and the broker count, and those made here."""
        before = _number(headers.get(RETRY_ATTEMPTS))
        return before + (lane.deliveries[0].attempt if self._counts else 1) + lane.tries

    def seconds_until_due(self, headers: dict[str, bytes]) -> float:
        """How long a message of a retry topic has to wait."""
        due = _time(headers.get(RETRY_DUE))
        return 0.0 if due is None else (due - self._runtime.now()).total_seconds()

    @staticmethod
    def too_many(delivery: Delivery, most: int) -> TooManyDeliveriesError:
        """The error of a message that comes again and again."""
        return TooManyDeliveriesError(
            f"Delivered {delivery.attempt} times, and max_deliveries is {most}: it may take down what handles it."
        )

    # --- deciding ----------------------------------------------------------------------------------------------

    async def failed(
        self, lane: Lane, handler: Handler, error: Exception, headers: dict[str, bytes], turn: Turn | None
    ) -> float | None:
        """A handler raised ``error``: the seconds to wait for the next try here, or None where the message is gone.

        Raises:
            HandlerFailedError: it failed for good, and there is nowhere to keep it.
        """
        delivery = lane.deliveries[0]
        rejected = self._rejected.pop(delivery, None)
        if delivery.outcome is not None:  # the handler has settled it, before it failed
            logger().warning("failed, though settled", handler=handler.name, delivery=repr(delivery), error=repr(error))
            if delivery.outcome is Outcome.ACK and turn is not None and turn.head is not None:
                return await self.resolve(lane, turn)
            return None
        if rejected is not None:
            return await self.keep(lane, rejected.reason, rejected.error, headers, turn)
        retry = handler.registration.retry
        verdict = "fatal" if isinstance(error, TooManyDeliveriesError) else retry.verdict(error)
        said = _said(error)
        in_a_thread = handler.signature.kind in ("sync", "generator")
        if isinstance(said, HandlerTimeoutError) and said.began and in_a_thread:
            verdict = "fatal"  # its thread goes on: another try would run beside it
        if verdict == "ignore":
            logger().info("failed, and is ignored", handler=handler.name, delivery=repr(delivery), error=repr(error))
            if turn is not None and turn.head is not None:
                return await self.resolve(lane, turn)
            await self._finish(delivery)
            return None
        if verdict == "fatal":
            return await self.keep(lane, "failed for good", _said(error), headers, turn)
        if isinstance(error, RetryAfter) and not error.counted:
            return error.delay
        attempt = self.attempt(lane, headers)
        if retry.attempts is not None and attempt >= retry.attempts:
            return await self.keep(lane, f"failed {attempt} times", _said(error), headers, turn)
        wait = error.delay if isinstance(error, RetryAfter) else retry.seconds(attempt, self._runtime.random())
        if retry.within is not None and self._elapsed(lane, headers) + wait > retry.within:
            return await self.keep(lane, f"failed for {retry.within:g} s", _said(error), headers, turn)
        logger().warning(
            "failed, to be tried again", handler=handler.name, delivery=repr(delivery), attempt=attempt,
            seconds=round(wait, 3), error=repr(error),
        )  # fmt: skip
        if retry.by == "in-place" or turn is not None:
            lane.tries += 1
            return wait
        if retry.by == "redelivery":
            await self._redeliver(lane, wait)
            return None
        return await self._retry_later(lane, retry, attempt, wait, headers)

    def _elapsed(self, lane: Lane, headers: dict[str, bytes]) -> float:
        first = _time(headers.get(RETRY_FIRST))
        if first is not None:
            return (self._runtime.now() - first).total_seconds()
        return 0.0 if lane.first_try is None else self._runtime.monotonic() - lane.first_try

    async def _redeliver(self, lane: Lane, wait: float) -> None:
        # its followers are given back behind it, so that a broker that keeps a key's order can keep it here
        await settle(lane.deliveries[0], Outcome.NACK, wait, on_its_way=lambda: self._release_followers(lane))

    async def _retry_later(
        self, lane: Lane, retry: Retry, attempt: int, wait: float, headers: dict[str, bytes]
    ) -> float | None:
        delivery = lane.deliveries[0]
        now = self._runtime.now()
        first = headers.get(RETRY_FIRST) or now.isoformat().encode()
        due = datetime.fromtimestamp(now.timestamp() + wait, UTC).isoformat().encode()
        added = ((RETRY_ATTEMPTS, b"%d" % attempt), (RETRY_DUE, due), (RETRY_FIRST, first))
        kept = tuple(header for header in delivery.headers if header[0] not in _RETRY_HEADERS)
        topic = retry.topic or f"{self._plan.origin}.{self._plan.group}.retry"
        message = Message(topic, delivery.message.value, delivery.key, kept + added)

        async def send() -> None:
            transport = self._transport
            if transport.capabilities.publish_delay and isinstance(transport, Delaying):
                await _confirmed(transport.publish_delayed([message], wait))
            else:
                await _confirmed(transport.publish([message]))
            await self._finish(delivery)

        lane.last_step = send
        return await self.finish(lane)

    # --- keeping -----------------------------------------------------------------------------------------------

    async def undecodable(self, lane: Lane, error: DeserializationError, turn: Turn | None) -> float | None:
        """The bytes are no event that can be read."""
        return await self.keep(lane, "cannot be decoded", error, {}, turn)

    async def park(self, lane: Lane, behind: str) -> float | None:
        """Keep a message behind the letter ``behind``, whose key stands still."""
        return await self.keep(lane, f"parked behind {behind}", None, {}, None)

    async def keep(
        self, lane: Lane, reason: str, error: Exception | None, headers: dict[str, bytes], turn: Turn | None
    ) -> float | None:
        """Make a dead letter of the lane's first message, and finish it only when that is confirmed.

        Raises:
            HandlerFailedError: there is no dead-letter topic.
        """
        delivery = lane.deliveries[0]
        plan = self._plan
        if plan.dead_letter is None:
            why = f"{reason}: {type(error).__name__}: {error}" if error is not None else f"was rejected: {reason}"
            raise HandlerFailedError(
                f"{delivery!r} on {plan.name} {why}. There is no dead_letter= topic to keep it, so it is left "
                "unsettled and the router stops. Name one, or let Retry(ignore=…) finish what may get lost."
            ) from error
        if turn is not None and turn.head is not None:
            return await self._return(lane, turn, reason, error)
        ordered = plan.dead_letter.order == "key" and delivery.key is not None
        letter = dead_letter(
            delivery, plan.dead_letter.topic, reason, error,
            attempts=self.attempt(lane, headers), origin=plan.origin, group=plan.group, ordered=ordered,
        )  # fmt: skip

        async def send() -> None:
            receipt = await _confirmed(self._transport.publish([letter]))
            if self._parking is not None and receipt.partition is not None and receipt.offset is not None:
                self._parking.journal.add(letter, receipt.partition, receipt.offset)
            await self._finish(delivery)

        logger().log(
            _INFO if error is None else _WARNING, "kept as a dead letter", reason=reason, delivery=repr(delivery),
            topic=plan.dead_letter.topic, error=repr(error),
        )  # fmt: skip
        lane.last_step = send
        return await self.finish(lane)

    async def _return(self, lane: Lane, turn: Turn, reason: str, error: Exception | None) -> float | None:
        """A redriven message failed again: its letter stands as before, first of its key."""
        logger().warning(
            "a redriven message failed again", letter=turn.head and turn.head.id, reason=reason, error=repr(error)
        )
        return await self._mark(lane, turn, Mark.RETURNED)

    async def resolve(self, lane: Lane, turn: Turn) -> float | None:
        """A redriven message was handled: its letter is gone, and the next one of its key stands first."""
        return await self._mark(lane, turn, Mark.RESOLVED)

    async def _mark(self, lane: Lane, turn: Turn, mark: Mark) -> float | None:
        delivery, head, parking = lane.deliveries[0], turn.head, self._parking

        async def write() -> None:
            if head is not None and parking is not None:
                await parking.mark(head, mark, delivery)
            await self._finish(delivery)

        lane.last_step = write
        return await self.finish(lane)

    async def finish(self, lane: Lane) -> float | None:
        """Do what is left for the lane's first message; the seconds to wait where the broker did not take it."""
        assert lane.last_step is not None
        try:
            await lane.last_step()
        except TransportError as error:
            return self.backoff(lane, error)
        return None

    def backoff(self, lane: Lane, error: Exception) -> float:
        """The seconds to wait after the broker has failed; the message stays unsettled."""
        lane.troubles += 1
        wait = TROUBLE.seconds(lane.troubles, self._runtime.random())
        logger().warning(
            "the broker did not take what has to be kept; the message is unsettled, and it is tried again",
            delivery=repr(lane.deliveries[0]), seconds=round(wait, 3), error=repr(error),
        )  # fmt: skip
        return wait


_INFO, _WARNING = 20, 30
_RETRY_HEADERS = (RETRY_ATTEMPTS, RETRY_DUE, RETRY_FIRST)


async def _confirmed(publishing: Awaitable[Any]) -> Receipt:
    (result,) = await publishing
    if not isinstance(result, Receipt):
        raise result
    return result


def _said(error: Exception) -> Exception:
    """What is behind a wish to be called again, where something is."""
    cause = error.__cause__
    return cause if isinstance(error, RetryAfter) and isinstance(cause, Exception) else error


def _number(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0


def _time(value: bytes | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value.decode(errors="replace"))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
