"""Transactions: messages and consumed offsets that are seen together, or not at all (KIP-98, KIP-447)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import KafkaException, TopicPartition

from commons_events.errors import (
    ClosedError,
    ConnectionLostError,
    FencedError,
    TransactionAbortedError,
    TransactionError,
)
from commons_events.kafka._brokers import ask_about_topics
from commons_events.kafka._deliveries import KafkaDelivery
from commons_events.kafka._errors import kafka_error, transaction_error
from commons_events.kafka._publisher import Confirmation, Publisher
from commons_events.kafka._settings import LOGGER, KafkaSettings
from commons_events.message import Message
from commons_events.runtime import current_runtime
from commons_events.transport import Outcome, Settlement

if TYPE_CHECKING:
    from commons_events.kafka._subscription import KafkaSubscription

__all__ = ["KafkaTransaction", "Transactions"]

T = TypeVar("T")
_OPENING = "opening the transactional producer"


class KafkaTransaction:
    """One transaction. Messages go to the broker when they are published, and are seen once it has committed."""

    def __init__(self, publisher: Publisher, check_topic: Callable[[str], None]) -> None:
        self._publisher = publisher
        self._check_topic = check_topic
        self._confirmations: list[Confirmation] = []
        self._settlements: list[Settlement] = []
        self._held: dict[KafkaSubscription, list[Settlement]] = {}
        self.positions: dict[KafkaSubscription, list[TopicPartition]] = {}
        """What has to be committed for the finished messages."""
        self.is_in_doubt = False
        """Whether it may have been committed, and nobody said so."""
        self._ended = False

    def publish(self, messages: Sequence[Message]) -> None:
        """See `Transaction`."""
        self.send(messages)  # type: ignore[unused-awaitable]  # the commit looks at it

    def send(self, messages: Sequence[Message]) -> Confirmation:
        """As `publish`; the future tells that the broker has the messages, which nobody sees before the commit."""
        self._check_open()
        confirmation = self._publisher.publish(messages, self._check_topic)
        self._confirmations.append(confirmation)
        return confirmation

    def room(self) -> Awaitable[object] | None:
        """See `Transport.room`."""
        return self._publisher.room()

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """See `Transaction`; ``Outcome.ACK`` sends the offset with the commit (``send_offsets``)."""
        self._check_open()
        self._settlements.extend(settlements)

    def _check_open(self) -> None:
        if self._ended:
            raise TransactionError("This transaction has ended; begin a new one.")

    async def prepare(self) -> None:
        """Wait for the broker to have every message, and for the consumers to leave the positions to the transaction.

        Raises:
            TransactionError: a message was refused; what was received is not its subscription's any more, or an earlier
                one of its partition is unfinished.
        """
        self._ended = True
        await self._confirmed()
        for subscription, these in self._finished().items():
            self.positions[subscription] = await subscription.hold(these)
            self._held[subscription] = these

    async def _confirmed(self) -> None:
        for confirmation in self._confirmations:
            if confirmation.cancelled():
                continue
            for result in await confirmation:
                if isinstance(result, FencedError):
                    raise result
                if isinstance(result, Exception):
                    aborted = TransactionAbortedError if result.retriable else TransactionError
                    raise aborted(f"The transaction is aborted: {result}") from result

    def _finished(self) -> dict[KafkaSubscription, list[Settlement]]:
        finished: dict[KafkaSubscription, list[Settlement]] = {}
        for settlement in self._settlements:
            if not isinstance(settlement.delivery, KafkaDelivery):
                raise TransactionError(f"{settlement.delivery!r} was not received from Kafka; settle it by itself.")
            if settlement.outcome is Outcome.ACK:
                finished.setdefault(settlement.delivery.subscription, []).append(settlement)
        return finished

    def aborted(self) -> None:
        """It has ended, and nothing more comes of it."""
        self._ended = True
        if not self.is_in_doubt:  # else the group stays where the transaction has left it
            for subscription, these in self._held.items():
                subscription.release(these, committed=False)

    def settled(self) -> None:
        """The commit is done: carry the settlements out here."""
        for subscription, these in self._held.items():
            subscription.release(these, committed=True)
        by_subscription: dict[KafkaSubscription, list[Settlement]] = {}
        for settlement in self._settlements:
            by_subscription.setdefault(settlement.delivery.subscription, []).append(settlement)  # type: ignore[attr-defined]
        for subscription, these in by_subscription.items():
            subscription.settle(these)  # type: ignore[unused-awaitable]  # done when it returns


class Transactions:
    """The transactional producer of a transport: one transaction after the other, each by who began it."""

    def __init__(self, settings: KafkaSettings, check_topic: Callable[[str], None]) -> None:
        self._settings = settings
        self._check_topic = check_topic
        self._timeout = settings.own["transaction.commit.timeout.ms"]
        given = settings.options.get("transactional.id")
        self._id = str(given or f"{settings.client_id}-{current_runtime().new_id()}")
        """Stays the same where the client is replaced, so that what the one before left open is aborted."""
        self._is_shared = given is not None
        """Whether another client may have the same id: who was fenced by it must not fence it in turn."""
        self._fenced: FencedError | None = None
        self._publisher: Publisher | None = None
        self._lock = asyncio.Lock()
        self._owner: asyncio.Task[object] | None = None

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[KafkaTransaction]:
        """See `Transactional`. Others that want to begin one wait for this one's end."""
        if self._owner is not None and self._owner is asyncio.current_task():
            raise TransactionError("This task is inside a transaction of this transport already; end that one first.")
        async with self._lock:
            self._owner = asyncio.current_task()
            try:
                publisher = await self._open()
                transaction = KafkaTransaction(publisher, self._check_topic)
                try:
                    self._begin(publisher)
                    yield transaction
                    await transaction.prepare()
                except BaseException as error:
                    await _to_the_end(self._abort(publisher, transaction, error))
                    raise
                await _to_the_end(self._end(publisher, transaction))
            finally:
                self._owner = None

    async def open(self) -> None:
        """Open the producer, which ends what a predecessor of the same id has left open.

        Raises:
            TransactionError: that failed; FencedError where a newer one has the id.
            AuthenticationError: the brokers refused the sign-in.
        """
        if self._publisher is None:  # else it is open, and the lock may be held by a block around this call
            async with self._lock:
                await self._open()

    def _begin(self, publisher: Publisher) -> None:
        try:
            publisher.client.begin_transaction()  # asks no broker
        except KafkaException as error:
            raise self._error(error, "beginning a transaction") from error

    def _error(self, error: KafkaException, doing: str) -> TransactionError:
        mapped = transaction_error(error, f"Kafka, {doing}")
        self._note_fence(mapped)
        return mapped

    def _note_fence(self, error: BaseException) -> None:
        if self._is_shared and isinstance(error, FencedError):
            self._fenced = error

    async def _open(self, *, looks_for_broker: bool = True) -> Publisher:
        if self._fenced is not None:
            raise FencedError(str(self._fenced)) from self._fenced
        if self._publisher is not None and self._publisher.is_lost:
            await self._replace(self._publisher)
        if self._publisher is None:
            publisher = Publisher(self._settings, self._id)
            try:
                if looks_for_broker:
                    await self._find_a_broker(publisher)
                await self._call(_OPENING, publisher.client.init_transactions, self._timeout)
            except BaseException:
                await publisher.close()
                raise
            self._publisher = publisher
        return self._publisher

    async def _find_a_broker(self, publisher: Publisher) -> None:
        """What opens it looks for a broker as long as a commit may take, and does not say that none lets it sign in."""
        connect, servers = self._settings.own["connect.timeout.ms"], self._settings.bootstrap_servers
        seconds = min(connect, self._timeout)
        try:
            await asyncio.to_thread(ask_about_topics, publisher.client, None, seconds, lambda: publisher.refused)
        except KafkaException as error:
            setting = "connect.timeout.ms" if seconds == connect else "transaction.commit.timeout.ms"
            raise TransactionAbortedError(
                f"Kafka, {_OPENING}: no broker answered at {servers} within {seconds:g} s ({setting}). Check the "
                "address, and that the broker runs."
            ) from error

    async def _end(self, publisher: Publisher, transaction: KafkaTransaction) -> None:
        try:
            await self._commit(publisher, transaction)
        except BaseException as error:
            await self._abort(publisher, transaction, error)
            raise
        transaction.settled()

    async def _commit(self, publisher: Publisher, transaction: KafkaTransaction) -> None:
        _check_open(publisher)
        for subscription, positions in transaction.positions.items():
            metadata = await subscription.group_metadata()
            _check_open(publisher)
            await self._call(
                "committing offsets in the transaction",
                publisher.client.send_offsets_to_transaction,
                positions,
                metadata,
                self._timeout,
            )
        _check_open(publisher)
        transaction.is_in_doubt = True
        try:
            await self._call("committing the transaction", publisher.client.commit_transaction, self._timeout)
        except TransactionAbortedError as error:
            await self._find_out(publisher, transaction, error)
        except TransactionError as error:
            transaction.is_in_doubt = isinstance(error, FencedError)  # whoever came next may have ended it either way
            raise

    async def _find_out(self, publisher: Publisher, transaction: KafkaTransaction, error: TransactionError) -> None:
        """No broker said what became of a commit: ask for the offsets that went with it, and return if they are there.

        The next client's opening ends the transaction, one way or the other, so that the answer is final.

        Raises:
            TransactionAbortedError: nothing was committed.
            TransactionError: it can't be told.
        """
        LOGGER.warning("what became of a transaction is not known, so its producer is replaced: %s", error)
        await self._replace(publisher)
        try:
            await self._open(looks_for_broker=False)
            answers = {
                await subscription.has_committed(positions) for subscription, positions in transaction.positions.items()
            }
        except TransactionError as unknown:
            answers, error = set(), unknown
        if answers == {False}:
            transaction.is_in_doubt = False
            raise TransactionAbortedError(f"The transaction is aborted: {error}") from error
        if answers != {True}:
            raise TransactionError(
                f"Whether the transaction was committed is not known: {error} Look for what it sent before it is done "
                "again."
            ) from error

    async def _abort(self, publisher: Publisher, transaction: KafkaTransaction, error: BaseException) -> None:
        self._note_fence(error)
        transaction.aborted()
        if publisher is not self._publisher:
            return
        if not publisher.is_lost:
            try:
                await self._call("aborting", publisher.client.abort_transaction, self._timeout)
            except TransactionError as failure:
                LOGGER.warning("the transaction could not be aborted, so its producer is replaced: %s", failure)
            else:
                return
        await self._replace(publisher)

    async def _replace(self, publisher: Publisher) -> None:
        """Let go of a client that does nothing any more: the next one takes its id, which aborts what it left open."""
        self._publisher = None
        publisher.is_lost = True
        publisher.fail(ConnectionLostError("The transactional producer was replaced; its transaction is aborted."))
        await publisher.close()

    async def _call(self, doing: str, call: Callable[..., T], *arguments: object) -> T:
        """Run a blocking call of the client beside the event loop, again where it says that it may be repeated."""
        deadline = current_runtime().monotonic() + self._timeout
        while True:
            try:
                return await asyncio.to_thread(call, *arguments)
            except KafkaException as error:
                reported = kafka_error(error)
                if reported.retriable() and current_runtime().monotonic() < deadline:
                    await current_runtime().sleep(0.1)
                    continue
                raise self._error(error, doing) from error

    async def close(self) -> None:
        """Close the producer; a transaction that is open is aborted."""
        if self._publisher is not None:
            publisher, self._publisher = self._publisher, None
            await publisher.close()


def _check_open(publisher: Publisher) -> None:
    if not publisher.takes:
        raise ClosedError("The producer was closed before its transaction had ended, so that is aborted.")


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Who is cancelled meanwhile waits for the end of ``work`` all the same, since the broker goes on with it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()
