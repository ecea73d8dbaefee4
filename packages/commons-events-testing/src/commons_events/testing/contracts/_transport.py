"""`TransportContract`: everything that `commons_events.transport` says about a broker."""

from __future__ import annotations

from commons_events.testing.contracts._transport_closing import ClosingTests
from commons_events.testing.contracts._transport_groups import GroupTests
from commons_events.testing.contracts._transport_messages import MessageTests
from commons_events.testing.contracts._transport_optional import OptionalTests
from commons_events.testing.contracts._transport_publishing import PublishingTests
from commons_events.testing.contracts._transport_receiving import ReceivingTests
from commons_events.testing.contracts._transport_settling import SettlingTests
from commons_events.testing.contracts._transport_transactions import TransactionTests

__all__ = ["TransportContract"]


class TransportContract(
    PublishingTests,
    MessageTests,
    ReceivingTests,
    SettlingTests,
    GroupTests,
    ClosingTests,
    OptionalTests,
    TransactionTests,
    contract=True,
):
    """The contract of a `Transport`: subclass it, give it `make_transport`, and run pytest.

    Example::

        class TestMyTransport(TransportContract):
            async def make_transport(self) -> Transport:
                return MyTransport.from_settings(TransportSettings(url="my://localhost"))

            async def lose(self, subscription: Subscription) -> None:
                subscription.connection.abort()
    """
