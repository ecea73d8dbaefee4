"""`EventStoreContract`: all that `commons_events.sourcing.EventStore` says of itself, whatever database it is on."""

from __future__ import annotations

from commons_events.testing.contracts._event_store_appending import AppendingTests
from commons_events.testing.contracts._event_store_following import FollowingTests
from commons_events.testing.contracts._event_store_groups import GroupTests
from commons_events.testing.contracts._event_store_input import InputTests
from commons_events.testing.contracts._event_store_model import ModelTests
from commons_events.testing.contracts._event_store_reading import ReadingTests
from commons_events.testing.contracts._event_store_transactions import TransactionTests

__all__ = ["EventStoreContract"]


class EventStoreContract(
    AppendingTests,
    InputTests,
    ReadingTests,
    TransactionTests,
    FollowingTests,
    GroupTests,
    ModelTests,
    contract=True,
):
    """The contract of an event store: subclass it, give it `make_store`, and run pytest.

    `make_store` is called several times in a test, and each store that it makes is on the same database.

    Class attributes:
        has_sql: whether the store's transactions execute SQL.
        writers: how many writers write at once.
        max_examples: how many histories are compared with the model.
        hang_after: seconds after which a test has hung.
    """
